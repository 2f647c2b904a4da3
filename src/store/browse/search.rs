//! How events are searched for: by whichever index leads to the fewest, and never more than a bound
//! of rows for one page. Which filters there are is `filter`'s; what is shown of an event `events`'s.

use std::fmt::Write as _;

use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, PgConnection, Postgres, Row};
use time::OffsetDateTime;

use super::page::Cursor;
use super::{EventFilter, Status};

/// Events looked at for one page, however few of them fit: it bounds how long a page takes. Fewer
/// through an index whose order is not that in which they were written: each is on a page of its own.
const EXAMINED: i64 = 8192;
const SCATTERED: i64 = 1024;

/// Of events that are known to come into question, and are looked up one by one.
const LOOKED_UP: i64 = 512;

/// Objects of one customer, and types of one search, that are searched one by one; beyond that the
/// log is read from its end.
const OBJECTS: i32 = 1_000;
const TYPES: usize = 100;

/// An event's key in the log, the newest first.
pub(super) type Key = (OffsetDateTime, String);

/// What a search found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Newest first.
    pub keys: Vec<Key>,
    /// If it was given up: everything after this key has been looked at.
    pub horizon: Option<Key>,
}

/// What leads to the events.
#[derive(Debug)]
enum Lead {
    /// The log itself, from its end.
    Log,
    /// The events of one object.
    Object(String),
    /// Those of some types.
    Types(Vec<String>),
    /// Those that are known to come into question.
    Keys(Vec<OffsetDateTime>, Vec<String>),
}

/// Finds at most `most` events before `after`, newest first.
pub(super) async fn search(
    connection: &mut PgConnection,
    filter: &EventFilter,
    after: Option<&Cursor>,
    most: i64,
) -> Result<Found, sqlx::Error> {
    let objects = match &filter.customer {
        Some(customer) => Some(objects_of(connection, customer).await?),
        None => None,
    };
    let search = Search { filter, after, objects, most };
    let lead = search.lead(connection).await?;
    let sql = search.sql(&lead);
    let statement = search.bind(sqlx::query(AssertSqlSafe(sql)));
    let statement = match &lead {
        Lead::Log => statement,
        Lead::Object(object) => statement.bind(object),
        Lead::Types(types) => statement.bind(types),
        Lead::Keys(created, ids) => statement.bind(created).bind(ids),
    };
    search.read(&statement.fetch_all(connection).await?)
}

/// The statement that a search would run, without its values: for tests that look at its plan.
#[doc(hidden)]
pub fn statements() -> [(&'static str, String); 4] {
    let filter = EventFilter::default();
    let search = Search { filter: &filter, after: None, objects: None, most: 51 };
    [
        ("log", search.sql(&Lead::Log)),
        ("object", search.sql(&Lead::Object(String::new()))),
        ("types", search.sql(&Lead::Types(vec![String::new()]))),
        ("keys", search.sql(&Lead::Keys(Vec::new(), Vec::new()))),
    ]
}

async fn objects_of(
    connection: &mut PgConnection,
    customer: &str,
) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar("SELECT o.id FROM tollgate.objects_of_customer($1, $2) o")
        .bind(customer)
        .bind(OBJECTS)
        .fetch_all(connection)
        .await
}

struct Search<'a> {
    filter: &'a EventFilter,
    after: Option<&'a Cursor>,
    /// The customer's.
    objects: Option<Vec<String>>,
    most: i64,
}

