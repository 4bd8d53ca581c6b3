"""Which limit a subject has."""

import pytest

from gen.weir.auth.v1 import Key, Limits, Meter, RateLimit, RateSubjectKind
from meshkit.limit_settings import LimitsBlock, LimitSettings
from services.auth.limits import Totals

_KIND = RateSubjectKind
_KEYS = {
    "own": Key(id="own", limits=Limits(requests_per_minute=7, concurrent_requests=-1)),
    "plain": Key(id="plain"),
}
_BLOCK = LimitsBlock(
    keys=LimitSettings(requests_per_minute=1, tokens_per_minute=2, concurrent_requests=3),
    orgs={"*": LimitSettings(requests_per_minute=4)},
    teams={"acme/search": LimitSettings(tokens_per_minute=5), "*": LimitSettings(requests_per_minute=6)},
    models={"gpt-4o": LimitSettings(concurrent_requests=8)},
)


@pytest.mark.parametrize(
    ("kind", "name", "totals"),
    [
        (_KIND.KEY, "own", (7, 0, 0)),
        (_KIND.KEY, "plain", (1, 2, 3)),
        (_KIND.KEY, "jwt_somebody", (1, 2, 3)),
        (_KIND.ORG, "acme", (4, 0, 0)),
        (_KIND.TEAM, "acme/search", (0, 5, 0)),
        (_KIND.TEAM, "acme/other", (6, 0, 0)),
        (_KIND.MODEL, "gpt-4o", (0, 0, 8)),
        (_KIND.MODEL, "local", (0, 0, 0)),
    ],
)
def test_a_subject_has_its_own_limits_or_those_of_any_other(
    kind: RateSubjectKind, name: str, totals: tuple[int, int, int]
) -> None:
    """A key's own take the place of the settings' as a whole; a subject that is named takes the place of `*`."""
    total_of = Totals(_KEYS.get, lambda: _BLOCK)
    meters = (Meter.REQUESTS, Meter.TOKENS, Meter.CONCURRENT)
    assert tuple(total_of(RateLimit(kind=kind, name=name, meter=meter)) for meter in meters) == totals
