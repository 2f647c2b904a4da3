//! Consumers as people manage them: made, changed, paused, rewound, looked at, and their dead
//! letters. Each function calls one of `migrations/0008_targets.sql`, which also check the values.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use time::OffsetDateTime;

/// What a consumer is like; what is None stays as it is, or gets its default. Times in seconds.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ConsumerOptions {
    pub types: Option<Vec<String>>,
    pub ordering: Option<String>,
    pub max_attempts: Option<i32>,
    pub lease: Option<f64>,
    pub retry_first: Option<f64>,
    pub retry_most: Option<f64>,
    #[serde(flatten)]
    pub filter: ConsumerFilter,
}

/// Which part of the log it is for; what is None stays as it is, or does not matter.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ConsumerFilter {
    pub endpoints: Option<Vec<String>>,
    /// An empty text for the platform's own.
    pub accounts: Option<Vec<String>>,
    pub livemode: Option<bool>,
    /// All of which the object of an event must have.
    pub metadata: Option<BTreeMap<String, String>>,
    /// Parts to do without from now on, by their names in the database.
    pub unset: Vec<String>,
}

/// The URL of a target, `s.url`, as it may be shown: without user, password and query.
pub(super) const SHOWN_URL: &str =
    r"regexp_replace(regexp_replace(s.url, '//[^/?#]*@', '//…@'), '\?.*', '?…')";

/// What stands for the platform's own account, where people name accounts.
pub const PLATFORM: &str = "platform";

/// Accounts as the log has them: the platform's own events have none.
pub fn accounts(named: Vec<String>) -> Vec<String> {
    named.into_iter().map(|it| if it == PLATFORM { String::new() } else { it }).collect()
}

impl ConsumerFilter {
    /// All texts in it, which must be such as the database can hold.
    pub fn texts(&self) -> impl Iterator<Item = &String> {
        let metadata = self.metadata.iter().flatten().flat_map(|(key, value)| [key, value]);
        self.endpoints.iter().flatten().chain(self.accounts.iter().flatten()).chain(metadata)
    }
}

/// Where its events go; what is None stays as it is, or gets its default. Times in seconds.
#[derive(Clone, Default)]
pub struct TargetOptions {
    pub url: Option<String>,
    pub secrets: Option<Vec<String>>,
    pub timeout: Option<f64>,
    pub concurrency: Option<i32>,
    /// Attempts per second; 0 for no limit.
    pub rate: Option<f64>,
    pub burst: Option<i32>,
    pub subject: Option<String>,
    pub breaker_after: Option<i32>,
    pub breaker_wait: Option<f64>,
}

/// What people look at: a row as JSON, column by column.
pub type Row = Map<String, Value>;

/// Makes a consumer that begins at `start`, with a target if `target` is there; returns the
/// position after which it begins, and the signing secret of a push.
pub async fn create(
    connection: &mut PgConnection,
    name: &str,
    start: &str,
    options: &ConsumerOptions,
    target: Option<&TargetOptions>,
) -> Result<(i64, Option<String>), sqlx::Error> {
    let mut transaction = connection.begin().await?;
    let cursor = sqlx::query_scalar(
        "SELECT tollgate.create_consumer($1, start => $2, ordering => coalesce($3, 'none'))",
    )
    .bind(name)
    .bind(start)
    .bind(&options.ordering)
    .fetch_one(&mut *transaction)
    .await?;
    alter_consumer(&mut transaction, name, options).await?;
    let secret = match target {
        Some(target) => set_target(&mut transaction, name, target).await?,
        None => None,
    };
    transaction.commit().await?;
    Ok((cursor, secret))
}

/// Changes what is given, all of it or nothing; returns the signing secret of a push.
pub async fn alter(
    connection: &mut PgConnection,
    name: &str,
    options: &ConsumerOptions,
    target: Option<&TargetOptions>,
) -> Result<Option<String>, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    let secret = match target {
        None => {
            alter_consumer(&mut transaction, name, options).await?;
            None
        }
        // The lease is at least twice the timeout at all times: one that shrinks goes before the lease
        // does, one that grows after it.
        Some(target) if shortens(&mut transaction, name, target).await? => {
            let secret = set_target(&mut transaction, name, target).await?;
            alter_consumer(&mut transaction, name, options).await?;
            secret
        }
        Some(target) => {
            alter_consumer(&mut transaction, name, options).await?;
            set_target(&mut transaction, name, target).await?
        }
    };
    transaction.commit().await?;
    Ok(secret)
}

