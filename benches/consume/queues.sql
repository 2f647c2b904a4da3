-- What claims are compared with: the usual queues, a row per event, and the log to fill them from.

CREATE SCHEMA bench;

CREATE FUNCTION bench.fill(_from bigint, _count bigint, _bodies bytea[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    _created timestamptz[];
    _id text[];
    _notice text[];
BEGIN
    WITH made AS (
        INSERT INTO tollgate.event_log AS l (created, id, endpoint, account, livemode, type, object_type, object_id, source, raw)
        SELECT date_trunc('second', now()), 'evt_' || md5(n::text), 'default', '', false, 'invoice.paid', 'invoice', 'in_' || n % 20000,
               'webhook', _bodies[1 + n % cardinality(_bodies)]
        FROM generate_series(_from, _from + _count - 1) n
        RETURNING l.created, l.id
    )
    SELECT array_agg(m.created), array_agg(m.id), array_agg('"id":"' || m.id || '"}') INTO _created, _id, _notice FROM made m;
    PERFORM tollgate.place_events(_created, _id, _notice, 'off');
END
$$;

-- As pgmq, graphile-worker, River and others have it: the message is in the row.
CREATE TABLE bench.messages (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    attempts   int NOT NULL DEFAULT 0,
    visible_at timestamptz NOT NULL DEFAULT now(),
    message    jsonb NOT NULL
);
CREATE INDEX messages_visible ON bench.messages (visible_at);

-- As lean as a row per event can be: it only points to the log.
CREATE TABLE bench.jobs (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    attempts   int NOT NULL DEFAULT 0,
    visible_at timestamptz NOT NULL DEFAULT now(),
    position   bigint NOT NULL,
    event_id   text NOT NULL,
    type       text NOT NULL,
    object_id  text
);
CREATE INDEX jobs_visible ON bench.jobs (visible_at);
