SET LOCAL lock_timeout = '2s';

-- What was kept of the requests of keys whose sampling an admin switched on: the only place where prompts and answers
-- are stored. Rows go after auth.samples_keep_days.
CREATE TABLE auth.sample (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL CHECK (at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00'),
    request_id text NOT NULL,
    key_id text NOT NULL,
    model text NOT NULL,
    target text NOT NULL,
    prompt text NOT NULL CHECK (octet_length(prompt) <= 65536),
    answer text NOT NULL CHECK (octet_length(answer) <= 65536),
    partial boolean NOT NULL
);

CREATE INDEX sample_of_key ON auth.sample (key_id, id);
CREATE INDEX sample_at ON auth.sample (at);
