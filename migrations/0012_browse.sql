-- Looking around: what the admin API, the dashboard and the command line ask of the log and the
-- billing tables, and giving events to consumers again.

-- Finding events -----------------------------------------------------------------------------
-- Made here and at once, because no release has had a log yet. Inserting into the log took 20 µs of
-- Postgres' CPU per event before, in batches of 64; the first index adds 3 µs, the second less than 1.
-- A whole delivery with billing tables takes 250 of both cores.

CREATE INDEX event_log_type ON tollgate.event_log (type, created);
COMMENT ON INDEX tollgate.event_log_type IS 'The newest events of a type, and which types there are: a rare one is not to be searched for';

-- Here and not in event_log: it leads from an id to the event's key and to its position.
CREATE INDEX positions_id ON tollgate.positions (id);
COMMENT ON INDEX tollgate.positions_id IS 'Where is the event of this id? Ids are unique in practice; together with created, in the log';

CREATE INDEX quarantine_by_age ON tollgate.quarantine (received_at, sha256);
COMMENT ON INDEX tollgate.quarantine_by_age IS 'What was put there last';

-- What belongs to a customer, beyond the tables that had such an index before.
CREATE INDEX checkout_sessions_customer ON stripe.checkout_sessions (customer) WHERE customer IS NOT NULL;
CREATE INDEX setup_intents_customer ON stripe.setup_intents (customer) WHERE customer IS NOT NULL;
CREATE INDEX credit_notes_customer ON stripe.credit_notes (customer) WHERE customer IS NOT NULL;
CREATE INDEX tax_ids_customer ON stripe.tax_ids (customer) WHERE customer IS NOT NULL;
CREATE INDEX subscription_schedules_customer ON stripe.subscription_schedules (customer) WHERE customer IS NOT NULL;
CREATE INDEX objects_customer ON stripe.objects (customer) WHERE customer IS NOT NULL;
CREATE INDEX refunds_charge ON stripe.refunds (charge) WHERE charge IS NOT NULL;
CREATE INDEX disputes_charge ON stripe.disputes (charge) WHERE charge IS NOT NULL;
COMMENT ON INDEX stripe.checkout_sessions_customer IS 'Which checkouts did this customer visit?';
COMMENT ON INDEX stripe.setup_intents_customer IS 'What did this customer set up to pay with?';
COMMENT ON INDEX stripe.credit_notes_customer IS 'What was taken off this customer''s invoices?';
COMMENT ON INDEX stripe.tax_ids_customer IS 'Which tax numbers does this customer have?';
COMMENT ON INDEX stripe.subscription_schedules_customer IS 'Which changes are planned for this customer?';
COMMENT ON INDEX stripe.objects_customer IS 'What else does this customer have?';
COMMENT ON INDEX stripe.refunds_charge IS 'What of this charge was given back?';
COMMENT ON INDEX stripe.disputes_charge IS 'Is this charge contested?';

CREATE FUNCTION tollgate.event_status(_created timestamptz, _id text, _position bigint) RETURNS text
    LANGUAGE sql STABLE
    RETURN CASE
        WHEN EXISTS (SELECT FROM tollgate.failures f WHERE f.event_id = _id AND f.created = _created AND f.next_attempt IS NULL)
          OR EXISTS (SELECT FROM tollgate.consumers c JOIN tollgate.deliveries d ON d.consumer = c.name AND d.position = _position
                     WHERE d.state = 'dead') THEN 'dead'
        WHEN EXISTS (SELECT FROM tollgate.failures f WHERE f.event_id = _id AND f.created = _created)
          OR EXISTS (SELECT FROM tollgate.consumers c JOIN tollgate.deliveries d ON d.consumer = c.name AND d.position = _position
                     WHERE d.attempts > 0 OR d.state = 'deferred') THEN 'failing'
        ELSE 'ok' END;
COMMENT ON FUNCTION tollgate.event_status IS 'How an event does: dead (a billing table, a handler or a consumer has given it up), failing (something of it is tried again, or waits behind an event of which something is), ok';

