//! The user's own SQL in the transaction of an event: once, in a savepoint, and never at the cost
//! of the event or of its neighbours.

use std::time::Duration;

use sqlx::Executor;

use crate::support::{App, event};

/// A gateway with a table of the user's.
pub async fn app() -> App {
    let app = App::spawn().await;
    app.pool
        .execute(
            "CREATE SCHEMA app;
             CREATE TABLE app.seen (id text NOT NULL, type text NOT NULL);
             CREATE FUNCTION app.note(e jsonb) RETURNS void LANGUAGE sql AS
             $$ INSERT INTO app.seen VALUES (e->>'id', e->>'type') $$;",
        )
        .await
        .unwrap();
    app
}

/// Makes a handler of a PL/pgSQL body and registers it for all events.
pub async fn register(app: &App, name: &str, body: &str, more: &str) {
    let sql = format!(
        "CREATE OR REPLACE FUNCTION app.{name}(e jsonb) RETURNS void LANGUAGE plpgsql AS $h$ BEGIN {body} END $h$;
         SELECT tollgate.register_handler('*', 'app.{name}(jsonb)'::regprocedure, '{name}'{more});"
    );
    app.pool.execute(sqlx::AssertSqlSafe(sql)).await.unwrap();
}

/// The one failure's handler and error.
async fn failure(app: &App) -> (String, String) {
    sqlx::query_as("SELECT handler, error FROM tollgate.failures")
        .fetch_one(&app.pool)
        .await
        .unwrap()
}

