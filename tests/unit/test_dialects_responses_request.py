"""OpenAI's Responses API, requests: what is passed on, what is translated to a chat, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dialects.request import Endpoint, Request
from dialects.responses_items import MAX_ITEMS, MAX_PARTS
from dialects.responses_request import read
from dialects.responses_tools import MAX_TOOLS
from gen.weir.type.v1 import Role
from meshkit.errors import InvalidRequest

CALL = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
ANSWER = {"type": "function_call_output", "call_id": "c1", "output": "7"}
TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True}
REFERENCE = {"type": "item_reference", "id": "msg_1"}
PICTURE = {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "low"}
WIZARD = {"role": "wizard", "content": "hi"}


def body(**fields: Any) -> bytes:
    """A request with a short input and more fields."""
    return json.dumps({"input": "hi", **fields}).encode()


def user(*parts: Any) -> dict[str, Any]:
    """A user's message of these parts."""
    return {"role": "user", "content": list(parts)}


def chat(request: Request) -> dict[str, Any]:
    """The chat completion as a target is sent it."""
    assert request.chat is not None
    sent: dict[str, Any] = json.loads(request.chat.body("m", stream=False))
    assert sent.pop("model") == "m"
    assert sent.pop("stream") is False
    return sent


def test_the_clients_json_is_passed_on() -> None:
    """A target with the Responses API gets every field; only the model's name and `stream` are Weir's."""
    request = read(
        body(
            model="a",
            store=True,
            x={"y": 1.0},
            fallbacks=["b"],
            stream_options={"include_obfuscation": False},
        )
    )
    assert request.endpoint is Endpoint.RESPONSES
    assert request.fallbacks == ("b",)
    assert request.include_usage
    assert not request.can_be_continued
    assert json.loads(request.body("m", stream=True)) == {
        "input": "hi",
        "model": "m",
        "store": True,
        "x": {"y": 1.0},
        "stream": True,
        "stream_options": {"include_obfuscation": False},
    }


def test_a_text_becomes_a_users_message() -> None:
    """`instructions` come first, as the system's; sampling has the chat's names; labels go along."""
    request = read(
        body(
            model="m1",
            instructions="be brief",
            max_output_tokens=9,
            temperature=0.5,
            top_p=0.9,
            metadata={"a": "b"},
            user="u",
            prompt_cache_options={"mode": "explicit"},
            store=False,
            background=None,
            truncation="disabled",
            include=[],
            text={"format": {"type": "text"}},
            tools=[],
            tool_choice="auto",
            parallel_tool_calls=True,
            top_logprobs=0,
        )
    )
    assert request.needs == {}
    assert request.typed.model == "m1"
    assert [(m.role, m.content) for m in request.typed.messages] == [
        (Role.SYSTEM, "be brief"),
        (Role.USER, "hi"),
    ]
    assert request.max_output_tokens == 9
    assert chat(request) == {
        "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}],
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "metadata": {"a": "b"},
        "user": "u",
        "prompt_cache_options": {"mode": "explicit"},
    }


def test_items_become_messages() -> None:
    """Calls join the assistant's message before them, an answer's own notes go, outputs are tools' messages."""
    items = [
        {"role": "developer", "content": "be kind"},
        {"type": "message", **user({"type": "input_text", "text": "a"}, PICTURE)},
        {
            "type": "message",
            "id": "msg_1",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "b", "annotations": [], "logprobs": []}],
        },
        {**CALL, "id": "fc_1", "status": "completed"},
        {**CALL, "call_id": "c2"},
        {"role": "assistant", "content": "wait"},
        ANSWER,
        {**ANSWER, "call_id": "c2", "output": [{"type": "input_text", "text": "8"}]},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
    ]
    function = {"type": "function", "function": {"name": "f", "arguments": "{}"}}
    parts = [{"type": "text", "text": "b"}, {"type": "text", "text": "wait"}]
    assert chat(read(body(input=items)))["messages"] == [
        {"role": "system", "content": "be kind"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "a"},
                {"type": "image_url", "image_url": {"url": PICTURE["image_url"], "detail": "low"}},
            ],
        },
        {
            "role": "assistant",
            "content": parts,
            "tool_calls": [{"id": "c1", **function}, {"id": "c2", **function}],
        },
        {"role": "tool", "content": "7", "tool_call_id": "c1"},
        {"role": "tool", "content": "8", "tool_call_id": "c2"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
    ]


