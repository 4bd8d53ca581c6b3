"""The typed contract's requests: checked, rendered in OpenAI's format, and the same when read back."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from dialects.chat_messages import MAX_PARTS
from dialects.chat_tools import MAX_CALLS
from dialects.typed_request import read_typed
from dialects.typed_tools import MAX_TOOLS
from gen.weir.router.v1 import GenerateRequest, RouteOptions
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
from meshkit.errors import InvalidRequest

PICTURE = "data:image/png;base64,iVBORw0KGgo="
PDF = "data:application/pdf;base64,AA=="
USER = ChatMessage(role=Role.USER, content="hi")
NOW = Tool(name="now", description="the time", parameters_json_schema=' {"type" : "object"}\n')
SCHEMA = JsonSchemaFormat(name="out", schema='{"type":"object"}')


def asked(*messages: ChatMessage, **fields: object) -> GenerateRequest:
    """A request of these messages."""
    request = GenerateRequest(messages=list(messages) or [USER])
    for name, value in fields.items():
        setattr(request, name, value)
    return request


def user(*parts: ContentPart) -> ChatMessage:
    """A question in parts."""
    return ChatMessage(role=Role.USER, parts=list(parts))


def seen(url: str, detail: str = "") -> GenerateRequest:
    """A request with one picture."""
    return asked(user(ContentPart(image=Image(url=url, detail=detail))))


def heard(data: bytes, sound: str) -> GenerateRequest:
    """A request with one recording."""
    return asked(user(ContentPart(audio=Audio(data=data, format=sound))))


def filed(**file: str) -> GenerateRequest:
    """A request with one file."""
    return asked(user(ContentPart(file=File(**file))))


def called(*calls: ToolCall) -> GenerateRequest:
    """A request with an answer that called."""
    return asked(USER, ChatMessage(role=Role.ASSISTANT, tool_calls=list(calls)))


def form(**changes: Any) -> ResponseFormat:
    """An answer's form."""
    return ResponseFormat(json_schema=replace(SCHEMA, **changes))


EVERYTHING = asked(
    user(
        ContentPart(text="what"),
        ContentPart(image=Image(url=PICTURE, detail="low")),
        ContentPart(audio=Audio(data=b"\x00\xff", format="wav")),
        ContentPart(file=File(filename="a.pdf", file_data=PDF)),
        ContentPart(file=File(file_id="file-1")),
    ),
    ChatMessage(role=Role.ASSISTANT, tool_calls=[ToolCall(id="c1", name="now", arguments="{}")]),
    ChatMessage(role=Role.TOOL, content="7", tool_call_id="c1"),
    sampling=Sampling(max_output_tokens=5, stop=["x"], presence_penalty=-1.5, frequency_penalty=0.0),
    tools=[NOW, Tool(name="f", strict=True)],
    tool_choice=ToolChoice(function="f"),
    parallel_tool_calls=False,
    response_format=form(description="d"),
    route=RouteOptions(targets=["local"]),
)


