//! The public listener: its routes, deadlines and caps, and how it closes without cutting anyone off.
//! Serves nothing but deliveries and health.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::dev::{Server, ServerHandle};
use actix_web::middleware::from_fn;
use actix_web::web::{self, Data};
use actix_web::{App, HttpServer};
use nix::sys::socket::{Backlog, listen};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tracing_actix_web::TracingLogger;

use super::{health, problem, trace};
use crate::ingest::{Intake, handler};
use crate::settings::HttpSettings;
use crate::shutdown::Phase;

/// How long the rest of a request is read after an early answer, so that the client sees it.
const LINGER: Duration = Duration::from_secs(2);

/// A bound socket. Kept beside the server, which closes its own copy as soon as it is told to
/// stop: what has connected but was not accepted by then would be reset.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
}

impl Listener {
    pub fn bind(address: SocketAddr) -> std::io::Result<Self> {
        let socket = TcpListener::bind(address)?;
        // std asks for 128 at most; a burst of `stripe trigger` opens more than that at once.
        listen(&socket, Backlog::new(4096)?)?;
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address })
    }

    /// The address bound, with the port that was chosen if 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts serving; the server must be awaited, and is stopped through its handle.
    pub fn serve(
        &self,
        intake: Arc<Intake>,
        parts: health::Parts,
        settings: HttpSettings,
        shutdown_timeout: Duration,
    ) -> std::io::Result<Server> {
        let phase = Data::new(parts.phase.clone());
        let (intake, parts) = (Data::from(intake), Data::new(parts));
        let server = HttpServer::new(move || {
            App::new()
                .app_data(intake.clone())
                .app_data(parts.clone())
                .app_data(Data::<Phase>::clone(&phase))
                .wrap(from_fn(trace::stamp))
                .wrap(TracingLogger::<trace::GatewaySpan>::new())
                .configure(routes)
                .default_service(web::route().to(problem::not_found))
        })
        .workers(settings.workers)
        .max_connections(settings.max_connections.div_ceil(settings.workers))
        .client_request_timeout(settings.header_timeout)
        .keep_alive(settings.idle_timeout)
        .client_disconnect_timeout(LINGER)
        .shutdown_timeout(shutdown_timeout.as_secs().max(1))
        .disable_signals()
        .listen(self.socket.try_clone()?)?;
        Ok(server.run())
    }

    /// Stops the server once its requests are done. Whoever connects meanwhile is told 503 and
    /// `Connection: close`; the backlog is shrunk first, so that there are few of them.
    pub async fn stop(self, server: ServerHandle) {
        let _ = listen(&self.socket, Backlog::new(1).unwrap_or(Backlog::MAXCONN));
        server.stop(true).await;
        let Ok(socket) = tokio::net::TcpListener::from_std(self.socket) else {
            return;
        };
        let end = Instant::now() + Duration::from_millis(250);
        while let Ok(Ok((stream, _))) =
            tokio::time::timeout(end.saturating_duration_since(Instant::now()), socket.accept())
                .await
        {
            tokio::spawn(turn_away(stream));
        }
        // The last of them get the time they need to read their answer.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn routes(config: &mut web::ServiceConfig) {
    let post_only = || web::route().to(async || problem::method_not_allowed("POST"));
    let get_only = || web::route().to(async || problem::method_not_allowed("GET, HEAD"));
    config
        .service(
            web::resource("/webhooks/stripe")
                .route(web::post().to(handler::receive_default))
                .default_service(post_only()),
        )
        .service(
            web::resource("/webhooks/stripe/{endpoint}")
                .route(web::post().to(handler::receive_named))
                .default_service(post_only()),
        )
        .service(
            web::resource("/healthz")
                .route(web::get().to(health::healthz))
                .route(web::head().to(health::healthz))
                .default_service(get_only()),
        )
        .service(
            web::resource("/readyz")
                .route(web::get().to(health::readyz))
                .route(web::head().to(health::readyz))
                .default_service(get_only()),
        );
}

/// Answers a connection that came too late, and reads what it sends so that it sees the answer.
async fn turn_away(mut stream: TcpStream) {
    const ANSWER: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 2\r\nconnection: close\r\n\
        content-type: application/problem+json\r\ncontent-length: 98\r\n\r\n\
        {\"title\":\"Service Unavailable\",\"status\":503,\"code\":\"shutting_down\",\"detail\":\"shutting down now\"}\n";
    let mut rest = [0; 16 * 1024];
    let farewell = async {
        let _ = stream.read(&mut rest).await?;
        stream.write_all(ANSWER).await?;
        stream.shutdown().await?;
        while stream.read(&mut rest).await? > 0 {}
        std::io::Result::Ok(())
    };
    // Nobody is owed more than this.
    drop(tokio::time::timeout(Duration::from_millis(200), farewell).await);
}
