"""A worker killed with SIGKILL at any moment: each attempt it began has exactly one terminal entry afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest

from gen.weir.ledger.v1 import Outcome
from gen.weir.ledger.v1.service import LedgerClient
from meshkit.codec import mesh_codec
from meshkit.inprocess import InProcessTransport
from services.router.adapters.ledger_feed import LedgerFeed
from services.router.adapters.spool import Spool
from services.router.adapters.spool_format import START
from services.router.adopt_spools import AdoptSpools
from services.router.spool_settings import FeedSettings, SpoolSettings
from tests.fakes.spool_ledger import FakeLedger, quiet, spools

ROOT = Path(__file__).parents[2]
LIVES = 4


def ids(path: Path) -> set[bytes]:
    """The whole ids in a file of 16 bytes each."""
    data = path.read_bytes() if path.exists() else b""
    return {data[place : place + 16] for place in range(0, len(data) - 15, 16)}


def start_writer(folder: Path, seed: int, *, file_limit: int | None = None) -> subprocess.Popen[bytes]:
    """A writer that has begun to write."""
    names = [str(folder / name) for name in ("spool", "begun", "ended")]
    limit = [] if file_limit is None else [str(file_limit)]
    writer = subprocess.Popen(  # noqa: S603 - the command is our own
        [sys.executable, "-m", "tests.fakes.spool_writer", *names, str(seed), *limit],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"ready\n"
    return writer


async def adopted(folder: Path, ledger: FakeLedger) -> None:
    """Returns when every orphan in the folder is adopted, sent and removed."""
    own_spools = spools(folder, SpoolSettings(segment_bytes=4_096, max_unsent_bytes=1 << 30))
    own = own_spools.open()
    settings = FeedSettings(flush_delay_ms=1, retry_min_ms=1, tend_interval_s=0.02)
    feed = LedgerFeed(
        LedgerClient(InProcessTransport(ledger, quiet())), settings, mesh_codec(), own_spools.quarantine, quiet(),
        Random(1),  # noqa: S311 - jitter
    )  # fmt: skip
    await feed.start(own)
    adopt = AdoptSpools(own_spools, feed, timedelta(milliseconds=20), quiet())
    await adopt.adopt()
    await ledger.until(lambda: [path.name for path in folder.iterdir()] == [own._owned.path.name], 60)
    await feed.stop(timedelta(seconds=1))
    own_spools.close()


async def test_every_begun_attempt_has_one_terminal_entry_after_sigkill(tmp_path: Path) -> None:
    """Killed at random moments, several lives long, also with the ledger breaking streams: none lost, none doubled."""
    seed = int.from_bytes(os.urandom(4), "big")
    print(f"seed {seed}")  # noqa: T201 - shown when the test fails, to run it again
    random = Random(seed)  # noqa: S311 - a test's choice of moments
    ledger = FakeLedger()
    for life in range(LIVES):
        writer = start_writer(tmp_path, seed + life)
        time.sleep(random.uniform(0.0, 0.15))  # noqa: ASYNC251 - the random moment is the test; nothing else runs
        writer.send_signal(signal.SIGKILL)
        writer.communicate(timeout=30)
    ledger.lose_acks = 2
    await adopted(tmp_path / "spool", ledger)
    said_begun, said_ended = ids(tmp_path / "begun"), ids(tmp_path / "ended")
    outcomes = {entry.entry_id: entry.outcome for entry in ledger.rows.values()}
    assert len(outcomes) == len(ledger.rows)
    assert said_begun <= set(outcomes)
    # Between the spool and the file of ids the kill may fall: at most one attempt in each life.
    assert len(set(outcomes) - said_begun) <= LIVES
    assert all(outcomes[entry_id] == Outcome.OK for entry_id in said_ended)
    assert (
        len([entry_id for entry_id in set(outcomes) - said_ended if outcomes[entry_id] == Outcome.OK])
        <= LIVES
    )
    assert not (tmp_path / "spool" / "quarantine.jsonl").exists()


async def test_an_adopter_killed_in_the_middle_is_adopted_itself(tmp_path: Path) -> None:
    """Any prefix of the adoption's writes, and then a second adoption: the same entries, each once."""
    writer = start_writer(tmp_path, 1)
    time.sleep(0.05)  # noqa: ASYNC251 - lets the writer write; how much does not matter
    writer.kill()
    writer.communicate(timeout=30)
    killed = tmp_path / "spool"
    results = []
    for cut in (0, 1, 150, 300, 700, None):
        half = tmp_path / f"half-{cut}"
        half.mkdir()
        (owner,) = killed.iterdir()
        (half / owner.name).mkdir()
        for path in owner.iterdir():
            (half / owner.name / path.name).write_bytes(path.read_bytes())
        first = spools(half, SpoolSettings())
        nowhere = _Nowhere()
        await AdoptSpools(first, nowhere, timedelta(seconds=1), quiet()).adopt()
        open_ids = nowhere.aborted_ids()
        segment = nowhere.adopted[0]._segments[-1].path
        first.close()
        if cut is not None:
            os.truncate(segment, min(cut, segment.stat().st_size))
        ledger = FakeLedger()
        await adopted(half, ledger)
        aborted_ids = {e.entry_id for e in ledger.rows.values() if e.outcome == Outcome.ABORTED}
        assert aborted_ids == open_ids
        assert open_ids
        results.append({key: mesh_codec().encode(entry) for key, entry in ledger.rows.items()})
    assert all(result == results[0] for result in results)


class _Nowhere:
    """A feed that sends nothing."""

    def __init__(self) -> None:
        self.adopted: list[Spool] = []

    def adopt(self, spool: Spool) -> None:
        """Keeps it as it is."""
        self.adopted.append(spool)

    def aborted_ids(self) -> set[bytes]:
        """Of the entries that the adoption made."""
        ends = self.adopted[0].read(START, 1_000_000)
        entries = [item.entry for item in ends if item.entry is not None]
        return {entry.entry_id for entry in entries if entry.outcome == Outcome.ABORTED}


@pytest.mark.parametrize("file_limit", [700, 1_111, 2_048])
async def test_a_disk_that_is_really_full_stops_at_a_begin(tmp_path: Path, file_limit: int) -> None:
    """The kernel refuses in the middle of a record: the begin raises LedgerUnavailable, and no record is torn."""
    writer = start_writer(tmp_path, 1, file_limit=file_limit)
    _, errors = writer.communicate(timeout=30)
    assert b"LedgerUnavailable: the attempt cannot be noted" in errors
    ledger = FakeLedger()
    await adopted(tmp_path / "spool", ledger)
    assert ids(tmp_path / "begun") == {entry.entry_id for entry in ledger.rows.values()}
