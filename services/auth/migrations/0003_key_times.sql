SET LOCAL lock_timeout = '2s';

-- Only moments that every reader can hold: the years 1 to 9999. One key changed by hand to '-infinity' or to a year
-- before or after would make the whole key set unreadable, for every router.
ALTER TABLE auth.key
    ADD CONSTRAINT key_times_can_be_read CHECK (
        created_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00'
        AND expires_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00'
        AND revoked_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00'
    );
