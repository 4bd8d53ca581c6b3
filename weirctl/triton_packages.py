"""The venv of the local Triton: the server, its Python backend, the models' runtimes and files."""

import hashlib
import importlib.util
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

from weirctl.triton_settings import SOURCES, TritonSettings

REQUIREMENTS = SOURCES / "requirements.txt"
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


def installed(settings: TritonSettings) -> bool:
    """Whether the venv is there as the lock file and this Python want it."""
    stamp = _stamp(settings)
    return stamp.exists() and stamp.read_text() == _wanted()


def install(settings: TritonSettings, progress: Callable[[str], None]) -> None:
    """Makes the venv, unless it is there as the lock file and this Python want it. Raises TritonSetUpFailed."""
    if installed(settings):
        return
    stamp = _stamp(settings)
    stamp.unlink(missing_ok=True)
    shutil.rmtree(settings.venv, ignore_errors=True)
    progress("setting up Triton and its models (250 MB, once)")
    # With a pip at hand the venv needs none of its own, which saves five seconds.
    has_pip = importlib.util.find_spec("pip") is not None
    venv.create(settings.venv, with_pip=not has_pip, symlinks=True)
    python = str(settings.venv / "bin" / "python")
    _pip([sys.executable, "-m", "pip", "--python", python] if has_pip else [python, "-m", "pip"], progress)
    # Last, and whole or not at all: an interrupted set-up has no stamp.
    unfinished = stamp.with_suffix(".new")
    unfinished.write_text(_wanted())
    unfinished.replace(stamp)


def _stamp(settings: TritonSettings) -> Path:
    return settings.venv.with_suffix(".stamp")


def _wanted() -> str:
    return f"{hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()} {sys.base_prefix} {sys.version.split()[0]}\n"


def python_version() -> str:
    """Of the running Python, as paths name it: 3.11."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def site_packages(settings: TritonSettings) -> Path:
    """Where the venv keeps its packages."""
    return settings.venv / "lib" / f"python{python_version()}" / "site-packages"


def packaged_file(settings: TritonSettings, package: str, pattern: str) -> Path:
    """The file in the venv's `package` whose path there matches `pattern`. Raises TritonSetUpFailed."""
    found = next((site_packages(settings) / package).glob(pattern), None)
    if found is None:
        raise TritonSetUpFailed(
            f"{package}/{pattern} is missing: remove {settings.venv} and its stamp, and start again"
        )
    return found


def python_library() -> Path:
    """The shared library of the running Python, which the Python backend's stub loads. Raises TritonSetUpFailed."""
    name = f"libpython{python_version()}.so.1.0"
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
        f"(Debian, Ubuntu: libpython{python_version()}) or use a Python built with --enable-shared"
    )


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
