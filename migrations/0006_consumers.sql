-- Consumers: every program that must see every event, and how far it is.
-- docs/CONSUMERS.md draws the states and says why it is built this way.

-- What there is ------------------------------------------------------------------------------

CREATE FUNCTION tollgate.are_patterns(_types text[]) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN coalesce(cardinality(_types) BETWEEN 1 AND 100, false)
        AND NOT EXISTS (SELECT FROM unnest(_types) t WHERE t IS NULL OR t !~ '^(\*|[^*\s]+|[^*\s]+\.\*)$');
COMMENT ON FUNCTION tollgate.are_patterns IS 'Whether these are patterns of event types, from 1 to 100 of them: invoice.paid, invoice.* or *';

CREATE TABLE tollgate.consumers (
    name           text COLLATE "C" PRIMARY KEY,
    types          text[] NOT NULL,
    ordering       text NOT NULL,
    max_attempts   int NOT NULL,
    lease          interval NOT NULL,
    retry_first    interval NOT NULL,
    retry_most     interval NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now(),
    paused_at      timestamptz,
    paused_because text,
    CONSTRAINT consumers_name CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$'),
    CONSTRAINT consumers_types CHECK (tollgate.are_patterns(types)),
    CONSTRAINT consumers_ordering CHECK (ordering IN ('none', 'object')),
    CONSTRAINT consumers_attempts CHECK (max_attempts BETWEEN 1 AND 1000),
    CONSTRAINT consumers_lease CHECK (lease BETWEEN '1 second' AND '1 day'),
    CONSTRAINT consumers_retry CHECK (retry_first > '0' AND retry_first <= retry_most AND retry_most <= '7 days'),
    CONSTRAINT consumers_paused CHECK ((paused_at IS NULL) = (paused_because IS NULL))
);
COMMENT ON TABLE tollgate.consumers IS 'Programs that see every event of certain types at least once. Made by tollgate.create_consumer; what they have seen stands in consumer_progress';
COMMENT ON COLUMN tollgate.consumers.name IS 'What workers, commands and logs call it';
COMMENT ON COLUMN tollgate.consumers.types IS 'Which event types: invoice.paid, invoice.* or *; one must fit';
COMMENT ON COLUMN tollgate.consumers.ordering IS 'none, or object: events of one Stripe object one after the other, in the order of their positions';
COMMENT ON COLUMN tollgate.consumers.max_attempts IS 'Attempts at one event until it is a dead letter, the first included';
COMMENT ON COLUMN tollgate.consumers.lease IS 'How long a claim is a worker''s own; after that others get what is left of it';
COMMENT ON COLUMN tollgate.consumers.retry_first IS 'Wait after the first failed attempt; doubled after each further one, give or take a fifth';
COMMENT ON COLUMN tollgate.consumers.retry_most IS 'The longest such wait';
COMMENT ON COLUMN tollgate.consumers.created_at IS 'When it was made';
COMMENT ON COLUMN tollgate.consumers.paused_at IS 'Since when nothing is handed out; null if it runs';
COMMENT ON COLUMN tollgate.consumers.paused_because IS 'Why; null if it runs';

