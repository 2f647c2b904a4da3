//! What a consumer finds in the log: where it begins, which types, over gaps, after retention.

use crate::seed::{Batch, Log};

#[tokio::test]
async fn a_consumer_begins_where_it_is_told() {
    let log = Log::new().await;
    let start = |name: &str, start: &str| {
        log.one::<i64>(format!("SELECT tollgate.create_consumer('{name}', start => {start})"))
    };
    for (n, anywhere) in ["'latest'", "'earliest'", "'5'", "now()::text"].into_iter().enumerate() {
        assert_eq!(start(&format!("empty{n}"), anywhere).await, 0, "{anywhere} of an empty log");
    }
    log.seed(10).await;
    for n in 0..4 {
        assert_eq!(log.drain(&format!("empty{n}")).await.len(), 10);
    }
    log.sql("UPDATE tollgate.event_log SET received_at = received_at - interval '1 hour' WHERE raw < '{\"n\":5}'").await;
    for (n, (at, point)) in [
        ("'latest'", 10),
        ("'earliest'", 0),
        ("'0'", 0),
        ("'7'", 7),
        ("'12'", 10),
        ("'999999999999999999'", 10),
        ("(now() - interval '1 minute')::text", 5),
        ("(now() - interval '2 hours')::text", 0),
        ("(now() + interval '1 hour')::text", 10),
        ("'infinity'", 10),
        ("'-infinity'", 0),
        ("'2026-01-31 12:00Z'", 0),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("c{n}");
        // Of 1 to 10, the numbers 1, 2, 3, 4 and 10 are below 5 as text.
        let point = if at.contains("1 minute") { point - 1 } else { point };
        assert_eq!(start(&name, at).await, point, "{at}");
        assert_eq!(
            log.drain(&name).await.first().copied(),
            (point < 10).then_some(point + 1),
            "{at}"
        );
    }
    for garbage in
        ["NULL", "''", "'soon'", "'-1'", "'1.5'", "'99999999999999999999'", "'2026-13-45'"]
    {
        let call = format!("SELECT tollgate.create_consumer('x', start => {garbage})");
        assert_eq!(log.refusal(call).await, "22023", "{garbage}");
    }
    assert_eq!(log.refusal("SELECT tollgate.create_consumer('c0')").await, "42710");
    assert_eq!(
        log.one::<i64>("SELECT tollgate.create_consumer('c3', if_not_exists => true)").await,
        10
    );
    for name in ["", "-a", "a b", "é", &"a".repeat(65), "a\n"] {
        assert_eq!(
            log.refusal(format!("SELECT tollgate.create_consumer('{name}')")).await,
            "42602",
            "{name}"
        );
    }
}

