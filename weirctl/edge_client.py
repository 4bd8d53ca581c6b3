"""Asks the running mesh as any client does: HTTP through the edge."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

_MODELS = "/v1/models"


class EdgeAnswer(Exception):
    """The edge answered with an error; the text is the error's own, or the status."""


def connect(endpoint: str, timeout_s: float) -> http.client.HTTPConnection:
    """A connection to the edge at `http://host:port`; `timeout_s` bounds each wait. The caller closes it."""
    return http.client.HTTPConnection(urlsplit(endpoint).netloc, timeout=timeout_s)


def headers(token: str) -> dict[str, str]:
    """What every request carries."""
    return {"authorization": f"Bearer {token}", "content-type": "application/json"}


def list_models(endpoint: str, token: str, timeout_s: float) -> list[str]:
    """The models that can be used now. Raises OSError and EdgeAnswer."""
    connection = connect(endpoint, timeout_s)
    try:
        connection.request("GET", _MODELS, headers=headers(token))
        answer = checked(connection.getresponse())
        body: Mapping[str, Any] = msgspec.json.decode(answer.read())
    except (http.client.HTTPException, msgspec.DecodeError) as error:
        raise EdgeAnswer(f"GET {_MODELS}: {error!r}") from error
    finally:
        connection.close()
    return [model["id"] for model in body["data"]]


def checked(answer: http.client.HTTPResponse) -> http.client.HTTPResponse:
    """The answer, if its status is 200. Raises EdgeAnswer."""
    if answer.status == http.client.OK:
        return answer
    body = answer.read()
    try:
        text = msgspec.json.decode(body)["error"]["message"]
    except (msgspec.DecodeError, KeyError, TypeError):
        text = body[:500].decode(errors="replace")
    raise EdgeAnswer(f"{answer.status}: {text}")
