"""`weir usage`: what was used and what it cost, as the ledger sums it."""

from __future__ import annotations

import argparse
from datetime import timedelta

from gen.rpc import Metadata, Transport
from gen.weir.ledger.v1 import Outcome, UsageRequest, UsageResponse, UsageRow
from gen.weir.ledger.v1.service import LedgerClient
from gen.weir.type.v1 import Principal, Usage
from weirctl import spans, table
from weirctl.admin_calls import administer
from weirctl.command_failed import WRONG_USE, CommandFailed

_HEADING = ("TEAM", "KEY", "MODEL", "TARGET", "OUTCOME", "ATTEMPTS", "IN", "OUT", "COST USD")
_RIGHT = frozenset({5, 6, 7, 8})
_LIMIT = timedelta(seconds=15)
_NANO = 1_000_000_000


def run(arguments: argparse.Namespace) -> int:
    """Prints the table."""
    try:
        begin = None if arguments.since is None else spans.since(arguments.since)
    except ValueError as error:
        raise CommandFailed(f"--since {error}", WRONG_USE) from None

    async def ask(transport: Transport, metadata: Metadata) -> UsageResponse:
        request = UsageRequest(since=begin)
        return await LedgerClient(transport).usage(request, timeout=_LIMIT, metadata=metadata)

    print(report(administer("ledger", ask)))
    return 0


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
