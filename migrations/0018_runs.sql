-- Cheaper claims: the events of a batch are read by runs of positions, and what a gateway claims for
-- its own deliveries in no order does not wait for the disk. And no event comes twice in a batch.

SET LOCAL lock_timeout = '5s';

DO $$
BEGIN
    -- Not every Postgres has it. A batch's positions are several kB, written for each claim.
    IF EXISTS (SELECT FROM pg_settings WHERE name = 'default_toast_compression' AND 'lz4' = ANY (enumvals)) THEN
        ALTER TABLE tollgate.claims ALTER COLUMN fresh SET COMPRESSION lz4, ALTER COLUMN keys SET COMPRESSION lz4;
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION tollgate.next_events(
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
    -- Rarely: what it was given though it did not want it. That comes by its row.
    _given  boolean := EXISTS (SELECT FROM tollgate.deliveries d WHERE d.consumer = _consumer.name AND d.position > _after);
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
        IF _given THEN
            SELECT array_agg(n.position ORDER BY n.position), array_agg(n.key ORDER BY n.position) INTO positions, keys
            FROM unnest(positions, keys) AS n (position, key)
            WHERE NOT EXISTS (SELECT FROM tollgate.deliveries d WHERE d.consumer = _consumer.name AND d.position = n.position);
        END IF;
        EXIT WHEN positions IS NOT NULL OR clock_timestamp() > _until;
    END LOOP;
END
$$;

-- Inlined: what is not asked for is not read.
CREATE FUNCTION tollgate.batch_events(_positions bigint[], _attempts int[])
    RETURNS TABLE ("position" bigint, attempt int, id text, type text, object_type text, object_id text, account text,
                   livemode boolean, api_version text, created timestamptz, received_at timestamptz, raw bytea)
    LANGUAGE sql STABLE
AS $$
    SELECT l.position, r.attempt, l.id::text, l.type::text, l.object_type::text, l.object_id::text, l.account::text,
           l.livemode, l.api_version::text, l.created, l.received_at, l.raw
    FROM (
        SELECT min(u.position) AS first, max(u.position) AS last, u.attempt
        FROM (SELECT n.position, n.attempt, n.position - dense_rank() OVER (PARTITION BY n.attempt ORDER BY n.position) AS run
              FROM unnest(_positions, _attempts) AS n (position, attempt)) u
        GROUP BY u.attempt, u.run
        ORDER BY 1) r
    CROSS JOIN LATERAL (
        SELECT p.position, e.*
        FROM tollgate.positions p JOIN tollgate.event_log e ON e.created = p.created AND e.id = p.id
        WHERE p.position BETWEEN r.first AND r.last ORDER BY p.position OFFSET 0) l
$$;
COMMENT ON FUNCTION tollgate.batch_events IS 'The events of a batch in the order of their positions, with the number of the attempt at each; without those that retention has dropped. Reads the log by runs of positions, without a gap and of one attempt: mostly one run, and faster than a look for each. For callers that forbid hash and merge joins';

CREATE OR REPLACE FUNCTION tollgate.claim(consumer text, max int DEFAULT 100, bodies boolean DEFAULT true)
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
        SELECT _taken.claim, l.position, l.id, l.type, l.object_type, l.object_id, l.account,
               l.livemode, l.api_version, l.created, l.received_at, l.attempt,
               CASE WHEN NOT claim.bodies THEN NULL
                    WHEN l.body IS NOT NULL THEN tollgate.json_of(l.body) ELSE tollgate.payload_or_null(l.raw) END
        FROM (
            -- What is too short to be nested too deep; the other way takes a subtransaction.
            SELECT e.*, CASE WHEN claim.bodies AND octet_length(e.raw) < 8192 THEN convert_from(e.raw, 'UTF8') END AS body
            FROM tollgate.batch_events(_taken.positions, _taken.attempts) e OFFSET 0) l;
        GET DIAGNOSTICS _given = ROW_COUNT;
        EXIT WHEN _given = coalesce(cardinality(_taken.positions), 0);
        PERFORM tollgate.forget_gone(_taken.claim);
        EXIT WHEN _given > 0 OR clock_timestamp() > _until;
    END LOOP;
END
$$;

CREATE OR REPLACE FUNCTION tollgate.take_bodies(_name text, _max int)
    RETURNS TABLE (claim bigint, due timestamptz, "position" bigint, attempt int, id text, type text, account text, livemode boolean, raw bytea)
LANGUAGE plpgsql
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    _taken record;
    _given int;
BEGIN
    PERFORM tollgate.lock_consumer(_name);
    -- A gateway that has not noticed yet takes nothing from the workers.
    IF NOT EXISTS (SELECT FROM tollgate.targets t WHERE t.consumer = _name) THEN
        RETURN;
    END IF;
    -- The commit that settles the batch flushes this one too. If the server crashes in between, the
    -- batch is handed out again, perhaps while attempts are under way. Not with an order: such an
    -- attempt must keep the next event of its object back.
    PERFORM set_config('synchronous_commit', 'off', true) FROM tollgate.consumers c WHERE c.name = _name AND c.ordering = 'none';
    -- A statement of its own, as the next one must see events that are committed up to now.
    _taken := tollgate.take(_name, _max);
    RETURN QUERY
    SELECT _taken.claim, _taken.due, e.position, e.attempt, e.id, e.type, e.account, e.livemode, e.raw
    FROM tollgate.batch_events(_taken.positions, _taken.attempts) e;
    GET DIAGNOSTICS _given = ROW_COUNT;
    IF _given < cardinality(_taken.positions) THEN
        -- Retention has dropped some meanwhile: nobody can deliver those.
        PERFORM tollgate.forget_gone(_taken.claim);
    END IF;
    IF _given = 0 THEN
        -- There may be more behind what was dropped.
        RETURN QUERY SELECT NULL::bigint, CASE WHEN _taken.claim IS NULL THEN _taken.due ELSE clock_timestamp() END, NULL::bigint, NULL::int, NULL, NULL, NULL, NULL::boolean, NULL::bytea;
    END IF;
END
$$;
