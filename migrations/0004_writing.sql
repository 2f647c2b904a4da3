-- Writing: what an event changes besides the log, in the same transaction.

-- The events of one object, for those that need to be ordered among each other. Made here and at
-- once, because no release has had a log yet.
CREATE INDEX event_log_object ON tollgate.event_log (object_id, created);
COMMENT ON INDEX tollgate.event_log_object IS 'The events of one object: to order those of one second, to rebuild it, to show its history';

-- Billing tables -----------------------------------------------------------------------------
-- One statement per table, all alike: the function that holds them is generated, once for the
-- schema stripe and once for the one that a rebuild fills. Static statements keep their plans.

CREATE FUNCTION tollgate.billing_tables() RETURNS SETOF text LANGUAGE sql STABLE
    BEGIN ATOMIC
        SELECT c.relname::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace
        WHERE s.nspname = 'stripe' AND c.relkind = 'r'
          AND EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'order_basis')
        ORDER BY 1;
    END;
COMMENT ON FUNCTION tollgate.billing_tables IS 'The tables of the schema stripe that events are written to';

CREATE FUNCTION tollgate.make_write_objects(_schema text) RETURNS void LANGUAGE plpgsql AS $make$
DECLARE
    _branches text := '';
    _table text;
    _type text; -- only stripe.objects holds several types
BEGIN
    FOR _table IN SELECT tollgate.billing_tables() LOOP
        _type := CASE WHEN _table = 'objects' THEN 'object_type, ' ELSE '' END;
        _branches := _branches || format($branch$
        WHEN %2$L THEN
            INSERT INTO %1$I.%2$I AS t (account, livemode, %3$sid, incarnation, phase, as_of, as_of_event,
                                        order_basis, rests_on_base, api_version, deleted, links, object)
            SELECT n.account, n.livemode, %3$sn.id, n.incarnation, n.phase, n.as_of, n.as_of_event,
                   n.order_basis, n.rests_on_base, n.api_version, n.phase = 3, n.links::jsonb, n.object::jsonb
            FROM unnest(_account[_from:_to], _livemode[_from:_to], _object_type[_from:_to], _id[_from:_to],
                        _incarnation[_from:_to], _phase[_from:_to], _as_of[_from:_to], _as_of_event[_from:_to],
                        _order_basis[_from:_to], _rests_on_base[_from:_to], _api_version[_from:_to],
                        _links[_from:_to], _object[_from:_to])
                 AS n (account, livemode, object_type, id, incarnation, phase, as_of, as_of_event,
                       order_basis, rests_on_base, api_version, links, object)
            WHERE n.as_of_event <> ALL (_skip)
            ON CONFLICT (account, livemode, %3$sid) DO UPDATE SET
                incarnation = excluded.incarnation, phase = excluded.phase, as_of = excluded.as_of,
                as_of_event = excluded.as_of_event, order_basis = excluded.order_basis,
                rests_on_base = excluded.rests_on_base, api_version = excluded.api_version,
                deleted = excluded.deleted, object = excluded.object,
                links = CASE WHEN _mode = 'replace' OR t.incarnation <> excluded.incarnation THEN excluded.links
                             ELSE t.links || excluded.links END
            WHERE CASE WHEN _mode = 'newer'
                       THEN (excluded.incarnation, excluded.phase, excluded.as_of) > (t.incarnation, t.phase, t.as_of)
                       -- What tied in one batch may all be older than what is there.
                       ELSE (_mode = 'replace' OR (excluded.incarnation, excluded.phase, excluded.as_of)
                                                  >= (t.incarnation, t.phase, t.as_of))
                            AND ((excluded.as_of_event, excluded.order_basis, excluded.rests_on_base, excluded.links)
                                 IS DISTINCT FROM (t.as_of_event, t.order_basis, t.rests_on_base, t.links)
                                 OR excluded.api_version IS DISTINCT FROM t.api_version) END;
            GET DIAGNOSTICS _written = ROW_COUNT;
            IF _mode = 'newer' AND _written < _to - _from + 1 THEN
                RETURN QUERY
                SELECT n.at::int + _from - 1,
                       (n.incarnation, n.phase, n.as_of) < (t.incarnation, t.phase, t.as_of)
                FROM unnest(_account[_from:_to], _livemode[_from:_to], _object_type[_from:_to], _id[_from:_to],
                            _incarnation[_from:_to], _phase[_from:_to], _as_of[_from:_to], _as_of_event[_from:_to],
                            _links[_from:_to]) WITH ORDINALITY
                     AS n (account, livemode, object_type, id, incarnation, phase, as_of, as_of_event, links, at)
                JOIN %1$I.%2$I t USING (account, livemode, %3$sid)
                WHERE n.as_of_event <> ALL (_skip) AND t.as_of_event <> n.as_of_event
                  AND (t.rests_on_base
                       OR (n.incarnation, n.phase, n.as_of) = (t.incarnation, t.phase, t.as_of)
                       OR n.incarnation = t.incarnation AND n.links <> '{}'
                          AND NOT t.object ?& ARRAY(SELECT json_object_keys(n.links::json)));
            END IF;$branch$, _schema, _table, _type);
    END LOOP;
    EXECUTE format($function$
CREATE FUNCTION %1$I.write_objects(
    _tables text[], _ends int[], _mode text, _skip text[],
    _account text[], _livemode boolean[], _object_type text[], _id text[],
    _incarnation bigint[], _phase smallint[], _as_of timestamptz[], _as_of_event text[],
    _order_basis text[], _rests_on_base boolean[], _api_version text[], _links text[], _object text[]
) RETURNS TABLE (at int, older boolean) LANGUAGE plpgsql
    -- A few rows by key, whatever the statistics say; planned once, and not compiled.
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan SET jit = off
AS $body$
#variable_conflict use_column
DECLARE
    _from int := 1;
    _to int;
    _written int;
BEGIN
    FOR _run IN 1 .. coalesce(cardinality(_tables), 0) LOOP
        _to := _ends[_run];
        CASE _tables[_run]%2$s
        END CASE;
        _from := _to + 1;
    END LOOP;
END
$body$
$function$, CASE WHEN _schema = 'stripe' THEN 'tollgate' ELSE _schema END, _branches);
END
$make$;
COMMENT ON FUNCTION tollgate.make_write_objects IS 'Makes write_objects for the billing tables of one schema; to be called again when a table is added';

