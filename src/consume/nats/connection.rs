//! The connection to a NATS server: made when it is first needed, made anew when it is lost.
//! What is sent over it is the target's.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::{Client, ConnectError, ConnectErrorKind, ConnectOptions, Event};
use tokio::sync;
use tokio_util::sync::CancellationToken;

use super::url::{Login, NatsUrl};

/// Messages that may wait for the connection to take them; the next ones hold up their senders.
const PENDING: usize = 64;

/// A connection on which nothing has been heard for two of these counts as lost.
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoConnection {
    #[error("cannot read the credentials file of {url}: {error}")]
    Credentials { url: NatsUrl, error: std::io::Error },
    #[error("{url} refuses the login that is configured for it ({error})")]
    Login { url: NatsUrl, error: ConnectError },
    #[error("cannot connect to {url}: {error}")]
    Other { url: NatsUrl, error: ConnectError },
}

/// One connection, from login to loss. The client library could reconnect by itself, but then goes
/// on trying after its last user is gone, says nothing of the reasons, and sends what was given up.
pub(super) struct Connection {
    pub client: Client,
    /// Cancelled when the connection is lost: what was not answered will not be.
    pub lost: CancellationToken,
    retired: AtomicBool,
    heard: Arc<Mutex<String>>,
}

impl Connection {
    async fn open(url: &NatsUrl, timeout: Duration) -> Result<Self, NoConnection> {
        // Fails if it is installed already, which is as good. Without one the client would panic.
        drop(rustls::crypto::ring::default_provider().install_default());
        let lost = CancellationToken::new();
        let heard = Arc::new(Mutex::new(String::new()));
        let options = ConnectOptions::new()
            .name("tollgate")
            .connection_timeout(timeout)
            .request_timeout(None)
            .client_capacity(PENDING)
            .ping_interval(PING_INTERVAL)
            // Bounds how long the library's task outlives its users. 0 would mean for ever.
            .max_reconnects(1)
            .ignore_discovered_servers()
            .event_callback({
                let (lost, heard) = (lost.clone(), heard.clone());
                move |event| {
                    note(&event, &lost, &heard);
                    std::future::ready(())
                }
            });
        let options = match &url.login {
            Login::Open => options,
            Login::Token(token) => options.token(token.clone()),
            Login::Password { user, password } => {
                options.user_and_password(user.clone(), password.clone())
            }
            Login::Credentials(path) => options
                .credentials_file(path)
                .await
                .map_err(|error| NoConnection::Credentials { url: url.clone(), error })?,
        };
        let client = options.connect(&url.server).await.map_err(|error| match error.kind() {
            ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
                NoConnection::Login { url: url.clone(), error }
            }
            _ => NoConnection::Other { url: url.clone(), error },
        })?;
        Ok(Self { client, lost, retired: AtomicBool::new(false), heard })
    }

    /// Keeps further messages off this connection; those under way may still succeed.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    fn is_usable(&self) -> bool {
        !self.lost.is_cancelled() && !self.retired.load(Ordering::Relaxed)
    }

    /// What the server complained of last, as the end of a sentence; empty if of nothing.
    pub fn heard(&self) -> String {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if heard.is_empty() { String::new() } else { format!("; the server said: {heard}") }
    }
}

fn note(event: &Event, lost: &CancellationToken, heard: &Mutex<String>) {
    tracing::debug!(%event, "nats");
    match event {
        Event::Disconnected | Event::Closed => lost.cancel(),
        Event::ServerError(error) => {
            *heard.lock().unwrap_or_else(PoisonError::into_inner) = error.to_string();
        }
        _ => {}
    }
}

/// Hands out the connection that there is, or makes one.
pub(super) struct Connector {
    url: NatsUrl,
    timeout: Duration,
    /// Locked while one is made, so that many who need one make one.
    current: sync::Mutex<Option<Arc<Connection>>>,
}

impl Connector {
    pub fn new(url: NatsUrl, timeout: Duration) -> Self {
        Self { url, timeout, current: sync::Mutex::new(None) }
    }

    pub fn url(&self) -> &NatsUrl {
        &self.url
    }

    /// May be dropped at any time: a connection half made is given up.
    pub async fn connection(&self) -> Result<Arc<Connection>, NoConnection> {
        let mut current = self.current.lock().await;
        if let Some(connection) = current.as_ref().filter(|connection| connection.is_usable()) {
            return Ok(connection.clone());
        }
        *current = None;
        let connection = Arc::new(Connection::open(&self.url, self.timeout).await?);
        *current = Some(connection.clone());
        Ok(connection)
    }
}
