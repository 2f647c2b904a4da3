//! What the process itself counts: deliveries, commits, attempts, queue, pool. No question to the
//! database.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use sqlx::PgPool;

use super::page::Page;
use crate::consume::tally::{Attempts, TIME_BOUNDS, TURNS, Tally, VERDICTS};
use crate::consume::wake::Listening;
use crate::http::health::{self, Parts};
use crate::ingest::queue::Depth;
use crate::ingest::traffic::{BASES, BATCH_BOUNDS, CODES, Traffic};
use crate::store::traffic::{Ending, LATENCY_BOUNDS};
use crate::stripe::types;

/// The process at one moment.
#[derive(Debug)]
pub struct Snapshot {
    traffic: Arc<Traffic>,
    tally: Arc<Tally>,
    started: i64,
    depth: Depth,
    pools: [Pool; 2],
    draining: bool,
    listening: Option<bool>,
    embedded: bool,
    disk_free: Option<u64>,
}

#[derive(Debug)]
struct Pool {
    name: &'static str,
    open: u32,
    idle: usize,
    limit: u32,
}

impl Pool {
    fn of(name: &'static str, pool: &PgPool) -> Self {
        let limit = pool.options().get_max_connections();
        Self { name, open: pool.size(), idle: pool.num_idle(), limit }
    }
}

impl Snapshot {
    pub fn of(parts: &Parts, admin: &PgPool, started: i64) -> Self {
        Self {
            traffic: Arc::clone(&parts.traffic),
            tally: Arc::clone(&parts.tally),
            started,
            depth: parts.lanes.depth(),
            pools: [Pool::of("background", &parts.pool), Pool::of("admin", admin)],
            draining: parts.phase.draining(),
            listening: parts.wake.as_ref().map(|wake| wake.listening() == Listening::Yes),
            embedded: parts.embedded.is_some(),
            disk_free: parts.embedded.as_deref().and_then(|folder| health::disk_free(folder).ok()),
        }
    }

    fn deliveries(&self, page: &mut Page) -> fmt::Result {
        let codes = CODES.iter().zip(self.traffic.codes()).map(|((code, ending), count)| {
            ([("outcome", ending.as_str()), ("code", *code)], count)
        });
        page.counters(
            "tollgate_deliveries",
            "Deliveries by how they were answered: outcome in five kinds (refused: 4xx, failed: 5xx), code in detail.",
            codes,
        )?;
        let endings = self.traffic.endings();
        let named = || Ending::ALL.into_iter().map(Ending::as_str).zip(&endings);
        page.counters(
            "tollgate_delivery_bytes",
            "Bytes of the bodies of deliveries.",
            named().map(|(name, counts)| ([("outcome", name)], counts.bytes)),
        )?;
        page.histograms(
            "tollgate_delivery_duration_seconds",
            "Time from the head of a delivery to its answer, which for an event is after COMMIT.",
            &LATENCY_BOUNDS,
            named()
                .map(|(name, counts)| ([("outcome", name)], counts.seconds, &counts.latency[..])),
        )?;
        // Types without an event are left out, all but the one that unknown types are counted as.
        let types = self.traffic.types();
        let seen = types.iter().enumerate();
        let seen = seen.filter(|(at, count)| **count > 0 || *at == types.len() - 1);
        page.counters(
            "tollgate_events",
            "New events by type; types that Stripe's list does not have count as other. Without those whose sender hung up.",
            seen.map(|(at, count)| ([("type", types::label(at))], *count)),
        )
    }

    fn commits(&self, page: &mut Page) -> fmt::Result {
        let traffic = &self.traffic;
        page.counter(
            "tollgate_commits",
            "Transactions that recorded deliveries.",
            traffic.commits(),
        )?;
        page.counter(
            "tollgate_commit_retries",
            "Attempts at such a transaction that failed and were made again.",
            traffic.retries(),
        )?;
        let (events, buckets) = traffic.batch_events();
        page.histograms(
            "tollgate_commit_events",
            "Events in one transaction.",
            &BATCH_BOUNDS.map(number),
            [([], number(events), &buckets[..])],
        )?;
        let (seconds, buckets) = traffic.batch_time();
        page.histograms(
            "tollgate_commit_duration_seconds",
            "Time of one transaction, with all its attempts.",
            &LATENCY_BOUNDS,
            [([], seconds, &buckets[..])],
        )?;
        page.counters(
            "tollgate_ties",
            "Objects whose newest state was decided from the log, by how: tiebreak is a guess.",
            BASES.iter().zip(traffic.ties()).map(|(basis, n)| ([("basis", basis.as_str())], n)),
        )?;
        let (projections, handlers) = traffic.failures();
        page.counters(
            "tollgate_failures",
            "Failed attempts of billing tables (projection) and of handlers with the policy park, retries included.",
            [([("stage", "projection")], projections), ([("stage", "handler")], handlers)],
        )
    }

