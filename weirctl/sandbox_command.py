"""How the sandbox cloud is started, and how the configuration names it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).with_name("sandbox_cloud.py")
MODEL = "smollm2"
"""The name under which it answers."""
_LOOPBACK = "127.0.0.1"
# llama.cpp's server offers keep-alive and closes every connection after a stream: one kept would meet its end.
_KEEPALIVE_S = 0


def argv(python: Path, gguf: Path, port: int, *, threads: int = 1, slots: int = 4) -> tuple[str, ...]:
    """A direct child, no shell; it needs nothing in its environment. SIGTERM ends it within a second.

    Args:
        python: the interpreter of the venv that holds xllamacpp.
        gguf: the model's file.
        port: on loopback.
        threads: of llama.cpp.
        slots: answers at once; further ones wait.
    """
    options = {
        "model": gguf,
        "alias": MODEL,
        "host": _LOOPBACK,
        "port": port,
        "threads": threads,
        "slots": slots,
    }
    # -P: modules that lie beside the program must not take the place of its imports.
    return (str(python), "-P", str(PROGRAM), *(f"--{name}={value}" for name, value in options.items()))


def health_url(port: int) -> str:
    """Answers 200 once the model is loaded, 503 before."""
    return f"http://{_LOOPBACK}:{port}/health"


def provider_block(port: int) -> dict[str, Any]:
    """The entry of `providers` that reaches it."""
    return {"base_url": f"http://{_LOOPBACK}:{port}/v1", "sandbox": True, "keepalive_s": _KEEPALIVE_S}
