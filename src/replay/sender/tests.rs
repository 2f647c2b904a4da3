//! The sender against a receiver that answers from a script, one connection at a time.
//! Not here: the gateway's own answers.

use std::time::{Duration, UNIX_EPOCH};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::replay::plan::Options;
use crate::replay::source::{self, Event};
use crate::stripe::signature::{SignatureHeader, Tolerance};

const OK: &str = "HTTP/1.1 200 OK\r\nx-event-status: RECORDED\r\ncontent-length: 0\r\n\r\n";
const DUPLICATE: &str = "HTTP/1.1 200 OK\r\nx-event-status: DUPLICATE\r\ncontent-length: 0\r\n\r\n";
const BUSY: &str = "HTTP/1.1 503 Service NotWritten\r\nretry-after: 0\r\ncontent-length: 0\r\n\r\n";
const WRONG: &str = "HTTP/1.1 400 Bad Request\r\ncontent-length: 43\r\n\r\n\
    {\"code\":\"signature_mismatch\",\"detail\":\"no\"}";
const MOVED: &str = "HTTP/1.1 307 Temporary Redirect\r\nlocation: /\r\ncontent-length: 0\r\n\r\n";
/// Closes the connection instead of answering.
const HANG_UP: &str = "";

/// Answers requests in turn and hands back what they were, heads and bodies as text.
async fn receive(listener: TcpListener, script: Vec<&'static str>) -> Vec<String> {
    let mut requests = Vec::new();
    let mut script = script.into_iter();
    loop {
        if script.len() == 0 {
            return requests;
        }
        let (mut stream, _) = listener.accept().await.unwrap();
        while script.len() > 0
            && let Some(request) = read_request(&mut stream).await
        {
            requests.push(request);
            let answer = script.next().unwrap();
            if answer == HANG_UP {
                break;
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    }
}

/// `None` when the sender closed the connection.
async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut text = String::new();
    loop {
        let mut buffer = [0; 4096];
        let count = stream.read(&mut buffer).await.unwrap();
        if count == 0 {
            return None;
        }
        text.push_str(str::from_utf8(&buffer[..count]).unwrap());
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
            if body.len() == length.unwrap().parse::<usize>().unwrap() {
                return Some(text);
            }
        }
    }
}

fn three_events() -> Vec<Event> {
    let text = "{\"id\":\"evt_1\"}\n{\"id\":\"evt_2\"}\n{\"id\":\"evt_3\"}\n";
    source::load(&["-".into()], text.as_bytes()).unwrap()
}

async fn sender(retries: u32) -> (TcpListener, Sender) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/webhooks/stripe", listener.local_addr().unwrap());
    let target = Target { url: url.parse().unwrap(), secret: "whsec_a".parse().unwrap() };
    let pace = Pace { concurrency: NonZeroUsize::MIN, interval: None, retries };
    let clock = Clock::from_fn(|| UNIX_EPOCH + Duration::from_secs(1000));
    (listener, Sender::new(target, pace, clock).unwrap())
}

/// Sends three events to a receiver that answers with `script`.
async fn sent(script: &[&'static str], retries: u32) -> (Report, Vec<String>) {
    let (listener, sender) = sender(retries).await;
    let plan = Plan::new(three_events(), &Options::default());
    let stop = CancellationToken::new();
    tokio::join!(sender.send(&plan, &stop, |_| {}), receive(listener, script.to_vec()))
}

#[tokio::test]
async fn a_delivery_looks_like_one_of_stripe() {
    let (report, requests) = sent(&[OK, DUPLICATE, OK], 0).await;
    assert_eq!((report.recorded, report.duplicate, report.sent()), (2, 1, 3));
    assert!(report.complete());
    let (head, body) = requests[0].split_once("\r\n\r\n").unwrap();
    assert_eq!(body, "{\"id\":\"evt_1\"}");
    for line in [
        "POST /webhooks/stripe HTTP/1.1",
        "User-Agent: Stripe/1.0 (+https://stripe.com/docs/webhooks)",
        "Accept: */*; q=0.5, application/xml",
        "Cache-Control: no-cache",
        "Content-Type: application/json; charset=utf-8",
    ] {
        assert!(head.lines().any(|found| found == line), "{head}");
    }
    assert!(!head.contains("Encoding"), "{head}");
    let signature = head.lines().find_map(|line| line.strip_prefix("Stripe-Signature: "));
    let header: SignatureHeader = signature.unwrap().parse().unwrap();
    header
        .verify(body.as_bytes(), &["whsec_a".parse().unwrap()], 1000, Tolerance::default())
        .unwrap();
}

#[tokio::test]
async fn a_503_and_a_lost_connection_are_tried_again() {
    let (report, requests) = sent(&[BUSY, BUSY, OK, HANG_UP, OK, OK], 2).await;
    assert_eq!((report.recorded, report.retries), (3, 3));
    assert!(report.complete());
    assert_eq!(requests.len(), 6);
}

#[tokio::test]
async fn what_is_refused_is_told_apart_and_not_tried_again() {
    let (report, _) = sent(&[WRONG, MOVED, WRONG], 5).await;
    assert_eq!((report.refused(), report.retries), (3, 0));
    assert!(!report.complete());
    let mismatch = &report.refusals[&(400, "signature_mismatch".into())];
    assert_eq!((mismatch.count, mismatch.detail.as_str()), (2, "no"));
    assert_eq!(mismatch.origin.to_string(), "stdin:1");
    assert_eq!(report.refusals[&(307, String::new())].count, 1);
}

#[tokio::test]
async fn retries_come_to_an_end() {
    let (report, _) = sent(&[BUSY, BUSY, OK, HANG_UP, HANG_UP], 1).await;
    assert_eq!(report.refusals[&(503, String::new())].count, 1);
    assert_eq!(report.failures["connection_lost"].count, 1);
    assert_eq!((report.sent(), report.retries), (3, 2));
}

#[tokio::test]
async fn a_stopped_run_reports_what_it_has() {
    let (listener, mut sender) = sender(0).await;
    sender.pace.interval = Some(Duration::from_hours(1));
    let plan = Plan::new(three_events(), &Options::default());
    let stop = CancellationToken::new();
    let sending = sender.send(&plan, &stop, |_| stop.cancel());
    let (report, _) = tokio::join!(sending, receive(listener, vec![OK]));
    assert_eq!((report.recorded, report.sent(), report.planned), (1, 1, 3));
    assert!(!report.complete());
}
