//! Claim and acknowledge everything there is, with one worker: Tollgate's consumers, and the usual
//! design beside them, a row per event, `FOR UPDATE SKIP LOCKED`, deleted when done.

use std::time::{Duration, Instant};

use comfy_table::{Table, presets};
use sqlx::{PgConnection, Row};

use crate::database::Database;

#[derive(Clone, Copy, PartialEq)]
enum Queue {
    /// `tollgate.claim`, with bodies.
    Claim,
    /// The same with order per object.
    Ordered,
    /// `tollgate.claim` without bodies.
    Keys,
    /// Bodies as bytes, as the gateway's own pushes and sinks get them.
    Bytes,
    /// Positions alone: what the claim itself costs, without a look at the events.
    Positions,
    /// A row per event that holds the message.
    Messages,
    /// A row per event that points to the log, with bodies read from there.
    Jobs,
    /// The same without bodies.
    JobKeys,
    /// Ids alone.
    JobIds,
}

const ALL: [(Queue, &str); 9] = [
    (Queue::Claim, "tollgate.claim"),
    (Queue::Ordered, "… ordering object"),
    (Queue::Bytes, "… bodies as bytes"),
    (Queue::Keys, "… without bodies"),
    (Queue::Positions, "… positions alone"),
    (Queue::Messages, "row per event, with message"),
    (Queue::Jobs, "row per event, lean"),
    (Queue::JobKeys, "… without bodies"),
    (Queue::JobIds, "… ids alone"),
];

impl Queue {
    fn is_ours(self) -> bool {
        match self {
            Self::Claim | Self::Ordered | Self::Bytes | Self::Keys | Self::Positions => true,
            Self::Messages | Self::Jobs | Self::JobKeys | Self::JobIds => false,
        }
    }
}

/// What else goes on in the database.
#[derive(Clone, Copy)]
enum Beside {
    Nobody,
    /// A transaction that keeps its snapshot, as a backup and a long report do: until it ends, no dead
    /// row can be cleaned up (<https://www.postgresql.org/docs/current/routine-vacuuming.html>).
    Snapshot,
}

impl Beside {
    async fn begin(self, database: &Database) -> anyhow::Result<Option<PgConnection>> {
        match self {
            Self::Nobody => Ok(None),
            Self::Snapshot => {
                let mut reader = database.connect().await?;
                sqlx::raw_sql("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")
                    .execute(&mut reader)
                    .await?;
                Ok(Some(reader))
            }
        }
    }

    fn said(self) -> &'static str {
        match self {
            Self::Nobody => "",
            Self::Snapshot => ", while another transaction keeps its snapshot",
        }
    }
}

/// What one event cost.
#[derive(Clone, Copy)]
struct Figures {
    /// Before it can be claimed: rows have to be made.
    enqueue: Duration,
    /// Claim and acknowledgement.
    take: Duration,
    /// Bytes written to the write-ahead log, by all of it.
    wal: f64,
    /// Dead row versions that are left for vacuum.
    dead: i64,
}

/// Measures all of them by turns and prints a table for each size of batch.
///
/// # Errors
/// If the database fails.
pub async fn measure(
    events: i64,
    batches: &[i32],
    rounds: usize,
    alone: bool,
) -> anyhow::Result<()> {
    println!("{events} events in the log, one worker, medians of {rounds} rounds");
    let database = Database::start(events).await?;
    let mut connection = database.connect().await?;
    let situations = batches
        .iter()
        .map(|batch| (*batch, Beside::Nobody))
        // Once is enough, and of the largest batches: it is by far the slowest for the queues.
        .chain(batches.iter().max().map(|batch| (*batch, Beside::Snapshot)));
    for (batch, beside) in situations {
        let mut all: Vec<Vec<Figures>> = vec![Vec::new(); ALL.len()];
        for _ in 0..rounds {
            for ((queue, _), figures) in ALL.iter().zip(&mut all) {
                if alone && !queue.is_ours() {
                    continue;
                }
                prepare(&mut connection, *queue).await?;
                let reader = beside.begin(&database).await?;
                figures.push(run(&mut connection, *queue, batch, events).await?);
                drop(reader);
            }
        }
        print(batch, beside, &all);
    }
    drop(connection);
    database.stop().await
}

