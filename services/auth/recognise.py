"""Says who asks, from the key set in memory; the store is asked only about keys that it lacks, and seldom."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from datetime import timedelta

from gen.weir.auth.v1 import AuthenticateRequest, Key
from meshkit.bearer import looks_like_jwt
from meshkit.errors import KeyInvalid, RateLimited
from meshkit.tokens import Token, from_authorization
from services.auth.check_settings import CheckSettings
from services.auth.domain.key_use import check_alive, is_opened_by
from services.auth.live_key_set import LiveKeySet
from services.auth.ports import Clock

_BEARER = "bearer"
_A_SECOND = timedelta(seconds=1)


class Recognise:
    """Tells the key of an Authorization header.

    Args:
        live: the key set in memory.
        authenticate: asks the store about a key, and knows JWTs. Raises KeyInvalid and its kin, UpstreamError.
        monotonic: seconds on a clock that never goes back.
    """

    def __init__(
        self,
        live: LiveKeySet,
        authenticate: Callable[[AuthenticateRequest], Awaitable[Key]],
        now: Clock,
        monotonic: Callable[[], float],
        settings: CheckSettings,
    ) -> None:
        self._live = live
        self._authenticate = authenticate
        self._now = now
        self._monotonic = monotonic
        self._settings = settings
        self._refused: OrderedDict[tuple[str, bytes], float] = OrderedDict()
        self._lookups_left = float(settings.lookups_burst)
        self._counted_at_s = monotonic()

    async def __call__(self, authorization: str | None, max_stale_s: float) -> Key:
        """The key, good at this moment.

        Args:
            authorization: the header's value.
            max_stale_s: how old the last reading of the store may be, in seconds.

        Raises KeyMissing, KeyInvalid, KeyExpired, KeyRevoked; RateLimited or UpstreamError where it takes a look-up.
        """
        scheme, _, text = (authorization or "").strip().partition(" ")
        if scheme.lower() == _BEARER and looks_like_jwt(text.strip()):
            return await self._authenticate(AuthenticateRequest(jwt=text.strip()))
        token = from_authorization(authorization)
        key = self._live.keys.find(token.key_id)
        fresh = self._live.age_s <= max_stale_s
        if not fresh or key is None or not is_opened_by(key, token.secret_sha256, self._now()):
            key = await self._look_up(token)
        check_alive(key, self._now())
        return key

    async def _look_up(self, token: Token) -> Key:
        asked = (token.key_id, token.secret_sha256)
        if self._refused.get(asked, float("-inf")) > self._monotonic():
            raise KeyInvalid("the key is not known")
        self._take_one()
        try:
            return await self._authenticate(AuthenticateRequest(key_id=asked[0], secret_sha256=asked[1]))
        except KeyInvalid:
            self._refused[asked] = self._monotonic() + self._settings.refused_for_s
            self._refused.move_to_end(asked)
            while len(self._refused) > self._settings.remembered_refusals:
                self._refused.popitem(last=False)
            raise

    def _take_one(self) -> None:
        """Counts a look-up. Raises RateLimited where there were too many."""
        now_s = self._monotonic()
        back = (now_s - self._counted_at_s) * self._settings.lookups_per_s
        self._lookups_left = min(float(self._settings.lookups_burst), self._lookups_left + back)
        self._counted_at_s = now_s
        if self._lookups_left < 1:
            raise RateLimited(
                "too many unknown keys are being tried; this one was not checked", retry_after=_A_SECOND
            )
        self._lookups_left -= 1
