SET LOCAL lock_timeout = '2s';

-- Free labels as a JSON object: at most 20 texts of at most 200 characters.
CREATE FUNCTION auth.are_labels(labels jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE SET search_path = '' AS $$
    SELECT CASE WHEN jsonb_typeof(labels) = 'object' THEN (
        SELECT count(*) <= 20 AND coalesce(bool_and(
            name COLLATE "C" ~ '^[a-z0-9._/-]{1,63}$'
            AND jsonb_typeof(value) = 'string' AND char_length(value #>> '{}') <= 200
        ), true)
        FROM jsonb_each(labels) AS label (name, value)
    ) ELSE false END
$$;

-- Up to 50 networks, none of them NULL.
CREATE FUNCTION auth.are_networks(networks cidr[]) RETURNS boolean LANGUAGE sql IMMUTABLE SET search_path = '' AS $$
    SELECT cardinality(networks) <= 50
        AND coalesce(array_ndims(networks) = 1, true)
        AND array_position(networks, NULL) IS NULL
$$;

-- At least one of the known scopes: on the wire none at all would mean chat and embed.
CREATE FUNCTION auth.are_scopes(scopes text[]) RETURNS boolean LANGUAGE sql IMMUTABLE SET search_path = '' AS $$
    SELECT cardinality(scopes) BETWEEN 1 AND 5
        AND array_ndims(scopes) = 1
        AND scopes <@ ARRAY['chat', 'embed', 'usage:read', 'keys:write', 'admin']
$$;

-- Whose a key is, where from, what for and how much. With defaults, so that an auth process of the former release goes
-- on adding keys; they may do what keys could do until now.
ALTER TABLE auth.key
    ADD COLUMN owner text NOT NULL DEFAULT '' CHECK (char_length(owner) <= 100),
    ADD COLUMN labels jsonb NOT NULL DEFAULT '{}' CHECK (auth.are_labels(labels)),
    ADD COLUMN networks cidr[] NOT NULL DEFAULT '{}' CHECK (auth.are_networks(networks)),
    ADD COLUMN scopes text[] NOT NULL DEFAULT '{chat,embed}' CHECK (auth.are_scopes(scopes)),
    -- Its own limits: all four NULL where it has none; else 0, or NULL beside others, is without limit.
    ADD COLUMN requests_per_minute bigint CHECK (requests_per_minute BETWEEN 0 AND 1000000000000),
    ADD COLUMN tokens_per_minute bigint CHECK (tokens_per_minute BETWEEN 0 AND 1000000000000),
    ADD COLUMN concurrent_requests bigint CHECK (concurrent_requests BETWEEN 0 AND 1000000000000),
    ADD COLUMN context_tokens bigint CHECK (context_tokens BETWEEN 0 AND 1000000000000),
    -- The former secret's digest, and until when it is good beside the present one.
    ADD COLUMN previous_sha256 bytea CHECK (octet_length(previous_sha256) = 32),
    ADD COLUMN previous_until timestamptz
        CHECK (previous_until BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00'),
    -- The share of its requests that is kept. NaN is above 1 to PostgreSQL.
    ADD COLUMN sampling double precision NOT NULL DEFAULT 0 CHECK (sampling BETWEEN 0 AND 1),
    ADD CONSTRAINT key_previous_secret_ends CHECK ((previous_sha256 IS NULL) = (previous_until IS NULL));

-- For lists, newest first.
CREATE INDEX key_created_at ON auth.key (created_at DESC, id DESC);
