//! The load: many connections, each sending its next event once the one before is answered.
//! A bare HTTP/1.1 client, because a full one would take CPU from what is measured.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::Context;
use futures_util::future::join_all;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use reqwest::Url;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::results::Cell;
use crate::traffic::Traffic;

/// How far back a repeated event lies at most, in events.
const REPEATED: usize = 512;

/// How long after the end the last answers are waited for.
const GRACE: Duration = Duration::from_secs(15);

/// Pause before another connection is tried, so that a server that is down is not flooded.
const RECONNECT: Duration = Duration::from_millis(20);

/// Where to send, under which name to report it.
#[derive(Clone)]
pub struct Server {
    pub name: String,
    pub address: SocketAddr,
    /// The request's head as far as it is the same for all events.
    head: String,
}

impl Server {
    /// The same under another name.
    pub fn called(&self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self.clone() }
    }

    /// Reads `NAME=http://host:port/path`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, url) = text.split_once('=').ok_or("expected NAME=URL")?;
        let url: Url = url.parse().map_err(|error| format!("{url}: {error}"))?;
        if url.scheme() != "http" {
            return Err("expected a URL that begins with http://".into());
        }
        let addresses = url.socket_addrs(|| None).map_err(|error| format!("{url}: {error}"))?;
        let address = *addresses.first().ok_or_else(|| format!("{url}: has no address"))?;
        let head = format!(
            "POST {} HTTP/1.1\r\nHost: {address}\r\n\
             User-Agent: Stripe/1.0 (+https://stripe.com/docs/webhooks)\r\n\
             Accept: */*; q=0.5, application/xml\r\nCache-Control: no-cache\r\n\
             Content-Type: application/json; charset=utf-8\r\n",
            url.path()
        );
        Ok(Self { name: name.to_owned(), address, head })
    }
}

/// One measurement: only what is answered from `begin` to `end` counts.
#[derive(Clone, Copy)]
pub struct Load {
    pub cell: Cell,
    pub begin: Instant,
    pub end: Instant,
}

/// What came back in the measured time.
#[derive(Default)]
pub struct Answers {
    /// Of answers with 2xx, in microseconds; in ascending order when all are in.
    pub latencies: Vec<u32>,
    pub non_2xx: usize,
    /// Requests without an answer, and connections that could not be made.
    pub errors: usize,
}

/// Puts the load on the server.
///
/// # Errors
/// If the server cannot be reached at all, or does not answer for a long time after the end.
pub async fn run(load: &Load, server: &Server, traffic: Traffic<'_>) -> anyhow::Result<Answers> {
    Connection::open(server.address)
        .await
        .with_context(|| format!("cannot connect to {} at {}", server.name, server.address))?;
    let source = Source { traffic, duplicates: load.cell.duplicates, next: AtomicUsize::new(0) };
    let lanes = (0_u64..).take(load.cell.connections).map(|seed| lane(load, server, &source, seed));
    let lanes = tokio::time::timeout_at((load.end + GRACE).into(), join_all(lanes))
        .await
        .with_context(|| format!("{} still owes answers {GRACE:?} after the end", server.name))?;
    let mut all = Answers::default();
    for lane in lanes {
        all.latencies.extend(lane.latencies);
        all.non_2xx += lane.non_2xx;
        all.errors += lane.errors;
    }
    all.latencies.sort_unstable();
    Ok(all)
}

/// The events all connections draw from.
struct Source<'a> {
    traffic: Traffic<'a>,
    /// Percentage of repeated events.
    duplicates: u32,
    next: AtomicUsize,
}

impl Source<'_> {
    /// The event to send next: a new one, or one of the last few again.
    fn draw(&self, rng: &mut SmallRng) -> usize {
        if self.duplicates > 0 && rng.random_range(0..100) < self.duplicates {
            let sent = self.next.load(Relaxed);
            if sent > 0 {
                return sent - 1 - rng.random_range(0..sent.min(REPEATED));
            }
        }
        self.next.fetch_add(1, Relaxed)
    }
}

/// One connection, kept up until the end.
async fn lane(load: &Load, server: &Server, source: &Source<'_>, seed: u64) -> Answers {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut answers = Answers::default();
    let mut request = String::new();
    let mut connection = None;
    while Instant::now() < load.end {
        source.traffic.write(source.draw(&mut rng), &server.head, &mut request);
        let start = Instant::now();
        let answer = exchange(&mut connection, server.address, &request).await;
        let end = Instant::now();
        let measured = (load.begin..load.end).contains(&end);
        match answer {
            Ok(200..300) if measured => {
                let micros = end.duration_since(start).as_micros();
                answers.latencies.push(u32::try_from(micros).unwrap_or(u32::MAX));
            }
            Ok(_) if !measured => {}
            Ok(_) => answers.non_2xx += 1,
            Err(_) => {
                answers.errors += 1;
                tokio::time::sleep(RECONNECT).await;
            }
        }
    }
    answers
}

/// Sends a request on the connection there is, or on a new one, and returns the answer's status.
async fn exchange(
    kept: &mut Option<Connection>,
    address: SocketAddr,
    request: &str,
) -> io::Result<u16> {
    let mut connection = match kept.take() {
        Some(connection) => connection,
        None => Connection::open(address).await?,
    };
    let answer = connection.exchange(request).await?;
    if answer.reusable {
        *kept = Some(connection);
    }
    Ok(answer.status)
}

/// A keep-alive connection with one request under way at a time.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// What is of interest in an answer.
pub struct Answer {
    pub status: u16,
    /// Whether the connection can take another request.
    reusable: bool,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(4096) })
    }

    /// Sends a complete request and reads the whole answer.
    pub async fn exchange(&mut self, request: &str) -> io::Result<Answer> {
        self.stream.write_all(request.as_bytes()).await?;
        self.buffer.clear();
        let (head_len, head) = loop {
            self.read_more().await?;
            if let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break (end + 4, Head::parse(&self.buffer[..end])?);
            }
        };
        match head.body {
            Body::Length(length) => {
                while self.buffer.len() < head_len + length {
                    self.read_more().await?;
                }
            }
            // No answer here has chunks whose text could look like the last one.
            Body::Chunked => {
                while !self.buffer[head_len..].ends_with(b"0\r\n\r\n") {
                    self.read_more().await?;
                }
            }
        }
        Ok(Answer { status: head.status, reusable: !head.close })
    }

    async fn read_more(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

/// The head of an answer.
struct Head {
    status: u16,
    body: Body,
    close: bool,
}

enum Body {
    Length(usize),
    Chunked,
}

impl Head {
    fn parse(bytes: &[u8]) -> io::Result<Self> {
        let text = str::from_utf8(bytes).map_err(|_| io::ErrorKind::InvalidData)?;
        let status = text.get(9..12).and_then(|status| status.parse().ok());
        let status = status.ok_or(io::ErrorKind::InvalidData)?;
        let mut head = Self { status, body: Body::Length(0), close: false };
        for (name, value) in text.lines().skip(1).filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") {
                head.body = Body::Length(value.parse().map_err(|_| io::ErrorKind::InvalidData)?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                head.body = Body::Chunked;
            } else if name.eq_ignore_ascii_case("connection") {
                head.close = value.eq_ignore_ascii_case("close");
            }
        }
        Ok(head)
    }
}
