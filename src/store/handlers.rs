//! The user's handlers in SQL: which are registered, and calling one inside a transaction.
//! What follows from a failure is decided in `ingest::commit` and `maintain::rescue`.

use std::str::FromStr;
use std::time::Duration;

use sqlx::{PgConnection, Row};

use super::StoreError;
use super::connect::Transaction;
use super::events::EventKey;

/// What happens to an event whose handler fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The event is recorded; the handler's effect is rolled back, and tried again later.
    Park,
    /// The event is not recorded either, and Stripe is told to come back.
    Reject,
}

impl Policy {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Park => "park",
            Self::Reject => "reject",
        }
    }
}

/// What the types of Tollgate's own events begin with: snapshots, which Stripe never sent.
const OWN: &str = "tollgate.";

/// Is that the type of an event of Tollgate's own?
pub fn is_own(event_type: &str) -> bool {
    event_type.starts_with(OWN)
}

/// Which event types are wanted: one, all of a family (`invoice.*`), or all of Stripe's (`*`). The
/// database has the same as `tollgate.wants`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    pub fn new(pattern: impl Into<String>) -> Self {
        Self(pattern.into())
    }

    /// Does an event of this type fit? Those of Tollgate's own fit who names them: `tollgate.*`.
    pub fn fits(&self, event_type: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some("") => !is_own(event_type),
            Some(family) => event_type.starts_with(family),
            None => event_type == self.0,
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The text is no pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a type, a family or everything: invoice.paid, invoice.* or *")]
pub struct NotAPattern;

/// As the CHECK of `tollgate.handlers` has it.
impl FromStr for Pattern {
    type Err = NotAPattern;

    fn from_str(text: &str) -> Result<Self, NotAPattern> {
        let stem = text.strip_suffix(".*").unwrap_or(text);
        let plain = !stem.is_empty() && !stem.contains(|c: char| c == '*' || c.is_whitespace());
        if text == "*" || plain { Ok(Self::new(text)) } else { Err(NotAPattern) }
    }
}

/// A registered function.
#[derive(Clone, Debug)]
pub struct SqlHandler {
    pub name: String,
    pub pattern: Pattern,
    /// With schema and argument.
    pub function: String,
    pub policy: Policy,
    pub timeout: Duration,
    pub max_attempts: i32,
}

/// The handlers as they were at some time.
#[derive(Clone, Debug, Default)]
pub struct Registered {
    /// Grows with every change; -1 before the first look.
    pub generation: i64,
    /// In the order in which they are called.
    pub handlers: Vec<SqlHandler>,
}

/// Reads what is registered.
pub async fn registered(connection: &mut PgConnection) -> Result<Registered, sqlx::Error> {
    // One statement, so that the list is that of the generation.
    let rows = sqlx::query(
        "SELECT g.generation, h.name, h.pattern, h.function, h.policy,
                (extract(epoch FROM h.timeout) * 1000)::bigint AS timeout_ms, h.max_attempts
         FROM tollgate.handlers_generation g LEFT JOIN tollgate.handlers h ON true
         ORDER BY h.name",
    )
    .persistent(false)
    .fetch_all(connection)
    .await?;
    let mut registered = Registered::default();
    for row in rows {
        registered.generation = row.try_get("generation")?;
        let Some(name) = row.try_get("name")? else {
            continue;
        };
        let timeout: i64 = row.try_get("timeout_ms")?;
        registered.handlers.push(SqlHandler {
            name,
            pattern: Pattern(row.try_get("pattern")?),
            function: row.try_get("function")?,
            policy: match row.try_get("policy")? {
                "reject" => Policy::Reject,
                _ => Policy::Park,
            },
            timeout: Duration::from_millis(timeout.unsigned_abs()),
            max_attempts: row.try_get("max_attempts")?,
        });
    }
    Ok(registered)
}

/// Calls a function with an event of the log.
pub async fn call(
    transaction: &mut Transaction<'_>,
    function: &str,
    (created, id): EventKey<'_>,
) -> Result<(), StoreError> {
    let statement = sqlx::query("SELECT tollgate.call_handler($1, $2, $3)")
        .bind(function)
        .bind(created)
        .bind(id.as_str());
    Ok(transaction.fetch(statement).await.map(drop)?)
}

/// Registers a function, given as SQL would name it; returns the handler's name.
pub async fn register(
    connection: &mut PgConnection,
    handler: &NewHandler<'_>,
) -> Result<String, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT tollgate.register_handler($1, $2::text::regprocedure, $3, $4,
                                          make_interval(secs => $5::float8 / 1000), $6)",
    )
    .bind(handler.pattern)
    .bind(handler.function)
    .bind(handler.name)
    .bind(handler.policy.as_str())
    .bind(i64::try_from(handler.timeout.as_millis()).unwrap_or(i64::MAX))
    .bind(handler.max_attempts)
    .fetch_one(connection)
    .await
}

/// A handler to be registered.
#[derive(Clone, Copy, Debug)]
pub struct NewHandler<'a> {
    pub pattern: &'a str,
    pub function: &'a str,
    pub name: Option<&'a str>,
    pub policy: Policy,
    pub timeout: Duration,
    pub max_attempts: i32,
}

/// Ends the calls of a handler; false if there is none of that name.
pub async fn drop_handler(connection: &mut PgConnection, name: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT tollgate.drop_handler($1)").bind(name).fetch_one(connection).await
}

#[cfg(test)]
mod tests {
    use super::{NotAPattern, Pattern};

    #[test]
    fn patterns_fit_types() {
        for (pattern, event_type, fits) in [
            ("*", "invoice.paid", true),
            ("*", "", true),
            ("invoice.*", "invoice.paid", true),
            ("invoice.*", "invoice.payment.failed", true),
            ("invoice.*", "invoiceitem.created", false),
            ("invoice.*", "invoice", false),
            ("invoice.paid", "invoice.paid", true),
            ("invoice.paid", "invoice.paid.twice", false),
            ("*", "tollgate.snapshot", false),
            ("*", "tollgate", true),
            ("*", "tollgate_x.y", true),
            ("tollgate.*", "tollgate.snapshot", true),
            ("tollgate.snapshot", "tollgate.snapshot", true),
            ("tollgate.other", "tollgate.snapshot", false),
            ("tollgate.*", "invoice.paid", false),
        ] {
            assert_eq!(Pattern::new(pattern).fits(event_type), fits, "{pattern} {event_type}");
        }
    }

    #[test]
    fn patterns_are_a_type_a_family_or_everything() {
        for good in ["*", "invoice.paid", "invoice.*", "v1.billing.meter.*", "invoice"] {
            assert_eq!(good.parse(), Ok(Pattern::new(good)));
        }
        for bad in ["", ".*", "in*ce", "invoice*", "*.*", "**", "invoice paid", "a.*.b", " *"] {
            assert_eq!(bad.parse::<Pattern>(), Err(NotAPattern), "{bad:?}");
        }
    }
}
