-- The trace that an event is part of, for attempts at delivering it, which may come hours later and
-- from another replica. Written only while traces are exported.

CREATE TABLE tollgate.event_traces (
    created     timestamptz NOT NULL,
    id          text COLLATE "C" NOT NULL,
    traceparent text COLLATE "C" NOT NULL CHECK (length(traceparent) = 55),
    at          timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (created, id)
);
CREATE INDEX event_traces_at ON tollgate.event_traces (at);
COMMENT ON INDEX tollgate.event_traces_at IS 'To forget the oldest';
COMMENT ON TABLE tollgate.event_traces IS 'The traces of events, while they are exported and for those that are sampled. Forgotten after 30 days';
COMMENT ON COLUMN tollgate.event_traces.created IS 'Of the event, as in tollgate.event_log';
COMMENT ON COLUMN tollgate.event_traces.id IS 'Of the event';
COMMENT ON COLUMN tollgate.event_traces.traceparent IS 'The span of its webhook, as the header traceparent of W3C Trace Context has it';
COMMENT ON COLUMN tollgate.event_traces.at IS 'When it was recorded';

CREATE FUNCTION tollgate.keep_traces(
    _new_created timestamptz[], _new_id text[], _created timestamptz[], _id text[], _traceparent text[]
) RETURNS void LANGUAGE plpgsql
    SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    INSERT INTO tollgate.event_traces (created, id, traceparent)
    SELECT t.created, t.id, t.traceparent
    FROM unnest(_created, _id, _traceparent) AS t (created, id, traceparent)
    WHERE (t.created, t.id) IN (SELECT n.created, n.id FROM unnest(_new_created, _new_id) AS n (created, id))
    -- Of an event that retention dropped, and that came again.
    ON CONFLICT DO NOTHING;
END
$$;
COMMENT ON FUNCTION tollgate.keep_traces IS 'Keeps the traces of those events that are new, in the transaction that records them';

CREATE FUNCTION tollgate.traces_of(_positions bigint[]) RETURNS TABLE ("position" bigint, traceparent text)
    LANGUAGE sql STABLE
    BEGIN ATOMIC
        SELECT n.position, t.traceparent
        FROM unnest(_positions) AS n (position)
        -- Row by row, by key, whatever the statistics say.
        CROSS JOIN LATERAL (
            SELECT p.created, p.id FROM tollgate.positions p WHERE p.position = n.position OFFSET 0) e
        CROSS JOIN LATERAL (
            SELECT k.traceparent FROM tollgate.event_traces k WHERE k.created = e.created AND k.id = e.id OFFSET 0) t;
    END;
COMMENT ON FUNCTION tollgate.traces_of IS 'The traces of the events at these positions, of those that have one';

CREATE FUNCTION tollgate.forget_traces(_before timestamptz, _most int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    _forgotten int;
BEGIN
    DELETE FROM tollgate.event_traces t USING (
        SELECT o.created, o.id FROM tollgate.event_traces o WHERE o.at < _before ORDER BY o.at LIMIT _most) old
    WHERE (t.created, t.id) = (old.created, old.id);
    GET DIAGNOSTICS _forgotten = ROW_COUNT;
    RETURN _forgotten;
END
$$;
COMMENT ON FUNCTION tollgate.forget_traces IS 'Deletes the traces of events that were recorded before that time, so many at most; returns how many';
