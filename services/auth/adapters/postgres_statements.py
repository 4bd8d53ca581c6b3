"""What is said to PostgreSQL about keys."""

from __future__ import annotations

from typing import Final

from psycopg import sql

COLUMNS: Final = sql.SQL("""
    id, secret_sha256, org, team, label,
    (extract(epoch FROM created_at) * 1000000)::bigint AS created_us,
    (extract(epoch FROM expires_at) * 1000000)::bigint AS expires_us,
    (extract(epoch FROM revoked_at) * 1000000)::bigint AS revoked_us,
    nullif(models, '{{}}') AS models, nullif(targets, '{{}}') AS targets,
    owner, nullif(labels, '{{}}') AS labels, nullif(networks, '{{}}')::text[] AS networks, scopes::text AS scopes,
    requests_per_minute, tokens_per_minute, concurrent_requests, context_tokens,
    previous_sha256, (extract(epoch FROM previous_until) * 1000000)::bigint AS previous_us, sampling
""").format()
"""What `postgres_key_rows.packed` reads, in its order: in the forms that cost it least, for there may be 100,000."""

ADD: Final = """
INSERT INTO auth.key (
    id, secret_sha256, org, team, label, created_at, expires_at, revoked_at, models, targets,
    owner, labels, networks, scopes,
    requests_per_minute, tokens_per_minute, concurrent_requests, context_tokens,
    previous_sha256, previous_until, sampling
) VALUES (
    %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s::text[]::cidr[], %s, %s, %s, %s, %s, %s, %s, %s
)
"""
FIND: Final = sql.SQL("SELECT {} FROM auth.key WHERE id = %s").format(COLUMNS)
PAGE: Final = sql.SQL("""
SELECT {} FROM auth.key
WHERE (%(org)s::text = '' OR org = %(org)s)
    AND (%(team)s::text = '' OR team = %(team)s)
    AND (%(living_at)s::timestamptz IS NULL
        OR (revoked_at IS NULL AND (expires_at IS NULL OR expires_at > %(living_at)s)))
    AND (%(after_id)s::text IS NULL OR (created_at, id) < (%(after_created_at)s::timestamptz, %(after_id)s))
ORDER BY created_at DESC, id DESC LIMIT %(most)s
""").format(COLUMNS)
# Each change is one statement: what it reads of the key is what it finds after it waited for others that change it.
ROTATE: Final = sql.SQL("""
UPDATE auth.key SET
    previous_sha256 = CASE WHEN %(previous_until)s::timestamptz IS NOT NULL THEN secret_sha256 END,
    previous_until = %(previous_until)s,
    secret_sha256 = %(sha256)s
WHERE id = %(id)s AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > %(at)s)
RETURNING {}
""").format(COLUMNS)
REVOKE: Final = sql.SQL(
    "UPDATE auth.key SET revoked_at = %(at)s WHERE id = %(id)s AND revoked_at IS NULL RETURNING {}"
).format(COLUMNS)
SAMPLE: Final = sql.SQL("UPDATE auth.key SET sampling = %(share)s WHERE id = %(id)s RETURNING {}").format(
    COLUMNS
)
HAS_ADMIN: Final = sql.SQL("""
SELECT EXISTS (
    SELECT FROM auth.key
    WHERE 'admin' = ANY (scopes) AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > %s)
)
""")
# One statement, so that the version and the keys are of the same moment; one row without a key if none changed.
READ: Final = sql.SQL("""
SELECT s.version, k.* FROM auth.key_set s
LEFT JOIN (SELECT version, {} FROM auth.key) k ON k.version > %s ORDER BY k.version
""").format(COLUMNS)
