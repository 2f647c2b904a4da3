//! A program that events are pushed to, as a test wants it to behave: it answers what it is told
//! to, hangs, goes down and comes back, and remembers every request.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tollgate::stripe::signature::{SignatureHeader, Tolerance};

use crate::support::now;

/// What pushes are signed with.
pub const SECRET: &str = "whsec_of_the_app";

/// Longest that a test waits for anything.
pub const SOON: Duration = Duration::from_secs(40);

/// A request, as it came.
#[derive(Clone, Debug)]
pub struct Request {
    pub event: String,
    pub object: String,
    pub attempt: u32,
    pub position: i64,
    /// Whether the signature is good.
    pub signed: bool,
    pub began: Instant,
    /// When the answer was written, and its status; None while under way, or if it never was.
    pub ended: Option<(Instant, u16)>,
}

impl Request {
    pub fn delivered(&self) -> bool {
        self.ended.is_some_and(|(_, status)| (200..300).contains(&status))
    }
}

/// How a request is answered.
pub struct Reply {
    pub after: Duration,
    pub status: u16,
    /// Whole lines, each with its end.
    pub headers: String,
    pub body: Vec<u8>,
    /// How often the body is sent.
    pub times: usize,
}

impl Reply {
    pub fn status(status: u16) -> Self {
        Self { after: Duration::ZERO, status, headers: String::new(), body: Vec::new(), times: 1 }
    }

    pub fn after(self, after: Duration) -> Self {
        Self { after, ..self }
    }

    pub fn header(self, name: &str, value: &str) -> Self {
        Self { headers: format!("{}{name}: {value}\r\n", self.headers), ..self }
    }

    pub fn body(self, body: &[u8]) -> Self {
        Self { body: body.to_vec(), ..self }
    }

    pub fn times(self, times: usize) -> Self {
        Self { times, ..self }
    }

    /// Never answers.
    pub fn hang() -> Self {
        Self::status(200).after(Duration::from_hours(1))
    }
}

type Behaviour = Box<dyn FnMut(&Request) -> Reply + Send>;

struct Shared {
    requests: Mutex<Vec<Request>>,
    behaviour: Mutex<Behaviour>,
}

/// A push target.
pub struct Receiver {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    stop: CancellationToken,
}

impl Receiver {
    /// Answers 200 until told otherwise.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let behaviour: Behaviour = Box::new(|_| Reply::status(200));
        let shared = Shared { requests: Mutex::default(), behaviour: Mutex::new(behaviour) };
        let receiver = Self { address, shared: Arc::new(shared), stop: CancellationToken::new() };
        receiver.serve(listener);
        receiver
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// How requests are answered from now on.
    pub fn answer(&self, behaviour: impl FnMut(&Request) -> Reply + Send + 'static) {
        *self.shared.behaviour.lock().unwrap() = Box::new(behaviour);
    }

    fn serve(&self, listener: TcpListener) {
        let (shared, stop) = (Arc::clone(&self.shared), self.stop.clone());
        tokio::spawn(self.stop.clone().run_until_cancelled_owned(async move {
            loop {
                let stream = listener.accept().await.unwrap().0;
                let connection = connection(stream, Arc::clone(&shared));
                tokio::spawn(stop.clone().run_until_cancelled_owned(connection));
            }
        }));
    }

