"""A graceful end: new requests refused, running ones finished, then Envoy exits."""

from __future__ import annotations

import asyncio
import http.client
from datetime import timedelta

POLL = timedelta(milliseconds=100)
_ANSWER_LIMIT_S = 2.0
_ACTIVE = "http.edge.downstream_rq_active"


class DrainFailedError(RuntimeError):
    """The admin interface refused a step."""


async def drain(admin_address: str, limit: timedelta) -> bool:
    """Ends the Envoy whose admin interface is at `admin_address` (`host:port`).

    While requests run, new connections are served for `edge.drain_s` more and then refused; kept ones are closed after
    their next answer. Returns once no request runs, or after `limit`, and has then told Envoy to exit; the caller
    awaits the process.

    Returns:
        Whether every request finished. Also True if nothing listens there any more.

    Raises:
        DrainFailedError: the admin interface answers something else than 200.
    """
    try:
        await _ask(admin_address, "POST", "/healthcheck/fail")
        await _ask(admin_address, "POST", "/drain_listeners?graceful")
        finished = await _quiet(admin_address, limit)
        await _ask(admin_address, "POST", "/quitquitquit")
    except OSError:
        return True
    return finished


async def _quiet(admin_address: str, limit: timedelta) -> bool:
    """True once no request runs, False after `limit`."""
    try:
        async with asyncio.timeout(limit.total_seconds()):
            while await active_requests(admin_address):  # noqa: ASYNC110 - Envoy can only be asked
                await asyncio.sleep(POLL.total_seconds())
    except TimeoutError:
        return False
    return True


async def active_requests(admin_address: str) -> int:
    """How many client requests run now. Raises OSError if nothing listens there."""
    answer = await _ask(admin_address, "GET", f"/stats?filter=^{_ACTIVE}$")
    return int(answer.rpartition(":")[2])


async def _ask(admin_address: str, method: str, path: str) -> str:
    return await asyncio.to_thread(_ask_blocking, admin_address, method, path)


def _ask_blocking(admin_address: str, method: str, path: str) -> str:
    connection = http.client.HTTPConnection(admin_address, timeout=_ANSWER_LIMIT_S)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        text = answer.read().decode()
    finally:
        connection.close()
    if answer.status != http.client.OK:
        raise DrainFailedError(f"{method} {path}: {answer.status} {text.strip()}")
    return text
