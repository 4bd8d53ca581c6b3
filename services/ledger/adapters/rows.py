"""Contract messages <-> rows of ledger.entry."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec

from gen.weir.ledger.v1 import Outcome, UsageRow
from gen.weir.type.v1 import Principal, Usage
from services.ledger.domain.entry import ChargedEntry

_MICROSECOND = timedelta(microseconds=1)


def batch_json(entries: Sequence[ChargedEntry]) -> str:
    """The parameter of statements.INSERT."""
    return msgspec.json.encode([_row(entry) for entry in entries]).decode()


def _row(charged: ChargedEntry) -> dict[str, Any]:
    sound, charge = charged.sound, charged.charge
    entry, principal, target, usage = sound.entry, sound.principal, sound.target, sound.usage
    return {
        "begun_at": sound.begun_at.isoformat(),
        "entry_id": UUID(bytes=entry.entry_id),
        "request_id": entry.request_id,
        "attempt": entry.attempt,
        "key_id": principal.key_id,
        "org": principal.org,
        "team": principal.team,
        "model_asked": entry.model_asked,
        "target_name": target.name,
        "target_locality": int(target.locality),
        "target_provider": target.provider,
        "target_model": target.model,
        "target_sandbox": target.sandbox,
        "route_reason": entry.route_reason,
        "outcome": int(entry.outcome),
        "error_reason": entry.error_reason,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cached_input_tokens": usage.cached_input_tokens,
        "usage_estimated": usage.estimated,
        "latency_us": _micros(entry.latency),
        "first_token_us": _micros(entry.first_token),
        "cost_nano_usd": None if charge is None else charge.nano_usd,
        "price_version": None if charge is None else charge.price_version,
    }


def _micros(span: timedelta | None) -> int | None:
    return None if span is None else span // _MICROSECOND


def usage_row(row: Sequence[Any]) -> UsageRow:
    """One row of statements.USAGE."""
    key_id, org, team, model_asked, target, outcome, attempts, *tokens, estimated, cost, unpriced = row
    input_tokens, output_tokens, cached = tokens
    return UsageRow(
        principal=Principal(key_id=key_id, org=org, team=team),
        model_asked=model_asked,
        target=target,
        outcome=Outcome(outcome),
        attempts=attempts,
        usage=Usage(
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            cached_input_tokens=cached,
            estimated=estimated,
        ),
        cost_nano_usd=cost,
        unpriced_attempts=unpriced,
    )
