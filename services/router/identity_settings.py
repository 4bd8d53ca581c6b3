"""How the router guards the way to Auth, and what it does with those whom it refuses."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from meshkit.settings import Strict

Seconds = Annotated[float, Field(gt=0, le=86_400)]
PerSecond = Annotated[float, Field(gt=0, le=100_000)]


class IdentitySettings(Strict):
    """The block `router.identity`."""

    unknown_fresh_s: Seconds = 30.0
    """Unknown keys are refused after so long without a sign of life from Auth; known ones go on, see
    `keyset_max_stale_s`."""
    asks_per_s: PerSecond = 10.0
    """So many unknown keys a second is Auth asked about by each router, and so many unknown JWTs; further ones get a
    429. Apart, so that a flood of keys keeps no token out, nor the other way round."""
    asks_burst: Annotated[int, Field(ge=1, le=100_000)] = 10
    """So many at once after a pause."""
    found_for_s: Seconds = 1.0
    """How long Auth's good answer about a key that this router's copy lacks is remembered."""
    token_for_s: Seconds = 60.0
    """How long Auth's good answer about a JWT is remembered, at most until the token ends."""
    remembered_tokens: Annotated[int, Field(ge=1)] = 10_000
    """How many good answers are remembered."""
    calm_refusals_per_s: PerSecond = 10.0
    """More refused keys than this a second are a flood."""
    flood_answers_per_s: PerSecond = 50.0
    """So many a second are then answered by each router, evenly; the others are held back until it is their turn, and
    whoever waits for an answer sends no further ones meanwhile."""
    held_refusals: Annotated[int, Field(ge=0, le=100_000)] = 2_000
    """How many are held back at once; further ones are answered at once."""
    report_s: Seconds = 5.0
    """How often refusals are reported to the audit."""
    reported_refusals: Annotated[int, Field(ge=1, le=900)] = 100
    """How many kinds of refusal (who, what, from where, why) one report tells apart; those beyond are counted
    together, by why. Auth takes at most 1,000 rows at once."""
