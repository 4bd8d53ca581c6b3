"""`weir up`: the whole mesh on this machine, until it is told to stop."""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from gen.weir.auth.v1.service import AuthClient
from meshkit.certificates import CertificateUnusable
from meshkit.channel import ChannelTransport, open_channel
from meshkit.codec import mesh_codec
from meshkit.errors import WeirError
from meshkit.settings import SettingsError
from weirctl import admin_key, certificates, demo_key, edge_client, home_lock, state_file, taken_ports
from weirctl import postgres_server as postgres
from weirctl.config import Config, home_of, read, write_effective
from weirctl.detach import detach
from weirctl.follow_settings import FollowSettings
from weirctl.part import CannotStart
from weirctl.parts import build_parts
from weirctl.reporter import Reporter
from weirctl.supervisor import Supervisor
from weirctl.surroundings import Surroundings
from weirctl.wanted_ports import wanted_ports

_FAILED, _BAD_SETTINGS = 1, 2
_FIRST_ANSWER_S = 20.0
_ANSWER_LIMIT_S = 5.0
_POLL_S = 0.1


def run(arguments: argparse.Namespace) -> int:
    """The exit status: 0 after a stop that was asked for, 1 if it could not start, 2 for wrong settings."""
    home = home_of(os.environ)
    log_directory = home / "log"
    if arguments.detach:
        return detach(_forwarded(arguments), log_directory)
    reporter = Reporter(arguments.waiting_fd)
    try:
        sandbox = arguments.sandbox_cloud
        config = read(arguments.config, os.environ, sandbox=sandbox)
        with home_lock.hold(home):
            log_directory.mkdir(exist_ok=True)
            reporter.open_log(log_directory / "weir.log")
            up = _Up(config, arguments.config, reporter, os.environ, sandbox=sandbox)
            return asyncio.run(up.run())
    except SettingsError as error:
        reporter.say(str(error))
        return _BAD_SETTINGS
    except home_lock.HomeLocked as error:
        reporter.say(f"Weir runs already for {home} ({error}): `weir status` shows it, `weir down` ends it")
    except (CannotStart, postgres.PostgresSetUpFailed) as error:
        reporter.say(str(error))
    finally:
        reporter.close_waiting()
    return _FAILED


def _forwarded(arguments: argparse.Namespace) -> list[str]:
    forwarded = ["--config", str(arguments.config)] if arguments.config else []
    return [*forwarded, *(["--sandbox-cloud"] if arguments.sandbox_cloud else [])]


def _has_terminal() -> bool:
    return sys.stdin is not None and not sys.stdin.closed and sys.stdin.isatty()


