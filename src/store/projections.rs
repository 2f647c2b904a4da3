//! Writing events together with the billing tables, step by step in one transaction, and settling
//! by the log what the rows alone cannot. The rule itself is `stripe::order`'s.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::Value;
use sqlx::Row;
use sqlx::postgres::PgRow;
use time::OffsetDateTime;

use super::StoreError;
use super::connect::Transaction;
use super::events::{NewEvent, bind_events};
use super::objects::{Columns, Crowd, Mode, ObjectKey, ObjectRow, Said, Shown, links};
use super::remains::{self, Remains};
use crate::stripe::event::Envelope;
use crate::stripe::order::{self, Basis, Json, Standing, Version};
use crate::stripe::snapshot::storable;

/// What a batch changed.
#[derive(Debug, Default)]
pub struct Written {
    /// Keys of the events that are new.
    pub new: Vec<(OffsetDateTime, String)>,
    undecided: BTreeMap<usize, Evidence>,
}

/// What is known about an object that could not be decided by its row.
#[derive(Debug)]
enum Evidence {
    /// The bodies of all events of the second of the one that ties.
    Second(Vec<Vec<u8>>),
    /// Nothing yet: the whole history is needed.
    Missing,
}

/// Inserts events and writes the rows of the objects they show.
///
/// # Errors
/// [`Fault::Handlers`](super::Fault::Handlers) if the handlers are not those of `generation`,
/// [`Fault::Raced`](super::Fault::Raced) if another transaction made a row in between.
pub async fn write(
    transaction: &mut Transaction<'_>,
    batch: &[&NewEvent],
    rows: &[ObjectRow<'_>],
    generation: i64,
) -> Result<Written, StoreError> {
    let columns = Columns::of(rows);
    let statement = sqlx::query(
        "SELECT what, at, created, id, raw FROM tollgate.write_events(
            $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11,
            $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27)",
    );
    let statement = columns.bind_shown(bind_events(statement, batch)).bind(generation);
    let mut written = Written::default();
    for row in transaction.fetch(statement).await? {
        match row.try_get("what")? {
            "new" => written.new.push((row.try_get("created")?, row.try_get("id")?)),
            "tied" => {
                let evidence = written.undecided.entry(ordinal(&row, "at")?);
                let evidence = evidence.or_insert_with(|| Evidence::Second(Vec::new()));
                if let Evidence::Second(bodies) = evidence {
                    bodies.push(row.try_get("raw")?);
                }
            }
            _ => {
                written.undecided.insert(ordinal(&row, "at")?, Evidence::Missing);
            }
        }
    }
    Ok(written)
}

