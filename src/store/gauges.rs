//! What the database alone knows of a gateway's state, for /metrics: one short reading, in parts
//! that fail each by itself. How often it is read is `http::metrics`'s.

use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::{Connection, PgConnection, PgPool, Row};

use super::connect::within;
use super::sync::reconcile::{self, Standing};

/// Longest that one statement may run in the server, and that its answer is waited for.
const LIMIT: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(3);

/// Rows that are counted at most, of failures and of the quarantine: beyond, a number says enough.
const MOST_COUNTED: i64 = 100_000;

/// Handlers, and reasons, that are told apart at most.
const MOST_GROUPS: i64 = 100;

/// One reading. A part that could not be read is None.
#[derive(Clone, Debug, Default)]
pub struct Gauges {
    pub log: Option<Log>,
    pub trouble: Option<Trouble>,
    pub consumers: Option<Vec<Consumer>>,
    /// How comparing with Stripe goes; inside, None if that was never done.
    pub stripe: Option<Option<Standing>>,
}

/// The log as a whole.
#[derive(Clone, Debug)]
pub struct Log {
    /// The newest event's position; 0 if there is none.
    pub position: i64,
    /// When it was received, in Unix seconds.
    pub newest: Option<f64>,
    /// Months that have a partition.
    pub partitions: i64,
    /// Bytes of the whole database, indexes included.
    pub bytes: i64,
}

/// What somebody should look at.
#[derive(Clone, Debug)]
pub struct Trouble {
    pub failures: Vec<Kept>,
    /// Bodies in quarantine, by reason.
    pub quarantined: Vec<(String, i64)>,
}

/// Events that a billing table or a handler has not taken.
#[derive(Clone, Debug)]
pub struct Kept {
    pub stage: String,
    /// Empty for billing tables.
    pub handler: String,
    /// Whether they are not tried again.
    pub given_up: bool,
    pub events: i64,
}

/// One consumer, as `tollgate.consumer_status` has it.
#[derive(Clone, Debug)]
pub struct Consumer {
    pub name: String,
    /// closed, open or half_open.
    pub breaker: String,
    pub paused: bool,
    pub lag_events: i64,
    pub lag_seconds: f64,
    pub in_flight: i64,
    pub retrying: i64,
    pub deferred: i64,
    pub dead: i64,
}

/// Reads everything. Must not be cancelled: spawn it.
pub async fn read(pool: &PgPool) -> Gauges {
    let log = part(pool, "log", log).await;
    if log.is_none() {
        // It hardly fares better with the others.
        return Gauges::default();
    }
    let trouble = part(pool, "trouble", trouble).await;
    let consumers = part(pool, "consumers", consumers).await;
    let stripe = part(pool, "stripe", reconcile::standing).await;
    Gauges { log, trouble, consumers, stripe }
}

async fn part<T>(
    pool: &PgPool,
    name: &str,
    read: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
) -> Option<T> {
    let done = within(pool, PATIENCE, async |connection| {
        let mut transaction = connection.begin().await?;
        sqlx::query("SELECT set_config('statement_timeout', $1, true)")
            .bind(LIMIT.as_millis().to_string())
            .execute(&mut *transaction)
            .await?;
        let done = read(&mut transaction).await?;
        transaction.commit().await?;
        Ok(done)
    })
    .await;
    done.map_err(|error| tracing::debug!(part = name, %error, "figures could not be read")).ok()
}

async fn log(connection: &mut PgConnection) -> Result<Log, sqlx::Error> {
    let row = sqlx::query(
        r#"SELECT coalesce(n.position, 0) AS "position", extract(epoch FROM e.received_at)::float8 AS newest,
                  (SELECT count(*) FROM tollgate.log_months()) AS partitions, pg_database_size(current_database()) AS bytes
           FROM (SELECT) one
           LEFT JOIN (SELECT p.position, p.created, p.id FROM tollgate.positions p ORDER BY p.position DESC LIMIT 1) n ON true
           LEFT JOIN tollgate.event_log e ON e.created = n.created AND e.id = n.id"#,
    )
    .fetch_one(connection)
    .await?;
    Ok(Log {
        position: row.try_get("position")?,
        newest: row.try_get("newest")?,
        partitions: row.try_get("partitions")?,
        bytes: row.try_get("bytes")?,
    })
}

async fn trouble(connection: &mut PgConnection) -> Result<Trouble, sqlx::Error> {
    let failures = sqlx::query(
        "SELECT stage, handler, given_up, count(*) AS events
         FROM (SELECT stage, handler, next_attempt IS NULL AS given_up FROM tollgate.failures LIMIT $1) f
         GROUP BY 1, 2, 3 ORDER BY 4 DESC, 1, 2, 3 LIMIT $2",
    )
    .bind(MOST_COUNTED)
    .bind(MOST_GROUPS)
    .fetch_all(&mut *connection)
    .await?;
    let quarantined = sqlx::query(
        "SELECT reason, count(*) AS bodies FROM (SELECT reason FROM tollgate.quarantine LIMIT $1) q
         GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT $2",
    )
    .bind(MOST_COUNTED)
    .bind(MOST_GROUPS)
    .fetch_all(connection)
    .await?;
    let kept = |row: &PgRow| -> Result<Kept, sqlx::Error> {
        Ok(Kept {
            stage: row.try_get("stage")?,
            handler: row.try_get("handler")?,
            given_up: row.try_get("given_up")?,
            events: row.try_get("events")?,
        })
    };
    Ok(Trouble {
        failures: failures.iter().map(kept).collect::<Result<_, _>>()?,
        quarantined: quarantined
            .iter()
            .map(|row| Ok((row.try_get("reason")?, row.try_get("bodies")?)))
            .collect::<Result<_, sqlx::Error>>()?,
    })
}

async fn consumers(connection: &mut PgConnection) -> Result<Vec<Consumer>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT s.name, p.breaker, s.state = 'paused' AS paused, s.lag_events, s.lag_seconds,
                s.in_flight, s.retrying, s.deferred, s.dead
         FROM tollgate.consumer_status s JOIN tollgate.consumer_progress p ON p.consumer = s.name
         ORDER BY s.name",
    )
    .fetch_all(connection)
    .await?;
    let consumer = |row: &PgRow| -> Result<Consumer, sqlx::Error> {
        Ok(Consumer {
            name: row.try_get("name")?,
            breaker: row.try_get("breaker")?,
            paused: row.try_get("paused")?,
            lag_events: row.try_get("lag_events")?,
            lag_seconds: row.try_get("lag_seconds")?,
            in_flight: row.try_get("in_flight")?,
            retrying: row.try_get("retrying")?,
            deferred: row.try_get("deferred")?,
            dead: row.try_get("dead")?,
        })
    };
    rows.iter().map(consumer).collect()
}
