//! Duties that one process of all replicas does at a time.

use std::time::Duration;

use sqlx::{Connection, PgConnection};
use tokio::time::timeout;

use crate::store::StoreError;
use crate::store::connect::Database;

/// Longest wait for an answer.
const LIMIT: Duration = Duration::from_secs(15);

/// A duty that is this process's. A lock of a connection of its own: it holds no transaction open
/// while Stripe is asked, and is gone at once when the process is.
#[derive(Debug)]
pub struct Lease(PgConnection);

impl Lease {
    /// Takes a duty; None if another process has it.
    pub async fn take(direct: &Database, duty: &str) -> Result<Option<Self>, StoreError> {
        let mut connection = direct.connect().await?;
        let lock = sqlx::query_scalar(
            "SELECT pg_try_advisory_lock(hashtextextended('tollgate.sync.' || $1, 0))",
        );
        let taken = timeout(LIMIT, lock.bind(duty).fetch_one(&mut connection)).await;
        let taken: bool = taken.map_err(|_| StoreError::TimedOut)??;
        Ok(taken.then_some(Self(connection)))
    }

    /// Makes sure that it still is, as far as can be told: others have it once the connection is lost.
    pub async fn check(&mut self) -> Result<(), StoreError> {
        timeout(LIMIT, self.0.ping()).await.map_err(|_| StoreError::TimedOut)??;
        Ok(())
    }

    /// Gives it back.
    pub async fn release(self) {
        // Should that fail, the server finds out by itself.
        drop(timeout(LIMIT, self.0.close()).await);
    }
}
