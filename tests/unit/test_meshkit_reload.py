"""Reload: what changed, what a process takes over of it, and that a bad file changes nothing."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from pydantic import Field

from meshkit.reload import Reload, Reloaded, TakeOver
from meshkit.settings import CONFIG_VARIABLE, MeshSettings, SettingsError, Strict, build, load
from meshkit.settings_change import changed, is_live, keys_with_live, with_live
from meshkit.telemetry import Logger
from meshkit.watched_file import WatchedFile

WITHIN_S = 10.0


class Block(Strict):
    """A block, of which one key is live."""

    quick: int = 1
    fixed: int = 1


class Own(MeshSettings):
    """A service's settings."""

    models: dict[str, Block] = Field(default_factory=dict)
    router: Block = Block()


LIVE = frozenset({"models", "router.quick"})


class Recorder:
    """A service that notes what it takes over."""

    def __init__(self, events: list[str], name: str = "own", refuses: str = "") -> None:
        self.events = events
        self.name = name
        self.refuses = refuses
        self.settings: list[Own] = []

    async def prepare(self, settings: Own) -> TakeOver:
        """Refuses what it was told to."""
        if self.refuses in settings.models:
            raise SettingsError(f"{self.refuses}: cannot be used")
        self.events.append(f"{self.name} prepared")

        async def take_over() -> None:
            self.events.append(f"{self.name} took over")
            self.settings.append(settings)

        return take_over


class World:
    """A file, and a process that follows it."""

    def __init__(self, folder: Path, *refuses: str) -> None:
        self.file = folder / "weir.yaml"
        self.log = folder / "log"
        self.file.write_text("workers: 1\n", encoding="utf-8")
        environment = {CONFIG_VARIABLE: str(self.file)}
        self.events: list[str] = []
        names = refuses or ("",)
        self.services = [Recorder(self.events, f"s{at}", name or "-") for at, name in enumerate(names)]
        self.registry = CollectorRegistry()
        started = load(Own, environment)
        self.descriptor = os.open(self.log, os.O_CREAT | os.O_WRONLY)
        self.reload = Reload(
            [Reloaded(service, started, LIVE) for service in self.services],
            self.registry,
            Logger("own", self.descriptor),
            environment,
        )

    def lines(self) -> list[dict[str, object]]:
        """The log."""
        return [json.loads(line) for line in self.log.read_text(encoding="utf-8").splitlines()]

    def failures(self) -> float | None:
        """What the metric says."""
        return self.registry.get_sample_value("weir_settings_reload_failures_total")


@pytest.fixture
def world(tmp_path: Path) -> World:
    """One service."""
    return World(tmp_path)


def _built(text: dict[str, object]) -> Own:
    return build(Own, text, {})


def test_what_changed_is_named() -> None:
    """Keys, entries that came or went, and nothing of what stayed; values are not told."""
    before = _built({"models": {"a": {}, "gone": {}}, "ports": {"edge": 1}, "router": {"quick": 1}})
    after = _built({"models": {"a": {"fixed": 2}, "new": {}}, "ports": {"edge": 2}, "router": {"quick": 1}})
    assert changed(before, after) == ["ports.edge", "models.a.fixed", "models.gone", "models.new"]
    assert changed(before, before) == []
    assert [name for name in changed(before, after) if is_live(name, LIVE)] == [
        "models.a.fixed", "models.gone", "models.new",
    ]  # fmt: skip
    assert not is_live("models2", LIVE)


def test_only_live_keys_are_taken() -> None:
    """In blocks too; a live key that the model lacks is passed over."""
    before = _built({"models": {"a": {}}, "workers": 1, "router": {"quick": 1, "fixed": 1}})
    after = _built({"models": {"b": {}}, "workers": 2, "router": {"quick": 2, "fixed": 2}})
    taken = with_live(before, after, [*LIVE, "nowhere.at_all"])
    assert (set(taken.models), taken.workers, taken.router) == ({"b"}, 1, Block(quick=2, fixed=1))


def test_only_live_keys_of_a_file_are_taken() -> None:
    """A live key that is gone is gone; a block that held nothing else stays."""
    before = {"models": {"a": {}}, "workers": 1, "router": {"quick": 1, "fixed": 1}}
    assert keys_with_live(before, {"workers": 2, "router": {"fixed": 2}}, LIVE) == {
        "workers": 1, "router": {"fixed": 1},
    }  # fmt: skip
    assert keys_with_live({}, {"router": {"quick": 3}, "models": {}}, LIVE) == {
        "router": {"quick": 3},
        "models": {},
    }
    assert keys_with_live({"workers": 1}, {}, LIVE) == {"workers": 1}


