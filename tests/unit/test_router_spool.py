"""The spool: what was written comes back, damage is reported and never becomes an entry."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from gen.weir.ledger.v1 import Entry, Outcome
from meshkit.codec import mesh_codec
from meshkit.errors import LedgerUnavailable
from services.router.adapters import spool_owner
from services.router.adapters.spool import Spool
from services.router.adapters.spool_format import START, Gap, Kind, Record, frame, scan
from services.router.adapters.spool_quarantine import Quarantine
from services.router.adapters.spool_recovery import Recovered, Recovery
from services.router.adapters.spools import Spools
from services.router.adopt_spools import aborted
from services.router.spool_settings import SpoolSettings
from tests.fakes.spool_ledger import begun, ended, quiet, spools

SMALL = SpoolSettings(segment_bytes=4_096, max_unsent_bytes=65_536, max_entries_in_memory=4)
SALT = b"\x0a\x10\x00W"
Written = list[tuple[Kind, bytes]]


def recover(folder: Path, quarantine_folder: Path) -> tuple[Recovered, int]:
    """What a folder holds, and how many pieces were set aside."""
    quarantine = Quarantine(quarantine_folder, CollectorRegistry(), quiet())
    found = Recovery(mesh_codec(), quarantine, quiet()).read(folder)
    return found, len(quarantine.path.read_text().splitlines()) if quarantine.path.exists() else 0


def everything(spool: Spool) -> list[Entry]:
    """Every ended entry, in order; what was damaged left out."""
    found: list[Entry] = []
    place = START
    while batch := spool.read(place, 3):
        found += [item.entry for item in batch if item.entry is not None]
        place = batch[-1].position
    return found


@st.composite
def histories(draw: st.DrawFn) -> Written:
    """Begins and ends of a few attempts, interleaved."""
    records: Written = []
    running: list[Entry] = []
    for number in range(draw(st.integers(1, 6))):
        running.append(entry := begun(number))
        records.append((Kind.BEGIN, mesh_codec().encode(entry)))
        while draw(st.booleans()) and running:
            last: Entry = running.pop(draw(st.integers(0, len(running) - 1)))
            records.append((Kind.END, mesh_codec().encode(ended(last))))
    return records


def recovered_from(data: bytes) -> tuple[Recovered, list[bytes], int, bool]:
    """What a segment of `data` gives: state, payloads of the ends, pieces set aside, whether an end was cut off."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "owner"
        folder.mkdir()
        path = folder / f"00000001-{SALT.hex()}.spool"
        path.write_bytes(data)
        found, reports = recover(folder, Path(name))
        rest = path.read_bytes()
        ends = [
            item.payload for item in scan(rest, SALT) if isinstance(item, Record) and item.kind == Kind.END
        ]
        return found, ends, reports, len(rest) < len(data)


@given(histories(), st.data())
def test_any_truncation_recovers_the_whole_records_before_it(history: Written, data: st.DataObject) -> None:
    """Cut anywhere, a spool gives the records before the cut, and the cut is noticed unless it falls between two."""
    frames = [frame(SALT, kind, payload) for kind, payload in history]
    whole = b"".join(frames)
    cut = data.draw(st.integers(0, len(whole)))
    borders = [sum(map(len, frames[:count])) for count in range(len(frames) + 1)]
    kept = max(count for count, border in enumerate(borders) if border <= cut)
    found, ends, reports, was_cut = recovered_from(whole[:cut])
    assert ends == [payload for kind, payload in history[:kept] if kind == Kind.END]
    assert sorted(item.payload for item in found.open.values()) == still_open(history[:kept])
    assert reports == 0
    assert was_cut == (cut not in borders)