SELECT tollgate.make_write_objects('stripe');
COMMENT ON FUNCTION tollgate.write_objects IS 'Writes objects, table by table. Mode newer: where they stand higher than what is there; returns the ordinals of those that cannot be decided by that, and whether they stand lower. Modes merge and replace write what was decided from the log: merge among events that stand equal, unless a higher one is there; replace by the whole history, and forgets the old links. Every row given is locked afterwards. Give tables by name and rows by key, or two writers may deadlock';

-- Events -------------------------------------------------------------------------------------

CREATE FUNCTION tollgate.write_events(
    _created timestamptz[], _id text[], _endpoint text[], _account text[], _livemode boolean[], _type text[],
    _object_type text[], _object_id text[], _api_version text[], _source text[], _raw bytea[],
    _tables text[], _ends int[], _o_account text[], _o_livemode boolean[], _o_type text[], _o_id text[],
    _o_incarnation bigint[], _o_phase smallint[], _o_as_of timestamptz[], _o_event text[],
    _o_api_version text[], _o_links text[], _o_object text[], _o_crowd smallint[], _generation bigint
) RETURNS TABLE (what text, at int, created timestamptz, id text, type text, api_version text, raw bytea)
LANGUAGE plpgsql
    -- A few rows by key, whatever the statistics say; planned once, and not compiled.
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    _new_created timestamptz[];
    _new_id      text[];
    _known       text[] := '{}';
    _bettered    text[] := '{}';
    _skip        text[] := '{}';
    _group       int[];
    _full        int[] := '{}';
    _objects     int := coalesce(cardinality(_o_id), 0);
