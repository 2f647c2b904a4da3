-- What a rebuild, or a decision by the log, must know about bodies that changed and events that are gone.

SET LOCAL lock_timeout = '5s';

-- Events in a later version --------------------------------------------------------------------
-- A rebuild reads each event once. One that is kept in a later API version after that may stand for
-- others, and give other links.

CREATE TABLE tollgate.bettered (
    created timestamptz NOT NULL,
    id      text COLLATE "C" NOT NULL,
    PRIMARY KEY (created, id)
);
COMMENT ON TABLE tollgate.bettered IS 'Events kept in a later API version since the present rebuild began; left over when it has ended';
COMMENT ON COLUMN tollgate.bettered.created IS 'Half of the event''s key in event_log';
COMMENT ON COLUMN tollgate.bettered.id IS 'The other half';

CREATE OR REPLACE FUNCTION tollgate.keep_better(
    _created timestamptz[], _id text[], _api_version text[], _raw bytea[], _known text[]
) RETURNS text[] LANGUAGE plpgsql
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan SET jit = off
AS $$
DECLARE
    _bettered text[];
    _when     timestamptz[];
BEGIN
    WITH better AS (
        UPDATE tollgate.event_log AS l SET raw = _raw[n.at], api_version = _api_version[n.at]
        FROM generate_series(1, cardinality(_id)) AS n (at)
        WHERE _id[n.at] = ANY (_known) AND l.created = _created[n.at] AND l.id = _id[n.at]
          AND _api_version[n.at] COLLATE "C" > coalesce(l.api_version, '')
        RETURNING l.created, l.id::text
    )
    SELECT coalesce(array_agg(b.id), '{}'), coalesce(array_agg(b.created), '{}') INTO _bettered, _when FROM better b;
    IF _bettered <> '{}' AND to_regnamespace('tollgate_rebuild') IS NOT NULL THEN
        INSERT INTO tollgate.bettered (created, id) SELECT * FROM unnest(_when, _bettered) ON CONFLICT DO NOTHING;
    END IF;
    RETURN _bettered;
END
$$;

CREATE OR REPLACE FUNCTION tollgate.begin_rebuild() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    _table text;
BEGIN
    DROP SCHEMA IF EXISTS tollgate_rebuild CASCADE;
    DELETE FROM tollgate.bettered;
    CREATE SCHEMA tollgate_rebuild;
    COMMENT ON SCHEMA tollgate_rebuild IS 'The billing tables in the making, while tollgate rebuild runs';
    FOR _table IN SELECT tollgate.billing_tables() LOOP
        -- No typed columns: they are computed where the rows end up.
        EXECUTE format('CREATE UNLOGGED TABLE tollgate_rebuild.%1$I AS
            SELECT account, livemode, %2$s id, incarnation, phase, as_of, as_of_event, order_basis, rests_on_base,
                   api_version, deleted, links, object FROM stripe.%1$I WITH NO DATA', _table,
            CASE WHEN _table = 'objects' THEN 'object_type,' END);
        EXECUTE format('ALTER TABLE tollgate_rebuild.%I ADD PRIMARY KEY (account, livemode, %s id)', _table,
            CASE WHEN _table = 'objects' THEN 'object_type,' END);
    END LOOP;
    PERFORM tollgate.make_write_objects('tollgate_rebuild');
    -- Who writes now does not know of the rebuild yet; who comes after, does.
    LOCK TABLE tollgate.event_log IN SHARE MODE;
END
$$;

-- Events that retention dropped ------------------------------------------------------------------

CREATE TABLE tollgate.forgotten (
    before timestamptz,
    one    boolean PRIMARY KEY DEFAULT true,
    CONSTRAINT forgotten_one CHECK (one)
);
COMMENT ON TABLE tollgate.forgotten IS 'Which events the log may have forgotten';
COMMENT ON COLUMN tollgate.forgotten.before IS 'Those created before this time, as retention has dropped some of them; null if it never did';
COMMENT ON COLUMN tollgate.forgotten.one IS 'There is one row';
-- Where there are events, retention may have been at work before this table was.
INSERT INTO tollgate.forgotten (before)
SELECT CASE WHEN EXISTS (SELECT FROM tollgate.positions) THEN (SELECT tollgate.month_start(min(m)) FROM tollgate.log_months() m) END;