/// Decides by the log what `write` left open. The rows are locked since then, so nobody else
/// decides the same at once.
pub async fn decide_all(
    transaction: &mut Transaction<'_>,
    rows: &[ObjectRow<'_>],
    written: &Written,
) -> Result<Vec<Decision>, StoreError> {
    let mut decisions = Vec::with_capacity(written.undecided.len());
    for (at, evidence) in &written.undecided {
        let Some(row) = rows.get(*at) else {
            continue;
        };
        let tied = match evidence {
            Evidence::Second(bodies) => Decision::among(&row.key, Some(row.standing), bodies, None),
            Evidence::Missing => None,
        };
        match tied.filter(|decision| !decision.rests_on_base) {
            Some(decision) => decisions.push(decision),
            None => decisions.extend(decide(transaction, Target::Tables, &row.key).await?),
        }
    }
    Ok(decisions)
}

/// Writes what was decided into the billing tables.
pub async fn settle(
    transaction: &mut Transaction<'_>,
    decisions: &[Decision],
) -> Result<(), StoreError> {
    place(transaction, Target::Tables, decisions).await
}

/// Writes an object anew from the log. `row`, of any event of it, is there to lock by.
pub async fn restore(
    transaction: &mut Transaction<'_>,
    row: ObjectRow<'_>,
) -> Result<(), StoreError> {
    let key = row.key.clone();
    write_objects(transaction, Target::Tables, &[row]).await?;
    decide_into(transaction, Target::Tables, &key).await
}

/// Decides an object by its whole history and writes it. Its row must be locked, or out of reach.
pub async fn decide_into(
    transaction: &mut Transaction<'_>,
    target: Target,
    key: &ObjectKey,
) -> Result<(), StoreError> {
    let decision = decide(transaction, target, key).await?;
    place(transaction, target, decision.as_slice()).await
}

async fn place(
    transaction: &mut Transaction<'_>,
    target: Target,
    decisions: &[Decision],
) -> Result<(), StoreError> {
    let rows: Vec<_> = decisions.iter().map(Decision::row).collect();
    write_objects(transaction, target, &rows).await.map(drop)
}

/// Decides an object by its whole history, as far as there is one.
async fn decide(
    transaction: &mut Transaction<'_>,
    target: Target,
    key: &ObjectKey,
) -> Result<Option<Decision>, StoreError> {
    let statement = sqlx::query(
        "SELECT l.raw, f.before IS NOT NULL AS forgets FROM tollgate.event_log l, tollgate.forgotten f
         WHERE l.object_id = $1 AND l.account = $2 AND l.livemode = $3",
    )
    .bind(&key.id)
    .bind(&key.account)
    .bind(key.livemode);
    let rows = transaction.fetch(statement).await?;
    let bodies = rows.iter().map(|row| row.try_get("raw")).collect::<Result<Vec<_>, _>>()?;
    let forgets = rows.first().map(|row| row.try_get("forgets")).transpose()?.unwrap_or(false);
    // Copies are made of the log alone; what they lack is seen to when they are compared.
    let remains = match target {
        Target::Tables if forgets => remains::of(transaction, key).await?,
        Target::Tables | Target::Copies => None,
    };
    Ok(Decision::among(key, None, &bodies, remains))
}

/// The state of an object as the log has it.
#[derive(Debug)]
pub struct Decision {
    mode: Mode,
    key: ObjectKey,
    standing: Standing,
    event_id: String,
    api_version: Option<String>,
    basis: Basis,
    rests_on_base: bool,
    links: String,
    object: String,
}

impl Decision {
    /// Decides among those of the events that are about `key` and, if it is given, of `standing`,
    /// and what remains of forgotten ones.
    fn among(
        key: &ObjectKey,
        only: Option<Standing>,
        bodies: &[Vec<u8>],
        remains: Option<Remains>,
    ) -> Option<Self> {
        let mut versions = Vec::with_capacity(bodies.len());
        let mut said = Vec::new();
        for body in bodies {
            let Ok(envelope) = Envelope::parse(body) else {
                continue;
            };
            let Some(Shown { key: of, standing, snapshot }) = Shown::of(&envelope, body) else {
                continue;
            };
            if of != *key || only.is_some_and(|only| standing != only) {
                continue;
            }
            said.push((standing, envelope.id.to_string(), links(&snapshot)));
            versions.push(version(envelope, standing, snapshot.json, body));
        }
        let alone = remains.filter(|row| row.add_to(&mut versions, &mut said));
        let resolution = order::resolve(&key.object_type, &versions)?;
        let winner = resolution.winner;
        // What it was decided by is not known any more, only how.
        let unrivalled = resolution.basis == Basis::Unique;
        let row = alone.filter(|row| unrivalled && row.version.event_id == winner.event_id);
        Some(Self {
            mode: if only.is_some() { Mode::Merge } else { Mode::Replace },
            key: key.clone(),
            standing: winner.standing,
            event_id: winner.event_id.clone(),
            api_version: winner.api_version.clone(),
            basis: row.as_ref().map_or(resolution.basis, |row| row.basis),
            rests_on_base: row.map_or(resolution.rests_on_base, |row| row.rests_on_base),
            links: last_said(said, winner.standing.incarnation).to_string(),
            object: winner.object.text().to_owned(),
        })
    }

    /// How it was decided.
    pub fn basis(&self) -> Basis {
        self.basis
    }

    pub(super) fn row(&self) -> ObjectRow<'_> {
        ObjectRow {
            mode: self.mode,
            key: self.key.clone(),
            standing: self.standing,
            event_id: &self.event_id,
            api_version: self.api_version.as_deref(),
            basis: self.basis,
            rests_on_base: self.rests_on_base,
            links: self.links.clone(),
            object: Cow::Borrowed(&self.object),
            crowd: Crowd::Alone,
        }
    }
}

/// Of each link what the highest event says that mentions it.
fn last_said(mut said: Vec<Said>, incarnation: i64) -> Value {
    said.retain(|(standing, _, _)| standing.incarnation == incarnation);
    said.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    Value::Object(said.into_iter().flat_map(|(_, _, links)| links).collect())
}

/// An event as the order rule sees it: as the tables can hold it, so that the rule and the database
/// agree on what one state is.
fn version(envelope: Envelope, standing: Standing, object: &str, body: &[u8]) -> Version {
    let previous = envelope.previous.and_then(|place| str::from_utf8(body.get(place)?).ok());
    Version {
        event_id: envelope.id.to_string(),
        event_type: envelope.event_type,
        api_version: envelope.api_version,
        standing,
        object: Json::from(&*storable(object)),
        previous: previous.filter(|json| *json != "null").map(|json| Json::from(&*storable(json))),
    }
}

/// Where rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The billing tables.
    Tables,
    /// The copies that a rebuild fills.
    Copies,
}

/// Writes rows, of each mode sorted by key. Returns the ordinals, from 0, of those that mode
/// `Newer` cannot decide.
pub async fn write_objects(
    transaction: &mut Transaction<'_>,
    target: Target,
    rows: &[ObjectRow<'_>],
) -> Result<Vec<usize>, StoreError> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let columns = Columns::of(rows);
    let sql = match target {
        Target::Tables => {
            "SELECT unnest(tied || unclear) FROM tollgate.write_objects(
                $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)"
        }
        Target::Copies => {
            "SELECT unnest(tied || unclear) FROM tollgate_rebuild.write_objects(
                $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)"
        }
    };
    let undecided = transaction.fetch(columns.bind_decided(sqlx::query(sql))).await?;
    Ok(undecided.iter().map(|row| ordinal(row, 0)).collect::<Result<_, _>>()?)
}

/// An ordinal, which the database counts from 1.
fn ordinal<I: sqlx::ColumnIndex<PgRow>>(row: &PgRow, column: I) -> Result<usize, sqlx::Error> {
    row.try_get::<i32, _>(column).map(|at| usize::try_from(at - 1).unwrap_or(usize::MAX))
}
