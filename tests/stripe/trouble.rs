//! Everything that can be wrong with Stripe's API or the key: a clear error, progress kept, nothing
//! lost, no hot loop.

use std::time::Duration;

use serde_json::Value;
use tollgate::sync::reconcile::{Scope, reconcile};

use crate::scene::{Scene, asking, command, customer, event_at, spawn, until};
use crate::support::now;
use crate::support::stripe::{API_KEY, Fault};

fn happen(scene: &Scene, id: &str) {
    let event = event_at("customer.created", &customer(id, "Jenny"), now());
    scene.stripe.emit("", serde_json::from_str(&event).unwrap());
}

/// Runs `tollgate reconcile`, which must fail; what it says.
async fn failure(scene: &Scene) -> String {
    let output = scene.tollgate(&["reconcile"]).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b""[..]), "{said}");
    assert!(!said.contains(API_KEY), "{said}");
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_say_what_is_wrong_and_keep_what_was_done() {
    let scene = Scene::new().await;
    (0..150).for_each(|n| happen(&scene, &format!("cus_{n}")));
    for (fault, words) in [
        (Fault::Status(401), "Stripe does not know the API key, or it was revoked: 401"),
        (Fault::Status(403), "the API key may not do this"),
        (Fault::Status(400), "Stripe refused the request: 400"),
        (Fault::WrongMode, "401"),
        (Fault::Html, "the body is not a JSON object"),
        (Fault::NotJson, "the body is not a JSON object"),
        (Fault::Status(500), "did not answer usably, in 5 attempts: 500"),
        (Fault::Reset, "did not answer usably, in 5 attempts: no answer"),
        (Fault::RateLimited { retry_after: Some(3600) }, "in 1 attempts: 429"),
    ] {
        scene.stripe.fail("/v1/events", usize::MAX, fault.clone());
        let said = failure(&scene).await;
        assert!(said.contains(words), "{fault:?}: {said}");
        let kept = scene.value("SELECT error FROM tollgate.reconciliations").await;
        assert!(kept.as_str().unwrap().contains(words), "{fault:?}: {kept}");
        scene.stripe.mend();
    }
    // Stripe said that it is too much for an hour: nobody asks for the next minutes, also no other process.
    let held = "SELECT count(*) FROM tollgate.api_budget WHERE tokens < -1000";
    assert_eq!(scene.app.count(held).await, 1);
    let resume = "UPDATE tollgate.api_budget SET tokens = 1";
    sqlx::query(resume).execute(&scene.app.pool).await.unwrap();
    assert_eq!(scene.app.events().await, 0);
    // On the second page: what was listed before it is not lost, nor skipped by the next run.
    let broken = std::sync::atomic::AtomicBool::new(false);
    scene.stripe.on_page(move |stripe, asked| {
        let first = asked.parameter("starting_after").is_none();
        if first && !broken.swap(true, std::sync::atomic::Ordering::Relaxed) {
            stripe.fail("/v1/events", 5, Fault::Status(502));
        }
    });
    assert!(failure(&scene).await.contains("502"));
    scene.stripe.fail("/v1/events", 1, Fault::RateLimited { retry_after: None });
    let reports = reconcile(&scene.context, &Scope::default()).await.unwrap();
    assert_eq!((reports[0].events(), scene.app.events().await), (150, 150));
    assert_eq!(scene.value("SELECT error FROM tollgate.reconciliations").await, Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_goes_round_is_left() {
    let scene = Scene::new().await;
    (0..150).for_each(|n| happen(&scene, &format!("cus_{n}")));
    scene.stripe.fail("/v1/events", usize::MAX, Fault::RepeatPage);
    let said = failure(&scene).await;
    assert!(said.contains("does not end: the same page came again"), "{said}");
    assert!(scene.stripe.requests().len() < 5);
    scene.stripe.mend();
    let reports = reconcile(&scene.context, &Scope::default()).await.unwrap();
    // What of it was written before is not missing any more.
    assert_eq!(scene.app.events().await, 150);
    assert!(reports[0].events() <= 150);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_none_is_told_before_anything_is_asked() {
    let scene = Scene::new().await;
    for (key, words) in [
        ("pk_test_abcdefgh", "publishable key"),
        ("whsec_abcdefgh", "signing secret"),
        ("short", "expected a secret or restricted key"),
    ] {
        let mut command = command(&scene.stripe, &scene.app.database_url, &["reconcile"]);
        let output = command.env("STRIPE_API_KEY", key).output().await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(words) && !said.contains(key), "{said}");
    }
    let mut command = command(&scene.stripe, &scene.app.database_url, &["reconcile"]);
    let output = command.env_remove("STRIPE_API_KEY").output().await.unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no API key is set"));
    assert_eq!(scene.stripe.requests().len(), 0);
    scene.stripe.revoke_key(API_KEY);
    assert!(failure(&scene).await.contains("Stripe does not know the API key"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_is_down_is_asked_now_and_then_and_caught_up_with() {
    let scene = Scene::new().await;
    let mut settings = asking(&scene.stripe);
    settings.retain(|(key, _)| *key != "reconcile_interval");
    settings.push(("reconcile_interval", "2s".to_owned()));
    scene.stripe.fail("/v1/", usize::MAX, Fault::Status(503));
    let gateway = spawn(&scene.app.database_url, &settings).await;
    happen(&scene, "cus_1");
    let failed = "SELECT count(*) FROM tollgate.reconciliations WHERE failed_at IS NOT NULL";
    until("a run has failed", async || scene.app.count(failed).await == 1).await;
    scene.stripe.forget_requests();
    tokio::time::sleep(Duration::from_secs(8)).await;
    // Five attempts, with 7.5 s between them, and 2 s between runs.
    let asked = scene.stripe.requests().len();
    assert!((1..=9).contains(&asked), "{asked} requests in 8 s");
    scene.stripe.mend();
    until("it is caught up with", async || scene.app.events().await == 1).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_differ_lose_nothing() {
    for skew in [-3600, 3600] {
        let scene = Scene::new().await;
        scene.stripe.set_skew(skew);
        let happen_then = |id: &str| {
            // By Stripe's clock, as everything of Stripe's.
            let event = event_at("customer.updated", &customer(id, "Event"), now() + skew);
            scene.stripe.emit("", serde_json::from_str(&event).unwrap());
            event
        };
        happen_then("cus_1");
        let since = time::OffsetDateTime::UNIX_EPOCH;
        let all = Scope { since: Some(since), ..Scope::default() };
        reconcile(&scene.context, &all).await.unwrap();
        happen_then("cus_2");
        reconcile(&scene.context, &Scope::default()).await.unwrap();
        assert_eq!(scene.app.events().await, 2, "skew {skew}");
        // What is looked up counts as of Stripe's clock: an event after it is newer.
        scene.stripe.put("", customer("cus_3", "Looked up"));
        let done = scene.tollgate(&["backfill", "--only", "customers"]).await;
        assert!(done.status.success(), "{done:?}");
        let event = event_at("customer.updated", &customer("cus_3", "Event"), now() + skew + 1);
        assert_eq!(scene.app.deliver(event).await.status, 200);
        let name = "SELECT name FROM stripe.customers WHERE id = 'cus_3'";
        assert_eq!(scene.value(name).await, "Event", "skew {skew}");
    }
}