/// Whether the target's timeout becomes shorter.
async fn shortens(
    connection: &mut PgConnection,
    name: &str,
    target: &TargetOptions,
) -> Result<bool, sqlx::Error> {
    let longer =
        "SELECT timeout > make_interval(secs => $2) FROM tollgate.targets WHERE consumer = $1";
    let longer: Option<Option<bool>> = sqlx::query_scalar(longer)
        .bind(name)
        .bind(target.timeout)
        .fetch_optional(connection)
        .await?;
    Ok(longer.flatten() == Some(true))
}

async fn alter_consumer(
    connection: &mut PgConnection,
    name: &str,
    options: &ConsumerOptions,
) -> Result<(), sqlx::Error> {
    let filter = &options.filter;
    sqlx::query(
        "SELECT tollgate.alter_consumer($1, $2, $3, $4, make_interval(secs => $5),
                                        make_interval(secs => $6), make_interval(secs => $7),
                                        $8, $9, $10, $11::text::jsonb, $12)",
    )
    .bind(name)
    .bind(&options.types)
    .bind(&options.ordering)
    .bind(options.max_attempts)
    .bind(options.lease)
    .bind(options.retry_first)
    .bind(options.retry_most)
    .bind(&filter.endpoints)
    .bind(&filter.accounts)
    .bind(filter.livemode)
    .bind(filter.metadata.as_ref().map(|metadata| json!(metadata).to_string()))
    .bind(&filter.unset)
    .execute(connection)
    .await
    .map(drop)
}

/// Has the gateway deliver; returns the signing secret of a push.
async fn set_target(
    connection: &mut PgConnection,
    name: &str,
    target: &TargetOptions,
) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT tollgate.set_target($1, $2, $3, make_interval(secs => $4), $5, $6, $7, $8, $9,
                                    make_interval(secs => $10))",
    )
    .bind(name)
    .bind(&target.url)
    .bind(&target.secrets)
    .bind(target.timeout)
    .bind(target.concurrency)
    .bind(target.rate)
    .bind(target.burst)
    .bind(&target.subject)
    .bind(target.breaker_after)
    .bind(target.breaker_wait)
    .fetch_one(connection)
    .await
}

/// Has workers claim again what the gateway delivered.
pub async fn unset_target(connection: &mut PgConnection, name: &str) -> Result<(), sqlx::Error> {
    run(connection, "SELECT tollgate.unset_target($1)", name).await
}

/// Whether there is such a consumer.
pub async fn exists(connection: &mut PgConnection, name: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT EXISTS (SELECT FROM tollgate.consumers WHERE name = $1)")
        .bind(name)
        .fetch_one(connection)
        .await
}

/// The signing secrets of a push; none if it has no target.
pub async fn secrets(
    connection: &mut PgConnection,
    name: &str,
) -> Result<Vec<String>, sqlx::Error> {
    let secrets: Option<Vec<String>> =
        sqlx::query_scalar("SELECT secrets FROM tollgate.targets WHERE consumer = $1")
            .bind(name)
            .fetch_optional(connection)
            .await?;
    Ok(secrets.unwrap_or_default())
}

/// Hands out no more.
pub async fn pause(
    connection: &mut PgConnection,
    name: &str,
    because: Option<&str>,
) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT tollgate.pause_consumer($1, $2)")
        .bind(name)
        .bind(because)
        .execute(connection)
        .await
        .map(drop)
}

/// Hands out again.
pub async fn resume(connection: &mut PgConnection, name: &str) -> Result<(), sqlx::Error> {
    run(connection, "SELECT tollgate.resume_consumer($1)", name).await
}

/// Goes to another place in the log; returns the position after which it goes on.
pub async fn reset(
    connection: &mut PgConnection,
    name: &str,
    start: &str,
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT tollgate.reset_consumer($1, $2)")
        .bind(name)
        .bind(start)
        .fetch_one(connection)
        .await
}

