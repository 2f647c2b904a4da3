//! What can go wrong with the embedded Postgres; each message says how to mend it.
//! Not here: deciding which of them is worth another try (see `server`).

use std::io;
use std::path::{Path, PathBuf};

/// Why the embedded Postgres could not be found, made, started or stopped.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// No usable Postgres on this system.
    #[error(
        "found no PostgreSQL 15 to 18 on this system: install it with `{install}`, name the folder \
         of its `initdb` and `postgres` in TOLLGATE_PG_BIN, or set DATABASE_URL to a server you run"
    )]
    NotFound { install: &'static str },

    /// The folder the user named is not one of a supported Postgres.
    #[error(
        "TOLLGATE_PG_BIN names {}, but {problem}; name the folder that holds `initdb` and \
         `postgres` of PostgreSQL 15 to 18", dir.display()
    )]
    BadBinDir { dir: PathBuf, problem: String },

    /// A cluster can only be read by the major version that made it.
    #[error(
        "the data in {} was made by PostgreSQL {wanted}, but {found}: install \
         PostgreSQL {wanted} or name its `bin` folder in TOLLGATE_PG_BIN (to move to another \
         version, dump with {wanted} and restore into a new --data-dir)", data_dir.display()
    )]
    OtherMajor { data_dir: PathBuf, wanted: u32, found: String },

    /// Another process owns the data directory.
    #[error(
        "another Tollgate is using {}: stop it first, or give this one a directory of its own \
         with --data-dir", data_dir.display()
    )]
    Locked { data_dir: PathBuf },

    /// The data directory is another user's, and so is what runs in it.
    #[error(
        "{} is another user's: run this as the user that runs the gateway, or name another \
         --data-dir", data_dir.display()
    )]
    Closed { data_dir: PathBuf },

    /// We are root, Postgres will not be, and its user cannot get at a folder.
    #[error(
        "Postgres refuses to run as root, so it runs as the user {user}, who may not enter {}: \
         choose a place that user can reach, such as --data-dir /var/lib/tollgate (for the \
         programs: TOLLGATE_PG_BIN), or run Tollgate as an ordinary user", dir.display()
    )]
    NotEnterable { dir: PathBuf, user: String },

    /// We are root and there is nobody to run Postgres as.
    #[error(
        "Postgres refuses to run as root, and this system has neither a user `postgres` nor \
         `nobody`: make one with `useradd --system postgres`, or run Tollgate as an ordinary user"
    )]
    NoAccount,

    /// `initdb`, or making the database afterwards, failed.
    #[error("could not make a database in {}: {program} said:\n{output}", data_dir.display())]
    Init { data_dir: PathBuf, program: &'static str, output: String },

    /// The cluster is there, its password is not.
    #[error(
        "{} is missing or empty though the database is there: restore it from a backup, or move \
         the directory `postgres` beside it away to begin with an empty database", path.display()
    )]
    NoPassword { path: PathBuf },

    /// The port the user asked for is in use.
    #[error("port {port} on 127.0.0.1 is in use by another program: choose another one, or none")]
    PortTaken { port: u16 },

    /// Somebody else made the folder we would put the socket in.
    #[error(
        "{} belongs to somebody else or is open to others: remove it, or choose a shorter \
         --data-dir so that it is not needed", dir.display()
    )]
    UnsafeSocketDir { dir: PathBuf },

    /// The server ended before it was ready.
    #[error("Postgres did not start; the end of {}:\n{tail}", log.display())]
    Exited { log: PathBuf, tail: String },

    /// The server runs but takes no connections yet; it is left to go on.
    #[error(
        "Postgres is not ready after {seconds} s. After a crash it may have much to recover: it \
         goes on, and the next start finds it. The end of {}:\n{tail}", log.display()
    )]
    NotReady { seconds: u64, log: PathBuf, tail: String },

    /// The server survived both SIGINT and SIGQUIT.
    #[error("Postgres (process {pid}) does not stop; see its log, or end it with `kill -9 {pid}`")]
    NotStopping { pid: i32 },

    /// The file system or the system refused something.
    #[error("cannot {action} {}: {reason}", path.display())]
    Io { action: &'static str, path: PathBuf, reason: io::Error },
}

/// For `map_err`: what was tried, and on what.
pub(super) fn io_error(
    action: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> EmbeddedError {
    move |reason| EmbeddedError::Io { action, path: path.to_owned(), reason }
}
