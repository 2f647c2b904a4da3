//! Consumers: the list, and one with its deliveries and attempts; buttons to pause, resume and
//! rewind it. What these do stands in `store::consumer_admin`.

use actix_web::HttpResponse;
use actix_web::web::{self, ServiceConfig};
use askama::Template;
use serde::Deserialize;
use serde_json::Value;
use sqlx::PgConnection;

use super::filters;
use super::page::{self, Shell, Visit};
use crate::http::admin::AdminError;
use crate::store::consumer_admin;

const PATH: &str = "/consumers";

pub fn routes(config: &mut ServiceConfig) {
    config.route(PATH, web::get().to(list));
}

/// How a consumer does: a row of `tollgate.consumer_status`.
#[derive(Clone, Debug, Deserialize)]
pub struct ConsumerLine {
    pub name: String,
    pub kind: String,
    pub state: String,
    pub types: Vec<String>,
    pub ordering: String,
    pub cursor: i64,
    pub lag_events: i64,
    pub lag_seconds: f64,
    pub in_flight: i64,
    pub retrying: i64,
    pub deferred: i64,
    pub dead: i64,
    pub paused_because: Option<String>,
    #[serde(with = "time::serde::rfc3339::option", default)]
    pub breaker_until: Option<time::OffsetDateTime>,
    pub url: Option<String>,
}

/// All consumers, by name.
pub async fn all(connection: &mut PgConnection) -> Result<Vec<ConsumerLine>, AdminError> {
    lines(connection, None).await
}

async fn lines(
    connection: &mut PgConnection,
    name: Option<&str>,
) -> Result<Vec<ConsumerLine>, AdminError> {
    let rows = consumer_admin::status(connection, name).await?;
    let lines = rows.into_iter().map(|row| serde_json::from_value(Value::Object(row)));
    lines.collect::<Result<_, _>>().map_err(|error| {
        tracing::error!(%error, "a consumer's status cannot be read");
        AdminError::Internal
    })
}

#[derive(Template)]
#[template(path = "consumers.html")]
struct ConsumersPage {
    shell: Shell,
    consumers: Vec<ConsumerLine>,
}

async fn list(visit: Visit) -> Result<HttpResponse, AdminError> {
    let consumers = visit.read(all).await?;
    page::show(&ConsumersPage { shell: visit.shell("Consumers", PATH).await?, consumers })
}
