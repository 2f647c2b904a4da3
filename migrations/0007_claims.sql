-- Claims: how events are handed out to workers, and how they are settled.
-- Locks are taken in one order: the consumer's progress, then a claim, then deliveries.

-- Looking things up --------------------------------------------------------------------------

CREATE FUNCTION tollgate.lock_consumer(_consumer text) RETURNS tollgate.consumer_progress LANGUAGE plpgsql AS $$
DECLARE
    _progress tollgate.consumer_progress;
BEGIN
    SELECT * INTO _progress FROM tollgate.consumer_progress p WHERE p.consumer = _consumer FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no consumer %', quote_nullable(_consumer) USING
            ERRCODE = 'TG010', HINT = 'tollgate.create_consumer makes one; the view tollgate.consumer_status lists them.';
    END IF;
    RETURN _progress;
END
$$;
COMMENT ON FUNCTION tollgate.lock_consumer IS 'A consumer''s progress, for this transaction alone';

CREATE FUNCTION tollgate.open_claim(_claim bigint, _for_failure boolean) RETURNS tollgate.claims LANGUAGE plpgsql AS $$
DECLARE
    _open tollgate.claims;
BEGIN
    SELECT * INTO _open FROM tollgate.claims c WHERE c.slot = (_claim & 1048575)::int AND c.claim = _claim;
    IF FOUND THEN
        IF _for_failure OR _open.redelivered > 0 THEN
            PERFORM tollgate.lock_consumer(_open.consumer);
        END IF;
        SELECT * INTO _open FROM tollgate.claims c WHERE c.slot = _open.slot AND c.claim = _claim FOR UPDATE;
        IF FOUND THEN
            RETURN _open;
        END IF;
    END IF;
    RAISE EXCEPTION 'claim % is not open', coalesce(_claim::text, 'null') USING
        ERRCODE = 'TG011', HINT = 'All of it was settled before, or its lease ran out and others got the events, or the consumer was reset or dropped.';
END
$$;
COMMENT ON FUNCTION tollgate.open_claim IS 'The claim of that number, for this transaction alone, and the consumer''s progress if more than the claim''s own row is to change';

-- Rows in deliveries -------------------------------------------------------------------------

CREATE FUNCTION tollgate.release_objects(_consumer text, _keys bigint[]) RETURNS void LANGUAGE sql AS $$
    UPDATE tollgate.deliveries d SET state = 'waiting', next_attempt = clock_timestamp()
    FROM (SELECT DISTINCT k FROM unnest(_keys) k WHERE k IS NOT NULL) released (key),
         LATERAL (SELECT f.position, f.state FROM tollgate.deliveries f
                  WHERE f.consumer = _consumer AND f.key = released.key AND f.state <> 'dead'
                  ORDER BY f.position LIMIT 1) AS first
    WHERE d.consumer = _consumer AND d.position = first.position AND first.state = 'deferred'
$$;
COMMENT ON FUNCTION tollgate.release_objects IS 'Lets the first of the events that wait behind others of these objects go, if it is first now. The consumer must be locked';

CREATE FUNCTION tollgate.retry_wait(_consumer tollgate.consumers, _attempts int) RETURNS interval LANGUAGE sql AS $$
    -- In seconds: an interval of days, doubled so often, is out of range.
    SELECT make_interval(secs => (0.8 + 0.4 * random()) * least(extract(epoch FROM _consumer.retry_most)::float8,
        extract(epoch FROM _consumer.retry_first)::float8 * power(2, least(_attempts - 1, 30))))
$$;
COMMENT ON FUNCTION tollgate.retry_wait IS 'How long to wait after so many failed attempts: doubled each time up to the most, give or take a fifth so that what failed together does not come back together';

CREATE FUNCTION tollgate.keep_failures(
    _consumer tollgate.consumers, _claim bigint, _positions bigint[], _keys bigint[], _error text, _retry_in interval, _permanent boolean, _lost boolean
) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
    _now  timestamptz := clock_timestamp();
    _dead bigint[];
    _freed bigint[];
