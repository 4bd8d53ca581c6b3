"""HTTP/1.1 as an attacker writes it: bytes to the edge, and whatever comes back."""

from __future__ import annotations

import socket
from dataclasses import dataclass

LIMIT_S = 15.0


@dataclass(frozen=True)
class Answers:
    """All that the edge sent until it closed the connection or fell silent."""

    data: bytes

    @property
    def statuses(self) -> list[int]:
        """Of each answer, in order."""
        lines = [line for line in self.data.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]
        return [int(line.split(b" ")[1]) for line in lines]

    @property
    def first(self) -> int:
        """The first answer's status; 0 where the connection was closed without one."""
        return self.statuses[0] if self.statuses else 0


def send(edge: str, data: bytes, silence_s: float = 1.0) -> Answers:
    """Sends the bytes on one connection and reads until its end, or until nothing came for a while.

    Where they ask for the connection's close, the first whole answer is its end: Envoy waits a second for the client's.
    """
    host, _, port = edge.partition(":")
    got, last = b"", b"\r\nconnection: close\r\n" in data
    with socket.create_connection((host, int(port)), timeout=LIMIT_S) as connection:
        try:
            connection.sendall(data)
            connection.settimeout(LIMIT_S)
            while not (last and _is_whole(got)) and (piece := connection.recv(65_536)):
                got += piece
                connection.settimeout(silence_s)
        except (TimeoutError, ConnectionError):
            pass
    return Answers(got)


def _is_whole(answer: bytes) -> bool:
    """Whether it is an answer that says its body's length, and has as much of it."""
    head, end, body = answer.partition(b"\r\n\r\n")
    _, named, rest = head.lower().partition(b"\r\ncontent-length: ")
    return bool(end and named) and len(body) >= int(rest.partition(b"\r\n")[0])


def request(
    target: str,
    authorization: str | None,
    *headers: str,
    method: str = "GET",
    body: str = "",
    host: str = "x",
) -> bytes:
    """One request, the last of its connection; each of `headers` is a whole line."""
    lines = [f"{method} {target} HTTP/1.1"]
    lines += [f"host: {host}"] if host else []
    lines += [f"authorization: {authorization}"] if authorization is not None else []
    lines += [*headers]
    if not any(header.lower().startswith("connection:") for header in headers):
        lines.append("connection: close")
    if body:
        lines.append(f"content-length: {len(body.encode())}")
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode("latin-1")
