//! A gateway for the length of the benchmark, with a Postgres of its own in a temporary directory.
//! Started as a user would: the release binary, default settings, its log in a file.

use std::fs::{self, File, Permissions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tollgate::embedded;

use crate::client::{Connection, Server};
use crate::usage::Watch;

/// How long the first start may take, which makes a database.
const START: Duration = Duration::from_mins(1);

/// How long it may take to stop, Postgres included.
const STOP: Duration = Duration::from_mins(1);

/// Time between two looks at something that is awaited.
const POLL: Duration = Duration::from_millis(100);

pub struct Gateway {
    child: Child,
    server: Server,
    dir: TempDir,
}

impl Gateway {
    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// If it ends or is not ready in time; with the end of its log.
    pub async fn start(secret: &str) -> anyhow::Result<Self> {
        // Started by root, Postgres runs as somebody else, who must be let in.
        let dir = tempfile::Builder::new()
            .prefix("tollgate-bench-")
            .permissions(Permissions::from_mode(0o755))
            .tempdir()?;
        // Free a moment ago, which has to do: the gateway tells its port to people only.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let log = File::create(dir.path().join("gateway.log"))?;
        // Other settings may come from the environment: measuring them is a use of this.
        let child = Command::new(env!("CARGO_BIN_EXE_tollgate"))
            .arg("serve")
            .current_dir(dir.path())
            .env_remove("DATABASE_URL")
            .env("TOLLGATE_DATA_DIR", dir.path().join("data"))
            .env("TOLLGATE_LISTEN", address.to_string())
            .env("TOLLGATE_ADMIN_LISTEN", "127.0.0.1:0")
            .env("STRIPE_WEBHOOK_SECRET", secret)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start the gateway")?;
        let url = format!("tollgate=http://{address}/webhooks/stripe");
        let server = Server::parse(&url).map_err(anyhow::Error::msg)?;
        let mut gateway = Self { child, server, dir };
        if let Err(error) = gateway.wait_until_ready().await {
            let log = gateway.log();
            gateway.stop().await?;
            return Err(error.context(format!("the gateway did not start; its log:\n{log}")));
        }
        Ok(gateway)
    }

    async fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let until = Instant::now() + START;
        while !ready(self.server.address).await {
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended with {status}");
            }
            if Instant::now() > until {
                bail!("it was not ready after {START:?}");
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    pub fn server(&self) -> Server {
        self.server.clone()
    }

    /// The connection string of its database.
    pub fn database(&self) -> anyhow::Result<String> {
        let running = embedded::running(&self.dir.path().join("data"))?;
        Ok(running.context("its database does not run")?.url())
    }

    /// The gateway and its Postgres.
    pub fn watches(&self) -> anyhow::Result<Vec<Watch>> {
        let postmaster = postmaster(&self.dir.path().join("data/postgres/postmaster.pid"))?;
        let watch = |name: &str, pid| Watch { name: name.to_owned(), pids: vec![pid] };
        Ok(vec![
            watch("gateway", self.child.id()),
            watch("Postgres", postmaster),
            watch("generator", std::process::id()),
        ])
    }

    /// Stops it in good order, and removes what it wrote.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let until = Instant::now() + STOP;
        if self.child.try_wait()?.is_none() {
            kill(Pid::from_raw(i32::try_from(self.child.id())?), Signal::SIGTERM)?;
        }
        while self.child.try_wait()?.is_none() {
            if Instant::now() > until {
                bail!("the gateway does not stop; its log:\n{}", self.log());
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(self.dir.close()?)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("gateway.log")).unwrap_or_default()
    }
}

async fn ready(address: SocketAddr) -> bool {
    let Ok(mut connection) = Connection::open(address).await else { return false };
    let request = format!("GET /readyz HTTP/1.1\r\nHost: {address}\r\n\r\n");
    connection.exchange(&request).await.is_ok_and(|answer| answer.status == 200)
}

/// The first line of its file is the server's process id.
fn postmaster(path: &Path) -> anyhow::Result<u32> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    text.lines().next().and_then(|pid| pid.trim().parse().ok()).context("no process id in it")
}
