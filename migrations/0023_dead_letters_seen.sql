-- Dead letters up to a time: what somebody has seen, and not what died while they made up their mind.

DROP FUNCTION tollgate.retry_dead_letters(text, bigint, timestamptz);
CREATE FUNCTION tollgate.retry_dead_letters(
    consumer text, "position" bigint DEFAULT NULL, since timestamptz DEFAULT '-infinity', until timestamptz DEFAULT 'infinity'
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    _due bigint;
BEGIN
    PERFORM tollgate.lock_consumer(retry_dead_letters.consumer);
    UPDATE tollgate.deliveries d SET state = 'waiting', next_attempt = clock_timestamp(), attempts = 0, lost = 0,
        reason = NULL, died_at = NULL, announced = false
    WHERE d.consumer = retry_dead_letters.consumer AND d.state = 'dead' AND d.died_at BETWEEN since AND until
      AND (retry_dead_letters.position IS NULL OR d.position = retry_dead_letters.position);
    GET DIAGNOSTICS _due = ROW_COUNT;
    NOTIFY tollgate_consumers;
    RETURN _due;
END
$$;
COMMENT ON FUNCTION tollgate.retry_dead_letters IS 'Hands dead letters out again, with all their attempts: all of a consumer, one, or those that died since a time and until another. Returns how many';

DROP FUNCTION tollgate.discard_dead_letters(text, bigint, timestamptz);
CREATE FUNCTION tollgate.discard_dead_letters(
    consumer text, "position" bigint DEFAULT NULL, since timestamptz DEFAULT '-infinity', until timestamptz DEFAULT 'infinity'
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    _gone bigint;
BEGIN
    PERFORM tollgate.lock_consumer(discard_dead_letters.consumer);
    DELETE FROM tollgate.deliveries d
    WHERE d.consumer = discard_dead_letters.consumer AND d.state = 'dead' AND d.died_at BETWEEN since AND until
      AND (discard_dead_letters.position IS NULL OR d.position = discard_dead_letters.position);
    GET DIAGNOSTICS _gone = ROW_COUNT;
    RETURN _gone;
END
$$;
COMMENT ON FUNCTION tollgate.discard_dead_letters IS 'Forgets dead letters: all of a consumer, one, or those that died since a time and until another; the events stay in the log. Returns how many';
