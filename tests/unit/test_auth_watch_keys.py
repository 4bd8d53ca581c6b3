"""WatchKeys and the follower behind it, over a store in memory."""

import asyncio
import json
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

import pytest

from gen.weir.auth.v1 import KeySnapshot, WatchKeysResponse
from meshkit.codec import mesh_codec
from meshkit.errors import UpstreamError
from meshkit.telemetry import Logger
from services.auth.follow_store import FollowStore
from services.auth.live_key_set import LiveKeySet
from services.auth.ports import KeyFeed, StoreRead
from services.auth.watch_keys import WatchKeys
from tests.fakes.auth import FakeKeyFeed, FakeKeyStore, key_of, revoked, token_of

_POLL = timedelta(milliseconds=5)
_HEARTBEAT = timedelta(milliseconds=20)
_LIMIT_S = 5


class _Auth:
    """Follower and watch over one fake store, on a clock that the test may move on."""

    def __init__(self, store: FakeKeyStore, log: Logger, feed: KeyFeed | None = None) -> None:
        self.store = store
        self.feed = feed or FakeKeyFeed(store)
        self.later_s = 0.0
        self.live = LiveKeySet(timedelta(seconds=60), self.monotonic)
        self.follow = FollowStore(self.feed, self.live, _POLL, self.monotonic, log)
        self.watch = WatchKeys(self.live, _HEARTBEAT)

    async def failed_reads(self, count: int) -> None:
        """Returns once the follower tried `count` times more."""
        assert isinstance(self.feed, FakeKeyFeed)
        wanted, tried = len(self.feed.reads) + count, self.feed.reads
        await _until(lambda: len(tried) >= wanted)

    @property
    def feed_tried(self) -> int:
        """Readings tried, successful or not."""
        assert isinstance(self.feed, FakeKeyFeed)
        return len(self.feed.reads)

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time() + self.later_s


@pytest.fixture
async def log_file(tmp_path: Path) -> AsyncIterator[tuple[Logger, Path]]:
    path = tmp_path / "log"
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY)
    yield Logger("auth", descriptor), path
    os.close(descriptor)


@pytest.fixture
async def auth(log_file: tuple[Logger, Path]) -> AsyncIterator[_Auth]:
    store = FakeKeyStore(version=100)
    store.put(key_of(token_of(1)))
    whole = _Auth(store, log_file[0])
    await whole.follow.refresh()
    task = asyncio.create_task(whole.follow.run())
    yield whole
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _next(events: AsyncIterator[WatchKeysResponse]) -> WatchKeysResponse:
    async with asyncio.timeout(_LIMIT_S):
        return await anext(events)


async def _next_change(events: AsyncIterator[WatchKeysResponse]) -> WatchKeysResponse:
    event = await _next(events)
    while event.heartbeat is not None:
        event = await _next(events)
    return event


async def _read_on(events: AsyncIterator[WatchKeysResponse]) -> NoReturn:
    while True:
        await _next(events)


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(_LIMIT_S):
        while not condition():  # noqa: ASYNC110 - over state that signals nobody
            await asyncio.sleep(0.001)


async def test_snapshot_then_change_then_heartbeat(auth: _Auth) -> None:
    """The order of a watch's life; heartbeats carry the version held."""
    async with aclosing(auth.watch(0)) as events:
        first = await _next(events)
        assert first.snapshot is not None
        assert (first.version, [key.id for key in first.snapshot.keys]) == (101, [token_of(1).key_id])
        auth.store.put(key_of(token_of(2)))
        second = await _next_change(events)
        assert second.changed is not None
        assert (second.version, second.changed.id) == (102, token_of(2).key_id)
        third = await _next(events)
        assert third.heartbeat is not None
        assert third.version == 102


