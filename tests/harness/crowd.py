"""A few clients that ask without pause while something happens to the mesh, and what each of them saw."""

from __future__ import annotations

import http.client
import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from uuid import uuid4

ANSWER_LIMIT_S = 60.0
PAUSE_S = 0.05
"""Between two questions of one client, so that a few clients leave a small machine some room."""


class Verdict(StrEnum):
    """What became of one question."""

    WHOLE = "whole"  # a complete answer
    REFUSED = "refused"  # an HTTP error with OpenAI's error object
    ERROR_EVENT = "error event"  # a stream that ended in OpenAI's error object
    BROKEN = "broken"  # the connection broke
    NO_CONNECTION = "no connection"  # nobody listened
    SHORT = "short"  # ended as if it were whole, and was not
    MISSHAPEN = "misshapen"  # neither an answer nor OpenAI's error object


@dataclass(frozen=True)
class Question:
    """What one client asks again and again. `cloud_text` is the whole answer where the cloud gives it."""

    model: str
    stream: bool = False
    max_tokens: int = 8
    cloud_text: str | None = None


@dataclass(frozen=True)
class Told:
    """One question and its fate. Times are monotonic seconds."""

    request_id: str
    question: Question
    verdict: Verdict
    begun_s: float
    ended_s: float
    detail: str = ""
    target: str = ""
    """The header x-weir-target."""


@dataclass
class Crowd:
    """Clients with a thread each. Use `asking`."""

    edge: str
    key: str
    prefix: str = field(default_factory=lambda: f"crowd-{uuid4().hex[:8]}-")
    told: list[Told] = field(default_factory=list)
    _threads: list[threading.Thread] = field(default_factory=list)
    _enough: threading.Event = field(default_factory=threading.Event)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def start(self, questions: Sequence[Question]) -> None:
        """One client for each question."""
        for question in questions:
            thread = threading.Thread(target=self._keep_asking, args=(question,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Returns when every question that was asked has its fate."""
        self._enough.set()
        for thread in self._threads:
            thread.join(ANSWER_LIMIT_S + 10)
            assert not thread.is_alive(), "a client waits for ever"

    def ask(self, question: Question) -> Told:
        """Asks once, from this thread."""
        told = _ask(self.edge, self.key, f"{self.prefix}{next(self._numbers)}", question)
        self.told.append(told)
        return told

    def whole_since(self, moment_s: float, **wanted: Any) -> list[Told]:
        """Complete answers to questions asked after `moment_s`; `wanted` are fields of the question."""
        return [
            told for told in self.of(Verdict.WHOLE)
            if told.begun_s > moment_s and all(getattr(told.question, name) == value for name, value in wanted.items())
        ]  # fmt: skip

    def of(self, *verdicts: Verdict) -> list[Told]:
        """The questions with one of these fates."""
        return [told for told in list(self.told) if told.verdict in verdicts]

    def unlucky(self) -> list[Told]:
        """All but complete answers."""
        return [told for told in list(self.told) if told.verdict is not Verdict.WHOLE]

    def summary(self) -> str:
        """Counts by fate."""
        counts = Counter(told.verdict for told in list(self.told))
        return ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))

    def _keep_asking(self, question: Question) -> None:
        while not self._enough.is_set():
            self.ask(question)
            self._enough.wait(PAUSE_S)


@contextmanager
def asking(edge: str, key: str, questions: Sequence[Question]) -> Iterator[Crowd]:
    """A crowd that asks until the end of the block."""
    crowd = Crowd(edge, key)
    crowd.start(questions)
    try:
        yield crowd
    finally:
        crowd.stop()


def _ask(edge: str, key: str, request_id: str, question: Question) -> Told:
    begun_s = time.monotonic()
    connection = http.client.HTTPConnection(edge, timeout=ANSWER_LIMIT_S)
    target = ""
    try:
        connection.connect()
        connection.request("POST", "/v1/chat/completions", _body(question), {
            "authorization": f"Bearer {key}", "content-type": "application/json", "x-request-id": request_id,
        })  # fmt: skip
        answer = connection.getresponse()
        target = answer.headers.get("x-weir-target", "")
        verdict, detail = _judge(answer.status, answer.read(), question)
    except ConnectionRefusedError as error:
        verdict, detail = Verdict.NO_CONNECTION, repr(error)
    except (OSError, http.client.HTTPException) as error:
        verdict, detail = Verdict.BROKEN, repr(error)
    finally:
        connection.close()
    return Told(request_id, question, verdict, begun_s, time.monotonic(), detail, target)


def _body(question: Question) -> bytes:
    messages = [{"role": "user", "content": "Say hello."}]
    fields = {"model": question.model, "messages": messages, "stream": question.stream}
    return json.dumps({**fields, "max_tokens": question.max_tokens}).encode()


def _judge(status: int, body: bytes, question: Question) -> tuple[Verdict, str]:
    try:
        if status != http.client.OK:
            error = json.loads(body)["error"]
            return Verdict.REFUSED, f"{status} {error['type']} {error['code']}: {error['message']}"
        return _judge_stream(body, question) if question.stream else _judge_whole(body, question)
    except (ValueError, KeyError, TypeError, IndexError):
        return Verdict.MISSHAPEN, f"{status} {body[:300]!r}"


def _judge_whole(body: bytes, question: Question) -> tuple[Verdict, str]:
    answer = json.loads(body)
    choice = answer["choices"][0]
    return _complete(answer["provider"], choice["message"]["content"], choice["finish_reason"], question)


def _judge_stream(body: bytes, question: Question) -> tuple[Verdict, str]:
    events = [event.removeprefix(b"data: ") for event in body.split(b"\n\n") if event]
    done = events[-1:] == [b"[DONE]"]
    chunks = [json.loads(event) for event in events[: -1 if done else None]]
    if chunks and "error" in chunks[-1]:
        error = chunks[-1]["error"]
        return Verdict.ERROR_EVENT, f"{error['type']} {error['code']}: {error['message']}"
    choices = [chunk["choices"][0] for chunk in chunks if chunk["choices"]]
    text = "".join(choice["delta"].get("content") or "" for choice in choices)
    finish = choices[-1]["finish_reason"] if done else None
    return _complete(chunks[-1]["provider"], text, finish, question)


def _complete(provider: str, text: str, finish: str | None, question: Question) -> tuple[Verdict, str]:
    expected = question.cloud_text if provider == "cloud" else None
    if finish is None or not text or (expected is not None and text != expected):
        return Verdict.SHORT, f"{finish}: {text!r}"
    return Verdict.WHOLE, provider
