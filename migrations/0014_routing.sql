-- Routing: consumers that see a part of the log by endpoint, account, mode and metadata, so that
-- several applications share one Stripe account; and Tollgate's own events, types tollgate.…, which
-- nobody gets who does not name them.

SET LOCAL lock_timeout = '5s';

-- Types --------------------------------------------------------------------------------------

CREATE FUNCTION tollgate.wants(_types text[], _type text) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN _type LIKE ANY (tollgate.likes(CASE WHEN _type LIKE 'tollgate.%' THEN array_remove(_types, '*') ELSE _types END));
COMMENT ON FUNCTION tollgate.wants IS 'Whether one of the patterns fits the event type. * does not fit types that begin with tollgate., which are not Stripe''s: name them, tollgate.* or tollgate.snapshot';

COMMENT ON COLUMN tollgate.handlers.pattern IS 'Which event types: invoice.paid, invoice.* or *, which is all of Stripe''s, without tollgate.…';

-- Filters ------------------------------------------------------------------------------------

CREATE FUNCTION tollgate.has_metadata(_raw bytea, _wanted jsonb) RETURNS boolean LANGUAGE plpgsql IMMUTABLE STRICT COST 1000 AS $$
DECLARE
    _body   text;
    _values jsonb;
BEGIN
    _body := convert_from(_raw, 'UTF8');
    IF strpos(_body, '\') = 0 THEN
        -- Nothing is escaped: a text that is not there as it is, is not there. To look for it takes a
        -- tenth of the time that parsing takes.
        _values := jsonb_path_query_array(_wanted, '$.*');
        FOR _n IN 0..jsonb_array_length(_values) - 1 LOOP
            IF strpos(_body, '"' || (_values ->> _n) || '"') = 0 THEN
                RETURN false;
            END IF;
        END LOOP;
    END IF;
    RETURN coalesce((tollgate.json_of(_body) #> '{data,object,metadata}')::jsonb @> _wanted, false);
EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
    -- Half a surrogate pair somewhere is legal JSON, but Postgres cannot make text of it. The rest counts.
    BEGIN
        RETURN coalesce((regexp_replace(tollgate.payload(_raw)::text, '(?<!\\)((?:\\\\)*)\\u[dD][89a-fA-F][0-9a-fA-F]{2}', '\1\\ufffd', 'g')::json
            #> '{data,object,metadata}')::jsonb @> _wanted, false);
    EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
        RETURN false;
    END;
END
$$;
COMMENT ON FUNCTION tollgate.has_metadata IS 'Whether the object of an event has all of these metadata. False, and no error, for a body that Postgres cannot read: no event may keep a consumer from the next';

-- Inlined: bodies, which are kept apart, are only read if the rest fits.
CREATE FUNCTION tollgate.routed(
    _endpoints text[], _accounts text[], _mode boolean, _metadata jsonb, _endpoint text, _account text, _livemode boolean, _raw bytea
) RETURNS boolean
    LANGUAGE sql IMMUTABLE
    RETURN CASE WHEN _endpoint <> ALL (_endpoints) OR _account <> ALL (_accounts) OR _livemode <> _mode THEN false
                WHEN _metadata IS NULL THEN true
                ELSE tollgate.has_metadata(_raw, _metadata) END;
COMMENT ON FUNCTION tollgate.routed IS 'Whether an event fits a consumer''s filter: endpoints, accounts, mode and metadata, each null for any';

CREATE FUNCTION tollgate.filter_mistake(_endpoints text[], _accounts text[], _metadata jsonb, OUT mistake text, OUT hint text)
    LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF cardinality(_endpoints) NOT BETWEEN 1 AND 100 THEN
        mistake := format('a consumer has 1 to 100 endpoints, or any, but not %s', cardinality(_endpoints));
        hint := 'Null is for any endpoint; tollgate.alter_consumer(…, unset => ''{endpoints}'') goes back to it.';
    ELSIF EXISTS (SELECT FROM unnest(_endpoints) e WHERE e IS NULL OR e !~ '^[a-z0-9_-]{1,64}$') THEN
        SELECT format('%s is no name of an endpoint', coalesce(quote_literal(left(e, 80)), 'null')) INTO mistake
        FROM unnest(_endpoints) e WHERE e IS NULL OR e !~ '^[a-z0-9_-]{1,64}$' LIMIT 1;
        hint := 'A name is 1 to 64 of a-z, 0-9, - and _; that of /webhooks/stripe is default.';
    ELSIF cardinality(_accounts) NOT BETWEEN 1 AND 1000 THEN
        mistake := format('a consumer has 1 to 1000 accounts, or any, but not %s', cardinality(_accounts));
        hint := 'Null is for any account; tollgate.alter_consumer(…, unset => ''{accounts}'') goes back to it.';
    ELSIF EXISTS (SELECT FROM unnest(_accounts) a WHERE a IS NULL OR a !~ '^([^\s_]+_\S+)?$' OR octet_length(a) > 255) THEN
        SELECT format('%s is no account', coalesce(quote_literal(left(a, 80)), 'null')) INTO mistake
        FROM unnest(_accounts) a WHERE a IS NULL OR a !~ '^([^\s_]+_\S+)?$' OR octet_length(a) > 255 LIMIT 1;
        hint := 'An account is written acct_…, 255 bytes at most; an empty text stands for the platform''s own.';
    ELSIF jsonb_typeof(_metadata) <> 'object' OR _metadata = '{}' THEN
        mistake := 'metadata must be an object with something in it, not ' || left(_metadata::text, 80);
        hint := 'For example {"app": "shop"}. Null is for any; tollgate.alter_consumer(…, unset => ''{metadata}'') goes back to it.';
    ELSIF (SELECT count(*) FROM jsonb_object_keys(_metadata)) > 50 THEN
        mistake := format('an object of Stripe''s has at most 50 metadata, not %s', (SELECT count(*) FROM jsonb_object_keys(_metadata)));
        hint := 'All of them must be equal for an event to fit.';
    ELSE
        SELECT format('no object of Stripe''s can have the metadata %s: %s', to_json(left(m.key, 80)), left(m.value::text, 80)),
               'A key has 1 to 40 characters, a value is a text of 1 to 500.' INTO mistake, hint
        FROM jsonb_each(_metadata) m
        WHERE jsonb_typeof(m.value) <> 'string' OR length(m.key) NOT BETWEEN 1 AND 40 OR length(m.value #>> '{}') NOT BETWEEN 1 AND 500 LIMIT 1;
    END IF;
END
$$;
COMMENT ON FUNCTION tollgate.filter_mistake IS 'What is wrong with a consumer''s filter, and what would be right; nulls if nothing is';

CREATE FUNCTION tollgate.check_filter(_endpoints text[], _accounts text[], _metadata jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    _found record := tollgate.filter_mistake(_endpoints, _accounts, _metadata);
BEGIN
    IF _found.mistake IS NOT NULL THEN
        RAISE EXCEPTION '%', _found.mistake USING ERRCODE = 'invalid_parameter_value', HINT = _found.hint;
    END IF;
END
$$;
COMMENT ON FUNCTION tollgate.check_filter IS 'Raises if something is wrong with a consumer''s filter';

CREATE FUNCTION tollgate.check_unset(_unset text[], _given text[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    _part text;
BEGIN
    FOREACH _part IN ARRAY coalesce(_unset, '{}') LOOP
        IF _part IS NULL OR _part NOT IN ('endpoints', 'accounts', 'livemode', 'metadata') THEN
            RAISE EXCEPTION '% is nothing that can be unset', quote_nullable(_part) USING
                ERRCODE = 'invalid_parameter_value', HINT = 'The parts of a filter are endpoints, accounts, livemode and metadata.';
        ELSIF _part = ANY (_given) THEN
            RAISE EXCEPTION '% cannot be set and unset at once', _part USING
                ERRCODE = 'invalid_parameter_value', HINT = 'What is given takes the place of what was there.';
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION tollgate.check_unset IS 'Raises unless these are parts of a filter, and none of them is given as well';

ALTER TABLE tollgate.consumers
    ADD COLUMN endpoints text[],
    ADD COLUMN accounts text[],
    ADD COLUMN livemode boolean,
    ADD COLUMN metadata jsonb,
    ADD CONSTRAINT consumers_filter CHECK ((tollgate.filter_mistake(endpoints, accounts, metadata)).mistake IS NULL);
COMMENT ON COLUMN tollgate.consumers.types IS 'Which event types: invoice.paid, invoice.* or *; one must fit. * is all of Stripe''s, without tollgate.…';
COMMENT ON COLUMN tollgate.consumers.endpoints IS 'Only events that one of these endpoints received first; null for any';
COMMENT ON COLUMN tollgate.consumers.accounts IS 'Only events of these connected accounts, an empty text for the platform''s own; null for any';
COMMENT ON COLUMN tollgate.consumers.livemode IS 'True for live events only, false for test events only; null for both';
COMMENT ON COLUMN tollgate.consumers.metadata IS 'Only events whose object has all of these metadata: {"app": "shop"}; null for any';

-- Reading the log ----------------------------------------------------------------------------

CREATE FUNCTION tollgate.next_events(
    _after bigint, _consumer tollgate.consumers, _keyed boolean, _limit int,
    OUT positions bigint[], OUT keys bigint[], OUT reached bigint
) LANGUAGE plpgsql STABLE
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan SET jit = off
AS $$
DECLARE
    _types     text[] := _consumer.types;
    _endpoints text[] := _consumer.endpoints;
    _accounts  text[] := _consumer.accounts;
    _mode      boolean := _consumer.livemode;
    _metadata  jsonb := _consumer.metadata;
    _filtered  boolean := num_nonnulls(_endpoints, _accounts, _mode, _metadata) > 0;
    _all       boolean := '*' = ANY (_types);
    _own       boolean := 'tollgate.*' = ANY (_types);
    -- Some of Tollgate's own are named, and not all: these are told by their types.
    _some_own  boolean := _all AND NOT _own AND EXISTS (SELECT FROM unnest(_types) t WHERE t LIKE 'tollgate.%');
    _quick     boolean := _all AND NOT _keyed AND NOT _filtered AND NOT _some_own;
    _likes     text[] := CASE WHEN NOT _quick THEN tollgate.likes(_types) END;
    _likes_own text[] := CASE WHEN NOT _quick THEN tollgate.likes(array_remove(_types, '*')) END;
    _newest bigint := (SELECT max(p.position) FROM tollgate.positions p);
    _from   bigint := (SELECT min(p.position) - 1 FROM tollgate.positions p WHERE p.position > _after);
    _to     bigint;
    -- Bodies take time.
    _piece  int := CASE WHEN _metadata IS NULL THEN 10000 ELSE 1000 END;
    _until  timestamptz := clock_timestamp() + '250 milliseconds';
BEGIN
    reached := greatest(_after, _from);
    WHILE reached < _newest LOOP
        _from := reached;
        _to := least(_from + _piece, _newest);
        IF _quick THEN
            -- Tollgate's own are told by their ids, so that the log itself is not looked at.
            SELECT array_agg(n.position) INTO positions FROM (
                SELECT p.position FROM tollgate.positions p
                WHERE p.position > _from AND p.position <= _to AND (_own OR p.id NOT LIKE 'evt\_tollgate\_%')
                ORDER BY p.position LIMIT _limit) n;
        ELSIF NOT _filtered THEN
            SELECT array_agg(n.position), array_agg(n.key) INTO positions, keys FROM (
                SELECT p.position, CASE WHEN _keyed THEN tollgate.object_key(l.account, l.livemode, l.object_id) END AS key
                FROM tollgate.positions p CROSS JOIN LATERAL (
                    SELECT e.account, e.livemode, e.object_id FROM tollgate.event_log e
                    WHERE e.created = p.created AND e.id = p.id
                      AND e.type LIKE ANY (CASE WHEN _all AND e.type LIKE 'tollgate.%' THEN _likes_own ELSE _likes END)
                    OFFSET 0) l -- which has the planner begin with positions
                WHERE p.position > _from AND p.position <= _to
                ORDER BY p.position LIMIT _limit) n;
        ELSE
            SELECT array_agg(n.position), array_agg(n.key) INTO positions, keys FROM (
                SELECT p.position, CASE WHEN _keyed THEN tollgate.object_key(l.account, l.livemode, l.object_id) END AS key
                FROM tollgate.positions p CROSS JOIN LATERAL (
                    SELECT e.account, e.livemode, e.object_id FROM tollgate.event_log e
                    WHERE e.created = p.created AND e.id = p.id
                      -- One expression, or the planner may begin with the bodies.
                      AND CASE WHEN e.type LIKE ANY (CASE WHEN _all AND e.type LIKE 'tollgate.%' THEN _likes_own ELSE _likes END)
                               THEN tollgate.routed(_endpoints, _accounts, _mode, _metadata, e.endpoint, e.account, e.livemode, e.raw) END
                    OFFSET 0) l
                WHERE p.position > _from AND p.position <= _to
                ORDER BY p.position LIMIT _limit) n;
        END IF;
        reached := CASE WHEN cardinality(positions) = _limit THEN positions[_limit] ELSE _to END;
        EXIT WHEN positions IS NOT NULL OR clock_timestamp() > _until;
    END LOOP;
END
$$;
COMMENT ON FUNCTION tollgate.next_events(bigint, tollgate.consumers, boolean, int) IS 'The first events for a consumer after a position, a limited number of them, with their objects'' keys if asked for, and how far the log has been read for them. Reads for a quarter of a second at most';

CREATE OR REPLACE FUNCTION tollgate.pick_ordered(_consumer tollgate.consumers, _progress tollgate.consumer_progress, _limit int)
    RETURNS TABLE (fresh bigint[], keys bigint[], held bigint[], held_keys bigint[], cursor bigint, changed boolean) LANGUAGE plpgsql
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan SET jit = off
AS $$
#variable_conflict use_variable
DECLARE
    -- Beyond that no more of the log is read until some of them are free: it bounds the row.
    _most_held CONSTANT int := 512;
    _live bigint[] := ARRAY(SELECT k FROM tollgate.claims c, unnest(c.keys) k WHERE c.consumer = _consumer.name AND k IS NOT NULL);
    _new  record;
    _read boolean := false;
    _positions bigint[] := _progress.held;
    _objects   bigint[] := _progress.held_keys;
    _deferred  bigint[];
    _until timestamptz := clock_timestamp() + '250 milliseconds';
BEGIN
    cursor := _progress.cursor;
    changed := false;
    LOOP
        -- Of each object the first, unless an earlier one is with a worker or has failed.
        SELECT coalesce(array_agg(j.position ORDER BY j.position) FILTER (WHERE j.fate = 'take'), '{}'),
               coalesce(array_agg(j.key ORDER BY j.position) FILTER (WHERE j.fate = 'take'), '{}'),
               coalesce(array_agg(j.position ORDER BY j.position) FILTER (WHERE j.fate = 'hold'), '{}'),
               coalesce(array_agg(j.key ORDER BY j.position) FILTER (WHERE j.fate = 'hold'), '{}'),
               array_agg(j.position) FILTER (WHERE j.fate = 'defer')
        INTO fresh, keys, held, held_keys, _deferred
        FROM (
            SELECT c.position, c.key, CASE
                WHEN c.key IS NULL THEN 'take'
                WHEN EXISTS (SELECT FROM tollgate.deliveries d WHERE d.consumer = _consumer.name AND d.key = c.key AND d.state <> 'dead') THEN 'defer'
                WHEN c.key = ANY (_live) OR row_number() OVER (PARTITION BY c.key ORDER BY c.position) > 1 THEN 'hold'
                ELSE 'take' END AS fate
            FROM unnest(_positions, _objects) AS c (position, key)) j;
        IF _deferred IS NOT NULL THEN
            changed := true;
            INSERT INTO tollgate.deliveries (consumer, position, state, key, created, event_id, event_type, attempts)
            SELECT _consumer.name, p.position, 'deferred', tollgate.object_key(l.account, l.livemode, l.object_id), l.created, l.id, l.type, 0
            FROM unnest(_deferred) AS n (position)
            JOIN tollgate.positions p USING (position) JOIN tollgate.event_log l ON l.created = p.created AND l.id = p.id;
        END IF;
        EXIT WHEN cardinality(fresh) >= _limit OR cardinality(held) >= _most_held
            OR (_read AND cardinality(fresh) > 0) OR clock_timestamp() > _until;
        _new := tollgate.next_events(cursor, _consumer, true, _limit - cardinality(fresh));
        EXIT WHEN _new.reached = cursor;
        cursor := _new.reached;
        _read := true;
        _positions := fresh || held || coalesce(_new.positions, '{}');
        _objects := keys || held_keys || coalesce(_new.keys, '{}');
    END LOOP;
    -- More may be free than are wanted.
    held := fresh[_limit + 1:] || held;
    held_keys := keys[_limit + 1:] || held_keys;
    fresh := fresh[:_limit];
    keys := keys[:_limit];
    changed := changed OR held <> _progress.held;
    RETURN NEXT;
END
$$;

CREATE OR REPLACE FUNCTION tollgate.take(_name text, _max int, OUT claim bigint, OUT positions bigint[], OUT attempts int[], OUT due timestamptz)
LANGUAGE plpgsql AS $$
#variable_conflict use_variable
DECLARE
    _now       timestamptz;
    _consumer  tollgate.consumers;
    _target    tollgate.targets;
    _progress  tollgate.consumer_progress := tollgate.lock_consumer(_name);
    _old_cursor bigint := _progress.cursor;
    _room      int := least(_max, 1000);
    _in_flight int;
    _late      boolean;
    _changed   boolean := false;
    _paced     record;
    _again     record;
    _picked    record;
    _fresh     bigint[] := '{}';
    _keys      bigint[] := '{}';
    _slot      int;
    _stride    int;
BEGIN
    IF _max IS NULL OR _max < 1 THEN
        RAISE EXCEPTION 'at least one event must be asked for, not %', coalesce(_max::text, 'null') USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- With a snapshot from before the lock, an event could be put behind one that is settled by now,
    -- and nobody would let it go.
    IF current_setting('transaction_isolation') IN ('repeatable read', 'serializable') THEN
        RAISE EXCEPTION 'events are claimed in a transaction of level read committed, not %', current_setting('transaction_isolation') USING
            ERRCODE = 'invalid_transaction_state', HINT = 'Claim in a transaction of its own; acknowledge in one of any level.';
    END IF;
    SELECT * INTO _consumer FROM tollgate.consumers c WHERE c.name = _name;
    IF _consumer.paused_at IS NOT NULL THEN
        RETURN;
    END IF;
    _now := clock_timestamp();
    SELECT coalesce(sum(cardinality(c.fresh) + c.redelivered), 0), coalesce(bool_or(c.expires_at <= _now), false)
    INTO _in_flight, _late FROM tollgate.claims c WHERE c.consumer = _name;
    IF _late THEN
        PERFORM tollgate.end_leases(_consumer, _now);
        _now := clock_timestamp(); -- so that what was in them is due
        SELECT coalesce(sum(cardinality(c.fresh) + c.redelivered), 0) INTO _in_flight FROM tollgate.claims c WHERE c.consumer = _name;
    END IF;
    SELECT * INTO _target FROM tollgate.targets t WHERE t.consumer = _name;
    IF FOUND THEN
        _paced := tollgate.pace(_target, _in_flight, _progress, _room);
        _progress := _paced._progress;
        _room := _paced._room;
        due := _paced._due;
    END IF;
    IF _room < 1 THEN
        RETURN;
    END IF;

    positions := '{}';
    attempts := '{}';
    IF EXISTS (SELECT FROM tollgate.deliveries d WHERE d.consumer = _name AND d.state = 'waiting' AND d.next_attempt <= _now) THEN
        _again := tollgate.due_again(_consumer, _room);
        positions := coalesce(_again.positions, '{}');
        attempts := coalesce(_again.attempts, '{}');
        _room := CASE WHEN _again.alone THEN 0 ELSE _room - cardinality(positions) END;
    END IF;
    IF _room > 0 THEN
        IF _consumer.ordering = 'object' THEN
            SELECT * INTO _picked FROM tollgate.pick_ordered(_consumer, _progress, _room);
            _fresh := _picked.fresh;
            _keys := _picked.keys;
            _progress.held := _picked.held;
            _progress.held_keys := _picked.held_keys;
            _progress.cursor := _picked.cursor;
            _changed := _picked.changed;
        ELSE
            SELECT n.positions, n.reached INTO _picked FROM tollgate.next_events(_progress.cursor, _consumer, false, _room) n;
            _fresh := coalesce(_picked.positions, '{}');
            _progress.cursor := coalesce(_picked.reached, _progress.cursor);
        END IF;
    END IF;

    IF positions = '{}' AND _fresh = '{}' THEN
        -- Not when there is room for more, where there is nothing to give: an idle consumer with a
        -- rate would ask for each token. And nothing that was due and waits for its object: what it
        -- waits for will be settled, or its lease runs out.
        due := least((SELECT min(d.next_attempt) FROM tollgate.deliveries d
                      WHERE d.consumer = _name AND d.state = 'waiting' AND d.next_attempt > _now),
                     (SELECT min(c.expires_at) FROM tollgate.claims c WHERE c.consumer = _name));
        -- What does not fit is passed over; not written down each time, or a quiet consumer would
        -- write for every event of the others. Sooner where bodies are looked into, for what is not
        -- written down is read again.
        _stride := CASE WHEN _consumer.metadata IS NULL THEN 1000 ELSE 50 END;
        IF _changed OR _progress.cursor > _old_cursor + _stride THEN
            UPDATE tollgate.consumer_progress p SET cursor = _progress.cursor, held = _progress.held, held_keys = _progress.held_keys
            WHERE p.consumer = _name;
        END IF;
        IF _progress.cursor > _old_cursor + _stride THEN
            due := _now; -- reading takes turns with others: there may be more of the log
        END IF;
        RETURN;
    END IF;

    SELECT c.slot INTO _slot FROM tollgate.claims c
    WHERE c.consumer = _name AND c.claim IS NULL LIMIT 1 FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        INSERT INTO tollgate.claims (consumer) VALUES (_name) RETURNING slot INTO _slot;
    END IF;
    -- Chance and not a count: if this is undone, and the worker does not know, its number must not
    -- become that of another's batch. 53 bits in all, so that it fits into a number of JSON.
    claim := ((1 + floor(random() * 8589934591)::bigint) << 20) + _slot;
    UPDATE tollgate.claims c SET claim = take.claim, fresh = _fresh, keys = _keys,
        redelivered = cardinality(positions), claimed_at = _now, expires_at = _now + _consumer.lease,
        taken_by = nullif(current_setting('application_name'), '')
    WHERE c.slot = _slot;
    IF positions <> '{}' THEN
        UPDATE tollgate.deliveries d SET state = 'claimed', claim = take.claim, next_attempt = NULL
        WHERE d.consumer = _name AND d.position = ANY (positions);
    END IF;
    UPDATE tollgate.consumer_progress p SET cursor = _progress.cursor, held = _progress.held, held_keys = _progress.held_keys,
        tokens = _progress.tokens - CASE WHEN _target.rate IS NULL THEN 0 ELSE cardinality(positions) + cardinality(_fresh) END,
        tokens_at = _progress.tokens_at, breaker = _progress.breaker
    WHERE p.consumer = _name;
    attempts := attempts || array_fill(1, ARRAY[cardinality(_fresh)]);
    positions := positions || _fresh;
END
$$;

-- Making and changing ------------------------------------------------------------------------
-- Dropped and made anew with more arguments, which have defaults: calls as they were go on working,
-- and there are not two that fit.

DROP FUNCTION tollgate.create_consumer(text, text[], text, text, int, interval, interval, interval, boolean);
CREATE FUNCTION tollgate.create_consumer(
    name text, types text[] DEFAULT '{*}', start text DEFAULT 'latest', ordering text DEFAULT 'none',
    max_attempts int DEFAULT 20, lease interval DEFAULT '30 seconds', retry_first interval DEFAULT '5 seconds',
    retry_most interval DEFAULT '1 hour', if_not_exists boolean DEFAULT false,
    endpoints text[] DEFAULT NULL, accounts text[] DEFAULT NULL, livemode boolean DEFAULT NULL, metadata jsonb DEFAULT NULL
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    _cursor bigint := tollgate.starting_point(start);
BEGIN
    IF name IS NULL OR name !~ '^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$' THEN
        RAISE EXCEPTION '% is no name for a consumer', quote_nullable(name) USING
            ERRCODE = 'invalid_name', HINT = 'Use letters, digits, dots, dashes and underscores, 64 at most, and begin with a letter or a digit.';
    END IF;
    PERFORM tollgate.check_filter(create_consumer.endpoints, create_consumer.accounts, create_consumer.metadata);
    INSERT INTO tollgate.consumers AS c (name, types, ordering, max_attempts, lease, retry_first, retry_most,
                                         endpoints, accounts, livemode, metadata)
    VALUES (create_consumer.name, create_consumer.types, create_consumer.ordering, create_consumer.max_attempts,
            create_consumer.lease, create_consumer.retry_first, create_consumer.retry_most,
            create_consumer.endpoints, create_consumer.accounts, create_consumer.livemode, create_consumer.metadata)
    ON CONFLICT DO NOTHING;
    IF FOUND THEN
        INSERT INTO tollgate.consumer_progress (consumer, cursor) VALUES (create_consumer.name, _cursor);
    ELSIF if_not_exists THEN
        SELECT p.cursor INTO _cursor FROM tollgate.consumer_progress p WHERE p.consumer = create_consumer.name;
    ELSE
        RAISE EXCEPTION 'there is a consumer % already', quote_literal(create_consumer.name) USING
            ERRCODE = 'duplicate_object', HINT = 'tollgate.alter_consumer changes it; if_not_exists => true leaves it as it is.';
    END IF;
    RETURN _cursor;
END
$$;
COMMENT ON FUNCTION tollgate.create_consumer IS 'Makes a consumer; returns the position after which it begins. start: latest, earliest, a time or a position. endpoints, accounts (an empty text for the platform''s own), livemode and metadata leave out what does not fit; null for any';

DROP FUNCTION tollgate.alter_consumer(text, text[], text, int, interval, interval, interval);
CREATE FUNCTION tollgate.alter_consumer(
    name text, types text[] DEFAULT NULL, ordering text DEFAULT NULL, max_attempts int DEFAULT NULL, lease interval DEFAULT NULL,
    retry_first interval DEFAULT NULL, retry_most interval DEFAULT NULL,
    endpoints text[] DEFAULT NULL, accounts text[] DEFAULT NULL, livemode boolean DEFAULT NULL, metadata jsonb DEFAULT NULL,
    unset text[] DEFAULT NULL
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    _progress tollgate.consumer_progress := tollgate.lock_consumer(name);
    _old      text := (SELECT c.ordering FROM tollgate.consumers c WHERE c.name = alter_consumer.name);
BEGIN
    PERFORM tollgate.check_filter(alter_consumer.endpoints, alter_consumer.accounts, alter_consumer.metadata);
    PERFORM tollgate.check_unset(alter_consumer.unset, array_remove(ARRAY[
        CASE WHEN alter_consumer.endpoints IS NOT NULL THEN 'endpoints' END, CASE WHEN alter_consumer.accounts IS NOT NULL THEN 'accounts' END,
        CASE WHEN alter_consumer.livemode IS NOT NULL THEN 'livemode' END, CASE WHEN alter_consumer.metadata IS NOT NULL THEN 'metadata' END], NULL));
    IF alter_consumer.ordering <> _old THEN
        -- Of workers that died; while the consumer is paused nobody else takes these back.
        PERFORM tollgate.end_leases(c, clock_timestamp()) FROM tollgate.consumers c WHERE c.name = alter_consumer.name;
        IF EXISTS (SELECT FROM tollgate.claims k WHERE k.consumer = alter_consumer.name AND k.claim IS NOT NULL) THEN
            RAISE EXCEPTION 'consumer % has events in flight', quote_literal(alter_consumer.name) USING
                ERRCODE = 'object_in_use', HINT = 'Pause it, wait until in_flight in tollgate.consumer_status is 0, then change the ordering.';
        END IF;
        IF alter_consumer.ordering = 'object' THEN
            UPDATE tollgate.deliveries d SET key = tollgate.object_key(l.account, l.livemode, l.object_id)
            FROM tollgate.event_log l WHERE d.consumer = alter_consumer.name AND l.created = d.created AND l.id = d.event_id;
        ELSE
            -- Nothing waits for anything any more.
            INSERT INTO tollgate.deliveries (consumer, position, state, created, event_id, event_type, attempts, next_attempt)
            SELECT alter_consumer.name, p.position, 'waiting', l.created, l.id, l.type, 0, clock_timestamp()
            FROM unnest(_progress.held) h (position) JOIN tollgate.positions p USING (position)
            JOIN tollgate.event_log l ON l.created = p.created AND l.id = p.id;
            UPDATE tollgate.consumer_progress p SET held = '{}', held_keys = '{}' WHERE p.consumer = alter_consumer.name;
            UPDATE tollgate.deliveries d SET state = 'waiting', next_attempt = clock_timestamp(), key = NULL
            WHERE d.consumer = alter_consumer.name AND d.state = 'deferred';
            UPDATE tollgate.deliveries d SET key = NULL WHERE d.consumer = alter_consumer.name AND d.key IS NOT NULL;
        END IF;
    END IF;
    UPDATE tollgate.consumers c SET
        types = coalesce(alter_consumer.types, c.types), ordering = coalesce(alter_consumer.ordering, c.ordering),
        max_attempts = coalesce(alter_consumer.max_attempts, c.max_attempts), lease = coalesce(alter_consumer.lease, c.lease),
        retry_first = coalesce(alter_consumer.retry_first, c.retry_first), retry_most = coalesce(alter_consumer.retry_most, c.retry_most),
        endpoints = CASE WHEN 'endpoints' = ANY (alter_consumer.unset) THEN NULL ELSE coalesce(alter_consumer.endpoints, c.endpoints) END,
        accounts = CASE WHEN 'accounts' = ANY (alter_consumer.unset) THEN NULL ELSE coalesce(alter_consumer.accounts, c.accounts) END,
        livemode = CASE WHEN 'livemode' = ANY (alter_consumer.unset) THEN NULL ELSE coalesce(alter_consumer.livemode, c.livemode) END,
        metadata = CASE WHEN 'metadata' = ANY (alter_consumer.unset) THEN NULL ELSE coalesce(alter_consumer.metadata, c.metadata) END
    WHERE c.name = alter_consumer.name;
    PERFORM tollgate.check_lease(alter_consumer.name);
END
$$;
COMMENT ON FUNCTION tollgate.alter_consumer IS 'Changes what is given and leaves the rest; unset names parts of the filter to do without: endpoints, accounts, livemode, metadata. Types and filter count from the events on that have not been handed out yet';

-- Looking ------------------------------------------------------------------------------------

CREATE FUNCTION tollgate.unread_events(_after bigint, _consumer tollgate.consumers) RETURNS bigint LANGUAGE plpgsql STABLE
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
DECLARE
    _newest    bigint := (SELECT max(p.position) FROM tollgate.positions p);
    _types     text[] := _consumer.types;
    _endpoints text[] := _consumer.endpoints;
    _accounts  text[] := _consumer.accounts;
    _mode      boolean := _consumer.livemode;
    _metadata  jsonb := _consumer.metadata;
    _all       boolean := '*' = ANY (_types);
    _likes     text[] := tollgate.likes(_types);
    _likes_own text[] := tollgate.likes(array_remove(_types, '*'));
    _countable int := CASE WHEN _metadata IS NULL THEN 10000 ELSE 1000 END;
BEGIN
    IF _newest - _after > _countable THEN
        RETURN _newest - _after; -- counting would take longer than the answer is worth
    END IF;
    RETURN (SELECT count(*) FROM tollgate.positions p CROSS JOIN LATERAL (
                SELECT FROM tollgate.event_log e
                WHERE e.created = p.created AND e.id = p.id
                  AND CASE WHEN e.type LIKE ANY (CASE WHEN _all AND e.type LIKE 'tollgate.%' THEN _likes_own ELSE _likes END)
                           THEN tollgate.routed(_endpoints, _accounts, _mode, _metadata, e.endpoint, e.account, e.livemode, e.raw) END
                OFFSET 0) l
            WHERE p.position > _after);
END
$$;
COMMENT ON FUNCTION tollgate.unread_events(bigint, tollgate.consumers) IS 'How many events for a consumer come after a position; beyond 10000 positions, 1000 if metadata are asked for, not counted but reckoned from positions, of all events';

CREATE OR REPLACE VIEW tollgate.consumer_status AS
    SELECT c.name, coalesce(t.kind, 'sql') AS kind,
           CASE WHEN c.paused_at IS NOT NULL THEN 'paused' WHEN p.breaker <> 'closed' THEN p.breaker ELSE 'running' END AS state,
           c.types, c.ordering, p.cursor,
           tollgate.unread_events(p.cursor, c) + cardinality(p.held) + k.in_flight + d.retrying + d.deferred AS lag_events,
           coalesce(extract(epoch FROM clock_timestamp() - o.received_at), 0)::float8 AS lag_seconds,
           k.in_flight + d.claimed AS in_flight, d.retrying, d.deferred + cardinality(p.held) AS deferred, d.dead,
           k.oldest AS claimed_since, c.paused_because, p.breaker_until, t.url,
           c.endpoints, c.accounts, c.livemode, c.metadata
    FROM tollgate.consumers c
    JOIN tollgate.consumer_progress p ON p.consumer = c.name
    LEFT JOIN tollgate.targets t ON t.consumer = c.name
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(cardinality(k.fresh)), 0) AS in_flight, min(k.claimed_at) AS oldest, min((SELECT min(f) FROM unnest(k.fresh) f)) AS first
        FROM tollgate.claims k WHERE k.consumer = c.name) k
    CROSS JOIN LATERAL (
        SELECT count(*) FILTER (WHERE d.state IN ('waiting', 'claimed')) AS retrying, count(*) FILTER (WHERE d.state = 'deferred') AS deferred,
               count(*) FILTER (WHERE d.state = 'claimed') AS claimed, count(*) FILTER (WHERE d.state = 'dead') AS dead,
               min(d.position) FILTER (WHERE d.state <> 'dead') AS first
        FROM tollgate.deliveries d WHERE d.consumer = c.name) d
    LEFT JOIN LATERAL (
        SELECT l.received_at FROM tollgate.positions n JOIN tollgate.event_log l ON l.created = n.created AND l.id = n.id
        WHERE n.position = least(k.first, d.first, (SELECT min(h) FROM unnest(p.held) h),
                                 (tollgate.next_events(p.cursor, c, false, 1)).positions[1])) o ON true;
COMMENT ON COLUMN tollgate.consumer_status.lag_events IS 'Events not settled yet, dead letters apart; reckoned from positions where more than 10000 have not been handed out, 1000 if metadata are asked for';
COMMENT ON COLUMN tollgate.consumer_status.endpoints IS 'Only of these endpoints; null for any';
COMMENT ON COLUMN tollgate.consumer_status.accounts IS 'Only of these accounts, an empty text for the platform''s own; null for any';
COMMENT ON COLUMN tollgate.consumer_status.livemode IS 'Only live events, or only test events; null for both';
COMMENT ON COLUMN tollgate.consumer_status.metadata IS 'Only with these metadata; null for any';

DROP FUNCTION tollgate.unread_events(bigint, text[]);
DROP FUNCTION tollgate.next_events(bigint, text[], boolean, int);

-- Giving again -------------------------------------------------------------------------------

CREATE FUNCTION tollgate.give_again(consumer text, positions bigint[], OUT due int, OUT open int, OUT gone int, OUT excluded int)
LANGUAGE plpgsql
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    _progress tollgate.consumer_progress := tollgate.lock_consumer(give_again.consumer);
    _consumer tollgate.consumers;
    _fresh    bigint[];
    _there    bigint[];
    _foreign  bigint[];
    _made     int;
BEGIN
    -- As in tollgate.take: a snapshot from before the lock would not show what is out by now.
    IF current_setting('transaction_isolation') IN ('repeatable read', 'serializable') THEN
        RAISE EXCEPTION 'events are given again in a transaction of level read committed, not %', current_setting('transaction_isolation') USING
            ERRCODE = 'invalid_transaction_state';
    END IF;
    SELECT * INTO _consumer FROM tollgate.consumers c WHERE c.name = give_again.consumer;
    _there := ARRAY(
        SELECT p.position FROM (SELECT DISTINCT n FROM unnest(positions) n WHERE n IS NOT NULL) wanted (n)
        JOIN tollgate.positions p ON p.position = wanted.n
        WHERE EXISTS (SELECT FROM tollgate.event_log l WHERE l.created = p.created AND l.id = p.id));
    gone := (SELECT count(DISTINCT n) FROM unnest(positions) n) - cardinality(_there);
    -- What is others' by the consumer's filter, and snapshots that it does not ask for; but what it
    -- was given before, and could not take, is its own.
    _foreign := ARRAY(
        SELECT p.position FROM unnest(_there) n (position) JOIN tollgate.positions p USING (position)
        JOIN tollgate.event_log l ON l.created = p.created AND l.id = p.id
        WHERE (l.type LIKE 'tollgate.%' AND NOT tollgate.wants(_consumer.types, l.type)
               OR NOT tollgate.routed(_consumer.endpoints, _consumer.accounts, _consumer.livemode, _consumer.metadata,
                                      l.endpoint, l.account, l.livemode, l.raw))
          AND NOT EXISTS (SELECT FROM tollgate.deliveries d WHERE d.consumer = give_again.consumer AND d.position = p.position));
    excluded := cardinality(_foreign);
    _there := ARRAY(SELECT n FROM unnest(_there) n WHERE n <> ALL (_foreign));
    -- With a worker now, held, or still to come by itself.
    _fresh := _progress.held || ARRAY(SELECT f FROM tollgate.claims c, unnest(c.fresh) f WHERE c.consumer = give_again.consumer);

    -- What has a row and waits, or has been given up.
    UPDATE tollgate.deliveries d SET
        state = 'waiting', next_attempt = clock_timestamp(), reason = NULL, died_at = NULL, announced = false,
        attempts = CASE WHEN d.state = 'dead' THEN 0 ELSE d.attempts END, lost = CASE WHEN d.state = 'dead' THEN 0 ELSE d.lost END
    WHERE d.consumer = give_again.consumer AND d.position = ANY (_there) AND d.state IN ('waiting', 'dead');
    GET DIAGNOSTICS due = ROW_COUNT;

    -- What was settled gets a row again. The key has it wait for its object, and has later events of
    -- the object wait for it, as with a dead letter that is retried.
    INSERT INTO tollgate.deliveries (consumer, position, state, key, created, event_id, event_type, attempts, next_attempt)
    SELECT give_again.consumer, p.position, 'waiting',
           CASE WHEN _consumer.ordering = 'object' THEN tollgate.object_key(l.account, l.livemode, l.object_id) END,
           l.created, l.id, l.type, 0, clock_timestamp()
    FROM unnest(_there) n (position) JOIN tollgate.positions p USING (position)
    JOIN tollgate.event_log l ON l.created = p.created AND l.id = p.id
    WHERE p.position <> ALL (_fresh)
      AND (p.position <= _progress.cursor OR NOT tollgate.wants(_consumer.types, l.type))
    ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS _made = ROW_COUNT;
    due := due + _made;
    open := cardinality(_there) - due;
    IF due > 0 THEN
        NOTIFY tollgate_consumers;
    END IF;
END
$$;
COMMENT ON FUNCTION tollgate.give_again IS 'Hands events out to a consumer again, whether it has settled them, has given them up, or waits to try again; also events of other types than it wants. due: how many are now; open: how many are with a worker, wait behind another event of their object, or are still to come by themselves; gone: how many are not in the log; excluded: how many its filter leaves out, or are Tollgate''s own and not asked for. Order per object is kept among what is not settled';

-- What gateways before this one call: the same, without the last figure.
CREATE OR REPLACE FUNCTION tollgate.redeliver(consumer text, positions bigint[], OUT due int, OUT open int, OUT gone int)
LANGUAGE sql AS $$
    SELECT g.due, g.open, g.gone FROM tollgate.give_again(redeliver.consumer, redeliver.positions) g
$$;
COMMENT ON FUNCTION tollgate.redeliver IS 'tollgate.give_again without the number of events that were left out';

CREATE OR REPLACE FUNCTION tollgate.reprocess(_created timestamptz[], _id text[], _projection boolean, _handlers text[], _because text)
    RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    _asked int;
BEGIN
    INSERT INTO tollgate.failures AS f (stage, handler, created, event_id, event_type, error, attempts, next_attempt)
    SELECT w.stage, w.handler, l.created, l.id, l.type, _because, 0, clock_timestamp()
    FROM unnest(_created, _id) AS n (created, id)
    CROSS JOIN LATERAL (
        SELECT e.created, e.id, e.type FROM tollgate.event_log e WHERE e.created = n.created AND e.id = n.id LIMIT 1) l
    CROSS JOIN LATERAL (
        SELECT 'projection' AS stage, '' AS handler WHERE _projection
        UNION ALL
        SELECT 'handler', h.name FROM tollgate.handlers h
        WHERE CASE WHEN _handlers IS NULL OR l.type LIKE 'tollgate.%' THEN tollgate.wants(ARRAY[h.pattern], l.type) ELSE true END
          AND coalesce(h.name = ANY (_handlers), true)) w
    ORDER BY l.created, l.id, w.stage, w.handler
    ON CONFLICT (event_id, created, stage, handler) DO UPDATE SET
        error = excluded.error, attempts = 0, next_attempt = clock_timestamp(), last_failed = clock_timestamp();
    GET DIAGNOSTICS _asked = ROW_COUNT;
    RETURN _asked;
END
$$;
