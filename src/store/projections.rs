//! Writing events together with the billing tables, step by step in one transaction, and settling
//! by the log what the rows alone cannot. The rule itself is `stripe::order`'s.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::{Map, Value};
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{Postgres, Row};
use time::OffsetDateTime;

use super::StoreError;
use super::connect::Transaction;
use super::events::{NewEvent, bind_events};
use super::objects::{Columns, Crowd, ObjectKey, ObjectRow, Shown, links};
use crate::stripe::event::Envelope;
use crate::stripe::order::{self, Basis, Standing, Version};
use crate::stripe::snapshot::storable;

/// What a batch changed.
#[derive(Debug, Default)]
pub struct Written {
    /// Keys of the events that are new.
    pub new: Vec<(OffsetDateTime, String)>,
    undecided: BTreeMap<usize, Evidence>,
}

impl Written {
    /// Did anything have to be decided by the log?
    pub fn is_undecided(&self) -> bool {
        !self.undecided.is_empty()
    }
}

/// What is known about an object that could not be decided by its row.
#[derive(Debug)]
enum Evidence {
    /// All events of the second of the one that ties.
    Second(Vec<Logged>),
    /// Nothing yet: the whole history is needed.
    Missing,
}

/// Inserts events and writes the rows of the objects they show.
///
/// # Errors
/// [`Fault::Handlers`](super::Fault::Handlers) if the handlers are not those of `generation`.
pub async fn write(
    transaction: &mut Transaction<'_>,
    batch: &[&NewEvent],
    rows: &[ObjectRow<'_>],
    generation: i64,
) -> Result<Written, StoreError> {
    let columns = Columns::of(rows);
    let statement = sqlx::query(
        "SELECT what, at, created, id, type, api_version, raw FROM tollgate.write_events(
            $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11,
            $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26)",
    );
    let statement = bind_objects(bind_events(statement, batch), &columns).bind(generation);
    let mut written = Written::default();
    for row in transaction.fetch(statement).await? {
        let at = |row: &PgRow| row.try_get::<i32, _>("at").map(|at| usize::try_from(at - 1));
        match row.try_get("what")? {
            "new" => written.new.push((row.try_get("created")?, row.try_get("id")?)),
            "tied" => {
                let at = at(&row)?.unwrap_or(usize::MAX);
                let evidence =
                    written.undecided.entry(at).or_insert_with(|| Evidence::Second(Vec::new()));
                if let Evidence::Second(events) = evidence {
                    events.push(Logged::of(&row)?);
                }
            }
            _ => {
                written.undecided.insert(at(&row)?.unwrap_or(usize::MAX), Evidence::Missing);
            }
        }
    }
    Ok(written)
}

/// Binds the rows as `tollgate.write_events` and `commit_events` take them.
pub(super) fn bind_objects<'q>(
    statement: Query<'q, Postgres, PgArguments>,
    columns: &'q Columns<'_>,
) -> Query<'q, Postgres, PgArguments> {
    statement
        .bind(&columns.tables)
        .bind(&columns.ends)
        .bind(&columns.accounts)
        .bind(&columns.livemodes)
        .bind(&columns.object_types)
        .bind(&columns.ids)
        .bind(&columns.incarnations)
        .bind(&columns.phases)
        .bind(&columns.createds)
        .bind(&columns.event_ids)
        .bind(&columns.api_versions)
        .bind(&columns.links)
        .bind(&columns.objects)
        .bind(&columns.crowds)
}

/// Decides by the log what `write` left open. The rows are locked since then, so nobody else
/// decides the same at once.
pub async fn settle(
    transaction: &mut Transaction<'_>,
    rows: &[ObjectRow<'_>],
    written: &Written,
) -> Result<(), StoreError> {
    let (mut merged, mut replaced) = (Vec::new(), Vec::new());
    for (at, evidence) in &written.undecided {
        let Some(row) = rows.get(*at) else {
            continue;
        };
        let tied = match evidence {
            Evidence::Second(events) => Decision::among(&row.key, Some(row.standing), events),
            Evidence::Missing => None,
        };
        match tied {
            Some(decision) if !decision.rests_on_base => merged.push((row.key.clone(), decision)),
            _ => replaced.extend(decide(transaction, &row.key).await?),
        }
    }
    place(transaction, Target::Tables, Mode::Merge, &merged).await?;
    place(transaction, Target::Tables, Mode::Replace, &replaced).await
}

/// Writes an object anew from the log. `row`, of any event of it, is there to lock by.
pub async fn restore(
    transaction: &mut Transaction<'_>,
    row: ObjectRow<'_>,
) -> Result<(), StoreError> {
    let key = row.key.clone();
    write_objects(transaction, Target::Tables, Mode::Newer, &[row]).await?;
    decide_into(transaction, Target::Tables, &key).await
}

/// Decides an object by its whole history and writes it. Its row must be locked, or out of reach.
pub async fn decide_into(
    transaction: &mut Transaction<'_>,
    target: Target,
    key: &ObjectKey,
) -> Result<(), StoreError> {
    let decided = Vec::from_iter(decide(transaction, key).await?);
    place(transaction, target, Mode::Replace, &decided).await
}

/// Decides an object by its whole history.
async fn decide(
    transaction: &mut Transaction<'_>,
    key: &ObjectKey,
) -> Result<Option<(ObjectKey, Decision)>, StoreError> {
    let statement = sqlx::query(
        "SELECT raw FROM tollgate.event_log
         WHERE object_id = $1 AND account = $2 AND livemode = $3",
    )
    .bind(&key.id)
    .bind(&key.account)
    .bind(key.livemode);
    let events = transaction.fetch(statement).await?;
    let events = events.iter().map(Logged::of).collect::<Result<Vec<_>, _>>()?;
    Ok(Decision::among(key, None, &events).map(|decision| (key.clone(), decision)))
}

/// An event of the log.
#[derive(Debug)]
struct Logged {
    raw: Vec<u8>,
}

impl Logged {
    fn of(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self { raw: row.try_get("raw")? })
    }
}

