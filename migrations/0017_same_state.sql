-- Events that tie and show the same state, as charge.succeeded and charge.updated of one second may:
-- their row is enough to see that. What else ties takes the log, and more steps. The order rule looks
-- at less than jsonb does: what is equal here is one state there, too.

CREATE OR REPLACE FUNCTION tollgate.make_write_objects(_schema text) RETURNS void LANGUAGE plpgsql AS $make$
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
                       array_agg(f.at) FILTER (WHERE f.verdict = 'same'), tied || array_agg(f.at) FILTER (WHERE f.verdict = 'tied'),
                       unclear || array_agg(f.at) FILTER (WHERE f.verdict = 'unclear')
                INTO _there, _lower, _same, tied, unclear
                FROM (SELECT n.at,
                             CASE WHEN t.as_of_event = _as_of_event[n.at] THEN 'done'
                                  -- Several of the batch are to be settled first; but they may have a say in what stands higher.
                                  WHEN _crowd[n.at] > 1 AND (t.incarnation, t.phase, t.as_of) <= (_incarnation[n.at], _phase[n.at], _as_of[n.at]) THEN 'done'
                                  WHEN (t.incarnation, t.phase, t.as_of) < (_incarnation[n.at], _phase[n.at], _as_of[n.at]) THEN 'lower'
                                  WHEN (t.incarnation, t.phase, t.as_of) = (_incarnation[n.at], _phase[n.at], _as_of[n.at]) THEN
                                       CASE WHEN t.order_basis IN ('unique', 'same') AND NOT t.rests_on_base AND t.object = _object[n.at]::jsonb
                                            THEN 'same' ELSE 'tied' END
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
                IF _same IS NOT NULL THEN
                    -- The rule takes the last of them by id.
                    UPDATE %1$I.%2$I AS t SET
                        as_of_event = greatest(t.as_of_event, _as_of_event[n.at]), order_basis = 'same',
                        api_version = CASE WHEN t.as_of_event < _as_of_event[n.at] THEN _api_version[n.at] ELSE t.api_version END
                    FROM unnest(_same) AS n (at)
                    WHERE t.account = _account[n.at] AND t.livemode = _livemode[n.at] AND t.id = _id[n.at]%3$s
                      AND (t.order_basis <> 'same' OR t.as_of_event < _as_of_event[n.at]);
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
    _same    int[];
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

SELECT tollgate.make_write_objects('stripe');

CREATE OR REPLACE FUNCTION tollgate.make_commit_event() RETURNS void LANGUAGE plpgsql AS $make$
DECLARE
    _source text := $source$
                    SELECT _account AS account, _livemode AS livemode, coalesce(_object_type, '') AS object_type, _object_id AS id,
                           _incarnation AS incarnation, _phase AS phase, _created AS as_of, _id AS as_of_event,
                           'unique' AS order_basis, false AS rests_on_base,
                           _api_version AS api_version, _links::jsonb AS links, _object::jsonb AS object
                    OFFSET 0$source$; -- which keeps the object from being parsed for every column
    _branches text := '';
    _table text;
BEGIN
    -- What comes most often stands first: the names are compared one by one.
    FOR _table IN SELECT t FROM tollgate.billing_tables() t
                  ORDER BY array_position(ARRAY['invoices', 'charges', 'payment_intents', 'subscriptions', 'customers'], t), t LOOP
        _branches := _branches || format($branch$
        WHEN %1$L THEN
            SELECT CASE WHEN t.as_of_event = _id THEN 'done'
                        WHEN (t.incarnation, t.phase, t.as_of) < (_incarnation, _phase, _created) THEN 'lower'
                        WHEN (t.incarnation, t.phase, t.as_of) = (_incarnation, _phase, _created) THEN
                             CASE WHEN t.order_basis IN ('unique', 'same') AND NOT t.rests_on_base AND t.object = _object::jsonb
                                  THEN 'same' ELSE 'open' END
                        WHEN t.rests_on_base
                             OR t.incarnation = _incarnation AND _links <> '{}'
                                AND NOT tollgate.mentions(t.object, _links::jsonb) THEN 'open'
                        ELSE 'done' END
            INTO _verdict
            FROM stripe.%1$I t WHERE t.account = _account AND t.livemode = _livemode AND t.id = _object_id%2$s
            FOR NO KEY UPDATE;
            IF _verdict IS NULL THEN%3$s;
                IF NOT FOUND THEN
                    RAISE EXCEPTION 'another transaction made the row meanwhile' USING ERRCODE = 'TG003';
                END IF;
            ELSIF _verdict = 'lower' THEN%4$s;
            ELSIF _verdict = 'same' THEN
                UPDATE stripe.%1$I AS t SET
                    as_of_event = greatest(t.as_of_event, _id), order_basis = 'same',
                    api_version = CASE WHEN t.as_of_event < _id THEN _api_version ELSE t.api_version END
                WHERE t.account = _account AND t.livemode = _livemode AND t.id = _object_id%2$s
                  AND (t.order_basis <> 'same' OR t.as_of_event < _id);
            END IF;$branch$,
            _table, CASE WHEN _table = 'objects' THEN $$ AND t.object_type = coalesce(_object_type, '')$$ END,
            tollgate.insert_rows('stripe', _table, _source),
            tollgate.update_rows('stripe', _table, _source,
                'CASE WHEN t.incarnation <> n.incarnation THEN n.links ELSE t.links || n.links END', 'true'));
    END LOOP;
    EXECUTE format($function$
CREATE OR REPLACE FUNCTION tollgate.commit_event(
    _created timestamptz, _id text, _endpoint text, _account text, _livemode boolean, _type text,
    _object_type text, _object_id text, _api_version text, _source text, _raw bytea,
    _table text, _incarnation bigint, _phase smallint, _links text, _object text,
    _generation bigint, _notice text, _notify text, OUT "position" bigint
) LANGUAGE plpgsql
    -- A row by its key, whatever the statistics say; planned once, and not compiled.
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan SET jit = off
AS $body$
#variable_conflict use_column
DECLARE
    _now     bigint;
    _verdict text;
    _done    boolean;
BEGIN
    INSERT INTO tollgate.event_log
        (created, id, endpoint, account, livemode, type, object_type, object_id, api_version, source, raw)
    VALUES (_created, _id, _endpoint, _account, _livemode, _type, _object_type, _object_id, _api_version, _source, _raw)
    ON CONFLICT DO NOTHING
    RETURNING (SELECT g.generation FROM tollgate.handlers_generation g) INTO _now;
    IF NOT FOUND THEN
        IF EXISTS (SELECT FROM tollgate.event_log l WHERE l.created = _created AND l.id = _id
                   AND _api_version COLLATE "C" > coalesce(l.api_version, '')) THEN
            RAISE EXCEPTION 'the event is there in an earlier version' USING ERRCODE = 'TG001';
        END IF;
        RETURN;
    END IF;
    IF _generation <> _now THEN
        RAISE EXCEPTION 'other handlers are registered' USING ERRCODE = 'TG002';
    END IF;
    CASE _table%s
    END CASE;
    IF _verdict = 'open' THEN
        RAISE EXCEPTION 'events of one object tie' USING ERRCODE = 'TG001';
    END IF;
    -- As in place_events. Calls for their effect alone are assignments: each PERFORM would be a query.
    _done := pg_advisory_xact_lock(7809644627822867557) IS NOT NULL;
    INSERT INTO tollgate.positions AS p (position, created, id)
    VALUES (nextval('tollgate.position_seq'), _created, _id) RETURNING p.position INTO "position";
    IF _notify = 'event' THEN
        _done := pg_notify('tollgate_events', '{"position":' || commit_event."position" || ',' || _notice) IS NOT NULL;
    ELSIF _notify = 'batch' THEN
        _done := pg_notify('tollgate_events', json_build_object('position', commit_event."position", 'events', 1)::text) IS NOT NULL;
    END IF;
END
$body$
$function$, _branches);
END
$make$;

SELECT tollgate.make_commit_event();
