"""Auth's knobs: the `auth:` block of weir.yaml, beside what every process of the mesh knows."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from pydantic import Field

from meshkit.settings import MeshSettings, Strict


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


class AuthSettings(MeshSettings):
    """What an auth process knows."""

    auth: AuthBlock = AuthBlock()
