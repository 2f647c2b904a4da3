//! How connections to the database are made: options, pool, session settings, poolers.
//! Where the database is comes from `settings` or from the embedded server.

use std::time::Duration;

use super::StoreError;
use super::handlers::{self, Registered};
use sqlx::postgres::{PgArguments, PgConnectOptions, PgConnection, PgPoolOptions, PgRow, Postgres};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgPool};

/// How long to wait for a connection before saying that there is none.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What stands between us and the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    Direct,
    /// A pooler in transaction mode (PgBouncer): consecutive transactions may meet different
    /// server connections, so that neither session settings nor named statements may be relied on.
    Pooler,
}

/// Where and how to connect.
#[derive(Clone, Debug)]
pub struct Database {
    options: PgConnectOptions,
    route: Route,
}

impl Database {
    pub fn new(options: PgConnectOptions, route: Route) -> Self {
        let options =
            options.application_name("tollgate").log_statements(tracing::log::LevelFilter::Off);
        let options = match route {
            // Poolers refuse start-up parameters that they do not know.
            Route::Pooler => options.extra_float_digits(None).statement_cache_capacity(0),
            // A gateway that vanishes must not hold the commit lock for longer than this.
            Route::Direct => options.options([
                ("TimeZone", "UTC"),
                ("idle_in_transaction_session_timeout", "30s"),
                ("tcp_keepalives_idle", "15"),
                ("tcp_keepalives_interval", "5"),
                ("tcp_keepalives_count", "3"),
                ("tcp_user_timeout", "30s"),
            ]),
        };
        Self { options, route }
    }

    /// A connection of one's own, for something that takes as long as it takes.
    pub async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        tokio::time::timeout(CONNECT_TIMEOUT, PgConnection::connect_with(&self.options))
            .await
            .map_err(|_| sqlx::Error::PoolTimedOut)?
    }

    /// A writer's connection. The server ends a statement of it that takes longer than `limit`:
    /// hanging up would not, and what nobody waits for any more would pile up behind a lock.
    pub async fn connect_writer(&self, limit: Duration) -> Result<WriterConnection, sqlx::Error> {
        let mut connection = self.connect().await?;
        if self.route == Route::Direct {
            let set = format!("SET statement_timeout = {}", limit.as_millis());
            sqlx::raw_sql(AssertSqlSafe(set)).execute(&mut connection).await?;
        }
        Ok(WriterConnection { connection, route: self.route, limit })
    }

    /// A pool for everything else. Made without connecting: the database may come up later.
    ///
    /// Whoever takes a connection from it must not call `begin` where a client or a timeout can
    /// cancel the call: sqlx 0.9.0 then returns the connection inside an open transaction
    /// (launchbadge/sqlx#4393).
    pub fn pool(&self, size: u32) -> PgPool {
        PgPoolOptions::new()
            .max_connections(size)
            .acquire_timeout(CONNECT_TIMEOUT)
            .connect_lazy_with(self.options.clone())
    }

    pub fn route(&self) -> Route {
        self.route
    }

    /// What to call the database in messages: no password.
    pub fn describe(&self) -> String {
        let place = match self.options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => format!("{}:{}", self.options.get_host(), self.options.get_port()),
        };
        let name = self.options.get_database().unwrap_or(self.options.get_username());
        format!("{name} at {place} as {}", self.options.get_username())
    }
}

/// Does `work` on a connection of the pool, within `limit`. After that the connection is closed:
/// the pool would wait for a peer that went silent until TCP gives up, and be the smaller by one.
pub async fn within<T>(
    pool: &PgPool,
    limit: Duration,
    work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
) -> Result<T, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    if let Ok(done) = tokio::time::timeout(limit, work(&mut connection)).await {
        return done;
    }
    drop(connection.detach());
    Err(sqlx::Error::PoolTimedOut)
}

/// Does `work` in a transaction on a connection of the pool; the server ends what takes longer than
/// `limit`. Must run in a task that nobody cancels (see `Database::pool`).
pub async fn transact<T, E: From<sqlx::Error>>(
    pool: &PgPool,
    limit: Duration,
    work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, E>,
) -> Result<T, E> {
    let mut connection = pool.acquire().await?;
    let mut transaction = connection.begin().await?;
    let set = format!("SET LOCAL statement_timeout = {}", limit.as_millis());
    sqlx::raw_sql(AssertSqlSafe(set)).execute(&mut *transaction).await?;
    let done = work(&mut transaction).await?;
    transaction.commit().await?;
    Ok(done)
}

/// A connection that writes, one transaction at a time.
#[derive(Debug)]
pub struct WriterConnection {
    connection: PgConnection,
    route: Route,
    limit: Duration,
}

