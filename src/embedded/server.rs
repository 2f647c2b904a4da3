//! The life of the embedded server: start or adopt it, wait until it is ready, watch it, stop it.
//! Not here: finding Postgres, and what lies in the data directory.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::discover::{PgInstall, discover_for};
use super::error::{EmbeddedError, io_error};
use super::home::{self, Home};
use super::pidfile::{self, Found, PidFile, Status};
use super::process::{POLL, Process};
use super::{Connection, Options, cluster};

/// How long one server may take from its start until it takes connections.
const READY_WITHIN: Duration = Duration::from_mins(1);
/// For how long obstacles that pass by themselves are waited out, counting the pauses.
const RETRY_FOR: Duration = Duration::from_secs(30);
/// Pauses between two tries double from the first to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How often the log's length is looked at.
const LOG_LOOK: Duration = Duration::from_mins(1);
/// A server that has lived so long did not die of its start.
const STEADY: Duration = Duration::from_mins(1);

/// A running Postgres that this process owns.
///
/// Dropping it gives up the data directory and leaves the server running, as a crash would; the
/// next [`Postgres::start`] adopts it. [`Postgres::stop`] ends it.
pub struct Postgres {
    home: Home,
    install: PgInstall,
    connection: Connection,
    process: Mutex<Option<Process>>,
    /// Of the process above, readable while a restart holds the mutex; 0 for none.
    pid: AtomicI32,
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres")
            .field("connection", &self.connection)
            .field("pid", &self.pid())
            .finish_non_exhaustive()
    }
}

impl Postgres {
    /// Makes the database when it is not there yet, starts its server, or adopts the one that
    /// survived the gateway before us, and waits until it takes connections: about a second the
    /// first time, a tenth of it later, at most some 90 seconds.
    ///
    /// # Errors
    /// Any [`EmbeddedError`] but `NotStopping`; its message says what the user can do.
    pub async fn start(options: &Options) -> Result<Self, EmbeddedError> {
        let home = Home::open(&options.data_dir)?;
        let install =
            discover_for(options.bin_dir.as_deref(), &home.dir, cluster::major(&home.pgdata())?)?;
        home.account.check_reach(&install.bin_dir)?;
        cluster::ensure(&home, &install).await?;
        let connection = home.connection(home.choose_port(options.port)?)?;
        let (process, pid) = (Mutex::new(None), AtomicI32::new(0));
        let server = Self { home, install, connection, process, pid };
        server.bring_up(&mut *server.process.lock().await).await?;
        Ok(server)
    }

