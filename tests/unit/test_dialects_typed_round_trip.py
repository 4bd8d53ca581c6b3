"""The typed contract's requests rendered in OpenAI's format and read back."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from dialects.chat_request import read
from dialects.typed_request import read_typed
from gen.weir.router.v1 import GenerateRequest
from gen.weir.type.v1 import (
    Audio,
    ChatMessage,
    ContentPart,
    File,
    Image,
    JsonObjectFormat,
    JsonSchemaFormat,
    ResponseFormat,
    Role,
    Sampling,
    Tool,
    ToolCall,
    ToolChoice,
    ToolMode,
)

PICTURE = "data:image/png;base64,iVBORw0KGgo="
_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_WORDS = _TEXTS.filter(bool)
_NAMES = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)
_SCHEMAS = st.dictionaries(
    _TEXTS,
    st.recursive(
        st.none() | st.booleans() | st.integers(-(10**6), 10**6) | _TEXTS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
        max_leaves=8,
    ),
    max_size=3,
)
_SCHEMA_TEXTS = st.builds(
    lambda value, indent, ascii_only: f" {json.dumps(value, indent=indent, ensure_ascii=ascii_only)}\n",
    _SCHEMAS,
    st.sampled_from([None, 1]),
    st.booleans(),
)
_PARTS = st.one_of(
    st.builds(ContentPart, text=_WORDS),
    st.builds(
        ContentPart,
        image=st.builds(
            Image, url=st.sampled_from([PICTURE, "https://a.b/c"]), detail=st.sampled_from(["", "auto"])
        ),
    ),
    st.builds(
        ContentPart,
        audio=st.builds(
            Audio, data=st.binary(min_size=1, max_size=9), format=st.sampled_from(["wav", "mp3"])
        ),
    ),
    st.builds(ContentPart, file=st.builds(File, file_id=_WORDS)),
    st.builds(ContentPart, file=st.builds(File, filename=_TEXTS, file_data=st.just(PICTURE))),
)
_CALLS = st.lists(st.builds(ToolCall, id=_WORDS, name=_WORDS, arguments=_TEXTS), max_size=2)
_MESSAGES = st.one_of(
    st.builds(ChatMessage, role=st.sampled_from([Role.SYSTEM, Role.USER]), content=_WORDS),
    st.builds(
        ChatMessage, role=st.sampled_from([Role.SYSTEM, Role.USER]), parts=st.lists(_PARTS, min_size=1, max_size=3)
    ),
    st.builds(ChatMessage, role=st.just(Role.ASSISTANT), content=_TEXTS, tool_calls=_CALLS),
    st.builds(
        ChatMessage,
        role=st.just(Role.ASSISTANT),
        parts=st.lists(_PARTS, min_size=1, max_size=3),
        tool_calls=_CALLS,
    ),
    st.builds(ChatMessage, role=st.just(Role.TOOL), content=_TEXTS, tool_call_id=_WORDS),
)  # fmt: skip
_FLOATS = st.none() | st.floats(-2, 2)
_SAMPLING = st.none() | st.builds(
    Sampling,
    max_output_tokens=st.none() | st.integers(1, 2**31 - 1),
    temperature=st.none() | st.floats(0, 2),
    top_p=st.none() | st.floats(0, 1, exclude_min=True),
    stop=st.lists(_WORDS, max_size=4),
    seed=st.none() | st.integers(-(2**63), 2**63 - 1),
    presence_penalty=_FLOATS,
    frequency_penalty=_FLOATS,
)
_TOOLS = st.lists(
    st.builds(
        Tool,
        name=_NAMES,
        description=_TEXTS,
        parameters_json_schema=st.just("") | _SCHEMA_TEXTS,
        strict=st.booleans(),
    ),
    max_size=3,
)
_FORMATS = st.none() | st.one_of(
    st.just(ResponseFormat(json_object=JsonObjectFormat())),
    st.builds(
        ResponseFormat,
        json_schema=st.builds(
            JsonSchemaFormat,
            name=_NAMES,
            schema=_SCHEMA_TEXTS,
            description=_TEXTS,
            strict=st.booleans(),
        ),
    ),
)


@st.composite
def _requests(draw: st.DrawFn) -> GenerateRequest:
    """Any request that keeps the contract."""
    tools = draw(_TOOLS)
    modes = [ToolMode.UNSPECIFIED, ToolMode.AUTO, ToolMode.NONE] + [ToolMode.REQUIRED] * bool(tools)
    choices = [None, ToolChoice(), *(ToolChoice(mode=mode) for mode in modes)]
    choices += [ToolChoice(function=tool.name) for tool in tools]
    return GenerateRequest(
        model=draw(_TEXTS),
        messages=draw(st.lists(_MESSAGES, min_size=1, max_size=4)),
        sampling=draw(_SAMPLING),
        tools=tools,
        tool_choice=draw(st.sampled_from(choices)),
        parallel_tool_calls=draw(st.none() | st.booleans()),
        response_format=draw(_FORMATS),
    )


@given(_requests())
def test_a_rendered_request_reads_the_same(request: GenerateRequest) -> None:
    """Whichever face a request comes through, targets of our own are given the same, and the same ones can answer."""
    ours = read_typed(request)
    theirs = read(ours.body(request.model, stream=True))
    assert theirs.typed == ours.typed
    assert theirs.needs.keys() == ours.needs.keys()
    assert (theirs.stream, theirs.include_usage, theirs.choices) == (True, True, 1)
