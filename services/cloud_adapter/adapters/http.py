"""Providers over HTTP: configured and authenticated by the openai SDK, asked over aiohttp.

aiohttp is the SDK's own transport too, but its request and response objects would cost three times what the rest of a
call does. So bodies go through unparsed in both directions, and nothing is ever retried: an attempt that may have cost
money is the router's to repeat.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import aiohttp

from gen.weir.cloud.v1 import Provider as Listing
from services.cloud_adapter.adapters.account import Account, Headers
from services.cloud_adapter.adapters.family import Family
from services.cloud_adapter.domain.redaction import redacted
from services.cloud_adapter.domain.retry_after import retry_after
from services.cloud_adapter.ports import AnswerCutError, Limits, Question, RefusedError, UnreachableError
from services.cloud_adapter.settings import CloudAdapterBlock, ProviderSettings

_BROKEN = (aiohttp.ClientError, OSError)
_SUCCESS = range(200, 300)
_FAILURES: Final = (
    (aiohttp.ConnectionTimeoutError, "no connection within the limit", False),
    (aiohttp.ClientConnectorDNSError, "its name does not resolve", False),
    (aiohttp.ClientConnectorCertificateError, "its certificate is not valid", False),
    (aiohttp.ClientSSLError, "the TLS handshake failed", False),
    (aiohttp.ClientConnectorError, "the connection was refused or is not possible", False),
    (aiohttp.ClientResponseError, "the answer is no HTTP", True),
)
"""aiohttp's errors before an answer, the narrower first: text, and whether the request may have been sent."""


class HttpProvider:
    """One provider (services.cloud_adapter.ports.Provider).

    Lifetime: `open` first, in the event loop that asks; connections are made on first use; `close` ends them all.

    Args:
        listing: how it is listed.
        settings: what the configuration says of it.
        block: what it says of every provider.
        family: how it is spoken to.
        account: what it is shown.
        authorities: who may vouch for its certificate; see `trusted`.
        now: the wall clock, with a time zone; for dates in `retry-after`.
    """

    def __init__(
        self,
        listing: Listing,
        settings: ProviderSettings,
        block: CloudAdapterBlock,
        family: Family,
        account: Account,
        authorities: ssl.SSLContext,
        now: Callable[[], datetime],
    ) -> None:
        self.listing: Final = listing
        self.limits: Final = Limits(settings.max_answer_bytes, settings.max_event_bytes)
        self._settings = settings
        self._block = block
        self._family = family
        self._account = account
        self._authorities = authorities
        self._now = now
        self._http: aiohttp.ClientSession | None = None
        self._asking = 0
        self._ended = asyncio.Event()

    def is_like(self, other: HttpProvider) -> bool:
        """Whether the settings and the secrets of both are the same."""
        mine = (self._settings, self._block, self.listing, self._account.known())
        return mine == (other._settings, other._block, other.listing, other._account.known())

    def redact(self, text: str) -> str:
        """The text without the provider's secrets and whatever looks like one."""
        return redacted(text, self._account.known())

    async def open(self) -> None:
        """Makes the pool of connections; none is opened yet."""
        self._http = aiohttp.ClientSession(
            connector=_connector(self._settings, self._authorities),
            # One client's answer must leave nothing behind for the next.
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=self._settings.proxy_from_environment,
        )

    async def close(self) -> None:
        """Ends every connection."""
        if self._http is not None:
            await self._http.close()
        await self._family.close()

    async def idle(self, within_s: float) -> None:
        """Returns once nobody is being answered, at the latest after so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while self._asking:
                    self._ended.clear()
                    await self._ended.wait()

    @asynccontextmanager
    async def ask(self, question: Question) -> AsyncIterator[_Answer]:
        """Sends the question; the answer's head is here on entering, and leaving ends the request."""
        self._asking += 1
        try:
            async with self._asked(question) as answer:
                yield answer
        finally:
            self._asking -= 1
            self._ended.set()

    @asynccontextmanager
    async def _asked(self, question: Question) -> AsyncIterator[_Answer]:
        place, headers = self._account.choose()
        response = await self._send(question, headers)
        try:
            answer = _Answer(response, self._block.release_wait_s)
            if response.status not in _SUCCESS:
                wait = retry_after(response.headers, self._now())
                other_key = self._account.refused(place, response.status, wait)
                body = await answer.beginning(self._block.max_refusal_bytes)
                raise RefusedError(response.status, body, wait, other_key=other_key)
            yield answer
        finally:
            response.close()  # at once, unless the answer was read to its end: then the connection is kept

    async def _send(self, question: Question, headers: Headers) -> aiohttp.ClientResponse:
        if self._http is None:
            raise UnreachableError("the adapter has not started")
        limit = question.connect_timeout or timedelta(seconds=self._settings.connect_timeout_s)
        url, body = self._family.addressed(question)
        try:
            return await self._http.post(
                url,
                data=body,
                headers={**headers, "x-request-id": question.request_id},
                # No limit on reading: the router guards the first token, the gaps and the whole.
                timeout=aiohttp.ClientTimeout(total=None, connect=limit.total_seconds()),
                # A redirect would carry the prompt to an address that nobody configured.
                allow_redirects=False,
            )
        except _BROKEN as error:
            raise _unreachable(error) from error


class _Answer:
    """An answer whose head is here (services.cloud_adapter.ports.ProviderAnswer)."""

    def __init__(self, response: aiohttp.ClientResponse, release_wait_s: float) -> None:
        self._content = response.content
        self._release_wait_s = release_wait_s
        self.status = response.status
        self.content_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()

    async def read(self) -> bytes:
        """What has arrived since the last read."""
        try:
            return await self._content.readany()
        except _BROKEN as error:
            # What arrived before the break counts, and aiohttp has no public way to it.
            rest = self._content._read_nowait(-1)  # noqa: SLF001 - see above
            if rest:
                return rest
            raise AnswerCutError("the connection ended within the body, or its encoding is broken") from error

    async def release(self) -> None:
        """Reads on to the end if it comes at once: only then is the connection kept."""
        try:
            async with asyncio.timeout(self._release_wait_s):
                while await self.read():
                    pass
        except (TimeoutError, AnswerCutError):
            pass  # the answer is whole: only the connection is lost

    async def beginning(self, limit_bytes: int) -> bytes:
        """The first bytes of the body, as many as can be had."""
        body = b""
        try:
            while len(body) < limit_bytes and (piece := await self.read()):
                body += piece
        except AnswerCutError:
            pass  # the status alone says enough
        return body[:limit_bytes]


def trusted(ca_file: Path | None) -> ssl.SSLContext:
    """Who may vouch for a provider: the file's authorities, else the system's (SSL_CERT_FILE and _DIR are heeded).

    Raises OSError if the file cannot be read or holds no certificate.
    """
    return ssl.create_default_context(cafile=ca_file)


def _connector(settings: ProviderSettings, authorities: ssl.SSLContext) -> aiohttp.TCPConnector:
    if not settings.keepalive_s:
        return aiohttp.TCPConnector(limit=settings.pool_size, ssl=authorities, force_close=True)
    return aiohttp.TCPConnector(
        limit=settings.pool_size, ssl=authorities, keepalive_timeout=settings.keepalive_s
    )


def _unreachable(error: Exception) -> UnreachableError:
    """Why no answer began. aiohttp's own texts stay out of it: they hold addresses."""
    for kind, text, sent in _FAILURES:
        if isinstance(error, kind):
            return UnreachableError(text, timed_out=kind is aiohttp.ConnectionTimeoutError, sent=sent)
    return UnreachableError("the connection broke before an answer began", sent=True)
