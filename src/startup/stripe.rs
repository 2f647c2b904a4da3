//! Asking Stripe as a part of the gateway, and of commands: client, inlet and duties put together.
//! What is asked, and what becomes of it, is `sync`'s.

use std::sync::Arc;

use anyhow::Context as _;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Backend, commit_options};
use crate::clock::Clock;
use crate::ingest::commit::CommitOptions;
use crate::ingest::writer::WriterOptions;
use crate::settings::{Settings, StripeSettings};
use crate::store::hooks::Hooks;
use crate::sync::{Client, Context, Inlet, heal, hydrate, reconcile};
use crate::traces::Traces;

/// Connections of its own, so that long comparisons hold up nobody. Made when they are needed.
const CONNECTIONS: u32 = 3;

/// For a command: as the gateway does, but for handlers in Rust, which only their program has.
pub fn for_command(
    settings: &Settings,
    stripe: &StripeSettings,
    backend: &Backend,
    clock: &Clock,
    stop: &CancellationToken,
) -> anyhow::Result<Context> {
    let commit = Arc::new(commit_options(settings, Hooks::from([])));
    context(settings, stripe, backend, clock, &commit, stop)
}

/// Starts the duties; none without a key.
pub(super) fn in_background(
    settings: &Settings,
    backend: &Backend,
    clock: &Clock,
    commit: &Arc<CommitOptions>,
    stop: &CancellationToken,
) -> anyhow::Result<Option<JoinHandle<()>>> {
    let Some(stripe) = settings.stripe.clone() else {
        return Ok(None);
    };
    let context = context(settings, &stripe, backend, clock, commit, stop)?;
    let (poll, stop) = (settings.consuming.poll, stop.clone());
    Ok(Some(tokio::spawn(async move {
        let comparing = async {
            if let Some(every) = stripe.reconcile {
                reconcile::run(&context, every, stripe.accounts, stop.clone()).await;
            }
        };
        let healing = heal::Healer::default().run(&context, stop.clone());
        tokio::join!(comparing, healing, hydrate::run(&context, poll, stop.clone()));
        context.inlet.close().await;
        context.pool.close().await;
    })))
}

fn context(
    settings: &Settings,
    stripe: &StripeSettings,
    backend: &Backend,
    clock: &Clock,
    commit: &Arc<CommitOptions>,
    stop: &CancellationToken,
) -> anyhow::Result<Context> {
    let pool = backend.direct.pool(CONNECTIONS);
    let client = Client::new(stripe.client.clone(), pool.clone(), clock.clone(), stop.clone())
        .context("cannot prepare requests to Stripe")?;
    let writing = settings.writing;
    let options = WriterOptions {
        batch: writing.batch,
        commit: Arc::clone(commit),
        traces: Traces::default(),
    };
    let inlet = Inlet::open(backend.database.clone(), options, writing.deadline);
    let (direct, endpoints) = (backend.direct.clone(), settings.endpoints.clone());
    Ok(Context { client, inlet, pool, direct, endpoints })
}
