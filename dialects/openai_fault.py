"""Reads the errors of OpenAI-compatible servers: the bodies of refusals and the error events of streams."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import msgspec

_STATUS = re.compile(r"[45][0-9]{2}")
_HTTP_ERRORS = range(400, 600)


class Fault(NamedTuple):
    """What a server says is wrong. Nothing in it is trusted: it may quote prompts and secrets."""

    message: str
    kind: str = ""
    """OpenAI's `type`."""
    code: str = ""
    param: str | None = None
    status: int | None = None
    """The HTTP status that the error itself names, as gateways do in `code` and Azure in `status`."""
    inner_code: str = ""
    """Of Azure's inner error, which says more."""


def fault_of(error: Any) -> Fault:
    """The fault in the value of an `error` key: OpenAI's object, or whatever stands there instead."""
    if not isinstance(error, dict):
        return Fault(error if isinstance(error, str) else "")
    code, param, inner = error.get("code"), error.get("param"), error.get("innererror")
    return Fault(
        message=_text(error.get("message")),
        kind=_text(error.get("type")),
        code=_text(code),
        param=param if isinstance(param, str) and param else None,
        status=_status(code) or _status(error.get("status")),
        inner_code=_text(inner.get("code")) if isinstance(inner, dict) else "",
    )


def read_fault(body: bytes) -> Fault:
    """The fault in the body of a refusal; an empty one where the body is none that can be read."""
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Fault("")
    if not isinstance(document, dict):
        return Fault("")
    error = document.get("error")
    if error:
        return fault_of(error)
    # vLLM puts the object itself at the top, FastAPI a text under `detail`.
    return fault_of(document if "message" in document else document.get("detail"))


def _status(value: Any) -> int | None:
    number = int(value) if isinstance(value, str) and _STATUS.fullmatch(value) else value
    return number if isinstance(number, int) and number in _HTTP_ERRORS else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
