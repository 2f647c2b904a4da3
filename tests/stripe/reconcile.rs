//! Events that no webhook brought are found and fetched, whatever happens meanwhile; and nothing is
//! done where nothing is missing.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use serde_json::{Value, json};
use tollgate::sync::Accounts;
use tollgate::sync::reconcile::{Report, Scope, reconcile};

use crate::scene::{
    Scene, asking, customer, deliver, event_at, list, printed, samples, spawn, tables, until,
};
use crate::support::stripe::{FakeStripe, Fault};
use crate::support::{App, now, postgres};

/// So long ago that all sample events have happened since.
const YEAR: i64 = 366 * 86_400;

/// Has the database say that it was made a year ago.
async fn age(app: &App) {
    sqlx::query("UPDATE tollgate.migrations SET installed_on = now() - interval '366 days'")
        .execute(&app.pool)
        .await
        .unwrap();
}

async fn run(scene: &Scene) -> Report {
    let mut reports = reconcile(&scene.context, &Scope::default()).await.unwrap();
    assert_eq!(reports.len(), 1);
    reports.remove(0)
}

/// Lists a customer's event at Stripe, made so many seconds ago.
fn happen(stripe: &FakeStripe, id: &str, ago: i64) -> String {
    let event = event_at("customer.created", &customer(id, "Jenny"), now() - ago);
    stripe.emit("", serde_json::from_str(&event).unwrap());
    event
}

