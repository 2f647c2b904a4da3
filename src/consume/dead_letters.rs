//! Tells of dead letters in the log, each once, whichever worker or replica gave up on it.
//! Looking at them, and trying again, is for people (`cli::dead_letters`).

use sqlx::PgPool;

use crate::store::StoreError;
use crate::store::consumers::{self, DeadLetter};

/// Most that are told of at once.
const AT_ONCE: i32 = 100;

/// Tells of those that no log tells of yet.
pub async fn run_once(pool: &PgPool) -> Result<usize, StoreError> {
    let letters = consumers::announce_dead_letters(pool, AT_ONCE).await?;
    for letter in &letters {
        let DeadLetter { consumer, position, event_id, event_type, attempts, reason, error } =
            letter;
        tracing::error!(
            consumer,
            position,
            event_id,
            event_type,
            attempts,
            reason,
            error,
            "delivery.dead_letter"
        );
    }
    Ok(letters.len())
}