BEGIN
    IF _generation <> (SELECT g.generation FROM tollgate.handlers_generation g) THEN
        RAISE EXCEPTION 'other handlers are registered' USING ERRCODE = 'TG002';
    END IF;
    WITH fresh AS (
        INSERT INTO tollgate.event_log AS l
            (created, id, endpoint, account, livemode, type, object_type, object_id, api_version, source, raw)
        SELECT * FROM unnest(_created, _id, _endpoint, _account, _livemode, _type,
                             _object_type, _object_id, _api_version, _source, _raw)
        ON CONFLICT DO NOTHING
        RETURNING l.created, l.id::text
    )
    SELECT coalesce(array_agg(f.created), '{}'), coalesce(array_agg(f.id), '{}') INTO _new_created, _new_id FROM fresh f;
    IF cardinality(_new_id) < cardinality(_id) THEN
        _known := ARRAY(SELECT n.id FROM unnest(_id) AS n (id) WHERE n.id <> ALL (_new_id));
        -- The same event, rendered in a later version for another endpoint: the log keeps that one.
        WITH better AS (
            UPDATE tollgate.event_log AS l SET raw = n.raw, api_version = n.api_version
            FROM unnest(_created, _id, _api_version, _raw) AS n (created, id, api_version, raw)
            WHERE n.id = ANY (_known) AND l.created = n.created AND l.id = n.id
              AND n.api_version COLLATE "C" > coalesce(l.api_version, '')
            RETURNING l.id::text
        )
        SELECT coalesce(array_agg(b.id), '{}') INTO _bettered FROM better b;
    END IF;
    RETURN QUERY
        SELECT 'new', NULL::int, n.created, n.id, NULL::text, NULL::text, NULL::bytea
        FROM unnest(_new_created, _new_id) AS n (created, id);
    IF _objects = 0 THEN
        RETURN;
    END IF;
    IF _known <> '{}' THEN
        -- What was here before has been written before; unless it stands for others of the batch.
        SELECT coalesce(array_agg(o.at) FILTER (WHERE o.again), '{}'), coalesce(array_agg(o.event) FILTER (WHERE NOT o.again), '{}')
        INTO _full, _skip
        FROM (SELECT n.at::int, n.event, n.crowd > 0 OR n.event = ANY (_bettered) AS again
              FROM unnest(_o_event, _o_crowd) WITH ORDINALITY AS n (event, crowd, at)
              WHERE n.event = ANY (_known) OR n.crowd > 0 AND _bettered <> '{}') o;
    END IF;
    SELECT array_agg(DISTINCT u.at) FILTER (WHERE NOT u.older), _full || array_agg(DISTINCT u.at) FILTER (WHERE u.older)
    INTO _group, _full
    FROM (SELECT w.at, w.older
          FROM tollgate.write_objects(_tables, _ends, 'newer', _skip, _o_account, _o_livemode, _o_type, _o_id,
                                      _o_incarnation, _o_phase, _o_as_of, _o_event,
                                      array_fill('unique'::text, ARRAY[_objects]), array_fill(false, ARRAY[_objects]),
                                      _o_api_version, _o_links, _o_object) w
          UNION ALL
          SELECT n.at::int, n.crowd = 3 FROM unnest(_o_crowd) WITH ORDINALITY AS n (crowd, at) WHERE n.crowd >= 2) u;
    IF _full <> '{}' THEN
        RETURN QUERY SELECT DISTINCT 'full', n.at, NULL::timestamptz, NULL::text, NULL::text, NULL::text, NULL::bytea
                     FROM unnest(_full) AS n (at);
    END IF;
    IF _group <> '{}' THEN
        RETURN QUERY
            SELECT 'tied', n.at, l.created, l.id::text, l.type::text, l.api_version::text, l.raw
            FROM unnest(_group) AS n (at)
            JOIN tollgate.event_log l ON l.object_id = _o_id[n.at] AND l.created = _o_as_of[n.at]
                                     AND l.account = _o_account[n.at] AND l.livemode = _o_livemode[n.at]
            WHERE n.at <> ALL (_full);
    END IF;
END
$$;
COMMENT ON FUNCTION tollgate.write_events IS 'Inserts events and writes the objects in them. Returns the keys of those that are new; and for objects that stand as high as what is there (tied) all events of that second, for others that need their whole history (full) the ordinal alone. _o_crowd: 0 the only event of its object in the batch, 1 the highest of several, 2 one of several that stand equal, 3 look at all. SQLSTATE TG002 if the handlers are not those of _generation. Give events in the order of their keys, or two writers may deadlock';