def test_tools_and_forms_are_translated() -> None:
    """Functions lose one level of nesting on the way in and gain it on the way out."""
    schema = {"name": "n", "schema": {"type": "object"}, "strict": True, "description": "d"}
    sent = chat(
        read(
            body(
                tools=[TOOL, {"type": "function", "name": "g", "description": None, "parameters": None}],
                tool_choice={"type": "function", "name": "f"},
                parallel_tool_calls=False,
                text={"format": {"type": "json_schema", **schema}, "verbosity": "low"},
                reasoning={"effort": "low", "summary": None},
            )
        )
    )
    assert sent["tools"] == [
        {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "strict": True}},
        {"type": "function", "function": {"name": "g"}},
    ]
    assert sent["tool_choice"] == {"type": "function", "function": {"name": "f"}}
    assert sent["parallel_tool_calls"] is False
    assert sent["response_format"] == {"type": "json_schema", "json_schema": schema}
    assert sent["verbosity"] == "low"
    assert sent["reasoning_effort"] == "low"
    plain = chat(
        read(body(text={"format": {"type": "json_object"}}, tool_choice="none", parallel_tool_calls=False))
    )
    assert plain.pop("response_format") == {"type": "json_object"}
    assert plain.keys() == {"messages"}


def test_files_and_sound_are_translated() -> None:
    """Given inline or by a file's id; hints for the cache stay where they are."""
    hint = {"prompt_cache_breakpoint": {"mode": "explicit"}}
    sound = {"data": "AAAA", "format": "wav"}
    parts = [
        {"type": "input_text", "text": "a", **hint},
        {"type": "input_file", "file_data": "data:x", "filename": "f.pdf"},
        {"type": "input_file", "file_id": "file_1"},
        {"type": "input_audio", "input_audio": sound},
    ]
    request = read(body(input=[user(*parts)]))
    assert chat(request)["messages"][0]["content"] == [
        {"type": "text", "text": "a", **hint},
        {"type": "file", "file": {"file_data": "data:x", "filename": "f.pdf"}},
        {"type": "file", "file": {"file_id": "file_1"}},
        {"type": "input_audio", "input_audio": sound},
    ]
    assert request.needs == {"file": "input[0].content[1]", "audio": "input[0].content[3]"}