fn asked_for_events(stripe: &FakeStripe) -> usize {
    stripe.requests().iter().filter(|asked| asked.path == "/v1/events").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_events_of_a_stop_are_in_the_log_after_one_run() {
    let stripe = FakeStripe::start().await;
    let url = postgres::fresh_database().await;
    let mut settings = asking(&stripe);
    settings.retain(|(key, _)| *key != "reconcile_interval");
    settings.push(("reconcile_interval", "1d".to_owned()));
    let all = samples(1..=9, now() - YEAR);
    let (before, missed) = all.split_at(500);
    assert!(missed.len() > 5_000);
    let seconds: std::collections::HashSet<_> = missed.iter().map(|event| event.created).collect();
    assert!(seconds.len() + 500 < missed.len(), "many are of one second");

    let app = App::spawn_on(&url, &[]).await;
    age(&app).await;
    app.stop().await;
    let app = spawn(&url, &settings).await;
    deliver(&app, before).await;
    list(&stripe, before);
    app.stop().await;

    // Nobody is there when these happen, the last of them while pages are turned.
    let (missed_before, while_paging) = missed.split_at(missed.len() - 30);
    list(&stripe, missed_before);
    let late: Vec<_> = while_paging.to_vec();
    let next = Arc::new(AtomicI64::new(0));
    stripe.on_page(move |stripe, asked| {
        if asked.path == "/v1/events" {
            let at = usize::try_from(next.fetch_add(1, Ordering::Relaxed)).unwrap();
            list(stripe, late.get(at..=at).unwrap_or_default());
        }
    });
    let app = spawn(&url, &settings).await;
    let done = async || app.count("SELECT count(*) FROM tollgate.gaps").await == 1;
    until("the run is done", done).await;
    let total = i64::try_from(all.len()).unwrap();
    assert_eq!(app.events().await, total);
    let fetched = "SELECT count(*) FROM tollgate.events WHERE source = 'reconcile'";
    assert_eq!(app.count(fetched).await, i64::try_from(missed.len()).unwrap());
    assert_eq!(
        app.count("SELECT events FROM tollgate.gaps").await,
        i64::try_from(missed.len()).unwrap()
    );
    assert_eq!(app.count("SELECT late FROM tollgate.gaps").await, app.count(fetched).await);

    let never_stopped = App::spawn().await;
    deliver(&never_stopped, &all).await;
    assert_eq!(tables(&app.pool).await, tables(&never_stopped.pool).await);
    app.stop().await;
    never_stopped.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_is_missing_a_run_is_one_page_and_no_write() {
    let scene = Scene::new().await;
    for number in 0..250 {
        let event = happen(&scene.stripe, &format!("cus_{number}"), 10);
        assert_eq!(scene.app.deliver(event).await.status, 200);
    }
    assert_eq!(run(&scene).await.events(), 0);
    scene.stripe.forget_requests();
    let log = "SELECT array[count(*), max(position), pg_sequence_last_value('tollgate.position_seq')] FROM tollgate.events";
    let before = scene.value(log).await;
    for _ in 0..3 {
        let report = run(&scene).await;
        assert_eq!((report.pages, report.listed, report.events()), (1, 100, 0));
    }
    assert_eq!(asked_for_events(&scene.stripe), 3);
    assert_eq!(scene.stripe.requests().len(), 3);
    assert_eq!(scene.value(log).await, before);
    assert_eq!(scene.app.count("SELECT count(*) FROM tollgate.gaps").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_the_second_that_was_compared_last_are_not_missed() {
    let scene = Scene::new().await;
    happen(&scene.stripe, "cus_1", -2);
    assert_eq!(run(&scene).await.events(), 1);
    happen(&scene.stripe, "cus_2", -2);
    // Listed late, though made before.
    happen(&scene.stripe, "cus_3", 0);
    let report = run(&scene).await;
    assert_eq!((report.events(), report.pages), (2, 2));
    assert_eq!(run(&scene).await.events(), 0);
    assert_eq!(scene.app.events().await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happened_before_the_gateway_was_there_is_fetched_only_if_asked_for() {
    let scene = Scene::new().await;
    happen(&scene.stripe, "cus_old", 3600);
    assert_eq!(run(&scene).await.events(), 0);
    let json = |output: &std::process::Output| -> Value {
        serde_json::from_str(printed(output).trim()).unwrap()
    };
    let dry = scene.tollgate(&["reconcile", "--since", "2h", "--dry-run", "--json"]).await;
    assert_eq!(json(&dry)["found"], json!({"customer.created": 1}));
    assert_eq!(scene.app.events().await, 0);
    let other = ["reconcile", "--since", "2h", "--type", "invoice.*,charge.*", "--json"];
    assert_eq!(json(&scene.tollgate(&other).await)["found"], json!({}));
    let done = scene.tollgate(&["reconcile", "--since", "2h", "--type", "customer.*"]).await;
    assert!(printed(&done).contains("1 fetched"), "{}", printed(&done));
    assert_eq!(scene.app.events().await, 1);
    let handler = "SELECT count(*) FROM stripe.customers WHERE id = 'cus_old' AND name = 'Jenny'";
    assert_eq!(scene.app.count(handler).await, 1);
    // It says nothing of how far everything was compared.
    happen(&scene.stripe, "cus_new", 0);
    assert_eq!(run(&scene).await.events(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_and_a_run_at_once_record_an_event_once() {
    let scene = Scene::new().await;
    let events: Vec<_> = (0..200).map(|n| happen(&scene.stripe, &format!("cus_{n}"), 0)).collect();
    let deliveries = async {
        for event in &events {
            assert_eq!(scene.app.deliver(event).await.status, 200);
        }
    };
    let (report, ()) = tokio::join!(run(&scene), deliveries);
    assert_eq!(scene.app.events().await, 200);
    let fetched = "SELECT count(*) FROM tollgate.events WHERE source = 'reconcile'";
    assert_eq!(scene.app.count(fetched).await, report.events());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_at_a_time_compares() {
    let scene = Scene::new().await;
    happen(&scene.stripe, "cus_1", 0);
    let other = crate::scene::context(&scene.stripe, &scene.app.database_url);
    let held = scene.context.lead("reconcile").await.unwrap();
    let busy = reconcile(&other, &Scope::default()).await.unwrap_err();
    assert_eq!(busy.to_string(), "another process is doing this now");
    held.release().await;
    assert_eq!(reconcile(&other, &Scope::default()).await.unwrap()[0].events(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn connected_accounts_are_compared_each_for_itself() {
    let scene = Scene::new().await;
    for account in ["", "acct_1", "acct_2"] {
        let event = event_at("customer.created", &customer("cus_1", account), now());
        let mut event: serde_json::Value = serde_json::from_str(&event).unwrap();
        if account == "acct_2" {
            event["account"] = json!(null); // in place of nothing
        }
        scene.stripe.emit(account, event);
    }
    assert_eq!(run(&scene).await.events(), 1);
    let scope = Scope { accounts: Accounts::Connected, ..Scope::default() };
    let reports = reconcile(&scene.context, &scope).await.unwrap();
    assert_eq!(reports.iter().map(Report::events).sum::<i64>(), 2);
    let rows = "SELECT array_agg(account || '=' || name ORDER BY account) FROM stripe.customers";
    assert_eq!(scene.value(rows).await, json!(["=", "acct_1=acct_1", "acct_2=acct_2"]));
    // The bytes say so, too, so that a rebuild finds the same.
    assert_eq!(
        scene.value("SELECT array_agg(tollgate.payload(raw) ->> 'account' ORDER BY account) FROM tollgate.events").await,
        json!([null, "acct_1", "acct_2"])
    );

    // One goes away after it was listed: the others are compared all the same.
    scene.stripe.add_account("acct_3");
    happen(&scene.stripe, "cus_2", 0);
    let third = event_at("customer.created", &customer("cus_3", "Theirs"), now());
    scene.stripe.emit("acct_3", serde_json::from_str(&third).unwrap());
    scene.stripe.on_page(|stripe, asked| {
        if asked.headers.get("stripe-account").is_some_and(|account| account == "acct_3") {
            stripe.disconnect_account("acct_2");
        }
    });
    let reports = reconcile(&scene.context, &scope).await.unwrap();
    let told: Vec<_> =
        reports.iter().map(|it| (it.account.as_str(), it.events(), it.error.is_some())).collect();
    assert_eq!(
        told,
        [("", 1, false), ("acct_3", 1, false), ("acct_2", 0, true), ("acct_1", 0, false)]
    );
    let error = "SELECT array_agg(account) FROM tollgate.reconciliations WHERE error LIKE '%not connected%'";
    assert_eq!(scene.value(error).await, json!(["acct_2"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_handler_keeps_out_is_tried_again_for_days() {
    let scene = Scene::new().await;
    for sql in [
        "CREATE TABLE open (yes boolean)",
        "CREATE FUNCTION refuse(jsonb) RETURNS void LANGUAGE plpgsql AS
         $$ BEGIN IF NOT EXISTS (SELECT FROM open) THEN RAISE 'not now'; END IF; END $$",
        "SELECT tollgate.register_handler('customer.created', 'refuse(jsonb)'::regprocedure, policy => 'reject')",
    ] {
        sqlx::query(sql).execute(&scene.app.pool).await.unwrap();
    }
    happen(&scene.stripe, "cus_1", 30);
    let report = run(&scene).await;
    assert_eq!((report.events(), report.rejected), (0, 1));
    // Long after the overlap: others went on, this one is waited for.
    let later = event_at("customer.updated", &customer("cus_2", "Jenny"), now() - 5);
    scene.stripe.emit("", serde_json::from_str(&later).unwrap());
    assert_eq!(run(&scene).await.events(), 1);
    let held = "SELECT count(*) FROM tollgate.reconciliations WHERE watermark < now() - interval '25 seconds'";
    assert_eq!(scene.app.count(held).await, 1);
    sqlx::query("INSERT INTO open VALUES (true)").execute(&scene.app.pool).await.unwrap();
    assert_eq!(run(&scene).await.events(), 1);
    assert_eq!(scene.app.events().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_kept_out_for_too_long_takes_no_younger_one_with_it() {
    let scene = Scene::new().await;
    age(&scene.app).await;
    for sql in [
        "CREATE FUNCTION refuse(jsonb) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE 'never'; END $$",
        "SELECT tollgate.register_handler('customer.created', 'refuse(jsonb)'::regprocedure, policy => 'reject')",
    ] {
        sqlx::query(sql).execute(&scene.app.pool).await.unwrap();
    }
    happen(&scene.stripe, "cus_old", 3 * 86_400 + 300);
    happen(&scene.stripe, "cus_young", 86_400);
    let later = event_at("customer.updated", &customer("cus_2", "Jenny"), now() - 60);
    scene.stripe.emit("", serde_json::from_str(&later).unwrap());
    let report = run(&scene).await;
    assert_eq!((report.events(), report.rejected), (1, 2));
    let held = "SELECT count(*) FROM tollgate.reconciliations WHERE watermark < now() - interval '20 hours'";
    assert_eq!(scene.app.count(held).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_behind_one_that_stripe_does_not_answer_about_are_compared() {
    let scene = Scene::new().await;
    for account in ["acct_1", "acct_2"] {
        let event = event_at("customer.created", &customer("cus_1", account), now());
        scene.stripe.emit(account, serde_json::from_str(&event).unwrap());
    }
    // The first one's requests, all of them.
    scene.stripe.on_page(|stripe, asked| {
        if asked.path == "/v1/accounts" {
            stripe.fail("/v1/events", 5, Fault::Status(500));
        }
    });
    let scope = Scope { accounts: Accounts::Connected, ..Scope::default() };
    let reports = reconcile(&scene.context, &scope).await.unwrap();
    let told: Vec<_> = reports.iter().map(|it| (it.events(), it.error.is_some())).collect();
    assert_eq!(told, [(0, false), (0, true), (1, false)]);

    // Nor is it a secret that accounts could not be listed.
    scene.stripe.fail("/v1/accounts", usize::MAX, Fault::Status(403));
    assert!(reconcile(&scene.context, &scope).await.is_err());
    let error =
        "SELECT count(*) FROM tollgate.reconciliations WHERE account = '' AND error LIKE '%403%'";
    assert_eq!(scene.app.count(error).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_run_that_fails_again_and_again_begins_where_it_began() {
    let scene = Scene::new().await;
    scene.stripe.set_skew(3600);
    let emit = |id: &str, created: i64| {
        let event = event_at("customer.created", &customer(id, "Jenny"), created);
        scene.stripe.emit("", serde_json::from_str(&event).unwrap());
    };
    emit("cus_before", now() + 1200);
    emit("cus_since", now() + 3600);
    for _ in 0..3 {
        scene.stripe.fail("/v1/events", 2, Fault::Status(400));
        assert!(reconcile(&scene.context, &Scope::default()).await.is_err());
        scene.stripe.mend();
        let dry = Scope { dry_run: true, ..Scope::default() };
        assert_eq!(reconcile(&scene.context, &dry).await.unwrap()[0].events(), 1);
    }
    assert_eq!(run(&scene).await.events(), 1);
    let there = scene.value("SELECT array_agg(id) FROM stripe.customers").await;
    assert_eq!(there, json!(["cus_since"]));
}
