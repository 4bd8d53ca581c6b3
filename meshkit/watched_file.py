"""A small file that may change: polled by its content, so that a swapped symbolic link is seen as well as an edit."""

from __future__ import annotations

import asyncio
from hashlib import sha256
from pathlib import Path
from typing import Final

POLL_S: Final = 1.0
"""Between two looks."""
_SETTLED_S: Final = 0.1
"""A file that changes is looked at again after so long, until it has stayed as it is: editors write in pieces."""
_LOOKS: Final = 20
"""Such looks at most; then it is taken as it is."""


class WatchedFile:
    """One file, from how it is now. A file that is gone differs from one that is there."""

    def __init__(self, path: Path, poll_s: float = POLL_S) -> None:
        self._path = path
        self._poll_s = poll_s
        self._seen = self._digest()

    async def changed(self, asked: asyncio.Event) -> None:
        """Returns once its content is not that of the last return, or as soon as `asked` is set, and clears that.

        Of a file that is being written it waits for the end.
        """
        while True:
            try:
                await asyncio.wait_for(asked.wait(), self._poll_s)
            except TimeoutError:
                if self._digest() == self._seen:
                    continue
            asked.clear()
            self._seen = await self._settled()
            return

    async def _settled(self) -> bytes:
        now = self._digest()
        for _ in range(_LOOKS):
            await asyncio.sleep(_SETTLED_S)
            before, now = now, self._digest()
            if before == now:
                break
        return now

    def _digest(self) -> bytes:
        try:
            return sha256(self._path.read_bytes()).digest()
        except OSError as error:
            return f"{error.errno}".encode()
