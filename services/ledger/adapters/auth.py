"""Auth, as the ledger asks it."""

from __future__ import annotations

from datetime import timedelta

from gen.weir.auth.v1 import AuthenticateRequest, Key
from gen.weir.auth.v1.service import AuthClient
from meshkit.errors import Cancelled, KeyInvalid, UpstreamError, UpstreamTimeout


class AuthKeys:
    """Asks Auth about each key (services.ledger.ports.KeyDirectory).

    Args:
        limit: how long an answer may take.
    """

    def __init__(self, client: AuthClient, limit: timedelta) -> None:
        self._client = client
        self._limit = limit

    async def ask(self, request: AuthenticateRequest) -> Key:
        """See the port."""
        try:
            answer = await self._client.authenticate(request, timeout=self._limit)
        except (UpstreamError, UpstreamTimeout, Cancelled) as error:
            raise UpstreamError("the key cannot be checked now: auth does not answer") from error
        if answer.key is None:
            raise KeyInvalid("the key is not known")
        return answer.key