    /// Cuts all connections, and refuses new ones.
    pub async fn go_down(&mut self) {
        self.stop.cancel();
        while TcpStream::connect(self.address).await.is_ok() {
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// Listens again, where it did before.
    pub async fn come_back(&mut self) {
        self.stop = CancellationToken::new();
        self.serve(TcpListener::bind(self.address).await.unwrap());
    }

    /// All requests up to now, in the order of their beginnings.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// How often each event was answered 2xx.
    pub fn delivered(&self) -> BTreeMap<String, usize> {
        let mut times = BTreeMap::new();
        for request in self.requests().iter().filter(|request| request.delivered()) {
            *times.entry(request.event.clone()).or_default() += 1;
        }
        times
    }

    /// Waits until that holds of the requests.
    pub async fn until(&self, what: &str, mut holds: impl FnMut(&[Request]) -> bool) {
        let holding = async {
            while !holds(&self.shared.requests.lock().unwrap()) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(SOON, holding).await.is_err() {
            let requests = self.requests();
            let last = &requests[requests.len().saturating_sub(20)..];
            panic!("not {what}, after {} requests: … {last:#?}", requests.len());
        }
    }

    /// Waits until so many different events were answered 2xx.
    pub async fn until_delivered(&self, events: usize) {
        self.until(&format!("{events} delivered"), |requests| {
            let all = requests.iter().filter(|request| request.delivered());
            all.map(|request| request.event.as_str()).collect::<BTreeSet<_>>().len() >= events
        })
        .await;
    }

    /// Events of an object came one after the other, in the order of their positions: none before
    /// the one in front of it was taken. The same one may come again.
    pub fn assert_in_order(&self) {
        let mut of_object = BTreeMap::<String, Vec<Request>>::new();
        for request in self.requests() {
            of_object.entry(request.object.clone()).or_default().push(request);
        }
        for (object, requests) in of_object {
            for pair in requests.windows(2) {
                let [before, after] = pair else { unreachable!() };
                assert!(before.position <= after.position, "{object}: {before:?} {after:?}");
                let taken = before.ended.is_some_and(|(at, _)| at <= after.began);
                let passed = before.position < after.position;
                assert!(!passed || (taken && before.delivered()), "{object}: {before:?} {after:?}");
            }
        }
    }

    /// The most requests that were under way at one time.
    pub fn most_at_once(&self) -> usize {
        let requests = self.requests();
        let at = |instant: Instant| {
            let under_way = |r: &&Request| {
                r.began <= instant && r.ended.is_none_or(|(ended, _)| ended > instant)
            };
            requests.iter().filter(under_way).count()
        };
        requests.iter().map(|request| at(request.began)).max().unwrap_or_default()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn connection(mut stream: TcpStream, shared: Arc<Shared>) {
    stream.set_nodelay(true).unwrap();
    let mut bytes = Vec::new();
    // However it ends: the other side has gone, which is its affair.
    while let Some((head, body)) = request(&mut stream, &mut bytes).await {
        let request = parsed(&head, &body);
        let (number, reply) = {
            let mut requests = shared.requests.lock().unwrap();
            let reply = shared.behaviour.lock().unwrap()(&request);
            requests.push(request);
            (requests.len() - 1, reply)
        };
        sleep(reply.after).await;
        let Reply { status, headers, body, times, .. } = reply;
        let length = body.len() * times;
        let head = format!("HTTP/1.1 {status} So\r\n{headers}content-length: {length}\r\n\r\n");
        // Before the last byte is out: what the other side does next comes after.
        shared.requests.lock().unwrap()[number].ended = Some((Instant::now(), status));
        if stream.write_all(head.as_bytes()).await.is_err() {
            shared.requests.lock().unwrap()[number].ended = None;
            return;
        }
        for _ in 0..times {
            if stream.write_all(&body).await.is_err() {
                return;
            }
        }
    }
}

async fn request(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<(String, Vec<u8>)> {
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
            let length: usize = field(&head, "content-length").parse().unwrap();
            if bytes.len() >= end + 4 + length {
                let body = bytes[end + 4..end + 4 + length].to_vec();
                bytes.drain(..end + 4 + length);
                return Some((head, body));
            }
        }
        if stream.read_buf(bytes).await.ok()? == 0 {
            return None;
        }
    }
}

fn field<'a>(head: &'a str, name: &str) -> &'a str {
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value)
}

fn parsed(head: &str, body: &[u8]) -> Request {
    let json: Value = serde_json::from_slice(body).unwrap();
    let signature: SignatureHeader = field(head, "stripe-signature").parse().unwrap();
    let secrets = [SECRET.parse().unwrap()];
    Request {
        event: json["id"].as_str().unwrap().to_owned(),
        object: json["data"]["object"]["id"].as_str().unwrap_or_default().to_owned(),
        attempt: field(head, "tollgate-attempt").parse().unwrap(),
        position: field(head, "tollgate-position").parse().unwrap(),
        signed: signature.verify(body, &secrets, now(), Tolerance(60)).is_ok(),
        began: Instant::now(),
        ended: None,
    }
}