@given(histories(), st.data())
def test_any_flipped_byte_is_reported_and_invents_nothing(history: Written, data: st.DataObject) -> None:
    """One damaged byte costs one record at most; it is reported, and what comes back was written."""
    whole = bytearray(b"".join(frame(SALT, kind, payload) for kind, payload in history))
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    found, ends, reports, was_cut = recovered_from(bytes(whole))
    written_ends = [payload for kind, payload in history if kind == Kind.END]
    begins = [payload for kind, payload in history if kind == Kind.BEGIN]
    assert reports == 1 or was_cut
    assert [payload for payload in written_ends if payload in ends] == ends
    assert len(ends) >= len(written_ends) - 1
    assert all(item.payload in begins for item in found.open.values())


@given(st.binary(max_size=400))
def test_rubbish_holds_no_records(data: bytes) -> None:
    """Bytes that nobody wrote are gaps, from the first to the last."""
    items = list(scan(data, SALT))
    assert all(isinstance(item, Gap) for item in items)
    assert sum(item.end - item.start for item in items if isinstance(item, Gap)) == len(data)


def still_open(history: Written) -> list[bytes]:
    """Payloads of the begins without an end, sorted."""
    ids = {mesh_codec().decode(Entry, payload).entry_id for kind, payload in history if kind == Kind.END}
    return sorted(
        payload
        for kind, payload in history
        if kind == Kind.BEGIN and mesh_codec().decode(Entry, payload).entry_id not in ids
    )


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(st.sampled_from(["begin", "end", "ack", "crash"]), max_size=120), st.randoms())
def test_any_history_leaves_one_terminal_entry_per_attempt(steps: list[str], random: Random) -> None:
    """Begins, ends, acknowledgements and crashes in any order: each begun attempt comes out exactly once."""
    with tempfile.TemporaryDirectory() as name:
        all_spools = spools(Path(name) / "spool", SMALL)
        spool = all_spools.open()
        running: list[Entry] = []
        expected: list[Entry] = []
        got: list[Entry] = []
        for number, step in enumerate(steps):
            if step == "begin":
                running.append(begun(number))
                spool.begin(running[-1])
            elif step == "end" and running:
                expected.append(ended(running.pop(random.randrange(len(running)))))
                spool.end(expected[-1])
            elif step == "ack":
                batch = spool.read(spool.acked, random.randint(1, 4))
                got += [item.entry for item in batch if item.entry is not None]
                if batch:
                    spool.acknowledge(batch[-1].position, len(batch))
            elif step == "crash":
                all_spools, spool = next_life(spool)
                assert sorted(e.entry_id for e in spool.open_attempts()) == sorted(
                    e.entry_id for e in running
                )
        all_spools, spool = next_life(spool)
        for entry in spool.open_attempts():
            spool.end(aborted(entry))
        got += [item.entry for item in spool.read(spool.acked, 1_000) if item.entry is not None]
        # In the order of their ends; then those aborted, whose begins may have been carried over in any order.
        assert got[: len(expected)] == expected
        assert sorted(entry.entry_id for entry in got[len(expected) :]) == sorted(e.entry_id for e in running)
        assert {entry.outcome for entry in got[len(expected) :]} <= {Outcome.ABORTED}
        spool.acknowledge(spool.last_end, spool.unacked)
        assert spool.is_drained
        assert spool.unacked == 0
        all_spools.close()
        assert [path.name for path in (Path(name) / "spool").iterdir()] == []


def next_life(spool: Spool) -> tuple[Spools, Spool]:
    """What another process finds when this one is killed: the same bytes, and no lock."""
    folder = spool._owned.path
    os.close(spool._owned._fd)
    spool._sync.close()
    for segment in spool._segments:
        segment.close()
    successor = spools(folder.parent, SMALL)
    claimed = successor.claim()
    assert claimed is not None
    return successor, claimed


