"""What the `weir` command itself reads of weir.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from edge.settings import EdgeSettings
from meshkit.settings import MeshSettings, Strict
from weirctl.triton_settings import TritonSettings


class TritonBlock(Strict):
    """The block `triton`: the local server that is started where a Triton target names no endpoint of its own."""

    slots: Annotated[int, Field(ge=1, le=256)] = 8
    """Requests generated at once; further ones wait in Triton's queue."""
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    """Threads of llama.cpp."""
    context_tokens: Annotated[int, Field(ge=128, le=8_192)] = 2_048
    """Prompt and answer together, for each slot, in tokens; about 12 KB of memory each."""
    drain_s: Annotated[int, Field(ge=0, le=3_600)] = 10
    """Seconds that a stop lets running requests finish."""
    heal_every_s: Annotated[float, Field(gt=0, le=3_600)] = 5.0
    """Seconds between two looks at whether the model still answers; each costs it one token."""
    packages: Path | None = None
    """The folder of Triton's own Python packages, where several homes share one. Absent: within WEIR_HOME."""


class CommandSettings(MeshSettings):
    """What `weir up` starts the mesh by."""

    edge: EdgeSettings = EdgeSettings()
    triton: TritonBlock = TritonBlock()

    def triton_settings(self) -> TritonSettings:
        """For the modules that set up and start Triton. Each has a control token of its own."""
        return TritonSettings(
            home=self.home,
            packages=self.triton.packages,
            http_port=self.ports.triton_http,
            grpc_port=self.ports.triton_grpc,
            metrics_port=self.ports.triton_metrics,
            slots=self.triton.slots,
            threads=self.triton.threads,
            context_tokens=self.triton.context_tokens,
            drain_s=self.triton.drain_s,
        )
