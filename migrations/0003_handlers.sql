-- What happens beside the log and the billing tables, and what of it failed.

-- Handlers -----------------------------------------------------------------------------------

CREATE TABLE tollgate.handlers (
    name         text COLLATE "C" PRIMARY KEY,
    pattern      text COLLATE "C" NOT NULL,
    function     text NOT NULL,
    policy       text NOT NULL DEFAULT 'park',
    timeout      interval NOT NULL DEFAULT '2 seconds',
    max_attempts int NOT NULL DEFAULT 12,
    registered_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT handlers_named CHECK (name <> ''),
    CONSTRAINT handlers_pattern CHECK (pattern ~ '^(\*|[^*\s]+|[^*\s]+\.\*)$'),
    CONSTRAINT handlers_policy CHECK (policy IN ('park', 'reject')),
    CONSTRAINT handlers_timeout CHECK (timeout BETWEEN '1 millisecond' AND '1 minute'),
    CONSTRAINT handlers_attempts CHECK (max_attempts BETWEEN 1 AND 1000)
);
COMMENT ON TABLE tollgate.handlers IS 'SQL functions that run in the transaction that records an event';
COMMENT ON COLUMN tollgate.handlers.name IS 'What commands and failures call it; handlers of one event run in the order of their names';
COMMENT ON COLUMN tollgate.handlers.pattern IS 'Which event types: invoice.paid, invoice.* or *';
COMMENT ON COLUMN tollgate.handlers.function IS 'The function with its schema and argument, app.on_invoice_paid(jsonb); looked up at every call';
COMMENT ON COLUMN tollgate.handlers.policy IS 'park: a failure is kept and retried, the event is recorded all the same; reject: the event is not recorded either and Stripe is told to come back';
COMMENT ON COLUMN tollgate.handlers.timeout IS 'The longest that one call may take';
COMMENT ON COLUMN tollgate.handlers.max_attempts IS 'Calls for one event until it is given up, the first included';
COMMENT ON COLUMN tollgate.handlers.registered_at IS 'When it was registered, or last changed';

CREATE TABLE tollgate.handlers_generation (
    generation bigint NOT NULL,
    one boolean PRIMARY KEY DEFAULT true,
    CONSTRAINT handlers_generation_one CHECK (one)
);
INSERT INTO tollgate.handlers_generation VALUES (0);
COMMENT ON TABLE tollgate.handlers_generation IS 'Grows with every change to handlers: how gateways notice';
COMMENT ON COLUMN tollgate.handlers_generation.generation IS 'Number of changes so far';
COMMENT ON COLUMN tollgate.handlers_generation.one IS 'There is one row';

CREATE FUNCTION tollgate.handlers_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE tollgate.handlers_generation SET generation = generation + 1;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION tollgate.handlers_changed IS 'Tells the gateways that the handlers changed';
CREATE TRIGGER handlers_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON tollgate.handlers
    FOR EACH STATEMENT EXECUTE FUNCTION tollgate.handlers_changed();

CREATE FUNCTION tollgate.register_handler(
    pattern text, function regprocedure, name text DEFAULT NULL, policy text DEFAULT 'park',
    timeout interval DEFAULT '2 seconds', max_attempts int DEFAULT 12
) RETURNS text LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    _function text;
    _name text;
BEGIN
    SELECT format('%I.%I(jsonb)', s.nspname, p.proname) INTO _function
    FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace s ON s.oid = p.pronamespace
    WHERE p.oid = register_handler.function AND p.prokind = 'f' AND NOT p.proretset
      AND p.pronargs = 1 AND p.proargtypes[0] = 'jsonb'::regtype;
    IF _function IS NULL THEN
        RAISE EXCEPTION '% cannot be a handler', register_handler.function USING
            ERRCODE = 'wrong_object_type', HINT = 'A handler is a function of one argument, the event as jsonb: not a procedure, an aggregate or a set.';
    END IF;
    _name := coalesce(register_handler.name, register_handler.pattern || ' ' || regexp_replace(_function, '\(jsonb\)$', ''));
    INSERT INTO tollgate.handlers AS h (name, pattern, function, policy, timeout, max_attempts)
    VALUES (_name, register_handler.pattern, _function, register_handler.policy, register_handler.timeout, register_handler.max_attempts)
    ON CONFLICT (name) DO UPDATE SET pattern = excluded.pattern, function = excluded.function, policy = excluded.policy,
        timeout = excluded.timeout, max_attempts = excluded.max_attempts, registered_at = now();
    RETURN _name;
