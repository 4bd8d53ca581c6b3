"""Whether a model of a Triton server can be asked, by its readiness endpoint and by what requests met."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import grpc
from tritonclient.grpc import service_pb2

from meshkit.errors import WeirError

_MISSES = 2
"""So many probes in a row must go unanswered: a busy machine misses one now and then."""


class Readiness:
    """Follows one model. Down until the first probe.

    Args:
        stub: tritonclient's, on a channel to the server.
        model: the Triton model's name.
        every: how often readiness is asked for, and how long an answer may take.
    """

    def __init__(self, stub: Any, model: str, every: timedelta) -> None:
        self._stub = stub
        self._request = service_pb2.ModelReadyRequest(name=model)
        self._every_s = every.total_seconds()
        self._missed = 0
        self.is_up = False

    async def watch(self) -> None:
        """Probes until cancelled."""
        while True:
            await asyncio.sleep(self._every_s)
            await self.probe()

    async def probe(self) -> None:
        """Asks once. A refusal counts at once, silence when it repeats."""
        try:
            ready = bool((await self._stub.ModelReady(self._request, timeout=self._every_s)).ready)
        except grpc.aio.AioRpcError as error:
            silent = error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
            self._missed = self._missed + 1 if silent else _MISSES
            self.is_up = self.is_up and self._missed < _MISSES
        else:
            self._missed = 0
            self.is_up = ready

    def answered(self) -> None:
        """A request was answered."""
        self._missed = 0
        self.is_up = True

    def failed(self, error: WeirError) -> None:
        """A request failed: a model that is gone counts as down before the next probe."""
        if error.details.get("down") == "true" or error.details.get("sent") == "false":
            self.is_up = False