impl Search<'_> {
    async fn lead(&self, connection: &mut PgConnection) -> Result<Lead, sqlx::Error> {
        let filter = self.filter;
        if let Some(id) = &filter.id {
            return Ok(lead_of(self.by_id(connection, id).await?, EXAMINED));
        }
        if let Some(object) = &filter.object {
            return Ok(Lead::Object(object.clone()));
        }
        if let Some(status @ (Status::Failing | Status::Dead)) = filter.status
            && let keys @ Lead::Keys(..) = lead_of(troubled(connection, status).await?, EXAMINED)
        {
            return Ok(keys);
        }
        if let Some(objects) = &self.objects
            && let keys @ Lead::Keys(..) =
                lead_of(self.by_objects(connection, objects).await?, SCATTERED)
        {
            return Ok(keys);
        }
        if !filter.types.is_empty()
            && let Some(types) = occurring(connection, &filter.types).await?
        {
            return Ok(Lead::Types(types));
        }
        Ok(Lead::Log)
    }

    async fn by_id(
        &self,
        connection: &mut PgConnection,
        id: &str,
    ) -> Result<Vec<Key>, sqlx::Error> {
        // After all that begins with the prefix, byte by byte.
        let (from, until) = match id.strip_suffix('*') {
            Some(prefix) => (prefix.to_owned(), format!("{prefix}\u{10ffff}")),
            None => (id.to_owned(), format!("{id}\u{1}")),
        };
        let exact = !id.ends_with('*');
        let sql = "SELECT p.created, p.id FROM tollgate.positions p
                   WHERE p.id >= $1 AND p.id < $2 AND (NOT $3 OR p.id = $1) ORDER BY p.id LIMIT $4";
        let rows = sqlx::query_as(sql).bind(from).bind(until).bind(exact).bind(EXAMINED + 1);
        rows.fetch_all(connection).await
    }

    async fn by_objects(
        &self,
        connection: &mut PgConnection,
        objects: &[String],
    ) -> Result<Vec<Key>, sqlx::Error> {
        sqlx::query_as(
            "SELECT l.created, l.id::text FROM tollgate.event_log l
             WHERE l.object_id = ANY ($1) AND l.created <= coalesce($2, 'infinity')
               AND l.created >= coalesce($3, '-infinity') LIMIT $4",
        )
        .bind(objects)
        .bind(self.before().0)
        .bind(self.filter.since)
        .bind(SCATTERED + 1)
        .fetch_all(connection)
        .await
    }

    /// The key before which events are wanted.
    fn before(&self) -> (Option<OffsetDateTime>, &str) {
        // Nothing is made at `until` itself, hence no id.
        match (self.after, self.filter.until) {
            (Some(cursor), Some(until)) if until <= cursor.at => (Some(until), ""),
            (Some(cursor), _) => (Some(cursor.at), &cursor.tie),
            (None, until) => (until, ""),
        }
    }

    /// Whether events that the lead leads to may not fit.
    fn is_picky(&self, lead: &Lead) -> bool {
        let filter = self.filter;
        filter.account.is_some()
            || filter.livemode.is_some()
            || filter.status.is_some()
            || self.objects.is_some()
            || !(filter.types.is_empty() || matches!(lead, Lead::Types(_)))
    }

    /// The statement. Each lead gives rows, newest first; the last one looked at is marked, so that
    /// nothing older is taken for complete.
    fn sql(&self, lead: &Lead) -> String {
        let most = self.most;
        let leads = match lead {
            Lead::Types(types) => i64::try_from(types.len()).unwrap_or(i64::MAX).max(1),
            _ => 1,
        };
        let bound = match lead {
            Lead::Log => EXAMINED,
            Lead::Keys(..) => LOOKED_UP,
            _ => SCATTERED / leads,
        };
        // Two to the power of something, so that there are few statements to keep; and no parameter, or
        // the planner expects a tenth of the log.
        let picky = self.is_picky(lead) || matches!(lead, Lead::Keys(..));
        let least = if picky { bound } else { most };
        let examined = u64::try_from(least.max(1)).unwrap_or(1).next_power_of_two();
        let range =
            "l.created <= coalesce($1, 'infinity') AND l.created >= coalesce($3, '-infinity')
                     AND (l.created, l.id) < (coalesce($1, 'infinity'), coalesce($2, ''))";
        let columns = "l.created, l.id, l.type, l.object_id, l.account, l.livemode,
                       row_number() OVER w AS nth";
        // Said in this way, and sorted by what is the same for all, so that only the index of the lead
        // will do: the planner would rather walk along the log's end, in the hope of soon meeting
        // enough of them, and reads all of it where there are few.
        let equal = |column, value| format!("{column} >= {value} AND {column} <= {value} AND");
        let newest = |lead: &str| {
            let order = format!("ORDER BY {lead} l.created DESC, l.id DESC");
            format!("{range} WINDOW w AS ({order}) {order} LIMIT {examined}")
        };
        let log = "FROM tollgate.event_log l WHERE";
        let from = match lead {
            Lead::Log => format!("(SELECT {columns} {log} {}) e", newest("")),
            Lead::Object(_) => format!(
                "unnest(ARRAY[$10::text]) AS o (id)
                 CROSS JOIN LATERAL (SELECT {columns} {log} {} {}) e",
                equal("l.object_id", "o.id"),
                newest("l.object_id DESC,")
            ),
            Lead::Types(_) => format!(
                "unnest($10::text[]) AS t (type)
                 CROSS JOIN LATERAL (SELECT {columns} {log} {} {}) e",
                equal("l.type", "t.type"),
                newest("l.type DESC,")
            ),
            // Not the events' own columns, whose order the planner does not know: it would look all up.
            Lead::Keys(..) => format!(
                "(SELECT l.created, l.id, row_number() OVER (ORDER BY l.created DESC, l.id DESC) AS nth
                  FROM (SELECT DISTINCT u.created, u.id COLLATE \"C\" AS id
                        FROM unnest($10::timestamptz[], $11::text[]) AS u (created, id)) l
                  WHERE {range} ORDER BY l.created DESC, l.id DESC LIMIT {examined}) k
                 LEFT JOIN LATERAL (SELECT l.created, l.id, l.type, l.object_id, l.account, l.livemode
                                    {log} l.created = k.created AND l.id = k.id LIMIT 1) e ON true"
            ),
        };
        let (key, fits) = match lead {
            Lead::Keys(..) => ("k", format!("(e.id IS NOT NULL AND {FITS})")),
            _ => ("e", FITS.to_owned()),
        };
        let mut sql = String::new();
        let _ = write!(
            sql,
            "SELECT {key}.created, {key}.id::text, {key}.nth = {examined} AS last, {fits} AS fits FROM {from}
             WHERE {key}.nth = {examined} OR {fits}
             ORDER BY {key}.created DESC, {key}.id DESC LIMIT {}",
            most + leads
        );
        sql
    }

    fn bind<'q>(
        &'q self,
        statement: Query<'q, Postgres, PgArguments>,
    ) -> Query<'q, Postgres, PgArguments> {
        let filter = self.filter;
        let (created, id) = self.before();
        let (families, types): (Vec<_>, Vec<_>) =
            filter.types.iter().partition(|pattern| pattern.ends_with('*'));
        let families: Vec<&str> = families.iter().map(|it| it.trim_end_matches('*')).collect();
        let any = !filter.types.is_empty();
        statement
            .bind(created)
            .bind(id)
            .bind(filter.since)
            .bind(filter.account.as_deref())
            .bind(filter.livemode)
            .bind(any.then_some(types))
            .bind(any.then_some(families))
            .bind(self.objects.as_deref())
            .bind(filter.status.map(Status::as_str))
    }

    fn read(&self, rows: &[PgRow]) -> Result<Found, sqlx::Error> {
        let mut found = Found::default();
        let most = usize::try_from(self.most).unwrap_or(0);
        for row in rows {
            let key: Key = (row.try_get("created")?, row.try_get("id")?);
            if found.keys.len() == most {
                break;
            }
            let last = row.try_get("last")?;
            if row.try_get("fits")? {
                found.keys.push(key.clone());
            }
            if last && found.keys.len() < most {
                // Of this lead there may be older ones that nobody has looked at.
                found.horizon = Some(key);
                break;
            }
        }
        Ok(found)
    }
}

