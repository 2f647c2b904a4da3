//! Rows of the billing tables on their way into the database, and how a batch of events is folded
//! into them: at most one row for each object. What ties is settled in `projections`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::{Map, Value};
use sqlx::Postgres;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use time::OffsetDateTime;

use super::events::NewEvent;
use crate::stripe::event::Envelope;
use crate::stripe::kinds::Kind;
use crate::stripe::order::{Basis, Standing};
use crate::stripe::snapshot::{Snapshot, storable};

/// Which object, and in which table. Sorted in the order in which rows are written and locked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectKey {
    pub table: &'static str,
    pub account: String,
    pub livemode: bool,
    /// Empty where the object does not say.
    pub object_type: String,
    pub id: String,
}

impl ObjectKey {
    /// Of an object of this type, which says in which table it is.
    pub(super) fn new(account: String, livemode: bool, object_type: String, id: String) -> Self {
        Self { table: Kind::of(&object_type).table, account, livemode, object_type, id }
    }

    fn of(envelope: &Envelope) -> Option<Self> {
        let object_type = envelope.subject.object_type.clone().unwrap_or_default();
        let id = envelope.subject.object_id.clone()?;
        Some(Self::new(envelope.account.clone(), envelope.livemode, object_type, id))
    }

    /// What is true of its row alone, with the values that `bind` gives.
    pub(super) fn condition(&self) -> &'static str {
        match self.table {
            "objects" => "(account, livemode, id, object_type) = ($1, $2, $3, $4)",
            _ => "(account, livemode, id) = ($1, $2, $3) AND $4 <> ''",
        }
    }

    pub(super) fn bind<'q>(
        &'q self,
        statement: Query<'q, Postgres, PgArguments>,
    ) -> Query<'q, Postgres, PgArguments> {
        statement.bind(&self.account).bind(self.livemode).bind(&self.id).bind(&self.object_type)
    }

    /// The object that an event of the log shows, if it shows one.
    pub fn shown_by(raw: &[u8]) -> Option<Self> {
        let envelope = Envelope::parse(raw).ok()?;
        Some(Shown::of(&envelope, raw)?.key)
    }
}

/// What an event shows: which object, in which state, and how high it stands among its events.
#[derive(Debug)]
pub struct Shown<'a> {
    pub key: ObjectKey,
    pub standing: Standing,
    pub snapshot: Snapshot<'a>,
}

impl<'a> Shown<'a> {
    /// None if the event shows no object that could be told from others.
    pub fn of(envelope: &Envelope, body: &'a [u8]) -> Option<Self> {
        let snapshot = Snapshot::of(envelope, body)?;
        let (incarnation, phase) = (snapshot.incarnation, snapshot.phase);
        let standing = Standing { incarnation, phase, created: envelope.created };
        Some(Self { key: ObjectKey::of(envelope)?, standing, snapshot })
    }
}

/// What an event says of its object's links, with its standing and id.
pub type Said = (Standing, String, Map<String, Value>);

/// Whether other events of the batch are about the same object. The numbers are those of
/// `tollgate.write_events`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Crowd {
    Alone = 0,
    /// The event stands higher than all others.
    Above = 1,
    /// Another one stands as high.
    Tied = 2,
    /// Only the whole history tells.
    Unclear = 3,
}

/// How a row is written. The names are those of `tollgate.write_objects`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Where it stands higher than what is there.
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

/// A row to be written.
#[derive(Clone, Debug)]
pub struct ObjectRow<'a> {
    pub mode: Mode,
    pub key: ObjectKey,
    pub standing: Standing,
    pub event_id: &'a str,
    pub api_version: Option<&'a str>,
    pub basis: Basis,
    pub rests_on_base: bool,
    pub links: String,
    /// JSON that Postgres can hold.
    pub object: Cow<'a, str>,
    pub crowd: Crowd,
}

/// One row for each object of the batch, in the order in which they are to be written.
pub fn fold<'a>(batch: &[&'a NewEvent]) -> Vec<ObjectRow<'a>> {
    let mut objects: BTreeMap<ObjectKey, Vec<One<'a>>> = BTreeMap::new();
    for &event in batch {
        if let Some(Shown { key, standing, snapshot }) = Shown::of(&event.envelope, &event.raw) {
            objects.entry(key).or_default().push((standing, snapshot, event));
        }
    }
    objects.into_iter().filter_map(|(key, events)| row(key, &events)).collect()
}

/// What one event says of its object.
type One<'a> = (Standing, Snapshot<'a>, &'a NewEvent);

