//! What a consumer has not taken yet though it was handed out: failed, or waiting behind what failed.
//! Dead letters are `problems`'.

use serde::Serialize;
use sqlx::PgConnection;
use time::OffsetDateTime;
use utoipa::ToSchema;

/// An event on its way to a consumer.
#[derive(Clone, Debug, Serialize, ToSchema, sqlx::FromRow)]
pub struct OpenDelivery {
    pub position: i64,
    /// waiting (for next_attempt), deferred (behind an earlier event of its object) or claimed.
    pub state: String,
    pub event_id: String,
    pub event_type: String,
    /// How often it failed.
    pub attempts: i32,
    pub error: Option<String>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub next_attempt: Option<OffsetDateTime>,
}

/// Open deliveries of a consumer in the order of the log, `most` at most.
pub async fn open(
    connection: &mut PgConnection,
    consumer: &str,
    most: i64,
) -> Result<Vec<OpenDelivery>, sqlx::Error> {
    sqlx::query_as(
        "SELECT position, state, event_id, event_type, attempts, error, next_attempt
         FROM tollgate.deliveries WHERE consumer = $1 AND state <> 'dead' ORDER BY position LIMIT $2",
    )
    .bind(consumer)
    .bind(most)
    .fetch_all(connection)
    .await
}
