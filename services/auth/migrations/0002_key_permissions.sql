-- Whoever waits for this lock holds up every reader behind it: better to fail soon and be started again.
SET LOCAL lock_timeout = '2s';

-- Up to 100 shell patterns, each 1 to 128 printable ASCII characters without spaces. In the database too, because a
-- change made by hand reaches the routers like any other.
CREATE FUNCTION auth.are_patterns(patterns text[]) RETURNS boolean LANGUAGE sql IMMUTABLE SET search_path = '' AS $$
    SELECT cardinality(patterns) <= 100
        AND coalesce(array_ndims(patterns) = 1, true)
        AND NOT EXISTS (
            SELECT FROM unnest(patterns) AS pattern
            WHERE pattern IS NULL OR pattern COLLATE "C" !~ '^[!-~]{1,128}$'
        )
$$;

-- What a key may ask for, and what may answer it; empty means everything, as it was before. With defaults, so that an
-- auth process of the former release goes on adding keys.
ALTER TABLE auth.key
    ADD COLUMN models text[] NOT NULL DEFAULT '{}' CHECK (auth.are_patterns(models)),
    ADD COLUMN targets text[] NOT NULL DEFAULT '{}' CHECK (auth.are_patterns(targets));