/// The row of the event that stands highest.
fn row<'a>(key: ObjectKey, events: &[One<'a>]) -> Option<ObjectRow<'a>> {
    let (standing, snapshot, event) = events.iter().max_by_key(|(standing, _, _)| *standing)?;
    // What another event says of a link, and this one does not, depends on what came before.
    let says = |link: &str| snapshot.links.iter().any(|(known, _)| *known == link);
    let says_less =
        events.iter().any(|(_, other, _)| other.links.iter().any(|(link, _)| !says(link)));
    let crowd = if events.len() == 1 {
        Crowd::Alone
    } else if says_less {
        Crowd::Unclear
    } else if events.iter().filter(|(other, _, _)| other == standing).count() > 1 {
        Crowd::Tied
    } else {
        Crowd::Above
    };
    Some(ObjectRow {
        mode: Mode::Newer,
        key,
        standing: *standing,
        event_id: event.envelope.id.as_str(),
        api_version: event.envelope.api_version.as_deref(),
        basis: Basis::Unique,
        rests_on_base: false,
        links: Value::Object(links(snapshot)).to_string(),
        object: storable(snapshot.json),
        crowd,
    })
}

/// What the object says about its links, as JSON.
pub fn links(snapshot: &Snapshot<'_>) -> Map<String, Value> {
    let link = |(link, value): &(&'static str, Option<String>)| {
        let value = value.as_ref().map_or(Value::Null, |id| id.replace('\0', "\u{fffd}").into());
        ((*link).to_owned(), value)
    };
    snapshot.links.iter().map(link).collect()
}

/// The rows as the arrays that the database's functions take.
#[derive(Debug, Default)]
pub struct Columns<'a> {
    /// Each run of rows of one table and one mode, and the ordinal of its last row.
    tables: Vec<&'static str>,
    modes: Vec<&'static str>,
    ends: Vec<i32>,
    accounts: Vec<&'a str>,
    livemodes: Vec<bool>,
    object_types: Vec<&'a str>,
    ids: Vec<&'a str>,
    incarnations: Vec<i64>,
    phases: Vec<i16>,
    createds: Vec<OffsetDateTime>,
    event_ids: Vec<&'a str>,
    api_versions: Vec<Option<&'a str>>,
    links: Vec<&'a str>,
    objects: Vec<&'a str>,
    crowds: Vec<i16>,
    bases: Vec<&'static str>,
    rest_on_base: Vec<bool>,
}

impl<'a> Columns<'a> {
    /// `rows` of one mode must be sorted by key.
    pub fn of(rows: &'a [ObjectRow<'_>]) -> Self {
        let mut columns = Self::default();
        for (row, ordinal) in rows.iter().zip(1..) {
            let run = (Some(&row.key.table), Some(&row.mode.as_str()));
            if (columns.tables.last(), columns.modes.last()) == run {
                columns.ends.pop();
            } else {
                columns.tables.push(row.key.table);
                columns.modes.push(row.mode.as_str());
            }
            columns.ends.push(ordinal);
            columns.accounts.push(&row.key.account);
            columns.livemodes.push(row.key.livemode);
            columns.object_types.push(&row.key.object_type);
            columns.ids.push(&row.key.id);
            columns.incarnations.push(row.standing.incarnation);
            columns.phases.push(row.standing.phase as i16);
            columns.createds.push(row.standing.created);
            columns.event_ids.push(row.event_id);
            columns.api_versions.push(row.api_version);
            columns.links.push(&row.links);
            columns.objects.push(&row.object);
            columns.crowds.push(row.crowd as i16);
            columns.bases.push(row.basis.as_str());
            columns.rest_on_base.push(row.rests_on_base);
        }
        columns
    }

    /// Binds what events show, as `tollgate.write_events` and `commit_events` take it: 15 values.
    pub(super) fn bind_shown<'q>(&'q self, statement: Statement<'q>) -> Statement<'q> {
        statement
            .bind(&self.tables)
            .bind(&self.modes)
            .bind(&self.ends)
            .bind(&self.accounts)
            .bind(&self.livemodes)
            .bind(&self.object_types)
            .bind(&self.ids)
            .bind(&self.incarnations)
            .bind(&self.phases)
            .bind(&self.createds)
            .bind(&self.event_ids)
            .bind(&self.api_versions)
            .bind(&self.links)
            .bind(&self.objects)
            .bind(&self.crowds)
    }

    /// Binds what was decided, as `tollgate.write_objects` and `finish_events` take it: 17 values.
    pub(super) fn bind_decided<'q>(&'q self, statement: Statement<'q>) -> Statement<'q> {
        self.bind_shown(statement).bind(&self.bases).bind(&self.rest_on_base)
    }
}

type Statement<'q> = Query<'q, Postgres, PgArguments>;
