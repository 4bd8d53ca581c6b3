-- The version of the whole key set, in one row. Every change of a key takes the next number from it inside its own
-- transaction and so holds the row's lock until it is committed: changes become visible in the order of their versions.
CREATE TABLE auth.key_set (
    is_only_row boolean PRIMARY KEY DEFAULT true CHECK (is_only_row),
    version bigint NOT NULL CHECK (version > 0)
);

CREATE TABLE auth.key (
    id text PRIMARY KEY,
    -- SHA-256 of the secret's text; the secret itself is kept nowhere.
    secret_sha256 bytea NOT NULL CHECK (octet_length(secret_sha256) = 32),
    org text NOT NULL CHECK (org <> ''),
    team text NOT NULL CHECK (team <> ''),
    label text NOT NULL,
    created_at timestamptz NOT NULL CHECK (isfinite(created_at)),
    expires_at timestamptz CHECK (expires_at < '10000-01-01 00:00:00+00'),
    revoked_at timestamptz CHECK (isfinite(revoked_at)),
    -- Of the key's last change; set by the trigger alone.
    version bigint NOT NULL UNIQUE
);

-- Milliseconds since 1970, or one more than the last version, whichever is higher. So a database that was emptied or
-- restored from a backup does not give a version again that some router may still hold.
CREATE FUNCTION auth.version_after(last bigint) RETURNS bigint LANGUAGE sql VOLATILE SET search_path = '' AS $$
    SELECT greatest(last + 1, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint)
$$;

INSERT INTO auth.key_set (version) VALUES (auth.version_after(0));

-- In the database, so that a change made by hand reaches the routers like any other.
CREATE FUNCTION auth.number_change() RETURNS trigger LANGUAGE plpgsql SET search_path = '' AS $$
BEGIN
    UPDATE auth.key_set SET version = auth.version_after(version) RETURNING version INTO NEW.version;
    PERFORM pg_notify('auth_key_set', '');
    RETURN NEW;
END
$$;

CREATE TRIGGER number_change BEFORE INSERT OR UPDATE ON auth.key
    FOR EACH ROW EXECUTE FUNCTION auth.number_change();

-- A watcher learns of changes, not of absences: a deleted key would go on being accepted.
CREATE FUNCTION auth.refuse_deletion() RETURNS trigger LANGUAGE plpgsql SET search_path = '' AS $$
BEGIN
    RAISE EXCEPTION 'keys are revoked (set revoked_at), never deleted';
END
$$;

CREATE TRIGGER refuse_deletion BEFORE DELETE OR TRUNCATE ON auth.key
    FOR EACH STATEMENT EXECUTE FUNCTION auth.refuse_deletion();