async def test_a_revocation_is_a_change(auth: _Auth) -> None:
    """The key comes again, with its end."""
    async with aclosing(auth.watch(101)) as events:
        auth.store.put(revoked(key_of(token_of(1))))
        event = await _next_change(events)
        assert event.changed is not None
        assert event.changed.revoked_at is not None


async def test_a_watch_resumes_after_its_version(auth: _Auth) -> None:
    """Only what changed meanwhile, without a snapshot; nothing changed gives a heartbeat at once."""
    auth.store.put(key_of(token_of(2)))
    auth.store.put(key_of(token_of(3)))
    await _until(lambda: auth.live.version == 103)
    async with aclosing(auth.watch(101)) as events:
        assert [(await _next(events)).version for _ in range(2)] == [102, 103]
    async with aclosing(auth.watch(103)) as events:
        assert (await _next(events)).heartbeat is not None


@pytest.mark.parametrize("version", [1, 100, 5_000, 2**64 - 1])
async def test_a_version_not_at_hand_gets_a_snapshot(auth: _Auth, version: int) -> None:
    """From before this process loaded the set, and from another history."""
    async with aclosing(auth.watch(version)) as events:
        assert (await _next(events)).snapshot is not None


async def test_a_watcher_ahead_of_this_process_is_not_sent_back(log_file: tuple[Logger, Path]) -> None:
    """Another Auth told it of a revocation that this one has yet to read: no snapshot in which the key is good."""
    store = FakeKeyStore(version=100)
    store.put(key_of(token_of(1)))
    auth = _Auth(store, log_file[0])
    await auth.follow.refresh()
    version = store.put(revoked(key_of(token_of(1))))
    async with _collected(auth.watch(version)) as events:
        await asyncio.sleep(0)
        await auth.follow.refresh()
        await _until(lambda: bool(events))
    assert (events[0].version, events[0].snapshot) == (version, None)
    assert events[0].heartbeat is not None


@pytest.mark.parametrize("count", [1, 2, 7])
async def test_a_key_set_too_long_for_a_message_is_sent_in_parts(auth: _Auth, count: int) -> None:
    """What does not fit into the snapshot follows as changes; a watcher has all of it at the version of the whole."""
    for number in range(2, count + 1):
        auth.store.put(key_of(token_of(number), models=["x" * 128] * 100))
    await _until(lambda: auth.live.version == 100 + count)
    watch = WatchKeys(auth.live, _HEARTBEAT, max_snapshot_bytes=30_000)
    async with aclosing(watch(0)) as events:
        first = await _next(events)
        assert first.snapshot is not None
        held = {key.id: key for key in first.snapshot.keys}
        versions = [first.version]
        while versions[-1] < auth.live.version:
            event = await _next(events)
            assert event.changed is not None
            held[event.changed.id] = event.changed
            versions.append(event.version)
        assert (await _next(events)).heartbeat is not None
    assert len(first.snapshot.keys) == min(count, 3)
    assert versions == sorted(set(versions))
    assert held == {change.key.id: change.key for change in auth.store.changes.values()}


async def test_a_watcher_that_left_in_the_middle_of_a_long_key_set_begins_anew(
    auth: _Auth, log_file: tuple[Logger, Path]
) -> None:
    """It gets a snapshot again, and none is skipped."""
    for number in range(2, 9):
        auth.store.put(key_of(token_of(number)))
    await _until(lambda: auth.live.version == 108)
    live = LiveKeySet(timedelta(seconds=60), auth.monotonic)
    await FollowStore(FakeKeyFeed(auth.store), live, _POLL, auth.monotonic, log_file[0]).refresh()
    watch = WatchKeys(live, _HEARTBEAT, max_snapshot_bytes=1)
    async with aclosing(watch(0)) as events:
        seen = [(await _next(events)).version for _ in range(3)]
    assert seen == [101, 102, 103]
    async with aclosing(watch(seen[-1])) as events:
        assert (await _next(events)).snapshot is not None


