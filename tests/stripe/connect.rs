//! Platform and connected accounts side by side, live and test: nothing mixes.

use serde_json::json;
use tollgate::stripe::signature::SigningSecret;

use crate::support::{App, SECRET, now};

const CONNECT_SECRET: &str = "whsec_of_the_connect_endpoint";
const LIVE_SECRET: &str = "whsec_of_the_live_endpoint";

fn coupon(account: Option<&str>, livemode: bool, percent: i64) -> String {
    json!({
        "id": format!("evt_{}_{livemode}", account.unwrap_or("platform")),
        "object": "event",
        "type": "coupon.created",
        "account": account,
        "created": now(),
        "livemode": livemode,
        "api_version": "2025-09-30.clover",
        "data": {"object": {
            "id": "WELCOME", "object": "coupon", "created": 1_700_000_000, "percent_off": percent,
            "livemode": livemode, "valid": true,
        }},
    })
    .to_string()
}

async fn deliver(app: &App, path: &str, secret: &str, body: String) -> String {
    let signature = secret.parse::<SigningSecret>().unwrap().sign(now(), body.as_bytes());
    let answer = app
        .request("POST", path, |request| request.header("Stripe-Signature", signature).body(body));
    answer.await.word()
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_that_share_a_coupon_id_have_rows_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("tollgate.toml");
    let endpoints = format!(
        "[endpoints.connect]\nsecrets = [\"{CONNECT_SECRET}\"]\n\
         [endpoints.live]\nsecrets = [\"{LIVE_SECRET}\"]\nlivemode = \"live\"\n"
    );
    std::fs::write(&config, endpoints).unwrap();
    let app = App::spawn_configured(&config).await;
    let (platform, connect, live) =
        ("/webhooks/stripe", "/webhooks/stripe/connect", "/webhooks/stripe/live");
    for (path, secret, account, livemode, percent) in [
        (platform, SECRET, None, true, 10),
        (platform, SECRET, None, false, 20),
        (connect, CONNECT_SECRET, Some("acct_1"), true, 30),
        // A live Connect endpoint also gets test events.
        (connect, CONNECT_SECRET, Some("acct_2"), false, 40),
    ] {
        let body = coupon(account, livemode, percent);
        assert_eq!(deliver(&app, path, secret, body).await, "recorded");
    }
    let rows: Vec<String> = sqlx::query_scalar(
        "SELECT concat_ws(' ', nullif(account, ''), livemode::text, percent_off) FROM stripe.coupons
         WHERE id = 'WELCOME' ORDER BY percent_off",
    )
    .fetch_all(&app.pool)
    .await
    .unwrap();
    assert_eq!(rows, ["true 10", "false 20", "acct_1 true 30", "acct_2 false 40"]);
    let endpoints: Vec<String> = sqlx::query_scalar(
        "SELECT endpoint || ' ' || account FROM tollgate.events ORDER BY position",
    )
    .fetch_all(&app.pool)
    .await
    .unwrap();
    assert_eq!(endpoints, ["default ", "default ", "connect acct_1", "connect acct_2"]);

    // A secret opens its own endpoint only, and a rule keeps out what it names.
    let stranger = coupon(Some("acct_3"), true, 50);
    assert_eq!(deliver(&app, connect, SECRET, stranger).await, "signature_mismatch");
    let test = coupon(Some("acct_3"), false, 60);
    assert_eq!(deliver(&app, live, LIVE_SECRET, test).await, "quarantined");
    assert_eq!(app.count("SELECT count(*) FROM stripe.coupons").await, 4);
    let kept = "SELECT count(*) FROM tollgate.quarantine WHERE reason = 'wrong_livemode'";
    assert_eq!(app.count(kept).await, 1);
    app.stop().await;
}
