-- Events that are given again beyond their turn: what comes before them in their object must not wait
-- for them, as they wait for it. A clock that is set back stops no consumer with a rate. And rewinding
-- keeps the dead letters that would not be handed out anew.

SET LOCAL lock_timeout = '5s';

CREATE OR REPLACE FUNCTION tollgate.due_again(_consumer tollgate.consumers, _limit int, OUT positions bigint[], OUT attempts int[], OUT alone boolean)
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
                WHERE e.consumer = d.consumer AND e.key = d.key AND e.state <> 'dead' AND (e.position < d.position OR e.state = 'claimed'))
              -- Given again out of its turn: those before it that are held come first.
              AND NOT EXISTS (
                SELECT FROM tollgate.consumer_progress p, unnest(p.held, p.held_keys) AS h (position, key)
                WHERE p.consumer = _consumer.name AND h.key = d.key AND h.position < d.position))
        WINDOW w AS (ORDER BY d.next_attempt, d.position)
        ORDER BY d.next_attempt, d.position LIMIT _limit) n
    WHERE n.number = 1 OR (n.first_lost < 2 AND n.lost < 2);
    alone := coalesce(alone, false);
END
$$;

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
            -- What they are put behind may itself come after them, if it was given again: the first of all
            -- must not wait. It goes at the next claim, as what is there now may be in this one.
            PERFORM tollgate.release_objects(_consumer.name, ARRAY(
                SELECT d.key FROM tollgate.deliveries d WHERE d.consumer = _consumer.name AND d.position = ANY (_deferred)));
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

-- Those that wait for each other since.
SELECT tollgate.release_objects(c.name, ARRAY(SELECT d.key FROM tollgate.deliveries d WHERE d.consumer = c.name AND d.state = 'deferred'))
FROM tollgate.consumers c;

COMMENT ON FUNCTION tollgate.give_again IS 'Hands events out to a consumer again, whether it has settled them, has given them up, or waits to try again; also events of other types than it wants. due: how many are now; open: how many are with a worker, wait behind another event of their object, or are still to come by themselves; gone: how many are not in the log; excluded: how many its filter leaves out, or are Tollgate''s own and not asked for. Order per object is kept among what has been read of the log for the consumer and is not settled';

CREATE OR REPLACE FUNCTION tollgate.pace(_target tollgate.targets, _in_flight int, INOUT _progress tollgate.consumer_progress, INOUT _room int, OUT _due timestamptz)
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
        -- Later than now if the clock was set back.
        _progress.tokens := CASE WHEN _progress.tokens_at = '-infinity' OR _progress.tokens_at > _now + interval '1 second' THEN _target.burst
            ELSE least(_target.burst, _progress.tokens + _target.rate * greatest(0, extract(epoch FROM _now - _progress.tokens_at))) END;
        _progress.tokens_at := _now;
        IF _room > floor(_progress.tokens) THEN
            _room := floor(_progress.tokens);
            _due := _now + make_interval(secs => (_room + 1 - _progress.tokens) / _target.rate);
        END IF;
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION tollgate.reset_consumer(name text, start text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    _progress tollgate.consumer_progress := tollgate.lock_consumer(name);
    _cursor   bigint := tollgate.starting_point(start);
    _open     tollgate.claims;
    _freed    bigint[];
BEGIN
    IF _cursor < _progress.cursor THEN
        -- What comes after is handed out anew, so it must not be anywhere else; unless the consumer would
        -- not get it by now. What comes before and is not settled is not lost: what was with a worker is
        -- due now.
        FOR _open IN SELECT * FROM tollgate.claims k WHERE k.consumer = reset_consumer.name AND k.claim IS NOT NULL FOR UPDATE LOOP
            INSERT INTO tollgate.deliveries (consumer, position, state, key, created, event_id, event_type, attempts, next_attempt)
            SELECT reset_consumer.name, f.position, 'waiting', f.key, l.created, l.id, l.type, 0, clock_timestamp()
            FROM unnest(_open.fresh, _open.keys) AS f (position, key)
            JOIN tollgate.positions p USING (position) JOIN tollgate.event_log l ON l.created = p.created AND l.id = p.id
            WHERE f.position <= _cursor;
            PERFORM tollgate.leave_claim(_open, _open.fresh, _open.redelivered);
        END LOOP;
        WITH gone AS (
            DELETE FROM tollgate.deliveries d USING tollgate.consumers c
            WHERE d.consumer = reset_consumer.name AND d.position > _cursor AND c.name = d.consumer
              AND NOT EXISTS (
                SELECT FROM tollgate.event_log l WHERE l.created = d.created AND l.id = d.event_id
                AND NOT (tollgate.wants(c.types, l.type)
                         AND tollgate.routed(c.endpoints, c.accounts, c.livemode, c.metadata, l.endpoint, l.account, l.livemode, l.raw)))
            RETURNING d.key
        )
        SELECT array_agg(g.key) INTO _freed FROM gone g;
        UPDATE tollgate.deliveries d SET state = 'waiting', claim = NULL, next_attempt = clock_timestamp()
        WHERE d.consumer = reset_consumer.name AND d.state = 'claimed';
        PERFORM tollgate.release_objects(reset_consumer.name, _freed);
        SELECT coalesce(array_agg(h.position ORDER BY h.position), '{}'), coalesce(array_agg(h.key ORDER BY h.position), '{}')
        INTO _progress.held, _progress.held_keys
        FROM unnest(_progress.held, _progress.held_keys) AS h (position, key) WHERE h.position <= _cursor;
    END IF;
    UPDATE tollgate.consumer_progress p SET cursor = _cursor, held = _progress.held, held_keys = _progress.held_keys
    WHERE p.consumer = reset_consumer.name;
    NOTIFY tollgate_consumers;
    RETURN _cursor;
END
$$;
