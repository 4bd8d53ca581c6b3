"""A cloud adapter with a misbehaving provider behind it, as tests ask it: behind a socket, or in this process."""

import asyncio
import json
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from gen.rpc import Transport
from gen.weir.cloud.v1 import GenerateRequest, GenerateResponse
from gen.weir.cloud.v1.service import CloudAdapterClient
from meshkit.channel import ChannelTransport, open_channel
from meshkit.codec import mesh_codec
from meshkit.errors import WeirError
from meshkit.inprocess import InProcessTransport
from meshkit.server import MeshServer
from meshkit.settings import Listen
from meshkit.telemetry import Logger
from services.cloud_adapter.bootstrap import build
from services.cloud_adapter.settings import CloudAdapterSettings
from tests.fakes.provider import FakeProvider

SECRET = "sk-test-1234567890abcdef"
SOON_S = 20.0


@dataclass
class RunningAdapter:
    """A cloud adapter and the provider behind it."""

    client: CloudAdapterClient
    provider: FakeProvider
    registry: CollectorRegistry
    log: Path

    def request(self, model: str, *, stream: bool = False, **changes: Any) -> GenerateRequest:
        body: dict[str, Any] = {
            "model": model,
            "messages": [{"role": "user", "content": "hi"}],
            "stream": stream,
        }
        if stream:
            body["stream_options"] = {"include_usage": True}
        known: dict[str, Any] = {"provider": "fake", "body": json.dumps(body).encode(), "stream": stream}
        return GenerateRequest(**known | {"request_id": "req-1", **changes})

    def open(self, model: str, *, stream: bool = False, **changes: Any) -> AsyncGenerator[GenerateResponse]:
        return self.client.generate(self.request(model, stream=stream, **changes))

    async def ask(self, model: str, *, stream: bool = False, **changes: Any) -> list[GenerateResponse]:
        async with asyncio.timeout(SOON_S), aclosing(self.open(model, stream=stream, **changes)) as responses:
            return [response async for response in responses]

    async def failing(
        self, model: str, *, stream: bool = False, **changes: Any
    ) -> tuple[list[GenerateResponse], WeirError]:
        """The responses before the error, and the error."""
        heard: list[GenerateResponse] = []
        with pytest.raises(WeirError) as caught:
            async with (
                asyncio.timeout(SOON_S),
                aclosing(self.open(model, stream=stream, **changes)) as responses,
            ):
                async for response in responses:
                    heard.append(response)  # noqa: PERF401 - what came before the error counts
        return heard, caught.value


def text_of(responses: list[GenerateResponse]) -> str:
    return "".join(response.text for response in responses)


def settings_for(base_url: str, folder: Path) -> CloudAdapterSettings:
    """One provider, `fake`, with its secret in a file and a limit of 1 MiB an event."""
    key_file = folder / "key"
    key_file.write_text(f"{SECRET}\n")
    key_file.chmod(0o600)
    fake = {
        "base_url": base_url,
        "api_key_file": key_file,
        "max_event_bytes": 1 << 20,
        "organization": "org-7",
    }
    return CloudAdapterSettings.model_validate({"providers": {"fake": fake}})


@asynccontextmanager
async def running_adapter(
    provider: FakeProvider, folder: Path, *, in_process: bool
) -> AsyncIterator[RunningAdapter]:
    """The adapter in front of `provider`. `folder` has a short path: sockets' names are limited to 107 bytes."""
    registry = CollectorRegistry()
    async with AsyncExitStack() as exits:
        descriptor = os.open(folder / "log", os.O_CREAT | os.O_WRONLY)
        exits.callback(os.close, descriptor)
        log = Logger("cloud_adapter", descriptor)
        service = build(settings_for(provider.base_url, folder), registry, log)
        transport: Transport
        if in_process:
            await service.start()
            exits.push_async_callback(service.stop)
            transport = InProcessTransport(service.servicer, log)
        else:
            address = f"unix:{folder}/s"
            listen = Listen(address, "", 0, timedelta(seconds=1))
            server = MeshServer("cloud_adapter", service, listen, registry, log)
            await server.start()
            exits.push_async_callback(server.stop)
            channel = open_channel(address)
            exits.push_async_callback(channel.close)
            transport = ChannelTransport(channel, mesh_codec())
        yield RunningAdapter(CloudAdapterClient(transport), provider, registry, folder / "log")