def test_disk_use_follows_what_is_unacknowledged(tmp_path: Path) -> None:
    """Many times the segment size passes through while one attempt stays open: the disk holds few segments."""
    all_spools = spools(tmp_path / "spool", SMALL)
    spool = all_spools.open()
    spool.begin(long := begun(-1))
    most = 0
    for number in range(1_000):
        spool.begin(entry := begun(number))
        spool.end(ended(entry))
        if number % 5 == 0:
            batch = spool.read(spool.acked, 10)
            spool.acknowledge(batch[-1].position, len(batch))
            spool.sync()
            most = max(most, sum(path.stat().st_size for path in spool._owned.path.iterdir()))
    assert most < 4 * SMALL.segment_bytes
    assert [entry.entry_id for entry in spool.open_attempts()] == [long.entry_id]
    spool.end(ended(long))
    rest = spool.read(spool.acked, 100)
    assert rest[-1].entry == ended(long)
    spool.acknowledge(rest[-1].position, len(rest))
    all_spools.close()
    assert list((tmp_path / "spool").iterdir()) == []


def test_entries_beyond_memory_are_read_back_in_order(tmp_path: Path) -> None:
    """Only four entries stay in memory; a hundred come back in the order in which they ended."""
    all_spools = spools(tmp_path / "spool", SMALL)
    spool = all_spools.open()
    entries = [begun(number) for number in range(100)]
    for entry in entries:
        spool.begin(entry)
        spool.end(ended(entry))
    assert len(spool._ring) == 4
    assert everything(spool) == [ended(entry) for entry in entries]
    all_spools.close()


class FullDisk:
    """Takes `room` bytes, then a part of a record, then nothing until `room` is raised."""

    def __init__(self, room: int) -> None:
        self.room = room

    def write(self, fd: int, data: bytes) -> int:
        """As os.write on a disk that fills up."""
        if self.room <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = os.write(fd, data[: self.room])
        self.room -= written
        return written


@pytest.mark.parametrize("room", [0, 1, 12, 13, 100])
def test_a_full_disk_refuses_the_attempt_before_it_begins(tmp_path: Path, room: int) -> None:
    """A begin that does not fit raises LedgerUnavailable and leaves nothing; with room again, all goes on."""
    disk = FullDisk(room)
    all_spools = spools(tmp_path / "spool", SMALL, write=disk.write)
    spool = all_spools.open()
    with pytest.raises(LedgerUnavailable, match="cannot be noted"):
        spool.begin(begun(1))
    assert spool._segments[-1].path.stat().st_size == 0
    disk.room = 10_000
    spool.begin(entry := begun(2))
    spool.end(ended(entry))
    assert everything(spool) == [ended(entry)]
    all_spools.close()


def test_an_end_that_finds_the_disk_full_is_kept_and_stored_later(tmp_path: Path) -> None:
    """The end raises nothing, new begins are refused, and with room again the end is stored, once, before them."""
    disk = FullDisk(10_000)
    all_spools = spools(tmp_path / "spool", SMALL, write=disk.write)
    spool = all_spools.open()
    first, second, third = (begun(number) for number in range(3))
    spool.begin(first)
    spool.begin(second)
    disk.room = 20
    spool.end(ended(first))
    spool.end(ended(second))
    spool.end(ended(second, Outcome.CUT))
    with pytest.raises(LedgerUnavailable):
        spool.begin(third)
    assert everything(spool) == []
    assert not spool.is_drained
    disk.room = 10_000
    spool.begin(third)
    assert everything(spool) == [ended(first), ended(second)]
    assert [entry.entry_id for entry in spool.open_attempts()] == [third.entry_id]
    all_spools.close()


def test_too_much_unsent_refuses_begins_until_it_is_acknowledged(tmp_path: Path) -> None:
    """At max_unsent_bytes begins are refused while ends are taken; acknowledgements make room again."""
    all_spools = spools(tmp_path / "spool", SMALL)
    spool = all_spools.open()
    spool.begin(running := begun(-1))
    with suppress(LedgerUnavailable):
        for number in range(10_000):
            spool.begin(entry := begun(number))
            spool.end(ended(entry))
    assert number < 1_000
    spool.end(ended(running))
    spool.acknowledge(spool.last_end, spool.unacked)
    spool.begin(begun(20_000))
    all_spools.close()


