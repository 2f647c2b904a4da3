//! One running server process: our child, or one a gateway before us left behind.
//! Not here: when to start one, and whether it is ready.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::error::{EmbeddedError, io_error};
use super::pidfile;

/// How often a process is looked at.
pub(super) const POLL: Duration = Duration::from_millis(200);
/// Time for a fast shutdown: clients are cut off, the buffers written.
const FAST: Duration = Duration::from_secs(30);
/// Time for an immediate shutdown: nothing is written, the next start recovers from the log.
const IMMEDIATE: Duration = Duration::from_secs(10);

/// A server process. Dropping it leaves the server running.
pub(super) struct Process {
    pid: i32,
    origin: Origin,
}

enum Origin {
    Child(Child),
    /// Serves the cluster in this folder, and is not our child.
    Adopted(PathBuf),
}

impl Process {
    /// Starts `command` with its output going to `log`.
    pub(super) fn spawn(mut command: Command, log: File) -> Result<Self, EmbeddedError> {
        let program = command.as_std().get_program().to_owned();
        let cannot_run = || io_error("run", Path::new(&program));
        command.stdout(log.try_clone().map_err(cannot_run())?).stderr(log);
        let child = command.spawn().map_err(cannot_run())?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        let pid = pid.ok_or_else(|| std::io::Error::other("it has no process id"));
        Ok(Self { pid: pid.map_err(cannot_run())?, origin: Origin::Child(child) })
    }

    /// Takes over the server `pid`, which runs for the cluster at `pgdata`.
    pub(super) fn adopt(pid: i32, pgdata: PathBuf) -> Self {
        Self { pid, origin: Origin::Adopted(pgdata) }
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    /// Whether it has ended; a child is reaped by this.
    pub(super) fn has_ended(&mut self) -> bool {
        match &mut self.origin {
            Origin::Child(child) => !matches!(child.try_wait(), Ok(None)),
            Origin::Adopted(_) => !pidfile::alive(self.pid),
        }
    }

    /// Ends it: a fast shutdown, and an immediate one when that takes too long. No data is lost
    /// either way.
    pub(super) async fn shut_down(&mut self) -> Result<(), EmbeddedError> {
        for (signal, patience) in [(Signal::SIGINT, FAST), (Signal::SIGQUIT, IMMEDIATE)] {
            if self.has_ended() || self.is_another() {
                return Ok(());
            }
            // An error means that it has just ended, which the wait below notices.
            let _ = kill(Pid::from_raw(self.pid), signal);
            if timeout(patience, self.ended()).await.is_ok() {
                return Ok(());
            }
            tracing::warn!(pid = self.pid, %signal, "postgres does not stop");
        }
        Err(EmbeddedError::NotStopping { pid: self.pid })
    }

    /// Whether an adopted server has ended unseen and its number is some other process's now,
    /// which must not get our signals. The number of a child stays its own until it is reaped.
    fn is_another(&self) -> bool {
        matches!(&self.origin, Origin::Adopted(pgdata) if !pidfile::serves(self.pid, pgdata))
    }

    async fn ended(&mut self) {
        while !self.has_ended() {
            sleep(POLL / 4).await;
        }
    }
}