/// Has what failed tried again until `settled` counts as many.
pub async fn retry_until(app: &App, settled: &'static str, many: i64) {
    for _ in 0..150 {
        if app.count(settled).await == many {
            return;
        }
        app.pool
            .execute(
                "UPDATE tollgate.failures SET next_attempt = now() WHERE next_attempt IS NOT NULL",
            )
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{settled} never came to {many}");
}

#[tokio::test]
async fn a_handler_runs_once_per_event_from_its_registration_on() {
    let app = app().await;
    app.deliver(event("evt_before")).await;
    sqlx::query("SELECT tollgate.register_handler('invoice.*', 'app.note(jsonb)'::regprocedure)")
        .execute(&app.pool)
        .await
        .unwrap();
    for _ in 0..3 {
        assert_eq!(app.deliver(event("evt_1")).await.status, 200);
    }
    let other = r#"{"id":"evt_2","object":"event","type":"customer.created","created":1}"#;
    app.deliver(other).await;
    assert_eq!(app.count("SELECT count(*) FROM app.seen").await, 1);
    assert_eq!(app.count("SELECT count(*) FROM app.seen WHERE id = 'evt_1'").await, 1);
    let dropped: bool = sqlx::query_scalar("SELECT tollgate.drop_handler('invoice.* app.note')")
        .fetch_one(&app.pool)
        .await
        .unwrap();
    assert!(dropped);
    app.deliver(event("evt_3")).await;
    assert_eq!(app.count("SELECT count(*) FROM app.seen").await, 1);
    app.stop().await;
}

#[tokio::test]
async fn handlers_are_functions_of_one_jsonb() {
    let app = app().await;
    app.pool
        .execute(
            "CREATE FUNCTION app.two(a jsonb, b int) RETURNS void LANGUAGE sql AS '';
             CREATE PROCEDURE app.procedure(a jsonb) LANGUAGE sql AS '';
             CREATE FUNCTION app.text(a text) RETURNS void LANGUAGE sql AS '';",
        )
        .await
        .unwrap();
    for (pattern, function) in [
        ("*", "app.two(jsonb, int)"),
        ("*", "app.procedure(jsonb)"),
        ("*", "app.text(text)"),
        ("*", "app.none(jsonb)"),
        ("in*ce", "app.note(jsonb)"),
        ("", "app.note(jsonb)"),
    ] {
        let done = sqlx::query("SELECT tollgate.register_handler($1, $2::text::regprocedure)")
            .bind(pattern)
            .bind(function)
            .execute(&app.pool)
            .await;
        assert!(done.is_err(), "{pattern} {function}");
    }
    app.stop().await;
}

#[tokio::test]
async fn whatever_a_handler_does_the_event_is_kept_and_the_failure_names_it() {
    for (name, body, reason) in [
        ("raises", "RAISE EXCEPTION 'no credit';", "no credit"),
        ("loops", "LOOP PERFORM 1; END LOOP;", "statement timeout"),
        ("sleeps", "PERFORM pg_sleep(60);", "statement timeout"),
        ("commits", "COMMIT;", "invalid transaction termination"),
        ("drops_the_log", "DROP TABLE tollgate.event_log CASCADE;", "active queries"),
        ("empties_the_log", "TRUNCATE tollgate.event_log;", "active queries"),
        ("drops_positions", "DROP TABLE tollgate.positions CASCADE;", "drops a table"),
        ("gives_up_durability", "SET synchronous_commit = off;", "synchronous_commit"),
        ("divides", "PERFORM 1 / 0;", "division by zero"),
    ] {
        let app = app().await;
        register(&app, name, body, ", timeout => '200ms'").await;
        let answer = app.deliver(event("evt_1")).await;
        assert_eq!((answer.status, answer.word().as_str()), (200, "recorded"), "{name}");
        assert_eq!(app.events().await, 1, "{name}");
        assert_eq!(app.count("SELECT count(*) FROM stripe.invoices").await, 1, "{name}");
        let (handler, error) = failure(&app).await;
        assert_eq!(handler, name);
        assert!(error.contains(reason), "{name}: {error}");
        app.stop().await;
    }
}

#[tokio::test]
async fn neighbours_are_untouched_by_a_failing_handler() {
    let app = app().await;
    register(
        &app,
        "picky",
        "IF e->>'id' LIKE '%7' THEN RAISE EXCEPTION 'not this one'; END IF; PERFORM app.note(e);",
        "",
    )
    .await;
    let deliveries = (0..60).map(|n| {
        let app = &app;
        async move { app.deliver(event(&format!("evt_{n}"))).await.status }
    });
    let answers = futures_util::future::join_all(deliveries).await;
    assert!(answers.iter().all(|status| *status == 200));
    assert_eq!(app.events().await, 60);
    assert_eq!(app.count("SELECT count(*) FROM app.seen").await, 54);
    assert_eq!(
        app.count("SELECT count(*) FROM tollgate.failures WHERE handler = 'picky'").await,
        6
    );
    app.stop().await;
}

#[tokio::test]
async fn a_handler_that_is_gone_or_spoils_the_commit_parks_its_events() {
    let app = app().await;
    register(&app, "gone", "PERFORM app.note(e);", "").await;
    app.pool.execute("DROP FUNCTION app.gone(jsonb)").await.unwrap();
    assert_eq!(app.deliver(event("evt_1")).await.status, 200);
    let (_, error) = failure(&app).await;
    assert!(error.contains("does not exist any more"), "{error}");
    app.pool
        .execute(
            "SELECT tollgate.drop_handler('gone'); TRUNCATE tollgate.failures;
             CREATE TABLE app.parent (id text PRIMARY KEY);
             CREATE TABLE app.child (id text REFERENCES app.parent DEFERRABLE INITIALLY DEFERRED);",
        )
        .await
        .unwrap();
    register(&app, "late", "INSERT INTO app.child VALUES (e->>'id');", "").await;
    assert_eq!(app.deliver(event("evt_2")).await.status, 200);
    assert_eq!(app.events().await, 2);
    let (handler, error) = failure(&app).await;
    assert_eq!(handler, "late");
    assert!(error.contains("violates foreign key"), "{error}");
    app.stop().await;
}

#[tokio::test]
async fn ten_thousand_notifications_and_a_deadlock_cost_no_event() {
    let app = app().await;
    register(
        &app,
        "loud",
        "FOR n IN 1..10000 LOOP PERFORM pg_notify('app', n::text); END LOOP;",
        "",
    )
    .await;
    assert_eq!(app.deliver(event("evt_1")).await.status, 200);
    app.pool
        .execute(
            "SELECT tollgate.drop_handler('loud');
             CREATE TABLE app.accounts (n int PRIMARY KEY, credits int NOT NULL DEFAULT 0);
             INSERT INTO app.accounts VALUES (1), (2);",
        )
        .await
        .unwrap();
    // Half of the events take the rows in one order, half in the other.
    register(
        &app,
        "crosswise",
        "UPDATE app.accounts SET credits = credits + 1 WHERE n = 1 + hashtext(e->>'id') % 2 * hashtext(e->>'id') % 2;
         PERFORM pg_sleep(0.02);
         UPDATE app.accounts SET credits = credits + 1;",
        "",
    )
    .await;
    let second = App::spawn_on(&app.database_url, &[]).await;
    let deliveries = (0..20).map(|n| {
        let to = if n % 2 == 0 { &app } else { &second };
        async move { to.deliver(event(&format!("evt_d{n}"))).await.status }
    });
    let answers = futures_util::future::join_all(deliveries).await;
    assert!(answers.iter().all(|status| *status == 200), "{answers:?}");
    assert_eq!(app.events().await, 21);
    second.stop().await;
    app.stop().await;
}

#[tokio::test]
async fn the_policy_reject_takes_the_event_back() {
    let app = app().await;
    register(
        &app,
        "strict",
        "IF e->>'id' = 'evt_bad' THEN RAISE EXCEPTION 'no'; END IF; PERFORM app.note(e);",
        ", policy => 'reject'",
    )
    .await;
    let deliveries = ["evt_1", "evt_bad", "evt_2"].map(|id| app.deliver(event(id)));
    let answers = futures_util::future::join_all(deliveries).await;
    let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [200, 500, 200]);
    assert_eq!(answers[1].word(), "handler_rejected");
    assert_eq!(app.events().await, 2);
    assert_eq!(app.count("SELECT count(*) FROM app.seen").await, 2);
    assert_eq!(app.count("SELECT count(*) FROM stripe.invoices").await, 2);
    assert_eq!(app.count("SELECT count(*) FROM tollgate.failures").await, 0);
    app.stop().await;
}

