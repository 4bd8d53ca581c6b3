"""What was kept of sampled requests, on its way to Auth's table."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from gen.weir.auth.v1 import Sample
from meshkit.errors import InvalidRequest, WeirError
from meshkit.telemetry import Logger
from services.router.ports import Clock

EVERY_S = 2.0
"""How often what was kept is sent, in seconds."""
BATCH = 20
"""Samples in one message: at most 2.5 MiB."""
WAITING = 200
"""Samples that wait to be sent, at most 25 MiB; beyond it the oldest are lost, for they are a sample anyway."""


class Samples:
    """A bounded queue, sent in the background: no request waits for it.

    Args:
        send: hands a batch to Auth. Raises WeirError.
    """

    def __init__(
        self, send: Callable[[Sequence[Sample]], Awaitable[None]], clock: Clock, log: Logger
    ) -> None:
        self._send = send
        self._clock = clock
        self._log = log
        self._waiting: deque[Sample] = deque(maxlen=WAITING)
        self._fails = False

    def add(self, sample: Sample) -> None:
        """Takes one."""
        self._waiting.append(sample)

    async def watch(self) -> None:
        """Sends until cancelled."""
        while True:
            await self._clock.sleep(EVERY_S)
            await self.send()

    async def send(self) -> None:
        """Sends all that wait; those that cannot be sent wait on, but for those that Auth will never take."""
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            try:
                await self._send(batch)
            except InvalidRequest as error:
                self._log.warning(
                    "auth does not take samples; they are lost", error=str(error), rows=len(batch)
                )
            except WeirError as error:
                if not self._fails:
                    self._log.warning("samples cannot be sent; they wait", error=str(error))
                self._fails = True
                room = WAITING - len(self._waiting)
                self._waiting.extendleft(reversed(batch[-room:] if room else []))
                return
            self._fails = False