CREATE FUNCTION tollgate.objects_of_customer(_customer text, _most int) RETURNS TABLE (id text)
    LANGUAGE plpgsql STABLE
    SET enable_seqscan = off SET jit = off
AS $$
BEGIN
    -- Refunds, disputes and payments of invoices name no customer: they are found by what they belong to.
    RETURN QUERY
    WITH paid AS MATERIALIZED (
        SELECT c.id FROM stripe.charges c WHERE c.customer = _customer LIMIT _most
    ), billed AS MATERIALIZED (
        SELECT i.id FROM stripe.invoices i WHERE i.customer = _customer LIMIT _most
    )
    SELECT DISTINCT o.id FROM (
        SELECT _customer AS id
        UNION ALL SELECT p.id FROM paid p
        UNION ALL SELECT b.id FROM billed b
        UNION ALL (SELECT s.id FROM stripe.subscriptions s WHERE s.customer = _customer LIMIT _most)
        UNION ALL (SELECT p.id FROM stripe.payment_intents p WHERE p.customer = _customer LIMIT _most)
        UNION ALL (SELECT m.id FROM stripe.payment_methods m WHERE m.customer = _customer LIMIT _most)
        UNION ALL (SELECT c.id FROM stripe.checkout_sessions c WHERE c.customer = _customer LIMIT _most)
        UNION ALL (SELECT s.id FROM stripe.setup_intents s WHERE s.customer = _customer LIMIT _most)
        UNION ALL (SELECT n.id FROM stripe.credit_notes n WHERE n.customer = _customer LIMIT _most)
        UNION ALL (SELECT t.id FROM stripe.tax_ids t WHERE t.customer = _customer LIMIT _most)
        UNION ALL (SELECT s.id FROM stripe.subscription_schedules s WHERE s.customer = _customer LIMIT _most)
        UNION ALL (SELECT o.id FROM stripe.objects o WHERE o.customer = _customer LIMIT _most)
        UNION ALL (SELECT r.id FROM paid p JOIN stripe.refunds r ON r.charge = p.id LIMIT _most)
        UNION ALL (SELECT d.id FROM paid p JOIN stripe.disputes d ON d.charge = p.id LIMIT _most)
        UNION ALL (SELECT v.id FROM billed b JOIN stripe.invoice_payments v ON v.invoice = b.id LIMIT _most)) o
    LIMIT _most;
END
$$;
COMMENT ON FUNCTION tollgate.objects_of_customer IS 'The ids of a customer and of what the billing tables hold of it: subscriptions, invoices and their payments, charges with refunds and disputes, and so on; so many at most';

CREATE FUNCTION tollgate.event_types(_from text, _until text, _most int) RETURNS SETOF text
    LANGUAGE plpgsql STABLE
    SET enable_seqscan = off SET plan_cache_mode = force_generic_plan SET jit = off
AS $$
DECLARE
    _type text;
BEGIN
    SELECT l.type INTO _type FROM tollgate.event_log l WHERE l.type >= _from AND l.type < _until ORDER BY l.type, l.created LIMIT 1;
    WHILE _type IS NOT NULL AND _most > 0 LOOP
        RETURN NEXT _type;
        _most := _most - 1;
        SELECT l.type INTO _type FROM tollgate.event_log l WHERE l.type > _type AND l.type < _until ORDER BY l.type, l.created LIMIT 1;
    END LOOP;
END
$$;
COMMENT ON FUNCTION tollgate.event_types IS 'The event types that occur in the log from one (inclusive) to another, in their order, so many at most: one look into the index for each';

-- Giving again -------------------------------------------------------------------------------

CREATE FUNCTION tollgate.redeliver(consumer text, positions bigint[], OUT due int, OUT open int, OUT gone int)
LANGUAGE plpgsql
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    _progress tollgate.consumer_progress := tollgate.lock_consumer(redeliver.consumer);
    _consumer tollgate.consumers;
    _likes    text[];
    _fresh    bigint[];
    _there    bigint[];
    _made     int;
