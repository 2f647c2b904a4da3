//! Events delivered to a real NATS server, and to servers that fail in every way.
//! Subjects, headers and URLs by themselves are tested where they are made.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::stream::{Config, DiscardPolicy, Stream};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::io::AsyncReadExt;
use tollgate::consume::nats::{NatsOptions, NatsTarget};
use tollgate::consume::target::{Attempt, Delivery, Target, Verdict};

use crate::support::nats::{NatsServer, greet, mute_server};
use crate::support::process::free_address;

const RETRY: Verdict = Verdict::Retry { after: None };

/// Longer than any attempt at a server in order takes.
const PATIENT: Duration = Duration::from_secs(20);

fn target(url: &str, timeout: Duration) -> NatsTarget {
    let prefix = NatsOptions::PREFIX.to_owned();
    NatsTarget::new(NatsOptions { url: url.parse().unwrap(), prefix, timeout })
}

fn delivery(event_id: &str, body: &str) -> Delivery {
    Delivery {
        consumer: "shop".to_owned(),
        position: 42,
        event_id: event_id.to_owned(),
        event_type: "invoice.payment_failed".to_owned(),
        account: "acct_1".to_owned(),
        livemode: true,
        attempt: 3,
        raw: Bytes::copy_from_slice(body.as_bytes()),
        traceparent: None,
    }
}

#[track_caller]
fn delivered(attempt: &Attempt) {
    assert_eq!((attempt.verdict, attempt.error.as_str()), (Verdict::Delivered, ""));
}

/// What a stream holds, read through a consumer: subject, headers and body of each message.
async fn held(stream: &Stream) -> Vec<async_nats::jetstream::Message> {
    let messages = stream.get_info().await.unwrap().state.messages;
    let consumer = stream.create_consumer(pull::Config::default()).await.unwrap();
    let messages = usize::try_from(messages).unwrap();
    let fetched = consumer.fetch().max_messages(messages.max(1)).messages().await.unwrap();
    fetched.take(messages).map(Result::unwrap).collect().await
}

#[tokio::test]
async fn a_stream_gets_the_event_as_it_came() {
    let Some(server) = NatsServer::start("").await else { return };
    let stream = server.stream("stripe.>", Config::default()).await;
    let body = "{\n  \"id\": \"evt_1\",\n  \"amount\": 1e400, \"text\": \"\\u0000 ä\"\n}";
    let attempt = target(&server.url(), PATIENT).deliver(&delivery("evt_1", body)).await;
    delivered(&attempt);
    assert!(attempt.answer.contains("\"EVENTS\""), "{}", attempt.answer);
    assert!(attempt.took > Duration::ZERO);

    let messages = held(&stream).await;
    let [message] = &messages[..] else { panic!("{} messages", messages.len()) };
    assert_eq!(message.subject.as_str(), "stripe.invoice.payment_failed");
    assert_eq!(message.payload, body);
    let headers = message.headers.as_ref().unwrap();
    let expected = [
        ("Nats-Msg-Id", "evt_1"),
        ("Tollgate-Consumer", "shop"),
        ("Tollgate-Position", "42"),
        ("Tollgate-Attempt", "3"),
        ("Stripe-Account", "acct_1"),
    ];
    for (name, value) in expected {
        assert_eq!(headers.get(name).map(AsRef::as_ref), Some(value), "{name}");
    }
}

#[tokio::test]
async fn hostile_types_and_ids_are_delivered_like_others() {
    let Some(server) = NatsServer::start("").await else { return };
    let stream = server.stream("stripe.>", Config::default()).await;
    let target = target(&server.url(), PATIENT);
    let id = "i".repeat(3000);
    let types = ["", "..", "*", "a.>", "a b\r\nPUB x 1\r\n\r\n", &"x.".repeat(4500), "ä\0"];
    for (number, event_type) in types.iter().enumerate() {
        let delivery = Delivery {
            event_type: (*event_type).to_owned(),
            ..delivery(&format!("{number}\r\n ä{id}"), "{}")
        };
        delivered(&target.deliver(&delivery).await);
    }
    assert_eq!(held(&stream).await.len(), types.len());
}

#[tokio::test]
async fn an_event_sent_twice_is_stored_once() {
    let Some(server) = NatsServer::start("").await else { return };
    let stream = server.stream("stripe.>", Config::default()).await;
    let delivery = delivery("evt_1", "{}");
    delivered(&target(&server.url(), PATIENT).deliver(&delivery).await);
    let again = Delivery { attempt: 4, ..delivery };
    let attempt = target(&server.url(), PATIENT).deliver(&again).await;
    delivered(&attempt);
    assert!(attempt.answer.contains("duplicate"), "{}", attempt.answer);
    assert_eq!(held(&stream).await.len(), 1);
}