async def test_a_good_file_is_taken_over(world: World) -> None:
    """The service gets what is live and keeps the rest; the log names both, once and from then on."""
    world.file.write_text("models: {new: {}}\nworkers: 3\nrouter: {quick: 2, fixed: 2}\n", encoding="utf-8")
    assert await world.reload.now()
    (settings,) = world.services[0].settings
    assert (set(settings.models), settings.workers, settings.router) == ({"new"}, 1, Block(quick=2, fixed=1))
    taken, restart = world.lines()
    assert taken["taken_over"] == ["models.new", "router.quick"]
    assert (restart["level"], restart["keys"]) == ("warning", ["workers", "router.fixed"])
    assert await world.reload.now()
    assert world.lines()[2]["taken_over"] == []
    assert world.lines()[3]["keys"] == ["workers", "router.fixed"]
    assert world.failures() == 0


async def test_a_bad_file_changes_nothing(world: World) -> None:
    """Every fault is in the log with its place, the metric counts, and the next good file is taken over."""
    world.file.write_text("modles: {}\nworkers: 0\n", encoding="utf-8")
    assert not await world.reload.now()
    (line,) = world.lines()
    assert line["level"] == "warning"
    assert [fault.partition(": ")[0] for fault in line["faults"]] == [  # type: ignore[attr-defined] # a list of text
        f"{world.file}:1:1", f"{world.file}:2:10",
    ]  # fmt: skip
    assert (world.failures(), world.events) == (1, [])
    world.file.unlink()
    assert not await world.reload.now()
    world.file.write_text("models: {a: {}}\n", encoding="utf-8")
    assert await world.reload.now()
    assert world.events == ["s0 prepared", "s0 took over"]


async def test_all_services_or_none(tmp_path: Path) -> None:
    """What one service of a process cannot use, none of them takes over; else each does, in their order."""
    world = World(tmp_path, "-", "bad")
    world.file.write_text("models: {bad: {}}\n", encoding="utf-8")
    assert not await world.reload.now()
    assert world.events == ["s0 prepared"]
    world.file.write_text("models: {good: {}}\n", encoding="utf-8")
    assert await world.reload.now()
    assert world.events[1:] == ["s0 prepared", "s1 prepared", "s0 took over", "s1 took over"]


async def _until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not true():  # noqa: ASYNC110 - the file is polled, so looking is the only way
            await asyncio.sleep(0.01)


async def test_it_follows_the_file_and_sighup(world: World) -> None:
    """An edit is seen; SIGHUP has it read again though nothing changed; afterwards it ends no drain."""
    default = signal.getsignal(signal.SIGHUP)
    async with world.reload.following():
        world.file.write_text("models: {a: {}}\n", encoding="utf-8")
        await _until(lambda: len(world.services[0].settings) == 1)
        os.kill(os.getpid(), signal.SIGHUP)
        await _until(lambda: len(world.services[0].settings) == 2)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    signal.signal(signal.SIGHUP, default)


async def _changes(file: WatchedFile, act: Callable[[], Awaitable[None] | None]) -> None:
    waiting = asyncio.ensure_future(file.changed(asyncio.Event()))
    done = act()
    if done is not None:
        await done
    async with asyncio.timeout(WITHIN_S):
        await waiting


async def test_a_swapped_link_is_a_change(tmp_path: Path) -> None:
    """As a ConfigMap does it: the name stays, the folder behind it is another one."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weir.yaml").write_text(name, encoding="utf-8")
    data = tmp_path / "data"
    data.symlink_to("one")
    file = WatchedFile(data / "weir.yaml", poll_s=0.01)

    def swap() -> None:
        (tmp_path / "new").symlink_to("two")
        (tmp_path / "new").replace(data)

    await _changes(file, swap)


async def test_a_file_that_is_being_written_is_waited_for(tmp_path: Path) -> None:
    """A change is told once, when the writing has ended; the same content again is none."""
    path = tmp_path / "weir.yaml"
    path.write_text("a", encoding="utf-8")
    file = WatchedFile(path, poll_s=0.01)
    seen: list[str] = []

    async def write() -> None:
        for piece in range(5):
            path.write_text("b" * piece, encoding="utf-8")
            await asyncio.sleep(0.03)  # an editor that takes its time

    waiting = asyncio.ensure_future(file.changed(asyncio.Event()))
    waiting.add_done_callback(lambda _: seen.append(path.read_text(encoding="utf-8")))
    await write()
    async with asyncio.timeout(WITHIN_S):
        await waiting
    assert seen == ["bbbb"]
    path.write_text("bbbb", encoding="utf-8")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(file.changed(asyncio.Event()), 0.1)


async def test_a_file_that_goes_is_a_change(tmp_path: Path) -> None:
    """And so is its return."""
    path = tmp_path / "weir.yaml"
    path.write_text("a", encoding="utf-8")
    file = WatchedFile(path, poll_s=0.01)
    await _changes(file, path.unlink)

    def come_back() -> None:
        path.write_text("a", encoding="utf-8")

    await _changes(file, come_back)
