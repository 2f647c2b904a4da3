//! Reading a request's body within a size and a time. actix has a deadline for headers but none
//! for bodies, and its extractors stop at 256 KiB and decompress; this reads the raw bytes.

use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::http::header::CONTENT_LENGTH;
use actix_web::web::Payload;
use futures_util::StreamExt;

use super::IngestError;

/// What a body may cost.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// Largest body, in bytes.
    pub size: usize,
    /// Longest time from the first to the last byte.
    pub time: Duration,
}

/// How much of a body that is too large is read and thrown away, in multiples of the limit. A
/// sender that is cut off while writing gets a reset and never sees the 413.
const DISCARDED: usize = 16;

/// Largest allocation made on the word of a `Content-Length`, before any byte has come.
const TRUSTED_LENGTH: usize = 64 * 1024;

/// Reads the whole body, or says why not.
pub async fn read(
    request: &HttpRequest,
    payload: &mut Payload,
    limits: BodyLimits,
) -> Result<Vec<u8>, IngestError> {
    tokio::time::timeout(limits.time, collect(request, payload, limits.size))
        .await
        .map_err(|_| IngestError::BodyTimeout(limits.time))?
}

async fn collect(
    request: &HttpRequest,
    payload: &mut Payload,
    limit: usize,
) -> Result<Vec<u8>, IngestError> {
    let announced = request
        .headers()
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<usize>().ok())
        .unwrap_or(0);
    // Copied out of the connection's read buffer: a slice of that would keep all of it alive for
    // as long as the event waits in the queue.
    let mut body = Vec::with_capacity(announced.min(limit).min(TRUSTED_LENGTH));
    let mut received = 0_usize;
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|_| IngestError::BodyIncomplete)?;
        received = received.saturating_add(chunk.len());
        if received <= limit {
            body.extend_from_slice(&chunk);
        } else if received > limit.saturating_mul(DISCARDED) {
            break;
        } else {
            body = Vec::new();
        }
    }
    if received > limit { Err(IngestError::BodyTooLarge { limit }) } else { Ok(body) }
}
