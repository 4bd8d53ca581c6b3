"""Which limits apply to a request, and what clients are told of them."""

from __future__ import annotations

from typing import Any

import pytest

from gen.weir.auth.v1 import Limits, Meter, RateGrant, RateSubjectKind
from gen.weir.type.v1 import Principal
from meshkit.limit_settings import LimitsBlock
from services.router.domain.permissions import Caller, Permissions
from services.router.rates import subjects as rooms
from services.router.rates.balance import Lease, Slice, slice_of
from services.router.rates.headers import duration, ratelimit_headers
from services.router.rates.recent import Recent
from services.router.rates.subjects import NOTHING, Limit, Subjects

KEY, TEAM = RateSubjectKind.KEY, RateSubjectKind.TEAM
ORG, MODEL = RateSubjectKind.ORG, RateSubjectKind.MODEL
REQUESTS, TOKENS, SLOTS = Meter.REQUESTS, Meter.TOKENS, Meter.CONCURRENT


def _caller(limits: Limits | None = None, org: str = "acme", team: str = "search") -> Caller:
    return Caller(Principal(key_id="k1", org=org, team=team), Permissions(), limits=limits)


def _found(block: dict[str, Any], caller: Caller, model: str = "gpt-4") -> set[tuple[Any, ...]]:
    applying = Subjects(LimitsBlock.model_validate(block)).of(caller, model)
    return {(one.kind, one.name, one.meter, one.total) for one in applying.limits}


def test_nothing_limited() -> None:
    """Then it is the same NOTHING for everybody, also where a key's own limits name none."""
    subjects = Subjects(LimitsBlock())
    assert subjects.of(_caller(), "gpt-4") is NOTHING
    assert subjects.of(_caller(Limits()), "gpt-4") is NOTHING


def test_every_subject() -> None:
    """Key, team, org and model, each with what it is limited in."""
    block = {
        "keys": {"requests_per_minute": 1},
        "teams": {"acme/search": {"tokens_per_minute": 2}},
        "orgs": {"acme": {"concurrent_requests": 3}},
        "models": {"gpt-4": {"requests_per_minute": 4, "tokens_per_minute": 5}},
    }
    assert _found(block, _caller()) == {
        (KEY, "k1", REQUESTS, 1),
        (TEAM, "acme/search", TOKENS, 2),
        (ORG, "acme", SLOTS, 3),
        (MODEL, "gpt-4", REQUESTS, 4),
        (MODEL, "gpt-4", TOKENS, 5),
    }


def test_a_keys_own_limits_take_the_place_of_the_others() -> None:
    """All of them: what they do not name is without limit."""
    block = {"keys": {"requests_per_minute": 1, "tokens_per_minute": 2}}
    own = Limits(requests_per_minute=7)
    assert _found(block, _caller(own)) == {(KEY, "k1", REQUESTS, 7)}


def test_each_of_the_others() -> None:
    """`*` is for those that are not named; one named without limits has none."""
    star = {"requests_per_minute": 9}
    block = {"orgs": {"*": star, "free": {}}, "teams": {"*": star}, "models": {"*": star, "gpt-4": {}}}
    assert _found(block, _caller()) == {(ORG, "acme", REQUESTS, 9), (TEAM, "acme/search", REQUESTS, 9)}
    assert _found(block, _caller(org="free", team=""), "other") == {(MODEL, "other", REQUESTS, 9)}
    assert _found({"orgs": {"*": star}}, _caller(org="", team="")) == set()


@pytest.mark.parametrize("name", ["x" * 257, "nul\0", "half \ud800"])
def test_names_that_auth_would_not_take(name: str) -> None:
    """A digest stands for them: one bad name must not spoil the call that is about all limits."""
    block = {"orgs": {"*": {"requests_per_minute": 9}}, "teams": {"*": {"requests_per_minute": 8}}}
    found = _found(block, _caller(org=name))
    assert {total for *_, total in found} == {8, 9}
    for _, sent, _, _ in found:
        assert sent.startswith("sha256:")
        assert len(sent) <= 256
    assert found != _found(block, _caller(org=name + "y"))


