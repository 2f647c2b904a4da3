//! What Stripe's command line forwards to a real gateway: sent again, in bursts, with the wrong
//! secret, as thin events. What it triggers is in `triggered`.

use std::collections::BTreeSet;

use serde_json::json;

use crate::cli::Cli;
use crate::support::stripe::{FakeStripe, LISTEN_SECRET};
use crate::support::{App, now, process};

/// A gateway that is given the secret of `stripe listen --print-secret`.
pub async fn gateway() -> App {
    App::spawn_with(&[("stripe_webhook_secret", LISTEN_SECRET)]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_secret_is_printed_and_nothing_else() {
    let stripe = FakeStripe::start().await;
    let Some(cli) = Cli::of(&stripe) else { return };
    assert_eq!(cli.done(&["listen", "--print-secret"]).await, format!("{LISTEN_SECRET}\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_to_forward_must_be_said() {
    let stripe = FakeStripe::start().await;
    let Some(cli) = Cli::of(&stripe) else { return };
    let to = ["listen", "--skip-update", "--forward-to", "http://127.0.0.1:9/webhooks/stripe"];
    let (code, text) = cli.run(&to).await;
    assert_ne!(code, Some(0));
    assert!(
        text.contains("must specify events to forward using --events, --all-snapshot"),
        "{text}"
    );
    let (code, text) = cli.run(&[&to[..], &["--all-snapshot", "--all-thin"]].concat()).await;
    assert_ne!(code, Some(0));
    assert!(text.contains("cannot forward both snapshot and thin events"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_again_is_a_duplicate() {
    let stripe = FakeStripe::start().await;
    let Some(cli) = Cli::of(&stripe) else { return };
    let app = gateway().await;
    let url = app.url("/webhooks/stripe");
    let listening = cli.listen(&["--all-snapshot", "--forward-to", &url]).await;
    cli.done(&["trigger", "customer.created"]).await;
    listening.until("the first", || stripe.forwarded().len() == 1).await;
    let event = stripe.events("")[0]["id"].as_str().unwrap().to_owned();
    for time in 2..=4 {
        let printed = cli.done(&["events", "resend", &event]).await;
        assert!(printed.contains(&event), "{printed}");
        listening.until("one more", || stripe.forwarded().len() == time).await;
    }
    let answers: Vec<_> =
        stripe.forwarded().into_iter().map(|it| (it.status, it.outcome)).collect();
    let wanted = ["RECORDED", "DUPLICATE", "DUPLICATE", "DUPLICATE"];
    assert_eq!(answers, wanted.map(|outcome| (200, outcome.to_owned())));
    assert_eq!(app.events().await, 1);
    assert_eq!(app.count("SELECT count(*) FROM tollgate.positions").await, 1);
    assert_eq!(app.count("SELECT count(*) FROM stripe.customers").await, 1);
    let retries = stripe.requests().into_iter().filter(|it| it.path.ends_with("/retry"));
    assert!(retries.map(|it| it.body).eq(["for_stripecli=true"; 3]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_arrives_whole() {
    const BURST: usize = 200;
    let stripe = FakeStripe::start().await;
    let Some(cli) = Cli::of(&stripe) else { return };
    let app = gateway().await;
    let url = app.url("/webhooks/stripe");
    let listening = cli.listen(&["--all-snapshot", "--forward-to", &url]).await;
    let ids: BTreeSet<String> = (0..BURST).map(|at| format!("evt_burst_{at}")).collect();
    for id in &ids {
        let customer = json!({ "id": format!("cus_{id}"), "object": "customer", "created": now() });
        stripe.emit(
            "",
            json!({
                "id": id, "object": "event", "api_version": "2025-03-31.basil", "created": now(),
                "data": { "object": customer }, "livemode": false, "pending_webhooks": 1,
                "request": { "id": null, "idempotency_key": null }, "type": "customer.created"
            }),
        );
    }
    listening.until("all of them", || stripe.forwarded().len() >= BURST).await;
    let forwarded = stripe.forwarded();
    let refused: Vec<_> = forwarded.iter().filter(|it| it.status != 200).collect();
    assert!(refused.is_empty(), "{refused:?}");
    assert!(forwarded.iter().map(|it| &it.event).eq_by_set(&ids), "{forwarded:?}");
    assert!(stripe.acknowledged().iter().eq_by_set(&ids));
    assert_eq!(app.count("SELECT count(DISTINCT id) FROM tollgate.events").await, 200);
    assert_eq!(app.events().await, 200);
    assert_eq!(app.count("SELECT count(*) FROM stripe.customers").await, 200);
}

/// Each once, in any order.
trait EqBySet {
    fn eq_by_set(self, wanted: &BTreeSet<String>) -> bool;
}

impl<'a, I: Iterator<Item = &'a String>> EqBySet for I {
    fn eq_by_set(self, wanted: &BTreeSet<String>) -> bool {
        let all: Vec<&String> = self.collect();
        all.len() == wanted.len() && all.into_iter().collect::<BTreeSet<_>>().into_iter().eq(wanted)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_another_secret_nothing_is_taken() {
    let stripe = FakeStripe::start().await;
    let Some(cli) = Cli::of(&stripe) else { return };
    let app = App::spawn().await;
    let url = app.url("/webhooks/stripe");
    let listening = cli.listen(&["--all-snapshot", "--forward-to", &url]).await;
    cli.done(&["trigger", "customer.created"]).await;
    let event = stripe.events("")[0]["id"].as_str().unwrap().to_owned();
    listening.until_it_says(&format!("<--  [400] POST {url} [{event}]")).await;
    assert_eq!(app.events().await + app.quarantined().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_gateway_the_listener_says_so_and_goes_on() {
    let stripe = FakeStripe::start().await;
    let Some(cli) = Cli::of(&stripe) else { return };
    let nobody = format!("http://{}/webhooks/stripe", process::free_address());
    let listening = cli.listen(&["--all-snapshot", "--forward-to", &nobody]).await;
    for _ in 0..2 {
        cli.done(&["trigger", "customer.created"]).await;
    }
    let failures = || listening.said().matches("[ERROR] Failed to POST").count();
    listening.until("two failures", || failures() == 2).await;
    assert!(listening.said().contains("connection refused"), "{}", listening.said());
}

#[tokio::test(flavor = "multi_thread")]
async fn connected_accounts_can_have_an_endpoint_of_their_own() {
    let stripe = FakeStripe::start().await;
    let Some(cli) = Cli::of(&stripe) else { return };
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("tollgate.toml");
    let endpoint = format!("[endpoints.connect]\nsecrets = [\"{LISTEN_SECRET}\"]\n");
    std::fs::write(&config, endpoint).unwrap();
    let app = App::spawn_configured(&config).await;
    let (own, theirs) = (app.url("/webhooks/stripe"), app.url("/webhooks/stripe/connect"));
    let flags = ["--all-snapshot", "--forward-to", &own, "--forward-connect-to", &theirs];
    let listening = cli.listen(&flags).await;
    stripe.add_account("acct_connected");
    cli.done(&["trigger", "product.created", "--stripe-account", "acct_connected"]).await;
    listening.until_it_says(&format!("<--  [200] POST {theirs}")).await;
    let account: String = sqlx::query_scalar("SELECT account FROM tollgate.events")
        .fetch_one(&app.pool)
        .await
        .unwrap();
    assert_eq!(account, "acct_connected");
}

#[tokio::test(flavor = "multi_thread")]
async fn thin_events_are_forwarded_too() {
    let stripe = FakeStripe::start().await;
    let Some(cli) = Cli::of(&stripe) else { return };
    let app = gateway().await;
    let url = app.url("/webhooks/stripe");
    let listening = cli.listen(&["--all-thin", "--forward-to", &url]).await;
    stripe.emit_thin(json!({
        "id": "evt_test_thin", "object": "v2.core.event", "created": "2026-01-02T03:04:05.678Z",
        "type": "v1.billing.meter.error_report_triggered", "livemode": false,
        "reason": { "type": "request", "request": { "id": "req_1", "idempotency_key": null } },
        "related_object": {
            "id": "mtr_1", "type": "billing.meter", "url": "/v1/billing/meters/mtr_1"
        }
    }));
    listening.until_it_says("<--  [200]").await;
    listening.until("its answer", || stripe.forwarded().len() == 1).await;
    assert_eq!(stripe.forwarded()[0].outcome, "RECORDED");
    let row: (String, String) =
        sqlx::query_as("SELECT id, type FROM tollgate.events").fetch_one(&app.pool).await.unwrap();
    assert_eq!(row.0, "evt_test_thin");
    assert_eq!(row.1, "v1.billing.meter.error_report_triggered");
}
