-- Targets' attempts, and what people do with consumers: make, change, pause, rewind, drop, look.

-- Attempts of targets ------------------------------------------------------------------------

CREATE FUNCTION tollgate.take_bodies(_name text, _max int)
    RETURNS TABLE (claim bigint, due timestamptz, "position" bigint, attempt int, id text, type text, account text, livemode boolean, raw bytea)
LANGUAGE plpgsql
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    _taken record;
BEGIN
    PERFORM tollgate.lock_consumer(_name);
    -- A gateway that has not noticed yet takes nothing from the workers.
    IF NOT EXISTS (SELECT FROM tollgate.targets t WHERE t.consumer = _name) THEN
        RETURN;
    END IF;
    -- A statement of its own, as the next one must see events that are committed up to now.
    _taken := tollgate.take(_name, _max);
    RETURN QUERY
    SELECT _taken.claim, _taken.due, n.position, n.attempt, l.id::text, l.type::text, l.account::text, l.livemode, l.raw
    FROM (SELECT) one
    LEFT JOIN LATERAL (
        SELECT u.position, u.attempt FROM unnest(_taken.positions, _taken.attempts) AS u (position, attempt) ORDER BY u.position) n ON true
    LEFT JOIN LATERAL (
        SELECT e.* FROM tollgate.positions p JOIN tollgate.event_log e ON e.created = p.created AND e.id = p.id
        WHERE p.position = n.position OFFSET 0) l ON true;
END
$$;
COMMENT ON FUNCTION tollgate.take_bodies IS 'tollgate.take with the events'' bodies, in the order of their positions; one row without an event if there are none, no row without a target';

CREATE FUNCTION tollgate.turn_breaker(
    _target tollgate.targets, _delivered int, _failed int, _not_before interval, INOUT _progress tollgate.consumer_progress
) LANGUAGE plpgsql AS $$
BEGIN
    IF _delivered > 0 AND _progress.breaker <> 'open' THEN
        _progress.breaker := 'closed';
        _progress.breaker_until := NULL;
        _progress.breaker_failures := 0;
        _progress.breaker_opened := 0;
    ELSIF _failed > 0 AND _delivered = 0 THEN
        _progress.breaker_failures := least(_progress.breaker_failures + _failed, 1000000);
        IF _progress.breaker = 'half_open' OR (_progress.breaker = 'closed' AND _progress.breaker_failures >= _target.breaker_after) THEN
            _progress.breaker := 'open';
            _progress.breaker_until := clock_timestamp() + greatest(_not_before,
                least('5 minutes', _target.breaker_wait * power(2, least(_progress.breaker_opened, 30))) * (0.8 + 0.4 * random()));
            _progress.breaker_opened := _progress.breaker_opened + 1;
        END IF;
    END IF;
END
$$;
COMMENT ON FUNCTION tollgate.turn_breaker IS 'What becomes of a circuit breaker after attempts. What was under way when it opened does not count any more';

CREATE FUNCTION tollgate.settle(
    _name text, _claim bigint[], _position bigint[], _attempt int[], _verdict text[], _retry_in float8[], _status int[],
    _error text[], _answer text[], _took float8[],
    OUT breaker_was text, OUT breaker_is text, OUT breaker_until timestamptz, OUT paused boolean, OUT stale bigint[]
) LANGUAGE plpgsql AS $$
DECLARE
    _progress tollgate.consumer_progress := tollgate.lock_consumer(_name);
    _consumer tollgate.consumers;
    _target   tollgate.targets;
    _open     tollgate.claims;
    _number   bigint;
    _done     bigint[];
    _fail     record;
    _at       int;
    _delivered int := 0;
    _failed   int := 0;
