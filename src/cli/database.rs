//! What commands that go straight to the database share: the way to it, and its words for people.
//! What they ask stands in `store`.

use sqlx::PgConnection;
use sqlx::postgres::PgDatabaseError;

use super::flags::SettingFlags;
use crate::startup::Backend;

/// A connection to the gateway's database.
pub async fn connect(flags: &SettingFlags) -> anyhow::Result<PgConnection> {
    let (settings, _) = flags.settings()?;
    Ok(Backend::attach(&settings.database)?.direct.connect().await?)
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
