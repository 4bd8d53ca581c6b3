"""A client that can leave in mid-answer, or read slowly."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tests.harness.reply import LIMIT_S, label

_SMALL_BUFFER = 64 * 1024


class OpenStream:
    """One question under way. Made by `opened`."""

    def __init__(self, edge: str, key: str, fields: Mapping[str, Any], request_id: str = "") -> None:
        self.request_id = request_id or label()
        host, _, port = edge.partition(":")
        # Before connecting, so that the kernel takes no more for a client that does not read.
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER)
        self._socket.settimeout(LIMIT_S)
        self._socket.connect((host, int(port)))
        self._connection = http.client.HTTPConnection(edge)
        self._connection.sock = self._socket
        self._answer: http.client.HTTPResponse | None = None
        self._connection.request("POST", "/v1/chat/completions", json.dumps(dict(fields)), {
            "authorization": f"Bearer {key}", "content-type": "application/json",
            "x-request-id": self.request_id,
        })  # fmt: skip

    def read(self, size: int) -> bytes:
        """The next bytes of the body, at most so many; waits for the first of them."""
        if self._answer is None:
            self._answer = self._connection.getresponse()
        return self._answer.read1(size)

    def leave(self) -> float:
        """Goes away. Returns when, in monotonic seconds."""
        self._socket.shutdown(socket.SHUT_RDWR)
        if self._answer is not None:
            self._answer.close()
        self._connection.close()
        return time.monotonic()


@contextmanager
def opened(edge: str, key: str, fields: Mapping[str, Any], request_id: str = "") -> Iterator[OpenStream]:
    """A question that is under way until the end of the block, or until it leaves."""
    stream = OpenStream(edge, key, fields, request_id)
    try:
        yield stream
    finally:
        stream._connection.close()