#[tokio::test]
async fn without_a_stream_the_reason_says_how_to_make_one() {
    let Some(server) = NatsServer::start("").await else { return };
    let target = target(&server.url(), PATIENT);
    let attempt = target.deliver(&delivery("evt_1", "{}")).await;
    assert_eq!(attempt.verdict, RETRY);
    assert!(
        attempt.error.contains("nats stream add STRIPE --subjects 'stripe.>'"),
        "{}",
        attempt.error
    );
    server.stream("stripe.>", Config::default()).await;
    delivered(&target.deliver(&delivery("evt_1", "{}")).await);
}

#[tokio::test]
async fn what_the_server_can_never_take_is_refused() {
    let Some(server) = NatsServer::start("max_payload: 2000").await else { return };
    server.stream("stripe.>", Config::default()).await;
    let target = target(&server.url(), PATIENT);
    let attempt = target.deliver(&delivery("evt_1", &"x".repeat(2000))).await;
    assert_eq!(attempt.verdict, Verdict::Refused);
    let size: usize = attempt.error.split(' ').find_map(|word| word.parse().ok()).unwrap();
    assert!(attempt.error.contains("2000 (max_payload)"), "{}", attempt.error);

    // What we count is what the server counts: one byte more, and it would cut the connection.
    let largest = "x".repeat(2000 - (size - 2000));
    delivered(&target.deliver(&delivery("evt_1", &largest)).await);
    let attempt = target.deliver(&delivery("evt_2", &format!("{largest}x"))).await;
    assert_eq!(attempt.verdict, Verdict::Refused);
    delivered(&target.deliver(&delivery("evt_3", &largest)).await);
}

#[tokio::test]
async fn what_the_stream_does_not_take_is_tried_again() {
    let Some(server) = NatsServer::start("").await else { return };
    let limits = Config {
        max_message_size: 1000,
        max_messages: 1,
        discard: DiscardPolicy::New,
        ..Config::default()
    };
    let stream = server.stream("stripe.>", limits).await;
    let target = target(&server.url(), PATIENT);
    let attempt = target.deliver(&delivery("evt_1", &"x".repeat(1000))).await;
    assert_eq!(attempt.verdict, RETRY);
    assert!(attempt.error.contains("message size exceeds maximum"), "{}", attempt.error);
    delivered(&target.deliver(&delivery("evt_2", "{}")).await);
    let attempt = target.deliver(&delivery("evt_3", "{}")).await;
    assert_eq!(attempt.verdict, RETRY);
    assert!(attempt.error.contains("maximum messages exceeded"), "{}", attempt.error);
    stream.purge().await.unwrap();
    delivered(&target.deliver(&delivery("evt_3", "{}")).await);
}

#[tokio::test]
async fn what_answers_and_is_no_stream_has_not_got_the_event() {
    let Some(server) = NatsServer::start("").await else { return };
    let service = async_nats::connect(server.url()).await.unwrap();
    let mut requests = service.subscribe("stripe.>").await.unwrap();
    service.flush().await.unwrap();
    let target = target(&server.url(), PATIENT);
    let delivery = delivery("evt_1", "{}");
    let (attempt, ()) = tokio::join!(target.deliver(&delivery), async {
        let request = requests.next().await.unwrap();
        service.publish(request.reply.unwrap(), "thanks".into()).await.unwrap();
    });
    assert_eq!(attempt.verdict, RETRY);
    assert!(attempt.error.contains("no stream of JetStream"), "{}", attempt.error);
    assert_eq!(attempt.answer, "thanks");
}

