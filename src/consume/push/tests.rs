//! Pushes to targets that answer, and to such as misbehave.
//! What becomes of a verdict is the engine's.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

use bytes::Bytes;

use super::*;
use crate::consume::target::{ANSWER_KEPT, Verdict};
use crate::stripe::signature::{SignatureError, SignatureHeader, Tolerance};
use server::{Manner, Server};

mod guarded;
mod secure;
mod server;

const NOW: u64 = 1_700_000_000;
/// Bytes that any rewriting would change: order, white space, escapes, duplicates, raw UTF-8, and
/// some that are no UTF-8.
const BODY: &[u8] =
    b"{\r\n  \"id\": \"evt_1\",  \"b\" : 1.0,\t\"a\": \"\\u00e9\xc3\xa9\\/\",\n \"b\":1e400}\xff\n \n";
const RETRY: Verdict = Verdict::Retry { after: None };

fn clock() -> Clock {
    Clock::from_fn(|| UNIX_EPOCH + Duration::from_secs(NOW))
}

fn secret(text: &str) -> SigningSecret {
    text.parse().unwrap()
}

fn options(url: &str) -> PushOptions {
    PushOptions {
        url: url.parse().unwrap(),
        secrets: vec![secret("whsec_new")],
        timeout: Duration::from_millis(500),
        connections: 4,
    }
}

/// With time enough for anything but a target that hangs.
fn patient(url: &str) -> PushTarget {
    let options = PushOptions { timeout: Duration::from_secs(30), ..options(url) };
    PushTarget::new(options, PrivateTargets::Refuse, clock()).unwrap()
}

fn hasty(url: &str) -> PushTarget {
    PushTarget::new(options(url), PrivateTargets::Refuse, clock()).unwrap()
}

fn delivery() -> Delivery {
    Delivery {
        consumer: "billing".to_owned(),
        position: 77,
        event_id: "evt_1".to_owned(),
        event_type: "invoice.paid".to_owned(),
        account: String::new(),
        livemode: true,
        attempt: 3,
        traceparent: None,
        raw: Bytes::from_static(BODY),
    }
}

/// What comes of a push to a target of this manner, and its port.
async fn push(manner: Manner) -> (Attempt, u16) {
    let server = Server::start(manner).await;
    (patient(&server.url()).deliver(&delivery()).await, server.port)
}

fn verify(header: &str, text: &str, now: u64) -> Result<(), SignatureError> {
    let now = i64::try_from(now).unwrap();
    header.parse::<SignatureHeader>()?.verify(BODY, &[secret(text)], now, Tolerance(0))
}

#[tokio::test]
async fn the_original_bytes_arrive_with_our_signature_and_headers() {
    let mut server = Server::status("200 OK").await;
    let url = format!("http://ann:pw@127.0.0.1:{}/hook?token=1", server.port);
    let attempt = patient(&url).deliver(&delivery()).await;
    assert_eq!((attempt.verdict, attempt.status), (Verdict::Delivered, Some(200)));
    assert_eq!((attempt.error.as_str(), attempt.answer.as_str()), ("", ""));
    let request = server.request().await;
    assert!(request.head.starts_with("POST /hook?token=1 HTTP/1.1\r\n"), "{}", request.head);
    assert_eq!(request.body, BODY);
    for (name, value) in [
        ("Content-Type", "application/json; charset=utf-8"),
        ("Tollgate-Consumer", "billing"),
        ("Tollgate-Event-Id", "evt_1"),
        ("Tollgate-Attempt", "3"),
        ("Tollgate-Position", "77"),
        ("Authorization", "Basic YW5uOnB3"),
        ("User-Agent", concat!("Tollgate/", env!("CARGO_PKG_VERSION"))),
    ] {
        assert_eq!(request.header(name), [value], "{name}");
        // Spelled so, for programs that do not know that case means nothing.
        assert!(request.head.contains(name), "{name}");
    }
    assert!(request.header("Accept-Encoding").is_empty(), "{}", request.head);
    let signature = request.header("Stripe-Signature")[0];
    assert_eq!(verify(signature, "whsec_new", NOW), Ok(()));
    assert_eq!(verify(signature, "whsec_old", NOW), Err(SignatureError::NoMatch));
}

#[tokio::test]
async fn each_secret_gives_a_signature() {
    let mut server = Server::status("200 OK").await;
    let secrets = vec![secret("whsec_new"), secret("whsec_old")];
    let options = PushOptions { secrets, ..options(&server.url()) };
    let target = PushTarget::new(options, PrivateTargets::Refuse, clock()).unwrap();
    target.deliver(&delivery()).await;
    let request = server.request().await;
    let signature = request.header("Stripe-Signature")[0];
    assert_eq!(signature.matches("v1=").count(), 2, "{signature}");
    for text in ["whsec_new", "whsec_old"] {
        assert_eq!(verify(signature, text, NOW), Ok(()));
    }
    let none = PushOptions { secrets: Vec::new(), ..self::options(&server.url()) };
    let error = PushTarget::new(none, PrivateTargets::Refuse, clock()).unwrap_err();
    assert!(matches!(error, PushTargetError::NoSecret));
}