BEGIN
    -- As in tollgate.take: a snapshot from before the lock would not show what is out by now.
    IF current_setting('transaction_isolation') IN ('repeatable read', 'serializable') THEN
        RAISE EXCEPTION 'events are given again in a transaction of level read committed, not %', current_setting('transaction_isolation') USING
            ERRCODE = 'invalid_transaction_state';
    END IF;
    SELECT * INTO _consumer FROM tollgate.consumers c WHERE c.name = redeliver.consumer;
    _likes := tollgate.likes(_consumer.types);
    _there := ARRAY(
        SELECT p.position FROM (SELECT DISTINCT n FROM unnest(positions) n WHERE n IS NOT NULL) wanted (n)
        JOIN tollgate.positions p ON p.position = wanted.n
        WHERE EXISTS (SELECT FROM tollgate.event_log l WHERE l.created = p.created AND l.id = p.id));
    gone := (SELECT count(DISTINCT n) FROM unnest(positions) n) - cardinality(_there);
    -- With a worker now, held, or still to come by itself.
    _fresh := _progress.held || ARRAY(SELECT f FROM tollgate.claims c, unnest(c.fresh) f WHERE c.consumer = redeliver.consumer);

    -- What has a row and waits, or has been given up.
    UPDATE tollgate.deliveries d SET
        state = 'waiting', next_attempt = clock_timestamp(), reason = NULL, died_at = NULL, announced = false,
        attempts = CASE WHEN d.state = 'dead' THEN 0 ELSE d.attempts END, lost = CASE WHEN d.state = 'dead' THEN 0 ELSE d.lost END
    WHERE d.consumer = redeliver.consumer AND d.position = ANY (_there) AND d.state IN ('waiting', 'dead');
    GET DIAGNOSTICS due = ROW_COUNT;

    -- What was settled gets a row again. The key has it wait for its object, and has later events of
    -- the object wait for it, as with a dead letter that is retried.
    INSERT INTO tollgate.deliveries (consumer, position, state, key, created, event_id, event_type, attempts, next_attempt)
    SELECT redeliver.consumer, p.position, 'waiting',
           CASE WHEN _consumer.ordering = 'object' THEN tollgate.object_key(l.account, l.livemode, l.object_id) END,
           l.created, l.id, l.type, 0, clock_timestamp()
    FROM unnest(_there) n (position) JOIN tollgate.positions p USING (position)
    JOIN tollgate.event_log l ON l.created = p.created AND l.id = p.id
    WHERE p.position <> ALL (_fresh)
      AND (p.position <= _progress.cursor OR NOT l.type LIKE ANY (_likes))
    ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS _made = ROW_COUNT;
    due := due + _made;
    open := cardinality(_there) - due;
    IF due > 0 THEN
        NOTIFY tollgate_consumers;
    END IF;
END
$$;
COMMENT ON FUNCTION tollgate.redeliver IS 'Hands events out to a consumer again, whether it has settled them, has given them up, or waits to try again; also events of other types than it wants. due: how many are now; open: how many are with a worker, wait behind another event of their object, or are still to come by themselves; gone: how many are not in the log. Order per object is kept among what is not settled';

CREATE FUNCTION tollgate.reprocess(_created timestamptz[], _id text[], _projection boolean, _handlers text[], _because text)
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
        WHERE (_handlers IS NULL AND l.type LIKE ANY (tollgate.likes(ARRAY[h.pattern]))) OR h.name = ANY (_handlers)) w
    ORDER BY l.created, l.id, w.stage, w.handler
    ON CONFLICT (event_id, created, stage, handler) DO UPDATE SET
        error = excluded.error, attempts = 0, next_attempt = clock_timestamp(), last_failed = clock_timestamp();
    GET DIAGNOSTICS _asked = ROW_COUNT;
    RETURN _asked;
END
$$;
COMMENT ON FUNCTION tollgate.reprocess IS 'Has the gateway run handlers for events again, those named or, with null, all that fit, and bring their billing tables up to date. Each stands in tollgate.failures, with the reason given, until it is done; a handler that took effect before takes effect again. Returns how many that are';