async def test_a_snapshot_is_no_longer_than_allowed(auth: _Auth) -> None:
    """As it is on the wire, and as long as it may be: one byte less, and its last key would follow as a change."""
    for number in range(2, 9):
        auth.store.put(key_of(token_of(number), models=["x" * 128] * number))
    await _until(lambda: auth.live.version == 108)
    keys = [change.key for change in auth.store.changes.values()]
    most = len(mesh_codec().encode(KeySnapshot(keys=keys[:5]))) + 5 * 5
    for allowed, wanted in ((most, 5), (most - 100, 4)):
        async with aclosing(WatchKeys(auth.live, _HEARTBEAT, max_snapshot_bytes=allowed)(0)) as events:
            snapshot = (await _next(events)).snapshot
        assert snapshot is not None
        assert list(snapshot.keys) == keys[:wanted]
        assert len(mesh_codec().encode(snapshot)) <= allowed


async def test_without_notification_the_poll_finds_the_change(log_file: tuple[Logger, Path]) -> None:
    """The safety net alone is enough."""
    store = FakeKeyStore()
    auth = _Auth(store, log_file[0], FakeKeyFeed(store, notified=False))
    await auth.follow.refresh()
    task = asyncio.create_task(auth.follow.run())
    async with aclosing(auth.watch(0)) as events:
        await _next(events)
        store.put(key_of(token_of(9)))
        assert (await _next_change(events)).changed is not None
    task.cancel()


async def test_while_the_store_is_away_there_is_no_heartbeat_and_afterwards_there_is(
    auth: _Auth, log_file: tuple[Logger, Path]
) -> None:
    """Silence tells the truth; the stream goes on by itself, with what was missed as a snapshot; two log lines."""
    async with _collected(auth.watch(0)) as events:
        await _until(lambda: any(event.heartbeat is not None for event in events))
        auth.store.away = True
        await auth.failed_reads(1)
        # One heartbeat may still be due to the last good reading; then none for the time of several.
        await _until_quiet(auth, events)
        auth.store.put(key_of(token_of(2)))
        auth.store.away = False
        seen = len(events)
        await _until(lambda: len(events) > seen + 1)
        assert events[seen].snapshot is not None
        assert (events[seen].version, len(events[seen].snapshot.keys)) == (102, 2)  # type: ignore[union-attr] # just asserted
        assert events[seen + 1].heartbeat is not None
    lines = [json.loads(line)["event"] for line in log_file[1].read_text().splitlines()]
    assert lines == ["key store cannot be read; watchers get no heartbeat", "key store is back"]


async def test_an_outage_without_a_change_costs_nothing(auth: _Auth) -> None:
    """The store that comes back at the same version is the same: the watch goes on with a heartbeat."""
    async with _collected(auth.watch(0)) as events:
        auth.store.away = True
        await auth.failed_reads(2)
        await _until_quiet(auth, events)
        seen = len(events)
        auth.store.away = False
        await _until(lambda: len(events) > seen)
        assert events[seen].heartbeat is not None


async def test_a_watch_begun_while_the_copy_is_stale_waits_for_the_store(auth: _Auth) -> None:
    """A snapshot of long ago would look like the present; it comes once the store is read again."""
    auth.store.away = True
    await auth.failed_reads(1)
    auth.later_s = 61
    async with _collected(auth.watch(0)) as events:
        await auth.failed_reads(3)
        assert not events
        auth.store.away = False
        await _until(lambda: bool(events))
        assert events[0].snapshot is not None


async def test_a_store_that_goes_back_ends_the_stream(auth: _Auth) -> None:
    """Versions of one stream never fall; who asks anew gets the older set as a snapshot."""
    auth.store.put(key_of(token_of(2)))
    async with aclosing(auth.watch(0)) as events:
        while (await _next(events)).version < 102:
            pass
        auth.store.restore(101)
        with pytest.raises(UpstreamError, match="older state"):
            await _read_on(events)
    async with aclosing(auth.watch(102)) as events:
        event = await _next(events)
        assert event.snapshot is not None
        assert (event.version, len(event.snapshot.keys)) == (101, 1)