CREATE FUNCTION tollgate.commit_events(
    _created timestamptz[], _id text[], _endpoint text[], _account text[], _livemode boolean[], _type text[],
    _object_type text[], _object_id text[], _api_version text[], _source text[], _raw bytea[],
    _tables text[], _ends int[], _o_account text[], _o_livemode boolean[], _o_type text[], _o_id text[],
    _o_incarnation bigint[], _o_phase smallint[], _o_as_of timestamptz[], _o_event text[],
    _o_api_version text[], _o_links text[], _o_object text[], _o_crowd smallint[],
    _generation bigint, _notice text[], _notify text
) RETURNS TABLE (created timestamptz, id text, "position" bigint) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    _new_created timestamptz[];
    _new_id      text[];
    _undecided   boolean;
BEGIN
    SELECT array_agg(w.created) FILTER (WHERE w.what = 'new'), array_agg(w.id) FILTER (WHERE w.what = 'new'),
           bool_or(w.what <> 'new')
    INTO _new_created, _new_id, _undecided
    FROM tollgate.write_events(_created, _id, _endpoint, _account, _livemode, _type, _object_type, _object_id,
                               _api_version, _source, _raw, _tables, _ends, _o_account, _o_livemode, _o_type, _o_id,
                               _o_incarnation, _o_phase, _o_as_of, _o_event, _o_api_version, _o_links, _o_object,
                               _o_crowd, _generation) w;
    IF _undecided THEN
        RAISE EXCEPTION 'events of one object tie' USING ERRCODE = 'TG001';
    END IF;
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
COMMENT ON FUNCTION tollgate.commit_events IS 'write_events and publish_events in one round trip, for batches with nothing to do in between; otherwise undone with SQLSTATE TG001, to be done again step by step';

-- For the log alone: record_events and publish_events written out, because at a few events per
-- transaction every call within a call shows.
CREATE FUNCTION tollgate.log_events(
    _created timestamptz[], _id text[], _endpoint text[], _account text[], _livemode boolean[], _type text[],
    _object_type text[], _object_id text[], _api_version text[], _source text[], _raw bytea[],
    _generation bigint, _notice text[], _notify text
) RETURNS TABLE (created timestamptz, id text, "position" bigint) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    _new_created timestamptz[];
    _new_id      text[];