#[tokio::test]
async fn each_attempt_is_signed_anew() {
    let mut server = Server::status("200 OK").await;
    let seconds = Arc::new(AtomicU64::new(NOW));
    let ticking = Arc::clone(&seconds);
    let clock =
        Clock::from_fn(move || UNIX_EPOCH + Duration::from_secs(ticking.load(Ordering::SeqCst)));
    let target = PushTarget::new(options(&server.url()), PrivateTargets::Refuse, clock).unwrap();
    for now in [NOW, NOW + 1000] {
        seconds.store(now, Ordering::SeqCst);
        target.deliver(&delivery()).await;
        let request = server.request().await;
        assert_eq!(verify(request.header("Stripe-Signature")[0], "whsec_new", now), Ok(()));
    }
}

#[tokio::test]
async fn an_awkward_event_id_is_escaped() {
    let mut server = Server::status("200 OK").await;
    let delivery = Delivery { event_id: "evt 1%\r\nX: é\0".to_owned(), ..delivery() };
    assert_eq!(hasty(&server.url()).deliver(&delivery).await.verdict, Verdict::Delivered);
    let request = server.request().await;
    assert_eq!(request.header("Tollgate-Event-Id"), ["evt 1%25%0D%0AX: %C3%A9%00"]);
}

#[tokio::test]
async fn the_status_decides() {
    let after = |seconds| Verdict::Retry { after: Some(Duration::from_secs(seconds)) };
    for (status, verdict, error) in [
        ("200 OK", Verdict::Delivered, ""),
        ("204 Fine", Verdict::Delivered, ""),
        ("299 Odd", Verdict::Delivered, ""),
        ("304 Not Modified", RETRY, "the target answered 304 Not Modified: redirects are not"),
        ("400 Bad\r\nretry-after: 7", RETRY, "the target answered 400 Bad Request"),
        ("410 Gone", Verdict::Gone, "the target answered 410 Gone: it wants no more events"),
        ("429 Slow\r\nretry-after: 7", after(7), "the target answered 429 Too Many Requests"),
        (
            "429 Slow\r\nRetry-After: Tue, 14 Nov 2023 22:15:00 GMT",
            after(100),
            "the target answered 429 Too Many Requests",
        ),
        ("500 Oh", RETRY, "the target answered 500 Internal Server Error"),
        ("503 No\r\nretry-after: 99999999", after(86_400), "the target answered 503 Service"),
        ("503 No\r\nretry-after: soon", RETRY, "the target answered 503 Service Unavailable"),
        ("799 What", RETRY, "the target answered 799"),
    ] {
        let server = Server::status(status).await;
        let attempt = patient(&server.url()).deliver(&delivery()).await;
        assert_eq!(attempt.verdict, verdict, "{status}");
        assert_eq!(attempt.status.map(|status| status.to_string()).as_deref(), status.get(..3));
        assert!(attempt.error.starts_with(error), "{status}: {}", attempt.error);
        assert_eq!(attempt.error.is_empty(), error.is_empty(), "{status}: {}", attempt.error);
    }
}

#[tokio::test]
async fn redirects_are_named_and_not_followed() {
    for status in ["301 Moved Permanently", "302 Found", "307 Temporary Redirect"] {
        let elsewhere = Server::status("200 OK").await;
        let location = format!("http://ann:s3cret@127.0.0.1:{}/new?token=s3cret", elsewhere.port);
        let server = Server::status(&format!("{status}\r\nlocation: {location}")).await;
        let attempt = patient(&server.url()).deliver(&delivery()).await;
        assert_eq!(attempt.verdict, RETRY);
        let expected = format!(
            "the target answered {status} to http://…@127.0.0.1:{}/new?…: \
             redirects are not followed, push to the final URL",
            elsewhere.port
        );
        assert_eq!(attempt.error, expected);
        assert_eq!(elsewhere.connections(), 0);
    }
}

#[tokio::test]
async fn a_target_that_hangs_costs_the_timeout_and_no_more() {
    for manner in [
        Manner::Hang(Vec::new()),
        Manner::Hang(b"HTTP/1.1 200 OK\r\ncontent-le".to_vec()),
        Manner::Drip(b"HTTP/1.1 200 OK\r\nx-slow: ".to_vec()),
    ] {
        let server = Server::start(manner).await;
        let attempt = hasty(&server.url()).deliver(&delivery()).await;
        assert_eq!((attempt.verdict, attempt.status), (RETRY, None));
        assert_eq!(attempt.error, format!("no answer from 127.0.0.1:{} within 500ms", server.port));
        assert!((500..2000).contains(&attempt.took.as_millis()), "{:?}", attempt.took);
    }
}