CREATE TABLE tollgate.targets (
    consumer      text COLLATE "C" PRIMARY KEY REFERENCES tollgate.consumers ON DELETE CASCADE,
    kind          text NOT NULL,
    url           text NOT NULL,
    secrets       text[] NOT NULL DEFAULT '{}',
    subject       text NOT NULL DEFAULT 'stripe',
    timeout       interval NOT NULL,
    concurrency   int NOT NULL,
    rate          double precision,
    burst         int,
    breaker_after int NOT NULL,
    breaker_wait  interval NOT NULL,
    changed_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT targets_kind CHECK (kind IN ('push', 'nats')),
    CONSTRAINT targets_url CHECK (url ~ CASE kind WHEN 'push' THEN '^https?://' ELSE '^(nats|tls)://' END AND length(url) <= 2048),
    CONSTRAINT targets_secrets CHECK ((kind = 'push') = (cardinality(secrets) BETWEEN 1 AND 4)),
    CONSTRAINT targets_subject CHECK (subject ~ '^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$' AND length(subject) <= 255),
    CONSTRAINT targets_timeout CHECK (timeout BETWEEN '0.1 seconds' AND '5 minutes'),
    CONSTRAINT targets_concurrency CHECK (concurrency BETWEEN 1 AND 1000),
    CONSTRAINT targets_rate CHECK ((rate IS NULL) = (burst IS NULL) AND (rate IS NULL OR rate BETWEEN 0.001 AND 1000000) AND burst >= 1),
    CONSTRAINT targets_breaker CHECK (breaker_after BETWEEN 1 AND 1000000 AND breaker_wait BETWEEN '0.1 seconds' AND '5 minutes')
);
COMMENT ON TABLE tollgate.targets IS 'Where the gateway itself delivers a consumer''s events to. A consumer without a target is claimed from in SQL. Made by tollgate.set_target';
COMMENT ON COLUMN tollgate.targets.consumer IS 'The consumer';
COMMENT ON COLUMN tollgate.targets.kind IS 'push: HTTP POST of the original bytes; nats: publication to NATS JetStream';
COMMENT ON COLUMN tollgate.targets.url IS 'Where to';
COMMENT ON COLUMN tollgate.targets.secrets IS 'Signing secrets of a push, whsec_…: every attempt is signed with each of them, so that one can be rolled';
COMMENT ON COLUMN tollgate.targets.subject IS 'What NATS subjects begin with; the event''s type follows';
COMMENT ON COLUMN tollgate.targets.timeout IS 'The longest that one attempt may take; the consumer''s lease is at least twice as long';
COMMENT ON COLUMN tollgate.targets.concurrency IS 'Most events on the way at once, over all replicas';
COMMENT ON COLUMN tollgate.targets.rate IS 'Most attempts per second over all replicas, in the long run; null for no limit';
COMMENT ON COLUMN tollgate.targets.burst IS 'How many of them may come at once after a quiet time; null for no limit';
COMMENT ON COLUMN tollgate.targets.breaker_after IS 'Failed attempts in a row after which the circuit breaker opens';
COMMENT ON COLUMN tollgate.targets.breaker_wait IS 'How long it stays open at first; doubled each time the probe fails, up to 5 minutes';
COMMENT ON COLUMN tollgate.targets.changed_at IS 'When this was changed last';

CREATE TABLE tollgate.consumer_progress (
    consumer         text COLLATE "C" PRIMARY KEY REFERENCES tollgate.consumers ON DELETE CASCADE,
    cursor           bigint NOT NULL,
    held             bigint[] NOT NULL DEFAULT '{}',
    held_keys        bigint[] NOT NULL DEFAULT '{}',
    tokens           double precision NOT NULL DEFAULT 0,
    tokens_at        timestamptz NOT NULL DEFAULT '-infinity',
    breaker          text NOT NULL DEFAULT 'closed',
    breaker_failures int NOT NULL DEFAULT 0,
    breaker_opened   int NOT NULL DEFAULT 0,
    breaker_until    timestamptz,
    -- One constraint and not one for each rule, as in event_log.
    CONSTRAINT consumer_progress_well_formed CHECK (
        cursor >= 0 AND cardinality(held) = cardinality(held_keys)
        AND breaker IN ('closed', 'open', 'half_open') AND (breaker = 'closed') = (breaker_until IS NULL)
        AND breaker_failures >= 0 AND breaker_opened >= 0)
) WITH (fillfactor = 50); -- written for every batch: room for versions on the same page
COMMENT ON TABLE tollgate.consumer_progress IS 'How far each consumer is: one row, written for each batch and not for each event';
COMMENT ON COLUMN tollgate.consumer_progress.consumer IS 'The consumer';
COMMENT ON COLUMN tollgate.consumer_progress.cursor IS 'Every event up to this position has been handed out, is held, or has a row in deliveries';
COMMENT ON COLUMN tollgate.consumer_progress.held IS 'Positions passed over because an earlier event of the same object is with a worker; a few hundred at most';
COMMENT ON COLUMN tollgate.consumer_progress.held_keys IS 'The objects of the events held, as tollgate.object_key';
COMMENT ON COLUMN tollgate.consumer_progress.tokens IS 'What was in the token bucket of the target''s rate at tokens_at';
COMMENT ON COLUMN tollgate.consumer_progress.tokens_at IS 'When that was reckoned';
COMMENT ON COLUMN tollgate.consumer_progress.breaker IS 'The target''s circuit breaker: closed (attempts are made), open (none), half_open (one, to see)';
COMMENT ON COLUMN tollgate.consumer_progress.breaker_failures IS 'Failed attempts in a row';
COMMENT ON COLUMN tollgate.consumer_progress.breaker_opened IS 'How often it opened in a row without closing';
COMMENT ON COLUMN tollgate.consumer_progress.breaker_until IS 'Until when it stays, or stayed, open; null when closed';

