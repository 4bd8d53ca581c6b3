-- One attempt at one target, ended: weir.ledger.v1.Entry, its charge, and when it arrived.
CREATE TABLE entry (
    begun_at            timestamptz NOT NULL,
    entry_id            uuid        NOT NULL,
    request_id          text        NOT NULL,
    attempt             bigint      NOT NULL,
    key_id              text        NOT NULL,
    org                 text        NOT NULL,
    team                text        NOT NULL,
    model_asked         text        NOT NULL,
    target_name         text        NOT NULL,
    target_locality     integer     NOT NULL,
    target_provider     text        NOT NULL,
    target_model        text        NOT NULL,
    target_sandbox      boolean     NOT NULL,
    route_reason        text        NOT NULL,
    outcome             integer     NOT NULL CHECK (outcome > 0),
    error_reason        text        NOT NULL,
    input_tokens        bigint      NOT NULL,
    output_tokens       bigint      NOT NULL,
    cached_input_tokens bigint,
    usage_estimated     boolean     NOT NULL,
    latency_us          bigint,
    first_token_us      bigint,
    cost_nano_usd       bigint,
    price_version       text,
    unpriced            boolean     NOT NULL GENERATED ALWAYS AS (cost_nano_usd IS NULL) STORED,
    recorded_at         timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (begun_at, entry_id),
    CHECK ((price_version IS NULL) = (cost_nano_usd IS NULL))
) PARTITION BY RANGE (begun_at);

COMMENT ON COLUMN entry.begun_at IS 'When the attempt began; with entry_id its key, never altered.';
COMMENT ON COLUMN entry.target_locality IS 'weir.type.v1.Locality: 1 local, 2 cloud.';
COMMENT ON COLUMN entry.outcome IS 'weir.ledger.v1.Outcome: 1 ok, 2 failed, 3 cut, 4 cancelled, 5 aborted.';
COMMENT ON COLUMN entry.cached_input_tokens IS 'Among input_tokens; null where the provider does not say.';
COMMENT ON COLUMN entry.first_token_us IS 'From begin to the first token; null where there was none.';
COMMENT ON COLUMN entry.cost_nano_usd IS '10^-9 US dollars; null where the target has no price.';
COMMENT ON COLUMN entry.price_version IS 'The entry of the price list by which the cost was computed.';

-- Makes the partitions of the days (UTC) that have none yet. Made apart and attached, because CREATE TABLE ...
-- PARTITION OF would wait for every reader of the table, and every writer would wait behind it.
CREATE FUNCTION prepare_days(first_day date, last_day date) RETURNS void
    LANGUAGE plpgsql
    SET timezone TO 'UTC'
AS $$
DECLARE
    day       date;
    partition text;
BEGIN
    -- Several writers meet a new day at once; they take turns. The lock ends with the transaction.
    PERFORM pg_advisory_xact_lock('ledger.entry'::regclass::oid::bigint);
    FOR day IN SELECT generate_series(first_day, last_day, interval '1 day')::date LOOP
        partition := 'entry_' || to_char(day, 'YYYYMMDD');
        CONTINUE WHEN to_regclass('ledger.' || partition) IS NOT NULL;
        EXECUTE format('CREATE TABLE ledger.%I (LIKE ledger.entry INCLUDING ALL)', partition);
        EXECUTE format(
            'ALTER TABLE ledger.entry ATTACH PARTITION ledger.%I FOR VALUES FROM (%L) TO (%L)',
            partition, day::timestamptz, (day + 1)::timestamptz
        );
    END LOOP;
END
$$;
