//! One claim after the other: what is handed out, and how it is settled.

use crate::seed::{Batch, Log, claim};

#[tokio::test]
async fn batches_come_in_the_order_of_positions_and_never_twice() {
    let log = Log::new().await;
    log.seed(250).await;
    log.consumer("c", "").await;
    let (first, second, third) =
        (log.claim("c", 100).await, log.claim("c", 100).await, log.claim("c", 100).await);
    assert_eq!(first.positions, (1..=100).collect::<Vec<i64>>());
    assert_eq!(second.positions, (101..=200).collect::<Vec<i64>>());
    assert_eq!(third.positions, (201..=250).collect::<Vec<i64>>());
    assert!(first.attempts.iter().all(|&attempt| attempt == 1));
    assert_eq!(log.claim("c", 100).await, Batch::default());
    for (batch, size) in [(&second, 100), (&third, 50), (&first, 100)] {
        assert_eq!(log.ack(batch.claim).await, size);
    }
    assert_eq!(log.claim("c", 100).await, Batch::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_at_the_same_time_share_nothing() {
    let log = Log::new().await;
    log.seed(2000).await;
    log.consumer("c", "").await;
    let workers: Vec<_> = (0..8)
        .map(|n| {
            let pool = log.pool.clone();
            tokio::spawn(async move {
                let mut mine = Vec::new();
                loop {
                    let batch = claim(&pool, "c", 7 + n).await.unwrap();
                    if batch.claim == 0 {
                        return mine;
                    }
                    mine.extend(batch.positions);
                }
            })
        })
        .collect();
    let mut all = Vec::new();
    for worker in workers {
        all.extend(worker.await.unwrap());
    }
    all.sort_unstable();
    assert_eq!(all, (1..=2000).collect::<Vec<i64>>());
}

#[tokio::test]
async fn an_event_has_what_the_log_says_of_it() {
    let log = Log::new().await;
    log.event("invoice.paid", "in_1").await;
    log.consumer("c", "").await;
    let same: bool = log
        .one(
            "SELECT (c.position, c.event_id, c.type, c.object_type, c.object_id, c.account, c.livemode, c.created, c.received_at, c.payload::text)
                  = (e.position, e.id, e.type, e.object_type, e.object_id, e.account, e.livemode, e.created, e.received_at, '{}')
                    AND c.api_version IS NULL
             FROM tollgate.claim('c') c, tollgate.events e",
        )
        .await;
    assert!(same);
}

#[tokio::test]
async fn how_many_are_handed_out() {
    let log = Log::new().await;
    log.seed(1500).await;
    log.consumer("c", "").await;
    for wrong in ["0", "-1", "NULL"] {
        assert_eq!(
            log.refusal(format!("SELECT tollgate.claim('c', {wrong})")).await,
            "22023",
            "{wrong}"
        );
    }
    assert_eq!(log.claim("c", 100_000).await.positions.len(), 1000, "the most there is");
    assert_eq!(log.claim("c", 1).await.positions, [1001]);
    assert_eq!(log.one::<i64>("SELECT count(*) FROM tollgate.claim('c')").await, 100);
}

#[tokio::test]
async fn strangers_are_told_so() {
    let log = Log::new().await;
    log.seed(5).await;
    log.consumer("c", "").await;
    assert_eq!(log.refusal("SELECT tollgate.claim('nobody')").await, "TG010");
    assert_eq!(log.refusal("SELECT tollgate.claim(NULL)").await, "TG010");
    for unknown in ["NULL", "0", "-1", "7", "9223372036854775807"] {
        for call in [
            format!("ack({unknown})"),
            format!("ack({unknown}, ARRAY[1])"),
            format!("nack({unknown}, 1, 'no')"),
            format!("extend({unknown})"),
        ] {
            assert_eq!(log.refusal(format!("SELECT tollgate.{call}")).await, "TG011", "{call}");
        }
    }
    let (mine, others) = (log.claim("c", 2).await, log.claim("c", 2).await);
    for stranger in ["3", "5", "99", "NULL"] {
        for call in [
            format!("nack({}, {stranger}, 'no')", mine.claim),
            format!("ack({}, ARRAY[1, {stranger}])", mine.claim),
        ] {
            assert_eq!(log.refusal(format!("SELECT tollgate.{call}")).await, "TG012", "{call}");
        }
    }
    assert_eq!(
        (log.ack(mine.claim).await, log.ack(others.claim).await),
        (2, 2),
        "nothing came of it"
    );
}

#[tokio::test]
async fn settled_is_settled() {
    let log = Log::new().await;
    log.seed(6).await;
    log.consumer("c", "").await;
    let Batch { claim, .. } = log.claim("c", 6).await;
    assert_eq!(log.ack_some(claim, &[2, 4, 4]).await, 2);
    assert_eq!(log.ack_some(claim, &[]).await, 0);
    assert_eq!(log.refusal(format!("SELECT tollgate.ack({claim}, ARRAY[1, 2])")).await, "TG012");
    assert_eq!(log.refusal(format!("SELECT tollgate.nack({claim}, 4, 'no')")).await, "TG012");
    assert_eq!(log.nack(claim, 5, "").await, "waiting");
    assert_eq!(log.refusal(format!("SELECT tollgate.nack({claim}, 5, 'no')")).await, "TG012");
    assert_eq!(log.refusal(format!("SELECT tollgate.ack({claim}, ARRAY[5])")).await, "TG012");
    assert_eq!(log.ack(claim).await, 3, "what is left: 1, 3, 6");
    for call in [
        format!("ack({claim})"),
        format!("ack({claim}, ARRAY[1])"),
        format!("nack({claim}, 1, 'no')"),
    ] {
        assert_eq!(log.refusal(format!("SELECT tollgate.{call}")).await, "TG011", "{call}");
    }
    let again = log.claim("c", 6).await;
    assert_eq!((again.positions, again.attempts), (vec![5], vec![2]));
    assert_eq!(log.ack(again.claim).await, 1);
    assert_eq!(log.one::<i64>("SELECT count(*) FROM tollgate.deliveries").await, 0);
}

#[tokio::test]
async fn a_failed_event_waits_as_long_as_asked_for() {
    let log = Log::new().await;
    log.seed(1).await;
    log.consumer(
        "c",
        "retry_first => '10 seconds', retry_most => '60 seconds', max_attempts => 100",
    )
    .await;
    let wait = "SELECT extract(epoch FROM next_attempt - clock_timestamp())::float8 FROM tollgate.deliveries";
    for expected in [10.0, 20.0, 40.0, 60.0, 60.0] {
        let batch = log.claim("c", 10).await;
        assert_eq!(log.nack(batch.claim, 1, "retry_in => NULL").await, "waiting");
        let seconds: f64 = log.one(wait).await;
        assert!(
            (expected * 0.8 - 1.0..=expected * 1.2).contains(&seconds),
            "{seconds} for {expected}"
        );
        assert_eq!(log.claim("c", 10).await, Batch::default(), "not yet");
        log.let_time_pass().await;
    }
    let batch = log.claim("c", 10).await;
    assert_eq!(batch.attempts, [6]);
    log.nack(batch.claim, 1, "retry_in => '1 hour'").await;
    let seconds: f64 = log.one(wait).await;
    assert!((3590.0..=3600.0).contains(&seconds), "{seconds}");
    log.let_time_pass().await;
    let batch = log.claim("c", 10).await;
    for wrong in ["-1 second", "8 days"] {
        let call = format!("SELECT tollgate.nack({}, 1, 'no', '{wrong}')", batch.claim);
        assert_eq!(log.refusal(call).await, "22023");
    }
    assert_eq!(log.nack(batch.claim, 1, "permanent => NULL").await, "waiting");
}

#[tokio::test]
async fn waits_of_many_attempts_do_not_overflow() {
    let log = Log::new().await;
    log.seed(1).await;
    log.consumer("c", "retry_first => '7 days', retry_most => '7 days', max_attempts => 1000")
        .await;
    log.sql("SELECT tollgate.nack(claim, position, 'no', '0') FROM tollgate.claim('c')").await;
    for attempts in [28, 29, 30, 31, 32, 998] {
        log.sql(format!("UPDATE tollgate.deliveries SET attempts = {attempts}")).await;
        log.let_time_pass().await;
        let batch = log.claim("c", 1).await;
        assert_eq!(log.nack(batch.claim, 1, "retry_in => NULL").await, "waiting");
        let days: f64 = log
            .one("SELECT extract(epoch FROM next_attempt - now())::float8 / 86400 FROM tollgate.deliveries")
            .await;
        assert!((5.5..=8.5).contains(&days), "{days}");
    }
}

#[tokio::test]
async fn attempts_run_out() {
    let log = Log::new().await;
    log.seed(3).await;
    for most in [1, 3] {
        let name = format!("c{most}");
        log.consumer(&name, &format!("max_attempts => {most}")).await;
        for attempt in 1..=most {
            let batch = log.claim(&name, 1).await;
            assert_eq!((batch.positions, batch.attempts), (vec![1], vec![attempt]));
            let became = log.nack(batch.claim, 1, "").await;
            assert_eq!(became, if attempt == most { "dead" } else { "waiting" });
        }
        let batch = log.claim(&name, 1).await;
        assert_eq!(log.nack(batch.claim, 2, "permanent => true").await, "dead");
        let dead: Vec<String> = log
            .all(format!("SELECT format('%s %s %s %s %s', position, event_id, attempts, reason, error) FROM tollgate.dead_letters
                          WHERE consumer = '{name}' ORDER BY position"))
            .await;
        assert_eq!(
            dead,
            [
                format!("1 evt_0_1 {most} max_attempts_exceeded no"),
                "2 evt_0_2 1 non_retryable no".into()
            ]
        );
        assert_eq!(log.drain(&name).await, [3]);
    }
}

/// The gateway takes what Stripe signed, however deep; Postgres makes no JSON of some of it.
#[tokio::test]
async fn a_body_that_postgres_cannot_read_holds_nobody_up() {
    let log = Log::new().await;
    log.seed(1).await;
    for raw in [
        "convert_to('{\"a\":' || repeat('[', 100000) || repeat(']', 100000) || '}', 'UTF8')",
        "convert_to(repeat('x', 8192), 'UTF8')",
    ] {
        log.insert(1, "'x'", "'in_1'", raw).await;
    }
    log.seed(1).await;
    log.consumer("c", "").await;
    let came: Vec<String> = log
        .all("SELECT position || ' ' || coalesce(payload::text, 'null') FROM tollgate.claim('c')")
        .await;
    assert_eq!(came, ["1 {\"n\":1}", "2 null", "3 null", "4 {\"n\":1}"]);
}
