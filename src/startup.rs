//! Wires the parts into a running gateway, and takes it down in the right order.
//! The only place where that happens: a command builds `Settings` and calls this.

mod admin;
mod backend;
mod spans;
pub mod stripe;

use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use anyhow::{Context, anyhow, bail};
use sqlx::PgPool;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::consume::push::PrivateTargets;
use crate::consume::supervisor::Supervisor;
use crate::consume::tally::Tally;
use crate::consume::wake::Wake;
use crate::http::health::{Parts, WritersWay};
use crate::http::listener::Listener;
use crate::http::starting;
use crate::ingest::Intake;
use crate::ingest::commit::CommitOptions;
use crate::ingest::lanes::Lanes;
use crate::ingest::traffic::Traffic;
use crate::ingest::writer::WriterOptions;
use crate::maintain;
use crate::maintain::rescue::Rescue;
use crate::maintain::traffic::Ledger;
use crate::settings::{DatabaseSettings, Settings};
use crate::shutdown::Phase;
use crate::store::connect::Database;
use crate::store::hooks::Hooks;
use crate::store::status;
use crate::traces::Traces;
use admin::AdminServer;
pub use backend::Backend;

/// What is bound before anything else is done.
struct Sockets {
    listener: Listener,
    admin: Option<admin::Socket>,
}

/// A running gateway.
#[derive(Debug)]
pub struct Gateway {
    backend: Backend,
    listener: Listener,
    admin: Option<AdminServer>,
    server: JoinHandle<std::io::Result<()>>,
    server_handle: ServerHandle,
    lanes: Arc<Lanes>,
    /// Maintenance, retries, deliveries to consumers.
    background: JoinHandle<()>,
    /// What Stripe is asked for, if there is a key.
    asking: Option<JoinHandle<()>>,
    background_stop: CancellationToken,
    phase: Phase,
    pool: PgPool,
    traces: Traces,
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
        let admin = settings.admin.map(admin::bind).transpose()?;
        let backend =
            starting::meanwhile(&listener, Box::pin(open(&settings.database, stop))).await?;
        let Some(backend) = backend else {
            return Ok(None);
        };
        let sockets = Sockets { listener, admin };
        Self::start_on(backend, sockets, settings, clock, hooks).await.map(Some)
    }

    async fn start_on(
        backend: Backend,
        sockets: Sockets,
        settings: Settings,
        clock: Clock,
        hooks: Hooks,
    ) -> anyhow::Result<Self> {
        let pool = backend.direct.pool(settings.database.pool);
        warn_of_unsafe_server(&pool).await;
        let commit = Arc::new(commit_options(&settings, hooks));
        let traces = spans::start(settings.traces.clone(), &clock).await;
        let lanes = Arc::new(lanes(&settings, &commit, &backend.database, &traces));
        let stop = CancellationToken::new();
        let (background, wake, tally) =
            in_background(&settings, &pool, &backend.direct, &clock, &commit, &traces, &stop);
        let phase = Phase::default();
        let Sockets { listener, admin: socket } = sockets;
        let mut admin = None;
        let serve = || -> anyhow::Result<_> {
            let asking = stripe::in_background(&settings, &backend, &clock, &commit, &stop)?;
            let parts = Parts {
                pool: pool.clone(),
                writers: WritersWay::of(&backend.database),
                lanes: Arc::clone(&lanes),
                phase: phase.clone(),
                wake: Some(wake.clone()),
                embedded: backend.embedded.as_ref().map(|embedded| embedded.data_dir.clone()),
                traffic: Arc::clone(&commit.traffic),
                tally,
            };
            if let Some(socket) = socket {
                let pool = backend.direct.pool(admin::CONNECTIONS);
                admin = Some(AdminServer::start(socket, pool, parts.clone(), wake, clock.clone())?);
            }
            let intake = intake(&settings, &clock, &traces, Arc::clone(&commit.traffic));
            let timeout = settings.shutdown_timeout;
            let server =
                listener.serve(intake, Arc::clone(&lanes), parts, settings.http, timeout)?;
            Ok((asking, server))
        };
        let (asking, server) = match serve() {
            Ok(serving) => serving,
            Err(error) => {
                stop.cancel();
                return Err(close_after(error, admin, backend).await);
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
            admin,
            server: tokio::spawn(server),
            server_handle,
            lanes,
            background,
            asking,
            background_stop: stop,
            phase,
            pool,
            traces,
            drain: settings.drain,
            shutdown_timeout: settings.shutdown_timeout,
        })
    }

    pub fn address(&self) -> std::net::SocketAddr {
        self.listener.address()
    }

    /// Where the dashboard, the admin API and metrics are, if anywhere.
    pub fn admin_address(&self) -> Option<std::net::SocketAddr> {
        self.admin.as_ref().map(AdminServer::address)
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
            // Consumers, retries and maintenance, or what is asked of Stripe: better none of it than
            // one part that nobody misses before it is too late.
            ended = &mut self.background => anyhow!("background work ended by itself: {ended:?}"),
            ended = ended(&mut self.asking) => anyhow!("what asks Stripe ended by itself: {ended:?}"),
        };
        spans::stop(self.traces, self.shutdown_timeout).await;
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
        let ended = timeout(self.shutdown_timeout, async {
            if let Some(asking) = self.asking {
                asking.await?;
            }
            self.background.await
        });
        let ended = ended.await;
        spans::stop(self.traces, self.shutdown_timeout).await;
        // Late, so that the way down can be watched.
        if let Some(admin) = self.admin {
            admin.stop().await;
        }
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