BEGIN
    IF _generation <> (SELECT g.generation FROM tollgate.handlers_generation g) THEN
        RAISE EXCEPTION 'other handlers are registered' USING ERRCODE = 'TG002';
    END IF;
    WITH fresh AS (
        INSERT INTO tollgate.event_log AS l
            (created, id, endpoint, account, livemode, type, object_type, object_id, api_version, source, raw)
        SELECT * FROM unnest(_created, _id, _endpoint, _account, _livemode, _type,
                             _object_type, _object_id, _api_version, _source, _raw)
        ON CONFLICT DO NOTHING
        RETURNING l.created, l.id::text
    )
    SELECT array_agg(f.created), array_agg(f.id) INTO _new_created, _new_id FROM fresh f;
    IF cardinality(_new_id) < cardinality(_id) THEN
        _notice := ARRAY(
            SELECT n.notice
            FROM unnest(_new_created, _new_id) WITH ORDINALITY AS f (created, id, ordinal)
            JOIN unnest(_created, _id, _notice) AS n (created, id, notice) USING (created, id)
            ORDER BY f.ordinal);
    END IF;
    IF _new_id IS NULL THEN
        RETURN;
    END IF;
    PERFORM pg_advisory_xact_lock(7809644627822867557);
    RETURN QUERY
    WITH numbered AS MATERIALIZED (
        SELECT nextval('tollgate.position_seq') AS position, n.created, n.id, n.notice
        FROM unnest(_new_created, _new_id, _notice) AS n (created, id, notice)
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
    IF _notify = 'batch' THEN
        PERFORM pg_notify('tollgate_events',
            json_build_object('position', currval('tollgate.position_seq'), 'events', cardinality(_new_id))::text);
    END IF;
END
$$;
COMMENT ON FUNCTION tollgate.log_events IS 'As commit_events, for events without objects to be written';
COMMENT ON FUNCTION tollgate.append_events IS 'Superseded by log_events; kept while gateways of the version before may run';

-- Rebuilding ---------------------------------------------------------------------------------

CREATE FUNCTION tollgate.begin_rebuild() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    _table text;
BEGIN
    DROP SCHEMA IF EXISTS tollgate_rebuild CASCADE;
    CREATE SCHEMA tollgate_rebuild;
    COMMENT ON SCHEMA tollgate_rebuild IS 'The billing tables in the making, while tollgate rebuild runs';
    FOR _table IN SELECT tollgate.billing_tables() LOOP
        -- No generated columns: they are computed where the rows end up.
        EXECUTE format('CREATE UNLOGGED TABLE tollgate_rebuild.%1$I AS
            SELECT account, livemode, %2$s id, incarnation, phase, as_of, as_of_event, order_basis, rests_on_base,
                   api_version, deleted, links, object FROM stripe.%1$I WITH NO DATA', _table,
            CASE WHEN _table = 'objects' THEN 'object_type,' END);
        EXECUTE format('ALTER TABLE tollgate_rebuild.%I ADD PRIMARY KEY (account, livemode, %s id)', _table,
            CASE WHEN _table = 'objects' THEN 'object_type,' END);
    END LOOP;
    PERFORM tollgate.make_write_objects('tollgate_rebuild');
END
$$;
COMMENT ON FUNCTION tollgate.begin_rebuild IS 'Makes empty copies of the billing tables, to be filled from the log';

CREATE FUNCTION tollgate.finish_rebuild(_table text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    _type    text := CASE WHEN _table = 'objects' THEN 'object_type, ' ELSE '' END;
    _oldest  timestamptz := (SELECT tollgate.month_start(min(m)) FROM tollgate.log_months() m);
    _changed bigint;
    _deleted bigint;
BEGIN
    -- What is older than the log's months may come from events that retention has dropped.
    EXECUTE format('DELETE FROM stripe.%1$I t WHERE t.as_of >= $1 AND NOT EXISTS (
                        SELECT FROM tollgate_rebuild.%1$I r
                        WHERE (r.account, r.livemode, %2$sr.id) = (t.account, t.livemode, %3$st.id))',
                   _table, CASE WHEN _type <> '' THEN 'r.object_type, ' END, CASE WHEN _type <> '' THEN 't.object_type, ' END)
        USING _oldest;
    GET DIAGNOSTICS _deleted = ROW_COUNT;
    EXECUTE format('
        INSERT INTO stripe.%1$I AS t (account, livemode, %2$sid, incarnation, phase, as_of, as_of_event, order_basis,
                                      rests_on_base, api_version, deleted, links, object)
        -- Through text, or every generated column would decompress the object again.
        SELECT account, livemode, %2$sid, n.incarnation, n.phase, n.as_of, n.as_of_event, n.order_basis, n.rests_on_base,
               n.api_version, n.deleted, n.links, n.object::text::jsonb
        FROM tollgate_rebuild.%1$I n LEFT JOIN stripe.%1$I o USING (account, livemode, %2$sid)
        WHERE o.as_of_event IS NULL
           OR (n.incarnation, n.phase, n.as_of, n.as_of_event, n.order_basis, n.rests_on_base, n.links, n.object)
              IS DISTINCT FROM
              (o.incarnation, o.phase, o.as_of, o.as_of_event, o.order_basis, o.rests_on_base, o.links, o.object)
           OR n.api_version IS DISTINCT FROM o.api_version
        ON CONFLICT (account, livemode, %2$sid) DO UPDATE SET
            incarnation = excluded.incarnation, phase = excluded.phase, as_of = excluded.as_of,
            as_of_event = excluded.as_of_event, order_basis = excluded.order_basis,
            rests_on_base = excluded.rests_on_base, api_version = excluded.api_version,
            deleted = excluded.deleted, links = excluded.links, object = excluded.object', _table, _type);
    GET DIAGNOSTICS _changed = ROW_COUNT;
    RETURN _changed + _deleted;
END
$$;
COMMENT ON FUNCTION tollgate.finish_rebuild IS 'Makes a billing table equal to its rebuilt copy, touching only rows that differ, and returns how many did. Lock the table first';
