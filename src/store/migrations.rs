//! Brings a database to the schema this binary was built with, and tells whether it is there.
//! The schema itself is in `migrations/`.

use std::fmt;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::PgConnection;

/// Kept in our own schema: the database is shared with the user's tables, and the user may well
/// run sqlx migrations of their own in `public`.
const TABLE: &str = "tollgate.migrations";

fn migrator() -> Migrator {
    let mut migrator = sqlx::migrate!("./migrations");
    migrator.create_schema("tollgate");
    // An older replica may start again while a newer one is being rolled out.
    migrator.set_ignore_missing(true);
    migrator.dangerous_set_table_name(TABLE);
    migrator
}

/// Applies what is missing. Safe to call from several replicas at once: sqlx holds an advisory
/// lock meanwhile.
pub async fn run(connection: &mut PgConnection) -> Result<(), MigrateError> {
    migrator().run(connection).await
}

/// Whether the database holds a migration of another text than this binary's, as builds between two
/// releases may leave behind.
pub fn of_another_build(error: &MigrateError) -> bool {
    matches!(error, MigrateError::VersionMismatch(_))
}

/// How a database's schema compares with this binary's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchemaState {
    /// Everything is applied.
    Current { version: i64 },
    /// `tollgate migrate` is due; 0 if nothing is applied.
    Behind { version: i64, wanted: i64 },
    /// A newer binary has been here. Migrations only go forward, and older binaries keep working
    /// while one is rolled out.
    Ahead { version: i64, wanted: i64 },
}

impl fmt::Display for SchemaState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Current { version } => write!(f, "schema {version}, up to date"),
            Self::Behind { version, wanted } => {
                write!(f, "schema {version}, but {wanted} is wanted: run tollgate migrate")
            }
            Self::Ahead { version, wanted } => {
                write!(f, "schema {version} is newer than this binary's {wanted}")
            }
        }
    }
}

/// Compares the newest applied migration with the newest known one.
pub async fn state(connection: &mut PgConnection) -> Result<SchemaState, sqlx::Error> {
    let wanted = migrator().iter().map(|migration| migration.version).max().unwrap_or(0);
    let exists: bool = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL")
        .bind(TABLE)
        .fetch_one(&mut *connection)
        .await?;
    let version: i64 = if exists {
        sqlx::query_scalar(
            "SELECT coalesce(max(version), 0) FROM tollgate.migrations WHERE success",
        )
        .fetch_one(&mut *connection)
        .await?
    } else {
        0
    };
    Ok(match version.cmp(&wanted) {
        std::cmp::Ordering::Less => SchemaState::Behind { version, wanted },
        std::cmp::Ordering::Equal => SchemaState::Current { version },
        std::cmp::Ordering::Greater => SchemaState::Ahead { version, wanted },
    })
}