/// Ends a consumer, with all that it has not done.
pub async fn drop_consumer(connection: &mut PgConnection, name: &str) -> Result<(), sqlx::Error> {
    run(connection, "SELECT tollgate.drop_consumer($1)", name).await
}

async fn run(
    connection: &mut PgConnection,
    sql: &'static str,
    name: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query(sql).bind(name).execute(connection).await.map(drop)
}

/// How consumers do: all, or one.
pub async fn status(
    connection: &mut PgConnection,
    name: Option<&str>,
) -> Result<Vec<Row>, sqlx::Error> {
    let rows = sqlx::query_scalar(AssertSqlSafe(format!(
        "SELECT (to_jsonb(s) || jsonb_build_object('url', {SHOWN_URL}))::text
         FROM tollgate.consumer_status s
         WHERE $1 IS NULL OR s.name = $1 ORDER BY s.name"
    )));
    rows.bind(name).fetch_all(connection).await.map(|rows| parsed(&rows))
}

/// Dead letters, newest first: of all consumers, or one; all positions, or one.
pub async fn dead_letters(
    connection: &mut PgConnection,
    consumer: Option<&str>,
    position: Option<i64>,
    most: i64,
) -> Result<Vec<Row>, sqlx::Error> {
    let rows = sqlx::query_scalar(
        "SELECT to_jsonb(d)::text FROM tollgate.dead_letters d
         WHERE ($1 IS NULL OR d.consumer = $1) AND ($2 IS NULL OR d.position = $2)
         ORDER BY d.died_at DESC, d.consumer, d.position LIMIT $3",
    );
    let rows = rows.bind(consumer).bind(position).bind(most).fetch_all(connection);
    rows.await.map(|rows| parsed(&rows))
}

/// The attempts at an event that are kept, oldest first.
pub async fn attempts(
    connection: &mut PgConnection,
    consumer: &str,
    position: i64,
) -> Result<Vec<Row>, sqlx::Error> {
    let rows = sqlx::query_scalar(
        "SELECT (to_jsonb(a) || jsonb_build_object('took', extract(epoch FROM a.took)))::text
         FROM tollgate.attempts a WHERE a.consumer = $1 AND a.position = $2 ORDER BY a.at",
    );
    rows.bind(consumer).bind(position).fetch_all(connection).await.map(|rows| parsed(&rows))
}

/// Which dead letters.
#[derive(Clone, Copy, Debug)]
pub struct Selection<'a> {
    pub consumer: &'a str,
    /// One of them.
    pub position: Option<i64>,
    /// Those that died then or later.
    pub since: Option<OffsetDateTime>,
    /// Those that died then or earlier.
    pub until: Option<OffsetDateTime>,
}

/// Hands dead letters out again; returns how many.
pub async fn retry_dead_letters(
    connection: &mut PgConnection,
    which: Selection<'_>,
) -> Result<i64, sqlx::Error> {
    let sql = "SELECT tollgate.retry_dead_letters($1, $2, coalesce($3, '-infinity'), coalesce($4, 'infinity'))";
    settle(connection, sql, which).await
}

/// Forgets dead letters; returns how many.
pub async fn discard_dead_letters(
    connection: &mut PgConnection,
    which: Selection<'_>,
) -> Result<i64, sqlx::Error> {
    let sql = "SELECT tollgate.discard_dead_letters($1, $2, coalesce($3, '-infinity'), coalesce($4, 'infinity'))";
    settle(connection, sql, which).await
}

async fn settle(
    connection: &mut PgConnection,
    sql: &'static str,
    Selection { consumer, position, since, until }: Selection<'_>,
) -> Result<i64, sqlx::Error> {
    let query = sqlx::query_scalar(sql).bind(consumer).bind(position).bind(since).bind(until);
    query.fetch_one(connection).await
}

/// What `to_jsonb` writes is always an object.
fn parsed(rows: &[String]) -> Vec<Row> {
    rows.iter().filter_map(|row| serde_json::from_str(row).ok()).collect()
}
