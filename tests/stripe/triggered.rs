//! `stripe trigger`: every event that it makes is in the log once, and the tables are as the last
//! event of each object has it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use sqlx::AssertSqlSafe;
use tollgate::stripe::kinds::Kind;

use crate::cli::Cli;
use crate::forwarded::gateway;
use crate::support::App;
use crate::support::stripe::FakeStripe;

/// What the fake can be made to do as Stripe does it.
const TRIGGERS: [&str; 37] = [
    "charge.failed",
    "charge.refunded",
    "charge.succeeded",
    "checkout.session.completed",
    "coupon.created",
    "coupon.deleted",
    "coupon.updated",
    "credit_note.created",
    "customer.created",
    "customer.deleted",
    "customer.subscription.created",
    "customer.subscription.deleted",
    "customer.subscription.trial_will_end",
    "customer.subscription.updated",
    "customer.updated",
    "invoice.created",
    "invoice.deleted",
    "invoice.finalized",
    "invoice.marked_uncollectible",
    "invoice.paid",
    "invoice.updated",
    "invoice.voided",
    "invoiceitem.created",
    "payment_intent.canceled",
    "payment_intent.created",
    "payment_intent.payment_failed",
    "payment_intent.succeeded",
    "payment_link.created",
    "payment_method.attached",
    "payment_method.detached",
    "payout.created",
    "plan.deleted",
    "price.updated",
    "product.deleted",
    "promotion_code.created",
    "setup_intent.created",
    "setup_intent.succeeded",
];

#[tokio::test(flavor = "multi_thread")]
async fn what_is_triggered_is_recorded_once_and_shown_in_the_tables() {
    let stripe = FakeStripe::start().await;
    let Some(cli) = Cli::of(&stripe) else { return };
    let app = gateway().await;
    let url = app.url("/webhooks/stripe");
    let listening = cli.listen(&["--all-snapshot", "--forward-to", &url]).await;
    for name in TRIGGERS {
        let before = stripe.events("").len();
        let printed = cli.done(&["trigger", name]).await;
        assert!(printed.contains("Trigger succeeded!"), "{name}: {printed}");
        let made = stripe.events("").into_iter().skip(before);
        let types: Vec<Value> = made.map(|event| event["type"].clone()).collect();
        assert!(types.iter().any(|it| it == name), "{name} made only {types:?}");
    }
    let events = stripe.events("");
    listening.until("all answers", || stripe.forwarded().len() >= events.len()).await;

    let forwarded = stripe.forwarded();
    let wrong: Vec<_> = forwarded.iter().filter(|it| it.status != 200).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    assert!(forwarded.iter().all(|it| it.outcome == "RECORDED"), "{forwarded:?}");
    let sent: BTreeSet<&str> = events.iter().map(|event| event["id"].as_str().unwrap()).collect();
    let kept: Vec<String> =
        sqlx::query_scalar("SELECT id FROM tollgate.events").fetch_all(&app.pool).await.unwrap();
    assert_eq!(kept.len(), sent.len());
    assert_eq!(kept.iter().map(String::as_str).collect::<BTreeSet<_>>(), sent);
    the_tables_are_as_the_events_say(&app, &events).await;
}

/// Events of one object share a second here more often than not, and come in any order.
async fn the_tables_are_as_the_events_say(app: &App, events: &[Value]) {
    let mut last: BTreeMap<(&'static str, &str), &Value> = BTreeMap::new();
    for event in events {
        let object = &event["data"]["object"];
        let table = Kind::of(object["object"].as_str().unwrap()).table;
        last.insert((table, object["id"].as_str().unwrap()), event);
    }
    let mut tables = BTreeSet::new();
    for ((table, id), event) in last {
        let sql = format!("SELECT object, deleted FROM stripe.{table} WHERE id = $1");
        let rows: Vec<(Value, bool)> =
            sqlx::query_as(AssertSqlSafe(sql)).bind(id).fetch_all(&app.pool).await.unwrap();
        let [(object, deleted)] = &rows[..] else { panic!("{id} has rows {rows:?}") };
        assert_eq!(object, &event["data"]["object"], "{table} after {}", event["type"]);
        // A subscription that was cancelled is there still.
        let gone =
            event["type"].as_str().unwrap().ends_with(".deleted") && table != "subscriptions";
        assert_eq!(*deleted, gone, "{table} after {}", event["type"]);
        tables.insert(table);
    }
    assert!(tables.len() >= 16, "{tables:?}");
    for (sql, wanted) in [
        ("SELECT count(*) FROM stripe.subscriptions WHERE status = 'canceled'", 1),
        ("SELECT count(*) FROM stripe.subscriptions WHERE status = 'trialing'", 1),
        ("SELECT count(*) FROM stripe.active_subscriptions", 3),
        ("SELECT count(*) FROM stripe.invoices WHERE status = 'paid' AND paid AND total > 0", 4),
        ("SELECT count(*) FROM stripe.invoices WHERE status IN ('void', 'uncollectible')", 2),
        ("SELECT count(*) FROM stripe.charges WHERE refunded AND amount_refunded = amount", 1),
        ("SELECT count(*) FROM stripe.payment_intents WHERE last_error_code = 'card_declined'", 2),
        ("SELECT count(*) FROM stripe.checkout_sessions WHERE payment_status = 'paid'", 1),
    ] {
        assert_eq!(app.count(sql).await, wanted, "{sql}");
    }
}
