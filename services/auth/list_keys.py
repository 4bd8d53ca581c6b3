"""ListKeys: keys, newest first."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from gen.weir.auth.v1 import Key, ListKeysRequest, ListKeysResponse
from gen.weir.type.v1 import Principal
from services.auth import paging, reach
from services.auth.domain.admin import Admin
from services.auth.domain.audit import KEYS_LIST, done
from services.auth.domain.pages import KeyPlace, KeyQuery
from services.auth.ports import AuditLog, Clock, KeyStore

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_PLACE: Final = re.compile(r"key:(-?[0-9]{1,18}):([!-~]{1,100})")


class ListKeys:
    """Shows keys without their digests."""

    def __init__(self, store: KeyStore, audit: AuditLog, now: Clock) -> None:
        self._store = store
        self._audit = audit
        self._now = now

    async def __call__(self, request: ListKeysRequest, admin: Admin) -> ListKeysResponse:
        """A page. One with keys:write alone gets the keys of its own team.

        Raises InvalidRequest for a page that is none; Forbidden where another team's keys are asked for.
        """
        reach.need_administrator(admin)
        now, most = self._now(), paging.size(request.page_size)
        org, team = _asked(request, admin)
        keys = await self._store.page(
            KeyQuery(
                most=most + 1,
                org=org,
                team=team,
                living_at=None if request.ended else now,
                after=_place(request.page_token),
            )
        )
        await self._audit.add([done(admin, KEYS_LIST, "", now, f"org {org or 'all'}, team {team or 'all'}")])
        shown = keys[:most]
        return ListKeysResponse(
            keys=[reach.shown(key) for key in shown],
            next_page_token=_token(shown[-1]) if len(keys) > most else "",
        )


def _asked(request: ListKeysRequest, admin: Admin) -> tuple[str, str]:
    """Org and team."""
    if admin.is_admin:
        return request.org, request.team
    mine = admin.principal
    asked = Principal(org=request.org or mine.org, team=request.team or mine.team)
    reach.check_team(admin, asked)
    return asked.org, asked.team


def _token(key: Key) -> str:
    moment = _EPOCH if key.created_at is None else key.created_at
    return paging.token(f"key:{(moment - _EPOCH) // _MICROSECOND}:{key.id}")


def _place(page_token: str) -> KeyPlace | None:
    if not page_token:
        return None
    match = paging.place(page_token, _PLACE)
    try:
        return KeyPlace(_EPOCH + int(match[1]) * _MICROSECOND, match[2])
    except OverflowError:
        raise paging.bad_token() from None
