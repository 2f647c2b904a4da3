-- An event that comes alone is written by a function of its own, without arrays: of the 480 µs of
-- Postgres' CPU that the log and the tables took for one, the arrays, the loops over them and the
-- calls within calls were 110.

CREATE FUNCTION tollgate.make_commit_event() RETURNS void LANGUAGE plpgsql AS $make$
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
                        WHEN (t.incarnation, t.phase, t.as_of) = (_incarnation, _phase, _created) THEN 'open'
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
    -- As in place_events.
    PERFORM pg_advisory_xact_lock(7809644627822867557);
    INSERT INTO tollgate.positions AS p (position, created, id)
    VALUES (nextval('tollgate.position_seq'), _created, _id) RETURNING p.position INTO "position";
    IF _notify = 'event' THEN
        PERFORM pg_notify('tollgate_events', '{"position":' || commit_event."position" || ',' || _notice);
    ELSIF _notify = 'batch' THEN
        PERFORM pg_notify('tollgate_events', json_build_object('position', commit_event."position", 'events', 1)::text);
    END IF;
END
$body$
$function$, _branches);
END
$make$;
COMMENT ON FUNCTION tollgate.make_commit_event IS 'Makes commit_event of the expressions in tollgate.billing_columns. To be called again after a change to these';

SELECT tollgate.make_commit_event();
COMMENT ON FUNCTION tollgate.commit_event IS 'As commit_events, for a single event that shows an object. Returns its position, or null if it was there before. SQLSTATE TG001 where commit_events raises it, and if the event was there in an earlier API version; TG002 and TG003 as there';

COMMENT ON TABLE tollgate.billing_columns IS 'The typed columns of the billing tables, and what each is computed from whenever a row is written. After a change here: SELECT tollgate.make_write_objects(''stripe''), tollgate.make_commit_event()';

CREATE OR REPLACE FUNCTION tollgate.add_billing_column(_table text, _name text, _type text, _expression text, _about text) RETURNS void
    LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('ALTER TABLE stripe.%I ADD COLUMN %I %s', _table, _name, _type);
    EXECUTE format('COMMENT ON COLUMN stripe.%I.%I IS %L', _table, _name, _about);
    INSERT INTO tollgate.billing_columns (table_name, name, expression) VALUES (_table, _name, _expression);
    PERFORM tollgate.make_write_objects('stripe'), tollgate.make_commit_event();
    EXECUTE format('UPDATE stripe.%I SET %I = %s', _table, _name, _expression);
END
$$;