CREATE TABLE tollgate.claims (
    slot        int GENERATED ALWAYS AS IDENTITY (MAXVALUE 1048575 CYCLE) PRIMARY KEY,
    consumer    text COLLATE "C" NOT NULL REFERENCES tollgate.consumers ON DELETE CASCADE,
    claim       bigint,
    fresh       bigint[] NOT NULL DEFAULT '{}',
    keys        bigint[] NOT NULL DEFAULT '{}',
    redelivered int NOT NULL DEFAULT 0,
    claimed_at  timestamptz,
    expires_at  timestamptz,
    taken_by    text,
    CONSTRAINT claims_well_formed CHECK (
        CASE WHEN claim IS NULL THEN cardinality(fresh) = 0 AND redelivered = 0 AND claimed_at IS NULL AND expires_at IS NULL
             ELSE (claim & 1048575) = slot AND cardinality(fresh) + redelivered > 0 AND redelivered >= 0
                  AND cardinality(keys) IN (0, cardinality(fresh)) AND claimed_at IS NOT NULL AND expires_at IS NOT NULL END)
) WITH (fillfactor = 20); -- a row is used again and again: versions stay on its page, and vacuum has nothing to do
CREATE INDEX claims_of_consumer ON tollgate.claims (consumer);
COMMENT ON INDEX tollgate.claims_of_consumer IS 'What is in flight, for every claim that is made';
COMMENT ON TABLE tollgate.claims IS 'Batches that are with workers, one row for each at a time. Rows are used again, so that a consumer in good health leaves nothing to clean up';
COMMENT ON SEQUENCE tollgate.claims_slot_seq IS 'The next slot''s number';
COMMENT ON COLUMN tollgate.claims.slot IS 'Number of the row; the last 20 bits of its claims'' numbers';
COMMENT ON COLUMN tollgate.claims.consumer IS 'The consumer';
COMMENT ON COLUMN tollgate.claims.claim IS 'Number of the claim, which the worker shows to settle it: the slot in the last 20 bits, chance above them; null when free';
COMMENT ON COLUMN tollgate.claims.fresh IS 'Positions handed out for the first time and not settled yet';
COMMENT ON COLUMN tollgate.claims.keys IS 'Their objects, as tollgate.object_key; empty if the consumer asks for no order';
COMMENT ON COLUMN tollgate.claims.redelivered IS 'How many events more it holds that have a row in deliveries';
COMMENT ON COLUMN tollgate.claims.claimed_at IS 'When it was handed out';
COMMENT ON COLUMN tollgate.claims.expires_at IS 'When the lease ends';
COMMENT ON COLUMN tollgate.claims.taken_by IS 'The worker''s application_name';

