//! What is done to a consumer while it works: paused, rewound, altered, dropped.

use crate::seed::{Batch, Log};

#[tokio::test]
async fn a_pause_hands_out_nothing_and_lets_settle() {
    let log = Log::new().await;
    log.seed(4).await;
    log.consumer("c", "").await;
    let batch = log.claim("c", 3).await;
    log.sql("SELECT tollgate.pause_consumer('c', 'for a test')").await;
    assert_eq!(log.claim("c", 3).await, Batch::default());
    let state: String =
        log.one("SELECT state || ' ' || paused_because FROM tollgate.consumer_status").await;
    assert_eq!(state, "paused for a test");
    log.ack_some(batch.claim, &[1]).await;
    log.nack(batch.claim, 2, "").await;
    assert_eq!(log.claim("c", 3).await, Batch::default(), "not the failed one either");
    log.sql("SELECT tollgate.resume_consumer('c')").await;
    assert_eq!(log.claim("c", 3).await.positions, [2, 4]);
    assert_eq!(log.ack(batch.claim).await, 1);
    for call in ["pause", "resume", "drop"] {
        assert_eq!(
            log.refusal(format!("SELECT tollgate.{call}_consumer('nobody')")).await,
            "TG010"
        );
    }
}

/// Events 1 to 40 of ten objects: some acknowledged, some with workers, failed, waiting behind
/// failed ones, dead, held. Returns what is acknowledged, and the claims that are open.
async fn in_every_state(log: &Log, ordering: &str) -> (Vec<i64>, Vec<i64>) {
    log.seed_objects(40, 10).await;
    log.consumer("c", &format!("ordering => '{ordering}', max_attempts => 5")).await;
    let batch = log.claim("c", 6).await;
    assert_eq!(batch.positions, [1, 2, 3, 4, 5, 6]);
    log.nack(batch.claim, 1, "retry_in => '1 hour'").await;
    log.nack(batch.claim, 2, "permanent => true").await;
    log.nack(batch.claim, 3, "").await;
    log.nack(batch.claim, 4, "").await;
    assert_eq!(log.ack_some(batch.claim, &[5]).await, 1);
    let failed = log.claim("c", 2).await;
    assert_eq!(failed.positions, [3, 4], "position 6 stays with the first claim");
    log.nack(failed.claim, 4, "permanent => true").await;
    let more = log.claim("c", 8).await;
    assert_eq!(more.positions.len(), if ordering == "object" { 6 } else { 8 }, "{more:?}");
    let (dead, live) = more.positions.split_at(1);
    log.nack(more.claim, dead[0], "permanent => true").await;
    assert_eq!(log.ack_some(more.claim, &live[..2]).await, 2);
    log.claim("c", 2).await; // reads on, so that some are held
    let acked = [&[5], &live[..2]].concat();
    let open = log.all("SELECT claim FROM tollgate.claims WHERE claim IS NOT NULL").await;
    (acked, open)
}

#[tokio::test]
async fn rewinding_loses_nothing_and_voids_claims() {
    for ordering in ["none", "object"] {
        for to in [0, 3, 6, 9, 12] {
            let log = Log::new().await;
            let (acked, open) = in_every_state(&log, ordering).await;
            let dead = log.rows("c", "dead").await;
            let point: i64 = log.one(format!("SELECT tollgate.reset_consumer('c', '{to}')")).await;
            assert_eq!(point, to);
            for claim in open {
                let refused = log.refusal(format!("SELECT tollgate.ack({claim})")).await;
                assert_eq!(refused, "TG011", "{ordering}, {to}");
            }
            let mut seen = Vec::new();
            for _ in 0..10 {
                log.let_time_pass().await;
                seen.extend(log.drain("c").await);
            }
            seen.sort_unstable();
            let expected: Vec<i64> =
                (1..=40).filter(|n| *n > to || !(acked.contains(n) || dead.contains(n))).collect();
            assert_eq!(seen, expected, "{ordering}, {to}");
            let left: Vec<i64> = dead.into_iter().filter(|&n| n <= to).collect();
            assert_eq!(
                log.all::<i64>("SELECT position FROM tollgate.deliveries ORDER BY 1").await,
                left
            );
            assert_eq!(log.status("c", "lag_events").await, 0);
        }
    }
}

