//! The database behind a gateway: the one that is configured, or the embedded server, which is
//! started and stopped here. What is in it is `store`'s.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::embedded::{self, Postgres};
use crate::settings::DatabaseSettings;
use crate::store::connect::{Database, Route};
use crate::store::migrations;

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
    pub(super) embedded: Option<EmbeddedBackend>,
}

#[derive(Debug)]
pub(super) struct EmbeddedBackend {
    server: Arc<Postgres>,
    pub(super) data_dir: PathBuf,
    supervisor: JoinHandle<()>,
    stop: CancellationToken,
}

impl Backend {
    /// Finds the configured database, or starts the embedded one.
    pub async fn open(settings: &DatabaseSettings) -> anyhow::Result<Self> {
        if let Some(configured) = Self::configured(settings) {
            return Ok(configured);
        }
        let server = Arc::new(Postgres::start(&Self::embedded(settings)).await?);
        let database = Database::new(server.connection().options(), Route::Direct);
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
        let Some(connection) = embedded::running(&settings.data_dir)? else {
            bail!(
                "the embedded database in {} is not running: start tollgate serve or tollgate demo first, or name \
                 another --data-dir",
                settings.data_dir.display()
            );
        };
        let database = Database::new(connection.options(), Route::Direct);
        Ok(Self { direct: database.clone(), database, embedded: None })
    }

    /// How the embedded server would be run.
    pub fn embedded(settings: &DatabaseSettings) -> embedded::Options {
        embedded::Options {
            data_dir: settings.data_dir.clone(),
            bin_dir: settings.pg_bin.clone(),
            port: settings.pg_port,
        }
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
