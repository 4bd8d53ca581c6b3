"""The parts that are not Weir's own code: PostgreSQL, Triton, and the sandbox cloud."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable

from weirctl import admin_key, prepare_triton, sandbox_command, triton_server
from weirctl import postgres_server as postgres
from weirctl.config import Config
from weirctl.part import CannotStart, Part
from weirctl.probes import http_ok, postgres_ready, triton_answers
from weirctl.set_up import run_set_up
from weirctl.surroundings import ROOT, Surroundings
from weirctl.triton_heal import watch_triton
from weirctl.triton_prepare import TritonSetUpFailed, model_file

POSTGRES, TRITON, SANDBOX = "postgres", "triton", "sandbox_cloud"
_STOP_MARGIN_S = 5.0


def postgres_part(files: postgres.PostgresFiles) -> Part:
    """The embedded PostgreSQL."""
    command = postgres.command(files)

    async def clear_stale() -> None:
        try:
            await asyncio.to_thread(postgres.clear_stale, files)
        except postgres.PostgresSetUpFailed as error:
            raise CannotStart(str(error)) from error

    async def remove_sockets() -> None:
        postgres.remove_sockets(files)

    return Part(
        name=POSTGRES,
        argv=command.argv,
        environment=command.environment,
        directory=command.directory,
        probe=postgres_ready(files),
        address=f"unix:{files.sockets}",
        stop_signal=signal.SIGINT,
        stop_within_s=30.0,
        # It ends cleanly when the supervisor dies; what was committed would survive a kill too.
        death_signal=signal.SIGINT,
        uid=command.uid,
        gid=command.gid,
        fatal_statuses=frozenset(),
        before_start=clear_stale,
        after_end=remove_sockets,
    )


def triton_part(config: Config, around: Surroundings) -> Part:
    """The local Triton and its model."""
    settings = config.command.triton_settings()
    set_up = _triton_set_up(config, around)

    async def prepare() -> None:
        await set_up()
        triton_server.clean_shared_memory(settings)

    async def clean() -> None:
        triton_server.clean_shared_memory(settings)

    try:
        command = triton_server.command(settings)
    except TritonSetUpFailed as error:
        raise CannotStart(f"{TRITON}: {error}") from error
    return Part(
        name=TRITON,
        argv=command.argv,
        environment=command.environment,
        directory=command.directory,
        probe=triton_answers(settings),
        address=f"127.0.0.1:{settings.grpc_port}",
        ready_within_s=120.0,
        stop_within_s=settings.drain_s + _STOP_MARGIN_S,
        before_start=prepare,
        after_end=clean,
        watch=watch_triton(settings, config.command.triton.heal_every_s, around.report),
    )


def sandbox_part(config: Config, around: Surroundings) -> Part:
    """The stand-in for a paid provider. It lives on Triton's packages and model file."""
    settings = config.command.triton_settings()
    port = config.command.ports.sandbox_cloud

    async def prepare() -> None:
        # Where there is a Triton, it has set them up before; doing it again would take them from under it.
        if not config.needs_triton:
            await _triton_set_up(config, around)()

    def argv() -> tuple[str, ...]:
        try:
            gguf = model_file(settings)
        except TritonSetUpFailed as error:
            raise CannotStart(f"{SANDBOX}: {error}") from error
        return sandbox_command.argv(settings.venv / "bin" / "python", gguf, port)

    return Part(
        name=SANDBOX,
        argv=argv,
        environment={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
        directory=around.directory,
        probe=http_ok(f"127.0.0.1:{port}", "/health"),
        depends_on=frozenset({TRITON} if config.needs_triton else ()),
        address=f"127.0.0.1:{port}",
        note="sandbox",
        ready_within_s=60.0,
        before_start=prepare,
    )


def _triton_set_up(config: Config, around: Surroundings) -> Callable[[], Awaitable[None]]:
    # pip, too, has its settings in the user's environment.
    kept_back = {*config.secrets, admin_key.VARIABLE}
    environment = {name: value for name, value in around.environment.items() if name not in kept_back}
    arguments = prepare_triton.argv(config.command.triton_settings())

    async def set_up() -> None:
        await run_set_up(
            arguments,
            {**environment, "PYTHONPATH": str(ROOT)},
            lambda line: around.report(f"{TRITON}: {line}"),
        )

    return set_up