#[tokio::test]
async fn resetting_goes_wherever_it_is_told() {
    let log = Log::new().await;
    log.seed(10).await;
    log.consumer("c", "").await;
    let batch = log.claim("c", 4).await;
    log.sql("UPDATE tollgate.event_log SET received_at = received_at - interval '1 hour' WHERE raw < '{\"n\":5}'").await;
    log.sql("UPDATE tollgate.event_log SET received_at = received_at - interval '1 hour' WHERE raw = '{\"n\":10}'").await;
    let latest: i64 = log.one("SELECT tollgate.reset_consumer('c', 'latest')").await;
    assert_eq!((latest, log.claim("c", 9).await), (10, Batch::default()));
    assert_eq!(log.ack(batch.claim).await, 4, "forward, claims stay open");
    for (to, next) in [("earliest", 1), ("7", 8), ("99", 0), ("0", 1)] {
        log.sql(format!("SELECT tollgate.reset_consumer('c', '{to}')")).await;
        assert_eq!(log.drain("c").await.first().copied().unwrap_or(0), next, "{to}");
    }
    log.sql("SELECT tollgate.reset_consumer('c', (now() - interval '30 minutes')::text)").await;
    assert_eq!(log.drain("c").await.first(), Some(&5));
    for nowhere in
        ["NULL", "''", "'yesterdayish'", "'-5'", "'2026-13-45'", "'99999999999999999999'"]
    {
        assert_eq!(
            log.refusal(format!("SELECT tollgate.reset_consumer('c', {nowhere})")).await,
            "22023",
            "{nowhere}"
        );
    }
    assert_eq!(log.refusal("SELECT tollgate.reset_consumer('nobody', 'latest')").await, "TG010");
}

#[tokio::test]
async fn a_consumer_dropped_takes_its_claims_along() {
    let log = Log::new().await;
    let (_, open) = in_every_state(&log, "object").await;
    log.sql("SELECT tollgate.drop_consumer('c')").await;
    assert_eq!(log.refusal(format!("SELECT tollgate.ack({})", open[0])).await, "TG011");
    assert_eq!(log.refusal("SELECT tollgate.claim('c')").await, "TG010");
    log.consumer("c", "").await;
    assert_eq!(log.claim("c", 3).await.positions, [1, 2, 3]);
    for claim in open {
        assert_eq!(
            log.refusal(format!("SELECT tollgate.ack({claim})")).await,
            "TG011",
            "not the new one's"
        );
    }
}

/// Changes the ordering in the middle, and finishes.
async fn change_ordering(from: &str, to: &str) {
    let log = Log::new().await;
    let (acked, open) = in_every_state(&log, from).await;
    let alter = format!("SELECT tollgate.alter_consumer('c', ordering => '{to}')");
    assert_eq!(log.refusal(&alter).await, "55006", "events are with workers");
    // Some say what came of it, one dies, and the consumer is paused as the hint says.
    let (died, settled) = open.split_last().unwrap();
    let mut done = acked;
    for claim in settled {
        let held = format!(
            "SELECT unnest(fresh) FROM tollgate.claims WHERE claim = {claim}
                            UNION SELECT position FROM tollgate.deliveries WHERE claim = {claim}"
        );
        done.extend(log.all::<i64>(held).await);
        log.ack(*claim).await;
    }
    log.sql("SELECT tollgate.pause_consumer('c')").await;
    log.lapse(*died).await;
    log.sql(&alter).await;
    log.sql("SELECT tollgate.resume_consumer('c')").await;
    log.sql("SELECT tollgate.retry_dead_letters('c')").await;
    for _ in 0..10 {
        log.let_time_pass().await;
        done.extend(log.drain("c").await);
    }
    done.sort_unstable();
    assert_eq!(
        done,
        (1..=40).collect::<Vec<i64>>(),
        "{from} to {to}: each once, and none is stuck"
    );
    assert_eq!(log.one::<i64>("SELECT count(*) FROM tollgate.deliveries").await, 0);
}

#[tokio::test]
async fn order_can_be_asked_for_later() {
    change_ordering("none", "object").await;
}

#[tokio::test]
async fn order_can_be_given_up() {
    change_ordering("object", "none").await;
}

