"""A soak: many mixed questions at once, each with the end that it must have, to its client and in the ledger."""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from queue import Empty, SimpleQueue
from types import MappingProxyType
from typing import Any

from gen.weir.type.v1 import Locality
from tests.harness.fault_plans import TEXT
from tests.harness.fault_rig import Rig
from tests.harness.open_stream import opened
from tests.harness.reply import MESSAGES, Reply, post

LEAVES_AFTER_S = 0.3
"""When a client that gets nothing goes away."""
TOOLS = ({"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}},)


class End(Enum):
    """What the client sees."""

    WHOLE = "whole"
    ERROR = "error"
    CALL = "tool call"
    VECTORS = "vectors"
    SPOKEN = "spoken"  # whole, in words of the local model's own
    LEFT = "left in mid-stream"
    LEFT_EARLY = "left before the first token"


@dataclass(frozen=True)
class Kind:
    """One sort of question: a model of fault_plans, and how it must end."""

    model: str
    outcomes: tuple[str, ...]
    """Of its attempts in the ledger, in order."""
    also: tuple[str, ...] | None = None
    """What they may be too; None where nothing else is right."""
    end: End = End.WHOLE
    weight: int = 1
    """Its share of the questions."""
    code: str | None = None
    """Of the error that the client gets."""
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def stream(self) -> bool:
        """Whether a stream is asked for."""
        return not self.model.endswith(".unary")


CLOUD = (
    Kind("good.unary", ("ok",), weight=8),
    Kind("good.stream", ("ok",), weight=8),
    Kind("no-usage.stream", ("ok",)),
    Kind("malformed.stream", ("ok",)),
    Kind("no-done.stream", ("ok",)),
    Kind("tools.stream", ("ok",), end=End.CALL, weight=3, fields=MappingProxyType({"tools": TOOLS})),
    Kind("vectors.unary", ("ok",), end=End.VECTORS, weight=3),
    Kind("failed-once.unary", ("failed", "ok")),
    Kind("failed-once.stream", ("failed", "ok")),
    Kind("reset-once.unary", ("failed", "ok")),
    Kind("reset-once.stream", ("failed", "ok")),
    Kind("failing.unary", ("failed", "failed", "ok")),
    Kind("failing.stream", ("failed", "failed", "ok")),
    Kind("limited-long.stream", ("failed", "ok")),
    Kind("html.unary", ("failed", "ok")),
    Kind("cut.stream", ("cut", "ok")),
    Kind("cut-to-prefill.stream", ("cut", "ok")),
    Kind("cut-to-refusal.stream", ("cut", "failed", "ok")),
    Kind("cut-alone.stream", ("cut",), end=End.ERROR, code="upstream_truncated"),
    Kind("error-event-alone.stream", ("cut",), end=End.ERROR, code="upstream_truncated"),
    Kind("filtered.unary", ("failed",), end=End.ERROR, code="content_policy_violation"),
    Kind("endless.stream", ("cancelled",), end=End.LEFT, weight=3),
    # Who leaves before anything came may have left before anything began.
    Kind("mute.stream", ("cancelled",), (), End.LEFT_EARLY),
    Kind("mute.unary", ("cancelled",), (), End.LEFT_EARLY),
)
LOCAL = (
    # Its queue is short.
    Kind("local-first", ("ok",), ("failed", "ok"), End.SPOKEN, 2, fields=MappingProxyType({"max_tokens": 4})),
)
"""Where there is a local model."""


@dataclass(frozen=True)
class Fate:
    """One question, and what is wrong with what its client saw; empty where nothing is."""

    kind: Kind
    request_id: str
    problem: str


class Soak:
    """Asks `count` questions, `at_once` of them at a time, drawn by `seed`."""

    def __init__(self, rig: Rig, seed: int, prefix: str) -> None:
        self._rig = rig
        self._random = random.Random(seed)  # noqa: S311 - a seed that can be asked for again, no secret
        self._prefix = prefix
        self._begun = 0
        self.fates: list[Fate] = []

    def run(self, count: int, at_once: int) -> float:
        """Returns how many seconds it took."""
        kinds = self._rig_kinds()
        drawn = self._random.choices(kinds, [kind.weight for kind in kinds], k=count)
        questions: SimpleQueue[tuple[str, Kind]] = SimpleQueue()
        for number, kind in enumerate(drawn, self._begun):
            questions.put((f"{self._prefix}{number}", kind))
        self._begun += count
        begun_s = time.monotonic()
        clients = [threading.Thread(target=self._client, args=(questions,)) for _ in range(at_once)]
        for client in clients:
            client.start()
        for client in clients:
            client.join(600)
            assert not client.is_alive(), "a client waits for ever"
        return time.monotonic() - begun_s

    def _rig_kinds(self) -> tuple[Kind, ...]:
        return (*CLOUD, *LOCAL) if "local" in self._rig.weir.document["targets"] else CLOUD

    def _client(self, questions: SimpleQueue[tuple[str, Kind]]) -> None:
        while True:
            try:
                request_id, kind = questions.get_nowait()
            except Empty:
                return
            try:
                self._ask(request_id, kind)
                problem = ""
            except (AssertionError, OSError, http.client.HTTPException, ValueError, LookupError) as error:
                problem = f"{type(error).__name__}: {error}"[:400]
            self.fates.append(Fate(kind, request_id, problem))

    def _ask(self, request_id: str, kind: Kind) -> None:
        """Raises if it ends otherwise than it must."""
        weir = self._rig.weir
        fields = {"model": kind.model, "messages": MESSAGES, "stream": kind.stream, **kind.fields}
        if kind.end in {End.LEFT, End.LEFT_EARLY}:
            with opened(weir.edge, weir.key, fields, request_id) as stream:
                if kind.end is End.LEFT:
                    assert stream.read(4_096)
                else:
                    time.sleep(LEAVES_AFTER_S)
                stream.leave()
            return
        headers = {"x-request-id": request_id}
        if kind.end is End.VECTORS:
            asked = {"model": kind.model, "input": ["one", "two"]}
            reply = post(weir.edge, weir.key, asked, headers, "/v1/embeddings")
            assert len(reply.documents[0]["data"]) == 2, reply
        else:
            _judge(post(weir.edge, weir.key, fields, headers), kind)


def _judge(reply: Reply, kind: Kind) -> None:
    if kind.end is End.WHOLE:
        reply.must_be_whole(TEXT)
    elif kind.end is End.ERROR:
        reply.must_be_error(kind.code)
    else:
        assert reply.error is None, reply
        assert reply.done, reply
        expected = {"tool_calls"} if kind.end is End.CALL else {"stop", "length"}
        assert reply.finish_reason in expected, reply


def disagreements(
    fates: Sequence[Fate], rows: Iterable[Mapping[str, Any]], log: Iterable[Mapping[str, Any]], prefix: str
) -> Iterator[str]:
    """Whatever clients, ledger and provider know differently; all of them are to know the same attempts.

    Args:
        fates: what clients saw.
        rows: of ledger.entry, of these questions.
        log: the provider's.
        prefix: of these questions' labels.
    """
    asked = Counter(seen["request_id"] for seen in log if seen["request_id"].startswith(prefix))
    by_request: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        by_request[row["request_id"]].append(row)
    for stranger in (set(by_request) | set(asked)) - {fate.request_id for fate in fates}:
        yield f"{stranger}: nobody asked that"
    for fate in fates:
        own = sorted(by_request[fate.request_id], key=lambda row: row["attempt"])
        outcomes = tuple(row["outcome"] for row in own)
        name = f"{fate.request_id} {fate.kind.model}"
        if fate.problem:
            yield f"{name}: client: {fate.problem}"
        if outcomes not in {fate.kind.outcomes, fate.kind.also}:
            yield f"{name}: ledger: {outcomes} in place of {fate.kind.outcomes}"
        if [row["attempt"] for row in own] != list(range(1, len(own) + 1)):
            yield f"{name}: ledger: an attempt is missing or doubled"
        by_cloud = sum(row["target_locality"] == Locality.CLOUD for row in own)
        never_sent = by_cloud - asked[fate.request_id]
        if never_sent < 0 or (never_sent and fate.kind.end is not End.LEFT_EARLY):
            yield f"{name}: the provider was asked {asked[fate.request_id]} times, the ledger says {by_cloud}"


def open_answers(log: Iterable[Mapping[str, Any]]) -> list[str]:
    """The provider's requests that have neither been answered nor given up."""
    return [seen["request_id"] for seen in log if not seen["answered"] and not seen["gone"]]