def test_everything_becomes_openai() -> None:
    """A provider is sent all of the request in OpenAI's own words."""
    sent = json.loads(read_typed(EVERYTHING).body("m", stream=True))
    messages = sent.pop("messages")
    assert messages[0]["content"] == [
        {"type": "text", "text": "what"},
        {"type": "image_url", "image_url": {"url": PICTURE, "detail": "low"}},
        {"type": "input_audio", "input_audio": {"data": "AP8=", "format": "wav"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": PDF}},
        {"type": "file", "file": {"file_id": "file-1"}},
    ]
    call = {"id": "c1", "type": "function", "function": {"name": "now", "arguments": "{}"}}
    assert messages[1:] == [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "7", "tool_call_id": "c1"},
    ]
    now = {"name": "now", "description": "the time", "parameters": {"type": "object"}}
    schema = {"name": "out", "schema": {"type": "object"}, "description": "d"}
    assert sent == {
        "model": "m",
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 5,
        "stop": ["x"],
        "presence_penalty": -1.5,
        "frequency_penalty": 0.0,
        "tools": [
            {"type": "function", "function": now},
            {"type": "function", "function": {"name": "f", "strict": True}},
        ],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "parallel_tool_calls": False,
        "response_format": {"type": "json_schema", "json_schema": schema},
    }


def test_needs_name_places_of_the_typed_contract() -> None:
    """What not every target can do is collected with the place that asks for it."""
    request = read_typed(EVERYTHING)
    assert dict(request.needs) == {
        "vision": "messages[0].parts[1]",
        "audio": "messages[0].parts[2]",
        "file": "messages[0].parts[3]",
        "tools": "messages[1].tool_calls",
        "tools.strict": "tools[1].strict",
        "tool_choice": "tool_choice.function",
        "json_schema": "response_format",
        "tools.response_format": "response_format",
    }
    assert (request.stream, request.include_usage, request.choices) == (True, True, 1)


def test_our_own_models_read_text() -> None:
    """Parts of text become content, and what our models cannot read is left out of what they are given."""
    parts = [ContentPart(text="a"), ContentPart(image=Image(url=PICTURE)), ContentPart(text="b")]
    request = read_typed(asked(user(*parts), route=RouteOptions(targets=["local"])))
    assert request.typed == GenerateRequest(
        messages=[ChatMessage(role=Role.USER, content="ab")], sampling=Sampling()
    )


def test_a_typed_request_is_not_altered() -> None:
    """Over an in-process transport the message is the caller's own."""
    request = asked(user(ContentPart(text="hi")), tools=[NOW])
    read_typed(request)
    assert request == asked(user(ContentPart(text="hi")), tools=[NOW])
    assert request.sampling is None


def test_text_tells_how_long_a_prompt_is() -> None:
    """Estimates count texts, calls, results and tools, and no picture."""
    assert read_typed(asked(ChatMessage(role=Role.USER, content="hé"))).prompt_bytes == 3
    picture = ContentPart(image=Image(url=PICTURE + "A" * 100_000))
    assert read_typed(asked(user(ContentPart(text="hé"), picture))).prompt_bytes == 3
    call = ToolCall(id="c", name="now", arguments="{}")
    assert read_typed(called(call)).prompt_bytes == len("hi") + len("now") + len("{}")
    assert read_typed(asked(tools=[NOW])).prompt_bytes > len("hi") + len(NOW.description)


@pytest.mark.parametrize(
    ("fields", "sent"),
    [
        ({}, {}),
        ({"tool_choice": ToolChoice()}, {}),
        ({"tool_choice": ToolChoice(mode=ToolMode.AUTO), "parallel_tool_calls": True}, {}),
        ({"tools": [Tool(name="f")], "tool_choice": ToolChoice(mode=ToolMode.UNSPECIFIED)}, {"tools": ...}),
        ({"tools": [Tool(name="f")], "parallel_tool_calls": True}, {"tools": ..., "parallel_tool_calls": True}),
        (
            {"tools": [Tool(name="f")], "tool_choice": ToolChoice(mode=ToolMode.NONE)},
            {"tools": ..., "tool_choice": "none"},
        ),
        (
            {"tools": [Tool(name="f")], "tool_choice": ToolChoice(mode=ToolMode.REQUIRED)},
            {"tools": ..., "tool_choice": "required"},
        ),
        (
            {"response_format": ResponseFormat(json_object=JsonObjectFormat())},
            {"response_format": {"type": "json_object"}},
        ),
    ],
)  # fmt: skip
def test_what_says_nothing_is_not_sent(fields: dict[str, object], sent: dict[str, object]) -> None:
    """Providers refuse a choice among no tools."""
    body = json.loads(read_typed(asked(**fields)).body("m", stream=False))
    about = {"tools", "tool_choice", "parallel_tool_calls", "response_format"} & body.keys()
    assert about == sent.keys()
    assert {name: body[name] for name in about - {"tools"}} == {
        name: value for name, value in sent.items() if name != "tools"
    }


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        (GenerateRequest(), "messages"),
        (asked(*[USER] * 16_385), "messages"),
        (asked(ChatMessage(content="x")), "messages[0].role"),
        (asked(USER, ChatMessage(role=Role(9), content="x")), "messages[1].role"),
        (asked(ChatMessage(role=Role.USER)), "messages[0].content"),
        (asked(ChatMessage(role=Role.SYSTEM)), "messages[0].content"),
        (asked(ChatMessage(role=Role.USER, content="x", parts=[ContentPart(text="y")])), "messages[0].parts"),
        (asked(user(*[ContentPart(text="y")] * (MAX_PARTS + 1))), "messages[0].parts"),
        (asked(user(ContentPart())), "messages[0].parts[0]"),
        (asked(user(ContentPart(text="a"), ContentPart(text=""))), "messages[0].parts[1].text"),
        (asked(user(ContentPart(text="a", image=Image(url=PICTURE)))), "messages[0].parts[0]"),
        (seen(""), "messages[0].parts[0].image.url"),
        (seen("http://example.com/a.png"), "messages[0].parts[0].image.url"),
        (seen("https:///a.png"), "messages[0].parts[0].image.url"),
        (seen("file:///etc/passwd"), "messages[0].parts[0].image.url"),
        (seen("data:image/png,plain"), "messages[0].parts[0].image.url"),
        (seen("data:image/png;base64,"), "messages[0].parts[0].image.url"),
        (seen(PICTURE, "closely"), "messages[0].parts[0].image.detail"),
        (heard(b"", "wav"), "messages[0].parts[0].audio.data"),
        (heard(b"x", "ogg"), "messages[0].parts[0].audio.format"),
        (filed(), "messages[0].parts[0].file.file_data"),
        (filed(filename="a.pdf"), "messages[0].parts[0].file.file_data"),
        (filed(filename="a.pdf", file_data="https://example.com"), "messages[0].parts[0].file.file_data"),
        (filed(file_id="f", filename="a.pdf"), "messages[0].parts[0].file.file_id"),
        (asked(USER, ChatMessage(role=Role.USER, content="x", tool_call_id="c")), "messages[1].tool_call_id"),
        (asked(USER, USER, ChatMessage(role=Role.TOOL, content="x")), "messages[2].tool_call_id"),
        (
            asked(ChatMessage(role=Role.USER, content="x", tool_calls=[ToolCall(id="c", name="f")])),
            "messages[0].tool_calls",
        ),
        (called(ToolCall(name="f")), "messages[1].tool_calls[0].id"),
        (called(ToolCall(id="c", name="f"), ToolCall(id="c")), "messages[1].tool_calls[1].name"),
        (called(*[ToolCall(id="c", name="f")] * (MAX_CALLS + 1)), "messages[1].tool_calls"),
        (asked(sampling=Sampling(temperature=float("nan"))), "sampling.temperature"),
        (asked(sampling=Sampling(max_output_tokens=0)), "sampling.max_output_tokens"),
        (asked(sampling=Sampling(stop=["x"] * 5)), "sampling.stop"),
        (asked(sampling=Sampling(presence_penalty=2.5)), "sampling.presence_penalty"),
        (asked(sampling=Sampling(seed=2**63)), "sampling.seed"),
        (asked(tools=[NOW] * (MAX_TOOLS + 1)), "tools"),
        (asked(tools=[NOW, Tool()]), "tools[1].name"),
        (asked(tools=[Tool(name="a b")]), "tools[0].name"),
        (asked(tools=[Tool(name="a\n")]), "tools[0].name"),
        (asked(tools=[Tool(name="a" * 65)]), "tools[0].name"),
        (asked(tools=[Tool(name="a", parameters_json_schema="{")]), "tools[0].parameters_json_schema"),
        (asked(tools=[Tool(name="a", parameters_json_schema="[]")]), "tools[0].parameters_json_schema"),
        (
            asked(tools=[Tool(name="a", parameters_json_schema='{"a":' + "[" * 9_000 + "]" * 9_000 + "}")]),
            "tools[0].parameters_json_schema",
        ),
        (asked(tools=[NOW], tool_choice=ToolChoice(mode=ToolMode.AUTO, function="now")), "tool_choice"),
        (asked(tools=[NOW], tool_choice=ToolChoice(mode=ToolMode(9))), "tool_choice.mode"),
        (asked(tool_choice=ToolChoice(mode=ToolMode.REQUIRED)), "tool_choice.mode"),
        (asked(tools=[NOW], tool_choice=ToolChoice(function="then")), "tool_choice.function"),
        (asked(response_format=ResponseFormat()), "response_format"),
        (
            asked(response_format=ResponseFormat(json_object=JsonObjectFormat(), json_schema=SCHEMA)),
            "response_format",
        ),
        (asked(response_format=form(name="")), "response_format.json_schema.name"),
        (asked(response_format=form(schema="")), "response_format.json_schema.schema"),
        (asked(response_format=form(schema="null")), "response_format.json_schema.schema"),
    ],
)
def test_a_bad_request_names_the_place(request_: GenerateRequest, param: str) -> None:
    """Every rule of the contract is checked, and its breach named under the contract's own names."""
    with pytest.raises(InvalidRequest) as caught:
        read_typed(request_)
    assert caught.value.param == param
    assert caught.value.message.startswith(param)


@pytest.mark.parametrize(
    "url", ["https://example.com/a.png", "HTTPS://a", "data:image/svg+xml;charset=utf-8;base64,AA=="]
)
def test_urls_that_are_taken(url: str) -> None:
    """Any https URL, and data URLs with parameters."""
    assert url.encode() in read_typed(seen(url)).body("m", stream=False)


def test_an_empty_answer_and_an_empty_result() -> None:
    """An answer may hold nothing but calls, and a tool may have nothing to say."""
    talk = (
        USER,
        ChatMessage(role=Role.ASSISTANT),
        ChatMessage(role=Role.ASSISTANT, tool_calls=[ToolCall(id="c", name="f")]),
        ChatMessage(role=Role.TOOL, tool_call_id="c"),
    )
    sent = json.loads(read_typed(asked(*talk)).body("m", stream=False))["messages"]
    assert [message["content"] for message in sent] == ["hi", "", None, ""]
