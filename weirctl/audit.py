"""`weir audit`: who administered what, and which requests were refused."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import msgspec

from gen.rpc import Metadata, Transport
from gen.weir.auth.v1 import AuditEvent, ListAuditRequest
from gen.weir.auth.v1.service import AuthClient
from gen.weir.error.v1 import Reason
from gen.weir.type.v1 import Principal
from meshkit.errors import shown as one_line
from weirctl import pages, spans, table
from weirctl.admin_calls import administer
from weirctl.command_failed import WRONG_USE, CommandFailed

_HEADING = ("WHEN", "WHO", "ACTION", "SUBJECT", "FROM", "OUTCOME", "COUNT", "DETAIL")
_RIGHT = frozenset({6})
_LONGEST_CELL = 60
_LONGEST_DETAIL = 300
_LIMIT = timedelta(seconds=10)


def run(arguments: argparse.Namespace) -> int:
    """Prints the rows, newest first."""
    try:
        since = None if arguments.since is None else spans.since(arguments.since)
    except ValueError as error:
        raise CommandFailed(f"--since {error}", WRONG_USE) from None

    async def ask(transport: Transport, metadata: Metadata) -> Sequence[AuditEvent]:
        async def page(size: int, token: str) -> tuple[Sequence[AuditEvent], str]:
            request = ListAuditRequest(
                since=since,
                key_id=arguments.key,
                refused=arguments.refused,
                page_size=size,
                page_token=token,
            )
            answer = await AuthClient(transport).list_audit(request, timeout=_LIMIT, metadata=metadata)
            return answer.events, answer.next_page_token

        return await pages.up_to(arguments.limit, page)

    print(report(administer("auth", ask), as_json=arguments.json))
    return 0


def report(events: Sequence[AuditEvent], *, as_json: bool) -> str:
    """The table, or the same as JSON."""
    if as_json:
        return msgspec.json.format(msgspec.json.encode([_document(event) for event in events])).decode()
    return (
        table.render(_HEADING, [_row(event) for event in events], right=_RIGHT) if events else "Nothing yet."
    )


def _row(event: AuditEvent) -> tuple[str, ...]:
    who = Principal() if event.who is None else event.who
    cells = (
        spans.shown(event.at),
        " ".join(filter(None, (who.key_id, _team(who)))) or "-",
        event.action,
        event.subject or "-",
        " ".join(filter(None, (event.peer, event.address))) or "-",
        _outcome(event),
        str(event.count),
    )
    return (
        *(one_line(cell, _LONGEST_CELL) for cell in cells),
        one_line(event.detail, _LONGEST_DETAIL) or "-",
    )


def _document(event: AuditEvent) -> dict[str, Any]:
    who = Principal() if event.who is None else event.who
    return {
        "id": event.id,
        "at": None if event.at is None else event.at.isoformat(timespec="milliseconds"),
        "key_id": who.key_id,
        "org": who.org,
        "team": who.team,
        "action": event.action,
        "subject": event.subject,
        "address": event.address,
        "peer": event.peer,
        "outcome": _outcome(event),
        "count": event.count,
        "detail": event.detail,
    }


def _outcome(event: AuditEvent) -> str:
    """`done`, or the reason of the refusal."""
    if not event.refused:
        return "done"
    return (Reason(event.refused).name or str(int(event.refused))).lower()


def _team(who: Principal) -> str:
    return f"{who.org}/{who.team}" if who.org or who.team else ""
