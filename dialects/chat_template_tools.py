"""Tools, tool calls and their results as the text that models were trained to read: Hermes' and Mistral's conventions.

All values are JSON, spaced as Python's own writer spaces it, since that is what models saw most.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Final

from dialects.control_tokens import neutralise_json
from gen.weir.type.v1 import ChatMessage, Tool, ToolCall

_NO_PARAMETERS: Final = '{"type": "object", "properties": {}}'
_MISTRAL_ID_CHARS: Final = 9
_MISTRAL_ID: Final = re.compile(r"[A-Za-z0-9]{9}")


def hermes_tools(tools: Sequence[Tool]) -> str:
    """What the system message says of the tools."""
    signatures = "\n".join(_signature(tool) for tool in tools)
    return (
        "You can call functions to help with the user's request. Their signatures are between <tools> and </tools>:\n"
        f"<tools>\n{signatures}\n</tools>\n\n"
        "To call a function, answer with its name and arguments as a JSON object between <tool_call> and "
        "</tool_call>, each call between tags of its own:\n"
        '<tool_call>\n{"name": <name of the function>, "arguments": <object of its arguments>}\n</tool_call>\n'
        "The results follow between <tool_response> and </tool_response>."
    )


def hermes_calls(calls: Sequence[ToolCall]) -> str:
    """The calls of an assistant's message."""
    return "\n".join(
        f"<tool_call>\n{_object(name=_text(call.name), arguments=_arguments(call.arguments))}\n</tool_call>"
        for call in calls
    )


def hermes_result(result: ChatMessage, names: Mapping[str, str]) -> str:
    """A tool's message. `names`: call id -> function."""
    content = _json_or_text(result.content)
    name = names.get(result.tool_call_id)
    said = _object(content=content) if name is None else _object(name=_text(name), content=content)
    return f"<tool_response>\n{said}\n</tool_response>"


def mistral_tools(tools: Sequence[Tool]) -> str:
    """What stands before the last question."""
    return f"[AVAILABLE_TOOLS] [{', '.join(_signature(tool) for tool in tools)}][/AVAILABLE_TOOLS]"


def mistral_calls(calls: Sequence[ToolCall]) -> str:
    """The calls of an assistant's message."""
    listed = (
        _object(name=_text(call.name), arguments=_arguments(call.arguments), id=_text(_mistral_id(call.id)))
        for call in calls
    )
    return f"[TOOL_CALLS] [{', '.join(listed)}]"


def mistral_result(result: ChatMessage) -> str:
    """A tool's message."""
    said = _object(content=_json_or_text(result.content), call_id=_text(_mistral_id(result.tool_call_id)))
    return f"[TOOL_RESULTS] {said}[/TOOL_RESULTS]"


def _mistral_id(call_id: str) -> str:
    """The id as Mistral's models know ids: nine letters and digits. The same for a call and its result."""
    if _MISTRAL_ID.fullmatch(call_id):
        return call_id
    return sha256(call_id.encode()).hexdigest()[:_MISTRAL_ID_CHARS]


def _signature(tool: Tool) -> str:
    schema = tool.parameters_json_schema
    members = {"name": _text(tool.name)}
    if tool.description:
        members["description"] = _text(tool.description)
    members["parameters"] = (_spaced(schema) or neutralise_json(schema)) if schema else _NO_PARAMETERS
    return _object(type='"function"', function=_object(**members))


def _arguments(text: str) -> str:
    """A model may have written something else than an object; then it is shown what it wrote, as a string."""
    if not text.strip():
        return "{}"
    return _json_or_text(text)


def _json_or_text(text: str) -> str:
    """An object or list as itself, anything else as a string. JSON."""
    return (_spaced(text) if text.lstrip()[:1] in {"{", "["} else None) or _text(text)


def _spaced(text: str) -> str | None:
    """JSON with a space behind each colon and comma; None where that cannot be had of it.

    It may be no JSON, too deep, hold a number that is too long, or half of a surrogate pair.
    """
    try:
        spaced = json.dumps(json.loads(text), ensure_ascii=False)
        spaced.encode()
    except (ValueError, RecursionError):
        return None
    return neutralise_json(spaced)


def _text(text: str) -> str:
    return neutralise_json(json.dumps(text, ensure_ascii=False))


def _object(**members: str) -> str:
    """A JSON object of members that are JSON."""
    return "{" + ", ".join(f'"{name}": {value}' for name, value in members.items()) + "}"
