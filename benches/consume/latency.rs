//! One event at a time on an idle machine: how long until it is with whoever waits for it.
//! Tollgate's HTTP push, and beside it the path of a server that publishes by NOTIFY after COMMIT.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use comfy_table::{Table, presets};
use sqlx::postgres::PgListener;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tollgate::clock::Clock;
use tollgate::http_client;
use tollgate::settings::Settings;
use tollgate::settings::layers::{Inputs, Layers};
use tollgate::startup::Gateway;
use tollgate::stripe::signature::SigningSecret;

use crate::database::Database;

const SECRET: &str = "whsec_benchmark";

/// Between two deliveries, so that each meets an idle server.
const PAUSE: Duration = Duration::from_millis(5);

/// Longest wait for one to arrive.
const LOST: Duration = Duration::from_secs(10);

/// A server to compare with.
pub struct Reference {
    pub url: String,
    pub database: String,
    pub secret: String,
}

/// Arrivals: the id of an event, and when it came.
type Arrivals = mpsc::UnboundedReceiver<(String, Instant)>;

/// Measures and prints.
///
/// # Errors
/// If a server cannot be started or reached, or a delivery does not arrive.
pub async fn measure(deliveries: usize, reference: Option<Reference>) -> anyhow::Result<()> {
    let database = Database::start(0).await?;
    let url = database.url();
    let stop = CancellationToken::new();
    let gateway = Gateway::start(settings(&url)?, Clock::system(), &stop).await?;
    let gateway = gateway.context("stopped")?;
    let to = format!("http://{}/webhooks/stripe", gateway.address());
    let running = tokio::spawn(gateway.run_until(stop.clone()));
    let mut pushed = receive(&database).await?;
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["", "p50 from 200, ms", "p99", "p50 from sending, ms", "p99"]);
    table.add_row(row("push by Tollgate", send(&to, SECRET, deliveries, &mut pushed).await?));
    if let Some(Reference { url, database, secret }) = reference {
        let mut heard = listen(&database).await?;
        let figures = send(&url, &secret, deliveries, &mut heard).await?;
        table.add_row(row("NOTIFY and SELECT by the reference", figures));
    }
    println!("\n{deliveries} deliveries, one after the other\n{table}");
    stop.cancel();
    running.await??;
    database.stop().await
}

fn settings(url: &str) -> anyhow::Result<Settings> {
    let flags: BTreeMap<&'static str, String> = [
        ("listen", "127.0.0.1:0"),
        ("stripe_webhook_secret", SECRET),
        ("database_url", url),
        ("drain", "0s"),
    ]
    .map(|(key, value)| (key, value.to_owned()))
    .into();
    let layers = Layers::gather(&Inputs { flags: Some(&flags), ..Inputs::default() });
    match layers.and_then(|layers| Settings::parse(&layers)) {
        Ok(settings) => Ok(settings),
        Err(problems) => bail!("wrong settings: {problems:?}"),
    }
}

/// Milliseconds, in ascending order.
struct Latencies {
    from_answer: Vec<f64>,
    from_sending: Vec<f64>,
}

fn row(name: &str, latencies: Latencies) -> [String; 5] {
    let at = |values: &[f64], percent: usize| {
        let value = values.get(values.len() * percent / 100).copied().unwrap_or(f64::NAN);
        format!("{value:.2}")
    };
    let Latencies { from_answer, from_sending } = latencies;
    [
        name.to_owned(),
        at(&from_answer, 50),
        at(&from_answer, 99),
        at(&from_sending, 50),
        at(&from_sending, 99),
    ]
}

