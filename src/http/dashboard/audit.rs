//! The audit log: who did what, when. Only shows it.

use actix_web::HttpResponse;
use actix_web::web::{self, Query, ServiceConfig};
use askama::Template;
use serde::Deserialize;
use serde_json::Value;

use super::filters;
use super::page::{self, Shell, Visit};
use crate::http::admin::AdminError;
use crate::store::audit::{self, Entry};

const PATH: &str = "/audit";

/// Entries on a page.
const LINES: i64 = 50;

pub fn routes(config: &mut ServiceConfig) {
    config.route(PATH, web::get().to(list));
}

#[derive(Deserialize)]
struct Place {
    before: Option<i64>,
}

#[derive(Template)]
#[template(path = "audit.html")]
struct AuditPage {
    shell: Shell,
    entries: Vec<Entry>,
    first: bool,
    /// Where older ones begin.
    next: Option<i64>,
}

impl AuditPage {
    /// `by: jane, since: 2026-…`; what a detail holds is not ours to know.
    fn detail(entry: &Entry) -> String {
        let Value::Object(members) = &entry.detail else {
            return entry.detail.to_string();
        };
        let pair = |(key, value): (&String, &Value)| match value {
            Value::Null => None,
            Value::String(text) => Some(format!("{key}: {text}")),
            other => Some(format!("{key}: {other}")),
        };
        members.iter().filter_map(pair).collect::<Vec<_>>().join(", ")
    }
}

async fn list(visit: Visit, place: Query<Place>) -> Result<HttpResponse, AdminError> {
    let before = place.before;
    let read = async move |connection: &mut _| Ok(audit::newest(connection, before, LINES).await?);
    let entries = visit.read(read).await?;
    let full = i64::try_from(entries.len()).unwrap_or(0) == LINES;
    let next = entries.last().filter(|_| full).map(|entry| entry.entry);
    let shell = visit.shell("Audit log", PATH).await?;
    page::show(&AuditPage { shell, entries, first: before.is_none(), next })
}
