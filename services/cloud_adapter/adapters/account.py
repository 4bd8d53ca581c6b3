"""What a provider is shown of Weir: one of its keys for each request."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta

from services.cloud_adapter.adapters.secret import Credential
from services.cloud_adapter.domain.key_ring import KeyRing

Headers = Mapping[str, str]


class Account:
    """The credentials of one provider.

    Args:
        credentials: at least one.
        ring: chooses among them, by their places.
        headers: the headers that show a secret; asked again only when the secret changes.
        rests: told when a credential is sent to rest: its place, the status of HTTP that it was answered with, and
            for how long.
    """

    def __init__(
        self,
        credentials: Sequence[Credential],
        ring: KeyRing,
        headers: Callable[[str], Headers],
        rests: Callable[[int, int, timedelta], None],
    ) -> None:
        self._credentials = tuple(credentials)
        self._ring = ring
        self._headers = headers
        self._rests = rests
        self._made: dict[int, tuple[str, Headers]] = {}

    def choose(self) -> tuple[int, Headers]:
        """The place of the credential to use now, and its headers."""
        place = self._ring.choose()
        secret = self._credentials[place].current()
        made = self._made.get(place)
        if made is None or made[0] != secret:
            made = self._made[place] = (secret, self._headers(secret))
        return place, made[1]

    def refused(self, place: int, status: int, retry_after: timedelta | None) -> bool:
        """The provider answered this credential with `status`, which is no success.

        True if that was the credential's doing and another one can be used at once.
        """
        rest = self._ring.refused(place, status, retry_after)
        if rest is None:
            return False
        self._rests(place, status, rest)
        return self._ring.awake()

    def known(self) -> list[str]:
        """Every secret that the provider may quote."""
        return [secret for credential in self._credentials for secret in credential.known()]
