//! `tollgate.audit_log`: who did what, when. What counts as an action is up to the callers, who
//! write it in the transaction that does it.

use serde_json::Value;
use sqlx::{PgConnection, Row};
use time::OffsetDateTime;

/// One entry.
#[derive(Clone, Debug)]
pub struct Entry {
    pub entry: i64,
    pub at: OffsetDateTime,
    pub actor: String,
    pub action: String,
    pub subject: String,
    pub detail: Value,
}

/// Notes what `actor` does.
pub async fn record(
    connection: &mut PgConnection,
    actor: &str,
    action: &str,
    subject: &str,
    detail: &Value,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO tollgate.audit_log (actor, action, subject, detail) VALUES ($1, $2, $3, $4::text::jsonb)",
    )
    .bind(actor)
    .bind(action)
    .bind(subject)
    .bind(detail.to_string().replace("\\u0000", "\\ufffd"))
    .execute(connection)
    .await
    .map(drop)
}

/// The newest entries before `before`, newest first.
pub async fn newest(
    connection: &mut PgConnection,
    before: Option<i64>,
    most: i64,
) -> Result<Vec<Entry>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT entry, at, actor, action, subject, detail::text FROM tollgate.audit_log
         WHERE entry < coalesce($1, 9223372036854775807) ORDER BY entry DESC LIMIT $2",
    )
    .bind(before)
    .bind(most)
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            let detail: String = row.try_get(5)?;
            Ok(Entry {
                entry: row.try_get(0)?,
                at: row.try_get(1)?,
                actor: row.try_get(2)?,
                action: row.try_get(3)?,
                subject: row.try_get(4)?,
                detail: serde_json::from_str(&detail).unwrap_or_default(),
            })
        })
        .collect()
}