/// The state of an object as the log has it.
#[derive(Debug)]
struct Decision {
    standing: Standing,
    event_id: String,
    api_version: Option<String>,
    basis: Basis,
    rests_on_base: bool,
    links: String,
    object: String,
}

impl Decision {
    /// Decides among those of the events that are about `key` and, if it is given, of `standing`.
    fn among(key: &ObjectKey, only: Option<Standing>, events: &[Logged]) -> Option<Self> {
        let mut versions = Vec::with_capacity(events.len());
        let mut said = Vec::new();
        let mut objects = BTreeMap::new();
        for event in events {
            let Ok(envelope) = Envelope::parse(&event.raw) else {
                continue;
            };
            let Some(Shown { key: of, standing, snapshot }) = Shown::of(&envelope, &event.raw)
            else {
                continue;
            };
            if of != *key || only.is_some_and(|only| standing != only) {
                continue;
            }
            said.push((standing, envelope.id.to_string(), links(&snapshot)));
            objects.insert(envelope.id.to_string(), snapshot.json);
            versions.push(version(envelope, standing, &event.raw));
        }
        let resolution = order::resolve(&key.object_type, &versions)?;
        let winner = resolution.winner;
        let object = storable(objects.get(&winner.event_id)?).into_owned();
        Some(Self {
            standing: winner.standing,
            event_id: winner.event_id.clone(),
            api_version: winner.api_version.clone(),
            basis: resolution.basis,
            rests_on_base: resolution.rests_on_base,
            links: last_said(said, winner.standing.incarnation).to_string(),
            object,
        })
    }

    fn row<'a>(&'a self, key: &ObjectKey) -> ObjectRow<'a> {
        ObjectRow {
            key: key.clone(),
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
fn last_said(mut said: Vec<(Standing, String, Map<String, Value>)>, incarnation: i64) -> Value {
    said.retain(|(standing, _, _)| standing.incarnation == incarnation);
    said.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    Value::Object(said.into_iter().flat_map(|(_, _, links)| links).collect())
}

/// An event as the order rule sees it.
fn version(envelope: Envelope, standing: Standing, raw: &[u8]) -> Version {
    #[derive(serde::Deserialize)]
    struct Event {
        data: Data,
    }
    #[derive(serde::Deserialize)]
    struct Data {
        object: Value,
        previous_attributes: Option<Value>,
    }
    let (object, previous) = match serde_json::from_slice::<Event>(raw) {
        Ok(event) => (event.data.object, event.data.previous_attributes),
        // JSON that cannot be taken apart (numbers beyond all bounds) equals only itself.
        Err(_) => (Value::String(String::from_utf8_lossy(raw).into_owned()), None),
    };
    Version {
        event_id: envelope.id.to_string(),
        event_type: envelope.event_type,
        api_version: envelope.api_version,
        standing,
        object,
        previous,
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

/// How rows are written. The names are those of `tollgate.write_objects`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Where they stand higher than what is there.
    Newer,
    /// As decided among the events of one second; older links stay.
    Merge,
    /// As decided by the whole history.
    Replace,
}

impl Mode {
    fn as_str(self) -> &'static str {
        match self {
            Self::Newer => "newer",
            Self::Merge => "merge",
            Self::Replace => "replace",
        }
    }
}

async fn place(
    transaction: &mut Transaction<'_>,
    target: Target,
    mode: Mode,
    decisions: &[(ObjectKey, Decision)],
) -> Result<(), StoreError> {
    if decisions.is_empty() {
        return Ok(());
    }
    let rows: Vec<_> = decisions.iter().map(|(key, decision)| decision.row(key)).collect();
    write_objects(transaction, target, mode, &rows).await.map(drop)
}

/// Writes rows, sorted by key. Returns the ordinals, from 0, of those that mode `Newer` cannot decide.
pub async fn write_objects(
    transaction: &mut Transaction<'_>,
    target: Target,
    mode: Mode,
    rows: &[ObjectRow<'_>],
) -> Result<Vec<usize>, StoreError> {
    let columns = Columns::of(rows);
    let sql = match target {
        Target::Tables => {
            "SELECT at FROM tollgate.write_objects($1, $2, $3, '{}', $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)"
        }
        Target::Copies => {
            "SELECT at FROM tollgate_rebuild.write_objects($1, $2, $3, '{}', $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)"
        }
    };
    let statement = sqlx::query(sql)
        .bind(&columns.tables)
        .bind(&columns.ends)
        .bind(mode.as_str())
        .bind(&columns.accounts)
        .bind(&columns.livemodes)
        .bind(&columns.object_types)
        .bind(&columns.ids)
        .bind(&columns.incarnations)
        .bind(&columns.phases)
        .bind(&columns.createds)
        .bind(&columns.event_ids)
        .bind(&columns.bases)
        .bind(&columns.rest_on_base)
        .bind(&columns.api_versions)
        .bind(&columns.links)
        .bind(&columns.objects);
    let undecided = transaction.fetch(statement).await?;
    let ordinal = |row: &PgRow| {
        row.try_get::<i32, _>(0).map(|at| usize::try_from(at - 1).unwrap_or(usize::MAX))
    };
    Ok(undecided.iter().map(ordinal).collect::<Result<_, _>>()?)
}