CREATE OR REPLACE FUNCTION tollgate.drop_month(_month date) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    _oldest date := (SELECT min(m) FROM tollgate.log_months() m);
    _end    timestamptz := tollgate.month_start((_month + interval '1 month')::date);
BEGIN
    IF _month IS DISTINCT FROM _oldest THEN
        RETURN false; -- another replica was faster
    END IF;
    ALTER TABLE tollgate.event_log DETACH PARTITION tollgate.event_log_past;
    EXECUTE format('DROP TABLE tollgate.%I', 'event_log_' || to_char(_month, 'YYYY_MM'));
    EXECUTE format('ALTER TABLE tollgate.event_log ATTACH PARTITION tollgate.event_log_past FOR VALUES FROM (MINVALUE) TO (%L)', _end);
    UPDATE tollgate.forgotten SET before = greatest(before, _end);
    RETURN true;
END
$$;

CREATE FUNCTION tollgate.forget_past(_received_before timestamptz, _limit bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    _gone bigint;
BEGIN
    DELETE FROM tollgate.event_log_past WHERE (created, id) IN
        (SELECT p.created, p.id FROM tollgate.event_log_past p WHERE p.received_at < _received_before LIMIT _limit);
    GET DIAGNOSTICS _gone = ROW_COUNT;
    IF _gone > 0 THEN
        UPDATE tollgate.forgotten SET before = greatest(before, (SELECT tollgate.month_start(min(m)) FROM tollgate.log_months() m));
    END IF;
    RETURN _gone;
END
$$;
COMMENT ON FUNCTION tollgate.forget_past IS 'Forgets events of event_log_past that came before a time, at most so many, and returns how many';

CREATE OR REPLACE FUNCTION tollgate.finish_rebuild(_table text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    _type    text := CASE WHEN _table = 'objects' THEN 'object_type, ' ELSE '' END;
    _before  timestamptz := (SELECT coalesce(f.before, '-infinity') FROM tollgate.forgotten f);
    _source  text;
    _deleted bigint;
    _changed bigint;
    _added   bigint;
BEGIN
    -- Of events that the log has forgotten the row is all that is left: it stays where it is of such a
    -- one and nothing in the log stands higher, and so do its links.
    EXECUTE format('DELETE FROM stripe.%1$I t WHERE t.as_of >= $1 AND NOT EXISTS (
                        SELECT FROM tollgate_rebuild.%1$I r
                        WHERE (r.account, r.livemode, %2$sr.id) = (t.account, t.livemode, %3$st.id))',
                   _table, CASE WHEN _type <> '' THEN 'r.object_type, ' END, CASE WHEN _type <> '' THEN 't.object_type, ' END)
        USING _before;
    GET DIAGNOSTICS _deleted = ROW_COUNT;
    -- Through text, or every typed column would decompress the object again.
    _source := format('
        SELECT account, livemode, %2$sid, r.incarnation, r.phase, r.as_of, r.as_of_event, r.order_basis, r.rests_on_base,
               r.api_version, k.links, r.object::text::jsonb AS object
        FROM tollgate_rebuild.%1$I r LEFT JOIN stripe.%1$I o USING (account, livemode, %2$sid)
        CROSS JOIN LATERAL (
            SELECT CASE WHEN o.incarnation = r.incarnation AND %3$L::timestamptz > ''-infinity'' THEN o.links || r.links ELSE r.links END AS links) k
        WHERE o.as_of_event IS NULL
           OR (o.as_of >= %3$L::timestamptz OR (o.incarnation, o.phase, o.as_of) <= (r.incarnation, r.phase, r.as_of))
              AND ((r.incarnation, r.phase, r.as_of, r.as_of_event, r.order_basis, r.rests_on_base, k.links, r.object)
                   IS DISTINCT FROM
                   (o.incarnation, o.phase, o.as_of, o.as_of_event, o.order_basis, o.rests_on_base, o.links, o.object)
                   OR r.api_version IS DISTINCT FROM o.api_version)
        OFFSET 0', _table, _type, _before);
    EXECUTE tollgate.update_rows('stripe', _table, _source, 'n.links', 'true');
    GET DIAGNOSTICS _changed = ROW_COUNT;
    EXECUTE tollgate.insert_rows('stripe', _table, _source);
    GET DIAGNOSTICS _added = ROW_COUNT;
    RETURN _added + _changed + _deleted;
END
$$;