class _Up:
    """One run, from the check of the ports to the last part's end. The home's lock is held."""

    def __init__(
        self,
        config: Config,
        file: Path | None,
        reporter: Reporter,
        environment: Mapping[str, str],
        *,
        sandbox: bool,
    ) -> None:
        self._config = config
        self._follow = FollowSettings(config, file, environment, reporter.say, sandbox=sandbox)
        self._sandbox = sandbox
        self._reporter = reporter
        self._say = reporter.say
        self._environment = environment
        self._asked_to_stop = asyncio.Event()
        self._supervisor: Supervisor | None = None
        self._renewing: asyncio.Task[None] | None = None
        host = config.command.edge.host
        shown = "127.0.0.1" if host in {"0.0.0.0", "::"} else host  # noqa: S104 - only to show an address that works
        self._endpoint = f"http://{shown}:{config.command.ports.edge}"

    async def run(self) -> int:
        """Starts, waits for the end, stops. Raises CannotStart and PostgresSetUpFailed."""
        self._take_signals()
        if faults := taken_ports.faults(wanted_ports(self._config, sandbox=self._sandbox)):
            raise CannotStart("\n".join(faults))
        try:
            self._make_run_folder()
            await self._make_certificates()
            self._supervisor = supervisor = await self._build()
            self._write_state()
            await self._serve(supervisor)
        finally:
            if self._supervisor is not None:
                await self._supervisor.stop()
            if self._renewing is not None:
                self._renewing.cancel()
                await asyncio.gather(self._renewing, return_exceptions=True)
            state_file.remove(self._config.home)
            shutil.rmtree(self._config.run, ignore_errors=True)
        self._say("Weir is down.")
        return 0

    async def _serve(self, supervisor: Supervisor) -> None:
        starting = asyncio.create_task(self._start(supervisor))
        stopping = asyncio.create_task(self._asked_to_stop.wait())
        following = asyncio.create_task(self._follow.run())
        try:
            await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                self._reporter.ready()
            await stopping
        except CannotStart as error:
            self._say(str(error))
            raise CannotStart("Weir did not start.") from error
        finally:
            self._say("stopping ...")
            starting.cancel()
            stopping.cancel()
            following.cancel()
            await asyncio.gather(starting, stopping, following, return_exceptions=True)

    async def _start(self, supervisor: Supervisor) -> None:
        await supervisor.start()
        command = self._config.command
        async with open_channel(command.address("auth"), command.towards("auth", "operator")) as channel:
            try:
                token = await demo_key.ensure(
                    self._config.home, AuthClient(ChannelTransport(channel, mesh_codec())), self._environment
                )
            except (WeirError, admin_key.NoAdminKey) as error:
                raise CannotStart(f"the demo key cannot be made: {error}") from error
        await self._first_answer(token)
        self._welcome(token)

    async def _first_answer(self, token: str) -> None:
        """Waits until the default model can be asked through the edge."""
        deadline = asyncio.get_running_loop().time() + _FIRST_ANSWER_S
        default = self._config.router.default_model
        while True:
            try:
                models = await asyncio.to_thread(
                    edge_client.list_models, self._endpoint, token, _ANSWER_LIMIT_S
                )
                fault = f"the default model {default!r} cannot be used yet (usable: {', '.join(models) or 'none'})"
                if default in models:
                    return
            except (OSError, edge_client.EdgeAnswer) as error:
                fault = f"{self._endpoint} does not answer as it should: {error}"
            if asyncio.get_running_loop().time() > deadline:
                self._say(f"warning: {fault}")
                return
            await asyncio.sleep(_POLL_S)

    async def _build(self) -> Supervisor:
        config = self._config
        database = None
        if config.postgres_dsn is None:
            database = await asyncio.to_thread(
                postgres.prepare, config.home, lambda line: self._say(f"postgres: {line}")
            )
        around = Surroundings(self._environment, Path.cwd(), database, self._sandbox, self._say)
        parts = build_parts(config, around)
        return Supervisor(parts, config.home / "log", self._say, changed=self._write_state)

    async def _make_certificates(self) -> None:
        """Raises CannotStart."""
        mesh = self._config.command
        if mesh.transport == "loopback":
            self._say("warning: transport loopback proves nothing of who calls: use it for debugging alone")
        if mesh.transport != "mtls":
            return
        try:
            made = await asyncio.to_thread(certificates.ensure, mesh, datetime.now(UTC))
        except (CertificateUnusable, OSError) as error:
            raise CannotStart(f"the services' certificates cannot be used: {error}") from error
        if made:
            self._say(f"certificates made: {', '.join(made)}")
        self._renewing = asyncio.ensure_future(certificates.keep_renewed(mesh, self._say))

    def _make_run_folder(self) -> None:
        # What a `weir up` that was killed left in it is of no use.
        shutil.rmtree(self._config.run, ignore_errors=True)
        self._config.run.mkdir()
        # PostgreSQL's user must pass through it to its socket, and must not come to the services' own.
        self._config.run.chmod(0o711)
        self._config.command.sockets.mkdir(mode=0o700)
        write_effective(self._config)

    def _take_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._asked)
        # With a terminal it says that the terminal is gone; without one somebody sent it.
        loop.add_signal_handler(signal.SIGHUP, self._asked if _has_terminal() else self._follow.ask)

    def _asked(self) -> None:
        if self._asked_to_stop.is_set() and self._supervisor is not None:
            self._say("stopping at once")
            self._supervisor.kill()
        self._asked_to_stop.set()

    def _write_state(self) -> None:
        if self._supervisor is None:
            return
        parts = [
            state_file.PartState(
                name=name,
                state=str(runner.state),
                pid=runner.pid,
                restarts=runner.restarts,
                since_s=runner.since_s,
                address=runner.part.address,
                note=runner.part.note,
            )
            for name, runner in self._supervisor.runners.items()
        ]
        state_file.write(self._config.home, state_file.MeshState(os.getpid(), self._endpoint, parts))

    def _welcome(self, token: str) -> None:
        lines = [f"Weir is up: {self._endpoint}/v1"]
        if not self._config.cloud_adapter.providers:
            lines.append("No provider is configured (`providers` in weir.yaml), so only local models answer.")
        self._say("\n".join(lines))
        body = '{"messages": [{"role": "user", "content": "Say hello."}]}'
        self._reporter.show(
            f"Try it:\n\n  curl {self._endpoint}/v1/chat/completions -H 'Authorization: Bearer {token}' "
            f"-H 'Content-Type: application/json' -d '{body}'\n"
        )
