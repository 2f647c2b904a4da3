//! The public listener: its routes, deadlines and caps, and how it closes without cutting anyone off.
//! Serves nothing but deliveries and health.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::{Server, ServerHandle};
use actix_web::middleware::from_fn;
use actix_web::web::{self, Data};
use actix_web::{App, HttpServer};
use nix::sys::socket::{Backlog, listen};
use tracing_actix_web::TracingLogger;

use super::{health, problem, trace};
use crate::ingest::lanes::Lanes;
use crate::ingest::{Intake, handler};
use crate::settings::HttpSettings;
use crate::shutdown::Phase;

/// How long the rest of a request is read after an early answer, so that the client sees it.
const LINGER: Duration = Duration::from_secs(2);

/// How long handshakes under way may take to complete, and the accept queue to empty, before the
/// socket is closed. Much longer than a round trip to a load balancer.
const LAST_CALL: Duration = Duration::from_millis(100);

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

    /// A copy of the socket, for the server to close.
    pub(super) fn socket(&self) -> std::io::Result<TcpListener> {
        self.socket.try_clone()
    }

    /// Starts serving; the server must be awaited, and is stopped through its handle.
    pub fn serve(
        &self,
        intake: Intake,
        lanes: Arc<Lanes>,
        parts: health::Parts,
        settings: HttpSettings,
        shutdown_timeout: Duration,
    ) -> std::io::Result<Server> {
        let phase = Data::new(parts.phase.clone());
        let (intake, parts) = (Data::new(intake), Data::new(parts));
        // Called once on each of the server's threads.
        let server = HttpServer::new(move || {
            App::new()
                .app_data(Data::from(lanes.start_here()))
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
        .listen(self.socket()?)?;
        Ok(server.run())
    }

    /// Stops the server once its requests are done, without resetting anybody: no new connection is
    /// let in, those that wait to be accepted get their turn, and only then is the socket closed.
    /// A client that comes too late finds the port closed.
    pub async fn stop(self, server: ServerHandle) {
        if let Err(error) = refuse_new_connections(&self.socket) {
            tracing::warn!(%error, "clients that connect just now may be reset");
        }
        tokio::time::sleep(LAST_CALL).await;
        server.stop(true).await;
    }
}

/// Drops the packets that ask for a connection. Closing a socket resets what waits in its accept
/// queue, so that must be empty first; a client whose packet was dropped asks again a second later.
#[cfg(target_os = "linux")]
fn refuse_new_connections(socket: &TcpListener) -> std::io::Result<()> {
    use socket2::{SockFilter, SockRef};
    // Classic BPF over the TCP header, whose 14th byte holds the flags
    // (<https://www.kernel.org/doc/html/latest/networking/filter.html>).
    const LOAD_BYTE: u16 = 0x30;
    const JUMP_IF_SET: u16 = 0x45;
    const RETURN: u16 = 0x06;
    const SYN: u32 = 0x02;
    let drop_syn = [
        SockFilter::new(LOAD_BYTE, 0, 0, 13),
        SockFilter::new(JUMP_IF_SET, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ];
    SockRef::from(socket).attach_filter(&drop_syn)
}

/// Elsewhere the window is left open: it is a few microseconds wide.
#[cfg(not(target_os = "linux"))]
fn refuse_new_connections(_: &TcpListener) -> std::io::Result<()> {
    Ok(())
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
