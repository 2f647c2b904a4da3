//! `cargo bench --bench ingest`: how fast a gateway takes events, at what latency and cost.
//! Reads the options and runs the measurements; what each of them does stands in the modules.

#![allow(clippy::disallowed_methods, reason = "each run sends events of its own")]

mod client;
mod gateway;
mod results;
mod traffic;
mod usage;
mod workers;

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Parser;
use tollgate::clock::Clock;
use tollgate::stripe::signature::SigningSecret;

use client::{Load, Server};
use gateway::Gateway;
use results::{Cell, Figures, Results};
use traffic::{Templates, Traffic};
use usage::Watch;
use workers::Workers;

/// Unmeasured time before each measurement: connections open, caches fill.
const WARMUP: Duration = Duration::from_secs(1);

/// The gateway beside workers, and what these cost.
const WITH_WORKERS: &str = "with workers";

/// Signing secret of a gateway that only lives for the benchmark.
const OWN_SECRET: &str = "whsec_benchmark";

/// Measures a gateway under load: events/s, latency, CPU and memory.
///
/// Without --target it starts the release build of this project with a Postgres of its own in a
/// temporary directory, and measures that.
#[derive(Parser)]
#[command(name = "cargo bench --bench ingest --")]
struct Args {
    /// Measured time of each combination, in seconds
    #[arg(long, value_name = "SECS", default_value_t = 5)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=240))]
    duration: u64,

    /// Numbers of keep-alive connections, each with one request under way
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1,16,64,256")]
    connections: Vec<usize>,

    /// Percentages of deliveries that repeat an event sent shortly before
    #[arg(long, value_name = "PCT,…", value_delimiter = ',', default_value = "0,30")]
    duplicates: Vec<u32>,

    /// Measure this running server instead; repeat it to compare several, in turns
    #[arg(long, value_name = "NAME=URL", value_parser = Server::parse)]
    target: Vec<Server>,

    /// Signing secret of the targets
    #[arg(long, value_name = "SECRET", env = "STRIPE_WEBHOOK_SECRET", hide_env_values = true)]
    secret: Option<String>,

    /// Report CPU and memory of this process and its descendants; repeatable. One that is named
    /// after a target is reported with that target only
    #[arg(long, value_name = "NAME=PID", value_parser = Watch::parse)]
    watch: Vec<Watch>,

    /// Measure by turns beside so many SQL workers, each of which claims all events
    #[arg(long, value_name = "N", conflicts_with = "target")]
    #[arg(value_parser = clap::value_parser!(u8).range(1..=32))]
    workers: Option<u8>,

    /// The database that the workers are to work on: this is their process
    #[arg(long, hide = true, requires = "workers")]
    work_on: Option<String>,

    /// Measurements of each combination, of which the medians count [default: 1; with --target 3]
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,

    /// Print one JSON object per line instead of a table
    #[arg(long)]
    json: bool,

    /// Given by `cargo bench`; without it this is a test run, which must be short
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if !args.bench {
        println!("nothing measured: this is a benchmark, run it with `cargo bench --bench ingest`");
        return Ok(());
    }
    // One thread: the generator is to take as little as possible from what it measures.
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run(args))
}

async fn run(args: Args) -> anyhow::Result<()> {
    if let (Some(database), Some(count)) = (&args.work_on, args.workers) {
        return workers::work(database, count.into()).await;
    }
    let results = if args.target.is_empty() {
        let gateway = Gateway::start(OWN_SECRET).await?;
        let measured = tokio::select! {
            measured = measure_own(&args, &gateway) => measured,
            _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
        };
        gateway.stop().await?;
        measured?
    } else {
        let secret = args.secret.as_deref().context("--target needs --secret")?.parse()?;
        let rounds = args.rounds.unwrap_or(3);
        let workers = None;
        Bench { args: &args, secret, servers: &args.target, watches: &args.watch, rounds, workers }
            .run()
            .await?
    };
    if args.json { results.print_json() } else { results.print_table() }?;
    if args.workers.is_some() && !args.json { results.print_shares() } else { Ok(()) }
}

async fn measure_own(args: &Args, gateway: &Gateway) -> anyhow::Result<Results> {
    let mut watches = gateway.watches()?;
    watches.extend(args.watch.iter().cloned());
    let mut servers = vec![gateway.server()];
    let workers = match args.workers {
        None => None,
        Some(count) => {
            let workers = Workers::start(&gateway.database()?, count.into())?;
            watches.push(workers.watch(WITH_WORKERS));
            servers.push(gateway.server().called(WITH_WORKERS));
            Some(workers)
        }
    };
    let rounds = args.rounds.unwrap_or(1);
    let secret = OWN_SECRET.parse()?;
    Bench { args, secret, servers: &servers, watches: &watches, rounds, workers }.run().await
}

/// What is measured, with what.
struct Bench<'a> {
    args: &'a Args,
    secret: SigningSecret,
    servers: &'a [Server],
    watches: &'a [Watch],
    rounds: usize,
    /// Busy while the server of their name is measured.
    workers: Option<Workers>,
}

impl Bench<'_> {
    /// Every combination on every server. The servers take turns, so that a machine that becomes
    /// slower or faster in between does so for all of them.
    async fn run(&self) -> anyhow::Result<Results> {
        ensure!(self.rounds > 0, "--rounds must be at least 1");
        let clock = Clock::system();
        let templates = Templates::from_stories(clock.unix_seconds());
        eprintln!("{templates}");
        let mut results = Results::new(self.servers, self.watches);
        for &duplicates in &self.args.duplicates {
            for &connections in &self.args.connections {
                let cell = Cell { connections, duplicates };
                for round in 1..=self.rounds {
                    for server in self.servers {
                        let beside = self.workers.as_ref().filter(|_| server.name == WITH_WORKERS);
                        beside.map_or(Ok(()), Workers::go)?;
                        let figures = self.measure(cell, server, &templates, &clock).await?;
                        beside.map_or(Ok(()), Workers::rest)?;
                        eprintln!("{} {cell} round {round}: {figures}", server.name);
                        results.add(cell, server, figures);
                    }
                }
            }
        }
        Ok(results)
    }

    async fn measure(
        &self,
        cell: Cell,
        server: &Server,
        templates: &Templates,
        clock: &Clock,
    ) -> anyhow::Result<Figures> {
        let duration = Duration::from_secs(self.args.duration);
        // Ids must be new to servers that outlive this process.
        let traffic = Traffic::sign(
            templates,
            &self.secret,
            rand::random(),
            clock.unix_seconds(),
            WARMUP + duration,
        );
        let begin = Instant::now() + WARMUP;
        let load = Load { cell, begin, end: begin + duration };
        // On a thread of its own: reading /proc takes milliseconds.
        let watches = self.watches.to_vec();
        let watching = std::thread::spawn(move || usage::during(&watches, load.begin, load.end));
        let answers = client::run(&load, server, traffic).await?;
        let Ok(usages) = watching.join() else { bail!("the thread that reads /proc failed") };
        Ok(Figures::new(&answers, duration, usages.as_deref()))
    }
}