    /// How to connect; stays the same over restarts.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The major version of the server.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.install.major
    }

    /// The process id of the server; `None` while there is none.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        u32::try_from(self.pid.load(Ordering::Relaxed)).ok().filter(|&pid| pid != 0)
    }

    /// Watches the server and starts it again, on the same port, when it dies; returns when `stop`
    /// is cancelled. A server that keeps dying is started at longer and longer intervals, up to 30
    /// seconds.
    pub async fn supervise(&self, stop: CancellationToken) {
        // Dropped at any point, a restart leaves the process it began where `stop` finds it.
        stop.run_until_cancelled(self.keep_up()).await;
    }

    async fn keep_up(&self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let since = Instant::now();
            self.until_dead().await;
            if since.elapsed() > STEADY {
                pause = FIRST_PAUSE;
            }
            tracing::warn!(log = %self.home.log().display(), "postgres has died, starting it again");
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            if let Err(error) = self.bring_up(&mut *self.process.lock().await).await {
                tracing::error!(%error, "cannot start postgres again yet");
            }
        }
    }

    async fn until_dead(&self) {
        let mut looked = Instant::now();
        while self.process.lock().await.as_mut().is_some_and(|process| !process.has_ended()) {
            sleep(POLL).await;
            if looked.elapsed() > LOG_LOOK {
                looked = Instant::now();
                if let Err(error) = self.home.cut_log() {
                    tracing::warn!(%error, log = %self.home.log().display(), "cannot cut it short");
                }
            }
        }
        self.pid.store(0, Ordering::Relaxed);
    }

    /// Shuts the server down, adopted or not: fast, and when that takes 30 seconds, at once. No
    /// data is lost either way. Call it when [`Postgres::supervise`] has returned, or that starts
    /// the server again.
    ///
    /// # Errors
    /// [`EmbeddedError::NotStopping`] when it is still there after 40 seconds.
    pub async fn stop(&self) -> Result<(), EmbeddedError> {
        let mut slot = self.process.lock().await;
        if let Some(process) = slot.as_mut() {
            process.shut_down().await?;
            tracing::info!("postgres has stopped");
        }
        *slot = None;
        self.pid.store(0, Ordering::Relaxed);
        Ok(())
    }

    /// Gets a ready server into `slot`, waiting out what passes by itself.
    async fn bring_up(&self, slot: &mut Option<Process>) -> Result<(), EmbeddedError> {
        let (mut pause, mut waited) = (FIRST_PAUSE, Duration::ZERO);
        loop {
            match self.try_bring_up(slot).await {
                Err(error) if passes_by_itself(&error) && waited < RETRY_FOR => {
                    tracing::debug!(%error, "postgres is held up, trying again");
                    sleep(pause).await;
                    waited += pause;
                    pause = (pause * 2).min(RETRY_FOR / 10);
                }
                outcome => return outcome,
            }
        }
    }

    async fn try_bring_up(&self, slot: &mut Option<Process>) -> Result<(), EmbeddedError> {
        let pgdata = self.home.pgdata();
        let mut adopted = None;
        match pidfile::look(&pgdata) {
            Found::Live(file) => {
                let mut process = Process::adopt(file.pid, pgdata);
                if self.fits(&file) {
                    adopted = Some(process);
                } else {
                    process.shut_down().await?;
                }
            }
            Found::Misleading => {
                let path = pidfile::path(&pgdata);
                tracing::warn!(path = %path.display(), "removing a stale pid file");
                fs::remove_file(&path).map_err(io_error("remove", &path))?;
            }
            Found::Nothing => {}
        }
        let (process, verb) = match adopted {
            Some(process) => (process, "adopted"),
            None => (self.launch().await?, "started"),
        };
        self.pid.store(process.pid(), Ordering::Relaxed);
        self.until_ready(slot.insert(process)).await?;
        let (pid, port, version) = (self.pid(), self.connection.port, self.version());
        tracing::info!(pid, port, version, "{verb} postgres");
        Ok(())
    }

    /// Whether a server found running is one to keep: not stopping, and where we tell our users.
    fn fits(&self, file: &PidFile) -> bool {
        let Connection { socket_dir, port, .. } = &self.connection;
        file.status != Status::Stopping
            && file.port == *port
            && file.socket_dir.as_ref().is_none_or(|dir| dir == socket_dir)
    }

    async fn launch(&self) -> Result<Process, EmbeddedError> {
        // Nobody serves this cluster, and the folder is ours alone: a lock there is a dead one, but
        // when its process number is in use again, Postgres would take it for a living one.
        let _ = fs::remove_file(self.socket().with_added_extension("lock"));
        let command = cluster::serve_command(&self.home, &self.install, self.connection.port).await;
        Process::spawn(command, self.home.open_log()?)
    }

    async fn until_ready(&self, process: &mut Process) -> Result<(), EmbeddedError> {
        let ready = async {
            while !self.is_ready(process.pid()).await {
                if process.has_ended() {
                    self.pid.store(0, Ordering::Relaxed);
                    let (log, tail) = (self.home.log(), self.home.log_tail());
                    return Err(EmbeddedError::Exited { log, tail });
                }
                sleep(POLL / 10).await;
            }
            Ok(())
        };
        timeout(READY_WITHIN, ready).await.unwrap_or_else(|_| {
            let (log, tail) = (self.home.log(), self.home.log_tail());
            Err(EmbeddedError::NotReady { seconds: READY_WITHIN.as_secs(), log, tail })
        })
    }

    /// Whether the server `pid` says it is ready, and can be reached.
    async fn is_ready(&self, pid: i32) -> bool {
        let file = pidfile::read(&self.home.pgdata());
        let says_so = file.is_some_and(|file| file.pid == pid && file.status == Status::Ready);
        says_so && UnixStream::connect(self.socket()).await.is_ok()
    }

    fn socket(&self) -> PathBuf {
        let Connection { socket_dir, port, .. } = &self.connection;
        socket_dir.join(format!(".s.PGSQL.{port}"))
    }
}

/// Whether a server did not come up for a reason that goes away: children of a killed one still
/// hold its shared memory, another start of it is under way, or its port is not free yet.
fn passes_by_itself(error: &EmbeddedError) -> bool {
    let signs = ["shared memory block", "lock file", "could not create any TCP/IP sockets"];
    match error {
        EmbeddedError::Exited { tail, .. } => {
            let mut last_words = tail.lines().rev().take(4);
            last_words.any(|line| signs.iter().any(|sign| line.contains(sign)))
        }
        _ => false,
    }
}

/// Whether a server could be started with these options, as far as can be told without making
/// anything; with which Postgres.
///
/// # Errors
/// What [`Postgres::start`] would fail with.
pub fn examine(options: &Options) -> Result<PgInstall, EmbeddedError> {
    let account = home::examine(&options.data_dir, options.port)?;
    let major = cluster::major(&home::pgdata(&options.data_dir))?;
    let install = discover_for(options.bin_dir.as_deref(), &options.data_dir, major)?;
    account.check_reach(&install.bin_dir)?;
    Ok(install)
}

/// The connection of a data directory that a server runs for right now, whoever started it; `None`
/// when there is none.
///
/// # Errors
/// If it may not be looked into: then nobody knows.
pub fn running(data_dir: &Path) -> Result<Option<Connection>, EmbeddedError> {
    home::running(data_dir)
}
