//! The admin listener as a part of the gateway: bound first, stopped last. What it serves is
//! `http::admin`'s.

use std::net::SocketAddr;
use std::sync::Arc;

use actix_web::dev::ServerHandle;
use anyhow::Context;
use sqlx::PgPool;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::consume::wake::Wake;
use crate::http::admin::access::Access;
use crate::http::admin::{self, Admin};
use crate::http::health::Parts;
use crate::http::listener::Listener;
use crate::settings::AdminSettings;

/// Connections of its own, so that people who look at slow pages hold up no consumer. Made when they
/// are needed.
pub(super) const CONNECTIONS: u32 = 4;

/// Where it will listen, and for whom.
#[derive(Debug)]
pub(super) struct Socket {
    listener: Listener,
    access: Access,
}

/// Takes the port.
pub(super) fn bind(settings: AdminSettings) -> anyhow::Result<Socket> {
    let listener = Listener::bind(settings.listen).with_context(|| {
        format!(
            "cannot listen on {} for the dashboard: choose another address with --admin-listen, or off",
            settings.listen
        )
    })?;
    let access = Access::new(settings.token, settings.listen.ip().is_loopback());
    Ok(Socket { listener, access })
}

/// The running listener.
#[derive(Debug)]
pub(super) struct AdminServer {
    address: SocketAddr,
    handle: ServerHandle,
    server: JoinHandle<std::io::Result<()>>,
    stop: CancellationToken,
}

impl AdminServer {
    pub(super) fn start(
        socket: Socket,
        pool: PgPool,
        parts: Parts,
        wake: Wake,
        clock: Clock,
    ) -> anyhow::Result<Self> {
        let Socket { listener, access } = socket;
        let (address, stop) = (listener.address(), CancellationToken::new());
        let admin = Admin { pool, clock, parts, wake, access, stop: stop.clone() };
        let server = admin::serve(&listener, Arc::new(admin))
            .with_context(|| format!("cannot serve on {address}"))?;
        let handle = server.handle();
        tracing::info!(%address, "ready for operators");
        Ok(Self { address, handle, server: tokio::spawn(server), stop })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends streams, and lets requests end.
    pub(super) async fn stop(self) {
        self.stop.cancel();
        self.handle.stop(true).await;
        if !matches!(self.server.await, Ok(Ok(()))) {
            tracing::warn!("the admin listener did not end well");
        }
    }
}
