//! What is left of an object's events that the log has forgotten: the row that they made.
//! What follows from it for the object is decided in `projections`.

use serde_json::{Map, Value};
use sqlx::{AssertSqlSafe, Row};
use time::Date;

use super::StoreError;
use super::connect::Transaction;
use super::objects::{ObjectKey, Said};
use crate::stripe::order::{Basis, Json, Phase, Standing, Version};

/// An object's row, where retention may have dropped events of it.
#[derive(Debug)]
pub struct Remains {
    /// The row as an event's.
    pub version: Version,
    pub basis: Basis,
    pub rests_on_base: bool,
    /// What that event, or one before it, said.
    links: Map<String, Value>,
    /// Whether the event itself may be gone.
    stands_alone: bool,
}

impl Remains {
    /// Adds what it says to what the events of the log do. True if it does so as an event of its own:
    /// else that one is in the log, and the row only knows links that earlier ones gave.
    pub fn add_to(&self, versions: &mut Vec<Version>, said: &mut Vec<Said>) -> bool {
        let Version { event_id, standing, .. } = &self.version;
        let alone = self.stands_alone && versions.iter().all(|one| one.event_id != *event_id);
        let below_all = Standing {
            phase: Phase::Created,
            created: Date::MIN.midnight().assume_utc(),
            ..*standing
        };
        let at = if alone { *standing } else { below_all };
        said.push((at, event_id.clone(), self.links.clone()));
        if alone {
            versions.push(self.version.clone());
        }
        alone
    }
}

/// The row of an object in the billing tables; none if there is none, or the log has all events.
pub async fn of(
    transaction: &mut Transaction<'_>,
    key: &ObjectKey,
) -> Result<Option<Remains>, StoreError> {
    let sql = format!(
        "SELECT incarnation, phase, as_of, as_of_event, api_version, order_basis, rests_on_base,
                links::text AS links, object::text AS object, as_of < before AS stands_alone
         FROM tollgate.forgotten, stripe.{} WHERE before IS NOT NULL AND {}",
        key.table,
        key.condition()
    );
    let statement = key.bind(sqlx::query(AssertSqlSafe(sql)));
    let rows = transaction.fetch(statement).await?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let (Some(phase), Some(basis)) =
        (Phase::numbered(row.try_get("phase")?), Basis::named(row.try_get("order_basis")?))
    else {
        return Ok(None);
    };
    let (incarnation, created) = (row.try_get("incarnation")?, row.try_get("as_of")?);
    let version = Version {
        event_id: row.try_get("as_of_event")?,
        event_type: String::new(),
        api_version: row.try_get("api_version")?,
        standing: Standing { incarnation, phase, created },
        object: Json::from(row.try_get::<&str, _>("object")?),
        previous: None,
    };
    Ok(Some(Remains {
        version,
        basis,
        rests_on_base: row.try_get("rests_on_base")?,
        links: serde_json::from_str(row.try_get("links")?).unwrap_or_default(),
        stands_alone: row.try_get("stands_alone")?,
    }))
}
