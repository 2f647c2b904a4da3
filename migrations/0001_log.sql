-- The log: what Stripe sent, once, exactly as it was sent, and the order in which it was committed.

-- The schema itself is made before the first migration, to keep the list of migrations in.
COMMENT ON SCHEMA tollgate IS 'Stripe events as received, and what is done with them';

-- Events -------------------------------------------------------------------------------------

CREATE TABLE tollgate.event_log (
    created     timestamptz NOT NULL,
    id          varchar(255) COLLATE "C" NOT NULL,
    endpoint    varchar(64) COLLATE "C" NOT NULL,
    account     varchar(255) COLLATE "C" NOT NULL,
    livemode    boolean NOT NULL,
    type        varchar(255) COLLATE "C" NOT NULL,
    object_type varchar(255) COLLATE "C",
    object_id   varchar(255) COLLATE "C",
    api_version varchar(255) COLLATE "C",
    received_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    source      varchar(16) NOT NULL,
    raw         bytea NOT NULL,
    PRIMARY KEY (created, id),
    -- One constraint and not one for each column: a statement that inserts a single event spends
    -- a tenth of its time on preparing them.
    CONSTRAINT event_log_well_formed CHECK (
        id <> '' AND endpoint <> '' AND object_id <> ''
        AND source IN ('webhook', 'reconcile', 'backfill', 'replay'))
) PARTITION BY RANGE (created);

COMMENT ON TABLE tollgate.event_log IS 'Every event, once, with the exact bytes received. Partitioned by month of `created`, which Stripe never changes for an id, so that (created, id) is unique over all. Read it through the view tollgate.events';
COMMENT ON COLUMN tollgate.event_log.created IS 'When Stripe made the event; 1970-01-01 if the event does not say';
COMMENT ON COLUMN tollgate.event_log.id IS 'Stripe''s event id, evt_…';
COMMENT ON COLUMN tollgate.event_log.endpoint IS 'The endpoint of this gateway that received it first';
COMMENT ON COLUMN tollgate.event_log.account IS 'The connected account it belongs to; empty for the platform''s own';
COMMENT ON COLUMN tollgate.event_log.livemode IS 'True for live, false for test data';
COMMENT ON COLUMN tollgate.event_log.type IS 'For example invoice.paid; cut at 255 bytes';
COMMENT ON COLUMN tollgate.event_log.object_type IS 'For example invoice; null if the event names no object';
COMMENT ON COLUMN tollgate.event_log.object_id IS 'The object''s id; null where the object has none (balance, an upcoming invoice)';
COMMENT ON COLUMN tollgate.event_log.api_version IS 'The Stripe API version the object is rendered in; null in thin and in very old events';
COMMENT ON COLUMN tollgate.event_log.received_at IS 'When this gateway wrote it';
COMMENT ON COLUMN tollgate.event_log.source IS 'How it came here: webhook, reconcile, backfill or replay';
COMMENT ON COLUMN tollgate.event_log.raw IS 'The body as received, byte for byte';

-- A quarter of the CPU of pglz at about the same size; some builds of Postgres lack it.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_settings WHERE name = 'default_toast_compression' AND 'lz4' = ANY (enumvals)) THEN
        ALTER TABLE tollgate.event_log ALTER COLUMN raw SET COMPRESSION lz4;
    END IF;
END
$$;

-- Months -------------------------------------------------------------------------------------
-- event_log_past | event_log_2026_10 | event_log_2026_11 | … | event_log_later
-- The first and the last are open-ended, so that no event ever lacks a partition, however old
-- or new it claims to be and however long maintenance has not run. (A DEFAULT partition would do
-- the same, but blocks DETACH CONCURRENTLY.)

CREATE FUNCTION tollgate.month_start(_month date) RETURNS timestamptz
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN _month::timestamp AT TIME ZONE 'UTC';
COMMENT ON FUNCTION tollgate.month_start IS 'Midnight UTC at which a month begins, whatever the session''s time zone';

