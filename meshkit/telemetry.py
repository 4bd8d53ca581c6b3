"""What a process says of itself: JSON log lines and Prometheus metrics over HTTP."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from threading import Lock, Thread
from time import perf_counter
from typing import Any
from wsgiref.simple_server import WSGIServer

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

_ENCODER = msgspec.json.Encoder(enc_hook=str)
_RPC_SECONDS_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Logger:
    """Writes one JSON object a line to a file descriptor, whole lines only. Safe to call from any thread.

    A line that cannot be written is lost without harm to the service; the next one that can says how many were
    (`lost_lines`).

    Args:
        service: the process's service name, in every line.
        fd: where to write; standard error by default, which the supervisor collects.
    """

    def __init__(self, service: str, fd: int = 2) -> None:
        self._service = service
        self._fd = fd
        self._lock = Lock()
        self._lost_lines = 0
        self._torn = False

    def info(self, event: str, **facts: Any) -> None:
        """Something worth knowing happened."""
        self._write("info", event, facts)

    def warning(self, event: str, **facts: Any) -> None:
        """Something an operator should look at happened; the service goes on."""
        self._write("warning", event, facts)

    def exception(self, event: str, error: BaseException, **facts: Any) -> None:
        """An error nobody expected, with its traceback. Never pass prompts or secrets as facts."""
        trace = "".join(traceback.format_exception(error))
        self._write("error", event, {**facts, "error": type(error).__name__, "traceback": trace})

    def _write(self, level: str, event: str, facts: dict[str, Any]) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        own: dict[str, Any] = {"at": now, "level": level, "service": self._service, "event": event}
        with self._lock:
            if self._lost_lines:
                own["lost_lines"] = self._lost_lines
            try:
                self._put(_encode(own | facts | own) + b"\n")
                self._lost_lines = 0
            except OSError:
                self._lost_lines += 1

    def _put(self, line: bytes) -> None:
        data = memoryview(b"\n" + line if self._torn else line)
        left = data
        try:
            while left:  # a pipe may take only part of a long line at once
                left = left[os.write(self._fd, left) :]
        finally:
            if len(left) < len(data):
                self._torn = bool(left)


def _encode(line: dict[str, Any]) -> bytes:
    try:
        return _ENCODER.encode(line)
    except (TypeError, ValueError, RecursionError):
        # Facts of a kind that JSON has no form for; escaped text is better than no line.
        return _ENCODER.encode({name: ascii(fact) for name, fact in line.items()})


class _Tracked:
    """The code of a call in progress; OK until `failed` says otherwise."""

    __slots__ = ("code",)

    def __init__(self) -> None:
        self.code = "OK"

    def failed(self, code: str) -> None:
        """Notes the gRPC code that the call ends with."""
        self.code = code


class RpcMetrics:
    """Calls served: how many by code, how long, how many now. Children are bound once per method."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._served = Counter("weir_rpc_served", "RPCs ended.", ("method", "code"), registry=registry)
        self._seconds = Histogram(
            "weir_rpc_seconds", "From first byte in to last byte out.", ("method",),
            buckets=_RPC_SECONDS_BUCKETS, registry=registry,
        )  # fmt: skip
        self._active = Gauge("weir_rpc_active", "RPCs in progress.", ("method",), registry=registry)
        self._bound: dict[str, tuple[Any, Any]] = {}
        self._codes: dict[tuple[str, str], Any] = {}

    @contextmanager
    def track(self, method: str) -> Iterator[_Tracked]:
        """Counts one call of `method` (`/package.Service/Method`)."""
        bound = self._bound.get(method)
        if bound is None:
            bound = self._bound[method] = (self._active.labels(method), self._seconds.labels(method))
        active, seconds = bound
        active.inc()
        begun = perf_counter()
        tracked = _Tracked()
        try:
            yield tracked
        finally:
            active.dec()
            seconds.observe(perf_counter() - begun)
            self._count(method, tracked.code)

    def _count(self, method: str, code: str) -> None:
        child = self._codes.get((method, code))
        if child is None:
            child = self._codes[method, code] = self._served.labels(method, code)
        child.inc()


def expose_metrics(registry: CollectorRegistry, host: str, port: int) -> tuple[WSGIServer, Thread]:
    """Serves `registry` in Prometheus's text format over HTTP, in a thread. Raises OSError if the port is taken."""
    return start_http_server(port, addr=host, registry=registry)
