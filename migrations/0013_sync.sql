-- Asking Stripe: how far the log has been compared with Stripe's list of events, what was found
-- missing, and how far a backfill is. Who asks, and when, is src/sync.

-- How many questions -------------------------------------------------------------------------

CREATE TABLE tollgate.api_budget (
    one    boolean PRIMARY KEY DEFAULT true CHECK (one),
    tokens double precision NOT NULL DEFAULT 0,
    at     timestamptz NOT NULL DEFAULT '-infinity'
);
INSERT INTO tollgate.api_budget DEFAULT VALUES;
COMMENT ON TABLE tollgate.api_budget IS 'The one token bucket from which all replicas and commands take their requests to Stripe''s API';
COMMENT ON COLUMN tollgate.api_budget.one IS 'There is one row';
COMMENT ON COLUMN tollgate.api_budget.tokens IS 'What was in it at that time; below zero when requests are promised that have to wait';
COMMENT ON COLUMN tollgate.api_budget.at IS 'When that was reckoned';

CREATE FUNCTION tollgate.take_api_token(_rate double precision) RETURNS double precision LANGUAGE sql AS $$
    -- A second's worth may come at once. Whoever overdraws waits until that is made good.
    UPDATE tollgate.api_budget b SET at = clock_timestamp(),
        tokens = least(greatest(_rate, 1), b.tokens + _rate * greatest(0, extract(epoch FROM clock_timestamp() - greatest(b.at, clock_timestamp() - interval '1 hour')))) - 1
    RETURNING greatest(0, -b.tokens / _rate)
$$;
COMMENT ON FUNCTION tollgate.take_api_token IS 'Takes the right to one request, of so many a second over all who ask; returns the seconds to wait before it is made';

CREATE FUNCTION tollgate.hold_api(_rate double precision, _seconds double precision) RETURNS void LANGUAGE sql AS $$
    UPDATE tollgate.api_budget b SET at = clock_timestamp(), tokens = least(b.tokens, -_rate * _seconds)
$$;
COMMENT ON FUNCTION tollgate.hold_api IS 'Nobody asks Stripe for so many seconds, because Stripe said that it is too much';

-- Reconciling --------------------------------------------------------------------------------

CREATE TABLE tollgate.reconciliations (
    account      text COLLATE "C" NOT NULL,
    livemode     boolean NOT NULL,
    began_at     timestamptz NOT NULL,
    watermark    timestamptz NOT NULL,
    swept_to     timestamptz NOT NULL,
    swept_at     timestamptz NOT NULL,
    started_at   timestamptz,
    succeeded_at timestamptz,
    failed_at    timestamptz,
    error        text,
    PRIMARY KEY (account, livemode),
    CONSTRAINT reconciliations_error CHECK ((failed_at IS NULL) = (error IS NULL))
);
COMMENT ON TABLE tollgate.reconciliations IS 'How far the log has been compared with Stripe''s list of events, for each account and mode';
COMMENT ON COLUMN tollgate.reconciliations.account IS 'The connected account; empty for the platform''s own';
COMMENT ON COLUMN tollgate.reconciliations.livemode IS 'Which mode, as told by the API key';
COMMENT ON COLUMN tollgate.reconciliations.began_at IS 'From when on events are the gateway''s to miss, on its own clock: when the database was made, or for an account or mode that came later, when it came';
COMMENT ON COLUMN tollgate.reconciliations.watermark IS 'Every event that Stripe listed up to here has been compared, on Stripe''s clock';
COMMENT ON COLUMN tollgate.reconciliations.swept_to IS 'As watermark, of the last run that looked at every event on the way, once a day; the others stop where a page has nothing new';
COMMENT ON COLUMN tollgate.reconciliations.swept_at IS 'When that was, on the database''s clock';
COMMENT ON COLUMN tollgate.reconciliations.started_at IS 'When the last run began';
COMMENT ON COLUMN tollgate.reconciliations.succeeded_at IS 'When one last came to its end';
COMMENT ON COLUMN tollgate.reconciliations.failed_at IS 'When the last run failed; null if it did not';
COMMENT ON COLUMN tollgate.reconciliations.error IS 'Why; null if it did not';