BEGIN
    SELECT * INTO _consumer FROM tollgate.consumers c WHERE c.name = _name;
    SELECT * INTO _target FROM tollgate.targets t WHERE t.consumer = _name;
    stale := '{}';
    paused := false;
    FOR _number IN SELECT DISTINCT n FROM unnest(_claim) n LOOP
        SELECT * INTO _open FROM tollgate.claims c WHERE c.slot = (_number & 1048575)::int AND c.claim = _number FOR UPDATE;
        IF NOT FOUND THEN
            stale := stale || ARRAY(SELECT s.position FROM unnest(_claim, _position) AS s (claim, position) WHERE s.claim = _number);
            CONTINUE;
        END IF;
        _done := ARRAY(SELECT s.position FROM unnest(_claim, _position, _verdict) AS s (claim, position, verdict)
                       WHERE s.claim = _number AND s.verdict = 'delivered');
        _delivered := _delivered + cardinality(_done);
        IF _done <> '{}' THEN
            PERFORM tollgate.ack_events(_open, _done);
            SELECT * INTO _open FROM tollgate.claims c WHERE c.slot = _open.slot;
        END IF;
        FOR _fail IN SELECT s.* FROM unnest(_claim, _position, _attempt, _verdict, _retry_in, _error) AS s (claim, position, attempt, verdict, retry_in, error)
                     WHERE s.claim = _number AND s.verdict <> 'delivered' LOOP
            _at := array_position(_open.fresh, _fail.position);
            IF _at IS NULL AND NOT EXISTS (SELECT FROM tollgate.deliveries d
                                           WHERE d.claim = _number AND d.state = 'claimed' AND d.position = _fail.position) THEN
                stale := stale || _fail.position; -- settled before: an answer of ours got lost, say
                CONTINUE;
            END IF;
            _failed := _failed + (_fail.verdict <> 'refused')::int;
            PERFORM tollgate.keep_failures(_consumer, _number, ARRAY[_fail.position], ARRAY[_open.keys[_at]], _fail.error,
                -- Not sooner than the target asks for, and not sooner than if it did not ask.
                greatest(make_interval(secs => least(coalesce(_fail.retry_in, 0), 86400)), tollgate.retry_wait(_consumer, _fail.attempt)),
                _fail.verdict = 'refused', false);
            PERFORM tollgate.leave_claim(_open, ARRAY[_fail.position], (_at IS NULL)::int);
            SELECT * INTO _open FROM tollgate.claims c WHERE c.slot = _open.slot;
        END LOOP;
    END LOOP;
    IF 'retry' = ANY (_verdict) OR 'refused' = ANY (_verdict) OR 'gone' = ANY (_verdict) OR 1 < ANY (_attempt) THEN
        INSERT INTO tollgate.attempts (consumer, position, attempt, verdict, status, error, answer, took)
        SELECT _name, s.position, s.attempt, s.verdict, s.status, s.error, s.answer, make_interval(secs => s.took)
        FROM unnest(_position, _attempt, _verdict, _status, _error, _answer, _took) AS s (position, attempt, verdict, status, error, answer, took)
        WHERE s.verdict <> 'delivered' OR s.attempt > 1
        ON CONFLICT DO NOTHING;
    END IF;
    IF 'gone' = ANY (_verdict) AND _consumer.paused_at IS NULL THEN
        paused := true;
        UPDATE tollgate.consumers c SET paused_at = clock_timestamp(), paused_because = 'the target answered 410 Gone' WHERE c.name = _name;
    END IF;
    breaker_was := _progress.breaker;
    IF _target.consumer IS NOT NULL AND (_failed > 0 OR _progress.breaker <> 'closed' OR _progress.breaker_failures > 0) THEN
        _progress := tollgate.turn_breaker(_target, _delivered, _failed,
            (SELECT make_interval(secs => least(coalesce(max(r), 0), 300)) FROM unnest(_retry_in) r), _progress);
        UPDATE tollgate.consumer_progress p SET breaker = _progress.breaker, breaker_until = _progress.breaker_until,
            breaker_failures = _progress.breaker_failures, breaker_opened = _progress.breaker_opened
        WHERE p.consumer = _name;
    END IF;
    breaker_is := _progress.breaker;
    breaker_until := _progress.breaker_until;
END
$$;
COMMENT ON FUNCTION tollgate.settle IS 'Settles what came of a target''s attempts, in one round trip; says how the circuit breaker turned, whether the consumer was paused, and which events are others'' meanwhile';

CREATE FUNCTION tollgate.announce_dead_letters(_most int)
    RETURNS TABLE (consumer text, "position" bigint, event_id text, event_type text, attempts int, reason text, error text) LANGUAGE sql AS $$
    UPDATE tollgate.deliveries d SET announced = true
    FROM (SELECT n.consumer, n.position FROM tollgate.deliveries n WHERE n.state = 'dead' AND NOT n.announced
          ORDER BY n.died_at LIMIT _most FOR UPDATE SKIP LOCKED) AS new
    WHERE d.consumer = new.consumer AND d.position = new.position
    RETURNING d.consumer, d.position, d.event_id, d.event_type, d.attempts, d.reason, d.error
