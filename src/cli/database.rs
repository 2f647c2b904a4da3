//! What commands that go straight to the database share: the way to it, and its words for people.
//! What they ask stands in `store`.

use serde_json::{Value, json};
use sqlx::postgres::PgDatabaseError;
use sqlx::{Connection, PgConnection};

use super::flags::SettingFlags;
use crate::startup::Backend;
use crate::store::audit;

/// A connection to the gateway's database.
pub async fn connect(flags: &SettingFlags) -> anyhow::Result<PgConnection> {
    let (settings, _) = flags.settings()?;
    Ok(Backend::attach(&settings.database)?.direct.connect().await?)
}

/// Does something, and notes it in the audit log in the same transaction.
pub async fn act<T>(
    flags: &SettingFlags,
    action: &str,
    subject: &str,
    detail: Value,
    work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
) -> anyhow::Result<T> {
    let mut connection = connect(flags).await?;
    let mut transaction = connection.begin().await?;
    let done = said(work(&mut transaction).await)?;
    audit::record(&mut transaction, &operator(), action, subject, &detail).await?;
    transaction.commit().await?;
    Ok(done)
}

/// As `act`, but there may be nothing to do it to: then `work` says false, and nothing is noted.
pub async fn act_if_there(
    flags: &SettingFlags,
    action: &str,
    subject: &str,
    work: impl AsyncFnOnce(&mut PgConnection) -> Result<bool, sqlx::Error>,
) -> anyhow::Result<bool> {
    let mut connection = connect(flags).await?;
    let mut transaction = connection.begin().await?;
    let done = said(work(&mut transaction).await)?;
    if done {
        audit::record(&mut transaction, &operator(), action, subject, &json!({})).await?;
        transaction.commit().await?;
    }
    Ok(done)
}

/// Who runs the command, as the audit log calls them.
pub fn operator() -> String {
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
