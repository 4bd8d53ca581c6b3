"""The SQL of the store.

A batch travels as one JSON parameter: one statement, one round trip, and by measurement (batches of 500) the least CPU
on both sides together; an array for each column takes four times the Python, COPY three round trips.
"""

from __future__ import annotations

from typing import Final, LiteralString

INSERT: Final[LiteralString] = """
    INSERT INTO ledger.entry (
        begun_at, entry_id, request_id, attempt, key_id, org, team, model_asked,
        target_name, target_locality, target_provider, target_model, target_sandbox, route_reason,
        outcome, error_reason, input_tokens, output_tokens, cached_input_tokens, usage_estimated,
        latency_us, first_token_us, cost_nano_usd, price_version
    )
    SELECT * FROM json_to_recordset(%s::json) AS batch (
        begun_at timestamptz, entry_id uuid, request_id text, attempt bigint, key_id text, org text, team text,
        model_asked text, target_name text, target_locality integer, target_provider text, target_model text,
        target_sandbox boolean, route_reason text, outcome integer, error_reason text, input_tokens bigint,
        output_tokens bigint, cached_input_tokens bigint, usage_estimated boolean, latency_us bigint,
        first_token_us bigint, cost_nano_usd bigint, price_version text
    )
    -- In one order, so that two senders of the same entries wait for each other and never both for ever.
    ORDER BY begun_at, entry_id
    ON CONFLICT (begun_at, entry_id) DO NOTHING
"""

PREPARE_DAYS: Final[LiteralString] = "SELECT ledger.prepare_days(%s, %s)"

_SUMS: Final[LiteralString] = """
    SELECT key_id, org, team, model_asked, target_name, outcome,
           count(*), sum(input_tokens)::bigint, sum(output_tokens)::bigint, sum(cached_input_tokens)::bigint,
           bool_or(usage_estimated), coalesce(sum(cost_nano_usd), 0)::bigint AS cost,
           count(*) FILTER (WHERE unpriced)
    FROM ledger.entry
    WHERE begun_at >= coalesce(%(since)s, '-infinity'::timestamptz) AND begun_at < %(until)s
"""
_BY_COST: Final[LiteralString] = """
    GROUP BY key_id, org, team, model_asked, target_name, outcome
    ORDER BY cost DESC, key_id COLLATE "C", org COLLATE "C", team COLLATE "C", model_asked COLLATE "C",
             target_name COLLATE "C", outcome
"""

USAGE_OF_ALL: Final[LiteralString] = _SUMS + _BY_COST

USAGE_OF_TEAM: Final[LiteralString] = f"{_SUMS} AND org = %(org)s AND team = %(team)s {_BY_COST}"
