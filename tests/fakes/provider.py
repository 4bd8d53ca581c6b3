"""A small OpenAI-compatible provider that misbehaves on demand; also the benchmark's instant provider.

The model's name chooses what it does: `instant`, `cut:after=3`, `rate_limit:retry_after_s=2,times=1`; see
provider_faults.py. Alone: `python -m tests.fakes.provider --port 9000`; `GET /log` there shows what was asked.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import ssl
from collections import Counter
from typing import Any, Self

from tests.fakes.provider_exchange import Behaviour, ClientGoneError, Exchange, Seen
from tests.fakes.provider_faults import FAULTS, instant

_GONE = (ClientGoneError, ConnectionError, asyncio.IncompleteReadError)


class FakeProvider:
    """Listens on loopback. `async with` starts and stops it.

    Args:
        port: 0 takes a free one.
        host: where it listens.
        tls: what it shows of itself; None is plain HTTP.
    """

    def __init__(self, port: int = 0, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> None:
        self._host = host
        self._tls = tls
        self._port = port
        self._connections = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._happened: Counter[str] = Counter()
        self._server: asyncio.Server | None = None
        self._arrived = asyncio.Condition()
        self.seen: list[Seen] = []

    @property
    def base_url(self) -> str:
        """For a client's `base_url`."""
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://{self._host}:{self._port}/v1"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._accept, self._host, self._port, limit=32 << 20, ssl=self._tls
        )
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def request(self, number: int = 0) -> Seen:
        """The request with this number, once it is there."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: len(self.seen) > number)
        return self.seen[number]

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._converse(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection, self._connections = self._connections, self._connections + 1
        try:
            with contextlib.suppress(*_GONE):
                while not writer.is_closing():
                    await self._one(connection, reader, writer)
        finally:
            writer.close()

    async def _one(self, connection: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])
        }
        raw = await reader.readexactly(int(headers.get("content-length", 0)))
        seen = Seen(json.loads(raw) if raw else {}, headers, raw, connection)
        behaviour = Behaviour.of(seen.model)
        exchange = Exchange(seen, behaviour, reader, writer)
        if head[0].startswith("GET "):
            await exchange.answer(200, json.dumps(self._document(head[0].split()[1])).encode())
            return
        await self._note(seen)
        try:
            await self._fault(behaviour, seen.model)(exchange)
            seen.answered = True
        except _GONE:
            seen.gone.set()
            raise

    def _fault(self, behaviour: Behaviour, model: str) -> Any:
        self._happened[model] += 1
        if self._happened[model] > behaviour.option("times", self._happened[model]):
            return instant
        return FAULTS.get(behaviour.fault, instant)

    async def _note(self, seen: Seen) -> None:
        async with self._arrived:
            self.seen.append(seen)
            self._arrived.notify_all()

    def _document(self, path: str) -> dict[str, Any]:
        if path == "/log":
            return {"requests": [seen.summary() for seen in self.seen]}
        return {"object": "list", "data": [{"id": name, "object": "model"} for name in FAULTS]}


async def _serve(port: int, host: str) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with FakeProvider(port, host) as provider:
        print(f"ready {provider.base_url}", flush=True)  # noqa: T201 - whoever started it waits for this line
        await stop.wait()


def main() -> None:
    """Serves until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one; it is printed")
    parser.add_argument("--host", default="127.0.0.1")
    arguments = parser.parse_args()
    import uvloop  # noqa: PLC0415 - only the benchmark's instant provider needs the speed

    uvloop.run(_serve(arguments.port, arguments.host))


if __name__ == "__main__":
    main()
