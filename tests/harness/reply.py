"""One question to Weir over HTTP, and the whole of what came back, judged as a careful client would."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from uuid import uuid4

LIMIT_S = 60.0
MESSAGES: Any = ({"role": "user", "content": "Say hello."},)


@dataclass(frozen=True)
class Reply:
    """What a client has in its hands afterwards. Times are monotonic seconds."""

    request_id: str
    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes
    begun_s: float
    ended_s: float

    @property
    def seconds(self) -> float:
        """From the question to the end of the answer."""
        return self.ended_s - self.begun_s

    @property
    def is_stream(self) -> bool:
        """It came as server-sent events."""
        return self.headers.get("content-type", "").startswith("text/event-stream")

    @cached_property
    def documents(self) -> list[dict[str, Any]]:
        """The JSON objects of the body: one, or one for each event but `[DONE]`."""
        if not self.is_stream:
            return [json.loads(self.body)]
        events = [event.removeprefix(b"data: ") for event in self.body.split(b"\n\n") if event]
        return [json.loads(event) for event in events if event != b"[DONE]"]

    @property
    def done(self) -> bool:
        """The stream says that it is whole."""
        return self.body.endswith(b"data: [DONE]\n\n")

    @property
    def error(self) -> dict[str, Any] | None:
        """OpenAI's error object, wherever it stands."""
        return next((document["error"] for document in self.documents if "error" in document), None)

    @property
    def text(self) -> str:
        """What was said, as far as it came."""
        return "".join(
            (choice.get("delta") or choice.get("message") or {}).get("content") or ""
            for document in self.documents
            for choice in document.get("choices", [])
        )

    @property
    def finish_reasons(self) -> list[str]:
        """Why its choices ended, as often as it says so."""
        choices = [choice for document in self.documents for choice in document.get("choices", [])]
        return [choice["finish_reason"] for choice in choices if choice.get("finish_reason")]

    @property
    def finish_reason(self) -> str | None:
        """Why it ended; None if it is not whole."""
        return self.finish_reasons[-1] if self.finish_reasons else None

    @property
    def usage(self) -> dict[str, Any] | None:
        """As the answer tells it."""
        return next((document["usage"] for document in self.documents if document.get("usage")), None)

    @property
    def attempts(self) -> int:
        """The header x-weir-attempts; 0 where there is none."""
        return int(self.headers.get("x-weir-attempts", "0"))

    @property
    def target(self) -> str:
        """The header x-weir-target."""
        return self.headers.get("x-weir-target", "")

    def __str__(self) -> str:
        """For a failed assertion: status, headers of our own, and both ends of the body."""
        own = {name: value for name, value in self.headers.items() if name.startswith("x-weir")}
        shown = self.body if len(self.body) <= 600 else self.body[:200] + b" ... " + self.body[-400:]
        return f"{self.request_id}: HTTP {self.status} in {self.seconds:.2f} s {own} {shown!r}"

    def must_be_whole(self, text: str) -> None:
        """Raises AssertionError unless it is a complete answer that says `text`."""
        assert self.status == http.client.OK, self
        assert self.error is None, self
        assert self.text == text, self
        assert self.finish_reasons == ["stop"], self
        assert not self.is_stream or self.done, self

    def must_be_error(self, code: str | None, status: int | None = None) -> str:
        """The message of the error; raises AssertionError if it is none, or if it looks like a whole answer."""
        assert self.error is not None, self
        assert self.error["code"] == code, self
        assert status is None or self.status == status, self
        assert self.finish_reason is None, self
        assert not self.done, self
        return str(self.error["message"])


def label() -> str:
    """A request id of one's own."""
    return f"fault-{uuid4().hex}"


def post(
    edge: str, key: str, fields: Mapping[str, Any], headers: Mapping[str, str] | None = None,
    path: str = "/v1/chat/completions",
) -> Reply:  # fmt: skip
    """Asks and reads to the end, under a label of its own unless `headers` have one.

    Raises OSError or HTTPException where the connection breaks.
    """
    sent = {
        "authorization": f"Bearer {key}",
        "content-type": "application/json",
        "x-request-id": label(),
        **(headers or {}),
    }
    connection = http.client.HTTPConnection(edge, timeout=LIMIT_S)
    begun_s = time.monotonic()
    try:
        connection.request("POST", path, json.dumps(dict(fields)), sent)
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    named = {name.lower(): value for name, value in answer.getheaders()}
    return Reply(sent["x-request-id"], answer.status, named, body, begun_s, time.monotonic())
