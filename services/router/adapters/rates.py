"""Asks Auth for slices of limits."""

from __future__ import annotations

from datetime import timedelta

from gen.weir.auth.v1 import LeaseRateRequest, LeaseRateResponse
from gen.weir.auth.v1.service import AuthClient


class AuthRates:
    """Auth/LeaseRate (services.router.ports.RateAuthority).

    Args:
        limit: how long Auth may take.
    """

    def __init__(self, client: AuthClient, limit: timedelta) -> None:
        self._client = client
        self._limit = limit

    async def lease(self, request: LeaseRateRequest) -> LeaseRateResponse:
        """Asks once. Raises UpstreamError and its kin where Auth does not answer."""
        return await self._client.lease_rate(request, timeout=self._limit)