impl WriterConnection {
    /// Runs one statement in a transaction of its own.
    ///
    /// May be cancelled, but then the connection must be dropped.
    pub async fn transact(
        &mut self,
        statement: Query<'_, Postgres, PgArguments>,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        if self.route == Route::Direct {
            return statement.fetch_all(&mut self.connection).await;
        }
        // Within a transaction a pooler keeps to one server connection; there an unnamed statement
        // is still known when it is executed.
        let mut transaction = self.connection.begin().await?;
        let set = format!("SET LOCAL statement_timeout = {}", self.limit.as_millis());
        sqlx::raw_sql(AssertSqlSafe(set)).execute(&mut *transaction).await?;
        let rows = statement.persistent(false).fetch_all(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(rows)
    }

    /// The connection, for statements that need no transaction.
    pub(super) fn plain(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    /// The handlers that are registered now.
    pub async fn handlers(&mut self) -> Result<Registered, sqlx::Error> {
        handlers::registered(&mut self.connection).await
    }

    /// Begins a transaction of several statements. It must not be cancelled, or the connection be
    /// dropped then.
    pub async fn begin(&mut self) -> Result<Transaction<'_>, sqlx::Error> {
        let persistent = self.route == Route::Direct;
        let limit = self.limit;
        let mut transaction =
            Transaction { inner: self.connection.begin().await?, persistent, limit };
        if !persistent {
            transaction.limit_statements(limit).await?;
        }
        Ok(transaction)
    }
}

/// A transaction of several statements.
#[derive(Debug)]
pub struct Transaction<'c> {
    inner: sqlx::Transaction<'c, Postgres>,
    /// Whether statements may stay prepared: not behind a pooler.
    persistent: bool,
    /// Longest that a statement may take where nothing else is said.
    limit: Duration,
}

impl Transaction<'_> {
    pub(super) async fn fetch(
        &mut self,
        statement: Query<'_, Postgres, PgArguments>,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        statement.persistent(self.persistent).fetch_all(&mut *self.inner).await
    }

    /// For statements without values.
    async fn run(&mut self, sql: String) -> Result<(), sqlx::Error> {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *self.inner).await.map(drop)
    }

    /// The connection, for SQL of the user's.
    pub fn connection(&mut self) -> &mut PgConnection {
        &mut self.inner
    }

    async fn limit_statements(&mut self, limit: Duration) -> Result<(), sqlx::Error> {
        self.run(format!("SET LOCAL statement_timeout = {}", limit.as_millis().max(1))).await
    }

    /// For the rare statement that may take as long as it takes.
    pub(super) async fn unlimited(&mut self) -> Result<(), sqlx::Error> {
        self.run("SET LOCAL statement_timeout = 0".to_owned()).await
    }

    /// Keeps writers out of a billing table until the end of the transaction; readers may read.
    /// `table` must be one of `tollgate.billing_tables()`.
    pub(super) async fn lock_billing_table(&mut self, table: &str) -> Result<(), sqlx::Error> {
        self.run(format!("LOCK TABLE stripe.{table} IN EXCLUSIVE MODE")).await
    }

    /// Marks a point to come back to; from here on no statement may take longer than `limit`.
    pub async fn save(&mut self, limit: Option<Duration>) -> Result<(), sqlx::Error> {
        let limit = limit
            .map(|limit| format!("; SET LOCAL statement_timeout = {}", limit.as_millis().max(1)));
        self.run(format!("SAVEPOINT step{}", limit.unwrap_or_default())).await
    }

    /// Keeps what was done since `save`.
    pub async fn keep(&mut self) -> Result<(), sqlx::Error> {
        let limit = self.limit.as_millis();
        self.run(format!("RELEASE step; SET LOCAL statement_timeout = {limit}")).await
    }

    /// Undoes what was done since `save`, an error included.
    pub async fn undo(&mut self) -> Result<(), sqlx::Error> {
        self.run("ROLLBACK TO step; RELEASE step".to_owned()).await
    }

    /// Does what the server may refuse for what is asked, in a savepoint. The inner error is such a
    /// refusal, and what was done is undone then; after the outer one the transaction is lost.
    pub async fn attempt<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut Self) -> Result<T, StoreError>,
    ) -> Result<Result<T, StoreError>, StoreError> {
        self.save(None).await?;
        let done = work(self).await;
        match &done {
            Ok(_) => self.keep().await?,
            Err(error) if error.is_about_statement() => self.undo().await?,
            Err(_) => return done.map(Ok),
        }
        Ok(done)
    }

    pub async fn commit(self) -> Result<(), sqlx::Error> {
        self.inner.commit().await
    }
}
