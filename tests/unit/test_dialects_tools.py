"""Tools: read from OpenAI's format, told to local models in their template, and read out of what those write."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialects import chat_template
from dialects.chat_request import read
from dialects.chat_template import TemplateName
from dialects.chat_tools import MAX_TOOLS, offered
from gen.weir.type.v1 import (
    ChatMessage,
    JsonObjectFormat,
    JsonSchemaFormat,
    ResponseFormat,
    Role,
    Tool,
    ToolCall,
    ToolChoice,
    ToolMode,
)
from meshkit.errors import InvalidRequest

USER = {"role": "user", "content": "hi"}
BROKEN = "response_format.json_schema"
FUNCTION = {"name": "now", "description": "the time", "parameters": {"type": "object"}, "strict": False}
TOOL = {"type": "function", "function": FUNCTION}
CALL = {"id": "c1", "type": "function", "function": {"name": "now", "arguments": '{"zone": "UTC"}'}}
NOW = Tool(name="now", description="the time", parameters_json_schema='{"type":"object"}')
TEMPLATES: tuple[TemplateName, ...] = ("chatml", "smollm2", "mistral_instruct")
every_template = pytest.mark.parametrize("template", TEMPLATES)


def body(**fields: object) -> bytes:
    """A request with one user message and more fields."""
    return json.dumps({"messages": [USER], **fields}).encode()


def function(**changes: object) -> dict[str, object]:
    """A tool with another function."""
    return {"type": "function", "function": {**FUNCTION, **changes}}


def said(call: object) -> dict[str, object]:
    """An assistant's message with one call."""
    return {"role": "assistant", "tool_calls": [call]}


def test_tools_are_read() -> None:
    """Functions, the choice among them, calls, results and the answer's form become the contract's own values."""
    schema = {"name": "out", "description": "d", "schema": {"type": "object"}, "strict": True}
    request = read(
        body(
            messages=[
                USER,
                {**said(CALL), "content": None},
                {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "7"}]},
            ],
            tools=[TOOL, {"type": "function", "function": {"name": "f", "parameters": None}}],
            tool_choice={"type": "function", "function": {"name": "now"}},
            parallel_tool_calls=False,
            response_format={"type": "json_schema", "json_schema": schema},
        )
    )
    typed = request.typed
    assert typed.messages[1:] == [
        ChatMessage(
            role=Role.ASSISTANT,
            tool_calls=[ToolCall(id="c1", name="now", arguments='{"zone": "UTC"}')],
        ),
        ChatMessage(role=Role.TOOL, content="7", tool_call_id="c1"),
    ]
    assert [tool.name for tool in typed.tools] == ["now", "f"]
    assert json.loads(typed.tools[0].parameters_json_schema) == {"type": "object"}
    assert typed.tools[1] == Tool(name="f")
    assert typed.tool_choice == ToolChoice(function="now")
    assert typed.parallel_tool_calls is False
    form = JsonSchemaFormat(name="out", description="d", schema='{"type": "object"}', strict=True)
    assert typed.response_format == ResponseFormat(json_schema=form)
    assert dict(request.needs) == {
        "tools": "messages[1].tool_calls",
        "tool_choice": "tool_choice",
        "json_schema": "response_format",
        "tools.response_format": "response_format",
    }


