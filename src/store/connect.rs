//! How connections to the database are made: options, pool, session settings.
//! Where the database is comes from `settings` or from the embedded server.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, PgPool};

/// How long to wait for a connection before saying that there is none.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Where and how to connect.
#[derive(Clone, Debug)]
pub struct Database {
    options: PgConnectOptions,
}

impl Database {
    /// `pooled` is for a pooler in transaction mode (PgBouncer): it shares server connections
    /// between clients, so that neither session settings nor named statements may be relied on.
    pub fn new(options: PgConnectOptions, pooled: bool) -> Self {
        let options =
            options.application_name("tollgate").log_statements(tracing::log::LevelFilter::Off);
        let options = if pooled {
            options.extra_float_digits(None).statement_cache_capacity(0)
        } else {
            // A gateway that vanishes must not hold the commit lock for longer than this.
            options.options([
                ("TimeZone", "UTC"),
                ("idle_in_transaction_session_timeout", "30s"),
                ("tcp_keepalives_idle", "15"),
                ("tcp_keepalives_interval", "5"),
                ("tcp_keepalives_count", "3"),
                ("tcp_user_timeout", "30s"),
            ])
        };
        Self { options }
    }

    /// A connection of one's own, for a task that lives long.
    pub async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        tokio::time::timeout(CONNECT_TIMEOUT, PgConnection::connect_with(&self.options))
            .await
            .map_err(|_| sqlx::Error::PoolTimedOut)?
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
