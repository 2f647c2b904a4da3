//! An HTTP server as a test wants it: it remembers each request, and answers as it is told to, or
//! not at all. Collectors of traces and push targets are made of it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// Longest that a test waits for anything.
pub const SOON: Duration = Duration::from_secs(40);

/// A request, as it came.
#[derive(Clone, Debug)]
pub struct Request {
    pub head: String,
    pub body: Vec<u8>,
}

impl Request {
    /// All values of a header.
    pub fn header(&self, name: &str) -> Vec<&str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields
            .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
            .collect()
    }
}

/// Never to answer.
pub const HANG: u16 = 0;

type Behaviour = Box<dyn FnMut(&Request) -> u16 + Send>;

struct Shared {
    requests: Mutex<Vec<Request>>,
    behaviour: Mutex<Behaviour>,
}

/// The server.
pub struct Server {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    stop: CancellationToken,
}

impl Server {
    /// Answers 200 until told otherwise.
    pub async fn start() -> Self {
        Self::listen("127.0.0.1:0".parse().unwrap(), None).await
    }

    /// The same, with TLS.
    pub async fn secure(acceptor: TlsAcceptor) -> Self {
        Self::listen("127.0.0.1:0".parse().unwrap(), Some(acceptor)).await
    }

    /// At an address of one's choice.
    pub async fn listen(address: SocketAddr, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let behaviour: Behaviour = Box::new(|_| 200);
        let shared = Shared { requests: Mutex::default(), behaviour: Mutex::new(behaviour) };
        let server = Self { address, shared: Arc::new(shared), stop: CancellationToken::new() };
        let (shared, stop) = (Arc::clone(&server.shared), server.stop.clone());
        tokio::spawn(server.stop.clone().run_until_cancelled_owned(async move {
            loop {
                let stream = listener.accept().await.unwrap().0;
                let (shared, tls) = (Arc::clone(&shared), tls.clone());
                tokio::spawn(stop.clone().run_until_cancelled_owned(accepted(stream, tls, shared)));
            }
        }));
        server
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How requests are answered from now on: with a status, or [`HANG`].
    pub fn answer(&self, behaviour: impl FnMut(&Request) -> u16 + Send + 'static) {
        *self.shared.behaviour.lock().unwrap() = Box::new(behaviour);
    }

    /// All requests up to now.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// Waits until there are so many requests.
    pub async fn until(&self, count: usize) -> Vec<Request> {
        let there = async {
            while self.shared.requests.lock().unwrap().len() < count {
                sleep(Duration::from_millis(5)).await;
            }
        };
        let came = tokio::time::timeout(SOON, there).await;
        assert!(came.is_ok(), "{} requests instead of {count}", self.requests().len());
        self.requests()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn accepted(stream: TcpStream, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    stream.set_nodelay(true).unwrap();
    match tls {
        None => connection(stream, shared).await,
        Some(tls) => connection(tls.accept(stream).await.unwrap(), shared).await,
    }
}

async fn connection(mut stream: impl AsyncRead + AsyncWrite + Unpin, shared: Arc<Shared>) {
    let mut bytes = Vec::new();
    // However it ends: the other side has gone, which is its affair.
    while let Some(request) = request(&mut stream, &mut bytes).await {
        let status = shared.behaviour.lock().unwrap()(&request);
        shared.requests.lock().unwrap().push(request);
        if status == HANG {
            std::future::pending::<()>().await;
        }
        let answer = format!("HTTP/1.1 {status} So\r\ncontent-length: 0\r\n\r\n");
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn request(stream: &mut (impl AsyncRead + Unpin), bytes: &mut Vec<u8>) -> Option<Request> {
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
            let mut request = Request { head, body: Vec::new() };
            let length: usize =
                request.header("content-length").first().map_or(0, |text| text.parse().unwrap());
            if bytes.len() >= end + 4 + length {
                request.body = bytes[end + 4..end + 4 + length].to_vec();
                bytes.drain(..end + 4 + length);
                return Some(request);
            }
        }
        if stream.read_buf(bytes).await.ok()? == 0 {
            return None;
        }
    }
}
