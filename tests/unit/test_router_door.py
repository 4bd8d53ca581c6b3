"""The door of the router's RPCs: the audit is told who was refused, as far as the key was recognised."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from gen.weir.auth.v1 import AuditEvent, Key, Scope
from gen.weir.error.v1 import Reason
from gen.weir.type.v1 import Principal
from meshkit.errors import RateLimited, WeirError
from meshkit.inprocess import InProcessContext
from meshkit.telemetry import Logger
from meshkit.tokens import Token, mint
from services.router.ask_auth import AskAuth
from services.router.authenticate import Authenticate
from services.router.door import Door
from services.router.identity_settings import IdentitySettings
from services.router.rates.refusals import OverLimit
from services.router.refusals import Refusals
from tests.fakes.router import FakeClock, FakeKeys

TOKEN = mint(os.urandom)
WHO = Principal(key_id=TOKEN.key_id, org="acme", team="search")
KEY = Key(id=TOKEN.key_id, secret_sha256=TOKEN.secret_sha256, principal=WHO)


class Rig:
    """A door over one key, with the reports that leave it."""

    def __init__(self, key: Key) -> None:
        self.reports: list[AuditEvent] = []
        self.clock = FakeClock()
        settings, minute = IdentitySettings(calm_refusals_per_s=1), timedelta(minutes=1)
        keys = FakeKeys(key)
        ask = AskAuth(keys.ask, self.clock, settings, minute, 2)
        authenticate = Authenticate(keys, ask, self.clock, minute, minute)
        self.refusals = Refusals(self._report, self.clock, settings, Logger("router", fd=-1))
        self.door = Door(authenticate, self.refusals)

    async def _report(self, events: Sequence[AuditEvent]) -> None:
        self.reports += events

    async def try_it(self, token: Token, scope: Scope = Scope.CHAT) -> None:
        """One call that is refused."""
        with pytest.raises(WeirError):
            async with self.door.opened(self.context(token), "/a", scope):
                pytest.fail("it was let in")

    @staticmethod
    def context(token: Token) -> InProcessContext:
        """Of a call with this token."""
        return InProcessContext((("authorization", f"Bearer {token.text}"),), None, "edge")


@pytest.mark.parametrize(
    ("changes", "scope", "reason"),
    [
        ({}, Scope.ADMIN, Reason.FORBIDDEN),
        ({"networks": ["10.0.0.0/8"]}, Scope.CHAT, Reason.FORBIDDEN),
        ({"revoked_at": FakeClock().now()}, Scope.CHAT, Reason.KEY_REVOKED),
        ({"expires_at": FakeClock().now()}, Scope.CHAT, Reason.KEY_EXPIRED),
    ],
    ids=["scope", "network", "revoked", "expired"],
)
async def test_the_audit_knows_whose_good_secret_was_refused(
    changes: dict[str, object], scope: Scope, reason: Reason
) -> None:
    """Whoever looks for what a key tried finds it, a revoked one's too."""
    rig = Rig(replace(KEY, **changes))  # type: ignore[arg-type] # fields of a key, by name
    await rig.try_it(TOKEN, scope)
    await rig.refusals.report()
    assert [(row.who, row.refused) for row in rig.reports] == [(WHO, reason)]


async def test_who_has_no_secret_is_nobody() -> None:
    """A wrong secret for a known id makes no row of its holder's; the id is what was tried."""
    rig = Rig(KEY)
    await rig.try_it(mint(os.urandom, TOKEN.key_id))
    await rig.refusals.report()
    assert [(row.who, row.subject) for row in rig.reports] == [(Principal(), TOKEN.key_id)]


async def test_a_flood_of_a_key_that_ended_is_held_back() -> None:
    """Although it is known whose it was."""
    rig = Rig(replace(KEY, revoked_at=FakeClock().now()))
    for _ in range(10):
        await rig.try_it(TOKEN)
    assert rig.clock.slept


async def test_a_providers_rate_limit_is_no_refusal_of_ours() -> None:
    """Its key did nothing that the audit should know; one that went over a limit of ours did."""
    rig = Rig(KEY)
    for error in (RateLimited("cloud: limits the rate"), OverLimit("the key's limit is used up")):
        with pytest.raises(RateLimited):
            async with rig.door.opened(rig.context(TOKEN), "/a", Scope.CHAT):
                raise error
    await rig.refusals.report()
    assert [(row.refused, row.count) for row in rig.reports] == [(Reason.RATE_LIMITED, 1)]
