"""Who gets how much where holders want more than there is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple


class Claim(NamedTuple):
    """What one holder wants on top of what it lately got."""

    wanted: int
    recent: float


def fair_part(free: int, mine: Claim, others: Sequence[Claim]) -> int:
    """How many of the free units are for `mine`; the rest waits for the others, who will ask soon.

    Unit by unit goes to whoever has the least, counting what it lately got: two who want without end get the same over
    time, whichever asks more often or at the better moment, and who wants little gets that before others get more.
    """
    if free <= 0 or mine.wanted <= 0:
        return 0
    claims = [mine, *(claim for claim in others if claim.wanted > 0)]
    if sum(claim.wanted for claim in claims) <= free:
        return mine.wanted
    level = _level(free, claims)
    parts = [min(claim.wanted, max(0, math.floor(level - claim.recent))) for claim in claims]
    spare = free - sum(parts)
    unmet = [index for index, claim in enumerate(claims) if claim.wanted > parts[index]]
    unmet.sort(
        key=lambda index: claims[index].recent + parts[index]
    )  # stable: of equals, who asks comes first
    return min(free, parts[0] + (0 in unmet[: max(0, spare)]))


def _level(free: int, claims: Sequence[Claim]) -> float:
    """Up to where they can be filled, each from its `recent` on; together they want more than there is."""
    turns = sorted(
        turn for claim in claims for turn in ((claim.recent, 1), (claim.recent + claim.wanted, -1))
    )
    filled, filling, level = 0.0, 0, turns[0][0]
    for turn, step in turns:
        rise = filling * (turn - level)
        if filling and filled + rise >= free:
            return level + (free - filled) / filling
        filled, filling, level = filled + rise, filling + step, turn
    return level