fn print(batch: i32, beside: Beside, all: &[Vec<Figures>]) {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "",
        "claim+ack/s",
        "enqueue, µs",
        "claim+ack, µs",
        "both, µs",
        "WAL, B/event",
        "dead rows",
    ]);
    for ((_, name), figures) in ALL.iter().zip(all).filter(|(_, figures)| !figures.is_empty()) {
        let micros = |value: &dyn Fn(&Figures) -> Duration| {
            median(figures.iter().map(|f| value(f).as_secs_f64() * 1e6).collect())
        };
        let take = micros(&|f| f.take);
        let wal = median(figures.iter().map(|f| f.wal).collect());
        let dead = figures.iter().map(|f| f.dead).max().unwrap_or_default();
        table.add_row([
            (*name).to_owned(),
            format!("{:.0}", 1e6 / take),
            format!("{:.1}", micros(&|f| f.enqueue)),
            format!("{take:.1}"),
            format!("{:.1}", micros(&|f| f.enqueue + f.take)),
            format!("{wal:.0}"),
            dead.to_string(),
        ]);
    }
    println!("\nbatches of {batch}{}\n{table}", beside.said());
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

async fn run(
    connection: &mut PgConnection,
    queue: Queue,
    batch: i32,
    events: i64,
) -> anyhow::Result<Figures> {
    let wal = wal_position(connection).await?;
    let began = Instant::now();
    enqueue(connection, queue).await?;
    let enqueued = began.elapsed();
    let began = Instant::now();
    let mut done = 0;
    while done < events {
        let some = take(connection, queue, batch).await?;
        anyhow::ensure!(some > 0, "{done} of {events} events, and no more");
        done += some;
    }
    let taken = began.elapsed();
    let wal = wal_position(connection).await? - wal;
    let each = |time: Duration| time.div_f64(events as f64);
    let dead = dead_rows(connection).await?;
    Ok(Figures {
        enqueue: each(enqueued),
        take: each(taken),
        wal: wal as f64 / events as f64,
        dead,
    })
}

async fn prepare(connection: &mut PgConnection, queue: Queue) -> anyhow::Result<()> {
    sqlx::raw_sql("TRUNCATE bench.messages, bench.jobs; DELETE FROM tollgate.consumers")
        .execute(&mut *connection)
        .await?;
    sqlx::query("SELECT tollgate.create_consumer('bench', start => 'earliest', ordering => $1)")
        .bind(if queue == Queue::Ordered { "object" } else { "none" })
        .execute(&mut *connection)
        .await?;
    if queue == Queue::Bytes {
        // Never delivered to: this takes the gateway's place.
        sqlx::query("SELECT tollgate.set_target('bench', 'http://localhost', concurrency => 1000)")
            .execute(&mut *connection)
            .await?;
    }
    for table in ["tollgate.consumers", "tollgate.consumer_progress", "tollgate.claims"] {
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!("VACUUM {table}")))
            .execute(&mut *connection)
            .await?;
    }
    // So that the first to write a page after it does not pay for all of it in the middle.
    sqlx::raw_sql("CHECKPOINT").execute(connection).await?;
    Ok(())
}

async fn enqueue(connection: &mut PgConnection, queue: Queue) -> anyhow::Result<()> {
    let sql = match queue {
        Queue::Messages => {
            "INSERT INTO bench.messages (message)
             SELECT tollgate.payload(raw)::jsonb FROM tollgate.events ORDER BY position"
        }
        Queue::Jobs | Queue::JobKeys | Queue::JobIds => {
            "INSERT INTO bench.jobs (position, event_id, type, object_id)
             SELECT position, id, type, object_id FROM tollgate.events ORDER BY position"
        }
        Queue::Claim | Queue::Ordered | Queue::Keys | Queue::Bytes | Queue::Positions => {
            return Ok(());
        }
    };
    sqlx::query(sql).execute(connection).await?;
    Ok(())
}

