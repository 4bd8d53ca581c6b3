"""`weir usage`: what was used and what it cost, as the ledger sums it."""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from gen.weir.ledger.v1 import Outcome, UsageRequest, UsageResponse, UsageRow
from gen.weir.ledger.v1.service import LedgerClient
from gen.weir.type.v1 import Principal, Usage
from meshkit.errors import WeirError
from weirctl import table
from weirctl.config import home_of
from weirctl.mesh_clients import NotUp, transport_to

_HEADING = ("TEAM", "KEY", "MODEL", "TARGET", "OUTCOME", "ATTEMPTS", "IN", "OUT", "COST USD")
_RIGHT = frozenset({5, 6, 7, 8})
_LIMIT = timedelta(seconds=15)
_AGO = re.compile(r"(?P<count>\d{1,6})(?P<unit>[mhd])")
_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
_NANO = 1_000_000_000
_FAILED, _WRONG_USE = 1, 2


def run(arguments: argparse.Namespace) -> int:
    """Prints the table."""
    try:
        begin = None if arguments.since is None else since(arguments.since)
    except ValueError:
        sys.stderr.write(f"--since {arguments.since}: write 30m, 24h, 7d, or a date or time in ISO 8601\n")
        return _WRONG_USE
    try:
        answer = asyncio.run(_ask(home_of(os.environ), UsageRequest(since=begin)))
    except (NotUp, WeirError) as error:
        sys.stderr.write(f"{error}\n")
        return _FAILED
    print(report(answer))
    return 0


async def _ask(home: Path, request: UsageRequest) -> UsageResponse:
    async with transport_to("ledger", home) as transport:
        return await LedgerClient(transport).usage(request, timeout=_LIMIT)


def since(text: str) -> datetime:
    """`30m`, `24h`, `7d` before now, or a date or time in ISO 8601 (UTC if it names no zone). Raises ValueError."""
    if ago := _AGO.fullmatch(text):
        return datetime.now(UTC) - int(ago["count"]) * _UNITS[ago["unit"]]
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def report(answer: UsageResponse) -> str:
    """The table, a sum below it, and what the numbers leave out."""
    if not answer.rows:
        return "Nothing was used."
    total = sum(row.cost_nano_usd for row in answer.rows)
    lines = [table.render(_HEADING, [_row(row) for row in answer.rows], right=_RIGHT)]
    lines.append(f"\nTotal: {dollars(total)} USD")
    if unpriced := sum(row.unpriced_attempts for row in answer.rows):
        lines.append(f"{unpriced} attempts went to targets that have no price, and add nothing to it.")
    if any(row.usage and row.usage.estimated for row in answer.rows):
        lines.append("~ marks counts of tokens that are estimates, because the target reported none.")
    return "\n".join(lines)


def dollars(nano_usd: int) -> str:
    """The amount, exact to the last digit."""
    whole, rest = divmod(abs(nano_usd), _NANO)
    return f"{'-' if nano_usd < 0 else ''}{whole}.{rest:09d}"


def _row(row: UsageRow) -> tuple[str, ...]:
    principal, usage = row.principal or Principal(), row.usage or Usage()
    mark = "~" if usage.estimated else ""
    return (
        f"{principal.org}/{principal.team}",
        principal.key_id,
        row.model_asked,
        row.target,
        (Outcome(row.outcome).name or str(int(row.outcome))).lower(),
        str(row.attempts),
        f"{mark}{usage.input_tokens}",
        f"{mark}{usage.output_tokens}",
        "no price" if row.unpriced_attempts == row.attempts else dollars(row.cost_nano_usd),
    )
