"""Who gets how much of a limit that several want."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.auth.domain.rate_lease import Demand, lease
from services.auth.domain.rate_share import Claim, fair_part
from services.auth.domain.rate_window import Rule, Window

_CLAIMS = st.builds(Claim, st.integers(0, 1_000), st.floats(0, 1_000))


@given(free=st.integers(-10, 2_000), claims=st.lists(_CLAIMS, min_size=1, max_size=8))
def test_a_part_is_neither_too_much_nor_wasted(free: int, claims: list[Claim]) -> None:
    """Never more than is free or wanted; all parts together are all that can be given."""
    parts = [fair_part(free, mine, claims[:n] + claims[n + 1 :]) for n, mine in enumerate(claims)]
    for part, claim in zip(parts, claims, strict=True):
        assert 0 <= part <= min(max(free, 0), claim.wanted)
    wanted = sum(claim.wanted for claim in claims)
    assert sum(parts) >= min(max(free, 0), wanted)
    assert sum(parts) <= max(free, 0) + len(claims)  # of equals, each is told that the odd unit is its


@pytest.mark.parametrize(
    ("free", "mine", "others", "part"),
    [
        (10, Claim(10, 0.0), [], 10),
        (10, Claim(3, 50.0), [Claim(5, 0.0)], 3),
        (10, Claim(10, 0.0), [Claim(10, 0.0)], 5),
        (10, Claim(10, 0.0), [Claim(2, 0.0)], 8),
        (10, Claim(10, 4.0), [Claim(10, 0.0)], 3),
        (10, Claim(10, 0.0), [Claim(10, 4.0)], 7),
        (10, Claim(10, 99.0), [Claim(10, 0.0)], 0),
        (1, Claim(10, 0.0), [Claim(10, 0.0)], 1),
        (1, Claim(10, 0.1), [Claim(10, 0.0)], 0),
        (0, Claim(10, 0.0), [], 0),
        (-5, Claim(10, 0.0), [], 0),
    ],
)
def test_who_has_the_least_comes_first(free: int, mine: Claim, others: list[Claim], part: int) -> None:
    """Unit by unit, counting what was got lately."""
    assert fair_part(free, mine, others) == part


@settings(max_examples=15)
@given(
    total=st.sampled_from([10, 100, 6_000]),
    pauses_s=st.tuples(st.floats(0.1, 2.0), st.floats(0.1, 2.0)),
    lead_s=st.floats(0, 90),
)
def test_two_greedy_holders_share(total: int, pauses_s: tuple[float, float], lead_s: float) -> None:
    """Each wants everything and uses it at once, however often it asks and whoever came first: neither under 40 %."""
    rule = Rule(total, slides=True, good_for_s=10.0, retry_s=0.2)
    window, got, due_s = Window(), [0, 0], [0.0, lead_s]
    before = [0, 0]
    while min(due_s) < 900:
        who = due_s.index(min(due_s))
        now_s = due_s[who]
        if now_s <= lead_s + 120:
            before = list(got)
        got[who] += lease(window, str(who), Demand(got[who], 0, total), 1e9 + now_s, rule).granted
        due_s[who] += pauses_s[who]
    late = [after - sooner for after, sooner in zip(got, before, strict=True)]
    assert sum(late) >= total * (780 - lead_s) / 60 * 0.75
    assert min(late) >= 0.4 * sum(late)
