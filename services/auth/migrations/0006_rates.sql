-- How much of each limit is used and held. Unlogged: a clean restart of PostgreSQL keeps the counts, a crash empties
-- them, and the limits begin anew. What counts leaves after a minute in any case.
CREATE UNLOGGED TABLE auth.rate_limit (
    -- `<kind>/<meter>/<name>`; locked in this order, so that no two calls wait for each other.
    id text COLLATE "C" PRIMARY KEY,
    -- Written by services/auth/adapters/postgres_rates.py; all times are seconds since 1970.
    state text NOT NULL,
    -- From then on the row is as good as none.
    void_at timestamptz NOT NULL
) WITH (fillfactor = 50);

CREATE UNLOGGED TABLE auth.rate_holder (
    holder text COLLATE "C" PRIMARY KEY,
    heard_at timestamptz NOT NULL,
    -- What it named the last time.
    limits text[] NOT NULL
) WITH (fillfactor = 50);
