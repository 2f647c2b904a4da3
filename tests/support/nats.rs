//! A real NATS server with JetStream, on a port and in a folder of its own, to be killed and started
//! again; and servers that do not answer.

use std::io::{Write, stderr};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_nats::jetstream::{self, stream};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

/// An address that stays ours while nobody listens on it: below the ports that systems hand out by
/// themselves (Linux from 32,768, others from 49,152), and of this process alone.
fn own_address() -> SocketAddr {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    loop {
        let number =
            std::process::id().wrapping_mul(50).wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed));
        let port = 20_000 + u16::try_from(number % 12_000).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if std::net::TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// Where it is: on `PATH`, or where Debian has it, which is not on every user's.
fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
    folders.map(|folder| folder.join("nats-server")).find(|program| program.is_file())
}

/// A running `nats-server`; killed when dropped.
pub struct NatsServer {
    child: Child,
    folder: TempDir,
    pub address: SocketAddr,
}

impl NatsServer {
    /// Starts one with these lines of configuration. `None` if the program is not there, said
    /// loudly; with `CI=true` that is a failure.
    pub async fn start(configuration: &str) -> Option<Self> {
        if program().is_none() {
            assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "nats-server is not installed");
            // Past the test harness, which swallows what tests that pass print.
            let name = std::thread::current().name().unwrap_or_default().to_owned();
            let line = format!("SKIPPED {name}: nats-server is not installed\n");
            stderr().write_all(line.as_bytes()).unwrap();
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let address = own_address();
        let store = folder.path().join("store");
        let lines = format!(
            "listen: \"{address}\"\njetstream {{ store_dir: \"{}\" }}\n{configuration}\n",
            store.display()
        );
        std::fs::write(folder.path().join("nats.conf"), lines).unwrap();
        let child = spawn(&folder);
        let mut server = Self { child, folder, address };
        server.until_ready().await;
        Some(server)
    }

    async fn until_ready(&mut self) {
        for _ in 0..600 {
            // The first thing a server says is INFO, once it serves.
            if let Ok(mut stream) = TcpStream::connect(self.address).await
                && stream.read_u8().await.is_ok_and(|byte| byte == b'I')
            {
                return;
            }
            assert!(self.child.try_wait().unwrap().is_none(), "nats-server ended");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("nats-server is not ready after 12 s");
    }

    /// SIGKILL, and waits until it is gone.
    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Starts it again, with the same port and store.
    pub async fn restart(&mut self) {
        self.child = spawn(&self.folder);
        self.until_ready().await;
    }

    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// A client of the test's own.
    pub async fn jetstream(&self) -> jetstream::Context {
        jetstream::new(async_nats::connect(self.url()).await.unwrap())
    }

    /// A stream for `subjects`, with what else is asked of it.
    pub async fn stream(&self, subjects: &str, with: stream::Config) -> stream::Stream {
        let config = stream::Config {
            name: "EVENTS".to_owned(),
            subjects: vec![subjects.to_owned()],
            ..with
        };
        self.jetstream().await.create_stream(config).await.unwrap()
    }
}

fn spawn(folder: &TempDir) -> Child {
    Command::new(program().unwrap())
        .arg("--config")
        .arg(folder.path().join("nats.conf"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// A server that takes connections and says nothing.
pub async fn mute_server() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

/// Takes one client, lets it log in, and gives the connection on which it will hear nothing more.
pub async fn greet(listener: &TcpListener) -> TcpStream {
    let (mut stream, _) = listener.accept().await.unwrap();
    let info = "INFO {\"server_id\":\"x\",\"version\":\"2.9.0\",\"max_payload\":1000,\"headers\":true}\r\n";
    stream.write_all(info.as_bytes()).await.unwrap();
    let mut heard = Vec::new();
    while !heard.ends_with(b"PING\r\n") {
        assert_ne!(stream.read_buf(&mut heard).await.unwrap(), 0);
    }
    stream.write_all(b"PONG\r\n").await.unwrap();
    stream
}