async def test_a_slow_watcher_costs_no_memory_and_misses_nothing(auth: _Auth) -> None:
    """A thousand changes while it does not read: it gets each key's last form, once."""
    async with aclosing(auth.watch(101)) as events:
        await _next(events)
        for _ in range(500):
            auth.store.put(key_of(token_of(2)))
            auth.store.put(key_of(token_of(3)))
        await _until(lambda: auth.live.version == 1_101)
        assert [(await _next_change(events)).version for _ in range(2)] == [1_100, 1_101]


@pytest.mark.parametrize("away", [False, True])
async def test_drain_ends_every_watch(auth: _Auth, *, away: bool) -> None:
    """A watch lasts as long as its watcher wishes, so the service has to end it: idle, silent or just begun."""
    idle = asyncio.create_task(_versions(auth))
    await asyncio.sleep(0)
    auth.store.away = away
    await _until(lambda: auth.feed_tried > 1)
    auth.later_s = 61 if away else 0
    silent = asyncio.create_task(_versions(auth))
    await asyncio.sleep(0)
    auth.live.close()
    async with asyncio.timeout(_LIMIT_S):
        assert (await idle)[0] == 101
        await silent
        assert await _versions(auth) == []


async def _versions(auth: _Auth) -> list[int]:
    return [event.version async for event in auth.watch(0)]


async def test_a_fault_of_ours_stops_heartbeats_and_not_the_follower(log_file: tuple[Logger, Path]) -> None:
    """An unexpected error is logged once with its traceback, and the next reading may succeed."""
    store = FakeKeyStore()
    feed = _FaultyFeed(store)
    auth = _Auth(store, log_file[0], feed)
    await auth.follow.refresh()
    feed.faults = 2
    task = asyncio.create_task(auth.follow.run())
    await _until(lambda: auth.live.reads > 1)
    task.cancel()
    lines = [json.loads(line) for line in log_file[1].read_text().splitlines()]
    assert [line["level"] for line in lines] == ["error", "info"]
    assert "RuntimeError: a fault" in lines[0]["traceback"]


async def test_a_wait_that_fails_does_not_end_the_follower(log_file: tuple[Logger, Path]) -> None:
    """Without notifications there is still the poll."""
    store = FakeKeyStore()
    auth = _Auth(store, log_file[0], _DeafFeed(store))
    await auth.follow.refresh()
    task = asyncio.create_task(auth.follow.run())
    store.put(key_of(token_of(1)))
    await _until(lambda: len(auth.live.keys) == 1)
    task.cancel()
    assert "RuntimeError: deaf" in log_file[1].read_text()


class _DeafFeed(FakeKeyFeed):
    async def wait(self, at_most: timedelta) -> None:
        raise RuntimeError("deaf")


class _FaultyFeed(FakeKeyFeed):
    faults = 0

    async def read(self, after_version: int) -> StoreRead:
        if self.faults:
            self.faults -= 1
            raise RuntimeError("a fault")
        return await super().read(after_version)


@asynccontextmanager
async def _collected(events: AsyncGenerator[WatchKeysResponse]) -> AsyncIterator[list[WatchKeysResponse]]:
    """The events of a watch as they come."""
    collected: list[WatchKeysResponse] = []

    async def collect() -> None:
        async for event in events:
            collected.append(event)  # noqa: PERF401 - the list grows while others look at it

    task = asyncio.create_task(collect())
    try:
        yield collected
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _until_quiet(auth: _Auth, events: list[WatchKeysResponse]) -> None:
    """Returns once twelve readings failed, the time of three heartbeats, without an event."""
    async with asyncio.timeout(_LIMIT_S):
        while True:
            seen = len(events)
            await auth.failed_reads(12)
            if len(events) == seen:
                return
