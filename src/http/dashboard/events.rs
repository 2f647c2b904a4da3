//! The list of events with its filters, and finding anything by its id.

use actix_web::HttpResponse;
use actix_web::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, LOCATION};
use actix_web::web::{self, Query, ServiceConfig};
use askama::Template;
use serde::Deserialize;

use super::page::{self, Shell, Visit, encoded};
use super::{csv, filters};
use crate::http::admin::AdminError;
use crate::store::browse::events::{self, EventLine};
use crate::store::browse::page::MOST;
use crate::store::browse::{BrowseError, EventFilter, Page, PageRequest};

const PATH: &str = "/events";

pub fn routes(config: &mut ServiceConfig) {
    config
        .route(PATH, web::get().to(list))
        .route("/events.csv", web::get().to(table))
        .route("/search", web::get().to(search));
}

/// The fields of the form, as they were sent.
#[derive(Default)]
struct Fields {
    pairs: Vec<(String, String)>,
}

impl Fields {
    fn get(&self, name: &str) -> &str {
        let pair = self.pairs.iter().find(|(key, value)| key == name && !value.is_empty());
        pair.map_or("", |(_, value)| value)
    }

    /// The address with these fields, but for one, which is set to `value`.
    fn with(&self, name: &str, value: &str) -> String {
        let kept = self
            .pairs
            .iter()
            .filter(|(key, value)| key != name && key != "cursor" && !value.is_empty());
        let mut pairs: Vec<String> =
            kept.map(|(key, value)| format!("{}={}", encoded(key), encoded(value))).collect();
        if !value.is_empty() {
            pairs.push(format!("{name}={}", encoded(value)));
        }
        if pairs.is_empty() { PATH.to_owned() } else { format!("{PATH}?{}", pairs.join("&")) }
    }
}

#[derive(Template)]
#[template(path = "events.html")]
struct EventsPage {
    shell: Shell,
    fields: Fields,
    page: Page<EventLine>,
    /// What is wrong about a field.
    wrong: Option<String>,
    /// The same list from the API, without the path.
    query: String,
}

/// `datetime-local` has no zone; all times here are UTC.
fn zoned(name: &str, value: &str) -> String {
    let local = (name == "since" || name == "until")
        && [16, 19].contains(&value.len())
        && !value.ends_with('Z');
    match (local, value.len()) {
        (true, 16) => format!("{value}:00Z"),
        (true, _) => format!("{value}Z"),
        _ => value.to_owned(),
    }
}

fn filter(fields: &Fields) -> Result<EventFilter, BrowseError> {
    let mut filter = EventFilter::default();
    for (name, value) in fields.pairs.iter().filter(|(name, _)| name != "cursor") {
        filter.set(name, &zoned(name, value))?;
    }
    Ok(filter)
}

async fn list(
    visit: Visit,
    query: Query<Vec<(String, String)>>,
) -> Result<HttpResponse, AdminError> {
    let fields = Fields { pairs: query.into_inner() };
    let cursor = Some(fields.get("cursor").to_owned());
    let found = match (filter(&fields), PageRequest::new(None, cursor)) {
        (Ok(filter), Ok(request)) => {
            let read = async move |connection: &mut _| {
                Ok(events::list(connection, &filter, &request).await)
            };
            visit.read(read).await?
        }
        (Err(wrong), _) | (_, Err(wrong)) => Err(wrong),
    };
    let (page, wrong) = match found {
        Ok(page) => (page, None),
        Err(BrowseError::Invalid(sentence)) => {
            (Page { items: Vec::new(), next: None, searched_until: None }, Some(sentence))
        }
        Err(BrowseError::Database(error)) => return Err(error.into()),
    };
    let api = filter(&fields).map(|filter| filter.pairs()).unwrap_or_default();
    let api: Vec<String> =
        api.iter().map(|(name, value)| format!("&{name}={}", encoded(value))).collect();
    let query = api.concat();
    let shell = visit.shell("Events", PATH).await?;
    page::show(&EventsPage { shell, fields, page, wrong, query })
}

/// `GET /events.csv`: the same list for a spreadsheet, as much of it as one page of the API holds.
async fn table(
    visit: Visit,
    query: Query<Vec<(String, String)>>,
) -> Result<HttpResponse, AdminError> {
    let fields = Fields { pairs: query.into_inner() };
    let filter = filter(&fields)?;
    let request = PageRequest::new(Some(MOST), Some(fields.get("cursor").to_owned()))?;
    let read =
        async move |connection: &mut _| Ok(events::list(connection, &filter, &request).await?);
    let page = visit.read(read).await?;
    // A table has no place to say that there is more.
    let name = if page.next.is_some() { "events-part" } else { "events" };
    let named = format!("attachment; filename=\"{name}.csv\"");
    Ok(HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "text/csv; charset=utf-8"))
        .insert_header((CONTENT_DISPOSITION, named))
        .body(csv::of(&page.items)))
}

#[derive(Deserialize)]
struct Sought {
    #[serde(default)]
    q: String,
}

/// Whether it may stand in a pattern of types, as `payment_intent.*`.
fn of_types(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._*".contains(&byte)
}

/// `GET /search`: to what the id is of, as its beginning says.
async fn search(_visit: Visit, sought: Query<Sought>) -> HttpResponse {
    let text = sought.q.trim();
    let place = match text.split('_').next() {
        _ if text.is_empty() => PATH.to_owned(),
        Some("evt") if !text.contains('*') => format!("/events/{}", encoded(text)),
        Some("evt") => format!("{PATH}?id={}", encoded(text)),
        Some("acct") => format!("{PATH}?account={}", encoded(text)),
        _ if text.contains(['.', '*']) && text.bytes().all(of_types) => {
            format!("{PATH}?type={}", encoded(text))
        }
        _ => format!("/billing/objects/{}", encoded(text)),
    };
    HttpResponse::SeeOther().insert_header((LOCATION, place)).finish()
}