#[tokio::test]
async fn a_slow_or_broken_body_does_not_undo_a_status() {
    let head = "content-length: 99\r\n\r\nhalf ";
    let ok = format!("HTTP/1.1 200 OK\r\n{head}").into_bytes();
    let failed = format!("HTTP/1.1 500 No\r\n{head}").into_bytes();
    for (manner, verdict) in [
        (Manner::Hang(ok.clone()), Verdict::Delivered),
        (Manner::Drip(ok.clone()), Verdict::Delivered),
        (Manner::Close(ok), Verdict::Delivered),
        (Manner::Hang(failed), RETRY),
    ] {
        let server = Server::start(manner).await;
        let attempt = hasty(&server.url()).deliver(&delivery()).await;
        assert_eq!(attempt.verdict, verdict);
        assert!(attempt.answer.starts_with("half "), "{}", attempt.answer);
        assert!(attempt.took < Duration::from_secs(2), "{:?}", attempt.took);
    }
}

#[tokio::test]
async fn of_a_huge_answer_only_the_beginning_is_read() {
    const GIGABYTE: usize = 1 << 30;
    for length in ["content-length: 1073741824\r\n", ""] {
        for (status, verdict) in [("200 OK", Verdict::Delivered), ("500 No", RETRY)] {
            let head = format!("HTTP/1.1 {status}\r\n{length}\r\n").into_bytes();
            let mut server = Server::start(Manner::Flood(head, GIGABYTE)).await;
            let attempt = patient(&server.url()).deliver(&delivery()).await;
            assert_eq!(attempt.verdict, verdict);
            assert_eq!(attempt.answer, "a".repeat(ANSWER_KEPT));
            assert!(attempt.took < Duration::from_secs(2), "{:?}", attempt.took);
            // What fits into the sockets' buffers is out of anybody's hands.
            let written = server.flooded().await;
            assert!(written < GIGABYTE / 32, "{written}");
        }
    }
}

#[tokio::test]
async fn an_answer_is_kept_as_text_that_fits() {
    let mut answer = b"HTTP/1.1 500 No\r\ncontent-length: 3000\r\n\r\na\0b\xff".to_vec();
    answer.extend("é".repeat(1498).as_bytes());
    let attempt = push(Manner::Answer(answer)).await.0;
    assert!(attempt.answer.starts_with("a\u{fffd}b\u{fffd}éé"), "{}", attempt.answer);
    assert!((ANSWER_KEPT - 3..=ANSWER_KEPT).contains(&attempt.answer.len()));
}

#[tokio::test]
async fn what_is_no_answer_is_tried_again() {
    let many = format!(
        "HTTP/1.1 200 OK
{}
",
        "x-a: 1
"
        .repeat(200)
    )
    .into_bytes();
    let huge = b"HTTP/1.1 200 OK\r\nx-huge: ".to_vec();
    for (manner, cause) in [
        (Manner::Reset, "Connection reset by peer"),
        (Manner::Close(Vec::new()), "connection closed before message completed"),
        (Manner::Close(b"HTTP/1.1 200 OK\r\n".to_vec()), "connection closed before message"),
        (Manner::Close(b"SSH-2.0-OpenSSH_9.6\r\n\r\n".to_vec()), "invalid HTTP version parsed"),
        (Manner::Close(b"HTTP/1.1 200 OK\r\n\x01: \x02\r\n\r\n".to_vec()), "invalid HTTP header"),
        (Manner::Close(b"HTTP/1.1 20 OK\r\n\r\n".to_vec()), "invalid HTTP status-code parsed"),
        (Manner::Close(many), "message head is too large"),
        (Manner::Flood(huge, 1 << 30), "message head is too large"),
    ] {
        let (attempt, port) = push(manner).await;
        assert_eq!((attempt.verdict, attempt.status), (RETRY, None), "{cause}");
        let expected = format!("127.0.0.1:{port} gave no usable answer: {cause}");
        assert!(attempt.error.starts_with(&expected), "{}", attempt.error);
    }
}

#[tokio::test]
async fn a_closed_port_is_named_without_the_secrets_of_the_url() {
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let url = format!("http://ann:s3cret@127.0.0.1:{port}/hook?token=s3cret");
    let target = patient(&url);
    let attempt = target.deliver(&delivery()).await;
    assert_eq!(attempt.verdict, RETRY);
    let expected = format!("no connection to 127.0.0.1:{port}: Connection refused (os error ");
    assert!(attempt.error.starts_with(&expected), "{}", attempt.error);
    assert!(!attempt.error.contains("s3cret"), "{}", attempt.error);
    assert!(!format!("{target:?}").contains("s3cret"), "{target:?}");
}

#[tokio::test]
async fn a_connection_is_used_again() {
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfine".to_vec();
    let server = Server::start(Manner::Answer(answer)).await;
    let target = patient(&server.url());
    for _ in 0..3 {
        assert_eq!(target.deliver(&delivery()).await.answer, "fine");
    }
    assert_eq!(server.connections(), 1);
}
