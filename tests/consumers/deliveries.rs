//! What becomes of an event, by what its target answers: taken, tried again, given up, held back.

use std::time::Duration;

use tokio::time::Instant;

use crate::receiver::{Receiver, Reply};
use crate::scene::{Logged, ask, lines, push_to, record, run, until, until_settled};
use crate::support::{App, postgres};

/// Retries soon, and never gives up.
const EAGER: &str =
    ", retry_first => '0.02 seconds', retry_most => '0.1 seconds', max_attempts => 1000";

/// Never opens the breaker.
const PATIENT: &str = ", breaker_after => 1000000";

#[tokio::test(flavor = "multi_thread")]
async fn gone_pauses_and_resuming_goes_on() {
    let app = App::spawn().await;
    let receiver = Receiver::start().await;
    receiver.answer(|_| Reply::status(410).after(Duration::from_millis(50)));
    push_to(&app.pool, &receiver, &format!("{EAGER}, ordering => 'object'"), ", concurrency => 3")
        .await;
    record(&app.pool, 0, 30, 10).await;
    until(&app.pool, "SELECT state = 'paused' AND in_flight = 0 FROM tollgate.consumer_status")
        .await;
    let because = ask(&app.pool, "SELECT paused_because FROM tollgate.consumers").await;
    assert_eq!(because, "the target answered 410 Gone");
    let refused = receiver.requests().len();
    assert!(refused <= 3, "{refused} requests: no more than were under way");
    receiver.answer(|_| Reply::status(200));
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(receiver.requests().len(), refused, "paused is paused");
    run(&app.pool, "SELECT tollgate.resume_consumer('app')").await;
    until_settled(&app.pool).await;
    assert_eq!(receiver.delivered().len(), 30);
    assert_eq!(receiver.requests().len(), 30 + refused);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_after_is_waited_for_and_no_other_status_may_ask() {
    let app = App::spawn().await;
    let receiver = Receiver::start().await;
    receiver.answer(|request| {
        let status = match request.event.as_str() {
            "evt_0" => 429,
            "evt_1" => 503,
            _ => 404,
        };
        let status = if request.attempt == 1 { status } else { 204 };
        Reply::status(status).header("Retry-After", "2")
    });
    push_to(&app.pool, &receiver, EAGER, PATIENT).await;
    record(&app.pool, 0, 3, 3).await;
    until_settled(&app.pool).await;
    let waits: Vec<_> = (0..3)
        .map(|n| {
            let all = receiver.requests();
            let of: Vec<_> = all.iter().filter(|r| r.event == format!("evt_{n}")).collect();
            assert_eq!(of.len(), 2);
            of[1].began - of[0].ended.unwrap().0
        })
        .collect();
    let asked = Duration::from_secs(2);
    assert!(waits[0] >= asked && waits[1] >= asked, "{waits:?}");
    assert!(waits[2] < asked, "{waits:?}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_every_kind_are_kept_as_history() {
    let app = App::spawn().await;
    let (receiver, elsewhere) = (Receiver::start().await, Receiver::start().await);
    let there = elsewhere.url();
    receiver.answer(move |request| match (request.event.as_str(), request.attempt) {
        ("evt_0", 1) => Reply::status(302).header("Location", &there),
        ("evt_1", 1) => Reply::hang(),
        ("evt_2", 1) => Reply::status(500).body(b"a\0b\xff\x1b[31m"),
        ("evt_3", 1) => Reply::status(400).body(&b"x".repeat(5000)),
        // A gigabyte: its status is all that counts.
        ("evt_4", 1) => Reply::status(500).body(&b"y".repeat(1 << 20)).times(1024),
        ("evt_5", 1) => Reply::status(200).body(&b"z".repeat(1 << 20)).times(1024),
        (_, 2) => Reply::status(500),
        _ => Reply::status(202),
    });
    push_to(&app.pool, &receiver, EAGER, &format!("{PATIENT}, timeout => '1 second'")).await;
    let began = Instant::now();
    record(&app.pool, 0, 6, 6).await;
    until_settled(&app.pool).await;
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert_eq!(elsewhere.requests().len(), 0, "a redirect is not followed");
    let rows: Vec<(String, i32, String, Option<i32>, String, String)> = sqlx::query_as(
        "SELECT p.id, a.attempt, a.verdict, a.status, a.error, a.answer
         FROM tollgate.attempts a JOIN tollgate.positions p USING (position) ORDER BY p.id, a.at",
    )
    .fetch_all(&app.pool)
    .await
    .unwrap();
    let short: Vec<_> =
        rows.iter().map(|row| (row.0.as_str(), row.1, row.2.as_str(), row.3)).collect();
    let mut expected = Vec::new();
    for (event, status) in [
        ("evt_0", Some(302)),
        ("evt_1", None),
        ("evt_2", Some(500)),
        ("evt_3", Some(400)),
        ("evt_4", Some(500)),
    ] {
        expected.extend([
            (event, 1, "retry", status),
            (event, 2, "retry", Some(500)),
            (event, 3, "delivered", Some(202)),
        ]);
    }
    assert_eq!(short, expected, "what is taken at once is not written down");
    let of = |event: &str| rows.iter().find(|row| row.0 == event).unwrap();
    assert!(of("evt_0").4.contains("redirects are not followed"), "{}", of("evt_0").4);
    assert!(of("evt_1").4.contains("no answer"), "{}", of("evt_1").4);
    assert_eq!(of("evt_2").5, "a\u{fffd}b\u{fffd}\u{1b}[31m");
    assert_eq!(of("evt_3").5, "x".repeat(2048));
    assert_eq!(of("evt_4").5, "y".repeat(2048));
    assert!(receiver.requests().iter().all(|request| request.signed));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_failures_make_a_dead_letter_told_of_once() {
    let url = postgres::fresh_database().await;
    let gateways = [Logged::start(&url, &[]).await, Logged::start(&url, &[]).await];
    let pool = sqlx::PgPool::connect(&url).await.unwrap();
    let receiver = Receiver::start().await;
    receiver.answer(|request| {
        Reply::status(if request.event == "evt_1" { 500 } else { 200 }).body(b"no")
    });
    let consumer = ", ordering => 'object', retry_first => '0.02 seconds', max_attempts => 3";
    push_to(&pool, &receiver, consumer, PATIENT).await;
    // One object: those behind it go on once it is given up.
    record(&pool, 0, 4, 1).await;
    until_settled(&pool).await;
    assert_eq!(receiver.requests().len(), 3 + 3);
    assert_eq!(receiver.delivered().len(), 3);
    let letter = "SELECT (event_id, attempts, reason) FROM tollgate.dead_letters";
    assert_eq!(ask(&pool, letter).await, "(evt_1,3,max_attempts_exceeded)");
    until(&pool, "SELECT bool_and(announced) FROM tollgate.deliveries").await;

    // Once more, with all its attempts; and then it is taken.
    run(&pool, "SELECT tollgate.retry_dead_letters('app')").await;
    until(&pool, "SELECT bool_and(announced) AND count(*) = 1 FROM tollgate.deliveries").await;
    assert_eq!(receiver.requests().len(), 6 + 3);
    receiver.answer(|_| Reply::status(200));
    run(&pool, "SELECT tollgate.retry_dead_letters('app')").await;
    receiver.until_delivered(4).await;
    until(&pool, "SELECT count(*) = 0 FROM tollgate.deliveries").await;
    let numbers = "SELECT string_agg(attempt || verdict, ' ' ORDER BY at) FROM tollgate.attempts";
    let failed = "1retry 2retry 3retry";
    // The last, a success at its first, leaves none.
    assert_eq!(ask(&pool, numbers).await, format!("{failed} {failed}"));

    let mut log = Vec::new();
    for gateway in gateways {
        log.extend(gateway.stop().await);
    }
    let told = lines(&log, "delivery.dead_letter");
    assert_eq!(told.len(), 2, "{told:#?}");
    for line in told {
        assert_eq!(line["level"], "ERROR");
        assert_eq!(line["reason"], "max_attempts_exceeded");
        assert_eq!((&line["consumer"], &line["event_id"]), (&"app".into(), &"evt_1".into()));
        assert_eq!(line["attempts"], 3);
    }
}