def test_the_smallest_context_counts() -> None:
    """It is told whose it is."""
    block = {"keys": {"context_tokens": 50}, "orgs": {"acme": {"context_tokens": 20}}}
    found = Subjects(LimitsBlock.model_validate(block)).of(_caller(), "gpt-4")
    assert found.context is not None
    assert (found.context.whose, found.context.tokens) == ("the org acme", 20)
    assert not found.limits


def test_what_was_found_is_remembered_for_the_caller_as_it_is() -> None:
    """A key that changed is another caller, and looked up anew."""
    subjects = Subjects(LimitsBlock())
    caller = _caller(Limits(requests_per_minute=7))
    first = subjects.of(caller, "gpt-4")
    assert subjects.of(caller, "gpt-4") is first
    assert subjects.of(_caller(Limits(requests_per_minute=8)), "gpt-4").limits[0].total == 8
    assert subjects.of(_caller(), "gpt-4") is NOTHING


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest pair of a key and a model goes first."""
    monkeypatch.setattr(rooms, "MAX_REMEMBERED", 2)
    subjects, caller = Subjects(LimitsBlock()), _caller(Limits(requests_per_minute=7))
    first = subjects.of(caller, "m1")
    second = subjects.of(caller, "m2")
    subjects.of(caller, "m3")
    assert subjects.of(caller, "m2") is second
    assert subjects.of(caller, "m1") is not first


def test_own_count_of_the_last_minute() -> None:
    """A unit counts for 60 s at least and a second more at most."""
    recent = Recent()
    recent.add(100.9, 3)
    recent.add(130.0, 2)
    assert [recent.units(at_s) for at_s in (160.89, 161.0, 190.99, 191.0)] == [5, 2, 2, 0]
    recent.add(200.0, 1)
    recent.add(210.0, 4)
    assert recent.frees_in_s(211.0, 1) == pytest.approx(50.0)
    assert recent.frees_in_s(211.0, 2) == pytest.approx(60.0)
    assert recent.frees_in_s(211.0, 99) == 60


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0s"),
        (0.0195, "20ms"),
        (0.9999, "1000ms"),
        (1.0, "1s"),
        (1.2, "2s"),
        (59.9, "1m0s"),
        (360.0, "6m0s"),
        (3_600.0, "1h0m0s"),
    ],
)
def test_times_as_openai_writes_them(seconds: float, text: str) -> None:
    """Rounded up, so that nobody comes too early."""
    assert duration(seconds) == text


def _slice(total: int, free: int, meter: Meter = REQUESTS) -> Slice:
    held = slice_of(Limit(KEY, "k", meter, total), Lease(1), 0, 0.25)
    held.granted(0, RateGrant(total=total, free=free), 0.0)
    return held


def test_the_tightest_limit_is_told() -> None:
    """That of which the least share is left, for requests and for tokens; slots are not told of."""
    slices = [_slice(10, 9), _slice(100, 20), _slice(1_000, 400, TOKENS), _slice(5, 1, SLOTS)]
    assert dict(ratelimit_headers(slices, 0.0)) == {
        "x-ratelimit-limit-requests": "100",
        "x-ratelimit-remaining-requests": "20",
        "x-ratelimit-reset-requests": "0s",
        "x-ratelimit-limit-tokens": "1000",
        "x-ratelimit-remaining-tokens": "400",
        "x-ratelimit-reset-tokens": "0s",
    }


def test_remaining_is_less_what_was_spent_since() -> None:
    """Auth's free units and those at hand; a limit with use not yet told is whole again in a minute."""
    held = _slice(10, 3)
    held.granted(2, RateGrant(total=10, granted=2, free=3), 0.0)
    held.take(1, 0.0)
    assert (held.remaining(0.0), held.reset_s(0.0)) == (4, 60.0)
