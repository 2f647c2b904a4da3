//! What goes wrong with the fake, on request.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::client;
use crate::support::stripe::{API_KEY, FakeStripe, Fault};
use crate::{get, ids};

async fn plain(stripe: &FakeStripe, path: &str) -> reqwest::Result<reqwest::Response> {
    client().get(format!("{}{path}", stripe.base())).bearer_auth(API_KEY).send().await
}

async fn with_customers(number: usize) -> FakeStripe {
    let stripe = FakeStripe::start().await;
    for at in 0..number {
        stripe.put("", json!({ "id": format!("cus_{at}"), "object": "customer", "created": at }));
    }
    stripe
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_happen_as_often_as_asked() {
    let stripe = with_customers(1).await;
    stripe.fail("/v1/customers", 2, Fault::Status(503));
    stripe.fail("/v1/customers", 1, Fault::RateLimited { retry_after: Some(3) });
    stripe.fail("/v1/customers", 1, Fault::WrongMode);
    assert_eq!(get(&stripe, "/v1/balance").await.0, 200, "another path");
    for status in [503, 503] {
        assert_eq!(get(&stripe, "/v1/customers/cus_0").await.0, status);
    }
    let limited = plain(&stripe, "/v1/customers").await.unwrap();
    assert_eq!(
        (limited.status().as_u16(), &limited.headers()["retry-after"]),
        (429, &"3".parse().unwrap())
    );
    let (status, body) = get(&stripe, "/v1/customers").await;
    assert_eq!(status, 401);
    assert!(body["error"]["message"].as_str().unwrap().contains("in live mode"), "{body}");
    assert_eq!(get(&stripe, "/v1/customers").await.0, 200);

    stripe.fail("/", usize::MAX, Fault::Html);
    for _ in 0..3 {
        let page = plain(&stripe, "/v1/customers").await.unwrap();
        assert!(page.headers()["content-type"].to_str().unwrap().starts_with("text/html"));
        assert_eq!(page.status().as_u16(), 200);
    }
    stripe.mend();
    stripe.fail("/", 1, Fault::NotJson);
    let text = plain(&stripe, "/v1/customers").await.unwrap().text().await.unwrap();
    assert!(serde_json::from_str::<serde_json::Value>(&text).is_err(), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_hang_and_break() {
    let stripe = with_customers(1).await;
    stripe.fail("/", 1, Fault::Hang(Duration::from_millis(300)));
    let before = Instant::now();
    assert_eq!(get(&stripe, "/v1/customers").await.0, 200);
    assert!(before.elapsed() >= Duration::from_millis(300));
    stripe.fail("/", 2, Fault::Reset);
    for _ in 0..2 {
        let answer = plain(&stripe, "/v1/customers").await;
        let broken = match answer {
            Err(error) => error,
            Ok(answer) => answer.text().await.expect_err("a broken answer"),
        };
        assert!(format!("{broken:?}").contains("reset"), "{broken:?}");
    }
    assert_eq!(get(&stripe, "/v1/customers").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_can_repeat_for_ever() {
    let stripe = with_customers(15).await;
    stripe.fail("/v1/customers", usize::MAX, Fault::RepeatPage);
    let (_, first) = get(&stripe, "/v1/customers").await;
    let (_, second) = get(&stripe, "/v1/customers?starting_after=cus_5").await;
    assert_eq!((&first, &first["has_more"]), (&second, &json!(true)));
}

#[tokio::test(flavor = "multi_thread")]
async fn things_happen_between_pages() {
    let stripe = with_customers(3).await;
    stripe.on_page(|stripe, asked| {
        let at = stripe.requests().len();
        assert_eq!(asked.path, "/v1/customers");
        stripe
            .put("", json!({ "id": format!("cus_new_{at}"), "object": "customer", "created": 9 }));
    });
    assert_eq!(ids(&get(&stripe, "/v1/customers?limit=1").await.1), ["cus_new_1"]);
    let (_, rest) = get(&stripe, "/v1/customers?starting_after=cus_new_1").await;
    assert_eq!(ids(&rest), ["cus_2", "cus_1", "cus_0"], "the newer one is before the cursor");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_accounts_are_checked() {
    let stripe = with_customers(1).await;
    stripe.put("acct_1", json!({ "id": "cus_1", "object": "customer" }));
    let ask = async |key: &str, account: Option<&str>| {
        let mut request = client().get(format!("{}/v1/customers", stripe.base())).bearer_auth(key);
        if let Some(account) = account {
            request = request.header("Stripe-Account", account);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        (status, serde_json::from_str(&answer.text().await.unwrap()).unwrap())
    };
    assert_eq!(ids(&ask(API_KEY, Some("acct_1")).await.1), ["cus_1"]);
    assert_eq!(ids(&ask(API_KEY, None).await.1), ["cus_0"]);
    let (status, body): (u16, serde_json::Value) = ask(API_KEY, Some("acct_2")).await;
    assert_eq!((status, &body["error"]["code"]), (403, &json!("account_invalid")));
    stripe.add_account("acct_2");
    assert!(ids(&ask(API_KEY, Some("acct_2")).await.1).is_empty());
    assert_eq!(ids(&get(&stripe, "/v1/accounts").await.1), ["acct_2", "acct_1"]);
    stripe.disconnect_account("acct_1");
    assert_eq!(ask(API_KEY, Some("acct_1")).await.0, 403);

    let (status, body) = ask("sk_test_another", None).await;
    assert_eq!((status, &body["error"]["type"]), (401, &json!("invalid_request_error")));
    stripe.allow_key("sk_test_another");
    assert_eq!(ask("sk_test_another", None).await.0, 200);
    stripe.revoke_key(API_KEY);
    assert_eq!(ask(API_KEY, None).await.0, 401);
}
