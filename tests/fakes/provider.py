"""A small OpenAI-compatible provider that misbehaves on demand; also the benchmark's instant provider.

The model's name chooses what it does: `instant`, `cut:after=3`, `rate_limit:retry_after_s=2,times=1`; see
provider_faults.py. Alone: `python -m tests.fakes.provider --port 9000`; `GET /log` there shows what was asked,
when, and when clients left. It serves /chat/completions, /completions, /embeddings and /responses below any prefix, and
Azure's paths below /openai, where the deployment's name stands for the model's and a key and an api-version are asked
for.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import ssl
import time
from typing import Any, Self

from tests.fakes.provider_choice import EVERY_FAULT, Choice
from tests.fakes.provider_endpoints import Place, place_of, rendering_for
from tests.fakes.provider_exchange import Behaviour, ClientGoneError, Exchange, Seen

_GONE = (ClientGoneError, ConnectionError, asyncio.IncompleteReadError)


class FakeProvider:
    """Listens on loopback. `async with` starts and stops it.

    Args:
        port: 0 takes a free one.
        host: where it listens.
        tls: what it shows of itself; None is plain HTTP.

    `key_behaviours` (a secret -> what a model's name may be) goes before the model's name, so that one key of several
    can fail. It may be changed at any time.
    """

    def __init__(self, port: int = 0, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> None:
        self._host = host
        self._tls = tls
        self._port = port
        self._connections = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._choice = Choice()
        self._server: asyncio.Server | None = None
        self._arrived = asyncio.Condition()
        self._began_s = time.monotonic()
        self.key_behaviours: dict[str, str] = {}
        self.seen: list[Seen] = []

    @property
    def base_url(self) -> str:
        """For a client's `base_url`."""
        return f"{self.azure_endpoint}/v1"

    @property
    def azure_endpoint(self) -> str:
        """For a client's `azure_endpoint`."""
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://{self._host}:{self._port}"

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
        target = head[0].split()[1]
        seen = self._seen(place_of(target), headers, raw, connection)
        wanted = self.key_behaviours.get(seen.key, seen.model)
        exchange = Exchange(seen, Behaviour.of(wanted), reader, writer, rendering_for(seen.endpoint, seen))
        if head[0].startswith("GET "):
            await exchange.answer(200, json.dumps(self._document(target)).encode())
            return
        await self._note(seen)
        try:
            if not await self._is_refused(exchange, place_of(target)):
                await self._choice.fault(wanted, seen.request_id)(exchange)
            seen.answered, seen.answered_ms = True, self._since_ms(seen)
        except _GONE:
            seen.client_gone_ms = self._since_ms(seen)
            seen.gone.set()
            raise

    def _seen(self, place: Place, headers: dict[str, str], raw: bytes, connection: int) -> Seen:
        return Seen(
            json.loads(raw) if raw else {},
            headers,
            raw,
            connection,
            path=place.path,
            endpoint=place.endpoint,
            deployment=place.deployment,
            azure=place.azure,
            begun_ms=round((time.monotonic() - self._began_s) * 1_000, 1),
        )

    def _since_ms(self, seen: Seen) -> float:
        return round((time.monotonic() - self._began_s) * 1_000 - seen.begun_ms, 1)

    async def _is_refused(self, exchange: Exchange, place: Place) -> bool:
        """Answers what no fault is needed for: an unknown path, and at Azure's a missing key or api-version."""
        if not place.endpoint or (place.azure and not place.api_version):
            await exchange.error(404, "Resource not found", code="404")
        elif place.azure and not exchange.seen.key:
            await exchange.error(401, "Access denied due to missing subscription key", code="401")
        else:
            return False
        return True

    async def _note(self, seen: Seen) -> None:
        async with self._arrived:
            self.seen.append(seen)
            self._arrived.notify_all()

    def _document(self, path: str) -> dict[str, Any]:
        if path == "/log":
            now_ms = round((time.monotonic() - self._began_s) * 1_000, 1)
            return {"now_ms": now_ms, "requests": [seen.summary() for seen in self.seen]}
        return {"object": "list", "data": [{"id": name, "object": "model"} for name in EVERY_FAULT]}


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
