//! How connections to the database are made: options, pool, session settings, poolers.
//! Where the database is comes from `settings` or from the embedded server.

use std::time::Duration;

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
}
