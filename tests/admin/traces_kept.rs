//! What is kept of traces beside the events, and what is not: duplicates, sampling, traces that are
//! off, the way step by step, and forgetting.

use std::time::{Duration, SystemTime};

use sqlx::{Executor, PgPool};
use tollgate::clock::Clock;
use tollgate::maintain::history;

use crate::collector::Collector;
use crate::server::Server;
use crate::support::{App, event, now};
use crate::traces::{PARENT, TRACE, deliver, push_to, traced};

const ROWS: &str = "SELECT count(*) FROM tollgate.event_traces";

/// The one row's `traceparent`.
async fn row(app: &App, id: &str) -> String {
    sqlx::query_scalar("SELECT traceparent FROM tollgate.event_traces WHERE id = $1")
        .bind(id)
        .fetch_one(&app.pool)
        .await
        .unwrap()
}

/// A handler of all events, for which a batch goes step by step.
async fn step_by_step(app: &App) {
    app.pool
        .execute(
            "CREATE FUNCTION public.note(e jsonb) RETURNS void LANGUAGE sql AS $$ SELECT $$;
             SELECT tollgate.register_handler('*', 'public.note(jsonb)'::regprocedure, 'note')",
        )
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_names_the_webhook_s_span_whichever_way_the_event_took() {
    let collector = Collector::start().await;
    let app = traced(&collector, &[]).await;
    // With an object that has a table, without one, and with a handler.
    let bare =
        r#"{"id":"evt_bare","object":"event","type":"balance.available","created":1700000000}"#;
    deliver(&app, &event("evt_object"), &[]).await;
    deliver(&app, bare, &[]).await;
    step_by_step(&app).await;
    deliver(&app, &event("evt_steps"), &[]).await;
    for id in ["evt_object", "evt_bare", "evt_steps"] {
        let spans = collector.until_about(id, 2).await;
        let webhook = spans.iter().find(|span| span.name == "webhook").unwrap();
        assert_eq!(row(&app, id).await, webhook.traceparent(), "{id}");
    }
    assert_eq!(app.count(ROWS).await, 3);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_duplicate_adds_no_row_and_changes_none() {
    let collector = Collector::start().await;
    let app = traced(&collector, &[]).await;
    let unsampled = format!("00-{TRACE}-{PARENT}-00");
    for steps in [false, true] {
        if steps {
            step_by_step(&app).await;
        }
        let (with, without) = (format!("evt_with_{steps}"), format!("evt_without_{steps}"));
        let before = app.count(ROWS).await;
        deliver(&app, &event(&with), &[]).await;
        let first = row(&app, &with).await;
        deliver(&app, &event(&without), &[&unsampled]).await;
        for _ in 0..2 {
            for id in [&with, &without] {
                assert_eq!(deliver(&app, &event(id), &[]).await.word(), "duplicate");
            }
        }
        assert_eq!(row(&app, &with).await, first);
        assert_eq!(app.count(ROWS).await, before + 1, "steps: {steps}");
        // One span of the webhook for each delivery that was sampled, and of its transaction.
        collector.until_about(&with, 6).await;
        assert_eq!(collector.until_about(&without, 4).await.len(), 4);
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_sampling_only_traces_that_others_began_are_kept() {
    let (collector, target) = (Collector::start().await, Server::start().await);
    let app = traced(&collector, &[("otlp_sample", "0")]).await;
    push_to(&app, &target.url()).await;
    deliver(&app, &event("evt_new"), &[]).await;
    deliver(&app, &event("evt_unsampled"), &[&format!("00-{TRACE}-{PARENT}-00")]).await;
    let pushed = target.until(2).await;
    assert!(pushed.iter().all(|request| request.header("traceparent").is_empty()), "{pushed:?}");
    assert_eq!(app.count(ROWS).await, 0);
    deliver(&app, &event("evt_sampled"), &[&format!("00-{TRACE}-{PARENT}-01")]).await;
    collector.until_about("evt_sampled", 3).await;
    assert_eq!(target.until(3).await[2].header("traceparent").len(), 1);
    assert_eq!(app.count(ROWS).await, 1);
    app.stop().await;
    assert!(collector.spans().iter().all(|span| span.says("tollgate.event.id") == "evt_sampled"));
}

#[tokio::test(flavor = "multi_thread")]
async fn off_there_is_neither_row_nor_header() {
    let target = Server::start().await;
    let app = App::spawn().await;
    push_to(&app, &target.url()).await;
    let sampled = format!("00-{TRACE}-{PARENT}-01");
    deliver(&app, &event("evt_1"), &[&sampled]).await;
    assert!(target.until(1).await[0].header("traceparent").is_empty());
    assert_eq!(app.count(ROWS).await, 0);
    // Nor is a header sent for an event whose trace another replica kept.
    app.pool
        .execute(sqlx::AssertSqlSafe(format!(
            "INSERT INTO tollgate.event_traces (created, id, traceparent)
             SELECT created, id, '{sampled}' FROM tollgate.event_log;
             SELECT tollgate.reset_consumer('app', 'earliest')"
        )))
        .await
        .unwrap();
    assert!(target.until(2).await[1].header("traceparent").is_empty());
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn traces_are_forgotten_after_thirty_days() {
    let app = App::spawn().await;
    let pool = PgPool::connect(&app.database_url).await.unwrap();
    // It does the same at its start, and would do it meanwhile.
    app.stop().await;
    pool
        .execute(sqlx::AssertSqlSafe(format!(
            "INSERT INTO tollgate.event_traces (created, id, traceparent, at)
             SELECT '1970-01-01Z', 'evt_' || n, '00-{TRACE}-{PARENT}-01', now() - n * interval '12 hours'
             FROM generate_series(0, 79) n"
        )))
        .await
        .unwrap();
    // An hour short of it: n = 60 is just 30 days old.
    let short = u64::try_from(now()).unwrap() - 3600;
    let clock = Clock::from_fn(move || SystemTime::UNIX_EPOCH + Duration::from_secs(short));
    for (clock, kept) in [(clock, 61), (Clock::system(), 60)] {
        history::run_once(&pool, &clock).await.unwrap();
        let rows: i64 = sqlx::query_scalar(ROWS).fetch_one(&pool).await.unwrap();
        assert_eq!(rows, kept);
    }
}
