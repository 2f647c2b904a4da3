//! The admin listener: dashboard, admin API and metrics, apart from the public one. Puts the routes
//! together; who may use them is `access`'s, what they do stands with each.

pub mod access;
pub mod actions;
pub mod api;
pub mod error;
pub mod guard;
pub mod login;

use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::middleware::from_fn;
use actix_web::web::{self, Data};
use actix_web::{App, HttpServer};
use sqlx::{PgConnection, PgPool};
use tokio_util::sync::CancellationToken;
use tracing_actix_web::TracingLogger;

pub use access::{AdminOnly, Identity, Operate, Read};
pub use error::AdminError;

use super::health::Parts;
use super::listener::Listener;
use super::metrics::{self, Metrics};
use super::trace;
use crate::clock::Clock;
use crate::consume::wake::Wake;
use crate::store::connect::transact;

/// Longest that the database may take for one request of a person.
const PATIENCE: Duration = Duration::from_secs(10);

/// A person, a scraper, a few scripts: more is a mistake or an attack.
const CONNECTIONS: usize = 256;

/// Largest body that a request may have, in bytes. Forms and filters are small.
const LARGEST_BODY: usize = 64 * 1024;

/// How long requests may take to end when the gateway goes down, in seconds.
const LAST_REQUESTS: u64 = 2;

/// What pages and calls need.
#[derive(Debug)]
pub struct Admin {
    pub pool: PgPool,
    pub clock: Clock,
    /// What readiness looks at.
    pub parts: Parts,
    /// Where new events are heard of.
    pub wake: Wake,
    pub access: access::Access,
    /// Cancelled when the gateway goes down: what streams must end then.
    pub stop: CancellationToken,
}

impl Admin {
    /// Does `work` in one transaction, which is done to its end though the client hangs up.
    pub async fn transact<T: 'static>(
        &self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, AdminError> + 'static,
    ) -> Result<T, AdminError> {
        let pool = self.pool.clone();
        let task = actix_web::rt::spawn(async move { transact(&pool, PATIENCE, work).await });
        task.await.map_err(|_| AdminError::Internal)?
    }
}

/// Starts serving on the listener's socket; the server must be awaited, and is stopped through its
/// handle.
pub fn serve(listener: &Listener, admin: Arc<Admin>) -> std::io::Result<Server> {
    let metrics = Metrics::new(admin.parts.clone(), admin.pool.clone(), &admin.clock);
    let metrics = Data::new(metrics);
    let server = HttpServer::new(move || {
        App::new()
            .app_data(Data::from(Arc::clone(&admin)))
            .app_data(metrics.clone())
            .app_data(web::PayloadConfig::new(LARGEST_BODY))
            .app_data(error::form_config(LARGEST_BODY))
            .app_data(error::json_config(LARGEST_BODY))
            .app_data(error::query_config())
            .app_data(error::path_config())
            .wrap(from_fn(guard::protect))
            .wrap(from_fn(trace::stamp))
            .wrap(TracingLogger::<trace::GatewaySpan>::new())
            .configure(routes)
            .default_service(web::route().to(error::not_found))
    })
    .workers(1)
    .max_connections(CONNECTIONS)
    .shutdown_timeout(LAST_REQUESTS)
    .disable_signals()
    .listen(listener.socket()?)?;
    Ok(server.run())
}

fn routes(config: &mut web::ServiceConfig) {
    config
        .configure(login::routes)
        .configure(metrics::routes)
        .configure(api::routes)
        .configure(super::dashboard::routes);
}
