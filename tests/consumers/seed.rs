//! A database with a log in it, without a gateway, and what a worker does in SQL. Leases and waits
//! are ended by hand, so that no test sleeps through one.

use std::fmt::Display;

use sqlx::postgres::{PgHasArrayType, PgRow};
use sqlx::{
    AssertSqlSafe, Connection, Decode, Executor, PgConnection, PgPool, Postgres, Row, Type,
};
use tollgate::store::migrations;

use crate::support::postgres;

/// A migrated database of its own.
pub struct Log {
    pub pool: PgPool,
    pub url: String,
}

/// What `tollgate.claim` handed out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// 0 if nothing was.
    pub claim: i64,
    pub positions: Vec<i64>,
    pub attempts: Vec<i32>,
    pub objects: Vec<Option<String>>,
}

impl Log {
    pub async fn new() -> Self {
        Self::on(postgres::fresh_database().await).await
    }

    pub async fn on(url: String) -> Self {
        let mut connection = PgConnection::connect(&url).await.unwrap();
        migrations::run(&mut connection).await.unwrap();
        Self { pool: PgPool::connect(&url).await.unwrap(), url }
    }

    /// So many events invoice.paid, each of an object of its own, from the next position on.
    pub async fn seed(&self, n: i64) {
        self.seed_objects(n, n).await;
    }

    /// So many events, of so many objects by turns.
    pub async fn seed_objects(&self, n: i64, objects: i64) {
        let object = format!("'in_' || (i % {objects})");
        self.insert(n, "'invoice.paid'", &object, "convert_to(format('{\"n\":%s}', i), 'UTF8')")
            .await;
    }

    /// One event of this type and object; returns its position.
    pub async fn event(&self, kind: &str, object: &str) -> i64 {
        self.insert(1, &format!("'{kind}'"), &format!("'{object}'"), "'{}'").await;
        self.latest().await
    }

    /// The last position there is.
    pub async fn latest(&self) -> i64 {
        self.one("SELECT max(position) FROM tollgate.positions").await
    }