CREATE TABLE tollgate.gaps (
    gap      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    found_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    account  text COLLATE "C" NOT NULL,
    livemode boolean NOT NULL,
    since    timestamptz NOT NULL,
    until    timestamptz NOT NULL,
    events   bigint NOT NULL,
    late     bigint NOT NULL,
    types    jsonb NOT NULL,
    CONSTRAINT gaps_counts CHECK (events > 0 AND late BETWEEN 0 AND events),
    CONSTRAINT gaps_times CHECK (since <= until),
    CONSTRAINT gaps_types CHECK (jsonb_typeof(types) = 'object')
);
CREATE INDEX gaps_by_age ON tollgate.gaps (found_at);
COMMENT ON INDEX tollgate.gaps_by_age IS 'The newest ones, for status and dashboard';
COMMENT ON TABLE tollgate.gaps IS 'Events that no webhook had brought and that reconciling fetched: a row for each run that found some';
COMMENT ON SEQUENCE tollgate.gaps_gap_seq IS 'The next gap''s number';
COMMENT ON COLUMN tollgate.gaps.gap IS 'A number';
COMMENT ON COLUMN tollgate.gaps.found_at IS 'When they were fetched';
COMMENT ON COLUMN tollgate.gaps.account IS 'Whose they are; empty for the platform''s own';
COMMENT ON COLUMN tollgate.gaps.livemode IS 'True for live, false for test data';
COMMENT ON COLUMN tollgate.gaps.since IS 'When Stripe made the first of them';
COMMENT ON COLUMN tollgate.gaps.until IS 'When Stripe made the last of them';
COMMENT ON COLUMN tollgate.gaps.events IS 'How many they are';
COMMENT ON COLUMN tollgate.gaps.late IS 'How many of them were older than a minute: their webhooks cannot just have been on the way';
COMMENT ON COLUMN tollgate.gaps.types IS 'How many of each type';

-- Backfilling --------------------------------------------------------------------------------

CREATE TABLE tollgate.backfills (
    account     text COLLATE "C" NOT NULL,
    livemode    boolean NOT NULL,
    kind        text COLLATE "C" NOT NULL,
    since       timestamptz,
    cursor      text,
    listed      bigint NOT NULL DEFAULT 0,
    written     bigint NOT NULL DEFAULT 0,
    started_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    touched_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz,
    PRIMARY KEY (account, livemode, kind),
    CONSTRAINT backfills_counts CHECK (written BETWEEN 0 AND listed)
);
COMMENT ON TABLE tollgate.backfills IS 'How far tollgate backfill is with each kind of object. One that was interrupted goes on behind its cursor';
COMMENT ON COLUMN tollgate.backfills.account IS 'The connected account; empty for the platform''s own';
COMMENT ON COLUMN tollgate.backfills.livemode IS 'Which mode, as told by the API key';
COMMENT ON COLUMN tollgate.backfills.kind IS 'The table that it fills';
COMMENT ON COLUMN tollgate.backfills.since IS 'Objects that Stripe made before that are left out; null for none';
COMMENT ON COLUMN tollgate.backfills.cursor IS 'Behind what to go on: number of the list and id of its last object, or the last customer whose objects were listed; null at the beginning';
COMMENT ON COLUMN tollgate.backfills.listed IS 'Objects that Stripe listed';
COMMENT ON COLUMN tollgate.backfills.written IS 'How many of them were not in the table, or not so';
COMMENT ON COLUMN tollgate.backfills.started_at IS 'When it began';
COMMENT ON COLUMN tollgate.backfills.touched_at IS 'When it last got on';
COMMENT ON COLUMN tollgate.backfills.finished_at IS 'When it was done; null while it is not';

-- Comparing ----------------------------------------------------------------------------------

CREATE FUNCTION tollgate.typed_values(_table text, _alias text) RETURNS text LANGUAGE sql STABLE AS $$
    -- Each in a query of its own, so that the expressions find their columns under the names they use.
    SELECT '(' || coalesce(string_agg(format('jsonb_build_object(%L, (SELECT %s FROM (SELECT %s.object, %s.links) AS written))',
                                             b.name, b.expression, _alias, _alias), ' || ' ORDER BY b.name), '''{}''::jsonb') || ')'
    FROM tollgate.billing_columns b WHERE b.table_name = _table
$$;
COMMENT ON FUNCTION tollgate.typed_values IS 'An expression for the typed columns of a billing table, as jsonb, computed from the columns object and links of the row that _alias names';

CREATE FUNCTION tollgate.compare_objects(_table text, _account text, _livemode boolean, _type text[], _id text[], _object text[])
    RETURNS TABLE (at int, incarnation bigint, phase smallint, as_of timestamptz, api_version text, stored text, differing text[])
    LANGUAGE plpgsql STABLE
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
BEGIN
    RETURN QUERY EXECUTE format($sql$
        SELECT n.at, t.incarnation, t.phase, t.as_of, t.api_version, t.object::text,
               ARRAY(SELECT typed.key FROM jsonb_each(%2$s) AS typed (key, value)
                     WHERE (to_jsonb(t) -> typed.key) IS DISTINCT FROM typed.value ORDER BY typed.key)
        FROM generate_series(1, coalesce(cardinality($4), 0)) AS n (at)
        CROSS JOIN LATERAL (SELECT $5[n.at]::jsonb AS object OFFSET 0) said
        JOIN stripe.%1$I t ON t.account = $1 AND t.livemode = $2 AND t.id = $4[n.at]%3$s
        CROSS JOIN LATERAL (SELECT said.object, t.links OFFSET 0) AS shown$sql$,
        _table, tollgate.typed_values(_table, 'shown'), CASE WHEN _table = 'objects' THEN ' AND t.object_type = $3[n.at]' END)
    USING _account, _livemode, _type, _id, _object;
END
$$;
COMMENT ON FUNCTION tollgate.compare_objects IS 'Holds objects, as Stripe shows them now, against their rows in a billing table: of each that is there its standing, its JSON, and the typed columns that would have another value';

CREATE FUNCTION tollgate.pick_objects(_table text, _account text, _livemode boolean, _condition text, _tail text)
    RETURNS TABLE (table_name text, account text, object_type text, id text, stored text) LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY EXECUTE format(
        'SELECT %L, t.account::text, %s, t.id::text, t.object::text FROM stripe.%I t
         WHERE t.livemode = $1 AND ($2 IS NULL OR t.account = $2) AND %s %s',
        _table, CASE WHEN _table = 'objects' THEN 't.object_type::text' ELSE 'coalesce(t.object ->> ''object'', '''')' END,
        _table, _condition, _tail)
    USING _livemode, _account;