def test_an_end_without_a_begin_is_ignored(tmp_path: Path) -> None:
    """So is a second end: an attempt has one terminal entry."""
    all_spools = spools(tmp_path / "spool", SMALL)
    spool = all_spools.open()
    spool.begin(entry := begun())
    spool.end(ended(entry))
    spool.end(ended(entry, Outcome.CUT))
    spool.end(ended(begun(7)))
    assert everything(spool) == [ended(entry)]
    all_spools.close()


def test_an_end_that_cannot_be_encoded_counts_as_aborted(tmp_path: Path) -> None:
    """A fault of ours in the terminal entry costs its facts, not the entry."""
    all_spools = spools(tmp_path / "spool", SMALL)
    spool = all_spools.open()
    spool.begin(entry := begun())
    spool.end(Entry(entry_id=entry.entry_id, attempt=-1))
    assert everything(spool) == [aborted(entry)]
    all_spools.close()


def test_a_damaged_end_on_disk_is_set_aside_and_passed_over(tmp_path: Path) -> None:
    """The running process, reading back, reports it once and goes on with the next."""
    all_spools = spools(tmp_path / "spool", SpoolSettings(max_entries_in_memory=0))
    spool = all_spools.open()
    entries = [begun(number) for number in range(3)]
    for entry in entries:
        spool.begin(entry)
        spool.end(ended(entry))
    path = spool._segments[0].path
    place = path.read_bytes().index(mesh_codec().encode(ended(entries[1])))
    with path.open("r+b") as file:
        file.seek(place + 5)
        file.write(b"\xff\xfe")
    assert everything(spool) == [ended(entries[0]), ended(entries[2])]
    assert everything(spool) == [ended(entries[0]), ended(entries[2])]
    lines = [json.loads(line) for line in all_spools.quarantine.path.read_text().splitlines()]
    assert [line["reason"].split(":")[0] for line in lines] == ["damaged"]
    all_spools.close()


def test_only_one_claims_a_folder(tmp_path: Path) -> None:
    """A living owner's spool is nobody else's; a dead one's goes to the first who asks."""
    first, second, third = (spools(tmp_path / "spool", SMALL) for _ in range(3))
    own = first.open()
    own.begin(begun())
    assert second.claim() is None
    own._owned.release(quiet(), remove=False)
    assert second.claim() is not None
    assert third.claim() is None
    for each in (second, third):
        each.close()


def test_a_folder_removed_under_the_lock_is_not_owned(tmp_path: Path) -> None:
    """Whoever locks a folder that its last owner has just removed gets nothing."""
    owned = spool_owner.create(tmp_path)
    owned.release(quiet(), remove=True)
    assert spool_owner.lock(owned.path) is None


def test_aborted_depends_on_the_begin_alone() -> None:
    """The reservation is charged, marked as an estimate, under the ids of the begin."""
    entry = begun()
    once, again = aborted(entry), aborted(entry)
    assert once == again
    assert (once.entry_id, once.begun_at, once.outcome) == (entry.entry_id, entry.begun_at, Outcome.ABORTED)
    assert once.usage is not None
    assert (once.usage.output_tokens, once.usage.estimated, once.error_reason) == (1_000, True, "")


def test_metrics_show_what_waits(tmp_path: Path) -> None:
    """Unacknowledged entries, the oldest one's age, the bytes written; a repeated acknowledgement counts once."""
    registry = CollectorRegistry()
    all_spools = spools(tmp_path / "spool", SMALL, registry=registry)
    spool = all_spools.open()
    spool.begin(entry := begun())
    spool.end(ended(entry))
    value = registry.get_sample_value
    assert value("weir_router_spool_unacked_entries") == 1
    assert 0 <= (value("weir_router_spool_oldest_seconds") or 0) < 60
    assert (value("weir_router_spool_appended_bytes_total") or 0) > 200
    spool.acknowledge(spool.last_end, 1)
    assert value("weir_router_spool_unacked_entries") == 0
    assert value("weir_router_spool_oldest_seconds") == 0
    spool.acknowledge(START, 5)
    assert (spool.acked, value("weir_router_spool_unacked_entries")) == (spool.last_end, 0)
    all_spools.close()