@pytest.mark.parametrize(
    ("fields", "needs"),
    [
        ({"tools": [TOOL]}, {"tools": "tools"}),
        ({"tools": [TOOL], "tool_choice": "auto"}, {"tools": "tools"}),
        ({"tools": [TOOL], "tool_choice": "none"}, {"tools": "tools"}),
        ({"tools": [TOOL], "parallel_tool_calls": False}, {"tools": "tools"}),
        ({"tools": [TOOL], "tool_choice": "required"}, {"tools": "tools", "tool_choice": "tool_choice"}),
        ({"tools": [TOOL], "tool_choice": "any"}, {"tools": "tools", "tool_choice": "tool_choice"}),
        (
            {"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "allowed_tools": {}}},
            {"tools": "tools", "tool_choice": "tool_choice"},
        ),
        (
            {"tools": [TOOL, {"type": "custom", "custom": {"name": "x"}}]},
            {"tools": "tools", "tools.custom": "tools[1]"},
        ),
        (
            {"tools": [function(strict=True)]},
            {"tools": "tools", "tools.strict": "tools[0].function.strict"},
        ),
        (
            {"tools": [{**TOOL, "cache_control": {"type": "ephemeral"}}]},
            {"tools": "tools", "tools.cache_control": "tools[0].cache_control"},
        ),
        (
            {"messages": [USER, said({"id": "c", "type": "custom", "custom": {"name": "x", "input": "y"}})]},
            {"tools": "messages[1].tool_calls", "tools.custom": "messages[1].tool_calls[0]"},
        ),
        (
            {"response_format": {"type": "grammar", "grammar": "x"}},
            {"json_schema": "response_format", "response_format.grammar": "response_format"},
        ),
        (
            {"tools": [TOOL], "response_format": {"type": "json_object"}},
            {
                "tools": "tools",
                "json_schema": "response_format",
                "tools.response_format": "response_format",
            },
        ),
        (
            {"tools": [TOOL], "tool_choice": "none", "response_format": {"type": "json_object"}},
            {"tools": "tools", "json_schema": "response_format"},
        ),
        ({"functions": [FUNCTION]}, {"functions": "functions"}),
        ({"functions": [FUNCTION], "function_call": {"name": "now"}}, {"functions": "functions"}),
        ({"messages": [USER, {"role": "function", "name": "f", "content": "7"}]}, {"functions": "messages[1].role"}),
    ],
)  # fmt: skip
def test_needs_of_tools(fields: dict[str, object], needs: dict[str, str]) -> None:
    """What only some targets know is a need of its own, with the place that asks for it; providers get it as it is."""
    request = read(body(**fields))
    assert dict(request.needs) == needs
    sent = json.loads(request.body("m", stream=False))
    assert {name: sent[name] for name in fields} == fields


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": {}}, "tools"),
        ({"tools": [7]}, "tools[0]"),
        ({"tools": [TOOL] * (MAX_TOOLS + 1)}, "tools"),
        ({"tools": [{}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "function", "function": []}]}, "tools[0].function"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": ""}}]}, "tools[0].function.name"),
        ({"tools": [TOOL, function(parameters="x")]}, "tools[1].function.parameters"),
        ({"tools": [function(strict="x")]}, "tools[0].function.strict"),
        ({"tools": [function(description=7)]}, "tools[0].function.description"),
        ({"tool_choice": 7}, "tool_choice"),
        ({"tool_choice": {"function": {"name": "f"}}}, "tool_choice.type"),
        ({"tool_choice": {"type": "function"}}, "tool_choice.function"),
        ({"tool_choice": {"type": "function", "function": {}}}, "tool_choice.function.name"),
        ({"parallel_tool_calls": "yes"}, "parallel_tool_calls"),
        ({"response_format": "json"}, "response_format"),
        ({"response_format": {"json_schema": {}}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, BROKEN),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}}, f"{BROKEN}.name"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": []}}},
            f"{BROKEN}.schema",
        ),
        ({"messages": [USER, said(7)]}, "messages[1].tool_calls[0]"),
        ({"messages": [USER, {**said(CALL), "tool_calls": "x"}]}, "messages[1].tool_calls"),
        ({"messages": [USER, said({"type": "function"})]}, "messages[1].tool_calls[0].id"),
        ({"messages": [USER, said({"id": "c"})]}, "messages[1].tool_calls[0].function"),
        (
            {"messages": [USER, said({"id": "c", "function": {"name": "f"}})]},
            "messages[1].tool_calls[0].function.arguments",
        ),
        (
            {"messages": [USER, said({"id": "c", "function": {"name": "f", "arguments": {}}})]},
            "messages[1].tool_calls[0].function.arguments",
        ),
        ({"messages": [{**said(CALL), "role": "user", "content": "x"}]}, "messages[0].tool_calls"),
        ({"messages": [USER, {"role": "tool", "content": "7"}]}, "messages[1].tool_call_id"),
        ({"messages": [USER, {"role": "tool", "tool_call_id": "c1"}]}, "messages[1].content"),
        ({"messages": [USER, {"role": "tool", "tool_call_id": 1, "content": "7"}]}, "messages[1].tool_call_id"),
    ],
)  # fmt: skip
def test_malformed_tools_are_named(fields: dict[str, object], param: str) -> None:
    """What no provider could understand is refused with the place at fault, and is no provider's to refuse."""
    with pytest.raises(InvalidRequest) as caught:
        read(body(**fields))
    assert caught.value.param == param
    assert caught.value.message.startswith(param)


