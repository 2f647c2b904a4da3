//! Traces, as a collector gets them: one per event, from its webhook to each attempt at delivering
//! it. What is kept of them in the database: `traces_kept`; collectors that fail: `traces_lost`.

use std::collections::BTreeSet;

use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::stream::Config;
use futures_util::StreamExt;
use sqlx::Executor;

use crate::collector::{Collector, Seen};
use crate::server::Server;
use crate::support::nats::NatsServer;
use crate::support::{Answer, App, SECRET, event, sign};

/// The kinds of OTLP.
const SERVER: i32 = 2;
const CLIENT: i32 = 3;
const PRODUCER: i32 = 4;

pub const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
pub const PARENT: &str = "00f067aa0ba902b7";

/// A gateway whose spans go to this collector.
pub async fn traced(collector: &Collector, settings: &[(&'static str, &str)]) -> App {
    let url = collector.url();
    let mut all = vec![("otlp_endpoint", url.as_str())];
    all.extend(settings);
    App::spawn_with(&all).await
}

/// Delivers a body as Stripe would, with these headers named `traceparent`.
pub async fn deliver(app: &App, body: &str, traceparents: &[&str]) -> Answer {
    let signature = sign(body.as_bytes());
    app.request("POST", "/webhooks/stripe", |request| {
        let request = request.header("Stripe-Signature", signature).body(body.to_owned());
        traceparents.iter().fold(request, |request, value| request.header("traceparent", *value))
    })
    .await
}

/// Makes the consumer `app`, which gets everything at this URL and retries soon.
pub async fn push_to(app: &App, url: &str) {
    let sql = format!(
        "SELECT tollgate.create_consumer('app', start => 'earliest', retry_first => '0.02 seconds', retry_most => '0.1 seconds');
         SELECT tollgate.set_target('app', '{url}', secrets => '{{whsec_of_the_app}}', breaker_after => 1000)"
    );
    app.pool.execute(sqlx::AssertSqlSafe(sql)).await.unwrap();
}

fn one<'a>(spans: &'a [Seen], name: &str) -> &'a Seen {
    let named: Vec<_> = spans.iter().filter(|span| span.name == name).collect();
    assert_eq!(named.len(), 1, "{name}: {spans:#?}");
    named[0]
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_spans_webhook_commit_and_push() {
    let (collector, target) = (Collector::start().await, Server::start().await);
    let settings = [("service_name", "payments"), ("otlp_headers", "api-key=s3cret%3D1")];
    let app = traced(&collector, &settings).await;
    push_to(&app, &format!("{}/hook?token=t0ken", target.url())).await;
    assert_eq!(deliver(&app, &event("evt_1"), &[]).await.word(), "recorded");
    let pushed = target.until(1).await.remove(0);
    let spans = collector.until_about("evt_1", 3).await;

    let (webhook, commit, push) =
        (one(&spans, "webhook"), one(&spans, "commit"), one(&spans, "push"));
    assert_eq!((webhook.kind, commit.kind, push.kind), (SERVER, CLIENT, CLIENT));
    assert_eq!(webhook.parent, "", "nobody asked");
    assert_eq!((&commit.parent, &push.parent), (&webhook.id, &webhook.id));
    assert_eq!((&commit.trace, &push.trace), (&webhook.trace, &webhook.trace));
    assert_eq!(pushed.header("traceparent"), [push.traceparent()]);
    // Each within what it is part of.
    assert!(webhook.start <= commit.start && commit.start < commit.end, "{spans:#?}");
    assert!(commit.end <= webhook.end && commit.start < push.start && push.start < push.end);
    for (span, key, value) in [
        (webhook, "http.request.method", "POST"),
        (webhook, "http.route", "/webhooks/stripe"),
        (webhook, "http.response.status_code", "200"),
        (webhook, "tollgate.endpoint", "default"),
        (webhook, "tollgate.event.type", "invoice.paid"),
        (webhook, "tollgate.outcome", "recorded"),
        (commit, "tollgate.batch.size", "1"),
        (commit, "db.system.name", "postgresql"),
        (push, "tollgate.consumer", "app"),
        (push, "tollgate.attempt", "1"),
        (push, "http.response.status_code", "200"),
        (push, "tollgate.verdict", "delivered"),
    ] {
        assert_eq!(span.says(key), value, "{key} of {span:#?}");
    }
    assert!(spans.iter().all(|span| span.service == "payments" && !span.failed));

    for request in collector.0.requests() {
        assert_eq!(request.header("api-key"), ["s3cret=1"]);
        let text = String::from_utf8_lossy(&request.body).into_owned();
        for private in [SECRET, "whsec_of_the_app", "t0ken", "in_evt_1", "s3cret"] {
            assert!(!text.contains(private), "{private}");
        }
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_of_a_batch_has_a_trace_of_its_own() {
    const EVENTS: usize = 120;
    let collector = Collector::start().await;
    let app = traced(&collector, &[("http_workers", "1")]).await;
    let bodies: Vec<_> = (0..EVENTS).map(|n| event(&format!("evt_{n}"))).collect();
    let all = bodies.iter().map(|body| deliver(&app, body, &[]));
    for answer in futures_util::future::join_all(all).await {
        assert_eq!(answer.word(), "recorded");
    }
    let spans = collector.until("all there", |spans| spans.len() >= 2 * EVENTS).await;
    assert_eq!(spans.len(), 2 * EVENTS);
    let traces: BTreeSet<_> = spans.iter().map(|span| &span.trace).collect();
    assert_eq!(traces.len(), EVENTS);
    let mut largest = 0;
    for n in 0..EVENTS {
        let spans = collector.about(&format!("evt_{n}"));
        let (webhook, commit) = (one(&spans, "webhook"), one(&spans, "commit"));
        assert_eq!((&commit.trace, &commit.parent), (&webhook.trace, &webhook.id));
        largest = largest.max(commit.says("tollgate.batch.size").parse::<usize>().unwrap());
    }
    assert!(largest > 1, "nothing shared a transaction");
    let kept =
        "SELECT count(*) FROM tollgate.event_traces t JOIN tollgate.event_log USING (created, id)";
    assert_eq!(app.count(kept).await, i64::try_from(EVENTS).unwrap());
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_s_trace_goes_on_and_a_malformed_one_is_ignored() {
    let (collector, target) = (Collector::start().await, Server::start().await);
    let app = traced(&collector, &[]).await;
    push_to(&app, &target.url()).await;
    let good = [
        format!("00-{TRACE}-{PARENT}-01"),
        format!("00-{TRACE}-{PARENT}-ff"),
        format!("cc-{TRACE}-{PARENT}-01-what-comes-then"),
    ];
    for (n, traceparent) in good.iter().enumerate() {
        let id = format!("evt_good_{n}");
        deliver(&app, &event(&id), &[traceparent]).await;
        let spans = collector.until_about(&id, 3).await;
        let webhook = one(&spans, "webhook");
        assert_eq!((webhook.trace.as_str(), webhook.parent.as_str()), (TRACE, PARENT));
        assert!(spans.iter().all(|span| span.trace == TRACE), "{spans:#?}");
    }
    let upper = TRACE.to_uppercase();
    let bad = [
        String::new(),
        "nonsense".to_owned(),
        format!("ff-{TRACE}-{PARENT}-01"),
        format!("00-{upper}-{PARENT}-01"),
        format!("00-{}-{PARENT}-01", "0".repeat(32)),
        format!("00-{TRACE}-{}-01", "0".repeat(16)),
        format!("00-{TRACE}-{PARENT}-01-more"),
        format!("00-{TRACE}-{PARENT}-1"),
        format!("00-{TRACE}-{PARENT}"),
        format!("00-{TRACE}-{PARENT}-01{}", "0".repeat(4000)),
        format!("00-{TRACE}-{PARENT}-0\u{e9}"),
    ];
    for (n, traceparent) in bad.iter().enumerate() {
        let id = format!("evt_bad_{n}");
        assert_eq!(deliver(&app, &event(&id), &[traceparent]).await.word(), "recorded");
        let spans = collector.until_about(&id, 3).await;
        let webhook = one(&spans, "webhook");
        assert_eq!(webhook.parent, "", "{traceparent}");
        assert_ne!(webhook.trace.to_uppercase(), upper, "{traceparent}");
    }
    // Two of them: nobody knows which is meant.
    deliver(&app, &event("evt_two"), &[&good[0], &good[0]]).await;
    let spans = collector.until_about("evt_two", 3).await;
    assert_eq!(one(&spans, "webhook").parent, "");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_are_spans_of_the_same_trace_also_by_another_replica() {
    let (first, second, target) =
        (Collector::start().await, Collector::start().await, Server::start().await);
    let app = traced(&first, &[]).await;
    push_to(&app, &target.url()).await;
    target.answer(|_| 500);
    deliver(&app, &event("evt_1"), &[]).await;
    target.until(2).await;
    let url = app.database_url.clone();
    // Sends what is left before it ends.
    app.stop().await;
    let there = first.about("evt_1");
    let webhook = one(&there, "webhook").clone();

    target.answer(|_| 200);
    let replica = App::spawn_on(&url, &[("otlp_endpoint", &second.url())]).await;
    let there = second.until_about("evt_1", 1).await;
    assert_eq!(there.len(), 1, "what was done by the other is not told again");
    replica.stop().await;

    let pushes: Vec<_> = [first.named("push"), second.named("push")].concat();
    let requests = target.requests();
    assert_eq!(pushes.len(), requests.len());
    for (number, (push, request)) in (1..).zip(pushes.iter().zip(&requests)) {
        assert_eq!((&push.trace, &push.parent), (&webhook.trace, &webhook.id));
        assert_eq!(push.says("tollgate.attempt"), number.to_string());
        assert_eq!(request.header("traceparent"), [push.traceparent()]);
        let resent = if number > 1 { (number - 1).to_string() } else { String::new() };
        assert_eq!(push.says("http.request.resend_count"), resent);
        assert_eq!(push.failed, number < pushes.len());
        let (status, verdict) = if push.failed { ("500", "retry") } else { ("200", "delivered") };
        assert_eq!(push.says("http.response.status_code"), status);
        assert_eq!(push.says("tollgate.verdict"), verdict);
        assert_eq!(push.says("error.type"), if push.failed { "500" } else { "" });
    }
    let ids: BTreeSet<_> = pushes.iter().map(|push| &push.id).collect();
    assert_eq!(ids.len(), pushes.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_has_a_span_of_its_webhook_only() {
    let collector = Collector::start().await;
    let app = traced(&collector, &[]).await;
    app.deliver_signed(event("evt_1").into_bytes(), "t=1,v1=00").await;
    app.deliver("no event at all").await;
    let spans = collector.until("both there", |spans| spans.len() >= 2).await;
    let outcomes: BTreeSet<_> = spans
        .iter()
        .map(|span| (span.says("http.response.status_code"), span.says("tollgate.outcome")))
        .collect();
    assert_eq!(outcomes, [("200", "quarantined"), ("400", "signature_no_v1")].into());
    // Whose fault it is not.
    assert!(spans.iter().all(|span| span.name == "webhook" && !span.failed), "{spans:#?}");
    assert_eq!(app.count("SELECT count(*) FROM tollgate.event_traces").await, 0);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_gets_the_trace_with_the_message() {
    let Some(nats) = NatsServer::start("").await else { return };
    let stream = nats.stream("stripe.>", Config::default()).await;
    let collector = Collector::start().await;
    let app = traced(&collector, &[]).await;
    let sql = format!(
        "SELECT tollgate.create_consumer('bus', start => 'earliest');
         SELECT tollgate.set_target('bus', '{}')",
        nats.url()
    );
    app.pool.execute(sqlx::AssertSqlSafe(sql)).await.unwrap();
    deliver(&app, &event("evt_1"), &[]).await;
    let spans = collector.until_about("evt_1", 3).await;
    let (webhook, publish) = (one(&spans, "webhook"), one(&spans, "publish"));
    assert_eq!((&publish.trace, &publish.parent), (&webhook.trace, &webhook.id));
    assert_eq!((publish.kind, publish.says("messaging.system")), (PRODUCER, "nats"));
    let consumer = stream.create_consumer(pull::Config::default()).await.unwrap();
    let mut messages = consumer.fetch().max_messages(1).messages().await.unwrap();
    let message = messages.next().await.unwrap().unwrap();
    let header = message.headers.as_ref().unwrap().get("traceparent").unwrap().to_string();
    assert_eq!(header, publish.traceparent());
    app.stop().await;
}
