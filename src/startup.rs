//! Wires the parts into a running gateway, and takes it down in the right order.
//! The only place where that happens: a command builds `Settings` and calls this.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use anyhow::{Context, anyhow, bail};
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::consume::push::PrivateTargets;
use crate::consume::supervisor::Supervisor;
use crate::consume::wake::Wake;
use crate::embedded::{self, Postgres};
use crate::http::health::Parts;
use crate::http::listener::Listener;
use crate::ingest::Intake;
use crate::ingest::commit::CommitOptions;
use crate::ingest::lanes::Lanes;
use crate::ingest::writer::WriterOptions;
use crate::maintain;
use crate::maintain::rescue::Rescue;
use crate::settings::{DatabaseSettings, Settings};
use crate::shutdown::Phase;
use crate::store::connect::{Database, Route};
use crate::store::hooks::Hooks;
use crate::store::{migrations, status};

/// How long to wait at start-up for a database that does not answer yet, as when both are started
/// at once.
const DATABASE_WAIT: Duration = Duration::from_mins(1);

/// The database, and the server behind it if it is ours.
#[derive(Debug)]
pub struct Backend {
    /// For the writers; may lead through a pooler.
    pub database: Database,
    /// The server itself, for everything else.
    pub direct: Database,
    embedded: Option<EmbeddedBackend>,
}

#[derive(Debug)]
struct EmbeddedBackend {
    server: Arc<Postgres>,
    data_dir: PathBuf,
    supervisor: JoinHandle<()>,
    stop: CancellationToken,
}

impl Backend {
    /// Finds the configured database, or starts the embedded one.
    pub async fn open(settings: &DatabaseSettings) -> anyhow::Result<Self> {
        if let Some(configured) = Self::configured(settings) {
            return Ok(configured);
        }
        let options = embedded::Options {
            data_dir: settings.data_dir.clone(),
            bin_dir: settings.pg_bin.clone(),
            port: settings.pg_port,
        };
        let server = Arc::new(Postgres::start(&options).await?);
        let database = Database::new(options_of(server.connection()), Route::Direct);
        let stop = CancellationToken::new();
        let supervisor = {
            let (server, stop) = (Arc::clone(&server), stop.clone());
            tokio::spawn(async move { server.supervise(stop).await })
        };
        let data_dir = settings.data_dir.clone();
        let embedded = Some(EmbeddedBackend { server, data_dir, supervisor, stop });
        Ok(Self { direct: database.clone(), database, embedded })
    }

    /// Finds the configured database, or the embedded one that another process runs.
    pub fn attach(settings: &DatabaseSettings) -> anyhow::Result<Self> {
        if let Some(configured) = Self::configured(settings) {
            return Ok(configured);
        }
        let Some(connection) = embedded::running(&settings.data_dir) else {
            bail!(
                "the embedded database in {} is not running: start tollgate serve or tollgate demo first, or name \
                 another --data-dir",
                settings.data_dir.display()
            );
        };
        let database = Database::new(options_of(&connection), Route::Direct);
        Ok(Self { direct: database.clone(), database, embedded: None })
    }

    /// The database of `DATABASE_URL`, if that is set.
    fn configured(settings: &DatabaseSettings) -> Option<Self> {
        let url = settings.url.as_ref()?;
        let (database, direct) = match &settings.direct_url {
            Some(direct) => (
                Database::new(url.clone(), Route::Pooler),
                Database::new(direct.clone(), Route::Direct),
            ),
            None => {
                let database = Database::new(url.clone(), Route::Direct);
                (database.clone(), database)
            }
        };
        Some(Self { database, direct, embedded: None })
    }

    /// Brings the schema up to date; waits a while for a database that does not answer.
    pub async fn migrate(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + DATABASE_WAIT;
        let mut connection = loop {
            match self.direct.connect().await {
                Ok(connection) => break connection,
                // The server answered: waiting will not change its mind.
                Err(error @ sqlx::Error::Database(_)) if !starting_up(&error) => {
                    return Err(error).context(format!("cannot open {}", self.direct.describe()));
                }
                Err(error) if Instant::now() >= deadline => {
                    return Err(error).context(format!("cannot reach {}", self.direct.describe()));
                }
                Err(error) => {
                    tracing::warn!(%error, database = self.direct.describe(), "waiting for the database");
                    sleep(Duration::from_secs(1)).await;
                }
            }
        };
        migrations::run(&mut connection)
            .await
            .with_context(|| format!("cannot migrate {}", self.direct.describe()))
    }

