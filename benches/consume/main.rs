//! `cargo bench --bench consume`: what claiming and acknowledging costs beside the usual queues, and
//! how long an event takes from Stripe to a push target. One file per question.

#![allow(clippy::disallowed_methods, reason = "measures real time, with real connections")]
#![allow(clippy::cast_precision_loss, reason = "figures for people")]

mod database;
mod latency;
mod queues;

use anyhow::ensure;
use clap::Parser;

use latency::Reference;

/// Measures consumers: claims beside a row per event, and the latency of pushes.
#[derive(Parser)]
#[command(name = "cargo bench --bench consume --")]
struct Args {
    /// Events in the log for the comparison of queues; 0 for none
    #[arg(long, default_value_t = 200_000)]
    events: i64,

    /// Events per claim
    #[arg(long, value_delimiter = ',', default_value = "100,500")]
    batch: Vec<i32>,

    /// Times that each is measured, by turns; medians are shown
    #[arg(long, default_value_t = 3)]
    rounds: usize,

    /// Leave out what is compared with
    #[arg(long)]
    alone: bool,

    /// Deliveries whose latency is measured; 0 for none
    #[arg(long, default_value_t = 1000)]
    deliveries: usize,

    /// Another server to send the same deliveries to, which publishes by NOTIFY
    #[arg(long, value_name = "URL", requires = "reference_database")]
    reference: Option<String>,

    /// Where it publishes: a row in `express_ref.events`, and its id on the channel `express_events`
    #[arg(long, value_name = "URL", requires = "reference")]
    reference_database: Option<String>,

    /// Signing secret of that server
    #[arg(long, default_value = "whsec_test_secret")]
    reference_secret: String,

    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    ensure!(args.rounds > 0, "at least one round is needed");
    if args.events > 0 {
        queues::measure(args.events, &args.batch, args.rounds, args.alone).await?;
    }
    if args.deliveries > 0 {
        let reference = args
            .reference
            .zip(args.reference_database)
            .map(|(url, database)| Reference { url, database, secret: args.reference_secret });
        // On the heap: a gateway with all its parts is a large future.
        Box::pin(latency::measure(args.deliveries, reference)).await?;
    }
    Ok(())
}
