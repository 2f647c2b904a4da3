//! The gateway as a process of its own, to be killed.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

use super::SECRET;

/// A running `tollgate serve`.
pub struct Process {
    child: Child,
    pub address: SocketAddr,
}

/// Where its events go.
#[derive(Clone, Copy)]
pub enum Backing<'a> {
    /// An embedded database in this folder.
    Embedded(&'a Path),
    /// A database that is there.
    Url(&'a str),
}

impl Process {
    /// Starts a gateway on this address and waits until it is ready. Its log goes to ours.
    pub async fn start(address: SocketAddr, backing: Backing<'_>, flags: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
        command
            .args(["serve", "--log", "error", "--listen", &address.to_string()])
            .args(["--admin-listen", "127.0.0.1:0"])
            .args(flags)
            .env("STRIPE_WEBHOOK_SECRET", SECRET)
            .env_remove("DATABASE_URL")
            .stdout(Stdio::null())
            .kill_on_drop(true);
        match backing {
            Backing::Embedded(data_dir) => command.env("TOLLGATE_DATA_DIR", data_dir),
            Backing::Url(url) => command.env("DATABASE_URL", url),
        };
        let child = command.spawn().unwrap();
        let mut process = Self { child, address };
        process.until_ready().await;
        process
    }

    async fn until_ready(&mut self) {
        let client = super::client();
        for _ in 0..600 {
            let ready = client.get(format!("http://{}/readyz", self.address)).send().await;
            if ready.is_ok_and(|answer| answer.status() == 200) {
                return;
            }
            assert!(self.child.try_wait().unwrap().is_none(), "the gateway ended");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the gateway is not ready after 30 s");
    }

    pub fn signal(&self, signal: Signal) {
        let pid = self.child.id().expect("a running gateway");
        kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
    }

    pub async fn wait(&mut self) -> ExitStatus {
        tokio::time::timeout(Duration::from_mins(1), self.child.wait())
            .await
            .expect("an end within a minute")
            .unwrap()
    }

    /// Ends it as a service manager would, and expects a good end.
    pub async fn stop(mut self) {
        self.signal(Signal::SIGTERM);
        assert_eq!(self.wait().await.code(), Some(0));
    }
}

/// An address that nobody listens on.
pub fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