#[tokio::test]
async fn a_killed_server_is_found_again() {
    let Some(mut server) = NatsServer::start("").await else { return };
    server.stream("stripe.>", Config::default()).await;
    let target = target(&server.url(), PATIENT);
    delivered(&target.deliver(&delivery("evt_1", "{}")).await);
    server.kill().await;
    let attempt = target.deliver(&delivery("evt_2", "{}")).await;
    assert_eq!(attempt.verdict, RETRY);
    assert!(attempt.took < PATIENT / 2, "{:?}", attempt.took);
    assert!(attempt.error.contains(&server.url()), "{}", attempt.error);
    server.restart().await;
    // The first attempt may find the connection whose end it has not heard of yet.
    let first = target.deliver(&delivery("evt_2", "{}")).await;
    if first.verdict == RETRY {
        delivered(&target.deliver(&delivery("evt_2", "{}")).await);
    }
    let stream = server.jetstream().await.get_stream("EVENTS").await.unwrap();
    assert_eq!(held(&stream).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_around_a_kill() {
    const EVENTS: usize = 200;
    const WORKERS: usize = 8;
    let Some(mut server) = NatsServer::start("").await else { return };
    server.stream("stripe.>", Config::default()).await;
    let target = Arc::new(target(&server.url(), PATIENT));
    let next = Arc::new(AtomicUsize::new(0));
    let done = Arc::new(AtomicUsize::new(0));
    let failed = Arc::new(AtomicBool::new(false));
    let workers = (0..WORKERS).map(|_| {
        let (target, next, done, failed) =
            (target.clone(), next.clone(), done.clone(), failed.clone());
        tokio::spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::SeqCst);
                if number >= EVENTS {
                    return;
                }
                let delivery = delivery(&format!("evt_{number}"), "{}");
                while target.deliver(&delivery).await.verdict != Verdict::Delivered {
                    failed.store(true, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                done.fetch_add(1, Ordering::SeqCst);
            }
        })
    });
    let workers: Vec<_> = workers.collect();
    until(|| done.load(Ordering::SeqCst) >= EVENTS / 4).await;
    server.kill().await;
    until(|| failed.load(Ordering::SeqCst)).await;
    assert!(done.load(Ordering::SeqCst) < EVENTS, "the kill came too late to matter");
    server.restart().await;
    for worker in workers {
        tokio::time::timeout(Duration::from_mins(1), worker).await.unwrap().unwrap();
    }

    let stream = server.jetstream().await.get_stream("EVENTS").await.unwrap();
    let mut times = BTreeMap::<String, usize>::new();
    for message in held(&stream).await {
        let id = message.headers.as_ref().unwrap().get("Nats-Msg-Id").unwrap().as_str().to_owned();
        *times.entry(id).or_default() += 1;
    }
    let expected = (0..EVENTS).map(|number| (format!("evt_{number}"), 1)).collect();
    assert_eq!(times, expected);
}