    fn attempts(&self, page: &mut Page) -> fmt::Result {
        let all = self.tally.all();
        let each = |names: &'static [&'static str], counts: fn(&Attempts) -> Vec<u64>| {
            all.iter().flat_map(move |(consumer, attempts)| {
                let counts = counts(attempts).into_iter();
                names.iter().zip(counts).map(move |(name, n)| (consumer.as_str(), *name, n))
            })
        };
        page.counters(
            "tollgate_attempts",
            "Attempts at deliveries to consumers' targets, by what came of them.",
            each(&VERDICTS, |attempts| attempts.verdicts().to_vec())
                .map(|(consumer, name, n)| ([("consumer", consumer), ("outcome", name)], n)),
        )?;
        page.counters(
            "tollgate_breaker_turns",
            "How often a circuit breaker turned to a state.",
            each(&TURNS, |attempts| attempts.turns().to_vec())
                .map(|(consumer, name, n)| ([("consumer", consumer), ("state", name)], n)),
        )?;
        page.counters(
            "tollgate_attempts_stale",
            "Attempts whose lease had run out before they were settled.",
            all.iter().map(|(consumer, n)| ([("consumer", consumer.as_str())], n.settled_late())),
        )?;
        let (seconds, buckets) = self.tally.times();
        page.histograms(
            "tollgate_attempt_duration_seconds",
            "Time of one attempt at a delivery to a consumer's target.",
            &TIME_BOUNDS,
            [([], seconds, &buckets[..])],
        )
    }

    fn parts(&self, page: &mut Page) -> fmt::Result {
        let Depth { events, bytes, limits } = self.depth;
        page.gauge("tollgate_queue_events", "Deliveries that wait to be written.", size(events))?;
        page.gauge("tollgate_queue_bytes", "Bytes of their bodies.", size(bytes))?;
        page.gauge("tollgate_queue_events_limit", "Most that may wait.", size(limits.events))?;
        page.gauge("tollgate_queue_bytes_limit", "Most bytes that may wait.", size(limits.bytes))?;
        page.gauges(
            "tollgate_pool_connections",
            "Connections to the database beside the writers' own.",
            self.pools.iter().flat_map(|Pool { name, open, idle, .. }| {
                let used = size((*open as usize).saturating_sub(*idle));
                [("used", used), ("idle", size(*idle))]
                    .map(|(state, n)| ([("pool", *name), ("state", state)], n))
            }),
        )?;
        page.gauges(
            "tollgate_pool_connections_limit",
            "Most of them.",
            self.pools.iter().map(|pool| ([("pool", pool.name)], f64::from(pool.limit))),
        )?;
        page.gauge("tollgate_shutting_down", "1 once shutdown has begun.", flag(self.draining))?;
        page.gauges::<0>(
            "tollgate_listening",
            "1 while notifications of new events are heard; 0 if they are not, or nobody waits for any.",
            self.listening.map(|heard| ([], flag(heard))),
        )?;
        page.gauge(
            "tollgate_embedded_database",
            "1 if the database is the embedded one.",
            flag(self.embedded),
        )?;
        page.gauges::<0>(
            "tollgate_embedded_disk_free_bytes",
            "Free space for the embedded database.",
            self.disk_free.map(|free| ([], number(free))),
        )?;
        page.gauges(
            "tollgate_build_info",
            "1; which version this is.",
            [([("version", env!("CARGO_PKG_VERSION"))], 1.0)],
        )?;
        page.gauge(
            "process_start_time_seconds",
            "When the process began, in Unix seconds.",
            number(self.started.unsigned_abs()),
        )
    }
}

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut page = Page(encoder);
        self.deliveries(&mut page)?;
        self.commits(&mut page)?;
        self.attempts(&mut page)?;
        self.parts(&mut page)
    }
}

fn flag(yes: bool) -> f64 {
    f64::from(u8::from(yes))
}

fn size(size: usize) -> f64 {
    number(size as u64)
}

/// Exact up to 2^53, beyond which a metric is none the worse for rounding.
#[allow(clippy::cast_precision_loss, reason = "see above")]
fn number(number: u64) -> f64 {
    number as f64
}
