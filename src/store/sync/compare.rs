//! Rows of the billing tables beside what Stripe shows: which differ, which are guesses, and whose
//! turn it is to be looked at.

use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};
use time::OffsetDateTime;

use crate::store::StoreError;
use crate::store::connect::within;

/// Longest wait for a statement.
const LIMIT: Duration = Duration::from_mins(1);

/// Whose rows of which table.
#[derive(Clone, Copy, Debug)]
pub struct Shelf<'a> {
    pub table: &'a str,
    pub account: &'a str,
    pub livemode: bool,
}

/// An object as Stripe shows it, in JSON that Postgres can hold.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub object_type: String,
    pub id: String,
    pub json: String,
}

/// A row beside it.
#[derive(Clone, Debug)]
pub struct Beside {
    pub incarnation: i64,
    pub phase: i16,
    pub as_of: OffsetDateTime,
    pub api_version: Option<String>,
    /// The object in the row.
    pub stored: String,
    /// Typed columns that would have another value.
    pub differing: Vec<String>,
}

/// The rows of these objects, in their order; none where there is no row.
pub async fn beside(
    pool: &PgPool,
    shelf: Shelf<'_>,
    objects: &[Candidate],
) -> Result<Vec<Option<Beside>>, StoreError> {
    fn column(all: &[Candidate], value: impl Fn(&Candidate) -> &str) -> Vec<&str> {
        all.iter().map(value).collect()
    }
    let rows = within(pool, LIMIT, async |connection| {
        sqlx::query("SELECT * FROM tollgate.compare_objects($1, $2, $3, $4, $5, $6)")
            .bind(shelf.table)
            .bind(shelf.account)
            .bind(shelf.livemode)
            .bind(column(objects, |it| &it.object_type))
            .bind(column(objects, |it| &it.id))
            .bind(column(objects, |it| &it.json))
            .fetch_all(connection)
            .await
    })
    .await?;
    let mut all = vec![None; objects.len()];
    for row in &rows {
        let at = usize::try_from(row.try_get::<i32, _>("at")? - 1).unwrap_or(usize::MAX);
        if let Some(place) = all.get_mut(at) {
            *place = Some(Beside {
                incarnation: row.try_get("incarnation")?,
                phase: row.try_get("phase")?,
                as_of: row.try_get("as_of")?,
                api_version: row.try_get("api_version")?,
                stored: row.try_get("stored")?,
                differing: row.try_get("differing")?,
            });
        }
    }
    Ok(all)
}

/// An object that has a row.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Known {
    pub table: String,
    pub account: String,
    pub object_type: String,
    pub id: String,
    /// The object in the row.
    pub stored: String,
}

impl Known {
    /// What it is called where one text has to do.
    pub fn name(&self) -> String {
        format!("{} {} {}", self.table, self.account, self.id)
    }
}

fn known(row: &PgRow) -> Result<Known, sqlx::Error> {
    Ok(Known {
        table: row.try_get("table_name")?,
        account: row.try_get("account")?,
        object_type: row.try_get("object_type")?,
        id: row.try_get("id")?,
        stored: row.try_get("stored")?,
    })
}

async fn listed(
    pool: &PgPool,
    statement: sqlx::query::Query<'_, sqlx::Postgres, sqlx::postgres::PgArguments>,
) -> Result<Vec<Known>, StoreError> {
    let rows =
        within(pool, LIMIT, async |connection| statement.fetch_all(connection).await).await?;
    Ok(rows.iter().map(known).collect::<Result<_, _>>()?)
}

/// Objects of a mode whose newest state is a guess, `most` of a table, without those named by [`Known::name`].
pub async fn ties(
    pool: &PgPool,
    livemode: bool,
    most: i64,
    not: &[String],
) -> Result<Vec<Known>, StoreError> {
    let statement = sqlx::query("SELECT * FROM tollgate.tied_objects($1, $2, $3)");
    listed(pool, statement.bind(livemode).bind(most).bind(not)).await
}

/// Objects of a mode that are not known to be deleted, at random, `most` of them; of connected
/// accounts, too, or of the own one only.
pub async fn sample(
    pool: &PgPool,
    livemode: bool,
    table: Option<&str>,
    most: i64,
    connected: bool,
) -> Result<Vec<Known>, StoreError> {
    let statement = sqlx::query("SELECT * FROM tollgate.sample_objects($1, $2, $3, $4)");
    listed(pool, statement.bind(livemode).bind(table).bind(most).bind(connected)).await
}

/// The next objects of a table that are not known to be deleted, after one of this id and type.
pub async fn next(
    pool: &PgPool,
    shelf: Shelf<'_>,
    after: (&str, &str),
    most: i64,
) -> Result<Vec<Known>, StoreError> {
    let statement = sqlx::query("SELECT * FROM tollgate.next_objects($1, $2, $3, $4, $5, $6)");
    let statement = statement.bind(shelf.table).bind(shelf.account).bind(shelf.livemode);
    listed(pool, statement.bind(after.0).bind(after.1).bind(most)).await
}
