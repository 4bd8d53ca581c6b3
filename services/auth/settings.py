"""Auth's knobs: the `auth:` block of weir.yaml, beside what every process of the mesh knows."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import Field, model_validator

from meshkit.limit_settings import LimitsBlock
from meshkit.settings import MeshSettings, Strict
from services.auth.check_settings import CheckSettings
from services.auth.jwt.settings import IssuerName, IssuerSettings, JwtBlock, check_issuers

LIVE: Final = frozenset({"auth.limits"})
"""What a running Auth takes over when weir.yaml changes; everything else needs a restart."""


class AuthBlock(Strict):
    """The `auth:` block."""

    heartbeat_s: Annotated[float, Field(gt=0, le=10)] = 1.0
    """Seconds without a change after which watchers get a sign of life. Routers call their copy stale after 30."""
    poll_s: Annotated[float, Field(gt=0, le=10)] = 0.5
    """Seconds between readings of the store when no notification comes: the safety net, and the proof of freshness.
    Best below heartbeat_s; a heartbeat needs a reading since the last event."""
    store_timeout_s: Annotated[float, Field(gt=0, le=60)] = 2.0
    """Seconds after which one use of the store is given up."""
    load_timeout_s: Annotated[float, Field(gt=0, le=600)] = 30.0
    """The same for a reading of the whole key set, at start and after an outage (about 10 us a key)."""
    pool_size: Annotated[int, Field(ge=1, le=100)] = 4
    """Connections to PostgreSQL at most, besides the follower's own."""
    admin_key_file: Path | None = None
    """The file with the first admin key's token; absent means `admin-key` in the state folder."""
    audit_keep_days: Annotated[int, Field(ge=1, le=36_500)] = 400
    """Days after which a row of the audit ends."""
    samples_keep_days: Annotated[int, Field(ge=1, le=365)] = 7
    """Days after which a kept prompt and its answer end (`weir keys sample`)."""
    audit_refusals_per_minute: Annotated[int, Field(ge=1, le=100_000)] = 60
    """Rows of refused administrative calls that one process writes at most; the others are counted in the next one."""
    limits: LimitsBlock = LimitsBlock()
    """How much each key, team, org and model may do."""
    rate_lease_s: Annotated[float, Field(ge=1, le=60)] = 10.0
    """Seconds that a router may be silent before all that it holds of limits counts as used."""
    rate_retry_s: Annotated[float, Field(ge=0.01, le=10)] = 0.2
    """Seconds after which to ask again where a limit is full and nobody knows when it will not be."""
    rate_sweep_s: Annotated[float, Field(gt=0, le=3_600)] = 60.0
    """Seconds between removals of counts that nobody needs any more."""
    rate_pool_size: Annotated[int, Field(ge=1, le=100)] = 4
    """Connections to PostgreSQL at most for counting, besides pool_size."""
    checks: CheckSettings = CheckSettings()
    """How requests to other services behind the gateway are checked."""
    issuers: Annotated[dict[IssuerName, IssuerSettings], Field(max_length=50)] = Field(default_factory=dict)
    """By a name of yours: OIDC issuers whose JWTs are taken like keys."""
    jwt: JwtBlock = JwtBlock()
    """What holds for the tokens and keys of every issuer."""

    @model_validator(mode="after")
    def _issuers_differ(self) -> Self:
        check_issuers(self.issuers)
        return self

    @property
    def audit_keep(self) -> timedelta:
        """See audit_keep_days."""
        return timedelta(days=self.audit_keep_days)

    @property
    def samples_keep(self) -> timedelta:
        """See samples_keep_days."""
        return timedelta(days=self.samples_keep_days)

    @property
    def heartbeat(self) -> timedelta:
        """See heartbeat_s."""
        return timedelta(seconds=self.heartbeat_s)

    @property
    def poll(self) -> timedelta:
        """See poll_s."""
        return timedelta(seconds=self.poll_s)

    @property
    def store_timeout(self) -> timedelta:
        """See store_timeout_s."""
        return timedelta(seconds=self.store_timeout_s)

    @property
    def load_timeout(self) -> timedelta:
        """See load_timeout_s."""
        return timedelta(seconds=self.load_timeout_s)

    @property
    def rate_lease(self) -> timedelta:
        """See rate_lease_s."""
        return timedelta(seconds=self.rate_lease_s)

    @property
    def rate_retry(self) -> timedelta:
        """See rate_retry_s."""
        return timedelta(seconds=self.rate_retry_s)

    @property
    def rate_sweep(self) -> timedelta:
        """See rate_sweep_s."""
        return timedelta(seconds=self.rate_sweep_s)


class AuthSettings(MeshSettings):
    """What an auth process knows."""

    auth: AuthBlock = AuthBlock()

    @property
    def admin_key_file(self) -> Path:
        """Where the first admin key is kept."""
        return self.auth.admin_key_file or self.home / "admin-key"
