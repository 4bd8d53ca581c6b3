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
    queue_requests: Annotated[int, Field(ge=1, le=100_000)] = 32
    """Requests that may wait for a model, each model for itself; more are refused."""
    queue_s: Annotated[int, Field(ge=1, le=3_600)] = 30
    """Seconds that one may wait before it is refused."""
    embedding: bool = True
    """Whether the embedding model is served too; it takes 225 to 300 MB of memory."""
    embedding_threads: Annotated[int, Field(ge=1, le=256)] = 1
    """Threads of ONNX Runtime."""
    embedding_max_tokens: Annotated[int, Field(ge=8, le=512)] = 256
    """Tokens of one text; longer ones are refused. The model was trained on short ones."""
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
            queue_requests=self.triton.queue_requests,
            queue_s=self.triton.queue_s,
            embedding=self.triton.embedding,
            embedding_threads=self.triton.embedding_threads,
            embedding_max_tokens=self.triton.embedding_max_tokens,
            drain_s=self.triton.drain_s,
        )
