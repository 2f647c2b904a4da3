//! Requests that no client library would send: framing, slowness, floods.

use std::time::{Duration, Instant};

use crate::support::wire::{Wire, delivery};
use crate::support::{App, event, sign};

fn signed(id: &str) -> Vec<u8> {
    let body = event(id).into_bytes();
    delivery("/webhooks/stripe", &sign(&body), &body)
}

async fn connect(app: &App) -> Wire {
    Wire::connect(app.address).await.unwrap()
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let app = App::spawn().await;
    let mut wire = connect(&app).await;
    let requests: Vec<u8> = (0..20).flat_map(|n| signed(&format!("evt_{}", n / 2))).collect();
    wire.send(&requests).await.unwrap();
    for n in 0..20 {
        let answer = wire.answer().await.unwrap();
        assert_eq!(answer.status, 200);
        let status = if n % 2 == 0 { "recorded" } else { "duplicate" };
        assert_eq!(
            answer.body,
            format!(r#"{{"received":true,"status":"{status}","event":"evt_{}"}}"#, n / 2)
        );
    }
    assert_eq!(app.events().await, 10);
}

#[tokio::test]
async fn a_chunked_body_is_put_together() {
    let app = App::spawn().await;
    let body = event("evt_1").into_bytes();
    let mut request = format!(
        "POST /webhooks/stripe HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nStripe-Signature: {}\r\n\r\n",
        sign(&body)
    )
    .into_bytes();
    for chunk in body.chunks(7) {
        request.extend_from_slice(format!("{:x};ext=1\r\n", chunk.len()).as_bytes());
        request.extend_from_slice(chunk);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"0\r\n\r\n");
    let mut wire = connect(&app).await;
    wire.send(&request).await.unwrap();
    assert_eq!(wire.answer().await.unwrap().status, 200);
    assert_eq!(app.events().await, 1);
}

#[tokio::test]
async fn a_chunked_body_over_the_limit_is_refused() {
    let app = App::spawn_with(&[("max_body", "10KiB")]).await;
    let mut wire = connect(&app).await;
    let head = "POST /webhooks/stripe HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nStripe-Signature: t=1,v1=0\r\n\r\n";
    let chunk = format!("{:x}\r\n{}\r\n", 20_000, "x".repeat(20_000));
    wire.send(format!("{head}{chunk}0\r\n\r\n").as_bytes()).await.unwrap();
    let answer = wire.answer().await.unwrap();
    assert_eq!((answer.status, answer.close), (413, true));
}

#[tokio::test]
async fn ambiguous_framing_is_refused() {
    let app = App::spawn().await;
    let body = event("evt_1");
    let (length, signature) = (body.len(), sign(body.as_bytes()));
    for framing in [
        format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n"),
        format!("Content-Length: {length}\r\nContent-Length: {}\r\n", length - 1),
        format!("Content-Length: +{length}\r\n"),
        "Content-Length: -1\r\n".to_owned(),
        "Transfer-Encoding: gzip, chunked\r\n".to_owned(),
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n".to_owned(),
    ] {
        let mut wire = connect(&app).await;
        let head = format!(
            "POST /webhooks/stripe HTTP/1.1\r\nHost: x\r\nStripe-Signature: {signature}\r\n{framing}\r\n"
        );
        wire.send(format!("{head}{body}").as_bytes()).await.unwrap();
        assert_eq!(wire.answer().await.unwrap().status, 400, "{framing}");
    }
    assert_eq!((app.events().await, app.quarantined().await), (0, 0));
}

#[tokio::test]
async fn garbage_and_a_thousand_headers_are_client_errors() {
    let app = App::spawn().await;
    let many = "X-Header: value\r\n".repeat(1000);
    for request in [
        format!("POST /webhooks/stripe HTTP/1.1\r\nHost: x\r\n{many}\r\n"),
        "\0\0\0\0 garbage \r\n\r\n".to_owned(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(200_000)),
    ] {
        let mut wire = connect(&app).await;
        wire.send(request.as_bytes()).await.unwrap();
        let answer = wire.answer().await.unwrap();
        assert!((400..500).contains(&answer.status), "{answer:?}");
    }
    // And the gateway goes on.
    assert_eq!(app.deliver(event("evt_1")).await.word(), "recorded");
}

#[tokio::test]
async fn a_body_that_stops_half_way_is_given_up() {
    let app = App::spawn_with(&[("body_timeout", "300ms")]).await;
    let request = signed("evt_1");
    let mut wire = connect(&app).await;
    let start = Instant::now();
    wire.send(&request[..request.len() - 10]).await.unwrap();
    let answer = wire.answer().await.unwrap();
    assert_eq!((answer.status, answer.close), (408, true));
    assert!(answer.body.contains("body_timeout"));
    assert!(start.elapsed() < Duration::from_secs(3));
    assert_eq!(app.events().await, 0);
}

#[tokio::test]
async fn a_body_that_trickles_is_given_up() {
    let app = App::spawn_with(&[("body_timeout", "500ms")]).await;
    let request = signed("evt_1");
    let mut wire = connect(&app).await;
    let head = request.len() - 100;
    wire.send(&request[..head]).await.unwrap();
    for byte in &request[head..] {
        if wire.send(&[*byte]).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(wire.answer().await.unwrap().status, 408);
}

#[tokio::test]
async fn a_body_cut_off_leaves_nothing() {
    let app = App::spawn().await;
    let request = signed("evt_1");
    let mut wire = connect(&app).await;
    wire.send(&request[..request.len() - 1]).await.unwrap();
    wire.finish().await.unwrap();
    if let Ok(answer) = wire.answer().await {
        assert_eq!(answer.status, 400);
    }
    assert_eq!((app.events().await, app.quarantined().await), (0, 0));
}

#[tokio::test]
async fn a_client_that_hangs_up_after_sending_loses_nothing() {
    let app = App::spawn().await;
    for n in 0..50 {
        let mut wire = connect(&app).await;
        wire.send(&signed(&format!("evt_{n}"))).await.unwrap();
        drop(wire);
    }
    // What arrived whole may be written though nobody hears of it, but never twice.
    assert_eq!(app.deliver(event("evt_last")).await.word(), "recorded");
    let repeats = app.count("SELECT count(*) - count(DISTINCT id) FROM tollgate.events").await;
    assert_eq!(repeats, 0);
}

#[tokio::test]
async fn slow_headers_are_given_up_and_idle_connections_closed() {
    let app = App::spawn_with(&[("header_timeout", "1s"), ("idle_timeout", "1s")]).await;
    let mut slow = connect(&app).await;
    slow.send(b"POST /webhooks/stripe HT").await.unwrap();
    assert_eq!(slow.answer().await.unwrap().status, 408);
    let mut idle = connect(&app).await;
    idle.send(&signed("evt_1")).await.unwrap();
    assert_eq!(idle.answer().await.unwrap().status, 200);
    let closed = tokio::time::timeout(Duration::from_secs(10), idle.closed()).await;
    assert_eq!(closed, Ok(true));
}