    /// Events numbered `i`, whose values are these expressions.
    pub async fn insert(&self, n: i64, kind: &str, object: &str, raw: &str) {
        self.sql(format!(
            "WITH new AS (
                INSERT INTO tollgate.event_log (created, id, endpoint, account, livemode, type, object_type, object_id, source, raw)
                SELECT now(), format('evt_%s_%s', b, i), 'default', '', false, {kind}, 'invoice', {object}, 'webhook', {raw}
                FROM generate_series(1, {n}) i, (SELECT coalesce(max(position), 0) AS b FROM tollgate.positions) p
                RETURNING created, id)
             SELECT tollgate.place_events(array_agg(created), array_agg(id::text), NULL, 'off') FROM new"
        ))
        .await;
    }

    /// A consumer that begins with the first event; `more` are further arguments.
    pub async fn consumer(&self, name: &str, more: &str) {
        let comma = if more.is_empty() { "" } else { ", " };
        self.sql(format!(
            "SELECT tollgate.create_consumer('{name}', start => 'earliest'{comma}{more})"
        ))
        .await;
    }

    pub async fn sql(&self, sql: impl Into<String>) {
        let sql = sql.into();
        if let Err(error) = self.pool.execute(AssertSqlSafe(sql.clone())).await {
            panic!("{error}\n{sql}");
        }
    }

    /// One value.
    pub async fn one<T>(&self, sql: impl Into<String>) -> T
    where
        T: for<'r> Decode<'r, Postgres> + Type<Postgres> + Send + Unpin,
    {
        let sql = sql.into();
        let row = self.pool.fetch_one(AssertSqlSafe(sql.clone())).await;
        row.unwrap_or_else(|error| panic!("{error}\n{sql}")).get(0)
    }

    /// A column of values.
    pub async fn all<T>(&self, sql: impl Into<String>) -> Vec<T>
    where
        T: for<'r> Decode<'r, Postgres> + Type<Postgres> + PgHasArrayType + Send + Unpin,
    {
        let sql = sql.into();
        let rows = self.pool.fetch_all(AssertSqlSafe(sql.clone())).await;
        rows.unwrap_or_else(|error| panic!("{error}\n{sql}")).iter().map(|row| row.get(0)).collect()
    }

    /// The SQLSTATE with which this fails; for a constraint, its name.
    pub async fn refusal(&self, sql: impl Into<String>) -> String {
        let sql = sql.into();
        let Err(error) = self.pool.execute(AssertSqlSafe(sql.clone())).await else {
            panic!("this should have failed: {sql}")
        };
        let error = error.into_database_error().expect("an answer of the database");
        let constraint = error.constraint().map(str::to_owned);
        constraint.unwrap_or_else(|| error.code().unwrap_or_default().into_owned())
    }

    pub async fn claim(&self, consumer: &str, max: i32) -> Batch {
        claim(&self.pool, consumer, max).await.unwrap()
    }

    pub async fn ack(&self, claim: i64) -> i32 {
        self.one(format!("SELECT tollgate.ack({claim})")).await
    }

    pub async fn ack_some(&self, claim: i64, positions: &[i64]) -> i32 {
        self.one(format!("SELECT tollgate.ack({claim}, ARRAY{positions:?}::bigint[])")).await
    }

    /// With a wait of nothing, unless `more` says otherwise; returns waiting or dead.
    pub async fn nack(&self, claim: i64, position: i64, more: &str) -> String {
        let more = if more.is_empty() { "retry_in => '0'" } else { more };
        self.one(format!("SELECT tollgate.nack({claim}, {position}, 'no', {more})")).await
    }

    /// Ends the lease of a claim.
    pub async fn lapse(&self, claim: i64) {
        self.sql(format!(
            "UPDATE tollgate.claims SET expires_at = now() - interval '1 second' WHERE claim = {claim}"
        ))
        .await;
    }

    /// Ends all waits.
    pub async fn let_time_pass(&self) {
        self.sql("UPDATE tollgate.deliveries SET next_attempt = now() - interval '1 second' WHERE state = 'waiting'")
            .await;
    }

    /// One column of the consumer's status.
    pub async fn status(&self, consumer: &str, column: &str) -> i64 {
        self.one(format!(
            "SELECT {column}::bigint FROM tollgate.consumer_status WHERE name = '{consumer}'"
        ))
        .await
    }

    /// Positions of its rows in a state.
    pub async fn rows(&self, consumer: &str, state: &str) -> Vec<i64> {
        self.all(format!(
            "SELECT position FROM tollgate.deliveries
             WHERE consumer = '{consumer}' AND state = '{state}' ORDER BY 1"
        ))
        .await
    }

    /// Takes and settles everything there is, batch by batch; returns it in the order it came.
    pub async fn drain(&self, consumer: &str) -> Vec<i64> {
        let mut seen = Vec::new();
        loop {
            let batch = self.claim(consumer, 1000).await;
            if batch.claim == 0 {
                return seen;
            }
            seen.extend(&batch.positions);
            self.ack(batch.claim).await;
        }
    }
}

/// Claims over a pool or a connection.
pub async fn claim<'e>(
    executor: impl Executor<'e, Database = Postgres>,
    consumer: &str,
    max: impl Display,
) -> Result<Batch, sqlx::Error> {
    let sql = format!(
        "SELECT claim, position, attempt, object_id FROM tollgate.claim('{consumer}', {max})"
    );
    let rows: Vec<PgRow> = executor.fetch_all(AssertSqlSafe(sql)).await?;
    let mut batch = Batch::default();
    for row in rows {
        assert!(batch.claim == 0 || batch.claim == row.get::<i64, _>(0), "a batch is one claim");
        batch.claim = row.get(0);
        batch.positions.push(row.get(1));
        batch.attempts.push(row.get(2));
        batch.objects.push(row.get(3));
    }
    Ok(batch)
}
