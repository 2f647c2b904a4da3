//! Events that are given again out of their turn, and other odd moments: nothing stops for ever.

use std::time::Duration;

use tollgate::store::sync::thin;

use crate::seed::{Batch, Log};

/// Events of one object, by type.
async fn of_one_object(kinds: &[&str]) -> Log {
    let log = Log::new().await;
    for kind in kinds {
        log.event(kind, "in_1").await;
    }
    log.consumer("c", "types => '{invoice.paid}', ordering => 'object'").await;
    log
}

#[tokio::test]
async fn what_is_given_again_waits_for_what_is_held_before_it() {
    let log =
        of_one_object(&["invoice.paid", "invoice.paid", "invoice.updated", "invoice.paid"]).await;
    let first = log.claim("c", 9).await;
    assert_eq!(first.positions, [1], "2 and 4 are held");
    log.sql("SELECT tollgate.give_again('c', '{3}')").await;
    log.ack(first.claim).await;
    assert_eq!(log.claim("c", 9).await, Batch::default(), "only now does 2 go before 3");
    let second = log.claim("c", 9).await;
    assert_eq!(second.positions, [2]);
    log.ack(second.claim).await;
    let third = log.claim("c", 9).await;
    assert_eq!(third.positions, [3]);
    log.nack(third.claim, 3, "").await;
    log.let_time_pass().await;
    assert_eq!(log.drain("c").await, [3, 4]);
    assert_eq!(log.status("c", "lag_events").await, 0);
}

#[tokio::test]
async fn what_is_given_again_and_fails_stops_nothing_before_it() {
    for (given, kinds) in [
        // After a jump forward, over what is held.
        (3, ["invoice.paid", "invoice.paid", "invoice.paid", "invoice.paid"]),
        // Beyond what was read of the log.
        (2, ["invoice.paid", "invoice.updated", "invoice.paid", "invoice.paid"]),
    ] {
        let log = of_one_object(&kinds).await;
        if given == 3 {
            let first = log.claim("c", 9).await;
            log.sql("SELECT tollgate.reset_consumer('c', 'latest')").await;
            log.sql("SELECT tollgate.give_again('c', '{3}')").await;
            log.ack(first.claim).await;
        } else {
            log.sql("SELECT tollgate.give_again('c', '{2}')").await;
        }
        let mut seen = Vec::new();
        let mut failed = false;
        loop {
            log.let_time_pass().await;
            let batch = log.claim("c", 1).await;
            if batch == Batch::default() {
                break;
            }
            if batch.positions == [given] && !failed {
                log.nack(batch.claim, given, "").await;
                failed = true;
            } else {
                log.ack(batch.claim).await;
                seen.extend(batch.positions);
            }
        }
        seen.sort_unstable();
        let expected: &[i64] = if given == 3 { &[2, 3, 4] } else { &[1, 2, 3, 4] };
        assert!(failed);
        assert_eq!(seen, expected);
        assert_eq!(log.status("c", "lag_events").await, 0, "{kinds:?}");
    }
}

#[tokio::test]
async fn rewinding_keeps_dead_letters_that_would_not_come_anew() {
    let log = Log::new().await;
    for kind in ["a", "b", "b"] {
        log.event(kind, "x").await;
    }
    log.consumer("c", "").await;
    let batch = log.claim("c", 9).await;
    log.nack(batch.claim, 1, "permanent => true").await;
    log.nack(batch.claim, 2, "permanent => true").await;
    log.ack(batch.claim).await;
    log.sql("SELECT tollgate.alter_consumer('c', types => '{b}')").await;
    log.sql("SELECT tollgate.reset_consumer('c', 'earliest')").await;
    assert_eq!(log.rows("c", "dead").await, [1]);
    assert_eq!(log.drain("c").await, [2, 3]);
}

#[tokio::test]
async fn a_clock_that_is_set_back_stops_no_consumer_with_a_rate() {
    let log = Log::new().await;
    log.seed(3).await;
    log.consumer("c", "").await;
    log.sql("SELECT tollgate.set_target('c', 'http://localhost', rate => 10, burst => 5)").await;
    let later =
        "UPDATE tollgate.consumer_progress SET tokens = 0.5, tokens_at = now() + interval '1 hour'";
    log.sql(later).await;
    let taken: i64 = log.one("SELECT count(position) FROM tollgate.take_bodies('c', 9)").await;
    assert_eq!(taken, 3);
}

/// A claim sees events that are committed while it waits; so must what is read of them.
#[tokio::test]
async fn thin_events_are_claimed_with_their_bodies_however_late_they_are_committed() {
    let log = Log::new().await;
    thin::make_consumer(&log.pool, false).await.unwrap();
    let mut lock = log.pool.begin().await.unwrap();
    sqlx::query("SELECT tollgate.lock_consumer('tollgate-thin-events-test')")
        .execute(&mut *lock)
        .await
        .unwrap();
    let later = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        log.event("v2.core.account.updated", "acct_1").await;
        lock.commit().await.unwrap();
    };
    let (claimed, ()) = tokio::join!(thin::claim(&log.pool, false, 9), later);
    let positions: Vec<_> = claimed.unwrap().iter().map(|thin| thin.position).collect();
    assert_eq!(positions, [1]);
}
