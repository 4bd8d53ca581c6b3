"""Says whose token this is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gen.weir.auth.v1 import Key
from meshkit.errors import KeyInvalid, WeirError
from services.auth.jwt.claims import Rules, checked
from services.auth.jwt.compact import Compact, take_apart
from services.auth.jwt.grants import Grants
from services.auth.jwt.issuer_keys import IssuerKeys
from services.auth.jwt.metrics import TokenMetrics
from services.auth.jwt.public_keys import verified
from services.auth.ports import Clock


@dataclass(frozen=True, slots=True)
class Issuer:
    """One issuer, ready for its tokens."""

    name: str
    keys: IssuerKeys
    rules: Rules
    grants: Grants


class AuthenticateJwt:
    """Verifies tokens of the configured issuers; a token chooses among these and their keys, and nothing else.

    Lifetime: `start` in the event loop that asks; `stop` ends the fetching of keys.

    Args:
        issuers: by the claim `iss`.
        max_bytes: of a token.
    """

    def __init__(
        self, issuers: Mapping[str, Issuer], max_bytes: int, now: Clock, metrics: TokenMetrics
    ) -> None:
        self._issuers = issuers
        self._max_bytes = max_bytes
        self._now = now
        self._metrics = metrics

    def start(self) -> None:
        """Begins to fetch the issuers' keys."""
        for issuer in self._issuers.values():
            issuer.keys.start()

    async def stop(self) -> None:
        """Ends that."""
        for issuer in self._issuers.values():
            await issuer.keys.stop()

    async def __call__(self, text: str) -> Key:
        """The key of the token's holder.

        Raises KeyExpired after the token's end, Forbidden where no scope is its holder's, UpstreamError while its
        issuer's keys are not at hand, else KeyInvalid. No message repeats anything of the token, and only who has a
        genuine one is told more than that it is not.
        """
        name = ""
        try:
            token = self._take_apart(text)
            issuer = self._issuer_of(token)
            name = issuer.name
            key = await self._key(token, issuer)
        except WeirError as error:
            self._metrics.looked_at(name, error.reason.name.lower() if error.reason.name else "")
            raise
        self._metrics.looked_at(name, "accepted")
        return key

    def _take_apart(self, text: str) -> Compact:
        if not self._issuers:
            raise KeyInvalid("no issuer of tokens is configured here")
        return take_apart(text, self._max_bytes)

    def _issuer_of(self, token: Compact) -> Issuer:
        claimed = token.claims.get("iss")
        issuer = self._issuers.get(claimed) if isinstance(claimed, str) else None
        if issuer is None:
            raise KeyInvalid("the token's issuer is not configured here")
        return issuer

    async def _key(self, token: Compact, issuer: Issuer) -> Key:
        key = await issuer.keys.find(token)
        if key is None:
            raise KeyInvalid("the token's issuer publishes no such key for the token's algorithm")
        if not verified(token, key):
            raise KeyInvalid("the token's signature is not its issuer's")
        return issuer.grants.key_of(checked(token.claims, issuer.rules, self._now()), token.claims)