CREATE TABLE tollgate.deliveries (
    consumer     text COLLATE "C" NOT NULL REFERENCES tollgate.consumers ON DELETE CASCADE,
    position     bigint NOT NULL,
    state        text NOT NULL,
    key          bigint,
    created      timestamptz NOT NULL,
    event_id     text COLLATE "C" NOT NULL,
    event_type   text COLLATE "C" NOT NULL,
    attempts     int NOT NULL,
    lost         int NOT NULL DEFAULT 0,
    error        text,
    next_attempt timestamptz,
    claim        bigint,
    reason       text,
    died_at      timestamptz,
    announced    boolean NOT NULL DEFAULT false,
    PRIMARY KEY (consumer, position),
    CONSTRAINT deliveries_state CHECK (state IN ('waiting', 'deferred', 'claimed', 'dead')),
    CONSTRAINT deliveries_waiting CHECK ((state = 'waiting') = (next_attempt IS NOT NULL)),
    CONSTRAINT deliveries_deferred CHECK (state <> 'deferred' OR (attempts = 0 AND key IS NOT NULL)),
    CONSTRAINT deliveries_claimed CHECK ((state = 'claimed') = (claim IS NOT NULL)),
    CONSTRAINT deliveries_dead CHECK ((state = 'dead') = (reason IS NOT NULL) AND (state = 'dead') = (died_at IS NOT NULL)),
    CONSTRAINT deliveries_reason CHECK (reason IN ('max_attempts_exceeded', 'non_retryable')),
    CONSTRAINT deliveries_announced CHECK (NOT announced OR state = 'dead'),
    CONSTRAINT deliveries_attempts CHECK (attempts >= 0 AND lost BETWEEN 0 AND attempts)
);
CREATE INDEX deliveries_due ON tollgate.deliveries (consumer, next_attempt) WHERE state = 'waiting';
COMMENT ON INDEX tollgate.deliveries_due IS 'What is to be tried again now';
CREATE INDEX deliveries_of_object ON tollgate.deliveries (consumer, key, position) WHERE state <> 'dead';
COMMENT ON INDEX tollgate.deliveries_of_object IS 'Whether an event''s object waits for an earlier event of it, and which comes next';
CREATE INDEX deliveries_claimed ON tollgate.deliveries (claim) WHERE state = 'claimed';
COMMENT ON INDEX tollgate.deliveries_claimed IS 'What a claim holds of them';
CREATE INDEX deliveries_dead ON tollgate.deliveries (died_at) WHERE state = 'dead';
COMMENT ON INDEX tollgate.deliveries_dead IS 'Dead letters, newest first';
CREATE INDEX deliveries_unannounced ON tollgate.deliveries (died_at) WHERE state = 'dead' AND NOT announced;
COMMENT ON INDEX tollgate.deliveries_unannounced IS 'Dead letters that no log tells of yet';
COMMENT ON TABLE tollgate.deliveries IS 'Events that a consumer did not take at the first go, and those that wait behind them. A row goes when the event is acknowledged';
COMMENT ON COLUMN tollgate.deliveries.consumer IS 'The consumer';
COMMENT ON COLUMN tollgate.deliveries.position IS 'The event''s position';
COMMENT ON COLUMN tollgate.deliveries.state IS 'waiting (for next_attempt), deferred (behind an earlier event of its object), claimed (with a worker) or dead';
COMMENT ON COLUMN tollgate.deliveries.key IS 'Its object, as tollgate.object_key; null if it has none, or the consumer asks for no order';
COMMENT ON COLUMN tollgate.deliveries.created IS 'Half of the event''s key in event_log';
COMMENT ON COLUMN tollgate.deliveries.event_id IS 'The other half';
COMMENT ON COLUMN tollgate.deliveries.event_type IS 'The event''s type';
COMMENT ON COLUMN tollgate.deliveries.attempts IS 'How often it failed, a lease that ran out included';
COMMENT ON COLUMN tollgate.deliveries.lost IS 'How often of these the lease ran out; from the second time on it is handed out alone, so that it takes no others down';
COMMENT ON COLUMN tollgate.deliveries.error IS 'What went wrong last; null if nothing did yet';
COMMENT ON COLUMN tollgate.deliveries.next_attempt IS 'When it is handed out again';
COMMENT ON COLUMN tollgate.deliveries.claim IS 'The claim that holds it';
COMMENT ON COLUMN tollgate.deliveries.reason IS 'Why it is dead: max_attempts_exceeded or non_retryable';
COMMENT ON COLUMN tollgate.deliveries.died_at IS 'When it was given up';
COMMENT ON COLUMN tollgate.deliveries.announced IS 'Whether a gateway''s log tells that it is dead';

