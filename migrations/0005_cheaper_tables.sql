-- The billing tables at a fraction of the cost: typed columns computed by the statement that writes
-- the row, and only for rows that change.

-- Typed columns ------------------------------------------------------------------------------
-- They were generated columns. Postgres reads and plans the expressions of those anew in every
-- statement that writes the table, 4 µs each: 130 µs for an invoice before its first row, and
-- ON CONFLICT computes them twice. The same expressions in a statement that keeps its plan cost a
-- tenth, and values and names stay what they were.

CREATE TABLE tollgate.billing_columns (
    table_name text COLLATE "C" NOT NULL,
    name       text COLLATE "C" NOT NULL,
    expression text NOT NULL,
    PRIMARY KEY (table_name, name)
);
COMMENT ON TABLE tollgate.billing_columns IS 'The typed columns of the billing tables, and what each is computed from whenever a row is written. After a change here: SELECT tollgate.make_write_objects(''stripe'')';
COMMENT ON COLUMN tollgate.billing_columns.table_name IS 'The table in the schema stripe';
COMMENT ON COLUMN tollgate.billing_columns.name IS 'The column';
COMMENT ON COLUMN tollgate.billing_columns.expression IS 'SQL over the columns object and links of the same row, immutable';

INSERT INTO tollgate.billing_columns (table_name, name, expression)
SELECT c.relname, a.attname, pg_get_expr(d.adbin, d.adrelid)
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE c.relnamespace = 'stripe'::regnamespace AND c.relkind = 'r' AND a.attgenerated = 's';

