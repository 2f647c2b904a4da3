//! `tollgate reprocess`: handlers, billing tables and consumers, again and by filter.

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor};
use tokio::time::{Duration, Instant, sleep};

use crate::support::{App, event};
use crate::{done, failed};

const SEES: &str = "CREATE SCHEMA app; CREATE TABLE app.seen (id text, by text);
    CREATE FUNCTION app.sees(jsonb) RETURNS void LANGUAGE sql AS $$ INSERT INTO app.seen VALUES ($1->>'id', 'sees') $$;
    CREATE FUNCTION app.other(jsonb) RETURNS void LANGUAGE sql AS $$ INSERT INTO app.seen VALUES ($1->>'id', 'other') $$";

const REGISTER: &str =
    "SELECT tollgate.register_handler('invoice.*', 'app.sees(jsonb)', name => 'sees'),
                               tollgate.register_handler('*', 'app.other(jsonb)', name => 'other')";

async fn run(app: &App, sql: &str) {
    app.pool.execute(AssertSqlSafe(sql.to_owned())).await.unwrap();
}

/// Three events, and two handlers that saw none of them.
async fn scene() -> App {
    let app = App::spawn().await;
    for n in 1..=3 {
        assert_eq!(app.deliver(event(&format!("evt_{n}"))).await.status, 200);
    }
    run(&app, SEES).await;
    run(&app, REGISTER).await;
    app
}

async fn seen(app: &App, expected: &str) {
    let sql = "SELECT coalesce(string_agg(id || ' ' || by, ',' ORDER BY id, by), '') FROM app.seen";
    let since = Instant::now();
    loop {
        let told: String = sqlx::query_scalar(sql).fetch_one(&app.pool).await.unwrap();
        if told == expected && app.count("SELECT count(*) FROM tollgate.failures").await == 0 {
            return;
        }
        assert!(since.elapsed() < Duration::from_secs(20), "{told}, not {expected}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn handlers_and_tables_run_again_for_what_fits() {
    let app = scene().await;
    let dry = done(&app, &["reprocess", "--type", "invoice.*", "--dry-run", "--json"]);
    let dry: Value = serde_json::from_str(&dry).unwrap();
    assert_eq!((&dry["events"], &dry["complete"]), (&3.into(), &true.into()));
    let text = done(&app, &["reprocess", "--limit", "2", "--dry-run"]);
    assert!(text.starts_with("the 2 newest events that fit"), "{text}");
    let (code, why) = failed(&app, &["reprocess", "--type", "invoice.*"]);
    assert!(code == 2 && why.contains("--yes"), "{why}");
    seen(&app, "").await;

    run(&app, "DELETE FROM stripe.invoices").await;
    let text = done(&app, &["reprocess", "--id", "evt_1", "--since", "1d", "--yes"]);
    assert!(text.starts_with("1 events: 3 things will be done again"), "{text}");
    seen(&app, "evt_1 other,evt_1 sees").await;
    assert_eq!(app.count("SELECT count(*) FROM stripe.invoices").await, 1);

    run(&app, "DELETE FROM stripe.invoices; DELETE FROM app.seen").await;
    let only = ["reprocess", "--handler", "sees", "--no-tables", "--yes", "--json"];
    let asked: Value = serde_json::from_str(&done(&app, &only)).unwrap();
    assert_eq!(asked, json!({"events": 3, "asked": 3}));
    seen(&app, "evt_1 sees,evt_2 sees,evt_3 sees").await;
    assert_eq!(app.count("SELECT count(*) FROM stripe.invoices").await, 0);
    done(&app, &["reprocess", "--no-handlers", "--yes"]);
    seen(&app, "evt_1 sees,evt_2 sees,evt_3 sees").await;
    assert_eq!(app.count("SELECT count(*) FROM stripe.invoices").await, 3);
    let noted = "SELECT count(*) FROM tollgate.audit_log WHERE action = 'events.reprocess' AND actor LIKE 'cli:%'";
    assert_eq!(app.count(noted).await, 3);
    assert_eq!(done(&app, &["reprocess", "--type", "payout.paid", "--yes"]), "no events fit\n");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_gets_again_what_is_its_own() {
    let app = scene().await;
    app.deliver(r#"{"id":"evt_4","type":"invoice.paid","account":"acct_1","data":{"object":{"id":"in_4","object":"invoice"}}}"#)
        .await;
    done(&app, &["consumers", "create", "mailer", "--account", "platform"]);
    let again = ["reprocess", "--type", "invoice.*", "--consumer", "mailer", "--yes"];
    let text = done(&app, &again);
    assert_eq!(text, "4 events: 3 will be handed out again, 1 are left out by its filter\n");
    let ids = "SELECT count(*) FROM tollgate.claim('mailer') WHERE event_id <> 'evt_4'";
    assert_eq!(app.count(ids).await, 3);
    let again: Value =
        serde_json::from_str(&done(&app, &[&again[..], &["--json"]].concat())).unwrap();
    assert_eq!(again, json!({"events": 4, "due": 0, "open": 3, "gone": 0, "excluded": 1}));
    seen(&app, "evt_4 other,evt_4 sees").await; // as it came, and not again
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_is_told() {
    let app = App::spawn().await;
    for (arguments, code, says) in [
        (&["reprocess", "--no-tables", "--no-handlers"] as &[_], 2, "nothing to do"),
        (&["reprocess", "--consumer", "x", "--no-tables"], 2, "cannot be used"),
        (&["reprocess", "--handler", "x", "--no-handlers"], 2, "cannot be used"),
        (&["reprocess", "--dry-run", "--yes"], 2, "cannot be used"),
        (&["reprocess", "--limit", "10001"], 2, "10000"),
        (&["reprocess", "--since", "soon"], 2, "since: expected a time"),
        (&["reprocess", "--handler", "nobody", "--yes"], 1, "there is no handler \"nobody\""),
        (&["reprocess", "--consumer", "nobody", "--yes"], 1, "there is no consumer \"nobody\""),
    ] {
        let (was, why) = failed(&app, arguments);
        assert!(was == code && why.contains(says), "{arguments:?}: {was}, {why}");
    }
    app.stop().await;
}