BEGIN
    -- Fresh ones get a row now; an event that retention has dropped meanwhile is nobody's any more.
    INSERT INTO tollgate.deliveries (consumer, position, state, key, created, event_id, event_type, attempts, claim)
    SELECT _consumer.name, f.position, 'claimed', f.key, l.created, l.id, l.type, 0, _claim
    FROM unnest(_positions, _keys) AS f (position, key)
    JOIN tollgate.positions p USING (position) JOIN tollgate.event_log l ON l.created = p.created AND l.id = p.id
    ON CONFLICT DO NOTHING;
    WITH failed AS (
        UPDATE tollgate.deliveries d SET
            attempts = d.attempts + 1,
            lost = d.lost + _lost::int,
            error = left(coalesce(_error, ''), 2000),
            claim = NULL,
            state = CASE WHEN _permanent OR d.attempts + 1 >= _consumer.max_attempts THEN 'dead' ELSE 'waiting' END,
            reason = CASE WHEN _permanent THEN 'non_retryable' WHEN d.attempts + 1 >= _consumer.max_attempts THEN 'max_attempts_exceeded' END,
            died_at = CASE WHEN _permanent OR d.attempts + 1 >= _consumer.max_attempts THEN _now END,
            next_attempt = CASE WHEN NOT _permanent AND d.attempts + 1 < _consumer.max_attempts
                                THEN _now + coalesce(_retry_in, tollgate.retry_wait(_consumer, d.attempts + 1)) END
        WHERE d.claim = _claim AND d.state = 'claimed' AND d.position = ANY (_positions)
        RETURNING d.position, d.key, d.state
    )
    SELECT array_agg(f.position), array_agg(f.key) INTO _dead, _freed FROM failed f WHERE f.state = 'dead';
    IF _dead IS NOT NULL THEN
        PERFORM tollgate.release_objects(_consumer.name, _freed);
        NOTIFY tollgate_consumers; -- for a gateway to log them
    END IF;
    RETURN coalesce(_dead, '{}');
END
$$;
COMMENT ON FUNCTION tollgate.keep_failures IS 'Counts a failed attempt at events of a claim, fresh ones (with their keys) or redelivered ones, and decides what becomes of them; returns those that are dead letters now. The consumer must be locked';