END
$$;
COMMENT ON FUNCTION tollgate.pick_objects IS 'Rows of a billing table, of an account or all, under a condition and with a tail in SQL, for the functions that follow';

CREATE FUNCTION tollgate.tied_objects(_livemode boolean, _most bigint, _not text[])
    RETURNS TABLE (table_name text, account text, object_type text, id text, stored text) LANGUAGE plpgsql STABLE AS $$
DECLARE
    _table text;
    _tail  text := format('LIMIT %s', _most);
BEGIN
    FOR _table IN SELECT tollgate.billing_tables() LOOP
        RETURN QUERY SELECT * FROM tollgate.pick_objects(_table, NULL, _livemode,
            format('t.order_basis = ''tiebreak'' AND %L || '' '' || t.account || '' '' || t.id <> ALL (%L::text[])', _table, _not), _tail);
    END LOOP;
END
$$;
COMMENT ON FUNCTION tollgate.tied_objects IS 'Objects whose newest state is a guess, so many of each table at most, without these, each given as table, account and id with a space between';

CREATE FUNCTION tollgate.sample_objects(_livemode boolean, _only text, _most bigint, _connected boolean)
    RETURNS TABLE (table_name text, account text, object_type text, id text, stored text) LANGUAGE plpgsql AS $$
DECLARE
    _table text;
BEGIN
    CREATE TEMPORARY TABLE IF NOT EXISTS sampled (table_name text, account text, object_type text, id text, stored text) ON COMMIT DROP;
    TRUNCATE sampled;
    FOR _table IN SELECT b FROM tollgate.billing_tables() b WHERE _only IS NULL OR b = _only LOOP
        -- The rows first, so that no object is read that is not chosen.
        INSERT INTO sampled SELECT * FROM tollgate.pick_objects(_table, NULL, _livemode,
            format('t.ctid = ANY (ARRAY(SELECT c.ctid FROM stripe.%I c WHERE c.livemode = $1 AND NOT c.deleted AND (%L OR length(c.account) = 0)
                                         ORDER BY random() LIMIT %s))', _table, _connected, _most), '');
    END LOOP;
    RETURN QUERY SELECT * FROM sampled s ORDER BY random() LIMIT _most;
END
$$;
COMMENT ON FUNCTION tollgate.sample_objects IS 'So many objects that are not known to be deleted, at random, of one billing table or all. Reads these tables';

CREATE FUNCTION tollgate.next_objects(_table text, _account text, _livemode boolean, _after text, _after_type text, _most bigint)
    RETURNS TABLE (table_name text, account text, object_type text, id text, stored text) LANGUAGE sql STABLE AS $$
    SELECT * FROM tollgate.pick_objects(_table, _account, _livemode, CASE WHEN _table = 'objects' THEN format('NOT t.deleted AND (t.id, t.object_type) > (%L, %L)', _after, _after_type)
             ELSE format('NOT t.deleted AND t.id > %L', _after) END,
        CASE WHEN _table = 'objects' THEN format('ORDER BY t.id, t.object_type LIMIT %s', _most)
             ELSE format('ORDER BY t.id LIMIT %s', _most) END)
$$;
COMMENT ON FUNCTION tollgate.next_objects IS 'The next objects of a billing table that are not known to be deleted, by id';

-- Ties are looked for again and again, and are rare.
DO $$
DECLARE
    _table text;
BEGIN
    FOR _table IN SELECT tollgate.billing_tables() LOOP
        EXECUTE format('CREATE INDEX %I ON stripe.%I (livemode) WHERE order_basis = ''tiebreak''', _table || '_ties', _table);
        EXECUTE format('COMMENT ON INDEX stripe.%I IS ''Rows that are guesses, for those who ask Stripe''', _table || '_ties');
    END LOOP;
END
$$;
