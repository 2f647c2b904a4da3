-- How rows are kept: bodies within their rows, and no statistics of what nobody searches by.

SET LOCAL lock_timeout = '5s';

CREATE FUNCTION tollgate.set_up_partition(_name text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    -- Postgres makes a row of over 2 kB smaller, by compressing what is in it and then by moving it out
    -- in pieces, until it is below this (https://www.postgresql.org/docs/current/storage-toast.html).
    -- Compressed bodies end at up to 2.3 kB: with this they stay, which spares writers and readers the
    -- way, and three still fit on a page. The default is 2 kB.
    EXECUTE format('ALTER TABLE tollgate.%I SET (toast_tuple_target = 2560)', _name);
    -- A body says nothing of others, but to sample it made three quarters of the work of ANALYZE.
    EXECUTE format('ALTER TABLE tollgate.%I ALTER COLUMN raw SET STATISTICS 0', _name);
END
$$;
COMMENT ON FUNCTION tollgate.set_up_partition IS 'Gives a partition of the log what LIKE does not copy';

SELECT tollgate.set_up_partition(c.relname)
FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = 'tollgate.event_log'::regclass;

CREATE OR REPLACE FUNCTION tollgate.add_month(_month date) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    _name   text := 'event_log_' || to_char(_month, 'YYYY_MM');
    _start  timestamptz := tollgate.month_start(_month);
    _end    timestamptz := tollgate.month_start((_month + interval '1 month')::date);
    _newest date := (SELECT max(m) FROM tollgate.log_months() m);
BEGIN
    IF _month <= _newest THEN
        RETURN; -- another replica was faster
    END IF;
    EXECUTE format('CREATE TABLE tollgate.%I (LIKE tollgate.event_log INCLUDING ALL)', _name);
    PERFORM tollgate.set_up_partition(_name);
    ALTER TABLE tollgate.event_log DETACH PARTITION tollgate.event_log_later;
    EXECUTE format('WITH moved AS (DELETE FROM tollgate.event_log_later WHERE created < %L RETURNING *)
                    INSERT INTO tollgate.%I SELECT * FROM moved', _end, _name);
    EXECUTE format('ALTER TABLE tollgate.event_log ATTACH PARTITION tollgate.%I FOR VALUES FROM (%L) TO (%L)', _name, _start, _end);
    EXECUTE format('ALTER TABLE tollgate.event_log ATTACH PARTITION tollgate.event_log_later FOR VALUES FROM (%L) TO (MAXVALUE)', _end);
END
$$;

-- The same of the objects: the typed columns are what is searched by.
DO $$
DECLARE
    _table text;
BEGIN
    FOR _table IN SELECT tollgate.billing_tables() LOOP
        EXECUTE format('ALTER TABLE stripe.%I ALTER COLUMN object SET STATISTICS 0, ALTER COLUMN links SET STATISTICS 0', _table);
    END LOOP;
END
$$;
