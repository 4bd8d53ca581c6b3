"""A running process takes over a changed weir.yaml: what it can at once, and it names what needs a restart."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge

from meshkit.settings import CONFIG_VARIABLE, MeshSettings, load
from meshkit.settings_change import changed, is_live, with_live
from meshkit.settings_faults import SettingsError
from meshkit.telemetry import Logger
from meshkit.watched_file import WatchedFile

MOST_NAMES = 50
"""Of keys in one line of the log."""
TakeOver = Callable[[], Awaitable[None]]
"""Takes over what was prepared; never fails."""
SettingsT_contra = TypeVar("SettingsT_contra", bound=MeshSettings, contravariant=True)


class Reloading(Protocol[SettingsT_contra]):
    """A service that takes over changed settings while it runs."""

    async def prepare(self, settings: SettingsT_contra) -> TakeOver:
        """Builds what is new beside what runs, which stays as it is.

        Only the service's live keys differ from before, and perhaps the files that they name. Raises SettingsError.
        """


class Reloaded:
    """One service of a process, with its settings as it uses them now.

    Args:
        live: the dotted keys that it takes over while it runs, with all below them.
    """

    def __init__(self, service: Reloading[Any], settings: MeshSettings, live: Collection[str]) -> None:
        self._service = service
        self._settings = settings
        self._live = live
        self._read = settings

    def read(self, environment: Mapping[str, str]) -> None:
        """Reads the file for it. Raises SettingsError."""
        self._read = load(type(self._settings), environment)

    def names(self) -> tuple[list[str], list[str]]:
        """Of the keys that differ from those in use: those that are live, and those that need a restart."""
        names = changed(self._settings, self._read)
        live = [name for name in names if is_live(name, self._live)]
        return live, [name for name in names if name not in live]

    async def prepare(self) -> TakeOver:
        """See Reloading.prepare. What it gives also notes the new settings as those in use."""
        settings = with_live(self._settings, self._read, self._live)
        take_over = await self._service.prepare(settings)

        async def taken_over() -> None:
            await take_over()
            self._settings = settings

        return taken_over


class Reload:
    """Follows the file that WEIR_CONFIG names, and SIGHUP.

    A file with a fault changes nothing: the log and a metric tell of it, and the process goes on as it was. Neither
    does one that a service cannot use: all of them prepare themselves before the first takes anything over.

    Args:
        services: those of the process, each after those that it calls.
    """

    def __init__(
        self,
        services: Sequence[Reloaded],
        registry: CollectorRegistry,
        log: Logger,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._services = services
        self._log = log
        self._environment = os.environ if environment is None else environment
        self._asked = asyncio.Event()
        path = self._environment.get(CONFIG_VARIABLE)
        # From now: what changes while the service starts counts too.
        self._file = WatchedFile(Path(path)) if path else None
        self._failures = Counter(
            "weir_settings_reload_failures",
            "Changes of weir.yaml that were not taken over.",
            registry=registry,
        )
        self._at = Gauge(
            "weir_settings_loaded_timestamp_seconds",
            "Unix time at which the settings in use were read.",
            registry=registry,
        )
        self._at.set_to_current_time()

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Follows while the context lasts."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self._asked.set)
        task = asyncio.create_task(self._follow())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            loop.remove_signal_handler(signal.SIGHUP)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # by default it would end the drain

    async def now(self) -> bool:
        """Reads the file and takes it over; False where it cannot be used."""
        try:
            for service in self._services:
                # In a thread: reading YAML takes long enough for requests to feel it.
                await asyncio.to_thread(service.read, self._environment)
            live, restart = _sorted(service.names() for service in self._services)
            prepared = [await service.prepare() for service in self._services]
        except SettingsError as error:
            self._refused(str(error).splitlines())
            return False
        except Exception as error:  # noqa: BLE001 - whatever it was, the service goes on as it was
            self._log.exception("settings cannot be taken over", error)
            self._refused(["an unexpected error, see above"])
            return False
        for take_over in prepared:
            await take_over()
        self._at.set_to_current_time()
        self._log.info("settings reloaded", taken_over=_few(live))
        if restart:
            self._log.warning("settings that need a restart changed", keys=_few(restart))
        return True

    def _refused(self, faults: Sequence[str]) -> None:
        self._failures.inc()
        self._log.warning("settings not reloaded, the former ones stay", faults=faults)

    async def _follow(self) -> None:
        while True:
            if self._file is not None:
                await self._file.changed(self._asked)
            else:
                await self._asked.wait()
                self._asked.clear()
            await self.now()


def _sorted(names: Any) -> tuple[list[str], list[str]]:
    """Of several services together: what one of them takes over needs no restart for the others' sake."""
    live: dict[str, None] = {}
    restart: dict[str, None] = {}
    for of_one in names:
        live |= dict.fromkeys(of_one[0])
        restart |= dict.fromkeys(of_one[1])
    return list(live), [name for name in restart if name not in live]


def _few(names: Sequence[str]) -> list[str]:
    more = len(names) - MOST_NAMES
    return [*names[:MOST_NAMES], *([f"and {more} more"] if more > 0 else [])]