async fn send(
    to: &str,
    secret: &str,
    deliveries: usize,
    arrivals: &mut Arrivals,
) -> anyhow::Result<Latencies> {
    let client = http_client::builder(&to.parse()?).build()?;
    let secret: SigningSecret = secret.parse()?;
    let run = rand::random::<u32>();
    let mut latencies = Latencies { from_answer: Vec::new(), from_sending: Vec::new() };
    // The first ones meet cold caches, and connections that are not there yet.
    for n in 0..deliveries + 20 {
        let id = format!("evt_{run:08x}{n}");
        let now = Clock::system().unix_seconds();
        let body = format!(
            r#"{{"id":"{id}","object":"event","type":"invoice.paid","created":{now},"livemode":false,
            "api_version":"2025-03-31.basil","data":{{"object":{{"id":"in_{run:08x}{n}","object":"invoice"}}}}}}"#
        );
        let signature = secret.sign(now, body.as_bytes());
        let request = client
            .post(to)
            .header("Stripe-Signature", signature)
            .header("Content-Type", "application/json")
            .body(body);
        let sent = Instant::now();
        let status = request.send().await?.status();
        let answered = Instant::now();
        anyhow::ensure!(status.is_success(), "{to} answered {status}");
        let arrived = loop {
            let next = tokio::time::timeout(LOST, arrivals.recv()).await;
            match next.with_context(|| format!("{id} did not arrive"))? {
                Some((other, at)) if other == id => break at,
                Some(_) => {}
                None => bail!("nobody receives any more"),
            }
        };
        let signed = |from: Instant| {
            // One that arrives before the answer counts as less than nothing.
            arrived.saturating_duration_since(from).as_secs_f64() * 1e3
                - from.saturating_duration_since(arrived).as_secs_f64() * 1e3
        };
        if n >= 20 {
            latencies.from_answer.push(signed(answered));
            latencies.from_sending.push(signed(sent));
        }
        tokio::time::sleep(PAUSE).await;
    }
    latencies.from_answer.sort_by(f64::total_cmp);
    latencies.from_sending.sort_by(f64::total_cmp);
    Ok(latencies)
}

/// A push target, and a consumer that is pushed to it.
async fn receive(database: &Database) -> anyhow::Result<Arrivals> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/", listener.local_addr()?);
    let (arrived, arrivals) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, arrived.clone()));
        }
    });
    let mut connection = database.connect().await?;
    sqlx::query("SELECT tollgate.create_consumer('push'), tollgate.set_target('push', $1)")
        .bind(url)
        .execute(&mut connection)
        .await?;
    // Until the gateway has seen it.
    tokio::time::sleep(Duration::from_secs(3)).await;
    Ok(arrivals)
}

/// Answers 200 to each request of a connection, and tells of it.
async fn answer(mut stream: TcpStream, arrived: mpsc::UnboundedSender<(String, Instant)>) {
    let mut buffer = Vec::new();
    loop {
        let mut chunk = [0; 16 * 1024];
        let Ok(count @ 1..) = stream.read(&mut chunk).await else { return };
        buffer.extend_from_slice(&chunk[..count]);
        while let Some((id, length)) = request(&buffer) {
            drop(arrived.send((id, Instant::now())));
            buffer.drain(..length);
            if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.is_err() {
                return;
            }
        }
    }
}

/// The event's id and the length of the first whole request.
fn request(buffer: &[u8]) -> Option<(String, usize)> {
    let text = String::from_utf8_lossy(buffer);
    let head = text.find("\r\n\r\n")? + 4;
    let header = |name: &str| {
        let lines = text[..head].lines().filter_map(|line| line.split_once(':'));
        lines
            .into_iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
    };
    let length = head + header("content-length")?.parse::<usize>().ok()?;
    let id = header("tollgate-event-id")?.to_owned();
    (buffer.len() >= length).then_some((id, length))
}

/// Hears what the reference publishes, and reads it, as its subscribers must.
async fn listen(database: &str) -> anyhow::Result<Arrivals> {
    let mut listener = PgListener::connect(database).await?;
    listener.listen("express_events").await?;
    let pool = sqlx::PgPool::connect(database).await?;
    let (arrived, arrivals) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok(notice) = listener.recv().await {
            let sql = "SELECT payload::jsonb->>'id' FROM express_ref.events WHERE id::text = $1";
            let id = sqlx::query_scalar(sql).bind(notice.payload()).fetch_one(&pool).await;
            if id.map(|id| arrived.send((id, Instant::now()))).is_err() {
                return;
            }
        }
    });
    Ok(arrivals)
}