#[tokio::test]
async fn failures_are_tried_again_and_given_up_in_the_end() {
    let app = app().await;
    app.pool.execute("CREATE TABLE app.closed (x int)").await.unwrap();
    register(
        &app,
        "moody",
        "IF EXISTS (SELECT FROM app.closed) OR e->>'id' = 'evt_never' THEN RAISE EXCEPTION 'closed'; END IF;
         PERFORM app.note(e);",
        ", max_attempts => 3",
    )
    .await;
    app.pool.execute("INSERT INTO app.closed VALUES (1)").await.unwrap();
    app.deliver(event("evt_1")).await;
    app.deliver(event("evt_never")).await;
    assert_eq!(app.count("SELECT count(*) FROM tollgate.failures").await, 2);
    app.pool.execute("TRUNCATE app.closed").await.unwrap();
    let waiting = "SELECT count(*) FROM tollgate.failures WHERE next_attempt IS NOT NULL";
    retry_until(&app, waiting, 0).await;
    assert_eq!(app.count("SELECT count(*) FROM app.seen WHERE id = 'evt_1'").await, 1);
    let left: (String, i32) = sqlx::query_as("SELECT event_id, attempts FROM tollgate.failures")
        .fetch_one(&app.pool)
        .await
        .unwrap();
    assert_eq!(left, ("evt_never".to_owned(), 3), "a dead letter");
    app.stop().await;
}

