//! Group commit under trouble: poison, a full queue, a database that goes away.

use std::time::Duration;

use sqlx::Executor;

use crate::support::wire::{Wire, delivery};
use crate::support::{App, event, sign};

#[tokio::test]
async fn a_poison_event_goes_aside_and_its_neighbours_are_recorded() {
    let app = App::spawn_with(&[("http_workers", "1")]).await;
    app.pool
        .execute(
            "ALTER TABLE tollgate.event_log ADD CONSTRAINT poison CHECK (id NOT LIKE '%poison%')",
        )
        .await
        .unwrap();
    // Held back for a moment, so that they meet in one batch.
    let mut lock = app.pool.begin().await.unwrap();
    lock.execute("LOCK TABLE tollgate.event_log IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let ids: Vec<String> =
        (0..20).map(|n| if n == 7 { "evt_poison".into() } else { format!("evt_{n}") }).collect();
    let deliveries = ids.iter().map(|id| app.deliver(event(id)));
    let (answers, ()) = tokio::join!(futures_util::future::join_all(deliveries), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        lock.rollback().await.unwrap();
    });
    for (id, answer) in ids.iter().zip(answers) {
        let expected = if id == "evt_poison" { "quarantined" } else { "recorded" };
        assert_eq!((answer.status, answer.word().as_str()), (200, expected), "{id}");
    }
    assert_eq!(app.events().await, 19);
    let aside: (String, String, String) =
        sqlx::query_as("SELECT event_id, reason, detail FROM tollgate.quarantine")
            .fetch_one(&app.pool)
            .await
            .unwrap();
    assert_eq!((aside.0.as_str(), aside.1.as_str()), ("evt_poison", "refused_by_database"));
    assert!(aside.2.contains("poison"), "{}", aside.2);
}

#[tokio::test]
async fn a_full_queue_is_503_with_retry_after() {
    let app =
        App::spawn_with(&[("http_workers", "1"), ("queue_events", "3"), ("batch_events", "1")])
            .await;
    let mut lock = app.pool.begin().await.unwrap();
    lock.execute("LOCK TABLE tollgate.event_log IN ACCESS EXCLUSIVE MODE").await.unwrap();
    // The first is in the writer's hands, waiting for the lock, before the others come.
    let in_hand = app.deliver(event("evt_first"));
    let others = async {
        until_waiting(&app).await;
        let ids = (0..9).map(|n| event(&format!("evt_{n}")));
        let deliveries = ids.map(|body| app.deliver(body));
        tokio::join!(futures_util::future::join_all(deliveries), async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            lock.rollback().await.unwrap();
        })
    };
    let (first, (answers, ())) = tokio::join!(in_hand, others);
    assert_eq!(first.status, 200);
    let refused: Vec<_> = answers.iter().filter(|answer| answer.status == 503).collect();
    assert_eq!(refused.len(), 6, "three wait in the queue");
    for answer in refused {
        assert_eq!(answer.word(), "queue_full");
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    assert_eq!(app.events().await, 4);
}

/// Returns once a statement of the gateway waits for a lock.
async fn until_waiting(app: &App) {
    let waiting = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while app.count(waiting).await == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_database_that_does_not_answer_is_503_and_the_event_is_not_lost_when_it_returns() {
    let app = App::spawn_with(&[("write_deadline", "1s")]).await;
    let mut lock = app.pool.begin().await.unwrap();
    lock.execute("LOCK TABLE tollgate.event_log IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let answer = app.deliver(event("evt_1")).await;
    assert_eq!((answer.status, answer.word().as_str()), (503, "database_unavailable"));
    assert_eq!(answer.header("retry-after"), Some("5"));
    lock.rollback().await.unwrap();
    // The statement that was given up may have been carried out after all.
    deliver_until_taken(&app, "evt_1").await;
    assert_eq!(app.events().await, 1);
}

/// Delivers again until it is taken, as Stripe does: on a busy machine a short deadline passes now
/// and then.
async fn deliver_until_taken(app: &App, id: &str) {
    for _ in 0..20 {
        let answer = app.deliver(event(id)).await;
        if answer.status == 200 {
            return;
        }
        assert_eq!(answer.word(), "database_unavailable");
    }
    panic!("{id} is refused for ever");
}

#[tokio::test]
async fn statements_that_are_given_up_do_not_pile_up_in_the_server() {
    let app = App::spawn_with(&[("write_deadline", "600ms")]).await;
    let mut lock = app.pool.begin().await.unwrap();
    lock.execute("LOCK TABLE tollgate.event_log IN ACCESS EXCLUSIVE MODE").await.unwrap();
    for n in 0..4 {
        let start = std::time::Instant::now();
        assert_eq!(app.deliver(event(&format!("evt_{n}"))).await.status, 503);
        assert!(start.elapsed() < Duration::from_millis(1500), "the deadline holds");
    }
    let waiting = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'";
    // The server ends a statement after a third of the deadline.
    let began = std::time::Instant::now();
    while app.count(waiting).await > 0 {
        assert!(began.elapsed() < Duration::from_secs(5), "they are still there");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    lock.rollback().await.unwrap();
    deliver_until_taken(&app, "evt_0").await;
}

#[tokio::test]
async fn lost_connections_are_made_anew_without_an_answer_but_2xx() {
    let app = App::spawn().await;
    for n in 0..30 {
        if n % 3 == 0 {
            app.count(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                 WHERE datname = current_database() AND pid <> pg_backend_pid()",
            )
            .await;
        }
        assert_eq!(app.deliver(event(&format!("evt_{n}"))).await.word(), "recorded");
    }
    assert_eq!(app.events().await, 30);
}

#[tokio::test]
async fn shutdown_writes_what_waits_and_answers_it() {
    let app = App::spawn_with(&[("http_workers", "1"), ("billing_tables", "false")]).await;
    let pool = app.pool.clone();
    let mut lock = pool.begin().await.unwrap();
    lock.execute("LOCK TABLE tollgate.event_log IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let mut wires = Vec::new();
    for n in 0..10 {
        let body = event(&format!("evt_{n}")).into_bytes();
        let mut wire = Wire::connect(app.address).await.unwrap();
        wire.send(&delivery("/webhooks/stripe", &sign(&body), &body)).await.unwrap();
        wires.push(wire);
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let stopping = tokio::spawn(app.stop());
    tokio::time::sleep(Duration::from_millis(200)).await;
    lock.rollback().await.unwrap();
    for mut wire in wires {
        let answer = wire.answer().await.unwrap();
        assert_eq!((answer.status, answer.close), (200, true));
    }
    stopping.await.unwrap();
    let events: i64 =
        sqlx::query_scalar("SELECT count(*) FROM tollgate.events").fetch_one(&pool).await.unwrap();
    assert_eq!(events, 10);
}
