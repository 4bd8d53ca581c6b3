"""What every target that is a model of a Triton server has: its description, its readiness, its stub."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import grpc
from tritonclient.grpc import service_pb2_grpc

from gen.weir.type.v1 import Target as TargetValue
from services.router.adapters.triton_readiness import Readiness
from services.router.domain.target import TargetSpec


class TritonModel:
    """One model of a Triton server.

    Args:
        channel: to the server; owned by the bootstrap.
        probe_every: how often readiness is asked for.
    """

    def __init__(self, spec: TargetSpec, channel: grpc.aio.Channel, probe_every: timedelta) -> None:
        self._spec = spec
        self._stub: Any = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        self._readiness = Readiness(self._stub, spec.target.model, probe_every)

    @property
    def spec(self) -> TargetSpec:
        """As configured."""
        return self._spec

    def describe(self) -> TargetValue:
        """As it is shown and accounted for."""
        return self._spec.target

    def is_up(self) -> bool:
        """Whether the model was ready at the last probes, and no request since found it gone."""
        return self._readiness.is_up

    async def watch(self) -> None:
        """Probes readiness until cancelled."""
        await self._readiness.watch()

    async def probe(self) -> None:
        """Asks once whether the model is ready."""
        await self._readiness.probe()