#[tokio::test]
async fn types_are_patterns_and_nothing_else_is() {
    let log = Log::new().await;
    let kinds = [
        "invoice.paid",
        "invoice.payment_failed",
        "invoiceXpaid",
        "invoice_paid",
        "in%",
        "a\\b",
        "invoice",
        "a.b.c",
    ];
    for kind in kinds {
        log.event(kind, "in_1").await;
    }
    for (n, (types, expected)) in [
        ("{*}", vec![1, 2, 3, 4, 5, 6, 7, 8]),
        ("{invoice.*}", vec![1, 2]),
        ("{invoice.paid}", vec![1]),
        ("{invoice_paid}", vec![4]),
        ("{in%}", vec![5]),
        ("{%}", vec![]),
        ("{invoice____}", vec![]),
        (r#"{"a\\b"}"#, vec![6]),
        ("{a.*}", vec![8]),
        ("{a.b.*,invoice}", vec![7, 8]),
        ("{invoice.*,*}", vec![1, 2, 3, 4, 5, 6, 7, 8]),
        ("{INVOICE.*}", vec![]),
    ]
    .into_iter()
    .enumerate()
    {
        for ordering in ["none", "object"] {
            let name = format!("{ordering}{n}");
            log.consumer(&name, &format!("types => '{types}', ordering => '{ordering}'")).await;
            assert_eq!(
                log.status(&name, "lag_events").await,
                i64::try_from(expected.len()).unwrap()
            );
            assert_eq!(log.drain(&name).await, expected, "{types}, {ordering}");
        }
    }
}

#[tokio::test]
async fn one_in_thirty_thousand_is_found() {
    let log = Log::new().await;
    log.seed(30_000).await;
    let found = log.event("customer.created", "cus_1").await;
    for ordering in ["none", "object"] {
        log.consumer(ordering, &format!("types => '{{customer.*}}', ordering => '{ordering}'"))
            .await;
        let mut claims = 0;
        let batch = loop {
            // A claim reads for a quarter of a second, and the next goes on from there.
            claims += 1;
            assert!(claims < 50, "found within reason");
            let batch = log.claim(ordering, 10).await;
            if batch.claim != 0 {
                break batch;
            }
        };
        assert_eq!(batch.positions, [found]);
        log.ack(batch.claim).await;
        assert_eq!(log.status(ordering, "cursor").await, found);
    }
}

/// Sequences jump when a standby takes over or a dump is restored.
#[tokio::test]
async fn gaps_are_stepped_over() {
    let log = Log::new().await;
    let mut expected = Vec::new();
    for jump in [0, 1_000_000, 7_000_000, 5_000_000_000_i64] {
        log.sql(format!("SELECT setval('tollgate.position_seq', {})", jump + 10)).await;
        log.seed(3).await;
        expected.extend(jump + 11..=jump + 13);
    }
    for (ordering, max) in [("none", 2), ("object", 2), ("none", 3), ("object", 100)] {
        let name = format!("{ordering}{max}");
        log.consumer(&name, &format!("ordering => '{ordering}'")).await;
        let (mut seen, mut empty) = (Vec::new(), 0);
        while seen.len() < expected.len() {
            let batch = log.claim(&name, max).await;
            empty += i32::from(batch.claim == 0);
            assert!(empty < 5, "{name} stands at {seen:?}");
            if batch.claim != 0 {
                log.ack(batch.claim).await;
            }
            seen.extend(batch.positions);
        }
        assert_eq!(seen, expected, "{name}");
    }
}

/// Drops from the log what retention would, before or after the positions go too.
async fn forget(log: &Log, up_to: i64, positions_too: bool) {
    log.sql(format!(
        "DELETE FROM tollgate.event_log l USING tollgate.positions p
                     WHERE p.id = l.id AND p.created = l.created AND p.position <= {up_to}"
    ))
    .await;
    if positions_too {
        log.sql(format!("DELETE FROM tollgate.positions WHERE position <= {up_to}")).await;
    }
}

#[tokio::test]
async fn what_retention_drops_holds_up_nothing() {
    for positions_too in [false, true] {
        let log = Log::new().await;
        log.seed_objects(400, 10).await;
        for name in ["none", "object"] {
            // In every state: waiting, deferred behind it, with a worker, a dead letter, unread.
            log.consumer(name, &format!("ordering => '{name}'")).await;
            let batch = log.claim(name, 5).await;
            log.nack(batch.claim, 1, "retry_in => '1 hour'").await;
            log.nack(batch.claim, 2, "").await;
            log.nack(batch.claim, 3, "permanent => true").await;
            log.claim(name, 5).await;
        }
        forget(&log, 350, positions_too).await;
        log.sql("UPDATE tollgate.claims SET expires_at = now() WHERE claim IS NOT NULL").await;
        log.let_time_pass().await;
        for name in ["none", "object"] {
            let mut seen = log.drain(name).await;
            for _ in 0..5 {
                seen.extend(log.drain(name).await);
            }
            seen.sort_unstable();
            assert_eq!(seen, (351..=400).collect::<Vec<i64>>(), "{name}");
            assert_eq!(log.claim(name, 5).await, Batch::default());
            log.sql(format!("SELECT tollgate.retry_dead_letters('{name}')")).await;
            assert_eq!(log.claim(name, 5).await, Batch::default(), "nothing to hand out any more");
            for column in ["lag_events", "in_flight", "retrying", "deferred", "dead"] {
                assert_eq!(log.status(name, column).await, 0, "{name}: {column}");
            }
        }
    }
}

/// A worker holds an event that is gone; it may settle it all the same.
#[tokio::test]
async fn what_retention_drops_can_be_settled() {
    let log = Log::new().await;
    log.seed_objects(4, 2).await;
    log.consumer("c", "ordering => 'object'").await;
    let batch = log.claim("c", 4).await;
    assert_eq!(batch.positions, [1, 2]);
    forget(&log, 2, true).await;
    log.nack(batch.claim, 1, "").await;
    assert_eq!(log.ack(batch.claim).await, 1);
    assert_eq!(log.drain("c").await, [3, 4]);
}

/// The gateway takes batches for its own deliveries in another way.
#[tokio::test]
async fn what_retention_drops_holds_up_no_delivery() {
    let log = Log::new().await;
    log.seed_objects(40, 10).await;
    log.consumer("c", "").await;
    log.sql("SELECT tollgate.set_target('c', 'https://example.com', concurrency => 100)").await;
    forget(&log, 20, false).await;
    let take = async |most: i32| {
        let sql = format!(
            "SELECT concat_ws(' ', min(position), max(position), count(position), min(due) <= clock_timestamp())
             FROM tollgate.take_bodies('c', {most})"
        );
        log.one::<String>(sql).await
    };
    assert_eq!(take(10).await, "0 t", "nothing is left of this batch: ask again at once");
    assert_eq!(log.status("c", "in_flight").await, 0);
    assert_eq!(take(15).await, "21 25 5", "what is left of a batch");
    assert_eq!(log.status("c", "in_flight").await, 5);
    assert_eq!(take(30).await, "26 40 15");
    assert_eq!(log.status("c", "in_flight").await, 20);
    assert_eq!(take(30).await, "0 f", "nothing before a lease runs out");
}
