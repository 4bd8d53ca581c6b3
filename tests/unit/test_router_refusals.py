"""A flood of bad keys is slowed down, and refusals reach the audit as a sample."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from gen.rpc import Peer
from gen.weir.auth.v1 import AuditEvent
from gen.weir.error.v1 import Reason
from gen.weir.type.v1 import Principal
from meshkit.errors import (
    Forbidden,
    InvalidRequest,
    KeyExpired,
    KeyInvalid,
    RateLimited,
    UpstreamError,
    WeirError,
)
from meshkit.telemetry import Logger
from services.auth.report_refusals import MAX_EVENTS
from services.router.client_address import client_address
from services.router.identity_settings import IdentitySettings
from services.router.refusals import Refusals
from tests.fakes.router import FakeClock

BAD = KeyInvalid("the key is not known", details={"key_id": "abc"})
WHO = Principal(key_id="k", org="acme", team="search")


class Audit:
    """Takes reports, or is away."""

    def __init__(self) -> None:
        self.reports: list[list[AuditEvent]] = []
        self.failure: WeirError | None = None

    async def __call__(self, events: Sequence[AuditEvent]) -> None:
        if self.failure is not None:
            raise self.failure
        self.reports.append(list(events))


def subject(audit: Audit, clock: FakeClock, **settings: float) -> Refusals:
    """The subject, with a log that nobody reads."""
    return Refusals(audit, clock, IdentitySettings.model_validate(settings), Logger("router", fd=-1))


async def test_few_refusals_are_answered_at_once_and_a_flood_in_turn() -> None:
    """Ten a second wait for nothing; those beyond are answered evenly, fifty a second, however many there are."""
    clock = FakeClock()
    refusals = subject(Audit(), clock, calm_refusals_per_s=10, flood_answers_per_s=50)
    for tenth in range(50):
        clock.elapsed_s = tenth / 10
        await refusals.refused(BAD, "/a", "", None)
    assert clock.slept == []

    class Still(FakeClock):
        async def sleep(self, seconds: float) -> None:
            self.slept.append(seconds)

    still = Still()
    refusals = subject(Audit(), still, calm_refusals_per_s=10, flood_answers_per_s=50)
    for _ in range(120):
        await refusals.refused(BAD, "/a", "", None)
    assert still.slept == pytest.approx([number / 50 for number in range(1, 101)])


async def test_a_known_caller_is_never_held_back() -> None:
    """Forbidden and rate limited are told at once, however often."""
    clock = FakeClock()
    refusals = subject(Audit(), clock, calm_refusals_per_s=1)
    for error in (Forbidden("no"), RateLimited("no")) * 50:
        await refusals.refused(error, "/a", "", WHO)
    assert clock.slept == []


async def test_an_unknown_key_that_was_not_checked_is_held_back() -> None:
    """Auth was not asked about it because of the flood: it is part of the flood."""
    clock = FakeClock()
    refusals = subject(Audit(), clock, calm_refusals_per_s=1)
    for _ in range(10):
        await refusals.refused(RateLimited("not checked"), "/a", "", None)
    assert clock.slept


async def test_no_more_are_held_back_than_memory_allows() -> None:
    """Beyond the limit they are answered at once."""
    gate = asyncio.Event()

    class Stopped(FakeClock):
        async def sleep(self, seconds: float) -> None:
            self.slept.append(seconds)
            await gate.wait()

    clock = Stopped()
    refusals = subject(Audit(), clock, calm_refusals_per_s=0.1, held_refusals=3)
    held = [asyncio.create_task(refusals.refused(BAD, "/a", "", None)) for _ in range(10)]
    done, waiting = await asyncio.wait(held, timeout=0)
    while len(done) < 7:
        done, waiting = await asyncio.wait(held, timeout=0)
    assert len(waiting) == 3
    gate.set()
    await asyncio.gather(*held)


async def test_reports_count_what_is_alike() -> None:
    """One row for each who, what, from where and why, with how many it stands for; nothing is reported twice."""
    audit, clock = Audit(), FakeClock()
    refusals = subject(audit, clock)
    for _ in range(3):
        await refusals.refused(BAD, "/a", "10.0.0.1", None)
    await refusals.refused(Forbidden("no"), "/a", "10.0.0.1", WHO)
    await refusals.report()
    await refusals.report()
    (rows,) = audit.reports
    assert [(row.action, row.address, row.refused, row.count, row.subject) for row in rows] == [
        ("/a", "10.0.0.1", Reason.KEY_INVALID, 3, "abc"),
        ("/a", "10.0.0.1", Reason.FORBIDDEN, 1, ""),
    ]
    assert rows[1].who == WHO
    assert rows[0].at == clock.now()


async def test_a_report_that_fails_is_kept_and_bounded() -> None:
    """The counts of an outage of Auth arrive after it; kinds beyond the limit share one row."""
    audit = Audit()
    audit.failure = UpstreamError("auth does not answer")
    refusals = subject(audit, FakeClock(), reported_refusals=2)
    for number in range(10):
        await refusals.refused(BAD, "/a", f"10.0.0.{number}", None)
        await refusals.report()
    audit.failure = None
    await refusals.report()
    (rows,) = audit.reports
    assert len(rows) == 3
    assert sum(row.count for row in rows) == 10


async def test_no_report_is_longer_than_auth_takes() -> None:
    """With the largest setting there are rows for all the others beside those told apart."""
    audit = Audit()
    refusals = subject(audit, FakeClock(), reported_refusals=900)
    for number in range(1_001):
        await refusals.refused(Forbidden("no"), "/a", f"{number}", None)
    await refusals.refused(KeyExpired("no"), "/a", "", WHO)
    await refusals.report()
    assert max(map(len, audit.reports)) <= MAX_EVENTS
    assert sum(row.count for rows in audit.reports for row in rows) == 1_002


async def test_what_auth_will_never_take_is_given_up() -> None:
    """Else nothing would reach the audit any more."""
    audit = Audit()
    refusals = subject(audit, FakeClock())
    audit.failure = InvalidRequest("events: a row tells of no refusal")
    await refusals.refused(BAD, "/a", "", None)
    await refusals.report()
    audit.failure = None
    await refusals.refused(Forbidden("no"), "/a", "", WHO)
    await refusals.report()
    assert [[row.refused for row in rows] for rows in audit.reports] == [[Reason.FORBIDDEN]]


async def test_a_report_that_is_broken_off_is_kept() -> None:
    """A router that stops in the middle of one sends it with its last."""
    audit = Audit()
    never = asyncio.Event()

    async def stuck(events: Sequence[AuditEvent]) -> None:
        await never.wait()

    refusals = Refusals(stuck, FakeClock(), IdentitySettings(), Logger("router", fd=-1))
    await refusals.refused(BAD, "/a", "", None)
    report = asyncio.create_task(refusals.report())
    await asyncio.sleep(0)
    report.cancel()
    with pytest.raises(asyncio.CancelledError):
        await report
    refusals._report = audit
    await refusals.report()
    assert [row.count for rows in audit.reports for row in rows] == [1]


def test_only_the_edge_says_where_a_request_comes_from() -> None:
    """Another service's word counts for nothing; without it, the connection's other end does."""
    told = {"x-envoy-external-address": "203.0.113.9"}
    assert client_address(Peer("edge", "ipv4:127.0.0.1:9"), told) == "203.0.113.9"
    assert client_address(Peer("", "unix:"), told) == "203.0.113.9"
    assert client_address(Peer("ledger", "ipv4:127.0.0.1:9"), told) == "127.0.0.1"
    assert client_address(Peer("edge", "ipv6:%5B::1%5D:9"), {}) == "::1"
    assert client_address(Peer("edge", "unix:"), {}) == ""
