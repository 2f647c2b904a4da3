//! Order by object: one event of an object at a time, in the order of positions; the objects do not
//! wait for each other.

use crate::seed::{Batch, Log};

/// Events of objects 0, 1, 2, 0, 1, 2, … and a consumer that orders them.
async fn three_objects(events: i64, more: &str) -> Log {
    let log = Log::new().await;
    log.seed_objects(events, 3).await;
    let comma = if more.is_empty() { "" } else { ", " };
    log.consumer("c", &format!("ordering => 'object'{comma}{more}")).await;
    log
}

#[tokio::test]
async fn a_claim_holds_one_event_of_an_object() {
    let log = three_objects(9, "").await;
    for expected in [[1, 2, 3], [4, 5, 6], [7, 8, 9]] {
        let batch = log.claim("c", 100).await;
        assert_eq!(batch.positions, expected);
        assert_eq!(log.claim("c", 100).await, Batch::default(), "the rest waits for them");
        assert_eq!(log.ack(batch.claim).await, 3);
    }
    assert_eq!(log.claim("c", 100).await, Batch::default());
}

#[tokio::test]
async fn held_events_are_free_when_those_before_are_acknowledged() {
    let log = three_objects(9, "").await;
    let batch = log.claim("c", 3).await;
    assert_eq!(log.claim("c", 3).await, Batch::default());
    assert_eq!(log.status("c", "deferred").await, 6, "held");
    log.ack_some(batch.claim, &[2]).await;
    assert_eq!(log.claim("c", 3).await.positions, [5]);
    log.lapse(batch.claim).await;
    let again = log.claim("c", 3).await;
    assert_eq!((again.positions, again.attempts), (vec![1, 3], vec![2, 2]), "before what is held");
}

/// What waits behind a failed event goes on when that is done with, in whichever way.
#[tokio::test]
async fn deferred_events_go_on() {
    for end in ["acked", "dead", "discarded", "reset"] {
        let log = three_objects(9, "max_attempts => 3").await;
        let batch = log.claim("c", 3).await;
        log.nack(batch.claim, 1, "retry_in => '1 hour'").await;
        log.ack(batch.claim).await;
        let others = log.drain("c").await;
        assert_eq!(others, [5, 6, 8, 9], "objects 2 and 0 do not wait");
        assert_eq!(
            (log.rows("c", "waiting").await, log.rows("c", "deferred").await),
            (vec![1], vec![4, 7])
        );
        log.let_time_pass().await;
        let failed = log.claim("c", 9).await;
        assert_eq!(failed.positions, [1]);
        match end {
            "acked" => _ = log.ack(failed.claim).await,
            "reset" => log.sql("SELECT tollgate.reset_consumer('c', 6::text)").await,
            _ => {
                assert_eq!(log.nack(failed.claim, 1, "permanent => true").await, "dead");
            }
        }
        if end == "discarded" {
            log.sql("SELECT tollgate.discard_dead_letters('c')").await;
        }
        let expected: &[&[i64]] =
            if end == "reset" { &[&[1, 8, 9], &[4], &[7]] } else { &[&[4], &[7]] };
        for next in expected {
            let batch = log.claim("c", 9).await;
            assert_eq!(&batch.positions, next, "{end}");
            assert_eq!(log.claim("c", 9).await, Batch::default(), "one at a time");
            log.ack(batch.claim).await;
        }
        assert_eq!(log.claim("c", 9).await, Batch::default());
        assert!(log.rows("c", "deferred").await.is_empty());
    }
}

#[tokio::test]
async fn a_dead_letter_tried_again_waits_for_whoever_is_at_work() {
    let log = three_objects(9, "").await;
    let batch = log.claim("c", 3).await;
    log.nack(batch.claim, 1, "permanent => true").await;
    log.ack(batch.claim).await;
    let batch = log.claim("c", 1).await;
    assert_eq!(batch.positions, [4], "the object goes on without it");
    log.sql("SELECT tollgate.retry_dead_letters('c')").await;
    assert_eq!(log.claim("c", 9).await.positions, [5, 6]);
    log.ack(batch.claim).await;
    let again = log.claim("c", 9).await;
    assert_eq!((again.positions, again.attempts), (vec![1], vec![1]));
    assert_eq!(log.claim("c", 9).await, Batch::default(), "7 waits for it");
    log.ack(again.claim).await;
    assert_eq!(log.claim("c", 9).await.positions, [7]);
}