    /// Stops the embedded server, if there is one.
    pub async fn close(self) -> anyhow::Result<()> {
        if let Some(embedded) = self.embedded {
            embedded.stop.cancel();
            embedded.supervisor.await.context("the supervisor of Postgres failed")?;
            embedded.server.stop().await?;
        }
        Ok(())
    }
}

/// SQLSTATE 57P03: the server is starting, or recovering from a crash.
fn starting_up(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).as_deref() == Some("57P03")
}

/// How the gateway itself reaches the embedded server: over its socket, which is faster than TCP.
fn options_of(connection: &embedded::Connection) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .socket(&connection.socket_dir)
        .port(connection.port)
        .username(&connection.user)
        .password(&connection.password)
        .database(&connection.database)
}

/// A running gateway.
#[derive(Debug)]
pub struct Gateway {
    backend: Backend,
    listener: Listener,
    server: JoinHandle<std::io::Result<()>>,
    server_handle: ServerHandle,
    lanes: Arc<Lanes>,
    /// Maintenance, retries, deliveries to consumers.
    background: JoinHandle<()>,
    background_stop: CancellationToken,
    phase: Phase,
    pool: PgPool,
    drain: Duration,
    shutdown_timeout: Duration,
}

impl Gateway {
    /// Starts everything; when this returns, the gateway takes deliveries. `None` if `stop` was
    /// cancelled before that; whatever was started by then is stopped again, as after an error.
    pub async fn start(
        settings: Settings,
        clock: Clock,
        stop: &CancellationToken,
    ) -> anyhow::Result<Option<Self>> {
        Self::start_with(settings, clock, Hooks::from([]), stop).await
    }

    /// As `start`, with handlers of your own that run in the transaction of every event.
    pub async fn start_with(
        settings: Settings,
        clock: Clock,
        hooks: Hooks,
        stop: &CancellationToken,
    ) -> anyhow::Result<Option<Self>> {
        if settings.endpoints.is_empty() {
            bail!("no endpoint has a signing secret");
        }
        // First, because a port that is taken is found out at once.
        let listener = Listener::bind(settings.listen)
            .with_context(|| format!("cannot listen on {}", settings.listen))?;
        let backend = Backend::open(&settings.database).await?;
        if settings.database.migrate {
            match stop.run_until_cancelled(backend.migrate()).await {
                Some(Ok(())) => {}
                Some(Err(error)) => {
                    backend.close().await?;
                    return Err(error);
                }
                None => {
                    backend.close().await?;
                    return Ok(None);
                }
            }
        }
        Self::start_on(backend, listener, settings, clock, hooks).await.map(Some)
    }

    async fn start_on(
        backend: Backend,
        listener: Listener,
        settings: Settings,
        clock: Clock,
        hooks: Hooks,
    ) -> anyhow::Result<Self> {
        let pool = backend.direct.pool(settings.database.pool);
        warn_of_unsafe_server(&pool).await;
        let commit = Arc::new(commit_options(&settings, Arc::clone(&hooks)));
        let lanes = Arc::new(lanes(&settings, commit, &backend.database));
        let background_stop = CancellationToken::new();
        let (background, wake) =
            in_background(&settings, &pool, &backend.direct, &clock, hooks, &background_stop);
        let phase = Phase::default();
        let parts = Parts {
            pool: pool.clone(),
            lanes: Arc::clone(&lanes),
            phase: phase.clone(),
            wake: Some(wake),
            embedded: backend.embedded.as_ref().map(|embedded| embedded.data_dir.clone()),
        };
        let intake = Intake {
            endpoints: settings.endpoints,
            clock,
            tolerance: settings.tolerance,
            body: settings.http.body,
            write_deadline: settings.writing.deadline,
        };
        let serving = listener.serve(
            intake,
            Arc::clone(&lanes),
            parts,
            settings.http,
            settings.shutdown_timeout,
        );
        let server = match serving {
            Ok(server) => server,
            Err(error) => {
                backend.close().await?;
                return Err(error.into());
            }
        };
        let server_handle = server.handle();
        tracing::info!(
            address = %listener.address(),
            database = backend.database.describe(),
            "ready for deliveries"
        );
        Ok(Self {
            backend,
            listener,
            server: tokio::spawn(server),
            server_handle,
            lanes,
            background,
            background_stop,
            phase,
            pool,
            drain: settings.drain,
            shutdown_timeout: settings.shutdown_timeout,
        })
    }

