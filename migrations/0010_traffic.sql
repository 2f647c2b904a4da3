-- What deliveries came to, minute by minute: what the dashboard's charts are made of.

CREATE TABLE tollgate.traffic_minutes (
    minute     timestamptz NOT NULL,
    outcome    text COLLATE "C" NOT NULL,
    deliveries bigint NOT NULL,
    bytes      bigint NOT NULL,
    seconds    float8 NOT NULL,
    latency    bigint[] NOT NULL,
    PRIMARY KEY (minute, outcome),
    CONSTRAINT traffic_minutes_minute CHECK (extract(epoch FROM minute)::bigint % 60 = 0),
    CONSTRAINT traffic_minutes_outcome CHECK (outcome IN ('recorded', 'duplicate', 'quarantined', 'refused', 'failed')),
    CONSTRAINT traffic_minutes_counts CHECK (deliveries >= 0 AND bytes >= 0 AND seconds >= 0),
    CONSTRAINT traffic_minutes_latency CHECK (cardinality(latency) = 25)
);
COMMENT ON TABLE tollgate.traffic_minutes IS 'Deliveries by minute and outcome, of all gateways together. Each adds what it counted every few seconds; rows go after 90 days';
COMMENT ON COLUMN tollgate.traffic_minutes.minute IS 'The minute, by its beginning';
COMMENT ON COLUMN tollgate.traffic_minutes.outcome IS 'recorded, duplicate, quarantined; refused: the sender''s fault (4xx); failed: ours (5xx)';
COMMENT ON COLUMN tollgate.traffic_minutes.deliveries IS 'How many deliveries were answered so';
COMMENT ON COLUMN tollgate.traffic_minutes.bytes IS 'Bytes of their bodies';
COMMENT ON COLUMN tollgate.traffic_minutes.seconds IS 'Time from the head of the request to the answer, summed';
COMMENT ON COLUMN tollgate.traffic_minutes.latency IS 'How many took up to 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 5, 7.5, 10, 20, 30, 50, 75, 100, 150, 200, 300, 500 milliseconds, 1, 2, 5, 10, 30 seconds, and longer; each is in the first that fits';

CREATE FUNCTION tollgate.add_traffic(
    _minute timestamptz[], _outcome text[], _deliveries bigint[], _bytes bigint[], _seconds float8[], _latency bigint[]
) RETURNS void LANGUAGE sql AS $$
    INSERT INTO tollgate.traffic_minutes AS t (minute, outcome, deliveries, bytes, seconds, latency)
    SELECT n.minute, n.outcome, n.deliveries, n.bytes, n.seconds, _latency[(n.at - 1) * 25 + 1 : n.at * 25]
    FROM unnest(_minute, _outcome, _deliveries, _bytes, _seconds) WITH ORDINALITY AS n (minute, outcome, deliveries, bytes, seconds, at)
    -- All gateways in one order, so that they wait for each other instead of deadlocking.
    ORDER BY n.minute, n.outcome
    ON CONFLICT (minute, outcome) DO UPDATE SET
        deliveries = t.deliveries + excluded.deliveries, bytes = t.bytes + excluded.bytes, seconds = t.seconds + excluded.seconds,
        latency = ARRAY(SELECT a + b FROM unnest(t.latency, excluded.latency) WITH ORDINALITY AS u (a, b, at) ORDER BY u.at)
$$;
COMMENT ON FUNCTION tollgate.add_traffic IS 'Adds what a gateway counted; the latencies of all rows stand in one array, one row''s after the other''s';