-- Since basil neither names the other until the invoice is paid; newer payments name it here.
UPDATE tollgate.billing_columns SET expression = 'COALESCE(stripe.to_id(object->''invoice''), stripe.to_id(links->''invoice''),
    CASE WHEN stripe.to_text(object #> ''{payment_details,order_reference}'') LIKE ''in\_%''
         THEN stripe.to_id(object #> ''{payment_details,order_reference}'') END)'
WHERE (table_name, name) = ('payment_intents', 'invoice');
COMMENT ON COLUMN stripe.payment_intents.invoice IS 'The invoice it pays; since basil what an earlier event said, or payment_details.order_reference where that is an invoice, else see stripe.invoice_payments';

DO $$
DECLARE
    _table record;
BEGIN
    FOR _table IN SELECT b.table_name, string_agg(format('ALTER COLUMN %I DROP EXPRESSION', b.name), ', ') AS changes
                  FROM tollgate.billing_columns b GROUP BY b.table_name LOOP
        EXECUTE format('ALTER TABLE stripe.%I %s', _table.table_name, _table.changes);
    END LOOP;
END
$$;

-- A CHECK is read and planned anew by every statement too, 17 µs each; what writes these columns has
-- types for them. What is left is NOT NULL, which costs nothing.
DO $$
DECLARE
    _table text;
BEGIN
    FOR _table IN SELECT tollgate.billing_tables() LOOP
        EXECUTE format('ALTER TABLE stripe.%I DROP CONSTRAINT %I', _table, _table || '_well_formed');
    END LOOP;
END
$$;

CREATE FUNCTION tollgate.add_billing_column(_table text, _name text, _type text, _expression text, _about text) RETURNS void
    LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('ALTER TABLE stripe.%I ADD COLUMN %I %s', _table, _name, _type);
    EXECUTE format('COMMENT ON COLUMN stripe.%I.%I IS %L', _table, _name, _about);
    INSERT INTO tollgate.billing_columns (table_name, name, expression) VALUES (_table, _name, _expression);
    PERFORM tollgate.make_write_objects('stripe');
    EXECUTE format('UPDATE stripe.%I SET %I = %s', _table, _name, _expression);
END
$$;
COMMENT ON FUNCTION tollgate.add_billing_column IS 'Adds a typed column to a billing table, and fills it; for migrations. The expression is SQL over object and links, and must not raise: stripe.to_text, to_id, to_bigint, to_time and the like do not';

-- In the places where expressions are planned now, SQL that can be inlined beats PL/pgSQL. Not
-- STRICT, which would keep it from being inlined.
CREATE OR REPLACE FUNCTION stripe.to_text(_json jsonb) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN jsonb_typeof(_json) = 'string' THEN _json #>> '{}' END;

CREATE OR REPLACE FUNCTION stripe.to_id(_json jsonb) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE jsonb_typeof(_json)
        WHEN 'string' THEN CASE WHEN octet_length(_json #>> '{}') BETWEEN 1 AND 255 THEN _json #>> '{}' END
        WHEN 'object' THEN CASE WHEN jsonb_typeof(_json->'id') = 'string' AND octet_length(_json->>'id') BETWEEN 1 AND 255
                                THEN _json->>'id' END END;

CREATE OR REPLACE FUNCTION stripe.to_bool(_json jsonb) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN jsonb_typeof(_json) = 'boolean' THEN _json::boolean END;

-- No release has called these yet.
DROP FUNCTION tollgate.append_events, tollgate.record_events, tollgate.publish_events, tollgate.log_events,
    tollgate.commit_events, tollgate.write_events, tollgate.write_objects, tollgate.make_write_objects;
COMMENT ON SEQUENCE tollgate.position_seq IS 'The next position. Drawn from only under the lock in tollgate.place_events';

CREATE FUNCTION tollgate.mentions(_object jsonb, _links jsonb) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN _object ?& ARRAY(SELECT jsonb_object_keys(_links));
END
$$;
COMMENT ON FUNCTION tollgate.mentions IS 'Whether an object says something, if only null, about all of these links';

-- Writing objects ----------------------------------------------------------------------------
-- Arrays are read by subscript: unnest of several makes a store on the side for each of them.

CREATE FUNCTION tollgate.insert_rows(_schema text, _table text, _source text) RETURNS text
    LANGUAGE sql STABLE AS $insert$
    SELECT format($sql$
                INSERT INTO %1$I.%2$I (account, livemode, %3$sid, incarnation, phase, as_of, as_of_event, order_basis,
                                       rests_on_base, api_version, deleted, links, object%4$s)
                SELECT account, livemode, %3$sid, incarnation, phase, as_of, as_of_event, order_basis,
                       rests_on_base, api_version, phase = 3, links, object%5$s
                FROM (%6$s) AS source
                ON CONFLICT DO NOTHING$sql$,
        _schema, _table, CASE WHEN _table = 'objects' THEN 'object_type, ' END,
        string_agg(format(', %I', b.name), '' ORDER BY b.name), string_agg(', ' || b.expression, '' ORDER BY b.name), _source)
    FROM tollgate.billing_columns b WHERE _schema = 'stripe' AND b.table_name = _table
$insert$;
COMMENT ON FUNCTION tollgate.insert_rows IS 'The statement that inserts into a billing table what the query _source yields, typed columns included';

CREATE FUNCTION tollgate.update_rows(_schema text, _table text, _source text, _links text, _condition text) RETURNS text
    LANGUAGE sql STABLE AS $update$
    -- Columns that links have a say in depend on the row that is there, all others on the object alone.
    SELECT format($sql$
                UPDATE %1$I.%2$I AS t SET
                    incarnation = n.incarnation, phase = n.phase, as_of = n.as_of, as_of_event = n.as_of_event,
                    order_basis = n.order_basis, rests_on_base = n.rests_on_base, api_version = n.api_version,
                    deleted = n.phase = 3, links = %3$s, object = n.object%4$s
                FROM (SELECT *%5$s FROM (%6$s) AS source) AS n
                WHERE (t.account, t.livemode, %7$st.id) = (n.account, n.livemode, %8$sn.id) AND (%9$s)$sql$,
        _schema, _table, _links,
        string_agg(format(CASE WHEN b.by_links THEN ', %1$I = (SELECT %2$s FROM (SELECT n.object, %3$s AS links) AS written)'
                               ELSE ', %1$I = n.%1$I' END, b.name, b.expression, _links), '' ORDER BY b.name),
        string_agg(format(', %s AS %I', b.expression, b.name), '' ORDER BY b.name) FILTER (WHERE NOT b.by_links),
        _source, CASE WHEN _table = 'objects' THEN 't.object_type, ' END, CASE WHEN _table = 'objects' THEN 'n.object_type, ' END,
        _condition)
    FROM (SELECT c.*, c.expression ~ '\mlinks\M' AS by_links FROM tollgate.billing_columns c) b
    WHERE _schema = 'stripe' AND b.table_name = _table
$update$;
COMMENT ON FUNCTION tollgate.update_rows IS 'The statement that gives rows of a billing table, t, what the query _source yields, n, typed columns included. _links and _condition are expressions over both: what becomes of the links, and whether the row is changed';

CREATE FUNCTION tollgate.make_write_objects(_schema text) RETURNS void LANGUAGE plpgsql AS $make$
DECLARE
    _source text := $source$
                    SELECT _account[n.at] AS account, _livemode[n.at] AS livemode, _object_type[n.at] AS object_type, _id[n.at] AS id,
                           _incarnation[n.at] AS incarnation, _phase[n.at] AS phase, _as_of[n.at] AS as_of, _as_of_event[n.at] AS as_of_event,
                           coalesce(_order_basis[n.at], 'unique') AS order_basis, coalesce(_rests_on_base[n.at], false) AS rests_on_base,
                           _api_version[n.at] AS api_version, _links[n.at]::jsonb AS links, _object[n.at]::jsonb AS object
                    FROM generate_series(_from, _to) AS n (at)
                    WHERE %s
                    OFFSET 0$source$; -- which keeps the object from being parsed for every column
    _branches text := '';
    _table text;
BEGIN
    FOR _table IN SELECT tollgate.billing_tables() LOOP
        _branches := _branches || format($branch$
        WHEN %2$L THEN
            IF _mode = 'newer' THEN
                -- Before anything is made of the object's text: many rows are there, and stand no lower.
                SELECT array_agg(f.at), array_agg(f.at) FILTER (WHERE f.verdict = 'lower'),
                       tied || array_agg(f.at) FILTER (WHERE f.verdict = 'tied'),
                       unclear || array_agg(f.at) FILTER (WHERE f.verdict = 'unclear')
                INTO _there, _lower, tied, unclear
                FROM (SELECT n.at,
                             CASE WHEN t.as_of_event = _as_of_event[n.at] OR _crowd[n.at] > 1 THEN 'done'
                                  WHEN (t.incarnation, t.phase, t.as_of) < (_incarnation[n.at], _phase[n.at], _as_of[n.at]) THEN 'lower'
                                  WHEN (t.incarnation, t.phase, t.as_of) = (_incarnation[n.at], _phase[n.at], _as_of[n.at]) THEN 'tied'
                                  WHEN t.rests_on_base
                                       OR t.incarnation = _incarnation[n.at] AND _links[n.at] <> '{}'
                                          AND NOT tollgate.mentions(t.object, _links[n.at]::jsonb) THEN 'unclear'
                                  ELSE 'done' END AS verdict
                      FROM generate_series(_from, _to) AS n (at)
                      JOIN %1$I.%2$I t ON t.account = _account[n.at] AND t.livemode = _livemode[n.at] AND t.id = _id[n.at]%3$s
                      FOR NO KEY UPDATE OF t) f;
                _missing := _to - _from + 1 - coalesce(cardinality(_there), 0);
                IF _missing > 0 THEN%4$s;
                    GET DIAGNOSTICS _written = ROW_COUNT;
                    IF _written < _missing THEN
                        -- To lock that row now, when others may wait for those just made, could end in a deadlock.
                        RAISE EXCEPTION 'another transaction made one of the rows meanwhile' USING ERRCODE = 'TG003';
                    END IF;
                END IF;
            END IF;
            IF _mode <> 'newer' OR _lower IS NOT NULL THEN%5$s;
            END IF;$branch$,
            _schema, _table, CASE WHEN _table = 'objects' THEN ' AND t.object_type = _object_type[n.at]' END,
            tollgate.insert_rows(_schema, _table, format(_source, '_there IS NULL OR n.at <> ALL (_there)')),
            tollgate.update_rows(_schema, _table, format(_source, $$_mode <> 'newer' OR n.at = ANY (_lower)$$),
                $links$CASE WHEN _mode = 'replace' OR t.incarnation <> n.incarnation THEN n.links ELSE t.links || n.links END$links$,
                $condition$_mode = 'newer'
                       -- What tied in one batch may all be older than what is there.
                       OR (_mode = 'replace' OR (n.incarnation, n.phase, n.as_of) >= (t.incarnation, t.phase, t.as_of))
                          AND ((n.as_of_event, n.order_basis, n.rests_on_base, n.links)
                               IS DISTINCT FROM (t.as_of_event, t.order_basis, t.rests_on_base, t.links)
                               OR n.api_version IS DISTINCT FROM t.api_version)$condition$));
    END LOOP;
    EXECUTE format($function$
CREATE OR REPLACE FUNCTION %1$I.write_objects(
    _tables text[], _modes text[], _ends int[],
    _account text[], _livemode boolean[], _object_type text[], _id text[],
    _incarnation bigint[], _phase smallint[], _as_of timestamptz[], _as_of_event text[], _api_version text[],
    _links text[], _object text[], _crowd smallint[], _order_basis text[], _rests_on_base boolean[],
    OUT tied int[], OUT unclear int[]
) LANGUAGE plpgsql
    -- A few rows by key, whatever the statistics say; planned once, and not compiled.
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan SET jit = off
AS $body$
#variable_conflict use_column
DECLARE
    _from    int := 1;
    _to      int;
    _mode    text;
    _there   int[];
    _lower   int[];
    _missing int;
    _written int;
BEGIN
    FOR _run IN 1 .. coalesce(cardinality(_tables), 0) LOOP
        _to := _ends[_run];
        _mode := _modes[_run];
        CASE _tables[_run]%2$s
        END CASE;
        _from := _to + 1;
    END LOOP;
END
$body$
$function$, CASE WHEN _schema = 'stripe' THEN 'tollgate' ELSE _schema END, _branches);
END
$make$;
COMMENT ON FUNCTION tollgate.make_write_objects IS 'Makes write_objects for the billing tables of one schema: one statement for each, whose plan is kept. To be called again after a change to tollgate.billing_columns';

SELECT tollgate.make_write_objects('stripe');
COMMENT ON FUNCTION tollgate.write_objects IS 'Writes objects, in runs of one table and one mode. Mode newer: where they stand higher than what is there; returns the ordinals of those that stand as high (tied) and of those that only the whole history can tell (unclear). Modes merge and replace write what was decided from the log to rows that are there: merge among events that stand equal, unless a higher one is there; replace by the whole history, and forgets the old links. A row whose _crowd is over 1 will be decided from the log in any case, and is left alone if it is there. Without _order_basis and _rests_on_base: unique and false. Every row given is locked afterwards. SQLSTATE TG003 if another transaction came in between: begin again. Give tables by name and rows by key, or two writers may deadlock';

-- Writing events -----------------------------------------------------------------------------

CREATE FUNCTION tollgate.keep_better(
    _created timestamptz[], _id text[], _api_version text[], _raw bytea[], _known text[]
) RETURNS text[] LANGUAGE plpgsql
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan SET jit = off
AS $$
DECLARE
    _bettered text[];
BEGIN
    WITH better AS (
        UPDATE tollgate.event_log AS l SET raw = _raw[n.at], api_version = _api_version[n.at]
        FROM generate_series(1, cardinality(_id)) AS n (at)
        WHERE _id[n.at] = ANY (_known) AND l.created = _created[n.at] AND l.id = _id[n.at]
          AND _api_version[n.at] COLLATE "C" > coalesce(l.api_version, '')
        RETURNING l.id::text
    )
    SELECT coalesce(array_agg(b.id), '{}') INTO _bettered FROM better b;
    RETURN _bettered;
END
$$;
COMMENT ON FUNCTION tollgate.keep_better IS 'Of events that the log has, _known, keeps these renderings where they are in a later API version, as another endpoint may have it; returns the ids of those';

CREATE FUNCTION tollgate.store_events(
    _created timestamptz[], _id text[], _endpoint text[], _account text[], _livemode boolean[], _type text[],
    _object_type text[], _object_id text[], _api_version text[], _source text[], _raw bytea[],
    _tables text[], _modes text[], _ends int[], _o_account text[], _o_livemode boolean[], _o_type text[], _o_id text[],
    _o_incarnation bigint[], _o_phase smallint[], _o_as_of timestamptz[], _o_event text[],
    _o_api_version text[], _o_links text[], _o_object text[], _o_crowd smallint[], _generation bigint,
    OUT new_created timestamptz[], OUT new_id text[], OUT tied int[], OUT unclear int[]
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    _now      bigint;
    _open     record;
    _known    text[];
    _bettered text[];
BEGIN
    WITH fresh AS (
        INSERT INTO tollgate.event_log AS l
            (created, id, endpoint, account, livemode, type, object_type, object_id, api_version, source, raw)
        SELECT _created[n.at], _id[n.at], _endpoint[n.at], _account[n.at], _livemode[n.at], _type[n.at],
               _object_type[n.at], _object_id[n.at], _api_version[n.at], _source[n.at], _raw[n.at]
        FROM generate_series(1, cardinality(_id)) AS n (at)
        ON CONFLICT DO NOTHING
        RETURNING l.created, l.id::text
    )
    SELECT coalesce(array_agg(f.created), '{}'), coalesce(array_agg(f.id), '{}'),
           (SELECT g.generation FROM tollgate.handlers_generation g)
    INTO new_created, new_id, _now FROM fresh f;
    IF _generation <> _now THEN
        RAISE EXCEPTION 'other handlers are registered' USING ERRCODE = 'TG002';
    END IF;
    IF cardinality(_o_id) > 0 THEN
        _open := tollgate.write_objects(_tables, _modes, _ends, _o_account, _o_livemode, _o_type, _o_id, _o_incarnation,
                                        _o_phase, _o_as_of, _o_event, _o_api_version, _o_links, _o_object, _o_crowd, NULL, NULL);
        tied := _open.tied;
        unclear := _open.unclear;
        IF 2 <= ANY (_o_crowd) THEN
            SELECT tied || array_agg(n.at) FILTER (WHERE n.crowd = 2), unclear || array_agg(n.at) FILTER (WHERE n.crowd = 3)
            INTO tied, unclear
            FROM (SELECT n.crowd, n.at::int FROM unnest(_o_crowd) WITH ORDINALITY AS n (crowd, at)) n;
        END IF;
    END IF;
    IF cardinality(new_id) < cardinality(_id) THEN
        _known := ARRAY(SELECT n.id FROM unnest(_id) AS n (id) WHERE n.id <> ALL (new_id));
        _bettered := tollgate.keep_better(_created, _id, _api_version, _raw, _known);
        -- An event that was here before may stand for others of the batch.
        SELECT unclear || array_agg(n.at::int) INTO unclear
        FROM unnest(_o_event, _o_crowd) WITH ORDINALITY AS n (event, crowd, at)
        WHERE n.event = ANY (_bettered) OR n.crowd > 0 AND (n.event = ANY (_known) OR _bettered <> '{}');
    END IF;
END
$$;
COMMENT ON FUNCTION tollgate.store_events IS 'Inserts events and writes the objects in them. Returns the keys of those that are new, and the ordinals of objects that stand as high as what is there (tied) or need their whole history (unclear); null for none. _o_crowd: 0 the only event of its object in the batch, 1 the highest of several, 2 one of several that stand equal, 3 look at all. SQLSTATE TG002 if the handlers are not those of _generation. Give events in the order of their keys, or two writers may deadlock';

CREATE FUNCTION tollgate.write_events(
    _created timestamptz[], _id text[], _endpoint text[], _account text[], _livemode boolean[], _type text[],
    _object_type text[], _object_id text[], _api_version text[], _source text[], _raw bytea[],
    _tables text[], _modes text[], _ends int[], _o_account text[], _o_livemode boolean[], _o_type text[], _o_id text[],
    _o_incarnation bigint[], _o_phase smallint[], _o_as_of timestamptz[], _o_event text[],
    _o_api_version text[], _o_links text[], _o_object text[], _o_crowd smallint[], _generation bigint
) RETURNS TABLE (what text, at int, created timestamptz, id text, raw bytea) LANGUAGE plpgsql
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    _new   record;
    _first timestamptz;
    _last  timestamptz;
BEGIN
    _new := tollgate.store_events(_created, _id, _endpoint, _account, _livemode, _type, _object_type, _object_id,
                                  _api_version, _source, _raw, _tables, _modes, _ends, _o_account, _o_livemode, _o_type,
                                  _o_id, _o_incarnation, _o_phase, _o_as_of, _o_event, _o_api_version, _o_links,
                                  _o_object, _o_crowd, _generation);
    RETURN QUERY
        SELECT 'new', NULL::int, n.created, n.id, NULL::bytea FROM unnest(_new.new_created, _new.new_id) AS n (created, id);
    IF _new.unclear IS NOT NULL THEN
        RETURN QUERY SELECT DISTINCT 'unclear', n.at, NULL::timestamptz, NULL::text, NULL::bytea FROM unnest(_new.unclear) AS n (at);
    END IF;
    IF _new.tied IS NOT NULL THEN
        SELECT min(_o_as_of[n.at]), max(_o_as_of[n.at]) INTO _first, _last FROM unnest(_new.tied) AS n (at);
        RETURN QUERY
            SELECT 'tied', n.at, NULL::timestamptz, NULL::text, e.raw
            FROM unnest(_new.tied) AS n (at)
            -- By event_log_object, whatever the statistics say of how many events a second has: two bounds
            -- in place of =, which the primary key would serve too, and with all events of that second.
            -- _first and _last are known before the plan runs, and spare it all other months.
            CROSS JOIN LATERAL (
                SELECT l.raw FROM tollgate.event_log l
                WHERE l.object_id = _o_id[n.at] AND l.created >= _o_as_of[n.at] AND l.created <= _o_as_of[n.at]
                  AND l.created BETWEEN _first AND _last
                  AND l.account = _o_account[n.at] AND l.livemode = _o_livemode[n.at]
                OFFSET 0) e
            WHERE _new.unclear IS NULL OR n.at <> ALL (_new.unclear);
    END IF;
END
$$;
COMMENT ON FUNCTION tollgate.write_events IS 'store_events for those who go on in the same transaction: returns the keys of new events (new), for each object that ties the bodies of all its events of that second (tied), and the ordinals of objects that need their whole history (unclear)';

-- Publishing -----------------------------------------------------------------------------------

CREATE FUNCTION tollgate.place_events(_created timestamptz[], _id text[], _notice text[], _notify text)
    RETURNS bigint[] LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    _positions bigint[];
BEGIN
    -- Held until after the commit is visible: positions are drawn, and become visible, one
    -- transaction after the other. NOTIFY serialises commits in the same way.
    PERFORM pg_advisory_xact_lock(7809644627822867557);
    WITH numbered AS MATERIALIZED (
        SELECT nextval('tollgate.position_seq') AS position, n.at FROM generate_series(1, cardinality(_id)) AS n (at)
    ), placed AS (
        INSERT INTO tollgate.positions (position, created, id)
        SELECT n.position, _created[n.at], _id[n.at] FROM numbered n
    ), noticed AS MATERIALIZED (
        SELECT n.at, n.position,
               CASE WHEN _notify = 'event'
                    THEN pg_notify('tollgate_events', '{"position":' || n.position || ',' || _notice[n.at]) END
        FROM numbered n
    )
    SELECT array_agg(n.position ORDER BY n.at) INTO _positions FROM noticed n;
    IF _notify = 'batch' AND cardinality(_id) > 0 THEN
        PERFORM pg_notify('tollgate_events',
            json_build_object('position', currval('tollgate.position_seq'), 'events', cardinality(_id))::text);
    END IF;
    RETURN _positions;
END
$$;
COMMENT ON FUNCTION tollgate.place_events IS 'Gives new events their positions, which it returns, and announces them. The last statement before COMMIT';

CREATE FUNCTION tollgate.notices_of(
    _created timestamptz[], _id text[], _notice text[], _new_created timestamptz[], _new_id text[]
) RETURNS text[] LANGUAGE sql STABLE
    BEGIN ATOMIC
        SELECT array_agg(n.notice ORDER BY f.ordinal)
        FROM unnest(_new_created, _new_id) WITH ORDINALITY AS f (created, id, ordinal)
        JOIN unnest(_created, _id, _notice) AS n (created, id, notice) USING (created, id);
    END;
COMMENT ON FUNCTION tollgate.notices_of IS 'Of the notices of a batch those of its new events, in their order';

CREATE FUNCTION tollgate.commit_events(
    _created timestamptz[], _id text[], _endpoint text[], _account text[], _livemode boolean[], _type text[],
    _object_type text[], _object_id text[], _api_version text[], _source text[], _raw bytea[],
    _tables text[], _modes text[], _ends int[], _o_account text[], _o_livemode boolean[], _o_type text[], _o_id text[],
    _o_incarnation bigint[], _o_phase smallint[], _o_as_of timestamptz[], _o_event text[],
    _o_api_version text[], _o_links text[], _o_object text[], _o_crowd smallint[],
    _generation bigint, _notice text[], _notify text,
    OUT created timestamptz[], OUT id text[], OUT "position" bigint[]
) LANGUAGE plpgsql
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan SET jit = off
AS $$
DECLARE
    _new record;
BEGIN
    _new := tollgate.store_events(_created, _id, _endpoint, _account, _livemode, _type, _object_type, _object_id,
                                  _api_version, _source, _raw, _tables, _modes, _ends, _o_account, _o_livemode, _o_type,
                                  _o_id, _o_incarnation, _o_phase, _o_as_of, _o_event, _o_api_version, _o_links,
                                  _o_object, _o_crowd, _generation);
    IF _new.tied IS NOT NULL OR _new.unclear IS NOT NULL THEN
        RAISE EXCEPTION 'events of one object tie' USING ERRCODE = 'TG001';
    END IF;
    created := _new.new_created;
    id := _new.new_id;
    IF cardinality(id) < cardinality(_id) THEN
        _notice := tollgate.notices_of(_created, _id, _notice, created, id);
    END IF;
    IF id <> '{}' THEN
        "position" := tollgate.place_events(created, id, _notice, _notify);
    END IF;
END
$$;
COMMENT ON FUNCTION tollgate.commit_events IS 'store_events and place_events in one round trip, for batches with nothing to do in between; otherwise undone with SQLSTATE TG001, to be done again step by step';

CREATE FUNCTION tollgate.log_events(
    _created timestamptz[], _id text[], _endpoint text[], _account text[], _livemode boolean[], _type text[],
    _object_type text[], _object_id text[], _api_version text[], _source text[], _raw bytea[],
    _generation bigint, _notice text[], _notify text,
    OUT created timestamptz[], OUT id text[], OUT "position" bigint[]
) LANGUAGE plpgsql
    SET plan_cache_mode = force_generic_plan -- or it would be planned for each number of events
AS $$
#variable_conflict use_column
DECLARE
    _now bigint;
BEGIN
    WITH fresh AS (
        INSERT INTO tollgate.event_log AS l
            (created, id, endpoint, account, livemode, type, object_type, object_id, api_version, source, raw)
        SELECT _created[n.at], _id[n.at], _endpoint[n.at], _account[n.at], _livemode[n.at], _type[n.at],
               _object_type[n.at], _object_id[n.at], _api_version[n.at], _source[n.at], _raw[n.at]
        FROM generate_series(1, cardinality(_id)) AS n (at)
        ON CONFLICT DO NOTHING
        RETURNING l.created, l.id::text
    )
    SELECT coalesce(array_agg(f.created), '{}'), coalesce(array_agg(f.id), '{}'), (SELECT g.generation FROM tollgate.handlers_generation g)
    INTO created, id, _now FROM fresh f;
    IF _generation <> _now THEN
        RAISE EXCEPTION 'other handlers are registered' USING ERRCODE = 'TG002';
    END IF;
    IF cardinality(id) < cardinality(_id) THEN
        PERFORM tollgate.keep_better(_created, _id, _api_version, _raw,
                                     ARRAY(SELECT n.id FROM unnest(_id) AS n (id) WHERE n.id <> ALL (log_events.id)));
        _notice := tollgate.notices_of(_created, _id, _notice, created, id);
    END IF;
    IF id <> '{}' THEN
        "position" := tollgate.place_events(created, id, _notice, _notify);
    END IF;
END
$$;
COMMENT ON FUNCTION tollgate.log_events IS 'As commit_events, for events without objects to be written';

CREATE FUNCTION tollgate.finish_events(
    _tables text[], _modes text[], _ends int[], _o_account text[], _o_livemode boolean[], _o_type text[], _o_id text[],
    _o_incarnation bigint[], _o_phase smallint[], _o_as_of timestamptz[], _o_event text[],
    _o_api_version text[], _o_links text[], _o_object text[], _o_crowd smallint[], _o_basis text[], _o_rests_on_base boolean[],
    _created timestamptz[], _id text[], _notice text[], _notify text
) RETURNS bigint[] LANGUAGE plpgsql
    SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    IF cardinality(_tables) > 0 THEN
        PERFORM tollgate.write_objects(_tables, _modes, _ends, _o_account, _o_livemode, _o_type, _o_id, _o_incarnation,
                                       _o_phase, _o_as_of, _o_event, _o_api_version, _o_links, _o_object, _o_crowd,
                                       _o_basis, _o_rests_on_base);
    END IF;
    RETURN CASE WHEN cardinality(_id) > 0 THEN tollgate.place_events(_created, _id, _notice, _notify) END;
END
$$;
COMMENT ON FUNCTION tollgate.finish_events IS 'What comes after write_events: writes objects as decided from the log, and gives the new events their positions. The last statement before COMMIT';

-- Rebuilding ---------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION tollgate.finish_rebuild(_table text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    _type    text := CASE WHEN _table = 'objects' THEN 'object_type, ' ELSE '' END;
    _oldest  timestamptz := (SELECT tollgate.month_start(min(m)) FROM tollgate.log_months() m);
    _source  text;
    _deleted bigint;
    _changed bigint;
    _added   bigint;
BEGIN
    -- What is older than the log's months may come from events that retention has dropped.
    EXECUTE format('DELETE FROM stripe.%1$I t WHERE t.as_of >= $1 AND NOT EXISTS (
                        SELECT FROM tollgate_rebuild.%1$I r
                        WHERE (r.account, r.livemode, %2$sr.id) = (t.account, t.livemode, %3$st.id))',
                   _table, CASE WHEN _type <> '' THEN 'r.object_type, ' END, CASE WHEN _type <> '' THEN 't.object_type, ' END)
        USING _oldest;
    GET DIAGNOSTICS _deleted = ROW_COUNT;
    -- Through text, or every typed column would decompress the object again.
    _source := format('
        SELECT account, livemode, %2$sid, r.incarnation, r.phase, r.as_of, r.as_of_event, r.order_basis, r.rests_on_base,
               r.api_version, r.links, r.object::text::jsonb AS object
        FROM tollgate_rebuild.%1$I r LEFT JOIN stripe.%1$I o USING (account, livemode, %2$sid)
        WHERE o.as_of_event IS NULL
           OR (r.incarnation, r.phase, r.as_of, r.as_of_event, r.order_basis, r.rests_on_base, r.links, r.object)
              IS DISTINCT FROM
              (o.incarnation, o.phase, o.as_of, o.as_of_event, o.order_basis, o.rests_on_base, o.links, o.object)
           OR r.api_version IS DISTINCT FROM o.api_version
        OFFSET 0', _table, _type);
    EXECUTE tollgate.update_rows('stripe', _table, _source, 'n.links', 'true');
    GET DIAGNOSTICS _changed = ROW_COUNT;
    EXECUTE tollgate.insert_rows('stripe', _table, _source);
    GET DIAGNOSTICS _added = ROW_COUNT;
    RETURN _added + _changed + _deleted;
END
$$;

-- Views --------------------------------------------------------------------------------------

CREATE OR REPLACE VIEW stripe.failed_payments AS
    WITH payment AS (
        SELECT p.* FROM stripe.payment_intents p
        WHERE NOT p.deleted AND p.status IN ('requires_payment_method', 'canceled')
          AND COALESCE(p.last_error_code, p.last_error_message) IS NOT NULL
    ), invoice AS (
        SELECT v.*, COALESCE(v.payment_intent, y.payment_intent, p.id) AS payment, COALESCE(v.charge, y.charge) AS attempt
        FROM stripe.invoices v
        LEFT JOIN LATERAL (
            SELECT y.payment_intent, y.charge FROM stripe.invoice_payments y
            WHERE y.account = v.account AND y.livemode = v.livemode AND y.invoice = v.id AND NOT y.deleted
            ORDER BY y.is_default DESC NULLS LAST, y.created DESC NULLS LAST, y.id LIMIT 1) y ON true
        LEFT JOIN LATERAL (
            SELECT p.id FROM payment p
            WHERE p.account = v.account AND p.livemode = v.livemode AND p.invoice = v.id
            ORDER BY p.created DESC NULLS LAST, p.id LIMIT 1) p ON true
        WHERE NOT v.deleted AND v.status IN ('open', 'uncollectible') AND v.attempt_count > 0
    ), failed AS (
        SELECT v.account, v.livemode, v.currency, 'invoice' AS source, v.id, v.customer, v.customer_email AS email,
               COALESCE(v.amount_remaining, v.amount_due) AS amount, v.status,
               COALESCE(p.last_error_code, c.failure_code) AS failure_code,
               COALESCE(p.last_error_message, c.failure_message) AS failure_message,
               v.attempt_count, v.next_payment_attempt, v.created
        FROM invoice v
        LEFT JOIN stripe.payment_intents p ON p.account = v.account AND p.livemode = v.livemode AND p.id = v.payment
        LEFT JOIN stripe.charges c ON c.account = v.account AND c.livemode = v.livemode
                                  AND c.id = COALESCE(v.attempt, p.latest_charge)
        UNION ALL
        SELECT p.account, p.livemode, p.currency, 'payment_intent', p.id, p.customer, p.receipt_email, p.amount, p.status,
               p.last_error_code, p.last_error_message, NULL, NULL, p.created
        FROM payment p
        -- What becomes of an invoice's payment is the invoice's, whatever its status.
        WHERE NOT EXISTS (SELECT FROM stripe.invoices v
                          WHERE v.account = p.account AND v.livemode = p.livemode AND v.id = p.invoice)
          AND NOT EXISTS (SELECT FROM stripe.invoices v
                          WHERE v.account = p.account AND v.livemode = p.livemode AND v.payment_intent = p.id)
          AND NOT EXISTS (SELECT FROM stripe.invoice_payments y
                          WHERE y.account = p.account AND y.livemode = p.livemode AND y.payment_intent = p.id AND NOT y.deleted)
        UNION ALL
        SELECT c.account, c.livemode, c.currency, 'charge', c.id, c.customer, c.receipt_email, c.amount, c.status,
               c.failure_code, c.failure_message, NULL, NULL, c.created
        FROM stripe.charges c
        WHERE NOT c.deleted AND c.status = 'failed' AND c.payment_intent IS NULL AND c.invoice IS NULL
    )
    SELECT f.account, f.livemode, f.currency, f.source, f.id, f.customer, COALESCE(f.email, k.email) AS email, f.amount, f.status,
           f.failure_code, f.failure_message, f.attempt_count, f.next_payment_attempt, f.created
    FROM failed f
    LEFT JOIN stripe.customers k ON k.account = f.account AND k.livemode = f.livemode AND k.id = f.customer AND NOT k.deleted;
COMMENT ON VIEW stripe.failed_payments IS 'What was tried and not paid: invoices open or uncollectible after an attempt, payments outside invoices that wait for another way to pay or were cancelled, and failed charges that belong to neither. In basil no event names both a failed invoice and its payment: then both stand here, the invoice without a reason';

-- Failures -----------------------------------------------------------------------------------

COMMENT ON INDEX tollgate.failures_once IS 'One row for each event and what failed of it';
