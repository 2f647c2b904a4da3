//! HTTP as bytes: for requests that no client library would send, and for telling a reset from an
//! answer.

use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// One connection.
pub struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// One answer off the wire.
#[derive(Debug)]
pub struct RawAnswer {
    pub status: u16,
    pub head: String,
    pub body: String,
    /// Whether the server announced that it closes the connection.
    pub close: bool,
}

impl Wire {
    pub async fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::new() })
    }

    pub async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Ends our half, as a client that has nothing more to say.
    pub async fn finish(&mut self) -> Result<()> {
        self.stream.shutdown().await
    }

    /// Reads one answer with a `Content-Length`.
    pub async fn answer(&mut self) -> Result<RawAnswer> {
        loop {
            if let Some(answer) = self.parse() {
                return Ok(answer);
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(Error::new(ErrorKind::UnexpectedEof, "closed without an answer"));
            }
        }
    }

    /// True if the server has closed the connection in an orderly way, with nothing more to read.
    pub async fn closed(&mut self) -> bool {
        self.buffer.is_empty() && matches!(self.stream.read_buf(&mut self.buffer).await, Ok(0))
    }

    fn parse(&mut self) -> Option<RawAnswer> {
        let end = self.buffer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
        let head = String::from_utf8_lossy(&self.buffer[..end]).to_ascii_lowercase();
        let field = |name: &str| {
            head.lines().find_map(|line| {
                line.strip_prefix(name)?.strip_prefix(':').map(str::trim).map(str::to_owned)
            })
        };
        let length: usize = field("content-length").map_or(0, |text| text.parse().unwrap());
        if self.buffer.len() < end + length {
            return None;
        }
        let answer = RawAnswer {
            status: head.split(' ').nth(1)?.parse().unwrap(),
            body: String::from_utf8_lossy(&self.buffer[end..end + length]).into_owned(),
            close: field("connection").is_some_and(|value| value.contains("close")),
            head,
        };
        self.buffer.drain(..end + length);
        Some(answer)
    }
}

/// A delivery as Stripe sends it, as bytes.
pub fn delivery(path: &str, signature: &str, body: &[u8]) -> Vec<u8> {
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: Stripe/1.0 (+https://stripe.com/docs/webhooks)\r\n\
         Accept: */*; q=0.5, application/xml\r\nCache-Control: no-cache\r\n\
         Content-Type: application/json; charset=utf-8\r\nAccept-Encoding: gzip\r\n\
         Stripe-Signature: {signature}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}
