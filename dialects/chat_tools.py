"""Reads what OpenAI's chat format says of tools and of the answer's form into the contract's own values.

What a provider may understand and no local model does becomes a need of its own (`tools.custom`, `tools.strict`,
`response_format.grammar`): the provider is sent it as it is. What is malformed is refused, and its place named.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final

import msgspec

from dialects.json_fields import Field, Fields
from dialects.json_node import Node
from gen.weir.router.v1 import GenerateRequest
from gen.weir.type.v1 import (
    JsonObjectFormat,
    JsonSchemaFormat,
    ResponseFormat,
    Tool,
    ToolCall,
    ToolChoice,
    ToolMode,
)
from meshkit.errors import InvalidRequest

MAX_TOOLS: Final = 1_024
MAX_CALLS: Final = 1_024
"""Tool calls of one message."""
TOOL_FIELDS: Final = frozenset({"tools", "tool_choice", "parallel_tool_calls", "response_format"})
TOOLS: Final = "tools"
"""The capability that tools, tool calls and their results need; what only some providers know needs `tools.<x>` too."""
_Object = dict[str, msgspec.Raw]
_OBJECT = msgspec.json.Decoder(_Object)
_TOOLS = Field(TOOLS, Annotated[list[_Object], msgspec.Meta(max_length=MAX_TOOLS)])
_CHOICE = Field("tool_choice", str | _Object)
_PARALLEL = Field("parallel_tool_calls", bool)
_FORMAT = Field("response_format", _Object)
_CALLS = msgspec.json.Decoder(Annotated[list[_Object], msgspec.Meta(max_length=MAX_CALLS)])
_TOOL: Final = frozenset({"type", "function"})
_FUNCTION: Final = frozenset({"name", "description", "parameters", "strict"})
_SCHEMA: Final = frozenset({"name", "description", "schema", "strict"})
_MODES: Final = {"auto": ToolMode.AUTO, "none": ToolMode.NONE, "required": ToolMode.REQUIRED}


def read_tool_use(fields: Fields, typed: GenerateRequest, needs: dict[str, str]) -> None:
    """Reads `TOOL_FIELDS` into `typed`, and notes in `needs` what only some targets can do.

    Raises InvalidRequest naming the place.
    """
    typed.tools = _tools(fields, needs)
    typed.tool_choice = _tool_choice(fields)
    typed.parallel_tool_calls = _PARALLEL.read(fields)
    typed.response_format = _format(fields, needs)
    note_form_beside_tools(typed, needs)


def _tools(fields: Fields, needs: dict[str, str]) -> list[Tool]:
    """The functions of `tools`."""
    given: list[_Object] = _TOOLS.read(fields) or []
    tools = [_tool(Node(tool, f"tools[{index}]"), needs) for index, tool in enumerate(given)]
    return [tool for tool in tools if tool is not None]


def _tool(tool: Node, needs: dict[str, str]) -> Tool | None:
    kind = tool.required_text("type")
    if kind != "function":
        needs.setdefault(f"tools.{kind}", tool.place)
        return None
    function = _inner(tool, "function")
    _note_others(tool, _TOOL, TOOLS, needs)
    _note_others(function, _FUNCTION, TOOLS, needs)
    strict = bool(function.flag("strict"))
    if strict:
        needs.setdefault("tools.strict", function.at("strict"))
    return Tool(
        name=_name(function),
        description=function.text("description") or "",
        parameters_json_schema=_object_text(function, "parameters"),
        strict=strict,
    )


def _tool_choice(fields: Fields) -> ToolChoice | None:
    """`tool_choice`; None where it is absent or of a kind that only providers know."""
    given: str | _Object | None = _CHOICE.read(fields)
    if given is None:
        return None
    if isinstance(given, str):
        mode = _MODES.get(given)
        return None if mode is None else ToolChoice(mode=mode)
    choice = Node(given, "tool_choice")
    if choice.required_text("type") != "function":
        return None
    return ToolChoice(function=_name(_inner(choice, "function")))


def _format(fields: Fields, needs: dict[str, str]) -> ResponseFormat | None:
    """`response_format`; None where the answer may be any text."""
    given: _Object | None = _FORMAT.read(fields)
    if not given:
        return None
    form = Node(given, "response_format")
    kind = form.required_text("type")
    if kind == "json_object":
        return ResponseFormat(json_object=JsonObjectFormat())
    if kind != "json_schema":
        if kind != "text":
            needs.setdefault(f"response_format.{kind}", form.place)
        return None
    schema = _inner(form, "json_schema")
    _note_others(schema, _SCHEMA, "response_format", needs)
    return ResponseFormat(
        json_schema=JsonSchemaFormat(
            name=_name(schema),
            description=schema.text("description") or "",
            schema=_object_text(schema, "schema"),
            strict=bool(schema.flag("strict")),
        )
    )


def note_form_beside_tools(typed: GenerateRequest, needs: dict[str, str]) -> None:
    """An answer that may be a call or follow a form: a model that is held to the form cannot call."""
    if typed.response_format is not None and offered(typed):
        needs.setdefault("tools.response_format", "response_format")


def offered(typed: GenerateRequest) -> Sequence[Tool]:
    """The tools that the model may call: none where the request forbids it."""
    choice = typed.tool_choice
    return () if choice is not None and choice.mode == ToolMode.NONE else typed.tools


def read_calls(message: Node, needs: dict[str, str]) -> list[ToolCall]:
    """The function calls among `tool_calls` of an assistant's message. Raises InvalidRequest naming the place.

    Arguments may be any text: the model wrote them. An id may be empty, as some providers give it.
    """
    given: list[_Object] = message.required("tool_calls", _CALLS)
    place = message.at("tool_calls")
    calls = [_call(Node(call, f"{place}[{index}]"), needs) for index, call in enumerate(given)]
    return [call for call in calls if call is not None]


def _call(call: Node, needs: dict[str, str]) -> ToolCall | None:
    call_id = call.required_text("id")
    kind = call.text("type") or "function"
    if kind != "function":
        needs.setdefault(f"tools.{kind}", call.place)
        return None
    function = _inner(call, "function")
    return ToolCall(id=call_id, name=_name(function), arguments=function.required_text("arguments"))


def _inner(node: Node, name: str) -> Node:
    return Node(node.required(name, _OBJECT), node.at(name))


def _name(node: Node) -> str:
    name = node.required_text("name")
    if not name:
        raise InvalidRequest(f"{node.at('name')}: must not be empty", param=node.at("name"))
    return name


def _object_text(node: Node, name: str) -> str:
    """A JSON object as text; empty where it is absent."""
    given: Any = node.get(name, _OBJECT)
    raw = node.raw(name)
    return "" if given is None or raw is None else bytes(raw).decode()


def _note_others(node: Node, known: frozenset[str], need: str, needs: dict[str, str]) -> None:
    """Fields that only some providers know."""
    for place in node.others(known):
        needs.setdefault(f"{need}.{place.rpartition('.')[2]}", place)