END
$$;
COMMENT ON FUNCTION tollgate.register_handler IS 'Has a function called with every new event whose type fits the pattern, in the transaction that records it. Gives it a name if you give none, and returns it; the same name again replaces';

CREATE FUNCTION tollgate.drop_handler(name text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM tollgate.handlers h WHERE h.name = drop_handler.name;
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION tollgate.drop_handler IS 'Ends the calls of a handler; its failures stay to be looked at. False if there is none of that name';

CREATE FUNCTION tollgate.call_handler(_function text, _created timestamptz, _id text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    _event record;
    _proc record;
    _durable text := current_setting('synchronous_commit');
BEGIN
    SELECT s.nspname, p.proname INTO _proc
    FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace s ON s.oid = p.pronamespace
    WHERE p.oid = to_regprocedure(_function);
    IF NOT FOUND THEN
        RAISE EXCEPTION 'function % does not exist any more', _function USING ERRCODE = 'undefined_function';
    END IF;
    -- A loop, because what an open query reads cannot be dropped or emptied.
    FOR _event IN SELECT l.raw FROM tollgate.event_log l WHERE l.created = _created AND l.id = _id LOOP
        EXECUTE format('SELECT %I.%I($1)', _proc.nspname, _proc.proname) USING tollgate.payload(_event.raw)::jsonb;
    END LOOP;
    IF EXISTS (SELECT FROM unnest(ARRAY['event_log', 'positions', 'failures', 'handlers', 'handlers_generation', 'quarantine']) t
               WHERE to_regclass('tollgate.' || t) IS NULL) THEN
        RAISE EXCEPTION 'the handler drops a table of Tollgate''s' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF current_setting('synchronous_commit') <> _durable THEN
        RAISE EXCEPTION 'the handler changes synchronous_commit' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
END
$$;
COMMENT ON FUNCTION tollgate.call_handler IS 'Calls a handler with an event of the log';

-- Failures -----------------------------------------------------------------------------------

CREATE TABLE tollgate.failures (
    failure      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    stage        text NOT NULL,
    handler      text COLLATE "C" NOT NULL DEFAULT '',
    created      timestamptz NOT NULL,
    event_id     text COLLATE "C" NOT NULL,
    event_type   text COLLATE "C" NOT NULL,
    error        text NOT NULL,
    attempts     int NOT NULL DEFAULT 1,
    first_failed timestamptz NOT NULL DEFAULT now(),
    last_failed  timestamptz NOT NULL DEFAULT now(),
    next_attempt timestamptz,
    CONSTRAINT failures_once UNIQUE (event_id, created, stage, handler),
    CONSTRAINT failures_stage CHECK (stage IN ('projection', 'handler')),
    CONSTRAINT failures_handler CHECK ((handler <> '') = (stage = 'handler')),
    CONSTRAINT failures_attempts CHECK (attempts >= 0)
);
CREATE INDEX failures_due ON tollgate.failures (next_attempt) WHERE next_attempt IS NOT NULL;
COMMENT ON INDEX tollgate.failures_due IS 'What is to be tried again now';
COMMENT ON TABLE tollgate.failures IS 'Events that are in the log, but that a billing table or a handler has not taken. A row goes when a later attempt succeeds';
COMMENT ON COLUMN tollgate.failures.failure IS 'Number of the failure';
COMMENT ON SEQUENCE tollgate.failures_failure_seq IS 'The next failure''s number';
COMMENT ON COLUMN tollgate.failures.stage IS 'projection (billing tables) or handler';
COMMENT ON COLUMN tollgate.failures.handler IS 'The handler''s name; empty for projections';
COMMENT ON COLUMN tollgate.failures.created IS 'Half of the event''s key in event_log';
COMMENT ON COLUMN tollgate.failures.event_id IS 'The other half';
COMMENT ON COLUMN tollgate.failures.event_type IS 'The event''s type';
COMMENT ON COLUMN tollgate.failures.error IS 'What went wrong last, in the database''s words';
COMMENT ON COLUMN tollgate.failures.attempts IS 'How often it was tried; 0 if there was no time for it yet';
COMMENT ON COLUMN tollgate.failures.first_failed IS 'When it failed first';
COMMENT ON COLUMN tollgate.failures.last_failed IS 'When it failed last';
COMMENT ON COLUMN tollgate.failures.next_attempt IS 'When it is tried again; null for a dead letter: it was tried often enough';
