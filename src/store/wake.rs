//! A connection that hears the database's notifications, and notices when it no longer can.
//! What is done about either is up to `consume::wake`.

use std::io;
use std::time::Duration;

use sqlx::Connection;
use sqlx::postgres::PgListener;
use tokio::time::timeout;

use super::connect::Database;
use super::events::CHANNEL;

/// The channel that changes of consumers are announced on.
pub const CONSUMERS_CHANNEL: &str = "tollgate_consumers";

/// Longest wait for the connection and its first statement.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection that listens on [`CHANNEL`] and [`CONSUMERS_CHANNEL`].
#[derive(Debug)]
pub struct Listener(PgListener);

impl Listener {
    /// Connects; whatever is committed after this has returned will be heard. `direct` must lead to
    /// the server itself: a pooler in transaction mode loses notifications.
    pub async fn connect(direct: &Database) -> Result<Self, sqlx::Error> {
        // A pool of its own for each connection, because sqlx's listener can be had in no other way,
        // and its own way of connecting again does not cover every error (launchbadge/sqlx#4014).
        let connect = async {
            // First in the plain way, which says what is wrong; a pool only says that time ran out.
            direct.connect().await?.close().await?;
            let mut listener = PgListener::connect_with(&direct.pool(1)).await?;
            listener.eager_reconnect(false);
            listener.listen_all([CHANNEL, CONSUMERS_CHANNEL]).await?;
            Ok(Self(listener))
        };
        timeout(CONNECT_TIMEOUT, connect).await.map_err(|_| sqlx::Error::PoolTimedOut)?
    }

    /// Waits for a notification. After `silence` without one it asks the server whether it is still
    /// there, which must answer within `answer`: a peer that vanished sends nothing at all.
    ///
    /// # Errors
    /// If the connection can no longer be relied on: make another.
    pub async fn heard(&mut self, silence: Duration, answer: Duration) -> Result<(), sqlx::Error> {
        loop {
            match timeout(silence, self.0.try_recv()).await {
                Ok(Ok(Some(_))) => {
                    while self.0.next_buffered().is_some() {}
                    return Ok(());
                }
                Ok(Ok(None)) => return Err(io::Error::from(io::ErrorKind::ConnectionReset).into()),
                Ok(Err(error)) => return Err(error),
                Err(_) => {
                    let asked = timeout(answer, sqlx::query("SELECT 1").execute(&mut self.0)).await;
                    asked.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
                }
            }
        }
    }
}
