//! What the public listener says while the gateway waits for its database or migrates it: that it
//! lives, and takes nothing yet.

use std::time::Duration;

use actix_web::dev::Server;
use actix_web::http::KeepAlive;
use actix_web::http::header::CACHE_CONTROL;
use actix_web::middleware::from_fn;
use actix_web::web::{self, ServiceConfig};
use actix_web::{App, HttpResponse, HttpServer, ResponseError};
use tracing_actix_web::TracingLogger;

use super::listener::Listener;
use super::{health, trace};
use crate::ingest::IngestError;
use crate::ingest::error::NotWritten;

/// How long a start may take before senders are told: until then they wait, and mostly not in vain.
const PATIENCE: Duration = Duration::from_secs(2);

/// Does the work of a start; answers on the listener meanwhile if that takes its time.
pub async fn meanwhile<T>(listener: &Listener, mut work: impl Future<Output = T> + Unpin) -> T {
    if let Ok(done) = tokio::time::timeout(PATIENCE, &mut work).await {
        return done;
    }
    let server = match serve(listener) {
        Ok(server) => server,
        Err(error) => {
            tracing::warn!(%error, "nobody is answered before the database is ready");
            return work.await;
        }
    };
    let handle = server.handle();
    let server = tokio::spawn(server);
    let done = work.await;
    handle.stop(true).await;
    if let Ok(Err(error)) = server.await {
        tracing::warn!(%error, "answering during the start failed");
    }
    done
}

fn serve(listener: &Listener) -> std::io::Result<Server> {
    let app = || {
        App::new()
            .wrap(from_fn(trace::stamp))
            .wrap(TracingLogger::<trace::GatewaySpan>::new())
            .configure(routes)
    };
    let server = HttpServer::new(app)
        .workers(1)
        // The next request is for the gateway itself.
        .keep_alive(KeepAlive::Disabled)
        .shutdown_timeout(1)
        .disable_signals()
        .listen(listener.socket()?)?;
    Ok(server.run())
}

fn routes(config: &mut ServiceConfig) {
    config
        .route("/healthz", web::get().to(health::healthz))
        .route("/healthz", web::head().to(health::healthz))
        .route("/readyz", web::to(unready))
        .default_service(web::to(async || {
            IngestError::NotWritten(NotWritten::Database).error_response()
        }));
}

async fn unready() -> HttpResponse {
    HttpResponse::ServiceUnavailable()
        .insert_header((CACHE_CONTROL, "no-store"))
        .json(serde_json::json!({"status": "fail", "message": "waiting for the database, or migrating it"}))
}
