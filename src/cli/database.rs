//! What commands that go straight to the database share: the way to it, and its words for people.
//! What they ask stands in `store`, what they do in
//! `http::admin::actions`.

use sqlx::postgres::PgDatabaseError;
use sqlx::{Connection, PgConnection};

use super::flags::SettingFlags;
use crate::http::admin::AdminError;
use crate::startup::Backend;
use crate::store::migrations::{self, SchemaState};

/// A connection to the gateway's database.
pub async fn connect(flags: &SettingFlags) -> anyhow::Result<PgConnection> {
    let settings = flags.settings()?;
    Ok(Backend::attach(&settings.database)?.direct.connect().await?)
}

/// The state of the schema, which must not be older than this program wants.
pub async fn current_schema(connection: &mut PgConnection) -> anyhow::Result<SchemaState> {
    match migrations::state(connection).await? {
        behind @ SchemaState::Behind { .. } => anyhow::bail!("{behind}"),
        state => Ok(state),
    }
}

/// Does something that the audit log tells of, in one transaction, as whoever runs the command.
pub async fn act<T>(
    flags: &SettingFlags,
    work: impl AsyncFnOnce(&mut PgConnection, &str) -> Result<T, AdminError>,
) -> anyhow::Result<T> {
    let mut connection = connect(flags).await?;
    let mut transaction = connection.begin().await?;
    let done = work(&mut transaction, &operator()).await?;
    transaction.commit().await?;
    Ok(done)
}

/// Who runs the command, as the audit log calls them.
fn operator() -> String {
    let user = nix::unistd::Uid::effective();
    let name = nix::unistd::User::from_uid(user).ok().flatten();
    format!("cli:{}", name.map_or_else(|| user.to_string(), |user| user.name))
}

/// What the database says, without the words around it, and what it suggests.
pub fn said<T>(result: Result<T, sqlx::Error>) -> anyhow::Result<T> {
    result.map_err(|error| match words(&error) {
        Some(words) => anyhow::anyhow!(words),
        None => error.into(),
    })
}

fn words(error: &sqlx::Error) -> Option<String> {
    let error = error.as_database_error()?;
    let hint = error.try_downcast_ref::<PgDatabaseError>().and_then(PgDatabaseError::hint);
    Some(match hint {
        Some(hint) => format!("{} ({})", error.message(), hint.trim_end_matches('.')),
        None => error.message().to_owned(),
    })
}