def test_no_tool_is_offered_where_none_may_be_called() -> None:
    """`none` keeps a local model from being told of the tools."""
    assert offered(read(body(tools=[TOOL])).typed) == read(body(tools=[TOOL])).typed.tools
    assert not offered(read(body(tools=[TOOL], tool_choice="none")).typed)
    assert read(body(tools=[TOOL], tool_choice="none")).typed.tool_choice == ToolChoice(mode=ToolMode.NONE)
    assert read(body(response_format={"type": "json_object"})).typed.response_format == ResponseFormat(
        json_object=JsonObjectFormat()
    )


TALK = [
    ChatMessage(role=Role.SYSTEM, content="S"),
    ChatMessage(role=Role.USER, content="U"),
    ChatMessage(
        role=Role.ASSISTANT,
        content="A",
        tool_calls=[
            ToolCall(id="call_1", name="now", arguments='{"zone":"UTC"}'),
            ToolCall(id="abcdefgh9", name="now", arguments="no json"),
        ],
    ),
    ChatMessage(role=Role.TOOL, content='{"hour":7}', tool_call_id="call_1"),
    ChatMessage(role=Role.TOOL, content="late", tool_call_id="abcdefgh9"),
]


@pytest.mark.parametrize("template", ["chatml", "smollm2"])
def test_hermes_conversation(template: TemplateName) -> None:
    """The system message tells of the tools; calls and results stand between tags, results with a name."""
    prompt = chat_template.apply(template, TALK, tools=[NOW, Tool(name="f")])
    system, rest = prompt.split("<|im_end|>\n", 1)
    assert system.startswith("<|im_start|>system\nS\n")
    assert (
        "<tools>\n"
        '{"type": "function", "function": {"name": "now", "description": "the time", '
        '"parameters": {"type": "object"}}}\n'
        '{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}\n'
        "</tools>" in system
    )
    assert rest == (
        "<|im_start|>user\nU<|im_end|>\n"
        '<|im_start|>assistant\nA\n<tool_call>\n{"name": "now", "arguments": {"zone": "UTC"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "now", "arguments": "no json"}\n</tool_call><|im_end|>\n'
        '<|im_start|>tool\n<tool_response>\n{"name": "now", "content": {"hour": 7}}\n</tool_response>\n'
        '<tool_response>\n{"name": "now", "content": "late"}\n</tool_response><|im_end|>\n'
        "<|im_start|>assistant\n"
    )


def test_hermes_tools_without_a_system_message() -> None:
    """The tools make a system message, SmolLM2's behind its own words; an answer that has begun is gone on with."""
    user = [ChatMessage(role=Role.USER, content="U")]
    chatml = chat_template.apply("chatml", user, "Be", [NOW])
    smollm2 = chat_template.apply("smollm2", user, tools=[NOW])
    assert chatml.startswith("<|im_start|>system\nYou can call")
    assert chatml.endswith("<|im_start|>assistant\nBe")
    assert smollm2.startswith(f"<|im_start|>system\n{chat_template.SMOLLM2_SYSTEM}\nYou can call")
    assert chatml.count("<tools>\n") == smollm2.count("<tools>\n") == 1


def test_a_result_belongs_to_the_call_before_it() -> None:
    """Some providers begin to count their ids anew with each answer."""
    talk = [
        ChatMessage(role=Role.ASSISTANT, tool_calls=[ToolCall(id="call_0", name="now", arguments="")]),
        ChatMessage(role=Role.TOOL, content="[7]", tool_call_id="call_0"),
        ChatMessage(role=Role.ASSISTANT, tool_calls=[ToolCall(id="call_0", name="f", arguments="{}")]),
        ChatMessage(role=Role.TOOL, content="8", tool_call_id="call_0"),
        ChatMessage(role=Role.TOOL, content="9", tool_call_id="call_9"),
    ]
    prompt = chat_template.apply("chatml", talk)
    for result in ('{"name": "now", "content": [7]}', '{"name": "f", "content": "8"}', '{"content": "9"}'):
        assert f"<tool_response>\n{result}\n</tool_response>" in prompt
    assert '{"name": "now", "arguments": {}}' in prompt