    pub fn address(&self) -> std::net::SocketAddr {
        self.listener.address()
    }

    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Serves until `stop`, then goes down without losing or cutting off anything: readiness goes
    /// first, requests in flight are answered, what waits is written, and the database comes last.
    ///
    /// # Errors
    /// If something failed meanwhile, or did not end within the shutdown timeout.
    pub async fn run_until(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        let failure = tokio::select! {
            () = stop.cancelled() => return self.stop().await,
            ended = &mut self.server => anyhow!("the HTTP server ended by itself: {ended:?}"),
            () = self.lanes.writer_ended() => anyhow!("a writer ended by itself"),
        };
        self.backend.close().await?;
        Err(failure)
    }

    async fn stop(self) -> anyhow::Result<()> {
        self.phase.begin_draining();
        sleep(self.drain).await;
        self.listener.stop(self.server_handle).await;
        self.server.await.context("the HTTP server failed")??;
        let written = timeout(self.shutdown_timeout, self.lanes.drain()).await;
        self.background_stop.cancel();
        let ended = timeout(self.shutdown_timeout, self.background).await;
        drop(timeout(self.shutdown_timeout, self.pool.close()).await);
        self.backend.close().await?;
        written.context("the writers did not finish in time")?;
        ended
            .context("background work did not finish in time")?
            .context("background work failed")?;
        tracing::info!("stopped");
        Ok(())
    }
}

fn lanes(settings: &Settings, commit: Arc<CommitOptions>, database: &Database) -> Lanes {
    let writing = settings.writing;
    let options = WriterOptions { batch: writing.batch, commit };
    let (threads, largest) = (settings.http.workers, settings.http.body.size);
    Lanes::new(threads, writing.writers, writing.queue, largest, database.clone(), options)
}

fn commit_options(settings: &Settings, hooks: Hooks) -> CommitOptions {
    let writing = settings.writing;
    CommitOptions {
        notify: writing.notify,
        tables: writing.billing_tables,
        // So that a connection that died without a word leaves time for another try.
        limit: writing.deadline / 3,
        hooks,
    }
}

/// Starts all that goes on beside deliveries: maintenance, retries, consumers.
fn in_background(
    settings: &Settings,
    pool: &PgPool,
    direct: &Database,
    clock: &Clock,
    hooks: Hooks,
    stop: &CancellationToken,
) -> (JoinHandle<()>, Wake) {
    let rescue = Rescue::new(direct.clone(), hooks).run(stop.clone());
    let duties = maintain::run(pool.clone(), settings.retention, clock.clone(), stop.clone());
    let (wake, listening) = Wake::start(direct.clone(), settings.consuming.poll, stop.clone());
    let supervisor = Supervisor {
        pool: pool.clone(),
        wake: wake.clone(),
        private: private_targets(settings.consuming.allow_private),
        clock: clock.clone(),
        // Before all of it is up, which would be an error.
        grace: settings.shutdown_timeout * 3 / 4,
    };
    let consumers = supervisor.run(stop.clone());
    let all = async move {
        let ((), (), (), _) = tokio::join!(duties, rescue, consumers, listening);
    };
    (tokio::spawn(all), wake)
}

fn private_targets(allowed: bool) -> PrivateTargets {
    if allowed { PrivateTargets::Allow } else { PrivateTargets::Refuse }
}

/// A server that forgets commits breaks the first promise, whatever the gateway does.
async fn warn_of_unsafe_server(pool: &PgPool) {
    match status::server(pool).await {
        Ok(server) if !server.unsafe_settings.is_empty() => tracing::error!(
            settings = server.unsafe_settings.join(", "),
            "the database runs with settings off without which a crash loses events that were answered 200"
        ),
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "cannot ask the database about its settings"),
    }
}