/// Whether an event fits. The second of the two sets is hashed, however many there are.
const FITS: &str = "(
    ($4::text IS NULL OR e.account = $4) AND ($5::boolean IS NULL OR e.livemode = $5)
    AND ($6::text[] IS NULL OR e.type = ANY ($6) OR e.type ^@ ANY ($7::text[]))
    AND ($8::text[] IS NULL OR e.object_id IN (SELECT unnest($8)))
    AND ($9::text IS NULL OR $9 = tollgate.event_status(e.created, e.id, (
            SELECT p.position FROM tollgate.positions p WHERE p.id = e.id AND p.created = e.created LIMIT 1))))";

/// Keys if they are few enough to be all of them.
fn lead_of(keys: Vec<Key>, most: i64) -> Lead {
    if keys.len() > usize::try_from(most).unwrap_or(usize::MAX) {
        return Lead::Log;
    }
    let (created, ids) = keys.into_iter().unzip();
    Lead::Keys(created, ids)
}

/// Events of which something failed, or more rows than one would look through.
async fn troubled(connection: &mut PgConnection, status: Status) -> Result<Vec<Key>, sqlx::Error> {
    let rows = match status {
        Status::Dead => {
            "(SELECT f.created, f.event_id FROM (SELECT * FROM tollgate.failures LIMIT 20001) f
              WHERE f.next_attempt IS NULL OR (SELECT count(*) FROM (SELECT FROM tollgate.failures LIMIT 20001) n) > 20000
              LIMIT $1)
             UNION ALL (SELECT d.created, d.event_id FROM tollgate.deliveries d WHERE d.state = 'dead' LIMIT $1)"
        }
        _ => {
            "(SELECT f.created, f.event_id FROM tollgate.failures f WHERE f.next_attempt IS NOT NULL LIMIT $1)
             UNION ALL (SELECT d.created, d.event_id FROM tollgate.deliveries d WHERE d.state <> 'dead' LIMIT $1)"
        }
    };
    sqlx::query_as(rows).bind(EXAMINED + 1).fetch_all(connection).await
}

/// The types that occur and fit one of the patterns; none if they are all, or too many.
async fn occurring(
    connection: &mut PgConnection,
    patterns: &[String],
) -> Result<Option<Vec<String>>, sqlx::Error> {
    let mut types = Vec::new();
    for pattern in patterns {
        let Some(family) = pattern.strip_suffix('*') else {
            types.push(pattern.clone());
            continue;
        };
        if family.is_empty() {
            return Ok(None);
        }
        let found: Vec<String> = sqlx::query_scalar("SELECT tollgate.event_types($1, $2, $3)")
            .bind(family)
            .bind(format!("{family}\u{10ffff}"))
            .bind(i32::try_from(TYPES + 1).unwrap_or(i32::MAX))
            .fetch_all(&mut *connection)
            .await?;
        types.extend(found);
    }
    types.sort_unstable();
    types.dedup();
    Ok((types.len() <= TYPES).then_some(types))
}
