"""A cloud adapter in this process with whatever providers a test configures."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from gen.weir.cloud.v1.service import CloudAdapterClient
from meshkit.inprocess import InProcessTransport
from meshkit.telemetry import Logger
from services.cloud_adapter.bootstrap import World, build
from services.cloud_adapter.settings import CloudAdapterSettings


@asynccontextmanager
async def adapting(
    log_path: Path, world: World | dict[str, str] | None = None, **providers: dict[str, Any]
) -> AsyncIterator[CloudAdapterClient]:
    """The adapter's client. `world` may be the environment alone, which is empty otherwise."""
    descriptor = os.open(log_path, os.O_CREAT | os.O_WRONLY)
    log = Logger("cloud_adapter", descriptor)
    settings = CloudAdapterSettings.model_validate({"providers": providers})
    known = world if isinstance(world, World) else World(world or {})
    service = build(settings, CollectorRegistry(), log, known)
    await service.start()
    try:
        yield CloudAdapterClient(InProcessTransport(service.servicer, log))
    finally:
        await service.stop()
        os.close(descriptor)