CREATE FUNCTION tollgate.log_months() RETURNS SETOF date
    LANGUAGE sql STABLE
    BEGIN ATOMIC
        SELECT to_date(right(c.relname::text, 7), 'YYYY_MM')
        FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'tollgate.event_log'::regclass AND c.relname::text ~ '^event_log_\d{4}_\d{2}$'
        ORDER BY 1;
    END;
COMMENT ON FUNCTION tollgate.log_months IS 'The months that have a partition of their own, oldest first';

CREATE FUNCTION tollgate.add_month(_month date) RETURNS void LANGUAGE plpgsql AS $$
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
    ALTER TABLE tollgate.event_log DETACH PARTITION tollgate.event_log_later;
    EXECUTE format('WITH moved AS (DELETE FROM tollgate.event_log_later WHERE created < %L RETURNING *)
                    INSERT INTO tollgate.%I SELECT * FROM moved', _end, _name);
    EXECUTE format('ALTER TABLE tollgate.event_log ATTACH PARTITION tollgate.%I FOR VALUES FROM (%L) TO (%L)', _name, _start, _end);
    EXECUTE format('ALTER TABLE tollgate.event_log ATTACH PARTITION tollgate.event_log_later FOR VALUES FROM (%L) TO (MAXVALUE)', _end);
END
$$;
COMMENT ON FUNCTION tollgate.add_month IS 'Gives the month after the newest one a partition of its own, and takes its events out of event_log_later; nothing if it has one. Blocks writers for a moment: set lock_timeout';

CREATE FUNCTION tollgate.drop_month(_month date) RETURNS boolean LANGUAGE plpgsql AS $$
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
    RETURN true;
END
$$;
COMMENT ON FUNCTION tollgate.drop_month IS 'Forgets a month, which must be the oldest; event_log_past then covers it. Blocks writers for a moment: set lock_timeout';

DO $$
DECLARE
    _first date := (date_trunc('month', now() AT TIME ZONE 'UTC') - interval '1 month')::date;
BEGIN
    -- One month back, because reconciling fetches up to 30 days.
    CREATE TABLE tollgate.event_log_past (LIKE tollgate.event_log INCLUDING ALL);
    CREATE TABLE tollgate.event_log_later (LIKE tollgate.event_log INCLUDING ALL);
    EXECUTE format('ALTER TABLE tollgate.event_log ATTACH PARTITION tollgate.event_log_past FOR VALUES FROM (MINVALUE) TO (%L)', tollgate.month_start(_first));
    EXECUTE format('ALTER TABLE tollgate.event_log ATTACH PARTITION tollgate.event_log_later FOR VALUES FROM (%L) TO (MAXVALUE)', tollgate.month_start(_first));
    FOR _ahead IN 0..4 LOOP
        PERFORM tollgate.add_month((_first + make_interval(months => _ahead))::date);
    END LOOP;
END
$$;

COMMENT ON TABLE tollgate.event_log_past IS 'Events older than the oldest month kept apart';
COMMENT ON TABLE tollgate.event_log_later IS 'Events beyond the newest month made ahead; empty while maintenance runs';

-- Positions ----------------------------------------------------------------------------------

-- CACHE 1 (the default) matters: a session that kept numbers in reserve would use them late.
CREATE SEQUENCE tollgate.position_seq;
COMMENT ON SEQUENCE tollgate.position_seq IS 'The next position. Drawn from only under the lock in tollgate.publish_events';

CREATE TABLE tollgate.positions (
    position bigint PRIMARY KEY,
    created  timestamptz NOT NULL,
    id       text COLLATE "C" NOT NULL,
    CONSTRAINT positions_from_one CHECK (position > 0)
);
COMMENT ON TABLE tollgate.positions IS 'The order in which events were committed. Apart from event_log so that a position can be given at the very end of a transaction without writing the event twice';
COMMENT ON COLUMN tollgate.positions.position IS 'Grows in commit order: whoever has seen p never later finds a smaller one. May have gaps';
COMMENT ON COLUMN tollgate.positions.created IS 'Half of the event''s key in event_log';
COMMENT ON COLUMN tollgate.positions.id IS 'The other half';

CREATE VIEW tollgate.events AS
    SELECT p.position, l.id, l.endpoint, l.account, l.livemode, l.type, l.object_type, l.object_id,
           l.api_version, l.created, l.received_at, l.source, l.raw
    FROM tollgate.positions p JOIN tollgate.event_log l USING (created, id);
COMMENT ON VIEW tollgate.events IS 'The log as readers want it. Page by position: WHERE position > $last ORDER BY position LIMIT $n misses nothing and repeats nothing';
COMMENT ON COLUMN tollgate.events.position IS 'Grows in commit order: whoever has seen p never later finds a smaller one. May have gaps';
COMMENT ON COLUMN tollgate.events.id IS 'Stripe''s event id, evt_…';
COMMENT ON COLUMN tollgate.events.endpoint IS 'The endpoint of this gateway that received it first';
COMMENT ON COLUMN tollgate.events.account IS 'The connected account it belongs to; empty for the platform''s own';
COMMENT ON COLUMN tollgate.events.livemode IS 'True for live, false for test data';
COMMENT ON COLUMN tollgate.events.type IS 'For example invoice.paid; cut at 255 bytes';
COMMENT ON COLUMN tollgate.events.object_type IS 'For example invoice; null if the event names no object';
COMMENT ON COLUMN tollgate.events.object_id IS 'The object''s id; null where the object has none (balance, an upcoming invoice)';
COMMENT ON COLUMN tollgate.events.api_version IS 'The Stripe API version the object is rendered in; null in thin and in very old events';
COMMENT ON COLUMN tollgate.events.created IS 'When Stripe made the event; 1970-01-01 if the event does not say';
COMMENT ON COLUMN tollgate.events.received_at IS 'When this gateway wrote it';
COMMENT ON COLUMN tollgate.events.source IS 'How it came here: webhook, reconcile, backfill or replay';
COMMENT ON COLUMN tollgate.events.raw IS 'The body as received, byte for byte. As JSON: tollgate.payload(raw)';

CREATE FUNCTION tollgate.payload(raw bytea) RETURNS json
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN CASE WHEN position('\\u0000'::bytea IN raw) = 0 THEN convert_from(raw, 'UTF8')
                ELSE regexp_replace(convert_from(raw, 'UTF8'), '(?<!\\)((?:\\\\)*)\\u0000', '\1\\ufffd', 'g') END::json;
COMMENT ON FUNCTION tollgate.payload IS 'An event''s body as json, with the escape \u0000, which is legal in JSON but which Postgres cannot make text of, as \ufffd';

-- Writing ------------------------------------------------------------------------------------
-- Two steps, so that what depends on an event (billing tables, handlers) can run between them:
-- record_events takes no lock but the keys'; publish_events takes the one lock that orders
-- commits, and comes last.

CREATE FUNCTION tollgate.record_events(
    _created timestamptz[], _id text[], _endpoint text[], _account text[], _livemode boolean[], _type text[],
    _object_type text[], _object_id text[], _api_version text[], _source text[], _raw bytea[],
    OUT new_created timestamptz[], OUT new_id text[]
) LANGUAGE plpgsql AS $$
BEGIN
    WITH fresh AS (
        INSERT INTO tollgate.event_log AS l
            (created, id, endpoint, account, livemode, type, object_type, object_id, api_version, source, raw)
        SELECT * FROM unnest(_created, _id, _endpoint, _account, _livemode, _type,
                             _object_type, _object_id, _api_version, _source, _raw)
        ON CONFLICT DO NOTHING
        RETURNING l.created, l.id::text
    )
    SELECT array_agg(f.created), array_agg(f.id) INTO new_created, new_id FROM fresh f;
END
$$;
COMMENT ON FUNCTION tollgate.record_events IS 'Inserts events and returns the keys of those that are new, or nulls. Waits for a transaction that is inserting the same event: give them in the order of their keys, or two writers may deadlock';

CREATE FUNCTION tollgate.publish_events(_created timestamptz[], _id text[], _notice text[], _notify text)
    RETURNS TABLE (created timestamptz, id text, "position" bigint) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    -- Held until after the commit is visible: positions are drawn, and become visible, one
    -- transaction after the other. NOTIFY serialises commits in the same way.
    PERFORM pg_advisory_xact_lock(7809644627822867557);
    RETURN QUERY
    WITH numbered AS MATERIALIZED (
        SELECT nextval('tollgate.position_seq') AS position, n.created, n.id, n.notice
        FROM unnest(_created, _id, _notice) AS n (created, id, notice)
    ), placed AS (
        INSERT INTO tollgate.positions (position, created, id)
        SELECT n.position, n.created, n.id FROM numbered n
    ), noticed AS MATERIALIZED (
        SELECT n.created, n.id, n.position,
               CASE WHEN _notify = 'event'
                    THEN pg_notify('tollgate_events', '{"position":' || n.position || ',' || n.notice) END
        FROM numbered n
    )
    SELECT n.created, n.id, n.position FROM noticed n;
    IF _notify = 'batch' AND cardinality(_id) > 0 THEN
        PERFORM pg_notify('tollgate_events',
            json_build_object('position', currval('tollgate.position_seq'), 'events', cardinality(_id))::text);
    END IF;
END
$$;
COMMENT ON FUNCTION tollgate.publish_events IS 'Gives new events their positions and announces them. The last statement before COMMIT';

CREATE FUNCTION tollgate.append_events(
    _created timestamptz[], _id text[], _endpoint text[], _account text[], _livemode boolean[], _type text[],
    _object_type text[], _object_id text[], _api_version text[], _source text[], _raw bytea[],
    _notice text[], _notify text
) RETURNS TABLE (created timestamptz, id text, "position" bigint) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    _new_created timestamptz[];
    _new_id      text[];
BEGIN
    SELECT new_created, new_id INTO _new_created, _new_id
    FROM tollgate.record_events(_created, _id, _endpoint, _account, _livemode, _type,
                                _object_type, _object_id, _api_version, _source, _raw);
    IF cardinality(_new_id) < cardinality(_id) THEN
        _notice := ARRAY(
            SELECT n.notice
            FROM unnest(_new_created, _new_id) WITH ORDINALITY AS f (created, id, ordinal)
            JOIN unnest(_created, _id, _notice) AS n (created, id, notice) USING (created, id)
            ORDER BY f.ordinal);
    END IF;
    IF _new_id IS NOT NULL THEN
        RETURN QUERY SELECT * FROM tollgate.publish_events(_new_created, _new_id, _notice, _notify);
    END IF;
END
$$;
COMMENT ON FUNCTION tollgate.append_events IS 'record_events and publish_events in one round trip, for batches with nothing to do in between';

-- Quarantine ---------------------------------------------------------------------------------

CREATE TABLE tollgate.quarantine (
    sha256      bytea PRIMARY KEY,
    endpoint    text COLLATE "C" NOT NULL,
    reason      text COLLATE "C" NOT NULL,
    detail      text,
    event_id    text COLLATE "C",
    received_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    raw         bytea NOT NULL,
    CONSTRAINT quarantine_sha256_whole   CHECK (octet_length(sha256) = 32),
    CONSTRAINT quarantine_endpoint_named CHECK (endpoint <> ''),
    CONSTRAINT quarantine_reason_given   CHECK (reason <> '')
);
COMMENT ON TABLE tollgate.quarantine IS 'Signed bodies that cannot be recorded as events, kept for a person to look at';
COMMENT ON COLUMN tollgate.quarantine.sha256 IS 'SHA-256 of the body: repeated deliveries are kept once';
COMMENT ON COLUMN tollgate.quarantine.endpoint IS 'The endpoint that received it first';
COMMENT ON COLUMN tollgate.quarantine.reason IS 'Stable code: not_utf8, not_json, no_id, id_too_long, wrong_livemode, wrong_account, refused_by_database';
COMMENT ON COLUMN tollgate.quarantine.detail IS 'What a person needs to know beyond the code; null if that says all';
COMMENT ON COLUMN tollgate.quarantine.event_id IS 'The event''s id, where it has a usable one';
COMMENT ON COLUMN tollgate.quarantine.received_at IS 'When it first came';
COMMENT ON COLUMN tollgate.quarantine.raw IS 'The body as received, byte for byte';
