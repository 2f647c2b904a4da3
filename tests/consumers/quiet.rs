//! What waits, waits without work: nobody asks the database over and over; and is woken in time.

use std::time::Duration;

use sqlx::PgPool;
use tokio::time::{Instant, sleep};

use crate::receiver::{Receiver, Reply};
use crate::scene::{ask, push_to, record, run, until, until_settled};
use crate::support::{App, event};

/// Transactions in this database that the server knows of.
async fn transactions(pool: &PgPool) -> i64 {
    let sql = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()";
    ask(pool, sql).await.parse().unwrap()
}

/// Within two seconds. Maintenance, health and looks for targets make a few.
const FEW: i64 = 80;

/// Fails if more than a few transactions are made, over and over: the server learns of them a second
/// late and more, so that what was done before may still be counted at first.
async fn assert_idle(pool: &PgPool) {
    let mut made = Vec::new();
    for _ in 0..3 {
        let before = transactions(pool).await;
        sleep(Duration::from_secs(2)).await;
        let now = transactions(pool).await - before;
        if now < FEW {
            return;
        }
        made.push(now);
    }
    panic!("{made:?} transactions within 2 s each");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_consumer_with_a_rate_is_idle() {
    let app = App::spawn().await;
    let receiver = Receiver::start().await;
    push_to(&app.pool, &receiver, "", ", rate => 500, burst => 5").await;
    record(&app.pool, 0, 20, 20).await;
    until_settled(&app.pool).await;
    assert_idle(&app.pool).await;
    app.stop().await;
}

/// A dead letter that is retried while a later event of its object is under way waits for that.
#[tokio::test(flavor = "multi_thread")]
async fn a_retry_that_waits_for_its_object_is_idle() {
    let app = App::spawn_with(&[("poll_interval", "1h")]).await;
    let receiver = Receiver::start().await;
    receiver.answer(|request| match request.event.as_str() {
        "evt_0" => Reply::status(500),
        // Longer than is looked.
        _ => Reply::status(200).after(Duration::from_secs(7)),
    });
    push_to(&app.pool, &receiver, ", ordering => 'object', max_attempts => 1", "").await;
    record(&app.pool, 0, 2, 1).await;
    receiver.until("the second under way", |requests| requests.len() == 2).await;
    receiver.answer(|_| Reply::status(200));
    run(&app.pool, "SELECT tollgate.retry_dead_letters('app')").await;
    assert_idle(&app.pool).await;
    until_settled(&app.pool).await;
    let events: Vec<_> = receiver.requests().into_iter().map(|request| request.event).collect();
    assert_eq!(events, ["evt_0", "evt_1", "evt_0"]);
    app.stop().await;
}

/// With an hour between polls, what comes in time comes by notification, or was known beforehand.
#[tokio::test(flavor = "multi_thread")]
async fn notifications_alone_are_enough() {
    let app = App::spawn_with(&[("poll_interval", "1h")]).await;
    let receiver = Receiver::start().await;
    push_to(&app.pool, &receiver, "", "").await;
    until(&app.pool, "SELECT count(*) > 0 FROM pg_stat_activity WHERE query LIKE 'LISTEN %' AND datname = current_database()").await;
    app.deliver(event("evt_first")).await;
    receiver.until_delivered(1).await;
    let mut slowest = Duration::ZERO;
    for n in 0..10 {
        // Rests, so that nothing else wakes it.
        sleep(Duration::from_millis(100)).await;
        let began = Instant::now();
        assert_eq!(app.deliver(event(&format!("evt_{n}"))).await.status, 200);
        receiver.until_delivered(n + 2).await;
        slowest = slowest.max(began.elapsed());
    }
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");

    app.stop().await;
}

/// A slow attempt holds up neither the rate, nor what is due meanwhile, nor other objects.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_attempt_holds_up_nobody_else() {
    let app = App::spawn_with(&[("poll_interval", "1h")]).await;
    let receiver = Receiver::start().await;
    receiver.answer(|request| match (request.event.as_str(), request.attempt) {
        ("evt_0", _) => Reply::status(200).after(Duration::from_secs(5)),
        ("evt_101", 1) => Reply::status(500),
        _ => Reply::status(200),
    });
    // Twenty of one object, the first of them slow; then six of others, one of which fails once.
    record(&app.pool, 0, 20, 1).await;
    record(&app.pool, 101, 107, 1000).await;
    let consumer = ", ordering => 'object', retry_first => '1 second'";
    push_to(&app.pool, &receiver, consumer, ", rate => 20, burst => 1").await;
    receiver.until("the slow one under way", |requests| !requests.is_empty()).await;
    receiver.until_delivered(6).await;
    let slow = receiver.requests()[0].clone();
    assert_eq!((slow.event.as_str(), slow.ended), ("evt_0", None), "the others came behind it");
    until_settled(&app.pool).await;
    receiver.assert_in_order();
    app.stop().await;
}

/// What a consumer has no use for is read through at one go, however much it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_log_of_other_types_is_no_obstacle() {
    let app = App::spawn_with(&[("poll_interval", "1h")]).await;
    let receiver = Receiver::start().await;
    let sql = "BEGIN;
        INSERT INTO tollgate.event_log (created, id, endpoint, account, livemode, type, source, raw)
        SELECT '2026-01-01Z', 'evt_' || n, 'default', '', false, 'thing.done', 'webhook', '{}' FROM generate_series(1, 150000) n;
        INSERT INTO tollgate.positions (position, created, id)
        SELECT nextval('tollgate.position_seq'), '2026-01-01Z', 'evt_' || n FROM generate_series(1, 150000) n;
        COMMIT";
    run(&app.pool, sql).await;
    app.deliver(event("evt_wanted")).await;
    push_to(&app.pool, &receiver, ", types => '{invoice.*}'", "").await;
    receiver.until_delivered(1).await;
    assert_eq!(receiver.requests()[0].event, "evt_wanted");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn polling_alone_is_enough() {
    let app = App::spawn_with(&[("poll_interval", "200ms"), ("notify", "off")]).await;
    let receiver = Receiver::start().await;
    push_to(&app.pool, &receiver, "", "").await;
    for n in 0..5 {
        let began = Instant::now();
        assert_eq!(app.deliver(event(&format!("evt_{n}"))).await.status, 200);
        receiver.until_delivered(n + 1).await;
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    }
    app.stop().await;
}