@pytest.mark.parametrize(
    ("fields", "places"),
    [
        ({"input": [user({"type": "input_text", "text": "a"}, PICTURE)]}, {"input[0].content[1]"}),
        ({"input": [user(PICTURE)], "instructions": "x"}, {"input[0].content[0]"}),
        ({"input": [{"role": "assistant", "content": "a"}, CALL, ANSWER]}, {"input[1]"}),
        ({"tools": [{"type": "function", "name": "f"}]}, {"tools"}),
        ({"tools": [{"type": "function", "name": "f"}, TOOL]}, {"tools", "tools[1].strict"}),
        ({"tool_choice": "required"}, {"tool_choice"}),
        ({"text": {"format": {"type": "json_object"}}}, {"text.format"}),
        ({"text": {"verbosity": "low"}}, {"text.verbosity"}),
        ({"reasoning": {"effort": "low"}}, {"reasoning.effort"}),
        ({"service_tier": "flex"}, {"service_tier"}),
    ],
)
def test_a_need_is_named_in_the_requests_terms(fields: dict[str, Any], places: set[str]) -> None:
    """What a chat target must be able to do is named by the place that asks for it, in both views of the request."""
    request = read(body(**fields))
    assert set(request.needs.values()) == places
    assert request.chat is not None
    assert request.chat.needs == request.needs
    assert request.chat.include_usage


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"background": True}, "background"),
        ({"store": True}, "store"),
        ({"include": ["reasoning.encrypted_content"]}, "include"),
        ({"truncation": "auto"}, "truncation"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"max_tool_calls": 3}, "max_tool_calls"),
        ({"prompt_cache_options": {"prewarm": True}}, "prompt_cache_options.prewarm"),
        ({"stream_options": {"include_obfuscation": True}}, "stream_options.include_obfuscation"),
        ({"n": 1}, "n"),
        ({"stop": ["x"]}, "stop"),
        ({"wizardry": 1}, "wizardry"),
        ({"json_schema": 1, "text": {"format": {"type": "json_object"}}}, "json_schema"),
        ({"reasoning": {"effort": "low", "summary": "auto"}}, "reasoning.summary"),
        ({"text": {"wizardry": 1}}, "text.wizardry"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format"),
        ({"text": {"format": {"type": "json_schema", "name": "n", "schema": {}, "x": 1}}}, "text.format.x"),
        ({"tools": [TOOL, {"type": "web_search"}]}, "tools[1]"),
        ({"tools": [{"type": "mcp", "server_label": "x"}]}, "tools[0]"),
        ({"tools": [{"type": "custom", "name": "x"}]}, "tools[0]"),
        ({"tools": [{**TOOL, "defer_loading": True}]}, "tools[0].defer_loading"),
        ({"tools": [TOOL], "tool_choice": {"type": "allowed_tools"}}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "name": "f", "x": 1}}, "tool_choice.x"),
        ({"input": [REFERENCE]}, "input[0]"),
        ({"input": [{"id": "msg_1"}]}, "input[0]"),
        ({"input": [{"type": "reasoning", "id": "r", "encrypted_content": "x", "summary": []}]}, "input[0]"),
        ({"input": [{"type": "computer_call_output", "output": {}}]}, "input[0]"),
        ({"input": [{"role": "assistant", "content": "a", "phase": "commentary"}]}, "input[0].phase"),
        ({"input": [{**CALL, "namespace": "x"}, ANSWER]}, "input[0].namespace"),
        ({"input": [user({"type": "input_image", "file_id": "f"})]}, "input[0].content[0].file_id"),
        ({"input": [user({"type": "input_file", "file_url": "f"})]}, "input[0].content[0].file_url"),
        ({"input": [user({"type": "input_smell"})]}, "input[0].content[0]"),
        ({"input": [user({"type": "input_text", "text": "a", "x": 1})]}, "input[0].content[0].x"),
        ({"input": [CALL, {**ANSWER, "output": [PICTURE]}]}, "input[1].output[0]"),
    ],
)
def test_what_only_a_responses_api_can_do_is_a_need(fields: dict[str, Any], param: str) -> None:
    """Nothing is left out in silence: there is then no chat that another target could be sent instead."""
    request = read(body(**fields))
    assert request.needs["responses"] == param
    assert request.chat is None
    assert request.typed.messages


def test_the_conversation_may_be_kept_elsewhere() -> None:
    """Then `input` may be absent, or hold only the output of a call that was made there."""
    for fields in ({"previous_response_id": "r"}, {"previous_response_id": "r", "input": [ANSWER]}):
        request = read(json.dumps(fields).encode())
        assert request.needs == {"responses": "previous_response_id"}
        assert json.loads(request.body("m", stream=False)) == {**fields, "model": "m", "stream": False}


def test_pictures_count_for_nothing_in_the_prompts_length() -> None:
    """Wherever they are, for estimates go by the bytes of text."""
    picture = {**PICTURE, "image_url": "data:" + "A" * 50_000}
    screen = {"type": "computer_call_output", "call_id": "c", "output": {"image_url": picture["image_url"]}}
    for items in ([user(picture)], [CALL, {**ANSWER, "output": [picture]}], [screen]):
        assert read(body(input=items)).prompt_bytes < 1_000


