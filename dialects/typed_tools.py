"""Checks the typed contract's tools and forms of answers, and renders them in OpenAI's chat format.

Each function returns the value as our own models read it, what says nothing left out, and adds OpenAI's field and the
needs. All raise InvalidRequest naming the place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import msgspec

from dialects.chat_tools import TOOLS
from dialects.typed_messages import Rendered, one_of, refused
from gen.weir.type.v1 import JsonObjectFormat, JsonSchemaFormat, ResponseFormat, Tool, ToolChoice, ToolMode

MAX_TOOLS: Final = 128
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MODES: Mapping[int, str] = MappingProxyType(
    {ToolMode.AUTO: "auto", ToolMode.NONE: "none", ToolMode.REQUIRED: "required"}
)
_JSON_SPACE: Final = " \t\n\r"
_DECODER = msgspec.json.Decoder()


def add_tools(tools: Sequence[Tool], fields: Rendered, needs: dict[str, str]) -> list[Tool]:
    """`tools`."""
    if not tools:
        return []
    if len(tools) > MAX_TOOLS:
        raise refused("tools", f"at most {MAX_TOOLS}")
    needs.setdefault(TOOLS, "tools")
    read = [_read_tool(tool, f"tools[{index}]", needs) for index, tool in enumerate(tools)]
    fields["tools"] = [{"type": "function", "function": _rendered_tool(tool)} for tool in read]
    return read


def _read_tool(tool: Tool, place: str, needs: dict[str, str]) -> Tool:
    _check_name(tool.name, f"{place}.name")
    if tool.strict:
        needs.setdefault("tools.strict", f"{place}.strict")
    schema = tool.parameters_json_schema.strip(_JSON_SPACE)
    if schema:
        _check_object(schema, f"{place}.parameters_json_schema")
    return Tool(
        name=tool.name, description=tool.description, parameters_json_schema=schema, strict=tool.strict
    )


def _rendered_tool(tool: Tool) -> Rendered:
    rendered: Rendered = {"name": tool.name}
    if tool.description:
        rendered["description"] = tool.description
    if tool.parameters_json_schema:
        rendered["parameters"] = msgspec.Raw(tool.parameters_json_schema.encode())
    if tool.strict:
        rendered["strict"] = True
    return rendered


def add_tool_choice(
    choice: ToolChoice | None, tools: Sequence[Tool], fields: Rendered, needs: dict[str, str]
) -> ToolChoice | None:
    """`tool_choice`. A rule that leaves nothing to choose is left out: providers refuse it without tools."""
    if choice is None or (choice.mode is None and choice.function is None):
        return None
    kind = one_of(choice, ("mode", "function"), "tool_choice")
    if choice.function is not None:
        if all(tool.name != choice.function for tool in tools):
            raise refused("tool_choice.function", "no tool has this name")
        fields["tool_choice"] = {"type": "function", "function": {"name": choice.function}}
        needs.setdefault("tool_choice", f"tool_choice.{kind}")
        return choice
    mode = choice.mode or ToolMode.UNSPECIFIED
    if mode == ToolMode.UNSPECIFIED:
        return None
    name = _MODES.get(mode)
    if name is None:
        raise refused("tool_choice.mode", f"unknown mode {int(mode)}")
    if mode == ToolMode.REQUIRED:
        if not tools:
            raise refused("tool_choice.mode", "needs tools")
        needs.setdefault("tool_choice", "tool_choice.mode")
    if not tools:
        return None
    fields["tool_choice"] = name
    return choice


def add_format(form: ResponseFormat | None, fields: Rendered, needs: dict[str, str]) -> ResponseFormat | None:
    """`response_format`."""
    if form is None:
        return None
    one_of(form, ("json_object", "json_schema"), "response_format")
    needs.setdefault("json_schema", "response_format")
    if form.json_schema is None:
        fields["response_format"] = {"type": "json_object"}
        return ResponseFormat(json_object=JsonObjectFormat())
    wanted = form.json_schema
    _check_name(wanted.name, "response_format.json_schema.name")
    schema = wanted.schema.strip(_JSON_SPACE)
    _check_object(schema, "response_format.json_schema.schema")
    rendered: dict[str, Any] = {"name": wanted.name, "schema": msgspec.Raw(schema.encode())}
    if wanted.description:
        rendered["description"] = wanted.description
    if wanted.strict:
        rendered["strict"] = True
    fields["response_format"] = {"type": "json_schema", "json_schema": rendered}
    return ResponseFormat(
        json_schema=JsonSchemaFormat(
            name=wanted.name, schema=schema, description=wanted.description, strict=wanted.strict
        )
    )


def _check_name(name: str, place: str) -> None:
    if not _NAME.fullmatch(name):
        raise refused(place, "must be 1 to 64 letters, digits, _ and -")


def _check_object(text: str, place: str) -> None:
    try:
        value = _DECODER.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise refused(place, f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise refused(place, "must be a JSON object")