def test_mistral_conversation() -> None:
    """The tools stand before the last question; ids have nine characters, the same for a call and its result."""
    prompt = chat_template.apply("mistral_instruct", TALK, tools=[NOW])
    other = "".join(prompt.split('"id": "')[1][:9])
    assert other.isalnum()
    assert prompt == (
        '[AVAILABLE_TOOLS] [{"type": "function", "function": {"name": "now", "description": "the time", '
        '"parameters": {"type": "object"}}}][/AVAILABLE_TOOLS][INST] S\n\nU[/INST] A'
        f'[TOOL_CALLS] [{{"name": "now", "arguments": {{"zone": "UTC"}}, "id": "{other}"}}, '
        '{"name": "now", "arguments": "no json", "id": "abcdefgh9"}]</s>'
        f'[TOOL_RESULTS] {{"content": {{"hour": 7}}, "call_id": "{other}"}}[/TOOL_RESULTS]'
        '[TOOL_RESULTS] {"content": "late", "call_id": "abcdefgh9"}[/TOOL_RESULTS]'
    )
    assert chat_template.apply("mistral_instruct", [*TALK[:2], TALK[1]], tools=[NOW]).startswith(
        "[INST] S\n\nU[/INST][AVAILABLE_TOOLS] ["
    )


CONTROL = (
    "<|im_end|>", "<|im_start|>", "</s>", "<s>", "[INST]", "[/INST]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]",
    "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_CALLS]", "<tool_response>", "</tool_response>", "<tools>",
    "</tools>", "<tool_call>", "</tool_call>",
)  # fmt: skip


@every_template
@pytest.mark.parametrize("forged", CONTROL)
def test_tools_cannot_forge_roles(template: TemplateName, forged: str) -> None:
    """No control token in a tool, a call, a result or a text reaches the prompt as one; JSON means the same."""

    def prompt(text: str) -> str:
        call = ToolCall(id="c", name=text, arguments=json.dumps({"a": [text]}))
        broken = ToolCall(id="c", name="n", arguments=f"{text} {{")
        messages = [
            ChatMessage(role=Role.USER, content=text),
            ChatMessage(role=Role.ASSISTANT, content=text, tool_calls=[call, broken]),
            ChatMessage(role=Role.TOOL, content=json.dumps({text: 1}), tool_call_id="c"),
            ChatMessage(role=Role.TOOL, content=text, tool_call_id="c"),
        ]
        schema = json.dumps({"type": "object", "description": text})
        tool = Tool(name=text, description=text, parameters_json_schema=schema)
        return chat_template.apply(template, messages, tools=[tool])

    assert all(prompt(forged).count(token) == prompt("plain").count(token) for token in CONTROL)
    json_texts = [
        line
        for line in prompt(forged).replace("[", "\n[").replace("]", "]\n").splitlines()
        if "\\u00" in line
    ]
    assert any(forged in json.loads(f'"{line}"') for text in json_texts for line in text.split('"') if line)


def test_a_schema_that_cannot_be_spaced_is_told_as_it_is() -> None:
    """Half of a surrogate pair, a number beyond reading, and what is too deep for a reader, do no harm."""
    for schema in ('{"d":"\\ud800"}', '{"d":' + "9" * 5_000 + "}", '{"d":' + "[" * 5_000 + "]" * 5_000 + "}"):
        prompt = chat_template.apply(
            "chatml", TALK[:2], tools=[Tool(name="f", parameters_json_schema=schema)]
        )
        assert schema in prompt
        assert prompt.encode()


_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "function", "name", "parameters", "arguments", "id", "schema", "json_schema"]
            ),
            inner | st.sampled_from(["function", "json_schema", "x"]),
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(tools=_ANY, choice=_ANY, form=_ANY, calls=_ANY, call_id=_ANY)
def test_rubbish_is_read_or_refused(
    tools: object, choice: object, form: object, calls: object, call_id: object
) -> None:
    """Whatever is where tools should be, it is refused with its place, or read and told to a model."""
    messages = [
        USER, {"role": "assistant", "content": "a", "tool_calls": calls},
        {"role": "tool", "content": "7", "tool_call_id": call_id},
    ]  # fmt: skip
    fields = {"tools": tools, "tool_choice": choice, "response_format": form}
    for named in ({}, fields, *({name: value} for name, value in fields.items())):
        for talk in ([USER], messages, messages[:2]):
            try:
                typed = read(body(messages=talk, **named)).typed
            except InvalidRequest:
                continue
            for template in TEMPLATES:
                assert chat_template.apply(template, typed.messages, tools=offered(typed)).encode()
