"""Makes .venv, hash-locked: `python3 tools/set_up.py runtime|dev`. Standard library only; at once where all is done.

pip installs uv alone, uv the rest: in a quarter of pip's time. The project itself is not copied: a path file puts this
folder on the venv's path, and `.venv/bin/weir` starts it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
REQUIREMENTS = ROOT / "requirements"
_OLDEST, _NEWEST = (3, 11), (3, 12)
_KINDS = ("runtime", "dev")  # each holds what the one before it holds
_LAUNCHER = """\
#!/bin/sh
# Written by tools/set_up.py.
exec "$(dirname "$(readlink -f "$0")")/python" -m weirctl "$@"
"""


class SetUpError(Exception):
    """The venv cannot be made; the text says what to do about it."""


def set_up(kind: str) -> None:
    """Makes the venv hold what `requirements/{kind}.txt` locks. Concurrent calls wait for each other."""
    _check_python()
    if _is_done(kind):
        return
    with (ROOT / ".venv.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _is_done(kind):
            _install(kind)


def _check_python() -> None:
    version = sys.version_info[:2]
    if not _OLDEST <= version <= _NEWEST:
        raise SetUpError(
            f"Python 3.11 or 3.12 is needed; {sys.executable} is {version[0]}.{version[1]}. "
            "Say which one to take: make PYTHON=/path/to/python3.12 ..."
        )


def _is_done(kind: str) -> bool:
    return any(_stamp(one).exists() for one in _KINDS[_KINDS.index(kind) :])


def _stamp(kind: str) -> Path:
    """The mark of a finished set-up. It is another one when the lock, Python or the folder is another one."""
    facts = [(REQUIREMENTS / f"{name}.txt").read_bytes() for name in ("bootstrap", kind)]
    facts += [sysconfig.get_python_version().encode(), str(ROOT).encode()]
    return VENV / f".stamp-{kind}-{hashlib.sha256(b'|'.join(facts)).hexdigest()[:16]}"


def _install(kind: str) -> None:
    _say("making .venv")
    if VENV.exists():
        shutil.rmtree(VENV)
    try:
        venv.create(VENV, with_pip=True)
    except subprocess.CalledProcessError as error:
        raise SetUpError(
            "this Python cannot make a venv; on Debian and Ubuntu install the package python3-venv"
        ) from error
    python = VENV / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--quiet", "--no-compile", "--disable-pip-version-check"]
    _run("uv", pip, "bootstrap")
    _say(f"installing what requirements/{kind}.txt locks (about 200 MB the first time)")
    _run(kind, [VENV / "bin" / "uv", "pip", "install", "--quiet", "--python", python], kind)
    site_packages = next((VENV / "lib").glob("python3.*/site-packages"))
    (site_packages / "weir.pth").write_text(f"{ROOT}\n", encoding="utf-8")
    launcher = VENV / "bin" / "weir"
    launcher.write_text(_LAUNCHER, encoding="utf-8")
    launcher.chmod(0o755)
    _stamp(kind).touch()


def _run(what: str, command: Sequence[object], lock: str) -> None:
    environment = dict(os.environ)
    if "PIP_INDEX_URL" in environment:  # uv does not read pip's settings; a mirror is wanted by both
        environment.setdefault("UV_DEFAULT_INDEX", environment["PIP_INDEX_URL"])
    whole = [*map(str, command), "--require-hashes", "-r", str(REQUIREMENTS / f"{lock}.txt")]
    done = subprocess.run(whole, env=environment, check=False)
    if done.returncode:
        raise SetUpError(f"{what} could not be installed; the lines above say why")


def _say(line: str) -> None:
    sys.stdout.write(f"weir: {line}\n")
    sys.stdout.flush()


def main() -> int:
    """The exit status."""
    try:
        set_up(sys.argv[1])
    except SetUpError as error:
        sys.stderr.write(f"weir: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
