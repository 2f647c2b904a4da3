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
async fn writers_that_are_cut_off_are_not_ready() {
    let url = crate::support::postgres::fresh_database().await;
    let nowhere = "postgres://x:y@127.0.0.1:1/none";
    let settings = [("database_url", nowhere), ("database_direct_url", url.as_str())];
    let app = App::spawn_on(&url, &settings).await;
    let ready = app.request("GET", "/readyz", |request| request).await;
    assert_eq!((ready.status, &ready.json()["writers"]["status"]), (503, &"fail".into()));
    assert_eq!(ready.json()["database"]["status"], "ok");
}

/// Held up by a lock, as by a long migration.
#[tokio::test]
async fn who_knocks_during_a_long_start_is_told() {
    let url = crate::support::postgres::fresh_database().await;
    App::spawn_on(&url, &[]).await.stop().await;
    let pool = sqlx::PgPool::connect(&url).await.unwrap();
    let mut lock = pool.begin().await.unwrap();
    lock.execute("LOCK TABLE tollgate.migrations").await.unwrap();
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let client = crate::support::client();
    let get = |path: &str| client.get(format!("http://{address}{path}"));
    let deliver = async || {
        let body = event("evt_1");
        let signed = crate::support::sign(body.as_bytes());
        let post = client.post(format!("http://{address}/webhooks/stripe"));
        post.header("stripe-signature", signed).body(body).send().await.unwrap()
    };
    let knocking = async {
        while get("/healthz").send().await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        assert_eq!(get("/healthz").send().await.unwrap().status(), 200);
        assert_eq!(get("/readyz").send().await.unwrap().status(), 503);
        let early = deliver().await;
        assert!(early.headers().contains_key("x-request-id"));
        let again = &early.headers()["retry-after"];
        assert_eq!((early.status().as_u16(), again), (503, &"5".parse().unwrap()));
        lock.rollback().await.unwrap();
    };
    let listen = address.to_string();
    let settings = [("listen", listen.as_str())];
    let knocking = tokio::time::timeout(std::time::Duration::from_mins(1), knocking);
    let (app, knocked) = tokio::join!(App::spawn_on(&url, &settings), knocking);
    knocked.expect("answers within a minute");
    assert_eq!(deliver().await.status(), 200);
    app.stop().await;
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