CREATE TABLE tollgate.attempts (
    consumer text COLLATE "C" NOT NULL REFERENCES tollgate.consumers ON DELETE CASCADE,
    position bigint NOT NULL,
    at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    attempt  int NOT NULL,
    verdict  text NOT NULL,
    status   int,
    error    text NOT NULL,
    answer   text NOT NULL,
    took     interval NOT NULL,
    PRIMARY KEY (consumer, position, at),
    CONSTRAINT attempts_number CHECK (attempt >= 1),
    CONSTRAINT attempts_verdict CHECK (verdict IN ('delivered', 'retry', 'refused', 'gone'))
);
CREATE INDEX attempts_by_age ON tollgate.attempts (at);
COMMENT ON INDEX tollgate.attempts_by_age IS 'What is old enough to be forgotten';
COMMENT ON TABLE tollgate.attempts IS 'Attempts of targets that failed, and those that succeeded after failures. First attempts that succeed, which are nearly all, are not written down';
COMMENT ON COLUMN tollgate.attempts.consumer IS 'The consumer';
COMMENT ON COLUMN tollgate.attempts.position IS 'The event''s position';
COMMENT ON COLUMN tollgate.attempts.at IS 'When the attempt ended';
COMMENT ON COLUMN tollgate.attempts.attempt IS '1 for the first; begins anew when a dead letter is retried';
COMMENT ON COLUMN tollgate.attempts.verdict IS 'delivered, retry, refused (for ever) or gone (the target wants no more)';
COMMENT ON COLUMN tollgate.attempts.status IS 'The HTTP status, if there was one';
COMMENT ON COLUMN tollgate.attempts.error IS 'What went wrong; empty if nothing did';
COMMENT ON COLUMN tollgate.attempts.answer IS 'The beginning of the answer, 2 KiB at most';
COMMENT ON COLUMN tollgate.attempts.took IS 'How long it took';

-- Gateways that deliver listen for changes on tollgate_consumers.
CREATE FUNCTION tollgate.consumers_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NOTIFY tollgate_consumers;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION tollgate.consumers_changed IS 'Tells the gateways that consumers or their targets changed';
CREATE TRIGGER consumers_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON tollgate.consumers
    FOR EACH STATEMENT EXECUTE FUNCTION tollgate.consumers_changed();
CREATE TRIGGER targets_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON tollgate.targets
    FOR EACH STATEMENT EXECUTE FUNCTION tollgate.consumers_changed();

-- Reading the log ----------------------------------------------------------------------------

CREATE FUNCTION tollgate.object_key(_account text, _livemode boolean, _object_id text) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN hashtextextended(_account || ' ' || _object_id, _livemode::int);
COMMENT ON FUNCTION tollgate.object_key IS 'A number for a Stripe object: events with the same number are ordered where order is asked for. Two objects may share one, and then wait for each other. Null for no object';

