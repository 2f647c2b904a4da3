//! One event, one row, one notification, however often and however concurrently it comes.

use std::time::Duration;

use sqlx::postgres::PgListener;

use crate::support::wire::{Wire, delivery};
use crate::support::{App, event, sign};

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_identical_deliveries_at_once() {
    let app = App::spawn().await;
    let mut listener = PgListener::connect_with(&app.pool).await.unwrap();
    listener.listen("tollgate_events").await.unwrap();
    let body = event("evt_1").into_bytes();
    let request = delivery("/webhooks/stripe", &sign(&body), &body);
    let lanes: Vec<_> = (0..128)
        .map(|lane| {
            let (request, address) = (request.clone(), app.address);
            let share = if lane < 1000 % 128 { 1000 / 128 + 1 } else { 1000 / 128 };
            tokio::spawn(async move {
                let mut wire = Wire::connect(address).await.unwrap();
                let mut recorded = 0;
                for _ in 0..share {
                    wire.send(&request).await.unwrap();
                    let answer = wire.answer().await.unwrap();
                    assert_eq!(answer.status, 200);
                    recorded += usize::from(answer.head.contains("x-event-status: recorded"));
                }
                (share, recorded)
            })
        })
        .collect();
    let (mut sent, mut recorded) = (0, 0);
    for lane in lanes {
        let (share, told) = lane.await.unwrap();
        sent += share;
        recorded += told;
    }
    assert_eq!((sent, recorded), (1000, 1));
    assert_eq!(app.events().await, 1);
    let first = listener.recv().await.unwrap();
    assert!(first.payload().contains("\"id\":\"evt_1\""));
    let second = tokio::time::timeout(Duration::from_millis(300), listener.recv()).await;
    assert!(second.is_err(), "a second notification: {second:?}");
}

#[tokio::test]
async fn two_gateways_on_one_database_agree() {
    let one = App::spawn().await;
    let other = App::spawn_on(&one.database_url, &[]).await;
    for n in 0..50 {
        let body = event(&format!("evt_{n}"));
        let (a, b) = tokio::join!(one.deliver(&body), other.deliver(&body));
        let mut words = [a.word(), b.word()];
        words.sort();
        assert_eq!(words, ["duplicate", "recorded"]);
    }
    assert_eq!(one.events().await, 50);
}

#[tokio::test]
async fn of_two_renderings_the_later_is_kept_whichever_comes_first() {
    for tables in ["false", "true"] {
        let app = App::spawn_with(&[("billing_tables", tables)]).await;
        let versions = ["2020-08-27", "2024-10-28.acacia"];
        for (id, versions) in [("evt_up", versions), ("evt_down", [versions[1], versions[0]])] {
            for (version, word) in versions.iter().zip(["recorded", "duplicate"]) {
                let body = event(id).replace("2025-03-31.basil", version);
                assert_eq!(app.deliver(body).await.word(), word);
            }
        }
        let kept: Vec<(String, bool)> = sqlx::query_as(
            "SELECT api_version, raw LIKE '%2024-10-28.acacia%' FROM tollgate.event_log",
        )
        .fetch_all(&app.pool)
        .await
        .unwrap();
        assert_eq!(kept, vec![("2024-10-28.acacia".to_owned(), true); 2], "tables: {tables}");
        assert_eq!(app.count("SELECT count(*) FROM tollgate.positions").await, 2);
    }
}

#[tokio::test]
async fn a_notification_says_what_was_committed_and_always_fits() {
    let app = App::spawn().await;
    let mut listener = PgListener::connect_with(&app.pool).await.unwrap();
    listener.listen("tollgate_events").await.unwrap();
    let body = r#"{"id":"evt_1","type":"invoice.paid","created":1700000000,"livemode":true,"account":"acct_1",
        "data":{"object":{"id":"in_1","object":"invoice"}}}"#;
    assert_eq!(app.deliver(body).await.word(), "recorded");
    assert_eq!(
        listener.recv().await.unwrap().payload(),
        r#"{"position":1,"id":"evt_1","type":"invoice.paid","object":"in_1","account":"acct_1","livemode":true,"created":1700000000}"#
    );
    let worst = "\\u0001".repeat(255);
    let body = format!(
        r#"{{"id":"{worst}","type":"{worst}","account":"{worst}","data":{{"object":{{"id":"{worst}"}}}}}}"#
    );
    assert_eq!(app.deliver(body).await.word(), "recorded");
    let payload = listener.recv().await.unwrap().payload().to_owned();
    assert!(payload.len() < 7999, "{} bytes", payload.len());
    serde_json::from_str::<serde_json::Value>(&payload).unwrap();
}

#[tokio::test]
async fn notifications_can_be_one_per_batch_or_none() {
    let app = App::spawn_with(&[("notify", "batch")]).await;
    let silent = App::spawn_on(&app.database_url, &[("notify", "off")]).await;
    let mut listener = PgListener::connect_with(&app.pool).await.unwrap();
    listener.listen("tollgate_events").await.unwrap();
    silent.deliver(event("evt_1")).await;
    app.deliver(event("evt_2")).await;
    assert_eq!(listener.recv().await.unwrap().payload(), r#"{"position" : 2, "events" : 1}"#);
}
