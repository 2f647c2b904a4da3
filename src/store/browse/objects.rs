//! Billing objects with what the machine knows of them, and those whose newest event only ids
//! decided. The events of an object are found by `events` with a filter.

use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};
use time::OffsetDateTime;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::BrowseError;

/// Objects of one id that are shown: of several accounts, say.
const NAMESAKES: i64 = 20;

/// How long all tables may be looked through for ties.
const PATIENCE: Duration = Duration::from_secs(2);

/// A row of a billing table.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct BillingObject {
    /// The table in the schema `stripe`.
    pub table: String,
    pub account: String,
    pub livemode: bool,
    pub id: String,
    /// How its newest event was told: unique, same, chain, pairwise, rank or tiebreak.
    pub order_basis: String,
    /// When Stripe made the event that it shows.
    #[serde(with = "time::serde::rfc3339")]
    pub as_of: OffsetDateTime,
    /// The id of that event.
    pub as_of_event: String,
    pub deleted: bool,
    /// All other columns, as the table has them.
    #[schema(value_type = Object)]
    pub columns: Map<String, Value>,
    /// The whole object, as that event shows it.
    #[schema(value_type = Object)]
    pub object: Box<RawValue>,
}

/// The billing tables.
pub async fn tables(connection: &mut PgConnection) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar("SELECT tollgate.billing_tables()").fetch_all(connection).await
}

/// The objects of this id in a table: one, but for other accounts, and test data beside live.
///
/// # Errors
/// There is no such table.
pub async fn find(
    connection: &mut PgConnection,
    table: &str,
    id: &str,
) -> Result<Vec<BillingObject>, BrowseError> {
    let tables = tables(connection).await?;
    if !tables.iter().any(|known| known == table) {
        let tables = tables.join(", ");
        return Err(BrowseError::invalid(format!(
            "there is no such billing table; there are: {tables}"
        )));
    }
    super::steer(connection).await?;
    Ok(rows_of(connection, table, id).await?)
}

/// The same, where the table is known to be there, and the planner steered.
async fn rows_of(
    connection: &mut PgConnection,
    table: &str,
    id: &str,
) -> Result<Vec<BillingObject>, sqlx::Error> {
    if id.contains('\0') {
        return Ok(Vec::new());
    }
    // Accounts come first in the tables' keys, and the log knows which have it; or nobody, if it has
    // dropped their events. Then all are looked through, one step of the index for each.
    let sql = format!(
        "SELECT t.account, t.livemode, t.id, t.order_basis, t.as_of, t.as_of_event, t.deleted, t.object::text AS object,
                (to_jsonb(t) - ARRAY['object', 'account', 'livemode', 'id', 'order_basis', 'as_of', 'as_of_event', 'deleted'])::text
                AS columns
         FROM (WITH RECURSIVE told AS MATERIALIZED (
                   SELECT DISTINCT n.account, n.livemode FROM (
                       SELECT l.account, l.livemode FROM tollgate.event_log l WHERE l.object_id = $1 LIMIT 10000) n
               ), owner AS (
                   (SELECT s.account, s.livemode FROM stripe.{table} s
                    WHERE NOT EXISTS (SELECT FROM told) ORDER BY s.account, s.livemode LIMIT 1)
                   UNION ALL
                   SELECT n.account, n.livemode FROM owner w CROSS JOIN LATERAL (
                       SELECT s.account, s.livemode FROM stripe.{table} s
                       WHERE (s.account, s.livemode) > (w.account, w.livemode) ORDER BY s.account, s.livemode LIMIT 1) n
               )
               SELECT * FROM told UNION ALL (SELECT * FROM owner LIMIT 10000)) o
         CROSS JOIN LATERAL (
             SELECT * FROM stripe.{table} s WHERE s.account = o.account AND s.livemode = o.livemode AND s.id = $1) t
         ORDER BY t.livemode DESC, t.account LIMIT $2"
    );
    let rows =
        sqlx::query(AssertSqlSafe(sql)).bind(id).bind(NAMESAKES).fetch_all(connection).await?;
    let object = |row: &sqlx::postgres::PgRow| {
        let (columns, object): (String, String) = (row.try_get("columns")?, row.try_get("object")?);
        Ok(BillingObject {
            table: table.to_owned(),
            account: row.try_get("account")?,
            livemode: row.try_get("livemode")?,
            id: row.try_get("id")?,
            order_basis: row.try_get("order_basis")?,
            as_of: row.try_get("as_of")?,
            as_of_event: row.try_get("as_of_event")?,
            deleted: row.try_get("deleted")?,
            columns: serde_json::from_str(&columns).unwrap_or_default(),
            object: RawValue::from_string(object).unwrap_or_default(),
        })
    };
    rows.iter().map(object).collect()
}

