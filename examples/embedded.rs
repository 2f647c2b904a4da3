//! Tollgate inside a program of one's own, with a handler in Rust that shares the transaction.
//!
//! ```sh
//! STRIPE_WEBHOOK_SECRET=whsec_… cargo run --example embedded
//! ```

use std::sync::Arc;

use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;
use tollgate::clock::Clock;
use tollgate::settings::Settings;
use tollgate::settings::layers::{Inputs, Layers};
use tollgate::startup::Gateway;
use tollgate::store::handlers::Policy;
use tollgate::store::hooks::{EventHandler, HandlerFuture};
use tollgate::stripe::event::Envelope;

/// Counts the events of each type.
#[derive(Debug)]
struct Counts;

impl EventHandler for Counts {
    fn name(&self) -> &'static str {
        "counts"
    }

    fn wants(&self, _event_type: &str) -> bool {
        true
    }

    fn policy(&self) -> Policy {
        Policy::Park
    }

    fn handle<'a>(
        &'a self,
        event: &'a Envelope,
        _body: &'a [u8],
        transaction: &'a mut PgConnection,
    ) -> HandlerFuture<'a> {
        Box::pin(async move {
            sqlx::query(
                "INSERT INTO event_counts AS c (type, events) VALUES ($1, 1)
                 ON CONFLICT (type) DO UPDATE SET events = c.events + 1",
            )
            .bind(&event.event_type)
            .execute(transaction)
            .await?;
            Ok(())
        })
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let inputs = Inputs { environment: std::env::vars().collect(), ..Inputs::default() };
    let layers = Layers::gather(&inputs).map_err(|problems| complain(&problems))?;
    let settings = Settings::parse(&layers).map_err(|problems| complain(&problems))?;
    let stop = CancellationToken::new();
    let handlers: Arc<[Arc<dyn EventHandler>]> = Arc::new([Arc::new(Counts)]);
    let Some(gateway) = Gateway::start_with(settings, Clock::system(), handlers, &stop).await?
    else {
        return Ok(());
    };
    sqlx::query(
        "CREATE TABLE IF NOT EXISTS event_counts (type text PRIMARY KEY, events bigint NOT NULL)",
    )
    .execute(gateway.pool())
    .await?;
    println!("deliveries to http://{}/webhooks/stripe", gateway.address());
    let until_interrupted = stop.clone();
    tokio::spawn(async move {
        let _ = tokio::signal::ctrl_c().await;
        until_interrupted.cancel();
    });
    gateway.run_until(stop).await
}

fn complain(problems: &impl std::fmt::Debug) -> anyhow::Error {
    anyhow::anyhow!("the configuration is wrong: {problems:?}")
}
