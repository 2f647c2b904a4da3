//! Collectors that are down, slow or refuse: webhooks do not notice. And what else is about the way
//! of spans: TLS, the last of them at shutdown, log lines that name the trace.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use crate::collector::Collector;
use crate::server::{HANG, SOON, Server};
use crate::support::process::free_address;
use crate::support::{App, SECRET, event, postgres, sign};
use crate::traces::{TRACE, deliver, push_to, traced};

/// More than fit into a request to the collector, each with two spans.
const EVENTS: usize = 400;

/// Delivers that many events, some at a time; the longest that an answer took.
async fn flood(app: &App, name: &str) -> Duration {
    let mut longest = Duration::ZERO;
    for chunk in 0..EVENTS / 20 {
        let bodies: Vec<_> = (0..20).map(|n| event(&format!("evt_{name}_{chunk}_{n}"))).collect();
        let began = Instant::now();
        let all = bodies.iter().map(|body| deliver(app, body, &[]));
        for answer in futures_util::future::join_all(all).await {
            assert_eq!(answer.word(), "recorded");
        }
        longest = longest.max(began.elapsed());
    }
    longest
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_fails_costs_its_spans_and_nothing_else() {
    let target = Server::start().await;
    let collector = Collector::start().await;
    // What hangs for longer than this holds nobody up: a request to the collector has five seconds.
    let soon = Duration::from_secs(4);
    let app = traced(&collector, &[]).await;
    for (name, status) in [("refused", 500), ("unavailable", 503), ("hanging", HANG)] {
        collector.0.answer(move |_| status);
        let longest = flood(&app, name).await;
        assert!(longest < soon, "{name}: {longest:?}");
    }
    let all = i64::try_from(3 * EVENTS).unwrap();
    assert_eq!(app.events().await, all);
    assert!(!collector.0.requests().is_empty(), "it was asked");
    // Once it is well again, it gets spans again.
    collector.0.answer(|_| 200);
    let mut n = 0;
    let began = Instant::now();
    while collector.about("evt_well_0").is_empty() && collector.about("evt_well_1").is_empty() {
        assert!(began.elapsed() < SOON);
        deliver(&app, &event(&format!("evt_well_{}", n % 2)), &[]).await;
        n += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Deliveries, too, go on.
    collector.0.answer(|_| HANG);
    push_to(&app, &target.url()).await;
    target.until(3 * EVENTS).await;
    let began = Instant::now();
    app.stop().await;
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_may_come_later_than_the_gateway() {
    let address = free_address();
    let app = App::spawn_with(&[("otlp_endpoint", &format!("http://{address}"))]).await;
    let longest = flood(&app, "down").await;
    assert!(longest < Duration::from_secs(4), "{longest:?}");
    assert_eq!(app.events().await, i64::try_from(EVENTS).unwrap());
    let collector = Collector(Server::listen(address, None).await);
    deliver(&app, &event("evt_up"), &[]).await;
    collector.until_about("evt_up", 2).await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_spans_are_sent_at_shutdown() {
    let collector = Collector::start().await;
    let app = traced(&collector, &[]).await;
    deliver(&app, &event("evt_last"), &[]).await;
    app.stop().await;
    assert_eq!(collector.about("evt_last").len(), 2);
}

/// A certificate for `localhost` that nobody else trusts, as PEM, and a server with it.
fn identity() -> (String, TlsAcceptor) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let certificate = made.cert.pem();
    (certificate, TlsAcceptor::from(Arc::new(config)))
}

#[tokio::test(flavor = "multi_thread")]
async fn variables_and_tls_work_and_log_lines_name_the_trace() {
    let (certificate, acceptor) = identity();
    let folder = tempfile::tempdir().unwrap();
    let trusted = folder.path().join("ca.pem");
    std::fs::write(&trusted, certificate).unwrap();
    let collector = Collector(Server::secure(acceptor).await);
    let (address, database_url) = (free_address(), postgres::fresh_database().await);
    let mut gateway = Command::new(env!("CARGO_BIN_EXE_tollgate"))
        .args(["serve", "--log-format", "json", "--drain", "0s", "--admin-listen", "127.0.0.1:0"])
        .args(["--listen", &address.to_string()])
        .env("STRIPE_WEBHOOK_SECRET", SECRET)
        .env("DATABASE_URL", &database_url)
        .env("SSL_CERT_FILE", &trusted)
        .env(
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            format!("https://localhost:{}", collector.0.address.port()),
        )
        .env("OTEL_EXPORTER_OTLP_HEADERS", "api-key=s3cret")
        .env("OTEL_SERVICE_NAME", "shop")
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let client = crate::support::client();
    let ready = format!("http://{address}/readyz");
    while !client.get(&ready).send().await.is_ok_and(|answer| answer.status() == 200) {
        assert!(gateway.try_wait().unwrap().is_none(), "the gateway ended");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let body = event("evt_1");
    let request = client
        .post(format!("http://{address}/webhooks/stripe"))
        .header("stripe-signature", sign(body.as_bytes()))
        .header("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-01"));
    assert_eq!(request.body(body).send().await.unwrap().status(), 200);
    let spans = collector.until_about("evt_1", 2).await;
    assert!(spans.iter().all(|span| span.service == "shop"));
    assert_eq!(collector.0.requests()[0].header("api-key"), ["s3cret"]);

    let pid = nix::unistd::Pid::from_raw(gateway.id().unwrap().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    let mut log = String::new();
    gateway.stderr.take().unwrap().read_to_string(&mut log).await.unwrap();
    assert!(gateway.wait().await.unwrap().success(), "{log}");
    let mut lines = log.lines().filter_map(|line| serde_json::from_str(line).ok());
    let line: serde_json::Value = lines
        .find(|line: &serde_json::Value| line["message"] == "delivery")
        .unwrap_or_else(|| panic!("{log}"));
    assert_eq!(line["trace_id"], TRACE);
    assert!(!log.contains("s3cret"), "{log}");
}
