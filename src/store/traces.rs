//! The traces that events are part of: kept in the transaction of each event, read back when one is
//! delivered. Only while traces are exported; what they are for is `traces`' affair.

use std::collections::BTreeMap;
use std::time::Duration;

use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{PgPool, Postgres, Row};
use time::OffsetDateTime;

use super::StoreError;
use super::connect::within;
use super::events::NewEvent;

/// Longest wait for a statement, which is short by nature.
const LIMIT: Duration = Duration::from_secs(5);

/// Those events of a batch that have a trace, as columns.
#[derive(Debug, Default)]
pub(super) struct Traced<'a> {
    created: Vec<OffsetDateTime>,
    id: Vec<&'a str>,
    traceparent: Vec<&'a str>,
}

impl<'a> Traced<'a> {
    pub(super) fn of(batch: &[&'a NewEvent]) -> Self {
        let mut traced = Self::default();
        for event in batch {
            if let Some(traceparent) = &event.traceparent {
                traced.created.push(event.envelope.created);
                traced.id.push(event.envelope.id.as_str());
                traced.traceparent.push(traceparent);
            }
        }
        traced
    }

    pub(super) fn is_empty(&self) -> bool {
        self.id.is_empty()
    }

    /// Binds them as the last arguments of `tollgate.keep_traces`.
    pub(super) fn bind<'q>(
        self,
        statement: Query<'q, Postgres, PgArguments>,
    ) -> Query<'q, Postgres, PgArguments>
    where
        'a: 'q,
    {
        statement.bind(self.created).bind(self.id).bind(self.traceparent)
    }
}

/// The `traceparent` of each of these positions' events that has one.
pub async fn of_positions(
    pool: &PgPool,
    positions: &[i64],
) -> Result<BTreeMap<i64, String>, StoreError> {
    let rows = within(pool, LIMIT, async |connection| {
        sqlx::query(r#"SELECT "position", traceparent FROM tollgate.traces_of($1)"#)
            .bind(positions)
            .fetch_all(connection)
            .await
    })
    .await?;
    let pair = |row: &sqlx::postgres::PgRow| -> Result<_, sqlx::Error> {
        Ok((row.try_get("position")?, row.try_get("traceparent")?))
    };
    Ok(rows.iter().map(pair).collect::<Result<_, _>>()?)
}

/// Deletes traces of events that were recorded before a time, so many at most; returns how many.
pub async fn forget(pool: &PgPool, before: OffsetDateTime, most: i32) -> Result<i32, StoreError> {
    let forgotten = within(pool, LIMIT, async |connection| {
        sqlx::query_scalar("SELECT tollgate.forget_traces($1, $2)")
            .bind(before)
            .bind(most)
            .fetch_one(connection)
            .await
    });
    Ok(forgotten.await?)
}