#[tokio::test]
async fn an_object_no_table_can_hold_costs_neither_event_nor_neighbours() {
    let app = app().await;
    let deep = format!("{}1{}", "[".repeat(20_000), "]".repeat(20_000));
    for (id, value) in [("evt_deep", deep.as_str()), ("evt_big", "1e200000")] {
        let body = format!(
            r#"{{"id":"{id}","object":"event","type":"invoice.paid","created":1767600000,
            "data":{{"object":{{"id":"in_{id}","object":"invoice","x":{value}}}}}}}"#
        );
        let good = event(&format!("{id}_neighbour"));
        let (bad, good) = tokio::join!(app.deliver(&body), app.deliver(good));
        assert_eq!((bad.word(), good.word()), ("recorded".to_owned(), "recorded".to_owned()));
    }
    assert_eq!(app.events().await, 4);
    assert_eq!(app.quarantined().await, 0);
    assert_eq!(app.count("SELECT count(*) FROM stripe.invoices").await, 2);
    assert_eq!(
        app.count("SELECT count(*) FROM tollgate.failures WHERE stage = 'projection'").await,
        2
    );
    app.stop().await;
}

#[tokio::test]
async fn odd_values_are_null_in_the_columns_and_whole_in_the_object() {
    let app = app().await;
    let body = r#"{"id":"evt_1","object":"event","type":"invoice.paid","created":"1767600000",
        "data":{"object":{"id":"in_1","object":"invoice","amount_due":99999999999999999999999,
        "due_date":999999999999999,"customer":{"id":"cus_1"},"number":"a\u0000b","status":7}}}"#;
    assert_eq!(app.deliver(body).await.word(), "recorded");
    let row: (Option<i64>, Option<String>, Option<String>, String) = sqlx::query_as(
        "SELECT amount_due, customer, status, object->>'amount_due' FROM stripe.invoices WHERE due_date IS NULL",
    )
    .fetch_one(&app.pool)
    .await
    .unwrap();
    assert_eq!(row, (None, Some("cus_1".into()), None, "99999999999999999999999".into()));
    app.stop().await;
}

#[tokio::test]
async fn a_metadata_value_of_two_megabytes_is_kept_where_the_limit_allows_it() {
    let app = App::spawn_with(&[("max_body", "4MiB")]).await;
    let body = format!(
        r#"{{"id":"evt_1","object":"event","type":"customer.created","created":1767600000,
        "data":{{"object":{{"id":"cus_1","object":"customer","email":"a@b.c","metadata":{{"k":"{}"}}}}}}}}"#,
        "x".repeat(2_000_000)
    );
    let (large, neighbour) = tokio::join!(app.deliver(&body), app.deliver(event("evt_2")));
    assert_eq!((large.word(), neighbour.word()), ("recorded".into(), "recorded".into()));
    let kept = "SELECT length(object #>> '{metadata,k}')::bigint FROM stripe.customers WHERE email = 'a@b.c'";
    assert_eq!(app.count(kept).await, 2_000_000);
    assert_eq!(app.count("SELECT count(*) FROM stripe.invoices").await, 1);
    app.stop().await;
}

#[tokio::test]
async fn events_of_our_own_are_for_handlers_that_name_them() {
    let app = app().await;
    app.pool
        .execute(
            "SELECT tollgate.register_handler('*', 'app.note(jsonb)', name => 'all'),
                    tollgate.register_handler('tollgate.*', 'app.note(jsonb)', name => 'own')",
        )
        .await
        .unwrap();
    let own = r#"{"id":"evt_tollgate_1","object":"event","type":"tollgate.snapshot","created":1}"#;
    assert_eq!(app.deliver(own).await.status, 200);
    assert_eq!(app.count("SELECT count(*) FROM app.seen").await, 1);
    app.deliver(event("evt_1")).await;
    assert_eq!(app.count("SELECT count(*) FROM app.seen").await, 2);
    assert_eq!(app.count("SELECT count(*) FROM app.seen WHERE type = 'invoice.paid'").await, 1);
}