/// The objects of this id in all tables: for ids of which no event tells the table.
///
/// # Errors
/// If the database fails.
pub async fn find_anywhere(
    connection: &mut PgConnection,
    id: &str,
) -> Result<Vec<BillingObject>, sqlx::Error> {
    let mut found = Vec::new();
    super::steer(connection).await?;
    for table in tables(connection).await? {
        found.extend(rows_of(connection, &table, id).await?);
    }
    Ok(found)
}

/// An object with several events in its newest second, of which only the ids decided.
#[derive(Clone, Debug, Serialize, ToSchema, sqlx::FromRow)]
pub struct Tie {
    pub table: String,
    pub account: String,
    pub livemode: bool,
    pub id: String,
    #[serde(with = "time::serde::rfc3339")]
    pub as_of: OffsetDateTime,
    pub as_of_event: String,
}

/// Ties, newest first.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Ties {
    pub items: Vec<Tie>,
    /// Tables that were not looked through, because they are too large for it to be done at once:
    /// ask for each alone, or in SQL for `stripe.order_ties`.
    pub unfinished: Vec<String>,
}

/// What only ids decided, in all tables or one: the newest `most` of each table. No index leads to
/// them, as it would cost every event; so time is bounded.
pub async fn ties(
    connection: &mut PgConnection,
    table: Option<&str>,
    most: i64,
) -> Result<Ties, BrowseError> {
    let mut all = tables(connection).await?;
    if let Some(only) = table {
        all.retain(|known| known == only);
        if all.is_empty() {
            return Err(BrowseError::invalid("table: there is no such billing table"));
        }
    }
    let mut ties = Ties { items: Vec::new(), unfinished: Vec::new() };
    let began = Instant::now();
    for table in all {
        let left = PATIENCE.saturating_sub(began.elapsed());
        let sql = format!(
            "SELECT '{table}' AS table, account, livemode, id, as_of, as_of_event FROM stripe.{table}
             WHERE order_basis = 'tiebreak' AND NOT deleted ORDER BY as_of DESC, id LIMIT {most}"
        );
        let found = within(connection, left, async |connection| {
            sqlx::query_as(AssertSqlSafe(sql)).fetch_all(connection).await
        });
        match found.await? {
            Some(found) => ties.items.extend::<Vec<Tie>>(found),
            None => ties.unfinished.push(table),
        }
    }
    ties.items.sort_by(|a, b| (b.as_of, &a.id).cmp(&(a.as_of, &b.id)));
    ties.items.truncate(usize::try_from(most).unwrap_or(0));
    Ok(ties)
}

/// What `work` reads, or None if the database takes longer than `limit` for it.
pub(super) async fn within<T>(
    connection: &mut PgConnection,
    limit: Duration,
    work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
) -> Result<Option<T>, sqlx::Error> {
    if limit.is_zero() {
        return Ok(None);
    }
    // A savepoint, if this is a transaction already.
    let mut part = connection.begin().await?;
    let set = "SELECT set_config('statement_timeout', $1, true), set_config('jit', 'off', true)";
    let millis = limit.as_millis().max(1).to_string();
    sqlx::query(set).bind(millis).execute(&mut *part).await?;
    let done = work(&mut part).await;
    // Back to before it, the setting too: nothing was written.
    part.rollback().await?;
    match done {
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("57014") => Ok(None),
        done => done.map(Some),
    }
}
