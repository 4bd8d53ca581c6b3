"""A provider that answers everything as OpenAI documents it, and remembers what it was asked.

The model's name chooses the exceptions: `limited` (429 with retry-after), `bad-param` (400), `down` (503), `slow`
(answers after 30 s), `trickle` (a word each 100 ms).
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web

from tests.clients import polite_chat, polite_responses

RETRY_AFTER_S = 7
SLOW_S = 30.0
TRICKLE_S = 0.1
DONE = b"data: [DONE]\n\n"
_ERRORS = {
    "limited": (429, "requests", "rate_limit_exceeded", None),
    "bad-param": (400, "invalid_request_error", None, "temperature"),
    "down": (503, "server_error", None, None),
}


@dataclass
class Asked:
    """One request."""

    path: str
    body: dict[str, Any]
    gone: threading.Event = field(default_factory=threading.Event)
    """Set when the client left before the answer was complete."""


class PoliteProvider:
    """Serves on loopback in a thread of its own. `with` starts and stops it."""

    def __init__(self) -> None:
        self._asked: dict[str, list[Asked]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._runner: web.AppRunner | None = None
        self.base_url = ""

    def asked(self, request_id: str) -> list[Asked]:
        """What was asked under this label, oldest first."""
        return self._asked.get(request_id, [])

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._runner is not None
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _start(self) -> None:
        app = web.Application(client_max_size=32 << 20)
        app.router.add_post("/v1/{endpoint:.+}", self._answer)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        assert self._runner.addresses
        self.base_url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        asked = Asked(request.match_info["endpoint"], await request.json())
        self._asked.setdefault(request.headers.get("x-request-id", ""), []).append(asked)
        try:
            return await self._reply(request, asked)
        except (ConnectionError, asyncio.CancelledError):
            asked.gone.set()
            raise

    async def _reply(self, request: web.Request, asked: Asked) -> web.StreamResponse:
        model = str(asked.body.get("model"))
        if model in _ERRORS:
            status, kind, code, param = _ERRORS[model]
            error = {"message": f"{model}, as asked", "type": kind, "param": param, "code": code}
            headers = {"retry-after": str(RETRY_AFTER_S)} if status == 429 else {}
            return web.json_response({"error": error}, status=status, headers=headers)
        if model == "slow":
            await asyncio.sleep(SLOW_S)
        if asked.body.get("stream"):
            return await self._stream(request, asked, TRICKLE_S if model == "trickle" else 0)
        whole = {
            "chat/completions": polite_chat.chat,
            "completions": polite_chat.completion,
            "embeddings": polite_chat.embeddings,
            "responses": polite_responses.response,
        }[asked.path]
        return web.json_response(whole(asked.body))

    async def _stream(self, request: web.Request, asked: Asked, gap_s: float) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        async for event in _paced(_events(asked), gap_s):
            await response.write(event)
        await response.write_eof()
        return response


async def _paced(events: Iterable[bytes], gap_s: float) -> AsyncIterator[bytes]:
    for event in events:
        yield event
        await asyncio.sleep(gap_s)


def _events(asked: Asked) -> Iterable[bytes]:
    if asked.path == "responses":
        for event in polite_responses.events(asked.body):
            yield f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
        return
    chunks = polite_chat.chat_chunks if asked.path == "chat/completions" else polite_chat.completion_chunks
    for chunk in chunks(asked.body):
        yield f"data: {json.dumps(chunk)}\n\n".encode()
    yield DONE
