//! Consumers whose events are on the way to a target, and that are changed, paused, rewound, dropped.

use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::receiver::{Receiver, Reply, SECRET};
use crate::scene::{Logged, ask, lines, push_to, record, run, until, until_settled};
use crate::support::{App, postgres};

/// Nothing is under way after this: longer than the gateway takes to notice a change.
const NOTICED: Duration = Duration::from_millis(1500);

#[tokio::test(flavor = "multi_thread")]
async fn a_new_url_takes_over_and_nothing_is_lost() {
    let app = App::spawn().await;
    let (old, new) = (Receiver::start().await, Receiver::start().await);
    old.answer(|_| Reply::status(200).after(Duration::from_millis(20)));
    push_to(&app.pool, &old, ", ordering => 'object'", ", concurrency => 4").await;
    record(&app.pool, 0, 600, 20).await;
    old.until_delivered(20).await;
    let sql = format!("SELECT tollgate.set_target('app', '{}')", new.url());
    run(&app.pool, &sql).await;
    until_settled(&app.pool).await;
    let (before, after) = (old.delivered(), new.delivered());
    assert_eq!(before.len() + after.len(), 600, "each went to one of them, once");
    assert!(after.len() > 100, "{}", after.len());
    assert!(new.requests().iter().all(|request| request.signed), "the secret stayed");
    for receiver in [&old, &new] {
        receiver.assert_in_order();
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_target_a_consumer_is_at_once_its_workers_own() {
    let app = App::spawn().await;
    let receiver = Receiver::start().await;
    receiver.answer(|_| Reply::status(200).after(Duration::from_millis(200)));
    push_to(&app.pool, &receiver, "", ", concurrency => 2").await;
    record(&app.pool, 0, 50, 50).await;
    receiver.until_delivered(2).await;
    run(&app.pool, "SELECT tollgate.unset_target('app')").await;
    let claims = "SELECT cursor FROM tollgate.consumer_progress";
    let claimed = ask(&app.pool, claims).await;
    sleep(NOTICED).await;
    assert_eq!(ask(&app.pool, claims).await, claimed, "the gateway claimed without a target");
    // What was under way was settled, and the rest waits for workers.
    let delivered = receiver.delivered().len();
    assert_eq!(receiver.requests().len(), delivered);
    let left = ask(&app.pool, "SELECT count(*) FROM tollgate.claim('app', 100)").await;
    assert_eq!(left, (50 - delivered).to_string());
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_dropped_under_way_ends_quietly() {
    let url = postgres::fresh_database().await;
    let gateway = Logged::start(&url, &[]).await;
    let pool = sqlx::PgPool::connect(&url).await.unwrap();
    let receiver = Receiver::start().await;
    receiver.answer(|_| Reply::status(200).after(Duration::from_secs(1)));
    push_to(&pool, &receiver, "", ", concurrency => 10").await;
    record(&pool, 0, 100, 100).await;
    // All that may be under way at once: none is on its way here any more.
    receiver.until("under way", |requests| requests.len() >= 10).await;
    run(&pool, "SELECT tollgate.drop_consumer('app')").await;
    let requests = receiver.requests().len();
    sleep(NOTICED).await;
    assert_eq!(receiver.requests().len(), requests, "it goes on pushing");
    assert_eq!(complaints(&gateway), Vec::<Value>::new());
    // One of the same name begins anew.
    receiver.answer(|_| Reply::status(200));
    let before = receiver.delivered().len();
    push_to(&pool, &receiver, "", "").await;
    until_settled(&pool).await;
    receiver
        .until("all of them again", |requests| {
            requests.iter().filter(|request| request.delivered()).count() >= before + 100
        })
        .await;
    gateway.stop().await;
}

fn complaints(gateway: &Logged) -> Vec<Value> {
    let mut log = gateway.log();
    log.retain(|line| line["level"] == "WARN" || line["level"] == "ERROR");
    log
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_lets_what_is_under_way_end_and_resuming_goes_on() {
    let app = App::spawn().await;
    let receiver = Receiver::start().await;
    receiver.answer(|_| Reply::status(200).after(Duration::from_millis(100)));
    push_to(&app.pool, &receiver, ", ordering => 'object'", ", concurrency => 4").await;
    record(&app.pool, 0, 60, 12).await;
    receiver.until_delivered(8).await;
    run(&app.pool, "SELECT tollgate.pause_consumer('app', 'lunch')").await;
    let begun = receiver.requests().len();
    sleep(NOTICED).await;
    assert!(receiver.requests().len() <= begun + 4, "what had been claimed, and no more");
    assert_eq!(ask(&app.pool, "SELECT in_flight FROM tollgate.consumer_status").await, "0");
    run(&app.pool, "SELECT tollgate.resume_consumer('app')").await;
    until_settled(&app.pool).await;
    assert_eq!(receiver.requests().len(), 60, "each once");
    receiver.assert_in_order();
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rewind_under_way_hands_everything_out_anew() {
    let app = App::spawn().await;
    let receiver = Receiver::start().await;
    receiver.answer(|_| Reply::status(200).after(Duration::from_millis(50)));
    push_to(&app.pool, &receiver, "", ", concurrency => 8").await;
    record(&app.pool, 0, 60, 60).await;
    receiver.until_delivered(20).await;
    let before = receiver.requests().len();
    run(&app.pool, "SELECT tollgate.reset_consumer('app', 'earliest')").await;
    let after = receiver.requests().len();
    until_settled(&app.pool).await;
    let requests = receiver.requests();
    let all = requests.len();
    // Those under way at the rewind count for nothing.
    assert!(all >= before + 60 && all <= after + 60 + 8, "{before} {after} {all}");
    assert_eq!(receiver.delivered().len(), 60);
    assert!(requests.iter().all(|request| request.attempt == 1));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unusable_target_pauses_with_a_reason() {
    let url = postgres::fresh_database().await;
    let gateway = Logged::start(&url, &[]).await;
    let pool = sqlx::PgPool::connect(&url).await.unwrap();
    let bad = [
        ("a", "push", "http://[::1", SECRET, "not a URL"),
        ("b", "push", "http://user:s3cret@host:x/", SECRET, "not a URL"),
        ("c", "push", "https://example.com/#top", SECRET, "fragment"),
        ("d", "nats", "nats://", "", "host"),
        ("e", "push", "http://example.com/", "", "secret"),
    ];
    for (name, kind, url, secret, _) in bad {
        let secrets = if kind == "nats" { String::new() } else { format!("'{secret}'") };
        let sql = format!(
            "SELECT tollgate.create_consumer('{name}');
             INSERT INTO tollgate.targets (consumer, kind, url, secrets, timeout, concurrency, breaker_after, breaker_wait)
             VALUES ('{name}', '{kind}', '{url}', ARRAY[{secrets}]::text[], '1 second', 1, 1, '1 second')"
        );
        run(&pool, &sql).await;
    }
    until(&pool, "SELECT bool_and(paused_at IS NOT NULL) FROM tollgate.consumers").await;
    for (name, _, _, _, reason) in bad {
        let because =
            format!("SELECT paused_because FROM tollgate.consumers WHERE name = '{name}'");
        let because = ask(&pool, &because).await;
        assert!(because.contains(reason) && !because.contains("s3cret"), "{name}: {because}");
    }
    // It does not hold up the others, and mending it is enough.
    let receiver = Receiver::start().await;
    push_to(&pool, &receiver, "", "").await;
    record(&pool, 0, 3, 3).await;
    receiver.until_delivered(3).await;
    let sql = format!(
        "SELECT tollgate.set_target('a', '{}'); SELECT tollgate.reset_consumer('a', 'earliest'); SELECT tollgate.resume_consumer('a')",
        receiver.url()
    );
    run(&pool, &sql).await;
    receiver.until("six requests", |requests| requests.len() == 6).await;
    let log = gateway.stop().await;
    assert_eq!(lines(&log, "paused: the target is unusable").len(), 5);
    assert!(!format!("{log:?}").contains("s3cret"));
}

#[tokio::test(flavor = "multi_thread")]
async fn private_addresses_need_leave() {
    let url = postgres::fresh_database().await;
    let app = App::spawn_on(&url, &[]).await;
    record(&app.pool, 0, 1, 1).await;
    let sql = "SELECT tollgate.create_consumer('app', start => 'earliest', max_attempts => 1);
               SELECT tollgate.set_target('app', 'http://10.255.255.1/', timeout => '0.5 seconds')";
    run(&app.pool, sql).await;
    let dead = "SELECT count(*) = 1 FROM tollgate.dead_letters";
    until(&app.pool, dead).await;
    let error = ask(&app.pool, "SELECT error FROM tollgate.dead_letters").await;
    assert!(error.contains("private address"), "{error}");
    app.stop().await;

    // With leave it is tried: nobody is there.
    let app = App::spawn_on(&url, &[("push_allow_private", "true")]).await;
    let began = Instant::now();
    run(&app.pool, "SELECT tollgate.retry_dead_letters('app')").await;
    until(&app.pool, "SELECT count(*) = 2 FROM tollgate.attempts").await;
    until(&app.pool, dead).await;
    let error = ask(&app.pool, "SELECT error FROM tollgate.dead_letters").await;
    assert!(!error.contains("private address"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(20));
    app.stop().await;
}