#[tokio::test]
async fn types_can_be_changed() {
    let log = Log::new().await;
    for kind in ["a.x", "b.x", "a.y", "b.y"] {
        log.event(kind, "in_1").await;
    }
    log.consumer("c", "types => '{a.*}'").await;
    let batch = log.claim("c", 1).await;
    log.nack(batch.claim, 1, "").await;
    log.sql("SELECT tollgate.alter_consumer('c', types => '{b.*}')").await;
    assert_eq!(log.drain("c").await, [1, 2, 4], "what failed before comes again");
    for wrong in [
        "'{}'",
        "'{a*}'",
        "'{a b}'",
        "'{NULL}'",
        "array_fill('x'::text, ARRAY[101])",
        "'{**}'",
        "'{\"\"}'",
        "'{*.paid}'",
    ] {
        assert_eq!(
            log.refusal(format!("SELECT tollgate.alter_consumer('c', types => {wrong})")).await,
            "consumers_types",
            "{wrong}"
        );
    }
    for (wrong, constraint) in [
        ("ordering => 'account'", "consumers_ordering"),
        ("max_attempts => 0", "consumers_attempts"),
        ("lease => '0.5 s'", "consumers_lease"),
        ("retry_first => '0'", "consumers_retry"),
        ("retry_first => '2 hours'", "consumers_retry"),
        ("retry_most => '8 days'", "consumers_retry"),
    ] {
        assert_eq!(
            log.refusal(format!("SELECT tollgate.alter_consumer('c', {wrong})")).await,
            constraint,
            "{wrong}"
        );
    }
    assert_eq!(log.refusal("SELECT tollgate.alter_consumer('nobody')").await, "TG010");
}

#[tokio::test]
async fn dead_letters_are_tried_again_or_forgotten() {
    let log = Log::new().await;
    log.seed(6).await;
    log.consumer("c", "max_attempts => 2").await;
    let batch = log.claim("c", 6).await;
    for position in 1..=5 {
        assert_eq!(log.nack(batch.claim, position, "permanent => true").await, "dead");
    }
    log.ack(batch.claim).await;
    log.sql("UPDATE tollgate.deliveries SET died_at = died_at - interval '1 hour', announced = true WHERE position <> 5").await;
    let dead = |call: &str| log.one::<i64>(format!("SELECT tollgate.{call}"));
    assert_eq!(dead("retry_dead_letters('c', 6)").await, 0, "this one lives");
    assert_eq!(dead("retry_dead_letters('c', 99)").await, 0);
    assert_eq!(dead("retry_dead_letters('c', 2)").await, 1);
    assert_eq!(dead("retry_dead_letters('c', since => now() - interval '1 minute')").await, 1);
    assert_eq!(dead("discard_dead_letters('c', 3)").await, 1);
    assert_eq!(dead("discard_dead_letters('c', 2)").await, 0, "waiting now");
    let again = log.claim("c", 9).await;
    assert_eq!((again.positions, again.attempts), (vec![2, 5], vec![1, 1]), "with all attempts");
    assert_eq!(log.nack(again.claim, 2, "").await, "waiting");
    assert_eq!(log.ack(again.claim).await, 1);
    assert_eq!(dead("retry_dead_letters('c')").await, 2);
    assert_eq!(log.drain("c").await, [1, 2, 4]);
    assert_eq!(dead("discard_dead_letters('c')").await, 0);
    for call in ["retry", "discard"] {
        assert_eq!(
            log.refusal(format!("SELECT tollgate.{call}_dead_letters('nobody')")).await,
            "TG010"
        );
    }
}

#[tokio::test]
async fn the_status_counts_right_in_each_state() {
    for ordering in ["none", "object"] {
        let log = Log::new().await;
        let (acked, _) = in_every_state(&log, ordering).await;
        let all = ["waiting", "claimed", "deferred", "dead"];
        let mut rows = Vec::new();
        for state in all {
            rows.push(i64::try_from(log.rows("c", state).await.len()).unwrap());
        }
        let fresh: i64 =
            log.one("SELECT sum(cardinality(fresh))::bigint FROM tollgate.claims").await;
        let held: i64 =
            log.one("SELECT cardinality(held)::bigint FROM tollgate.consumer_progress").await;
        assert_eq!((rows[3], rows[1]), (3, 1), "dead, and claimed again");
        let status = |column: &'static str| log.status("c", column);
        assert_eq!(status("in_flight").await, fresh + rows[1]);
        assert_eq!(status("retrying").await, rows[0] + rows[1]);
        assert_eq!(status("deferred").await, rows[2] + held);
        assert_eq!(status("dead").await, 3);
        let unsettled = 40 - i64::try_from(acked.len()).unwrap() - 3;
        assert_eq!(status("lag_events").await, unsettled, "{ordering}");
        log.sql("UPDATE tollgate.event_log SET received_at = now() - interval '1 hour' WHERE raw = '{\"n\":1}'").await;
        assert!((3600..3700).contains(&status("lag_seconds").await), "event 1 waits still");
        log.sql("SELECT tollgate.retry_dead_letters('c')").await;
        log.sql("UPDATE tollgate.claims SET expires_at = now() WHERE claim IS NOT NULL").await;
        for _ in 0..10 {
            log.let_time_pass().await;
            log.drain("c").await;
        }
        for column in ["lag_events", "lag_seconds", "in_flight", "retrying", "deferred", "dead"] {
            assert_eq!(status(column).await, 0, "{column}");
        }
        assert_eq!(status("cursor").await, 40);
    }
}

