"""A transport to a servicer in the same process: what generated clients use in the compact topology."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from datetime import timedelta
from time import monotonic
from typing import Any, Final

from betterproto2 import Message

from gen.rpc import Metadata, Method, Peer
from meshkit.callers import may_call, refusal
from meshkit.errors import UpstreamTimeout
from meshkit.ids import request_id
from meshkit.serving import is_cancellation, noun
from meshkit.status import REQUEST_ID
from meshkit.telemetry import Logger


class InProcessContext:
    """What the servicer may know of a call that crossed no socket (gen.rpc.RpcContext)."""

    def __init__(self, metadata: Metadata, timeout: timedelta | None, caller: str) -> None:
        self.peer: Final = Peer(caller, "")
        self._metadata: Final = dict(metadata)
        self._ends_at = None if timeout is None else monotonic() + timeout.total_seconds()
        self.request_id: Final = request_id(self._metadata.get(REQUEST_ID))

    @property
    def metadata(self) -> Mapping[str, str | bytes]:
        """What the caller sent, names in lower case; the last value of a repeated name."""
        return self._metadata

    def time_remaining(self) -> timedelta | None:
        """How long the caller still waits; None means without limit."""
        if self._ends_at is None:
            return None
        return timedelta(seconds=max(0.0, self._ends_at - monotonic()))

    async def send_initial_metadata(self, metadata: Metadata) -> None:
        """Headers have no reader inside a process."""


class InProcessTransport:
    """Carries calls to one servicer by calling its methods (gen.rpc.Transport).

    Messages are handed over, not copied: neither side alters one after it was sent. Errors, deadlines and cancellation
    are those of a channel: an error that the servicer did not mean becomes InternalFault and goes to the log.

    Args:
        caller: the service that calls: meshkit.callers says what it may call. Empty: nobody in particular, who may call
            everything, as over a transport that proves nothing.
    """

    def __init__(self, servicer: object, log: Logger, caller: str = "") -> None:
        self._servicer = servicer
        self._log = log
        self._caller = caller

    async def unary_unary(
        self, method: Method, request: Message, *, timeout: timedelta | None, metadata: Metadata
    ) -> Any:
        """One request, one response."""
        return await self._single(method, request, timeout, metadata)

    def unary_stream(
        self, method: Method, request: Message, *, timeout: timedelta | None, metadata: Metadata
    ) -> AsyncGenerator[Any, None]:
        """One request, many responses. The call begins with the first response asked for."""
        return self._stream(method, request, timeout, metadata)

    async def stream_unary(
        self, method: Method, requests: AsyncIterator[Any], *, timeout: timedelta | None, metadata: Metadata
    ) -> Any:
        """Many requests, one response."""
        return await self._single(method, requests, timeout, metadata)

    def stream_stream(
        self, method: Method, requests: AsyncIterator[Any], *, timeout: timedelta | None, metadata: Metadata
    ) -> AsyncGenerator[Any, None]:
        """Many requests, many responses. The call begins with the first response asked for."""
        return self._stream(method, requests, timeout, metadata)

    async def _single(
        self, method: Method, argument: Any, timeout: timedelta | None, metadata: Metadata
    ) -> Any:
        context = InProcessContext(metadata, timeout, self._caller)
        return await self._step(method, context, _deadline(timeout), self._call(method, argument, context))

    async def _stream(
        self, method: Method, argument: Any, timeout: timedelta | None, metadata: Metadata
    ) -> AsyncGenerator[Any, None]:
        context = InProcessContext(metadata, timeout, self._caller)
        ends_at = _deadline(timeout)
        async with aclosing(self._call(method, argument, context)) as answers:
            while (answer := await self._step(method, context, ends_at, anext(answers, None))) is not None:
                yield answer

    def _call(self, method: Method, argument: Any, context: InProcessContext) -> Any:
        if self._caller and not may_call(self._caller, method.path):
            raise refusal(self._caller, method.path)
        return getattr(self._servicer, method.name)(argument, context)

    async def _step(self, method: Method, context: InProcessContext, ends_at: float | None, work: Any) -> Any:
        """Awaits one answer of the servicer, and raises only what a channel would raise."""
        try:
            async with asyncio.timeout_at(ends_at):
                return await self._guarded(method, context, work)
        except TimeoutError as error:
            raise UpstreamTimeout("the call's deadline passed") from error

    async def _guarded(self, method: Method, context: InProcessContext, work: Any) -> Any:
        try:
            return await work
        except (Exception, asyncio.CancelledError) as error:
            if is_cancellation(error):
                raise
            known = noun(error, method, context.request_id, self._log)
            if known is error:
                raise
            raise known from None


def _deadline(timeout: timedelta | None) -> float | None:
    """The deadline on the event loop's clock."""
    return None if timeout is None else asyncio.get_running_loop().time() + timeout.total_seconds()
