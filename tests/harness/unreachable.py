"""Addresses at which a provider cannot be had: nobody accepts, the certificate is wrong, the name does not resolve."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.fakes.provider import FakeProvider

TLS = Path(__file__).resolve().parents[1] / "fakes" / "provider_tls"
NO_SUCH_NAME = "http://provider.invalid/v1"
"""`.invalid` is reserved for names that nobody has."""
_CALLERS = 4


@contextmanager
def hanging_url() -> Iterator[str]:
    """A listener whose queue is full: further connections are neither accepted nor refused."""
    with contextlib.ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        for _ in range(_CALLERS):
            caller = sockets.enter_context(socket.socket())
            caller.settimeout(0)
            caller.connect_ex(("127.0.0.1", port))
        yield f"http://127.0.0.1:{port}/v1"


@contextmanager
def untrusted_provider() -> Iterator[FakeProvider]:
    """A provider that would answer, behind a certificate that nobody vouches for."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(TLS / "certificate.pem", TLS / "key.pem")
    provider = FakeProvider(tls=context)
    loop = asyncio.new_event_loop()
    started, ending = threading.Event(), asyncio.Event()

    async def serve() -> None:
        async with provider:
            started.set()
            await ending.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert started.wait(10)
        yield provider
    finally:
        loop.call_soon_threadsafe(ending.set)
        thread.join(10)
        loop.close()