/// Claims a batch of so many, and reads it as a worker does.
fn claiming(queue: Queue) -> &'static str {
    match queue {
        Queue::Claim | Queue::Ordered => "SELECT * FROM tollgate.claim('bench', $1)",
        Queue::Keys => "SELECT * FROM tollgate.claim('bench', $1, bodies => false)",
        Queue::Bytes => "SELECT * FROM tollgate.take_bodies('bench', $1)",
        Queue::Positions => {
            "SELECT t.claim, n.position, n.attempt
             FROM tollgate.take('bench', $1) t, unnest(t.positions, t.attempts) AS n (position, attempt)"
        }
        Queue::Messages => {
            "WITH due AS (
                 SELECT id FROM bench.messages WHERE visible_at <= clock_timestamp()
                 ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED)
             UPDATE bench.messages m SET visible_at = clock_timestamp() + interval '30 seconds', attempts = m.attempts + 1
             FROM due WHERE m.id = due.id RETURNING m.id, m.attempts, m.message"
        }
        Queue::Jobs => {
            "WITH due AS (
                 SELECT id FROM bench.jobs WHERE visible_at <= clock_timestamp()
                 ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED
             ), taken AS (
                 UPDATE bench.jobs j SET visible_at = clock_timestamp() + interval '30 seconds', attempts = j.attempts + 1
                 FROM due WHERE j.id = due.id RETURNING j.*)
             SELECT t.*, l.payload FROM taken t CROSS JOIN LATERAL (
                 SELECT tollgate.payload(e.raw) AS payload
                 FROM tollgate.positions p JOIN tollgate.event_log e ON e.created = p.created AND e.id = p.id
                 WHERE p.position = t.position OFFSET 0) l"
        }
        Queue::JobKeys => {
            "WITH due AS (
                 SELECT id FROM bench.jobs WHERE visible_at <= clock_timestamp()
                 ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED)
             UPDATE bench.jobs j SET visible_at = clock_timestamp() + interval '30 seconds', attempts = j.attempts + 1
             FROM due WHERE j.id = due.id RETURNING j.*"
        }
        Queue::JobIds => {
            "WITH due AS (
                 SELECT id FROM bench.jobs WHERE visible_at <= clock_timestamp()
                 ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED)
             UPDATE bench.jobs j SET visible_at = clock_timestamp() + interval '30 seconds', attempts = j.attempts + 1
             FROM due WHERE j.id = due.id RETURNING j.id, j.attempts"
        }
    }
}

/// Claims a batch, reads it as a worker does, and acknowledges it.
async fn take(connection: &mut PgConnection, queue: Queue, batch: i32) -> anyhow::Result<i64> {
    let sql = claiming(queue);
    let rows = sqlx::query(sql).bind(batch).fetch_all(&mut *connection).await?;
    let Some(first) = rows.first() else {
        return Ok(0);
    };
    if queue.is_ours() {
        let claim: i64 = first.try_get("claim")?;
        sqlx::query("SELECT tollgate.ack($1)").bind(claim).execute(connection).await?;
    } else {
        let ids: Vec<i64> = rows.iter().map(|row| row.try_get("id")).collect::<Result<_, _>>()?;
        let delete = if queue == Queue::Messages {
            "DELETE FROM bench.messages WHERE id = ANY ($1)"
        } else {
            "DELETE FROM bench.jobs WHERE id = ANY ($1)"
        };
        sqlx::query(delete).bind(ids).execute(connection).await?;
    }
    Ok(i64::try_from(rows.len())?)
}

async fn wal_position(connection: &mut PgConnection) -> anyhow::Result<i64> {
    let sql = "SELECT (pg_current_wal_lsn() - '0/0')::bigint";
    Ok(sqlx::query_scalar(sql).fetch_one(connection).await?)
}

async fn dead_rows(connection: &mut PgConnection) -> anyhow::Result<i64> {
    let sql = "SELECT pg_stat_force_next_flush() IS NULL OR true";
    sqlx::query(sql).execute(&mut *connection).await?;
    let sql = "SELECT coalesce(sum(n_dead_tup), 0)::bigint FROM pg_stat_user_tables
               WHERE schemaname = 'bench' OR relname IN ('consumer_progress', 'claims', 'deliveries')";
    Ok(sqlx::query_scalar(sql).fetch_one(connection).await?)
}
