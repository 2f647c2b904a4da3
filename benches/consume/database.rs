//! A database of the benchmark's own: a private Postgres in a temporary directory, migrated, with
//! sample events in the log.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, ensure};
use sqlx::{Connection, PgConnection};
use tempfile::TempDir;
use tollgate::embedded::{Options, Postgres};
use tollgate::store::migrations;

/// Events made by one statement.
const AT_ONCE: i64 = 20_000;

pub struct Database {
    server: Postgres,
    _dir: TempDir,
}

impl Database {
    /// Starts it, with so many events of the project's own fixtures in the log.
    ///
    /// # Errors
    /// If there is no Postgres, or it does not start.
    pub async fn start(events: i64) -> anyhow::Result<Self> {
        // Started by root, Postgres runs as somebody else, who must be let in.
        let dir = tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir()?;
        let options = Options { data_dir: dir.path().into(), bin_dir: None, port: None };
        let server = Postgres::start(&options).await?;
        let database = Self { server, _dir: dir };
        let mut connection = database.connect().await?;
        migrations::run(&mut connection).await?;
        fill(&mut connection, events).await?;
        Ok(database)
    }

    pub fn url(&self) -> String {
        self.server.connection().url()
    }

    /// Over the socket, as a gateway is connected to its embedded Postgres.
    pub async fn connect(&self) -> anyhow::Result<PgConnection> {
        Ok(PgConnection::connect_with(&self.server.connection().options()).await?)
    }

    /// Stops the server; the directory goes with it.
    ///
    /// # Errors
    /// If it does not stop.
    pub async fn stop(self) -> anyhow::Result<()> {
        Ok(self.server.stop().await?)
    }
}

async fn fill(connection: &mut PgConnection, events: i64) -> anyhow::Result<()> {
    let bodies = bodies().context("cannot read fixtures/events")?;
    ensure!(!bodies.is_empty(), "no events in fixtures/events");
    sqlx::raw_sql(include_str!("queues.sql")).execute(&mut *connection).await?;
    let mut made = 0;
    while made < events {
        let some = AT_ONCE.min(events - made);
        sqlx::query("SELECT bench.fill($1, $2, $3)")
            .bind(made)
            .bind(some)
            .bind(&bodies)
            .execute(&mut *connection)
            .await?;
        made += some;
    }
    sqlx::raw_sql("VACUUM ANALYZE").execute(connection).await?;
    Ok(())
}

fn bodies() -> std::io::Result<Vec<Vec<u8>>> {
    let mut folders =
        vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/events")];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "json") {
                files.push(path);
            }
        }
    }
    files.sort();
    files.iter().map(std::fs::read).collect()
}