CREATE FUNCTION tollgate.leave_claim(_open tollgate.claims, _positions bigint[], _redelivered int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    _fresh bigint[] := '{}';
    _keys  bigint[] := '{}';
BEGIN
    IF cardinality(_positions) < cardinality(_open.fresh) OR NOT _open.fresh <@ _positions THEN
        SELECT array_agg(f.position ORDER BY f.at), array_agg(f.key ORDER BY f.at) INTO _fresh, _keys
        FROM unnest(_open.fresh, _open.keys) WITH ORDINALITY AS f (position, key, at)
        WHERE f.position <> ALL (_positions);
        IF _open.keys = '{}' THEN
            _keys := '{}';
        END IF;
    END IF;
    IF _fresh = '{}' AND _open.redelivered = _redelivered THEN
        UPDATE tollgate.claims c SET claim = NULL, fresh = '{}', keys = '{}', redelivered = 0, claimed_at = NULL, expires_at = NULL
        WHERE c.slot = _open.slot;
    ELSE
        UPDATE tollgate.claims c SET fresh = _fresh, keys = _keys, redelivered = c.redelivered - _redelivered
        WHERE c.slot = _open.slot;
    END IF;
END
$$;
COMMENT ON FUNCTION tollgate.leave_claim IS 'Takes settled events out of a claim, null for all, so many of them redelivered ones; the row is free when nothing is left';

CREATE FUNCTION tollgate.end_leases(_consumer tollgate.consumers, _at timestamptz) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    _open tollgate.claims;
    _rows bigint[];
BEGIN
    -- One that is just being settled is left alone.
    FOR _open IN SELECT * FROM tollgate.claims c WHERE c.consumer = _consumer.name AND c.expires_at <= _at FOR UPDATE SKIP LOCKED LOOP
        _rows := ARRAY(SELECT d.position FROM tollgate.deliveries d WHERE d.claim = _open.claim AND d.state = 'claimed');
        PERFORM tollgate.keep_failures(_consumer, _open.claim, _open.fresh, _open.keys, 'the lease of the claim ran out', '0', false, true);
        PERFORM tollgate.keep_failures(_consumer, _open.claim, _rows, NULL, 'the lease of the claim ran out', '0', false, true);
        PERFORM tollgate.leave_claim(_open, _open.fresh, _open.redelivered);
    END LOOP;
END
$$;
COMMENT ON FUNCTION tollgate.end_leases IS 'Takes back what is in claims whose lease ran out; counts as an attempt. The consumer must be locked';

-- Handing out --------------------------------------------------------------------------------

CREATE FUNCTION tollgate.due_again(_consumer tollgate.consumers, _limit int, OUT positions bigint[], OUT attempts int[], OUT alone boolean)
LANGUAGE plpgsql
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan SET jit = off
AS $$
DECLARE
    _now  timestamptz := clock_timestamp();
    _live bigint[];
BEGIN
    _live := ARRAY(SELECT k FROM tollgate.claims c, unnest(c.keys) k WHERE c.consumer = _consumer.name AND k IS NOT NULL);
    SELECT array_agg(n.position), array_agg(n.attempts + 1), bool_or(n.lost > 1) INTO positions, attempts, alone FROM (
        SELECT d.position, d.attempts, d.lost, first_value(d.lost) OVER w AS first_lost, row_number() OVER w AS number
        FROM tollgate.deliveries d
        WHERE d.consumer = _consumer.name AND d.state = 'waiting' AND d.next_attempt <= _now
          AND (d.key IS NULL OR d.key <> ALL (_live) AND NOT EXISTS (
                SELECT FROM tollgate.deliveries e
                WHERE e.consumer = d.consumer AND e.key = d.key AND e.state <> 'dead' AND (e.position < d.position OR e.state = 'claimed')))
        WINDOW w AS (ORDER BY d.next_attempt, d.position)
        ORDER BY d.next_attempt, d.position LIMIT _limit) n
    WHERE n.number = 1 OR (n.first_lost < 2 AND n.lost < 2);
    alone := coalesce(alone, false);
END
$$;
COMMENT ON FUNCTION tollgate.due_again IS 'What is to be handed out again now, and whether it is one that must go alone. The consumer must be locked';

CREATE FUNCTION tollgate.pick_ordered(_consumer tollgate.consumers, _progress tollgate.consumer_progress, _limit int)
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
        _new := tollgate.next_events(cursor, _consumer.types, true, _limit - cardinality(fresh));
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
COMMENT ON FUNCTION tollgate.pick_ordered IS 'What to hand out next to a consumer that asks for order, at most one event of each object, what to hold, how far the log was read, and whether that must be written down even if nothing is handed out. Events behind failed ones get a row. The consumer must be locked';

CREATE FUNCTION tollgate.pace(_target tollgate.targets, _in_flight int, INOUT _progress tollgate.consumer_progress, INOUT _room int, OUT _due timestamptz)
LANGUAGE plpgsql AS $$
DECLARE
    _now timestamptz := clock_timestamp();
BEGIN
    IF _progress.breaker = 'open' AND _now < _progress.breaker_until THEN
        _room := 0;
        _due := _progress.breaker_until;
        RETURN;
    END IF;
    IF _progress.breaker <> 'closed' THEN
        -- One, to see; not while another is on its way.
        _progress.breaker := 'half_open';
        _room := CASE WHEN _in_flight = 0 THEN 1 ELSE 0 END;
    END IF;
    _room := least(_room, _target.concurrency - _in_flight);
    IF _target.rate IS NOT NULL THEN
        _progress.tokens := CASE WHEN _progress.tokens_at = '-infinity' THEN _target.burst
            ELSE least(_target.burst, _progress.tokens + _target.rate * greatest(0, extract(epoch FROM _now - _progress.tokens_at))) END;
        _progress.tokens_at := _now;
        IF _room > floor(_progress.tokens) THEN
            _room := floor(_progress.tokens);
            _due := _now + make_interval(secs => (_room + 1 - _progress.tokens) / _target.rate);
        END IF;
    END IF;
END
$$;
COMMENT ON FUNCTION tollgate.pace IS 'How many events a target may be given now by its breaker, concurrency and rate, and when to ask again if that is too few. All replicas share this, as it stands in the database';

CREATE FUNCTION tollgate.take(_name text, _max int, OUT claim bigint, OUT positions bigint[], OUT attempts int[], OUT due timestamptz)
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
            SELECT n.positions, n.reached INTO _picked FROM tollgate.next_events(_progress.cursor, _consumer.types, false, _room) n;
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
        -- What fits none of the types is passed over; not written down each time, or a quiet
        -- consumer would write for every event of the others.
        IF _changed OR _progress.cursor > _old_cursor + 1000 THEN
            UPDATE tollgate.consumer_progress p SET cursor = _progress.cursor, held = _progress.held, held_keys = _progress.held_keys
            WHERE p.consumer = _name;
        END IF;
        IF _progress.cursor > _old_cursor + 1000 THEN
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
COMMENT ON FUNCTION tollgate.take IS 'Makes a claim: the events to deliver now and the number of the attempt at each; nulls if there are none, with the time when some will be due if that is known';

CREATE FUNCTION tollgate.json_of(_body text) RETURNS json
    LANGUAGE sql IMMUTABLE PARALLEL SAFE -- not STRICT, which would keep it from being inlined
    RETURN CASE WHEN strpos(_body, '\u0000') = 0 THEN _body
                ELSE regexp_replace(_body, '(?<!\\)((?:\\\\)*)\\u0000', '\1\\ufffd', 'g') END::json;
COMMENT ON FUNCTION tollgate.json_of IS 'tollgate.payload, of a body that has been made text already';

CREATE FUNCTION tollgate.forget_gone(_claim bigint) RETURNS int LANGUAGE plpgsql
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
DECLARE
    _open tollgate.claims := tollgate.open_claim(_claim, true);
    _gone bigint[] := ARRAY(
        SELECT n.position
        FROM (SELECT unnest(_open.fresh) UNION ALL
              SELECT d.position FROM tollgate.deliveries d WHERE d.claim = _claim AND d.state = 'claimed') AS n (position)
        WHERE NOT EXISTS (SELECT FROM tollgate.positions p JOIN tollgate.event_log l ON l.created = p.created AND l.id = p.id
                          WHERE p.position = n.position));
BEGIN
    PERFORM tollgate.ack_events(_open, _gone);
    RETURN cardinality(_gone);
END
$$;
COMMENT ON FUNCTION tollgate.forget_gone IS 'Settles what retention has dropped of a claim: no worker can do it, and what waits behind it may go on. Returns how many';

CREATE FUNCTION tollgate.payload_or_null(_raw bytea) RETURNS json LANGUAGE plpgsql IMMUTABLE STRICT AS $$
BEGIN
    RETURN tollgate.payload(_raw);
EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION tollgate.payload_or_null IS 'An event''s body as json; null if Postgres cannot make json of it, of nesting some thousand deep, say. An error would keep a consumer from ever getting past that event';

CREATE FUNCTION tollgate.claim(consumer text, max int DEFAULT 100, bodies boolean DEFAULT true)
    RETURNS TABLE (claim bigint, "position" bigint, event_id text, type text, object_type text, object_id text, account text,
                   livemode boolean, api_version text, created timestamptz, received_at timestamptz, attempt int, payload json)
LANGUAGE plpgsql
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    _taken record;
    _given int;
    _until timestamptz := clock_timestamp() + '250 milliseconds';
BEGIN
    IF EXISTS (SELECT FROM tollgate.targets t WHERE t.consumer = claim.consumer) THEN
        RAISE EXCEPTION 'the gateway itself delivers the events of consumer %', quote_literal(claim.consumer) USING
            ERRCODE = 'TG013', HINT = 'tollgate.unset_target ends that; or make a consumer of your own.';
    END IF;
    LOOP
        _taken := tollgate.take(claim.consumer, claim.max);
        RETURN QUERY
        SELECT _taken.claim, n.position, l.id::text, l.type::text, l.object_type::text, l.object_id::text, l.account::text,
               l.livemode, l.api_version::text, l.created, l.received_at, n.attempt,
               CASE WHEN NOT claim.bodies THEN NULL
                    WHEN l.body IS NOT NULL THEN tollgate.json_of(l.body) ELSE tollgate.payload_or_null(l.raw) END
        FROM (SELECT u.position, u.attempt FROM unnest(_taken.positions, _taken.attempts) AS u (position, attempt) ORDER BY u.position) n
        CROSS JOIN LATERAL (
            -- What is too short to be nested too deep; the other way takes a subtransaction.
            SELECT e.*, CASE WHEN claim.bodies AND octet_length(e.raw) < 8192 THEN convert_from(e.raw, 'UTF8') END AS body
            FROM tollgate.positions p JOIN tollgate.event_log e ON e.created = p.created AND e.id = p.id
            WHERE p.position = n.position OFFSET 0) l;
        GET DIAGNOSTICS _given = ROW_COUNT;
        EXIT WHEN _given = coalesce(cardinality(_taken.positions), 0);
        PERFORM tollgate.forget_gone(_taken.claim);
        EXIT WHEN _given > 0 OR clock_timestamp() > _until;
    END LOOP;
END
$$;
COMMENT ON FUNCTION tollgate.claim IS 'Hands out a batch of events, in the order of their positions; no rows if there is nothing to do now. Commit, do the work, then tollgate.ack or tollgate.nack, before the lease runs out. No other worker gets them until then. payload is null if Postgres cannot make json of the body, which is in tollgate.events all the same, and without bodies, which take most of the time';

-- Settling -----------------------------------------------------------------------------------

CREATE FUNCTION tollgate.ack_events(_open tollgate.claims, _positions bigint[]) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    _done int := 0;
    _keys bigint[];
BEGIN
    IF _open.redelivered > 0 THEN
        WITH done AS (
            DELETE FROM tollgate.deliveries d
            WHERE d.claim = _open.claim AND d.state = 'claimed' AND (_positions IS NULL OR d.position = ANY (_positions))
            RETURNING d.key
        )
        SELECT count(*), array_agg(d.key) FILTER (WHERE d.key IS NOT NULL) INTO _done, _keys FROM done d;
        IF _keys IS NOT NULL THEN
            PERFORM tollgate.release_objects(_open.consumer, _keys);
        END IF;
    END IF;
    PERFORM tollgate.leave_claim(_open, _positions, _done);
    RETURN _done;
END
$$;
COMMENT ON FUNCTION tollgate.ack_events IS 'Settles events of a claim that are done, null for all; returns how many of them had a row. The consumer must be locked if the claim holds redelivered ones';

CREATE FUNCTION tollgate.check_positions(_open tollgate.claims, _positions bigint[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    _stranger bigint;
BEGIN
    SELECT n INTO _stranger FROM unnest(_positions) n
    WHERE n IS NULL OR (n <> ALL (_open.fresh) AND NOT EXISTS (
        SELECT FROM tollgate.deliveries d WHERE d.claim = _open.claim AND d.state = 'claimed' AND d.position = n)) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'claim % does not hold position %', _open.claim, coalesce(_stranger::text, 'null') USING
            ERRCODE = 'TG012', HINT = 'It was settled before, or belongs to another claim.';
    END IF;
END
$$;
COMMENT ON FUNCTION tollgate.check_positions IS 'Raises unless the claim holds all of these';

CREATE FUNCTION tollgate.ack(claim bigint) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    _open tollgate.claims := tollgate.open_claim(ack.claim, false);
BEGIN
    PERFORM tollgate.ack_events(_open, NULL);
    RETURN cardinality(_open.fresh) + _open.redelivered;
END
$$;
COMMENT ON FUNCTION tollgate.ack(bigint) IS 'All that is left of the batch is done; returns how many events that were. In the transaction of your own work, it makes that happen exactly once: it fails if others got the batch meanwhile';

CREATE FUNCTION tollgate.ack(claim bigint, positions bigint[]) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    _open tollgate.claims := tollgate.open_claim(ack.claim, false);
BEGIN
    PERFORM tollgate.check_positions(_open, positions);
    PERFORM tollgate.ack_events(_open, coalesce(positions, '{}'));
    RETURN (SELECT count(DISTINCT n) FROM unnest(positions) n);
END
$$;
COMMENT ON FUNCTION tollgate.ack(bigint, bigint[]) IS 'These events of the batch are done; the rest of it stays yours';

CREATE FUNCTION tollgate.nack(claim bigint, "position" bigint, error text, retry_in interval DEFAULT NULL, permanent boolean DEFAULT false)
    RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    _open     tollgate.claims := tollgate.open_claim(nack.claim, true);
    _consumer tollgate.consumers;
    _dead     bigint[];
    _key      bigint;
BEGIN
    IF retry_in NOT BETWEEN '0' AND '7 days' THEN
        RAISE EXCEPTION 'retry_in must be between nothing and 7 days, not %', retry_in USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM tollgate.check_positions(_open, ARRAY[nack.position]);
    SELECT * INTO _consumer FROM tollgate.consumers c WHERE c.name = _open.consumer;
    _key := _open.keys[array_position(_open.fresh, nack.position)];
    _dead := tollgate.keep_failures(_consumer, _open.claim, ARRAY[nack.position], ARRAY[_key], error, retry_in, coalesce(permanent, false), false);
    PERFORM tollgate.leave_claim(_open, ARRAY[nack.position], (nack.position <> ALL (_open.fresh))::int);
    RETURN CASE WHEN _dead = '{}' THEN 'waiting' ELSE 'dead' END;
END
$$;
COMMENT ON FUNCTION tollgate.nack IS 'This event of the batch failed. It is handed out again after retry_in, or after the consumer''s own backoff; never if permanent, or too often tried: then it is a dead letter. Returns which: waiting or dead';

CREATE FUNCTION tollgate.extend(claim bigint, lease interval DEFAULT NULL) RETURNS timestamptz LANGUAGE plpgsql AS $$
DECLARE
    _open  tollgate.claims := tollgate.open_claim(extend.claim, false);
    _lease interval := coalesce(extend.lease, (SELECT c.lease FROM tollgate.consumers c WHERE c.name = _open.consumer));
    _until timestamptz := clock_timestamp() + _lease;
BEGIN
    IF _lease NOT BETWEEN '1 second' AND '1 day' THEN
        RAISE EXCEPTION 'a lease lasts from 1 second to 1 day, not %', _lease USING ERRCODE = 'invalid_parameter_value';
    END IF;
    UPDATE tollgate.claims c SET expires_at = _until WHERE c.slot = _open.slot;
    RETURN _until;
END
$$;
COMMENT ON FUNCTION tollgate.extend IS 'A batch takes longer: its lease ends that long from now, or the consumer''s lease; returns when';