#[tokio::test]
async fn events_without_an_object_wait_for_nobody() {
    let log = Log::new().await;
    log.insert(5, "'balance.available'", "NULL", "'{}'").await;
    log.consumer("c", "ordering => 'object'").await;
    let batch = log.claim("c", 9).await;
    assert_eq!(batch.positions, [1, 2, 3, 4, 5]);
    log.nack(batch.claim, 2, "retry_in => '1 hour'").await;
    log.insert(2, "'balance.available'", "NULL", "'{}'").await;
    assert_eq!(log.drain("c").await, [6, 7]);
}

/// The same id in two accounts, or live and test, is two objects.
#[tokio::test]
async fn objects_of_different_accounts_are_different() {
    let log = Log::new().await;
    log.seed_objects(4, 1).await;
    log.sql("UPDATE tollgate.event_log SET account = 'acct_1' WHERE raw = '{\"n\":2}'").await;
    log.sql("UPDATE tollgate.event_log SET livemode = true WHERE raw = '{\"n\":3}'").await;
    log.consumer("c", "ordering => 'object'").await;
    assert_eq!(log.claim("c", 9).await.positions, [1, 2, 3]);
}

/// One object fails for ever, with thousands of events behind it.
#[tokio::test]
async fn an_object_that_fails_holds_up_no_other() {
    let log = Log::new().await;
    log.consumer("c", "ordering => 'object', max_attempts => 1000").await;
    let stuck = log.event("invoice.paid", "in_stuck").await;
    log.insert(
        3000,
        "'invoice.paid'",
        "CASE WHEN i % 3 = 0 THEN 'in_' || i ELSE 'in_stuck' END",
        "'{}'",
    )
    .await;
    let mut done = Vec::new();
    for _ in 0..2000 {
        let batch = log.claim("c", 100).await;
        if batch.claim == 0 {
            break;
        }
        if batch.positions.contains(&stuck) {
            log.nack(batch.claim, stuck, "retry_in => '0.1 seconds'").await;
        }
        let others: Vec<i64> = batch.positions.into_iter().filter(|&n| n != stuck).collect();
        if !others.is_empty() {
            log.ack_some(batch.claim, &others).await;
            done.extend(others);
        }
    }
    assert_eq!(done.len(), 1000);
    assert_eq!(log.status("c", "deferred").await, 2000);
    assert!(log.rows("c", "waiting").await == [stuck] || log.rows("c", "claimed").await == [stuck]);
}

/// While a worker is slow at one object's event, some hundred of that object are held; beyond that
/// the log is read again only when it is done, or the row would grow without bound.
#[tokio::test]
async fn what_is_held_is_bounded() {
    let log = Log::new().await;
    log.seed_objects(5000, 1).await;
    log.consumer("c", "ordering => 'object'").await;
    log.claim("c", 1).await;
    for _ in 0..5 {
        assert_eq!(log.claim("c", 1000).await, Batch::default());
    }
    let held: i64 =
        log.one("SELECT cardinality(held)::bigint FROM tollgate.consumer_progress").await;
    assert!((512..=1512).contains(&held), "{held}");
}

/// Without order both fail; with it the later one waits, though it is due as well.
#[tokio::test]
async fn of_two_that_failed_the_earlier_goes_first() {
    let log = Log::new().await;
    log.seed_objects(4, 2).await;
    log.consumer("c", "").await;
    let batch = log.claim("c", 4).await;
    log.nack(batch.claim, 3, "").await;
    log.nack(batch.claim, 1, "").await;
    log.ack(batch.claim).await;
    log.sql("SELECT tollgate.alter_consumer('c', ordering => 'object')").await;
    for position in [1, 3] {
        let batch = log.claim("c", 4).await;
        assert_eq!(batch.positions, [position]);
        assert_eq!(log.claim("c", 4).await, Batch::default());
        log.ack(batch.claim).await;
    }
}

/// What a crash of the server takes back, it gives again: with an order that must be nothing.
#[tokio::test]
async fn deliveries_in_order_are_claimed_durably() {
    let log = Log::new().await;
    log.seed(2).await;
    for (ordering, commits) in [("object", "1 on"), ("none", "1 off")] {
        log.consumer(ordering, &format!("ordering => '{ordering}'")).await;
        log.sql(format!("SELECT tollgate.set_target('{ordering}', 'https://example.com')")).await;
        let sql = format!(
            "SELECT count(*) || ' ' || current_setting('synchronous_commit') FROM tollgate.take_bodies('{ordering}', 1)"
        );
        assert_eq!(log.one::<String>(sql).await, commits, "{ordering}");
    }
}
