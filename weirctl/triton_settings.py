"""Every knob of the local Triton, and the paths and names that follow from them."""

import hashlib
import secrets
from dataclasses import dataclass, field
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[1] / "triton_models"
SMOLLM2 = "smollm2"
"""The generating model."""
MINILM = "minilm"
"""The embedding model."""


@dataclass(frozen=True)
class TritonSettings:
    """Settings of one local Triton. All ports are on loopback.

    `home` is WEIR_HOME: at most one server runs for one home. `control_token` is needed to load or unload models
    (and so to run code in the server): only whoever starts the server has it. Other users of the machine may be
    able to read it from the process list: see `command`.
    """

    home: Path = Path(".weir")
    packages: Path | None = None  # where the venv is, when several homes share one; None: under `home`
    http_port: int = 8000
    grpc_port: int = 8001
    metrics_port: int = 8002
    slots: int = 8  # requests generated at once; further ones wait in Triton's queue
    threads: int = 1  # of llama.cpp
    context_tokens: int = 2048  # for prompt and answer together, per slot; about 12 KB of memory each
    queue_requests: int = 32  # requests that may wait for a model, each model for itself; more are refused
    queue_s: int = 30  # how long one may wait before it is refused
    embedding: bool = True  # whether the embedding model is served; it takes 225 to 300 MB of memory
    embedding_threads: int = 1  # of ONNX Runtime
    embedding_max_tokens: int = 256  # of one text; at most 512, and the model was trained on short ones
    drain_s: int = 10  # how long a SIGTERM lets running requests finish
    control_token: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)

    @property
    def models(self) -> tuple[str, ...]:
        """The models served."""
        return (SMOLLM2, MINILM) if self.embedding else (SMOLLM2,)

    @property
    def root(self) -> Path:
        """Everything this server has on disk."""
        return self.home.resolve() / "triton"

    @property
    def venv(self) -> Path:
        """The Python environment that carries the server, its Python backend and the models' files."""
        return (self.packages or self.root / "venv").resolve()

    @property
    def backends(self) -> Path:
        """The backend directory: the Python backend's files and the stub of the running Python."""
        return self.root / "backends"

    @property
    def repository(self) -> Path:
        """The model repository as this server reads it."""
        return self.root / "models"

    @property
    def shared_memory_prefix(self) -> str:
        """What the names of this home's regions in /dev/shm begin with, and no other server's."""
        return f"weir_triton_{hashlib.sha256(str(self.root).encode()).hexdigest()[:12]}_"
