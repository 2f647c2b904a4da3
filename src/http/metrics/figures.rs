//! What the database knows: the log, what failed, how far consumers are. Read by `store::gauges`.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::page::Page;
use crate::consume::tally::{MOST_CONSUMERS, REST};
use crate::store::gauges::{Consumer, Gauges, Log, Trouble};
use crate::store::sync::reconcile::Standing;

/// One number of a consumer's.
type Count = fn(&Consumer) -> i64;

/// One reading of the database.
#[derive(Debug)]
pub struct Figures(pub Arc<Gauges>);

impl Collector for Figures {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let Gauges { log, trouble, consumers, stripe } = &*self.0;
        let mut page = Page(encoder);
        let read = [
            ("log", log.is_some()),
            ("trouble", trouble.is_some()),
            ("consumers", consumers.is_some()),
            ("stripe", stripe.is_some()),
        ];
        page.gauge(
            "tollgate_database_up",
            "1 if the database answered when it was asked last, at most seconds ago.",
            flag(read.iter().any(|(_, read)| *read)),
        )?;
        let parts = read.map(|(part, read)| ([("part", part)], flag(read)));
        page.gauges(
            "tollgate_database_part_up",
            "1 if these figures could be read in time; if not, they are missing.",
            parts,
        )?;
        if let Some(log) = log {
            write_log(&mut page, log)?;
        }
        if let Some(trouble) = trouble {
            write_trouble(&mut page, trouble)?;
        }
        if let Some(consumers) = consumers {
            write_consumers(&mut page, &bounded(consumers))?;
        }
        if let Some(stripe) = stripe {
            write_stripe(&mut page, stripe.as_ref())?;
        }
        Ok(())
    }
}

fn write_log(page: &mut Page, log: &Log) -> fmt::Result {
    page.gauge("tollgate_log_position", "Position of the newest event.", float(log.position))?;
    page.gauges::<0>(
        "tollgate_log_newest_event_timestamp_seconds",
        "When the newest event was received, in Unix seconds.",
        log.newest.map(|newest| ([], newest)),
    )?;
    page.gauge(
        "tollgate_log_partitions",
        "Months that the log has a partition for.",
        float(log.partitions),
    )?;
    page.gauge("tollgate_database_size_bytes", "Size of the whole database.", float(log.bytes))
}

fn write_trouble(page: &mut Page, trouble: &Trouble) -> fmt::Result {
    page.gauges(
        "tollgate_failures_kept",
        "Events that a billing table or a handler has not taken: waiting to be tried again, or given_up.",
        trouble.failures.iter().map(|kept| {
            let state = if kept.given_up { "given_up" } else { "waiting" };
            let labels =
                [("stage", kept.stage.as_str()), ("handler", &kept.handler), ("state", state)];
            (labels, float(kept.events))
        }),
    )?;
    page.gauges(
        "tollgate_quarantine_kept",
        "Signed bodies that are no usable event, by reason.",
        trouble.quarantined.iter().map(|(reason, n)| ([("reason", reason.as_str())], float(*n))),
    )
}

fn write_consumers(page: &mut Page, consumers: &[Consumer]) -> fmt::Result {
    let each = |value: fn(&Consumer) -> f64| {
        consumers.iter().map(move |one| ([("consumer", one.name.as_str())], value(one)))
    };
    page.gauge(
        "tollgate_consumers",
        "How many consumers there are figures of.",
        consumers.iter().map(|_| 1.0).sum(),
    )?;
    page.gauges(
        "tollgate_consumer_lag_events",
        "Events that the consumer has not settled, dead letters apart.",
        each(|one| float(one.lag_events)),
    )?;
    page.gauges(
        "tollgate_consumer_lag_seconds",
        "Age of the oldest event that the consumer has not settled.",
        each(|one| one.lag_seconds),
    )?;
    let states: [(&str, Count); 3] = [
        ("in_flight", |one| one.in_flight),
        ("retrying", |one| one.retrying),
        ("deferred", |one| one.deferred),
    ];
    page.gauges(
        "tollgate_consumer_events",
        "Events handed out, to be tried again, or waiting for an earlier one of their object.",
        consumers.iter().flat_map(|one| {
            states.map(|(state, count)| {
                ([("consumer", one.name.as_str()), ("state", state)], float(count(one)))
            })
        }),
    )?;
    page.gauges(
        "tollgate_consumer_breaker",
        "The circuit breaker: 0 closed, 1 half open, 2 open.",
        each(|one| match one.breaker.as_str() {
            "closed" => 0.0,
            "half_open" => 1.0,
            _ => 2.0,
        }),
    )?;
    page.gauges(
        "tollgate_consumer_paused",
        "1 if the consumer is paused.",
        each(|one| flag(one.paused)),
    )?;
    page.gauges(
        "tollgate_dead_letters",
        "Events that were tried often enough, and wait for somebody.",
        each(|one| float(one.dead)),
    )
}

fn write_stripe(page: &mut Page, standing: Option<&Standing>) -> fmt::Result {
    page.gauges::<0>(
        "tollgate_reconcile_behind_seconds",
        "Time since the log was last compared to the end with Stripe's events, of the account furthest behind.",
        standing.map(|it| ([], it.behind_seconds)),
    )?;
    page.gauges::<0>(
        "tollgate_reconcile_failing",
        "1 if an account could not be compared the last time.",
        standing.map(|it| ([], flag(it.error.is_some()))),
    )?;
    page.gauges::<0>(
        "tollgate_reconcile_late_events",
        "Events of the last day that no webhook brought within a minute, and that were fetched.",
        standing.map(|it| ([], float(it.late_events))),
    )
}

/// The first ones, and the others in one: their events summed, of the rest the worst.
fn bounded(consumers: &[Consumer]) -> Vec<Consumer> {
    let (own, rest) = consumers.split_at(consumers.len().min(MOST_CONSUMERS));
    let sum = rest.iter().cloned().reduce(|a, b| Consumer {
        name: REST.to_owned(),
        breaker: [a.breaker, b.breaker]
            .into_iter()
            .find(|b| b != "closed")
            .unwrap_or_else(|| "closed".to_owned()),
        paused: a.paused || b.paused,
        lag_events: a.lag_events + b.lag_events,
        lag_seconds: a.lag_seconds.max(b.lag_seconds),
        in_flight: a.in_flight + b.in_flight,
        retrying: a.retrying + b.retrying,
        deferred: a.deferred + b.deferred,
        dead: a.dead + b.dead,
    });
    let rest = sum.map(|sum| Consumer { name: REST.to_owned(), ..sum });
    own.iter().cloned().chain(rest).collect()
}

fn flag(yes: bool) -> f64 {
    f64::from(u8::from(yes))
}

/// Exact up to 2^53, beyond which a metric is none the worse for rounding.
#[allow(clippy::cast_precision_loss, reason = "see above")]
fn float(number: i64) -> f64 {
    number as f64
}