#[tokio::test]
async fn no_row_leaves_the_states() {
    let log = Log::new().await;
    in_every_state(&log, "object").await;
    for (change, of, constraint) in [
        ("state = 'done'", "waiting", "deliveries_state"),
        ("state = 'dead'", "waiting", "deliveries_dead"),
        ("next_attempt = NULL", "waiting", "deliveries_waiting"),
        ("next_attempt = now()", "dead", "deliveries_waiting"),
        ("claim = 7", "waiting", "deliveries_claimed"),
        ("claim = NULL", "claimed", "deliveries_claimed"),
        ("reason = NULL", "dead", "deliveries_dead"),
        ("reason = 'bored'", "dead", "deliveries_reason"),
        ("died_at = now()", "waiting", "deliveries_dead"),
        ("announced = true", "waiting", "deliveries_announced"),
        ("attempts = 1", "deferred", "deliveries_deferred"),
        ("key = NULL", "deferred", "deliveries_deferred"),
        ("lost = attempts + 1", "waiting", "deliveries_attempts"),
        ("attempts = -1", "waiting", "deliveries_attempts"),
    ] {
        assert!(!log.rows("c", of).await.is_empty(), "there is one that is {of}");
        let update = format!("UPDATE tollgate.deliveries SET {change} WHERE state = '{of}'");
        assert_eq!(log.refusal(update).await, constraint, "{change}");
    }
    for (change, constraint) in [
        ("claim = claim + 1", "claims_well_formed"),
        ("expires_at = NULL", "claims_well_formed"),
        ("keys = keys || 1::bigint", "claims_well_formed"),
        ("redelivered = -1", "claims_well_formed"),
        ("claim = NULL, expires_at = NULL, claimed_at = NULL", "claims_well_formed"),
    ] {
        let update = format!("UPDATE tollgate.claims SET {change} WHERE fresh <> '{{}}'");
        assert_eq!(log.refusal(update).await, constraint, "{change}");
    }
    for (change, constraint) in [
        ("cursor = -1", "consumer_progress_well_formed"),
        ("held = held || 1::bigint", "consumer_progress_well_formed"),
        ("breaker = 'open'", "consumer_progress_well_formed"),
        ("breaker = 'ajar'", "consumer_progress_well_formed"),
    ] {
        assert_eq!(
            log.refusal(format!("UPDATE tollgate.consumer_progress SET {change}")).await,
            constraint,
            "{change}"
        );
    }
}

/// An event was given again though its type was not wanted; before the log has been read that far,
/// it is. It comes once, and brings nothing with it.
#[tokio::test]
async fn what_was_given_before_it_was_wanted_comes_once() {
    for (ordering, max) in [("none", 9), ("object", 9), ("none", 1), ("object", 1)] {
        let log = Log::new().await;
        for kind in ["invoice.paid", "customer.updated", "charge.failed", "invoice.paid"] {
            log.event(kind, &format!("of_{kind}")).await;
        }
        log.event("invoice.paid", "another").await;
        log.consumer("c", &format!("types => '{{invoice.*}}', ordering => '{ordering}'")).await;
        log.sql("SELECT tollgate.give_again('c', '{2}')").await;
        log.sql("SELECT tollgate.alter_consumer('c', types => '{invoice.*,customer.*}')").await;
        let (mut given, mut open) = (Vec::new(), Vec::new());
        loop {
            let batch = log.claim("c", max).await;
            if batch == Batch::default() {
                break;
            }
            given.extend(batch.positions);
            open.push(batch.claim);
        }
        for claim in open {
            log.ack(claim).await;
        }
        given.extend(log.drain("c").await);
        given.sort_unstable();
        assert_eq!(given, [1, 2, 4, 5], "{ordering}, {max} at a time");
        assert_eq!(log.status("c", "lag_events").await, 0);
    }
}
