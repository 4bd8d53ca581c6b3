SET LOCAL lock_timeout = '2s';

-- Who did what to Auth, and a sample of what was refused. No text of it holds a secret.
CREATE TABLE auth.audit (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL
        CHECK (at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00'),
    -- The key that was sent, as far as it was recognised.
    key_id text NOT NULL CHECK (char_length(key_id) <= 200),
    org text NOT NULL CHECK (char_length(org) <= 200),
    team text NOT NULL CHECK (char_length(team) <= 200),
    action text NOT NULL CHECK (action <> '' AND char_length(action) <= 200),
    subject text NOT NULL CHECK (char_length(subject) <= 200),
    address text NOT NULL CHECK (char_length(address) <= 200),
    peer text NOT NULL CHECK (char_length(peer) <= 200),
    -- A number of weir.error.v1.Reason; 0 where it was done.
    refused integer NOT NULL CHECK (refused >= 0),
    detail text NOT NULL CHECK (char_length(detail) <= 1000),
    -- How many like it this row stands for.
    count bigint NOT NULL CHECK (count > 0)
);

CREATE INDEX audit_at ON auth.audit (at);
CREATE INDEX audit_key_id ON auth.audit (key_id, id);
CREATE INDEX audit_refused ON auth.audit (id) WHERE refused <> 0;

-- What was written stays as it is. Only the job that ends what is older than its keeping deletes: it says so in a
-- setting of its transaction.
CREATE FUNCTION auth.refuse_audit_change() RETURNS trigger LANGUAGE plpgsql SET search_path = '' AS $$
BEGIN
    IF TG_OP = 'DELETE' AND current_setting('weir.audit_retention', true) = 'on' THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION 'the audit is only added to';
END
$$;

CREATE TRIGGER refuse_audit_change BEFORE UPDATE OR DELETE OR TRUNCATE ON auth.audit
    FOR EACH STATEMENT EXECUTE FUNCTION auth.refuse_audit_change();
