//! What comes with a call: pages, filters, bodies. Refuses what it does not know, with a sentence.

use actix_web::web::{Payload, Query};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::super::AdminError;
use crate::store::browse::{BrowseError, EventFilter, PageRequest};

/// Largest body of a call, in bytes.
const LARGEST_BODY: usize = 64 * 1024;

impl From<BrowseError> for AdminError {
    fn from(error: BrowseError) -> Self {
        match error {
            BrowseError::Invalid(sentence) => Self::Invalid(sentence),
            BrowseError::Database(error) => error.into(),
        }
    }
}

/// Which page of a list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// Items of a page, 1 to 200; 50 unless said.
    #[param(example = 20)]
    pub limit: Option<i64>,
    /// `next` of the page before.
    pub cursor: Option<String>,
}

impl PageQuery {
    pub fn page(self) -> Result<PageRequest, AdminError> {
        page(self.limit, self.cursor)
    }
}

pub fn page(limit: Option<i64>, cursor: Option<String>) -> Result<PageRequest, AdminError> {
    Ok(PageRequest::new(limit, cursor)?)
}

/// Which events, and which page of them: as they stand in the query.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "for the document; read by `filter`")]
pub struct EventQuery {
    /// Types or families: `invoice.paid`, `invoice.*`; several times, or with commas between.
    #[param(rename = "type", example = "invoice.*")]
    r#type: Option<String>,
    /// The id of the object that the event is about.
    object: Option<String>,
    /// A customer's id: events about it, and about what the billing tables hold of it.
    customer: Option<String>,
    /// The connected account; `-` for the platform's own events.
    account: Option<String>,
    livemode: Option<bool>,
    /// `ok`, `failing` (something of it is tried again) or `dead` (something was given up).
    status: Option<String>,
    /// Made by Stripe then or later: RFC 3339, a day, or Unix seconds.
    #[param(example = "2026-01-31T12:00:00Z")]
    since: Option<String>,
    /// Made by Stripe before then.
    until: Option<String>,
    /// An event's id; with `*` at its end, how it begins.
    id: Option<String>,
    /// Items of a page, 1 to 200; 50 unless said.
    limit: Option<i64>,
    /// `next` of the page before, of the same query.
    cursor: Option<String>,
}

/// The pairs of a query, in their order.
pub type Pairs = Query<Vec<(String, String)>>;

/// A filter and a page from the pairs of a query.
pub fn filter(pairs: Vec<(String, String)>) -> Result<(EventFilter, PageRequest), AdminError> {
    let mut filter = EventFilter::default();
    let (mut limit, mut cursor) = (None, None);
    for (name, value) in pairs {
        match name.as_str() {
            "limit" => {
                let wrong = |_| AdminError::Invalid("limit: expected a number".to_owned());
                limit = Some(value.parse().map_err(wrong)?);
            }
            "cursor" => cursor = Some(value),
            _ => filter.set(&name, &value)?,
        }
    }
    Ok((filter, page(limit, cursor)?))
}

/// Which events, in a body: as in the query of `GET /api/v1/events`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FilterBody {
    /// Types or families.
    #[serde(rename = "type")]
    #[schema(example = json!(["invoice.*"]))]
    pub types: Vec<String>,
    pub object: Option<String>,
    pub customer: Option<String>,
    /// `-` for the platform's own.
    pub account: Option<String>,
    pub livemode: Option<bool>,
    /// ok, failing or dead.
    pub status: Option<String>,
    pub since: Option<String>,
    pub until: Option<String>,
    pub id: Option<String>,
}

impl FilterBody {
    pub fn filter(&self) -> Result<EventFilter, AdminError> {
        let mut filter = EventFilter::default();
        for types in &self.types {
            filter.set("type", types)?;
        }
        let livemode = self.livemode.map(|live| live.to_string());
        for (name, value) in [
            ("object", &self.object),
            ("customer", &self.customer),
            ("account", &self.account),
            ("livemode", &livemode),
            ("status", &self.status),
            ("since", &self.since),
            ("until", &self.until),
            ("id", &self.id),
        ] {
            if let Some(value) = value {
                filter.set(name, value)?;
            }
        }
        Ok(filter)
    }
}

/// A body as JSON; none at all is an empty object.
pub async fn body<T: DeserializeOwned>(payload: Payload) -> Result<T, AdminError> {
    let too_large =
        |_| AdminError::Invalid(format!("the body is larger than {LARGEST_BODY} bytes"));
    let bytes = payload.to_bytes_limited(LARGEST_BODY).await.map_err(too_large)?;
    let broken = |_| AdminError::Invalid("the body did not arrive whole".to_owned());
    let bytes = bytes.map_err(broken)?;
    let parsed = match bytes.as_ref() {
        [] => serde_json::from_value(Value::Object(serde_json::Map::new())),
        bytes => serde_json::from_slice(bytes),
    };
    parsed.map_err(|error| AdminError::Invalid(format!("the body: {error}")))
}

/// A time in a query or a body.
pub fn instant(
    name: &str,
    value: Option<&str>,
) -> Result<Option<time::OffsetDateTime>, AdminError> {
    let value = value.filter(|value| !value.is_empty());
    Ok(value.map(|value| crate::store::browse::filter::instant(name, value)).transpose()?)
}