CREATE FUNCTION tollgate.likes(_types text[]) RETURNS text[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN ARRAY(SELECT replace(regexp_replace(t, '([\\%_])', '\\\1', 'g'), '*', '%') FROM unnest(_types) t);
COMMENT ON FUNCTION tollgate.likes IS 'Patterns of event types as LIKE takes them';

CREATE FUNCTION tollgate.position_before(_time timestamptz) RETURNS bigint LANGUAGE plpgsql STABLE
    SET enable_seqscan = off SET jit = off
AS $$
DECLARE
    -- Positions are given at the end of a transaction and times at its beginning, so that times
    -- are not quite in order. No transaction that writes takes this long.
    _slack interval := '1 minute';
    _low  bigint := (SELECT min(p.position) - 1 FROM tollgate.positions p);
    _high bigint := (SELECT max(p.position) FROM tollgate.positions p);
    _all  bigint := _high;
    _middle bigint;
    _next record;
BEGIN
    WHILE _low < _high LOOP
        _middle := _low + (_high - _low) / 2;
        SELECT p.position, l.received_at INTO _next
        FROM tollgate.positions p CROSS JOIN LATERAL (
            SELECT e.received_at FROM tollgate.event_log e WHERE e.created = p.created AND e.id = p.id OFFSET 0) l
        WHERE p.position > _middle ORDER BY p.position LIMIT 1;
        IF NOT FOUND OR _next.received_at >= _time - _slack THEN
            _high := _middle;
        ELSE
            _low := _next.position;
        END IF;
    END LOOP;
    FOR _next IN SELECT p.position, l.received_at
                 FROM tollgate.positions p CROSS JOIN LATERAL (
                     SELECT e.received_at FROM tollgate.event_log e WHERE e.created = p.created AND e.id = p.id OFFSET 0) l
                 WHERE p.position > _low ORDER BY p.position LOOP
        IF _next.received_at >= _time THEN
            RETURN _next.position - 1;
        END IF;
    END LOOP;
    RETURN coalesce(_all, 0);
END
$$;
COMMENT ON FUNCTION tollgate.position_before IS 'The position after which come all events received at that time or later';

CREATE FUNCTION tollgate.starting_point(_start text) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF _start IS NULL THEN
        RAISE data_exception; -- not latest, which loses what the caller meant
    ELSIF _start = 'earliest' THEN
        RETURN 0;
    ELSIF _start = 'latest' THEN
        RETURN (SELECT coalesce(max(p.position), 0) FROM tollgate.positions p);
    ELSIF _start ~ '^\d{1,18}$' THEN
        RETURN least(_start::bigint, (SELECT coalesce(max(p.position), 0) FROM tollgate.positions p));
    END IF;
    RETURN tollgate.position_before(_start::timestamptz);
EXCEPTION WHEN data_exception THEN
    RAISE EXCEPTION '% is no place to start at', quote_nullable(_start) USING
        ERRCODE = 'invalid_parameter_value', HINT = 'Use latest, earliest, a time such as 2026-01-31 12:00Z, or a position: events after it come.';
END
$$;
COMMENT ON FUNCTION tollgate.starting_point IS 'The position after which to begin: latest, earliest, a time (events received from then on) or a position';

CREATE FUNCTION tollgate.next_events(
    _after bigint, _types text[], _keyed boolean, _limit int,
    OUT positions bigint[], OUT keys bigint[], OUT reached bigint
) LANGUAGE plpgsql STABLE
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan SET jit = off
AS $$
DECLARE
    _all    boolean := '*' = ANY (_types);
    _likes  text[] := CASE WHEN NOT _all OR _keyed THEN tollgate.likes(_types) END;
    _newest bigint := (SELECT max(p.position) FROM tollgate.positions p);
    _from   bigint := (SELECT min(p.position) - 1 FROM tollgate.positions p WHERE p.position > _after);
    _to     bigint;
    _until  timestamptz := clock_timestamp() + '250 milliseconds';
BEGIN
    reached := greatest(_after, _from);
    WHILE reached < _newest LOOP
        _from := reached;
        _to := least(_from + 10000, _newest);
        IF _all AND NOT _keyed THEN
            SELECT array_agg(n.position) INTO positions FROM (
                SELECT p.position FROM tollgate.positions p
                WHERE p.position > _from AND p.position <= _to ORDER BY p.position LIMIT _limit) n;
        ELSE
            SELECT array_agg(n.position), array_agg(n.key) INTO positions, keys FROM (
                SELECT p.position, CASE WHEN _keyed THEN tollgate.object_key(l.account, l.livemode, l.object_id) END AS key
                FROM tollgate.positions p CROSS JOIN LATERAL (
                    SELECT e.account, e.livemode, e.object_id FROM tollgate.event_log e
                    WHERE e.created = p.created AND e.id = p.id AND e.type LIKE ANY (_likes)
                    OFFSET 0) l -- which has the planner begin with positions
                WHERE p.position > _from AND p.position <= _to
                ORDER BY p.position LIMIT _limit) n;
        END IF;
        reached := CASE WHEN cardinality(positions) = _limit THEN positions[_limit] ELSE _to END;
        EXIT WHEN positions IS NOT NULL OR clock_timestamp() > _until;
    END LOOP;
END
$$;
COMMENT ON FUNCTION tollgate.next_events IS 'The first events of these types after a position, a limited number of them, with their objects'' keys if asked for, and how far the log has been read for them. Reads for a quarter of a second at most';
