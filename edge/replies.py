"""What Envoy itself says when a request reaches no router, or a router's answer carries no error object of ours.

HTTP clients get OpenAI's error object, gRPC clients a status. Types and codes are those of meshkit.errors.TABLE.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from edge.methods import http_methods
from gen.weir.error.v1 import Reason
from meshkit.errors import BY_REASON, TABLE, openai_error_json

Mapper = dict[str, Any]


class Reply(NamedTuple):
    """One reply: the row of the error table it follows, and its text.

    `grpc` names the row whose gRPC code a gRPC client gets; None leaves Envoy's own choice for the HTTP status.
    """

    reason: Reason
    message: str
    grpc: Reason | None

    @property
    def body(self) -> str:
        """OpenAI's error object as JSON."""
        return openai_error_json(BY_REASON[self.reason](self.message))


def _reply(reason: Reason, message: str) -> Reply:
    return Reply(reason, message, reason)


NO_ROUTER = _reply(Reason.NO_HEALTHY_TARGET, "The service is starting or overloaded; try again in a moment.")
NO_ROUTER_FLAGS = ("UH", "UF", "UO", "URX")
"""No healthy worker, none that could be connected to, too many requests waiting, retries used up."""
AUTH_FLAGS = ("UAEX",)
"""Auth did not let a request to another service pass, or could not be asked."""
RETRY_AFTER_S = 1
"""What a client without a router is told to wait, in seconds: a restarted worker is back by then."""

WRONG_METHOD = Reply(Reason.INVALID_REQUEST, "This URL has other methods: see the header allow.", None)

BY_STATUS: Mapping[int, Reply] = MappingProxyType(
    {
        400: _reply(
            Reason.INVALID_REQUEST, "The request is malformed, or a header's name has an underscore."
        ),
        401: _reply(Reason.KEY_INVALID, "The API key was not accepted."),
        403: _reply(Reason.FORBIDDEN, "The request is not allowed."),
        # gRPC's own word for a method that is not there is UNIMPLEMENTED, and so is Envoy's.
        404: Reply(Reason.INVALID_REQUEST, "There is nothing at this URL for this method.", None),
        408: Reply(Reason.INVALID_REQUEST, "The request did not arrive in time.", Reason.UPSTREAM_TIMEOUT),
        413: _reply(Reason.BODY_TOO_LARGE, "The request's body is too large."),
        429: _reply(Reason.RATE_LIMITED, "Too many requests or too much data at once."),
        431: _reply(Reason.INVALID_REQUEST, "The request's headers are too large or too many."),
        499: _reply(Reason.CANCELLED, "The request was cancelled."),
        500: _reply(Reason.INTERNAL, "The request failed inside the service."),
        501: Reply(Reason.INVALID_REQUEST, "The service does not know this operation.", None),
        502: _reply(Reason.UPSTREAM_ERROR, "The service failed while it answered."),
        503: _reply(Reason.UPSTREAM_ERROR, "The service failed while it answered."),
        504: _reply(Reason.UPSTREAM_TIMEOUT, "The service did not answer in time."),
    }
)


def generic_bodies() -> dict[str, str]:
    """HTTP status as text -> the body for it, for edge/error_body.lua."""
    return {str(status): reply.body for status, reply in BY_STATUS.items()}


def local_replies(max_body_bytes: int) -> list[Mapper]:
    """The mappers of local_reply_config, the first that fits wins.

    Args:
        max_body_bytes: the limit that a 413 names.
    """
    too_large = BY_STATUS[413]._replace(message=f"The request's body is larger than {max_body_bytes} bytes.")
    wait = [_header("retry-after", str(RETRY_AFTER_S))]
    mappers = list(_both(_flags(NO_ROUTER_FLAGS), NO_ROUTER, wait))
    not_asked = {"and_filter": {"filters": [_flags(AUTH_FLAGS), _status("EQ", 503)]}}
    mappers += _both(not_asked, NO_ROUTER, wait)
    mappers.append(_in_auths_words())
    mappers += [_wrong_method(path, methods) for path, methods in http_methods().items()]
    for status, reply in {**BY_STATUS, 413: too_large}.items():
        mappers += _both(_status("EQ", status), reply)
    mappers += _both(_status("GE", 500), BY_STATUS[500])
    mappers += _both(_status("GE", 400), BY_STATUS[400])
    return mappers


def _in_auths_words() -> Mapper:
    """Auth's refusal as it is: an error object of ours, or for a gRPC client its text alone."""
    words = {
        "text_format_source": {"inline_string": "%LOCAL_REPLY_BODY%"},
        "content_type": "application/json",
    }
    return {"filter": _flags(AUTH_FLAGS), "body_format_override": words}


def _wrong_method(template: str, methods: Sequence[str]) -> Mapper:
    """405 and `allow` where Envoy would say 404 of a path that other methods have."""
    stem, variable, _ = template.partition("{")
    path = re.escape(stem) + (".+" if variable else r"(\?.*)?")
    conditions = [
        _status("EQ", 404),
        _header_is(":path", {"safe_regex": {"regex": path}}),
        *(_header_is(":method", {"exact": method}, invert_match=True) for method in methods),
        # A gRPC client's answer stays a 404, which means UNIMPLEMENTED to it.
        _header_is("content-type", {"prefix": "application/grpc"}, **_UNLESS),
    ]
    return {
        "filter": {"and_filter": {"filters": conditions}},
        "status_code": 405,
        "headers_to_add": [_header("allow", ", ".join(methods))],
        **_json(WRONG_METHOD),
    }


def _both(condition: Mapper, reply: Reply, headers: list[Mapper] | None = None) -> Iterator[Mapper]:
    """The mapper for gRPC clients, then the one for all others."""
    status = [] if reply.grpc is None else [_header("grpc-status", str(TABLE[reply.grpc].grpc_code.value[0]))]
    yield {
        "filter": {"and_filter": {"filters": [condition, *_IS_GRPC]}},
        "body_format_override": {"text_format_source": {"inline_string": _escape(reply.message)}},
        "headers_to_add": status,
    }
    yield {"filter": condition, "headers_to_add": headers or [], **_json(reply)}


def _json(reply: Reply) -> Mapper:
    source = {"inline_string": _escape(reply.body)}
    return {"body_format_override": {"text_format_source": source, "content_type": "application/json"}}


def _flags(flags: Sequence[str]) -> Mapper:
    return {"response_flag_filter": {"flags": list(flags)}}


def _header_is(name: str, string_match: Mapper, **how: bool) -> Mapper:
    return {"header_filter": {"header": {"name": name, "string_match": string_match, **how}}}


_UNLESS = {"invert_match": True, "treat_missing_header_as_empty": True}
# The transcoder turns HTTP/JSON requests into gRPC ones in place; the path they came with tells them apart. Clients
# cannot send that header.
_IS_GRPC: tuple[Mapper, ...] = (
    _header_is("content-type", {"prefix": "application/grpc"}),
    {"header_filter": {"header": {"name": "x-envoy-original-path", "present_match": False}}},
)


def _status(comparison: str, status: int) -> Mapper:
    value = {"default_value": status, "runtime_key": "weir.unused"}
    return {"status_code_filter": {"comparison": {"op": comparison, "value": value}}}


def _header(name: str, value: str) -> Mapper:
    return {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def _escape(text: str) -> str:
    return text.replace("%", "%%")
