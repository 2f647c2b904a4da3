//! Runs a private, real Postgres (15 to 18) in the data directory, for users who bring no database.
//! Not here: pools, SQL and migrations; to the rest of Tollgate this is one more connection string.
//!
//! What lies in the data directory:
//!
//! | name | what |
//! |---|---|
//! | `postgres/` | the cluster (`PGDATA`); `postgres.init-*` is one whose `initdb` never finished |
//! | `run/` | the unix socket (elsewhere when the path would be too long for one) |
//! | `postgres.log`, `postgres.log.1` | what the server says |
//! | `password` | of the role `tollgate`, mode 0600 |
//! | `port` | the loopback port chosen at the first start |
//! | `lock` | locked by the gateway that owns the directory, for as long as it lives |

mod account;
mod cluster;
mod discover;
mod error;
mod home;
mod pidfile;
mod process;
mod server;

use std::fmt;
use std::path::{Path, PathBuf};

use sqlx::postgres::PgConnectOptions;

pub use discover::PgInstall;
pub use error::EmbeddedError;
pub use server::{Postgres, examine, running};

/// Role and database of the gateway.
const NAME: &str = "tollgate";

/// How to run the embedded Postgres.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where everything lives; made when missing.
    pub data_dir: PathBuf,
    /// The folder of `initdb` and `postgres` (`TOLLGATE_PG_BIN`); `None` looks for one.
    pub bin_dir: Option<PathBuf>,
    /// The loopback port; `None` chooses a free one and keeps it over restarts.
    pub port: Option<u16>,
}

/// How to reach the server: over its unix socket, or over TCP on 127.0.0.1.
#[derive(Clone, PartialEq, Eq)]
pub struct Connection {
    /// The folder of the unix socket.
    pub socket_dir: PathBuf,
    /// Names the socket, and is the TCP port on 127.0.0.1.
    pub port: u16,
    /// The role, a superuser of this private server.
    pub user: String,
    /// Its generated password; hexadecimal, so it needs no escaping.
    pub password: String,
    /// The database.
    pub database: String,
}

impl Connection {
    /// The TCP connection string, password included: not for logs.
    #[must_use]
    pub fn url(&self) -> String {
        let Self { port, user, password, database, .. } = self;
        format!("postgres://{user}:{password}@127.0.0.1:{port}/{database}")
    }

    /// How the gateway itself reaches the server: over its socket, which is faster than TCP.
    #[must_use]
    pub fn options(&self) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .socket(&self.socket_dir)
            .port(self.port)
            .username(&self.user)
            .password(&self.password)
            .database(&self.database)
    }
}

/// Renames a data directory that nobody uses to `….old`, in place of one that was put aside before;
/// the new name.
///
/// # Errors
/// If another process owns it, or it cannot be renamed.
pub fn put_aside(data_dir: &Path) -> Result<PathBuf, EmbeddedError> {
    home::put_aside(data_dir)
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("socket_dir", &self.socket_dir)
            .field("port", &self.port)
            .field("user", &self.user)
            .field("password", &"[redacted]")
            .field("database", &self.database)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_a_url_but_does_not_print_its_password() {
        let connection = Connection {
            socket_dir: "/run/x".into(),
            port: 5433,
            user: NAME.into(),
            password: "s3cret".into(),
            database: NAME.into(),
        };
        assert_eq!(connection.url(), "postgres://tollgate:s3cret@127.0.0.1:5433/tollgate");
        assert!(!format!("{connection:?}").contains("s3cret"));
    }
}
