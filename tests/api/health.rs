//! Health and readiness, part by part.

use sqlx::Executor;

use crate::support::{App, event};

#[tokio::test]
async fn a_well_gateway_says_so_part_by_part() {
    let app = App::spawn().await;
    assert_eq!(app.request("GET", "/healthz", |request| request).await.json()["status"], "ok");
    assert_eq!(app.request("HEAD", "/healthz", |request| request).await.status, 200);
    let ready = app.request("GET", "/readyz", |request| request).await;
    assert_eq!(ready.status, 200);
    let json = ready.json();
    assert_eq!(json["status"], "ok");
    for part in ["database", "migrations", "intake_queue", "listener", "shutdown"] {
        assert_eq!(json[part]["status"], "ok", "{part}");
        assert!(
            json[part]["latency_ms"].is_number() && json[part]["message"].is_string(),
            "{part}"
        );
    }
}

#[tokio::test]
async fn a_schema_that_is_behind_is_not_ready() {
    let app = App::spawn().await;
    app.pool.execute("UPDATE tollgate.migrations SET version = version - 1000").await.unwrap();
    let ready = app.request("GET", "/readyz", |request| request).await;
    assert_eq!(ready.status, 503);
    assert_eq!(ready.json()["migrations"]["status"], "fail");
    assert_eq!(ready.json()["database"]["status"], "ok");
    assert_eq!(app.request("GET", "/healthz", |request| request).await.status, 200);
}

#[tokio::test]
async fn readiness_goes_first_and_deliveries_are_still_taken() {
    let app = App::spawn_with(&[("drain", "1500ms")]).await;
    let (address, pool) = (app.address, app.pool.clone());
    let stopping = tokio::spawn(app.stop());
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    let client = crate::support::client();
    let ready = client.get(format!("http://{address}/readyz")).send().await.unwrap();
    assert_eq!(ready.status(), 503);
    let body = event("evt_1");
    let delivery = client
        .post(format!("http://{address}/webhooks/stripe"))
        .header("stripe-signature", crate::support::sign(body.as_bytes()))
        .body(body)
        .send()
        .await
        .unwrap();
    assert_eq!(delivery.status(), 200);
    assert_eq!(delivery.headers()["connection"], "close");
    stopping.await.unwrap();
    let events: i64 =
        sqlx::query_scalar("SELECT count(*) FROM tollgate.events").fetch_one(&pool).await.unwrap();
    assert_eq!(events, 1);
}
