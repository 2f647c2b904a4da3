//! Targets to push to, well-behaved and otherwise, on a port of this machine.
//! What is expected of a push is in the tests.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// What a target does once it has a request.
#[derive(Clone)]
pub enum Manner {
    /// Answers, and takes the next request on the connection.
    Answer(Vec<u8>),
    /// Answers, and closes the connection.
    Close(Vec<u8>),
    /// Answers, as far as it does, and says nothing more.
    Hang(Vec<u8>),
    /// Answers, and then a byte now and then, for ever.
    Drip(Vec<u8>),
    /// Answers, and then as much as the other side takes, up to so many bytes.
    Flood(Vec<u8>, usize),
    Reset,
}

/// What has arrived.
pub struct Request {
    /// The request line and the header lines.
    pub head: String,
    pub body: Vec<u8>,
}

impl Request {
    /// The values of a header.
    pub fn header(&self, name: &str) -> Vec<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
    }
}

pub struct Server {
    pub port: u16,
    connections: Arc<AtomicUsize>,
    requests: UnboundedReceiver<Request>,
    written: UnboundedReceiver<usize>,
}

impl Server {
    /// Treats every request in the same manner.
    pub async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let (got, requests) = unbounded_channel();
        let (wrote, written) = unbounded_channel();
        let counter = Arc::clone(&connections);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counter.fetch_add(1, Ordering::SeqCst);
                let (manner, got, wrote) = (manner.clone(), got.clone(), wrote.clone());
                tokio::spawn(async move {
                    let flooded = treat(stream, manner, got).await;
                    // Nobody may be left to be told.
                    wrote.send(flooded).ok();
                });
            }
        });
        Self { port, connections, requests, written }
    }

    /// Answers everything with this status and nothing else.
    pub async fn status(status_and_headers: &str) -> Self {
        let answer = format!("HTTP/1.1 {status_and_headers}\r\ncontent-length: 0\r\n\r\n");
        Self::start(Manner::Answer(answer.into_bytes())).await
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hook", self.port)
    }

    /// The next request that has arrived.
    pub async fn request(&mut self) -> Request {
        self.requests.recv().await.unwrap()
    }

    /// How many connections have been made.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Waits for a connection's end: how much of a flood was written to it.
    pub async fn flooded(&mut self) -> usize {
        self.written.recv().await.unwrap()
    }
}

/// Treats one connection; returns how much it was flooded with.
async fn treat(mut stream: TcpStream, manner: Manner, got: UnboundedSender<Request>) -> usize {
    while let Some(request) = read(&mut stream).await {
        drop(got.send(request));
        match &manner {
            Manner::Answer(answer) => stream.write_all(answer).await.unwrap(),
            Manner::Close(answer) => {
                stream.write_all(answer).await.unwrap();
                return 0;
            }
            Manner::Hang(answer) => {
                stream.write_all(answer).await.unwrap();
                // Ends when the other side does.
                drop(stream.read(&mut [0]).await);
                return 0;
            }
            Manner::Drip(answer) => {
                stream.write_all(answer).await.unwrap();
                while stream.write_all(b"a").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                return 0;
            }
            Manner::Flood(answer, most) => {
                stream.write_all(answer).await.unwrap();
                let (block, mut written) = (vec![b'a'; 64 * 1024], 0);
                while written < *most && stream.write_all(&block).await.is_ok() {
                    written += block.len();
                }
                return written;
            }
            Manner::Reset => {
                stream.set_zero_linger().unwrap();
                return 0;
            }
        }
    }
    0
}

/// `None` when the other side closed the connection.
async fn read(stream: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let request = Request { head, body: bytes[end + 4..].to_vec() };
        if request.header("content-length")[0].parse() == Ok(request.body.len()) {
            return Some(request);
        }
    }
}
