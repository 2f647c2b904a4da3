//! Computing the billing tables anew from the log while ingest goes on: into copies first, then
//! the differences into the tables in one transaction.

use std::collections::BTreeSet;

use sqlx::{AssertSqlSafe, PgConnection, Row};

use super::StoreError;
use super::connect::{Transaction, WriterConnection};
use super::events::NewEvent;
use super::objects::{self, Crowd, ObjectKey, ObjectRow};
use super::projections::{self, Target};

/// Events read at once.
const PAGE: i64 = 500;

/// Taken for the whole time, so that there is one rebuild at a time.
const LOCK: i64 = 7_809_644_627_822_867_558;

/// How far a rebuild is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// The last position that was read.
    pub position: i64,
    /// The last one there was at the beginning.
    pub end: i64,
}

/// Why a rebuild did not take place.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("another rebuild is running")]
    Busy,
    #[error("there is no billing table {0}; there are: {1}")]
    NoSuchTable(String, String),
}

impl From<sqlx::Error> for RebuildError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// What a rebuild did.
#[derive(Debug, Default)]
pub struct Rebuilt {
    /// For each table, how many rows were not as they should be.
    pub changed: Vec<(String, i64)>,
    /// Objects of which no table can hold every state that the log has. Their rows are what the other
    /// states make of them, or stay as they are.
    pub left_out: BTreeSet<ObjectKey>,
}

/// Rebuilds one table, or all.
pub async fn rebuild(
    connection: &mut WriterConnection,
    only: Option<&str>,
    mut progress: impl FnMut(Progress),
) -> Result<Rebuilt, RebuildError> {
    let plain = connection.plain();
    let tables = tables(plain, only).await?;
    let free: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock($1)")
        .bind(LOCK)
        .fetch_one(&mut *plain)
        .await?;
    if !free {
        return Err(RebuildError::Busy);
    }
    sqlx::query("SELECT tollgate.begin_rebuild()").execute(&mut *plain).await?;
    let end = last_position(plain).await?;
    let mut filling = Filling {
        tables: &tables,
        position: 0,
        undecided: BTreeSet::new(),
        left_out: BTreeSet::new(),
    };
    loop {
        let mut transaction = connection.begin().await?;
        let read = filling.page(&mut transaction).await?;
        transaction.commit().await?;
        progress(Progress { position: filling.position.min(end), end });
        // What came meanwhile is for the end, or a busy gateway could be followed for ever.
        if read == 0 || filling.position >= end {
            break;
        }
    }
    let mut transaction = connection.begin().await?;
    filling.bettered(&mut transaction).await?;
    transaction.commit().await?;
    for key in std::mem::take(&mut filling.undecided) {
        let mut transaction = connection.begin().await?;
        filling.decide(&mut transaction, key).await?;
        transaction.commit().await?;
    }
    let changed = swap(connection, &mut filling).await?;
    let plain = connection.plain();
    sqlx::query("DROP SCHEMA tollgate_rebuild CASCADE").execute(&mut *plain).await?;
    sqlx::query("SELECT pg_advisory_unlock($1)").bind(LOCK).execute(plain).await?;
    Ok(Rebuilt { changed, left_out: filling.left_out })
}

async fn tables(
    connection: &mut PgConnection,
    only: Option<&str>,
) -> Result<Vec<String>, RebuildError> {
    let all: Vec<String> =
        sqlx::query_scalar("SELECT tollgate.billing_tables()").fetch_all(connection).await?;
    match only {
        None => Ok(all),
        Some(table) if all.iter().any(|known| known == table) => Ok(vec![table.to_owned()]),
        Some(table) => Err(RebuildError::NoSuchTable(table.to_owned(), all.join(", "))),
    }
}

async fn last_position(connection: &mut PgConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT coalesce(max(position), 0) FROM tollgate.positions")
        .fetch_one(connection)
        .await
}

/// The copies, and how far they are.
struct Filling<'a> {
    tables: &'a [String],
    position: i64,
    undecided: BTreeSet<ObjectKey>,
    left_out: BTreeSet<ObjectKey>,
}

