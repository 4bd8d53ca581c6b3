"""`weir ask`: one question through the edge with the demo key; the answer as it comes."""

from __future__ import annotations

import argparse
import http.client
import os
import sys
from collections.abc import Iterator
from typing import Any

import msgspec

from weirctl import demo_key, edge_client
from weirctl.config import home_of
from weirctl.mesh_clients import NotUp, state_of

_PATH = "/v1/chat/completions"
_DATA, _DONE = b"data:", b"[DONE]"
_FAILED = 1


def run(arguments: argparse.Namespace) -> int:
    """The exit status: 0 for a whole answer."""
    home = home_of(os.environ)
    try:
        endpoint = state_of(home).endpoint
        _ask(endpoint, demo_key.read(home) or "", arguments)
    except (NotUp, edge_client.EdgeAnswer) as error:
        sys.stderr.write(f"{error}\n")
        return _FAILED
    except (OSError, http.client.HTTPException) as error:
        sys.stderr.write(f"{endpoint}: {error!r}\n")
        return _FAILED
    return 0


def _ask(endpoint: str, token: str, arguments: argparse.Namespace) -> None:
    body: dict[str, Any] = {
        "messages": [{"role": "user", "content": arguments.question}],
        "stream": arguments.stream,
    }
    if arguments.model is not None:
        body["model"] = arguments.model
    connection = edge_client.connect(endpoint, arguments.timeout_s)
    try:
        connection.request("POST", _PATH, msgspec.json.encode(body), edge_client.headers(token))
        answer = edge_client.checked(connection.getresponse())
        for text in _streamed(answer) if arguments.stream else _whole(answer):
            sys.stdout.write(text)
            sys.stdout.flush()
        sys.stdout.write("\n")
        reason = answer.headers.get("x-weir-route-reason")
        sys.stderr.write(
            f"[{answer.headers.get('x-weir-target', 'unknown target')}{f': {reason}' if reason else ''}]\n"
        )
    finally:
        connection.close()


def _whole(answer: http.client.HTTPResponse) -> Iterator[str]:
    yield msgspec.json.decode(answer.read())["choices"][0]["message"]["content"] or ""


def _streamed(answer: http.client.HTTPResponse) -> Iterator[str]:
    """The pieces of text. Raises EdgeAnswer at an error event and at an end without [DONE]."""
    while line := answer.readline():
        if not line.startswith(_DATA):
            continue
        data = line.removeprefix(_DATA).strip()
        if data == _DONE:
            return
        event = msgspec.json.decode(data)
        if "error" in event:
            raise edge_client.EdgeAnswer(f"\nthe answer broke off: {event['error'].get('message')}")
        for choice in event.get("choices", ()):
            yield choice.get("delta", {}).get("content") or ""
    raise edge_client.EdgeAnswer("\nthe answer broke off")
