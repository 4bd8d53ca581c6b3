"""A transport to a servicer in the same process: what generated clients use in the compact topology."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from datetime import timedelta
from time import monotonic
from typing import Any, Final

from betterproto2 import Message

from gen.rpc import Metadata, Method
from meshkit.errors import UpstreamTimeout
from meshkit.ids import request_id


class InProcessContext:
    """What the servicer may know of a call that crossed no socket (gen.rpc.RpcContext)."""

    def __init__(self, metadata: Metadata, timeout: timedelta | None) -> None:
        self._metadata: Final = dict(metadata)
        self._ends_at = None if timeout is None else monotonic() + timeout.total_seconds()
        self.request_id: Final = request_id(self._metadata.get("x-request-id"))

    @property
    def metadata(self) -> Mapping[str, str | bytes]:
        """What the caller sent."""
        return self._metadata

    def time_remaining(self) -> timedelta | None:
        """How long the caller still waits."""
        if self._ends_at is None:
            return None
        return timedelta(seconds=max(0.0, self._ends_at - monotonic()))

    async def send_initial_metadata(self, metadata: Metadata) -> None:
        """Headers have no reader inside a process."""


class InProcessTransport:
    """Carries calls to one servicer by calling its methods (gen.rpc.Transport).

    Messages are handed over, not copied: neither side alters one after it was sent.
    """

    def __init__(self, servicer: object) -> None:
        self._servicer = servicer

    async def unary_unary(
        self, method: Method, request: Message, *, timeout: timedelta | None, metadata: Metadata
    ) -> Any:
        """One request, one response."""
        return await self._within(timeout, self._call(method, request, timeout, metadata))

    def unary_stream(
        self, method: Method, request: Message, *, timeout: timedelta | None, metadata: Metadata
    ) -> AsyncIterator[Any]:
        """One request, many responses."""
        return self._stream(timeout, self._call(method, request, timeout, metadata))

    async def stream_unary(
        self, method: Method, requests: AsyncIterator[Any], *, timeout: timedelta | None, metadata: Metadata
    ) -> Any:
        """Many requests, one response."""
        return await self._within(timeout, self._call(method, requests, timeout, metadata))

    def stream_stream(
        self, method: Method, requests: AsyncIterator[Any], *, timeout: timedelta | None, metadata: Metadata
    ) -> AsyncIterator[Any]:
        """Many requests, many responses."""
        return self._stream(timeout, self._call(method, requests, timeout, metadata))

    def _call(self, method: Method, argument: Any, timeout: timedelta | None, metadata: Metadata) -> Any:
        return getattr(self._servicer, method.name)(argument, InProcessContext(metadata, timeout))

    async def _within(self, timeout: timedelta | None, answer: Any) -> Any:
        try:
            async with asyncio.timeout(None if timeout is None else timeout.total_seconds()):
                return await answer
        except TimeoutError as error:
            raise UpstreamTimeout("the call's deadline passed") from error

    async def _stream(self, timeout: timedelta | None, answers: Any) -> AsyncIterator[Any]:
        ends_at = None if timeout is None else asyncio.get_running_loop().time() + timeout.total_seconds()
        async with aclosing(answers):
            while True:
                try:
                    async with asyncio.timeout_at(ends_at):
                        answer = await anext(answers)
                except StopAsyncIteration:
                    return
                except TimeoutError as error:
                    raise UpstreamTimeout("the call's deadline passed") from error
                yield answer