/// Opens the database and brings it up to date; None if `stop` was cancelled before that.
async fn open(
    settings: &DatabaseSettings,
    stop: &CancellationToken,
) -> anyhow::Result<Option<Backend>> {
    let backend = Backend::open(settings).await?;
    if !settings.migrate {
        return Ok(Some(backend));
    }
    match stop.run_until_cancelled(backend.migrate()).await {
        Some(Ok(())) => Ok(Some(backend)),
        Some(Err(error)) => Err(close_after(error, None, backend).await),
        None => {
            backend.close().await?;
            Ok(None)
        }
    }
}

/// Waits for the end of what may not be there, which then never comes.
async fn ended(task: &mut Option<JoinHandle<()>>) -> Result<(), tokio::task::JoinError> {
    match task {
        Some(task) => task.await,
        None => std::future::pending().await,
    }
}

/// Takes down what runs already of a gateway that cannot start; the error that counts is the first.
async fn close_after(
    error: anyhow::Error,
    admin: Option<AdminServer>,
    backend: Backend,
) -> anyhow::Error {
    if let Some(admin) = admin {
        admin.stop().await;
    }
    if let Err(error) = backend.close().await {
        tracing::warn!(error = format!("{error:#}"), "the database could not be closed");
    }
    error
}

fn lanes(
    settings: &Settings,
    commit: &Arc<CommitOptions>,
    database: &Database,
    traces: &Traces,
) -> Lanes {
    let writing = settings.writing;
    let commit = Arc::clone(commit);
    let options = WriterOptions { batch: writing.batch, commit, traces: traces.clone() };
    let (threads, largest) = (settings.http.workers, settings.http.body.size);
    Lanes::new(threads, writing.writers, writing.queue, largest, database.clone(), options)
}

fn intake(settings: &Settings, clock: &Clock, traces: &Traces, traffic: Arc<Traffic>) -> Intake {
    Intake {
        endpoints: settings.endpoints.clone(),
        clock: clock.clone(),
        tolerance: settings.tolerance,
        body: settings.http.body,
        write_deadline: settings.writing.deadline,
        traces: traces.clone(),
        traffic,
    }
}

fn commit_options(settings: &Settings, hooks: Hooks) -> CommitOptions {
    let writing = settings.writing;
    CommitOptions {
        notify: writing.notify,
        tables: writing.billing_tables,
        // So that a connection that died without a word leaves time for another try.
        limit: writing.deadline / 3,
        hooks,
        traffic: Arc::default(),
        recent: Arc::default(),
    }
}

/// Starts all that goes on beside deliveries: maintenance, retries, consumers.
fn in_background(
    settings: &Settings,
    pool: &PgPool,
    direct: &Database,
    clock: &Clock,
    commit: &CommitOptions,
    traces: &Traces,
    stop: &CancellationToken,
) -> (JoinHandle<()>, Wake, Arc<Tally>) {
    let ledger =
        Ledger::new(clock.clone(), Arc::clone(&commit.traffic)).run(pool.clone(), stop.clone());
    let rescue =
        Rescue::new(direct.clone(), Arc::clone(&commit.hooks), Arc::clone(&commit.traffic))
            .run(stop.clone());
    let duties = maintain::run(pool.clone(), settings.retention, clock.clone(), stop.clone());
    let (wake, listening) = Wake::start(direct.clone(), settings.consuming.poll, stop.clone());
    let tally = Arc::<Tally>::default();
    let supervisor = Supervisor {
        pool: pool.clone(),
        wake: wake.clone(),
        private: private_targets(settings.consuming.allow_private),
        clock: clock.clone(),
        traces: traces.clone(),
        // Before all of it is up, which would be an error.
        grace: settings.shutdown_timeout * 3 / 4,
        tally: Arc::clone(&tally),
    };
    let consumers = supervisor.run(stop.clone());
    let all = async move {
        let ((), (), (), (), _) = tokio::join!(duties, ledger, rescue, consumers, listening);
    };
    (tokio::spawn(all), wake, tally)
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