impl Filling<'_> {
    /// Reads a page of the log into the copies; returns how many events it had.
    async fn page(&mut self, transaction: &mut Transaction<'_>) -> Result<usize, StoreError> {
        let statement = sqlx::query(
            "SELECT position, raw FROM tollgate.events WHERE position > $1 ORDER BY position LIMIT $2",
        )
        .bind(self.position)
        .bind(PAGE);
        let mut events = Vec::new();
        let page = transaction.fetch(statement).await?;
        for row in &page {
            self.position = row.try_get("position")?;
            let raw: Vec<u8> = row.try_get("raw")?;
            events.extend(NewEvent::from_log(raw));
        }
        let batch: Vec<&NewEvent> = events.iter().collect();
        let mut rows = objects::fold(&batch);
        rows.retain(|row| self.tables.iter().any(|table| table == row.key.table));
        let left = self.write(transaction, &rows).await?;
        let unclear = rows.iter().filter(|row| row.crowd >= Crowd::Tied);
        self.undecided.extend(unclear.map(|row| row.key.clone()));
        self.undecided
            .extend(left.iter().filter_map(|at| rows.get(*at)).map(|row| row.key.clone()));
        Ok(page.len())
    }

    /// Writes the rows, as in ingest without those that no table can hold; which of them are undecided.
    async fn write(
        &mut self,
        transaction: &mut Transaction<'_>,
        rows: &[ObjectRow<'_>],
    ) -> Result<Vec<usize>, StoreError> {
        let all = async |transaction: &mut Transaction<'_>| {
            projections::write_objects(transaction, Target::Copies, rows).await
        };
        if let Ok(left) = transaction.attempt(all).await? {
            return Ok(left);
        }
        let mut undecided = Vec::new();
        for (at, row) in rows.iter().enumerate() {
            let one = async |transaction: &mut Transaction<'_>| {
                let row = std::slice::from_ref(row);
                projections::write_objects(transaction, Target::Copies, row).await
            };
            match transaction.attempt(one).await? {
                Ok(left) => undecided.extend(left.first().map(|_| at)),
                Err(_) => drop(self.left_out.insert(row.key.clone())),
            }
        }
        Ok(undecided)
    }

    /// Finds the objects of events that came in a later API version since they were read.
    async fn bettered(&mut self, transaction: &mut Transaction<'_>) -> Result<(), StoreError> {
        let statement = sqlx::query(
            "WITH taken AS (DELETE FROM tollgate.bettered RETURNING created, id)
             SELECT DISTINCT l.account, l.livemode, coalesce(l.object_type, '') AS object_type, l.object_id::text
             FROM taken JOIN tollgate.event_log l USING (created, id) WHERE l.object_id IS NOT NULL",
        );
        for row in &transaction.fetch(statement).await? {
            let (account, livemode) = (row.try_get("account")?, row.try_get("livemode")?);
            let (object_type, id) = (row.try_get("object_type")?, row.try_get("object_id")?);
            let key = ObjectKey::new(account, livemode, object_type, id);
            if self.tables.iter().any(|table| table == key.table) {
                self.undecided.insert(key);
            }
        }
        Ok(())
    }

    /// Settles by the log an object of which events tied.
    async fn decide(
        &mut self,
        transaction: &mut Transaction<'_>,
        key: ObjectKey,
    ) -> Result<(), StoreError> {
        let decide = async |transaction: &mut Transaction<'_>| {
            projections::decide_into(transaction, Target::Copies, &key).await
        };
        if transaction.attempt(decide).await?.is_err() {
            self.left_out.insert(key);
        }
        Ok(())
    }

    /// Has the rows of objects that were left out stay as they are.
    async fn keep_left_out(&self, transaction: &mut Transaction<'_>) -> Result<(), StoreError> {
        for key in &self.left_out {
            let table = key.table;
            let object_type = if table == "objects" { "object_type," } else { "" };
            let columns = format!(
                "account, livemode, {object_type} id, incarnation, phase, as_of, as_of_event, order_basis,
                 rests_on_base, api_version, deleted, links, object"
            );
            let sql = format!(
                "INSERT INTO tollgate_rebuild.{table} ({columns})
                 SELECT {columns} FROM stripe.{table} WHERE {} ON CONFLICT DO NOTHING",
                key.condition()
            );
            transaction.fetch(key.bind(sqlx::query(AssertSqlSafe(sql)))).await?;
        }
        Ok(())
    }
}

/// Reads the rest of the log while nobody can write to the tables, and makes them equal to the
/// copies. Readers see the old rows until then.
async fn swap(
    connection: &mut WriterConnection,
    filling: &mut Filling<'_>,
) -> Result<Vec<(String, i64)>, StoreError> {
    let mut transaction = connection.begin().await?;
    transaction.unlimited().await?;
    for table in filling.tables {
        transaction.lock_billing_table(table).await?;
    }
    while filling.page(&mut transaction).await? > 0 {}
    filling.bettered(&mut transaction).await?;
    for key in std::mem::take(&mut filling.undecided) {
        filling.decide(&mut transaction, key).await?;
    }
    filling.keep_left_out(&mut transaction).await?;
    // Steps in savepoints have a limit again.
    transaction.unlimited().await?;
    let mut changed = Vec::new();
    for table in filling.tables {
        let statement = sqlx::query("SELECT tollgate.finish_rebuild($1)").bind(table);
        let rows = transaction.fetch(statement).await?;
        let count = rows.first().map(|row| row.try_get(0)).transpose()?.unwrap_or(0);
        changed.push((table.clone(), count));
    }
    transaction.commit().await?;
    Ok(changed)
}