$$;
COMMENT ON FUNCTION tollgate.announce_dead_letters IS 'Dead letters that no log tells of yet: each is returned once, whichever gateway asks';

CREATE FUNCTION tollgate.forget_attempts(_before timestamptz, _most int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    _forgotten int;
BEGIN
    DELETE FROM tollgate.attempts a USING (
        SELECT o.consumer, o.position, o.at FROM tollgate.attempts o WHERE o.at < _before ORDER BY o.at LIMIT _most) old
    WHERE (a.consumer, a.position, a.at) = (old.consumer, old.position, old.at);
    GET DIAGNOSTICS _forgotten = ROW_COUNT;
    RETURN _forgotten;
END
$$;
COMMENT ON FUNCTION tollgate.forget_attempts IS 'Deletes attempts that ended before that time, so many at most; returns how many';

-- Making and changing ------------------------------------------------------------------------

CREATE FUNCTION tollgate.create_consumer(
    name text, types text[] DEFAULT '{*}', start text DEFAULT 'latest', ordering text DEFAULT 'none',
    max_attempts int DEFAULT 20, lease interval DEFAULT '30 seconds', retry_first interval DEFAULT '5 seconds',
    retry_most interval DEFAULT '1 hour', if_not_exists boolean DEFAULT false
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    _cursor bigint := tollgate.starting_point(start);
BEGIN
    IF name IS NULL OR name !~ '^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$' THEN
        RAISE EXCEPTION '% is no name for a consumer', quote_nullable(name) USING
            ERRCODE = 'invalid_name', HINT = 'Use letters, digits, dots, dashes and underscores, 64 at most, and begin with a letter or a digit.';
    END IF;
    INSERT INTO tollgate.consumers AS c (name, types, ordering, max_attempts, lease, retry_first, retry_most)
    VALUES (create_consumer.name, create_consumer.types, create_consumer.ordering, create_consumer.max_attempts,
            create_consumer.lease, create_consumer.retry_first, create_consumer.retry_most)
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
COMMENT ON FUNCTION tollgate.create_consumer IS 'Makes a consumer; returns the position after which it begins. start: latest, earliest, a time or a position';

CREATE FUNCTION tollgate.alter_consumer(
    name text, types text[] DEFAULT NULL, ordering text DEFAULT NULL, max_attempts int DEFAULT NULL, lease interval DEFAULT NULL,
    retry_first interval DEFAULT NULL, retry_most interval DEFAULT NULL
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    _progress tollgate.consumer_progress := tollgate.lock_consumer(name);
    _old      text := (SELECT c.ordering FROM tollgate.consumers c WHERE c.name = alter_consumer.name);
BEGIN
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
        retry_first = coalesce(alter_consumer.retry_first, c.retry_first), retry_most = coalesce(alter_consumer.retry_most, c.retry_most)
    WHERE c.name = alter_consumer.name;
    PERFORM tollgate.check_lease(alter_consumer.name);
END
$$;
COMMENT ON FUNCTION tollgate.alter_consumer IS 'Changes what is given and leaves the rest. Types count from the events on that have not been handed out yet';

CREATE FUNCTION tollgate.check_lease(_name text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM tollgate.consumers c JOIN tollgate.targets t ON t.consumer = c.name
               WHERE c.name = _name AND c.lease < 2 * t.timeout) THEN
        RAISE EXCEPTION 'the lease of consumer % must be at least twice its target''s timeout', quote_literal(_name) USING
            ERRCODE = 'check_violation', HINT = 'Or an attempt could still be under way when others make the next one.';
    END IF;
END
$$;
COMMENT ON FUNCTION tollgate.check_lease IS 'Raises if attempts of a target might outlast their lease';

CREATE FUNCTION tollgate.set_target(
    consumer text, url text DEFAULT NULL, secrets text[] DEFAULT NULL, timeout interval DEFAULT NULL, concurrency int DEFAULT NULL,
    rate double precision DEFAULT NULL, burst int DEFAULT NULL, subject text DEFAULT NULL,
    breaker_after int DEFAULT NULL, breaker_wait interval DEFAULT NULL
) RETURNS text LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    _t tollgate.targets;
BEGIN
    PERFORM tollgate.lock_consumer(set_target.consumer);
    SELECT * INTO _t FROM tollgate.targets t WHERE t.consumer = set_target.consumer;
    _t.consumer := set_target.consumer;
    _t.url := coalesce(set_target.url, _t.url);
    _t.kind := CASE WHEN _t.url ~ '^(nats|tls)://' THEN 'nats' ELSE 'push' END;
    IF _t.url IS NULL THEN
        RAISE EXCEPTION 'consumer % has no target yet', quote_literal(set_target.consumer) USING
            ERRCODE = 'invalid_parameter_value', HINT = 'Say the url to deliver to.';
    ELSIF _t.url !~ '^(https?|nats|tls)://.' THEN
        RAISE EXCEPTION 'that is no URL to deliver to' USING -- not shown: it may hold a password
            ERRCODE = 'invalid_parameter_value', HINT = 'A URL begins with http://, https://, nats:// or tls://.';
    END IF;
    _t.secrets := CASE WHEN _t.kind = 'nats' THEN '{}' ELSE coalesce(set_target.secrets, nullif(_t.secrets, '{}'),
        ARRAY['whsec_' || replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', '')]) END; -- 244 random bits
    _t.subject := coalesce(set_target.subject, _t.subject, 'stripe');
    _t.timeout := coalesce(set_target.timeout, _t.timeout, '10 seconds');
    _t.concurrency := coalesce(set_target.concurrency, _t.concurrency, 16);
    _t.rate := nullif(coalesce(set_target.rate, _t.rate), 0);
    _t.burst := CASE WHEN _t.rate IS NOT NULL THEN coalesce(set_target.burst, _t.burst, ceil(_t.rate)::int) END;
    _t.breaker_after := coalesce(set_target.breaker_after, _t.breaker_after, 10);
    _t.breaker_wait := coalesce(set_target.breaker_wait, _t.breaker_wait, '5 seconds');
    _t.changed_at := clock_timestamp();
    DELETE FROM tollgate.targets t WHERE t.consumer = set_target.consumer;
    INSERT INTO tollgate.targets SELECT _t.*;
    UPDATE tollgate.consumer_progress p SET breaker = 'closed', breaker_until = NULL, breaker_failures = 0, breaker_opened = 0,
        tokens = 0, tokens_at = '-infinity' WHERE p.consumer = set_target.consumer;
    PERFORM tollgate.check_lease(set_target.consumer);
    RETURN _t.secrets[1];
END
$$;
COMMENT ON FUNCTION tollgate.set_target IS 'Has the gateway deliver a consumer''s events: POST to an http(s) URL, or to NATS JetStream at nats://. What is not given stays as it is, or is 10 seconds, 16 at once, no rate (0 takes one away), a breaker that opens after 10 failures in a row for 5 seconds. Returns the first signing secret of a push, made here if none is given';

CREATE FUNCTION tollgate.unset_target(consumer text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM tollgate.lock_consumer(unset_target.consumer);
    DELETE FROM tollgate.targets t WHERE t.consumer = unset_target.consumer;
    UPDATE tollgate.consumer_progress p SET breaker = 'closed', breaker_until = NULL, breaker_failures = 0, breaker_opened = 0
    WHERE p.consumer = unset_target.consumer;
END
$$;
COMMENT ON FUNCTION tollgate.unset_target IS 'The gateway delivers no more; the consumer''s events are claimed in SQL from here on';

CREATE FUNCTION tollgate.pause_consumer(name text, because text DEFAULT 'asked for') RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM tollgate.lock_consumer(pause_consumer.name);
    UPDATE tollgate.consumers c SET paused_at = coalesce(c.paused_at, clock_timestamp()), paused_because = coalesce(pause_consumer.because, 'asked for')
    WHERE c.name = pause_consumer.name;
END
$$;
COMMENT ON FUNCTION tollgate.pause_consumer IS 'Nothing is handed out any more; what is with workers may be settled';

CREATE FUNCTION tollgate.resume_consumer(name text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM tollgate.lock_consumer(resume_consumer.name);
    UPDATE tollgate.consumers c SET paused_at = NULL, paused_because = NULL WHERE c.name = resume_consumer.name;
    UPDATE tollgate.consumer_progress p SET breaker = 'closed', breaker_until = NULL, breaker_failures = 0, breaker_opened = 0
    WHERE p.consumer = resume_consumer.name;
END
$$;
COMMENT ON FUNCTION tollgate.resume_consumer IS 'Ends a pause, and closes the circuit breaker';

CREATE FUNCTION tollgate.reset_consumer(name text, start text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    _progress tollgate.consumer_progress := tollgate.lock_consumer(name);
    _cursor   bigint := tollgate.starting_point(start);
    _open     tollgate.claims;
    _freed    bigint[];
BEGIN
    IF _cursor < _progress.cursor THEN
        -- What comes after is handed out anew, so it must not be anywhere else. What comes before
        -- and is not settled is not lost: it is due now.
        FOR _open IN SELECT * FROM tollgate.claims k WHERE k.consumer = reset_consumer.name AND k.claim IS NOT NULL FOR UPDATE LOOP
            INSERT INTO tollgate.deliveries (consumer, position, state, key, created, event_id, event_type, attempts, next_attempt)
            SELECT reset_consumer.name, f.position, 'waiting', f.key, l.created, l.id, l.type, 0, clock_timestamp()
            FROM unnest(_open.fresh, _open.keys) AS f (position, key)
            JOIN tollgate.positions p USING (position) JOIN tollgate.event_log l ON l.created = p.created AND l.id = p.id
            WHERE f.position <= _cursor;
            PERFORM tollgate.leave_claim(_open, _open.fresh, _open.redelivered);
        END LOOP;
        UPDATE tollgate.deliveries d SET state = 'waiting', claim = NULL, next_attempt = clock_timestamp()
        WHERE d.consumer = reset_consumer.name AND d.state = 'claimed' AND d.position <= _cursor;
        WITH gone AS (
            DELETE FROM tollgate.deliveries d
            WHERE d.consumer = reset_consumer.name AND d.position > _cursor
            RETURNING d.key
        )
        SELECT array_agg(g.key) INTO _freed FROM gone g;
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
COMMENT ON FUNCTION tollgate.reset_consumer IS 'Rewinds to latest, earliest, a time or a position: everything after that is handed out anew, dead letters included, and claims made before are void. Forward it skips what has not been handed out yet. Returns the position';

CREATE FUNCTION tollgate.drop_consumer(name text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM tollgate.lock_consumer(drop_consumer.name);
    DELETE FROM tollgate.consumers c WHERE c.name = drop_consumer.name;
END
$$;
COMMENT ON FUNCTION tollgate.drop_consumer IS 'Ends a consumer, its claims, its retries and its dead letters';

-- Dead letters -------------------------------------------------------------------------------

CREATE FUNCTION tollgate.retry_dead_letters(consumer text, "position" bigint DEFAULT NULL, since timestamptz DEFAULT '-infinity')
    RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    _due bigint;
BEGIN
    PERFORM tollgate.lock_consumer(retry_dead_letters.consumer);
    UPDATE tollgate.deliveries d SET state = 'waiting', next_attempt = clock_timestamp(), attempts = 0, lost = 0,
        reason = NULL, died_at = NULL, announced = false
    WHERE d.consumer = retry_dead_letters.consumer AND d.state = 'dead' AND d.died_at >= since
      AND (retry_dead_letters.position IS NULL OR d.position = retry_dead_letters.position);
    GET DIAGNOSTICS _due = ROW_COUNT;
    NOTIFY tollgate_consumers;
    RETURN _due;
END
$$;
COMMENT ON FUNCTION tollgate.retry_dead_letters IS 'Hands dead letters out again, with all their attempts: all of a consumer, one, or those that died since a time. Returns how many';

CREATE FUNCTION tollgate.discard_dead_letters(consumer text, "position" bigint DEFAULT NULL, since timestamptz DEFAULT '-infinity')
    RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    _gone bigint;
BEGIN
    PERFORM tollgate.lock_consumer(discard_dead_letters.consumer);
    DELETE FROM tollgate.deliveries d
    WHERE d.consumer = discard_dead_letters.consumer AND d.state = 'dead' AND d.died_at >= since
      AND (discard_dead_letters.position IS NULL OR d.position = discard_dead_letters.position);
    GET DIAGNOSTICS _gone = ROW_COUNT;
    RETURN _gone;
END
$$;
COMMENT ON FUNCTION tollgate.discard_dead_letters IS 'Forgets dead letters: all of a consumer, one, or those that died since a time; the events stay in the log. Returns how many';

CREATE VIEW tollgate.dead_letters AS
    SELECT d.consumer, d.position, d.event_id, d.event_type AS type, d.created, d.attempts, d.reason, d.error, d.died_at
    FROM tollgate.deliveries d WHERE d.state = 'dead';
COMMENT ON VIEW tollgate.dead_letters IS 'Events that consumers could not take';
COMMENT ON COLUMN tollgate.dead_letters.consumer IS 'The consumer';
COMMENT ON COLUMN tollgate.dead_letters.position IS 'The event''s position';
COMMENT ON COLUMN tollgate.dead_letters.event_id IS 'The event''s id';
COMMENT ON COLUMN tollgate.dead_letters.type IS 'The event''s type';
COMMENT ON COLUMN tollgate.dead_letters.created IS 'When Stripe made the event';
COMMENT ON COLUMN tollgate.dead_letters.attempts IS 'How often it was tried';
COMMENT ON COLUMN tollgate.dead_letters.reason IS 'max_attempts_exceeded, or non_retryable: the worker or target said so';
COMMENT ON COLUMN tollgate.dead_letters.error IS 'What went wrong last';
COMMENT ON COLUMN tollgate.dead_letters.died_at IS 'When it was given up';

-- Looking ------------------------------------------------------------------------------------

CREATE FUNCTION tollgate.unread_events(_after bigint, _types text[]) RETURNS bigint LANGUAGE plpgsql STABLE
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
DECLARE
    _newest bigint := (SELECT max(p.position) FROM tollgate.positions p);
BEGIN
    IF _newest - _after > 10000 THEN
        RETURN _newest - _after; -- counting would take longer than the answer is worth
    END IF;
    RETURN (SELECT count(*) FROM tollgate.positions p CROSS JOIN LATERAL (
                SELECT FROM tollgate.event_log e
                WHERE e.created = p.created AND e.id = p.id AND e.type LIKE ANY (tollgate.likes(_types)) OFFSET 0) l
            WHERE p.position > _after);
END
$$;
COMMENT ON FUNCTION tollgate.unread_events IS 'How many events of these types come after a position; beyond 10000 positions not counted but reckoned from positions, of all types';

CREATE VIEW tollgate.consumer_status AS
    SELECT c.name, coalesce(t.kind, 'sql') AS kind,
           CASE WHEN c.paused_at IS NOT NULL THEN 'paused' WHEN p.breaker <> 'closed' THEN p.breaker ELSE 'running' END AS state,
           c.types, c.ordering, p.cursor,
           tollgate.unread_events(p.cursor, c.types) + cardinality(p.held) + k.in_flight + d.retrying + d.deferred AS lag_events,
           coalesce(extract(epoch FROM clock_timestamp() - o.received_at), 0)::float8 AS lag_seconds,
           k.in_flight + d.claimed AS in_flight, d.retrying, d.deferred + cardinality(p.held) AS deferred, d.dead,
           k.oldest AS claimed_since, c.paused_because, p.breaker_until, t.url
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
                                 (tollgate.next_events(p.cursor, c.types, false, 1)).positions[1])) o ON true;
COMMENT ON VIEW tollgate.consumer_status IS 'How each consumer does';
COMMENT ON COLUMN tollgate.consumer_status.name IS 'The consumer';
COMMENT ON COLUMN tollgate.consumer_status.kind IS 'sql (workers claim), push or nats (the gateway delivers)';
COMMENT ON COLUMN tollgate.consumer_status.state IS 'running, paused, or the state of the circuit breaker: open, half_open';
COMMENT ON COLUMN tollgate.consumer_status.types IS 'Which event types';
COMMENT ON COLUMN tollgate.consumer_status.ordering IS 'none or object';
COMMENT ON COLUMN tollgate.consumer_status.cursor IS 'Up to where the log has been handed out';
COMMENT ON COLUMN tollgate.consumer_status.lag_events IS 'Events not settled yet, dead letters apart; reckoned from positions where more than 10000 have not been handed out';
COMMENT ON COLUMN tollgate.consumer_status.lag_seconds IS 'Since when the oldest of them has been in the log';
COMMENT ON COLUMN tollgate.consumer_status.in_flight IS 'Events with workers';
COMMENT ON COLUMN tollgate.consumer_status.retrying IS 'Events that failed and are tried again, or are being tried';
COMMENT ON COLUMN tollgate.consumer_status.deferred IS 'Events that wait for an earlier one of their object';
COMMENT ON COLUMN tollgate.consumer_status.dead IS 'Dead letters';
COMMENT ON COLUMN tollgate.consumer_status.claimed_since IS 'When the oldest open claim was made';
COMMENT ON COLUMN tollgate.consumer_status.paused_because IS 'Why it is paused';
COMMENT ON COLUMN tollgate.consumer_status.breaker_until IS 'Until when the circuit breaker stays open';
COMMENT ON COLUMN tollgate.consumer_status.url IS 'Where the gateway delivers to';