@pytest.mark.parametrize(
    ("raw", "param"),
    [
        (b"", None),
        (b"[]", None),
        (b'{"input":' + b"[" * 100_000 + b"]" * 100_000 + b"}", None),
        (b'{"input":"\xff"}', None),
        (b'{"model":"a","input":"hi","model":"b"}', "model"),
        (b"{}", "input"),
        (b'{"instructions":"x"}', "input"),
        (body(input=None), "input"),
        (body(input=[]), "input"),
        (body(input=7), "input"),
        (body(input=[7]), "input[0]"),
        (body(input=[{}]), "input[0].role"),
        (body(input=[WIZARD]), "input[0].role"),
        (body(input=[{"role": "user"}]), "input[0].content"),
        (body(input=[{"role": "user", "content": 7}]), "input[0].content"),
        (body(input=[user(7)]), "input[0].content[0]"),
        (body(input=[user({})]), "input[0].content[0].type"),
        (body(input=[user({"type": "input_text"})]), "input[0].content[0].text"),
        (body(input=[user({"type": "input_text", "text": 7})]), "input[0].content[0].text"),
        (body(input=[user({"type": "input_image"})]), "input[0].content[0].image_url"),
        (
            body(input=[user({"type": "input_image", "image_url": {"url": "x"}})]),
            "input[0].content[0].image_url",
        ),
        (body(input=[user({"type": "input_file"})]), "input[0].content[0].file_data"),
        (body(input=[user({"type": "input_audio"})]), "input[0].content[0].input_audio"),
        (body(input=[user(*[PICTURE] * (MAX_PARTS + 1))]), "input[0].content"),
        (body(input=[REFERENCE] * (MAX_ITEMS + 1)), "input"),
        (body(input=[{"type": "function_call"}]), "input[0].call_id"),
        (body(input=[{**CALL, "arguments": {}}]), "input[0].arguments"),
        (body(input=[ANSWER]), "input[0].call_id"),
        (body(input=[CALL, {**ANSWER, "output": None}]), "input[1].output"),
        (body(instructions=["x"]), "instructions"),
        (body(model=7), "model"),
        (body(stream="yes"), "stream"),
        (body(max_output_tokens=0), "max_output_tokens"),
        (body(max_output_tokens="9"), "max_output_tokens"),
        (body(temperature=3), "temperature"),
        (body(top_p=0), "top_p"),
        (body(metadata=["x"]), "metadata"),
        (body(metadata={str(number): "" for number in range(17)}), "metadata"),
        (body(metadata={"a": "x" * 513}), "metadata[...]"),
        (body(user=7), "user"),
        (body(parallel_tool_calls="yes"), "parallel_tool_calls"),
        (body(tools={}), "tools"),
        (body(tools=[{}]), "tools[0].type"),
        (body(tools=[{"type": "function"}]), "tools[0].name"),
        (body(tools=[TOOL, {"type": "function", "name": ""}]), "tools[1].name"),
        (body(tools=[{"type": "web_search"}, {"type": "function", "name": ""}]), "tools[1].name"),
        (body(input=[CALL, {**CALL, "name": ""}]), "input[1].name"),
        (body(tools=[{"type": "function", "function": {"name": "f"}}]), "tools[0].name"),
        (body(tools=[{**TOOL, "parameters": []}]), "tools[0].parameters"),
        (body(tools=[{**TOOL, "strict": 1}]), "tools[0].strict"),
        (body(tools=[TOOL] * (MAX_TOOLS + 1)), "tools"),
        (body(tool_choice="wizard"), "tool_choice"),
        (body(tool_choice={"type": "function"}), "tool_choice.name"),
        (body(text="json"), "text"),
        (body(text={"format": "json"}), "text.format"),
        (body(text={"format": {"type": "json_schema", "schema": {}}}), "text.format.name"),
        (body(text={"format": {"type": "json_schema", "name": "n"}}), "text.format.schema"),
        (body(reasoning="low"), "reasoning"),
        (body(reasoning={"effort": 7}), "reasoning.effort"),
        (body(fallbacks=["x"] * 17), "fallbacks"),
        (body(stream_options=7), "stream_options"),
    ],
)
def test_bad_request_names_the_place(raw: bytes, param: str | None) -> None:
    """Every fault is INVALID_REQUEST in the Responses API's own terms, and its message begins with the place."""
    with pytest.raises(InvalidRequest) as caught:
        read(raw)
    assert caught.value.param == param
    assert caught.value.message.startswith(param or "the body")
