//! Writing the quarantine: signed bodies that are no event, kept once each.
//! Why a body belongs here is decided in `stripe::event` and `ingest`.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::StoreError;
use super::connect::WriterConnection;

/// A signed body that cannot be recorded as an event.
#[derive(Clone, Debug)]
pub struct Quarantined {
    pub endpoint: String,
    /// A stable code; the column's comment lists them.
    pub reason: &'static str,
    /// What a person needs to know beyond the code.
    pub detail: Option<String>,
    pub event_id: Option<String>,
    /// The body as received.
    pub raw: Bytes,
}

/// Keeps a body, unless the same bytes are kept already.
pub async fn keep(connection: &mut WriterConnection, body: &Quarantined) -> Result<(), StoreError> {
    let statement = sqlx::query(
        "INSERT INTO tollgate.quarantine (sha256, endpoint, reason, detail, event_id, raw)
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
    )
    .bind(Sha256::digest(&body.raw).to_vec())
    .bind(&body.endpoint)
    .bind(body.reason)
    .bind(&body.detail)
    .bind(&body.event_id)
    .bind(&body.raw[..]);
    connection.transact(statement).await?;
    Ok(())
}
