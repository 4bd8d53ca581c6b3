"""Reads the tools and the form of the answer in a Responses request: the same in the chat format.

Each function returns what the chat completion is to have under its own names, and calls `note` with the place of
whatever only a real Responses API can do. All raise InvalidRequest naming the place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final

import msgspec

from dialects.json_node import Node
from meshkit.errors import InvalidRequest

MAX_TOOLS: Final = 1_024
_FUNCTION: Final = frozenset({"type", "name", "description", "parameters", "strict"})
_FORMAT: Final = frozenset({"type", "name", "description", "schema", "strict"})
_MODES: Final = frozenset({"none", "auto", "required"})
_Object = dict[str, msgspec.Raw]
_OBJECT = msgspec.json.Decoder(_Object)
_TOOLS = msgspec.json.Decoder(Annotated[list[_Object], msgspec.Meta(max_length=MAX_TOOLS)])
_CHOICE = msgspec.json.Decoder(str | _Object)
Note = Callable[[str], None]


def read_tools(body: Node, note: Note) -> tuple[list[dict[str, Any]], list[str]]:
    """The functions of `tools`, and the place of each."""
    functions: list[dict[str, Any]] = []
    places: list[str] = []
    for index, fields in enumerate(body.get("tools", _TOOLS) or ()):
        tool = Node(fields, f"tools[{index}]")
        if tool.required_text("type") != "function":
            note(tool.place)
            continue
        for place in tool.others(_FUNCTION):
            note(place)
        tool.required_text("name")
        tool.get("parameters", _OBJECT)
        tool.flag("strict")
        function = {name: raw for name in sorted(_FUNCTION - {"type"}) if (raw := tool.raw(name)) is not None}
        functions.append({"type": "function", "function": function})
        places.append(tool.place)
    return functions, places


def read_tool_choice(body: Node, note: Note) -> str | dict[str, Any] | None:
    """`tool_choice`; None where it is absent."""
    given = body.get("tool_choice", _CHOICE)
    if given is None:
        return None
    if isinstance(given, str):
        if given not in _MODES:
            known = ", ".join(sorted(_MODES))
            raise InvalidRequest(f"tool_choice: must be {known} or an object", param="tool_choice")
        return given
    choice = Node(given, "tool_choice")
    if choice.required_text("type") != "function":
        note(choice.place)
        return None
    for place in choice.others({"type", "name"}):
        note(place)
    return {"type": "function", "function": {"name": choice.required_text("name")}}


def read_text(body: Node, note: Note) -> dict[str, Any]:
    """`text`: the answer's form and how wordy it is to be."""
    text = Node(body.get("text", _OBJECT) or {}, "text")
    for place in text.others({"format", "verbosity"}):
        note(place)
    made: dict[str, Any] = {}
    if (verbosity := text.text("verbosity")) is not None:
        made["verbosity"] = verbosity
    if (form := text.get("format", _OBJECT)) is not None:
        made |= _response_format(Node(form, "text.format"), note)
    return made


def _response_format(form: Node, note: Note) -> dict[str, Any]:
    kind = form.required_text("type")
    if kind == "text":
        return {}
    if kind == "json_object":
        return {"response_format": {"type": kind}}
    if kind != "json_schema":
        note(form.place)
        return {}
    for place in form.others(_FORMAT):
        note(place)
    form.required_text("name")
    form.required("schema", _OBJECT)
    form.flag("strict")
    schema = {name: raw for name in sorted(_FORMAT - {"type"}) if (raw := form.raw(name)) is not None}
    return {"response_format": {"type": kind, "json_schema": schema}}


def read_reasoning(body: Node, note: Note) -> dict[str, Any]:
    """`reasoning`: of it, chat completions know the effort alone."""
    reasoning = Node(body.get("reasoning", _OBJECT) or {}, "reasoning")
    for place in reasoning.others({"effort"}):
        note(place)
    effort = reasoning.text("effort")
    return {} if effort is None else {"reasoning_effort": effort}
