//! Thin events, which show no object, are recorded like others, and the object is fetched.

use serde_json::{Value, json};
use tollgate::store::sync::thin;
use tollgate::sync::hydrate;

use crate::scene::{Scene, asking, spawn, until};
use crate::support::now;
use crate::support::stripe::Fault;

fn meter(name: &str) -> Value {
    json!({
        "id": "mtr_1", "object": "billing.meter", "created": 1_700_000_000, "livemode": false,
        "display_name": name,
    })
}

/// A thin event about it.
fn thin_event(id: &str, more: &Value) -> String {
    let mut event = json!({
        "id": id, "object": "v2.core.event", "type": "v1.billing.meter.error_report_triggered",
        "created": "2026-01-31T12:00:00.000Z", "livemode": false, "context": null,
        "related_object": {"id": "mtr_1", "type": "billing.meter", "url": "/v1/billing/meters/mtr_1"},
    });
    event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    event.to_string()
}

async fn scene() -> Scene {
    let scene = Scene::new().await;
    thin::make_consumer(&scene.context.pool, false).await.unwrap();
    scene
}

async fn deliver(scene: &Scene, event: &str) {
    assert_eq!(scene.app.deliver(event).await.word(), "recorded");
}

const NAMES: &str = "SELECT array_agg(account || (object ->> 'display_name')) FROM stripe.objects WHERE object_type = 'billing.meter'";

#[tokio::test(flavor = "multi_thread")]
async fn the_object_of_a_thin_event_is_fetched_into_its_table() {
    let scene = scene().await;
    scene.stripe.put("", meter("Calls"));
    deliver(&scene, &thin_event("evt_thin_1", &json!({}))).await;
    assert_eq!(hydrate::run_once(&scene.context).await.unwrap(), 1);
    assert_eq!(scene.value(NAMES).await, json!(["Calls"]));
    assert_eq!(hydrate::run_once(&scene.context).await.unwrap(), 0);
    // Delivered again, it is a duplicate and asks for nothing.
    scene.stripe.forget_requests();
    let again = scene.app.deliver(thin_event("evt_thin_1", &json!({}))).await;
    assert_eq!(again.word(), "duplicate");
    assert_eq!(hydrate::run_once(&scene.context).await.unwrap(), 0);
    assert_eq!(scene.stripe.requests().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_context_of_a_thin_event_is_the_account_that_is_asked() {
    let scene = scene().await;
    scene.stripe.put("acct_1", meter("Theirs"));
    scene.stripe.put("", meter("Ours"));
    deliver(&scene, &thin_event("evt_thin_1", &json!({"context": "acct_1"}))).await;
    hydrate::run_once(&scene.context).await.unwrap();
    assert_eq!(scene.value(NAMES).await, json!(["acct_1Theirs"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_fetched_that_another_event_shows() {
    let scene = scene().await;
    scene.stripe.put("", meter("Fetched"));
    let twin = json!({
        "id": "evt_twin", "object": "event", "type": "billing.meter.updated", "created": now(),
        "livemode": false, "data": {"object": meter("Shown")},
    });
    let with_twin = |id: &str| {
        let created = time::OffsetDateTime::from_unix_timestamp(now()).unwrap();
        let created = created.format(&time::format_description::well_known::Rfc3339).unwrap();
        thin_event(id, &json!({"snapshot_event": "evt_twin", "created": created}))
    };
    // Its twin is not there yet: it may be on its way.
    deliver(&scene, &with_twin("evt_thin_1")).await;
    assert_eq!(hydrate::run_once(&scene.context).await.unwrap(), 1);
    assert_eq!(scene.stripe.requests().len(), 0);
    deliver(&scene, &twin.to_string()).await;
    let due = "UPDATE tollgate.deliveries SET next_attempt = now()";
    sqlx::query(due).execute(&scene.app.pool).await.unwrap();
    deliver(&scene, &with_twin("evt_thin_2")).await;
    while hydrate::run_once(&scene.context).await.unwrap() > 0 {}
    assert_eq!(scene.stripe.requests().len(), 0);
    assert_eq!(scene.value(NAMES).await, json!(["Shown"]));
    assert_eq!(scene.app.count("SELECT count(*) FROM tollgate.deliveries").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_fetched_now_is_kept_and_tried_again() {
    let scene = scene().await;
    scene.stripe.put("", meter("Calls"));
    scene.stripe.fail("/v1/billing", 1, Fault::Status(403));
    deliver(&scene, &thin_event("evt_thin_1", &json!({}))).await;
    assert_eq!(hydrate::run_once(&scene.context).await.unwrap(), 1);
    let why = "SELECT error FROM tollgate.deliveries WHERE state = 'waiting'";
    assert!(scene.value(why).await.as_str().unwrap().contains("403"));
    let due = "UPDATE tollgate.deliveries SET next_attempt = now()";
    sqlx::query(due).execute(&scene.app.pool).await.unwrap();
    assert_eq!(hydrate::run_once(&scene.context).await.unwrap(), 1);
    assert_eq!(scene.value(NAMES).await, json!(["Calls"]));
    // Nothing to be had: no object, another mode, gone.
    for (id, more) in [
        ("evt_none", json!({"related_object": null})),
        ("evt_live", json!({"livemode": true})),
        (
            "evt_gone",
            json!({"related_object": {"id": "mtr_2", "type": "billing.meter", "url": "/v1/billing/meters/mtr_2"}}),
        ),
        (
            "evt_odd",
            json!({"related_object": {"id": "x", "type": "y", "url": "https://elsewhere.example/x"}}),
        ),
    ] {
        deliver(&scene, &thin_event(id, &more)).await;
    }
    while hydrate::run_once(&scene.context).await.unwrap() > 0 {}
    assert_eq!(scene.app.count("SELECT count(*) FROM tollgate.deliveries").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_stripe_is_away_thin_events_wait() {
    let scene = scene().await;
    scene.stripe.put("", meter("Calls"));
    for n in 0..5 {
        deliver(&scene, &thin_event(&format!("evt_thin_{n}"), &json!({}))).await;
    }
    scene.stripe.fail("/v1/", usize::MAX, Fault::Status(401));
    let error = hydrate::run_once(&scene.context).await.unwrap_err();
    assert!(error.to_string().contains("401"), "{error}");
    // One was asked for; all wait, in the end for so long that their attempts last for weeks.
    assert_eq!(scene.stripe.requests().len(), 1);
    let due = "UPDATE tollgate.deliveries SET next_attempt = now()";
    for _ in 0..11 {
        sqlx::query(due).execute(&scene.app.pool).await.unwrap();
        hydrate::run_once(&scene.context).await.unwrap_err();
    }
    let waiting = "SELECT count(*) FROM tollgate.deliveries
                   WHERE state = 'waiting' AND next_attempt > now() + interval '40 minutes'";
    assert_eq!(scene.app.count(waiting).await, 5);
    scene.stripe.mend();
    sqlx::query(due).execute(&scene.app.pool).await.unwrap();
    assert_eq!(hydrate::run_once(&scene.context).await.unwrap(), 5);
    assert_eq!(scene.app.count("SELECT count(*) FROM tollgate.deliveries").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_with_a_key_does_so_by_itself() {
    let scene = Scene::new().await;
    scene.stripe.put("", meter("Calls"));
    deliver(&scene, &thin_event("evt_thin_1", &json!({}))).await;
    let gateway = spawn(&scene.app.database_url, &asking(&scene.stripe)).await;
    until("the object is there", async || scene.value(NAMES).await == json!(["Calls"])).await;
    gateway.stop().await;
}