async fn until(mut happened: impl FnMut() -> bool) {
    for _ in 0..10_000 {
        if happened() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("it did not happen within 10 s");
}

#[tokio::test]
async fn a_server_that_never_answers_costs_no_more_than_the_timeout() {
    let listener = mute_server().await;
    let timeout = Duration::from_millis(300);
    let target = target(&format!("nats://{}", listener.local_addr().unwrap()), timeout);
    let deliveries = ["evt_1", "evt_2"].map(|id| delivery(id, "{}"));
    let (one, two) = tokio::join!(target.deliver(&deliveries[0]), target.deliver(&deliveries[1]));
    for attempt in [one, two] {
        assert_eq!(attempt.verdict, RETRY);
        assert!(attempt.took >= timeout && attempt.took < timeout * 10, "{:?}", attempt.took);
        assert!(attempt.error.contains("nats://127.0.0.1"), "{}", attempt.error);
    }
}

#[tokio::test]
async fn an_acknowledgement_that_never_comes_ends_the_attempt_and_the_connection() {
    let listener = mute_server().await;
    let timeout = Duration::from_millis(300);
    let target = target(&format!("nats://{}", listener.local_addr().unwrap()), timeout);
    let delivery = delivery("evt_1", "{}");
    for _ in 0..2 {
        // Each attempt comes on a connection of its own: the one before is given up.
        let both = async { tokio::join!(target.deliver(&delivery), greet(&listener)) };
        let (attempt, mut stream) = tokio::time::timeout(PATIENT, both).await.expect("a login");
        assert_eq!(attempt.verdict, RETRY);
        assert!(attempt.took < timeout * 10, "{:?}", attempt.took);
        assert!(
            attempt.error.contains("no stream acknowledged stripe.invoice"),
            "{}",
            attempt.error
        );
        let mut message = Vec::new();
        while !String::from_utf8_lossy(&message).contains("HPUB stripe.invoice.payment_failed") {
            assert_ne!(stream.read_buf(&mut message).await.unwrap(), 0);
        }
    }
}

#[tokio::test]
async fn dropping_the_target_closes_its_connection() {
    let listener = mute_server().await;
    let address = format!("nats://{}", listener.local_addr().unwrap());
    let target = target(&address, PATIENT);
    let delivery = delivery("evt_1", "{}");
    let mut stream = {
        // Dropped in the middle, as an engine that shuts down does.
        let mut attempt = target.deliver(&delivery);
        tokio::select! {
            stream = greet_and_hear(&listener) => stream,
            attempt = &mut attempt => panic!("{attempt:?}"),
        }
    };
    drop(target);
    let mut rest = Vec::new();
    let closed = tokio::time::timeout(PATIENT, stream.read_to_end(&mut rest)).await;
    closed.expect("an end").unwrap();
}

#[tokio::test]
async fn after_a_target_with_a_lost_connection_nobody_keeps_knocking() {
    let listener = mute_server().await;
    let target = target(&format!("nats://{}", listener.local_addr().unwrap()), PATIENT);
    let delivery = delivery("evt_1", "{}");
    let close = async { drop(greet_and_hear(&listener).await) };
    let (attempt, ()) = tokio::join!(target.deliver(&delivery), close);
    assert_eq!(attempt.verdict, RETRY);
    assert!(attempt.error.contains("connection lost"), "{}", attempt.error);
    drop(target);
    // The client library tries once more, at once, and then gives up.
    let knocks = async {
        for _ in 0..3 {
            drop(listener.accept().await.unwrap());
        }
    };
    assert!(tokio::time::timeout(Duration::from_millis(500), knocks).await.is_err());
}

async fn greet_and_hear(listener: &tokio::net::TcpListener) -> tokio::net::TcpStream {
    let mut stream = greet(listener).await;
    assert_ne!(stream.read_buf(&mut Vec::new()).await.unwrap(), 0);
    stream
}

#[tokio::test]
async fn a_login_that_is_refused_is_named_without_the_password() {
    let users = "authorization { user: \"shop\", password: \"s3cret\" }";
    let Some(server) = NatsServer::start(users).await else { return };
    let at = |login: &str| format!("nats://{login}@{}", server.address);
    let good = target(&at("shop:s3cret"), PATIENT).deliver(&delivery("evt_1", "{}")).await;
    assert!(good.error.contains("no stream takes"), "logged in, but: {}", good.error);
    for login in ["shop:wr0ng", "wr0ng"] {
        let target = target(&at(login), PATIENT);
        let attempt = target.deliver(&delivery("evt_1", "{}")).await;
        assert_eq!(attempt.verdict, RETRY);
        assert!(attempt.error.contains("refuses the login"), "{}", attempt.error);
        assert!(!format!("{attempt:?} {target:?}").contains("wr0ng"));
    }
}

#[tokio::test]
async fn a_token_logs_in_but_tls_is_not_done_without() {
    let token = "authorization { token: \"s3cret\" }";
    let Some(server) = NatsServer::start(token).await else { return };
    for (scheme, outcome) in [("nats", "no stream takes"), ("tls", "cannot connect to tls://")] {
        let target = target(&format!("{scheme}://s3cret@{}", server.address), PATIENT);
        let attempt = target.deliver(&delivery("evt_1", "{}")).await;
        assert!(attempt.error.contains(outcome), "{}", attempt.error);
    }
}

#[tokio::test]
async fn what_the_server_forbids_is_told() {
    let users = "authorization { users: [ { user: shop, password: s3cret, permissions: { publish: \"x\" } } ] }";
    let Some(server) = NatsServer::start(users).await else { return };
    let url = format!("nats://shop:s3cret@{}", server.address);
    let attempt = target(&url, Duration::from_secs(1)).deliver(&delivery("evt_1", "{}")).await;
    assert_eq!(attempt.verdict, RETRY);
    assert!(attempt.error.contains("Permissions Violation"), "{}", attempt.error);
}

#[tokio::test]
async fn nobody_there_and_no_credentials_file_are_told_at_once() {
    let address = free_address();
    let attempt =
        target(&format!("nats://{address}"), PATIENT).deliver(&delivery("evt_1", "{}")).await;
    assert_eq!(attempt.verdict, RETRY);
    assert!(attempt.error.contains("cannot connect to nats://127.0.0.1"), "{}", attempt.error);
    let url = format!("nats://{address}?creds=/nowhere/at.all");
    let attempt = target(&url, PATIENT).deliver(&delivery("evt_1", "{}")).await;
    assert_eq!(attempt.verdict, RETRY);
    assert!(attempt.error.contains("cannot read the credentials file"), "{}", attempt.error);
}
