//! Thin events name an object and do not show it (<https://docs.stripe.com/event-destinations>): this
//! fetches it, so that it gets into the tables. How they are claimed is `store::sync::thin`'s.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::context::Context;
use super::error::{ApiError, SyncError};
use super::objects::look_at;
use crate::store::events::Source;
use crate::store::sync::thin::{self, Thin};
use crate::stripe::event::Envelope;

/// Thin events claimed at once.
const BATCH: i32 = 20;

/// How long to wait for the event that shows the object, where a thin event says that there is one.
const TWIN: Duration = Duration::from_secs(10);

/// Wait after Stripe could not be asked at all.
const RETRY: Duration = Duration::from_mins(1);

/// What is read of a thin event.
#[derive(Deserialize)]
struct Body {
    related_object: Option<Related>,
    snapshot_event: Option<Value>,
}

#[derive(Deserialize)]
struct Related {
    id: String,
    #[serde(rename = "type")]
    object_type: String,
    url: Option<String>,
}

/// What becomes of a thin event.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Done,
    Later(Duration, &'static str),
}

/// Looks again and again, until told to stop.
pub async fn run(context: &Context, every: Duration, stop: CancellationToken) {
    let mut made = false;
    loop {
        let pause = match step(context, &mut made).await {
            Ok(0) | Err(SyncError::Api(ApiError::Stopped)) => every,
            Ok(_) => Duration::ZERO,
            Err(error) => {
                tracing::warn!(%error, "thin events could not be looked at");
                // Perhaps somebody dropped the consumer.
                made = false;
                RETRY
            }
        };
        if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return;
        }
    }
}

async fn step(context: &Context, made: &mut bool) -> Result<usize, SyncError> {
    if !*made {
        thin::make_consumer(&context.pool, context.client.livemode()).await?;
        *made = true;
    }
    run_once(context).await
}

/// Fetches the objects of some thin events; returns how many there were.
///
/// # Errors
/// If Stripe or the database could not be asked at all; what is left of the batch comes again then.
pub async fn run_once(context: &Context) -> Result<usize, SyncError> {
    let pool = &context.pool;
    let batch = thin::claim(pool, context.client.livemode(), BATCH).await?;
    let mut left = batch.iter();
    while let Some(event) = left.next() {
        match fetch(context, event).await {
            Ok(Fate::Done) => thin::ack(pool, event).await?,
            Ok(Fate::Later(wait, why)) => thin::nack(pool, event, why, Some(wait)).await?,
            Err(error) if error.is_about_asked() => {
                tracing::warn!(%error, event_id = event.event_id, "the object of a thin event could not be fetched");
                thin::nack(pool, event, &error.to_string(), None).await?;
            }
            Err(error) => {
                for event in std::iter::once(event).chain(left) {
                    // After longer and longer: it may take Stripe, or whoever has the key, days.
                    thin::nack(pool, event, &error.to_string(), None).await?;
                }
                return Err(error);
            }
        }
    }
    Ok(batch.len())
}

async fn fetch(context: &Context, event: &Thin) -> Result<Fate, SyncError> {
    let (Ok(envelope), Ok(body)) =
        (Envelope::parse(&event.raw), serde_json::from_slice::<Body>(&event.raw))
    else {
        return Ok(Fate::Done);
    };
    let Some(related) = body.related_object else {
        return Ok(Fate::Done);
    };
    if let Some(twin) = body.snapshot_event.as_ref().and_then(id_of) {
        if thin::has_event(&context.pool, twin, envelope.created).await? {
            return Ok(Fate::Done);
        }
        if event.attempt == 1 {
            return Ok(Fate::Later(TWIN, "waiting for the event that shows the object"));
        }
    }
    let Some(url) = related.url.filter(|url| url.starts_with("/v")) else {
        return Ok(Fate::Done);
    };
    let known = json!({"id": related.id, "object": related.object_type});
    let look = look_at(context, &url, &envelope.account, &known).await?;
    if !look.gone {
        context.write(&[look.fetched], Source::Reconcile).await?;
    }
    Ok(Fate::Done)
}

/// An event's id, given as such or within the event.
fn id_of(event: &Value) -> Option<&str> {
    event.as_str().or_else(|| event["id"].as_str())
}
