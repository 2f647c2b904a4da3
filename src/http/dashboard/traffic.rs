//! Charts of what was delivered, and how long it took: figures of `store::traffic`, as `chart` draws
//! them.

use std::time::Duration;

use time::OffsetDateTime;

use super::chart::{Chart, Figures, Form, Series, Unit};
use crate::store::traffic::{Ending, Point};

/// A time to look back over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    /// As in the address.
    pub name: &'static str,
    span: Duration,
    /// How long a bucket is: as many as one can tell apart.
    pub step: Duration,
}

pub const PERIODS: [Period; 4] = [
    Period { name: "1h", span: Duration::from_hours(1), step: Duration::from_mins(1) },
    Period { name: "24h", span: Duration::from_hours(24), step: Duration::from_mins(15) },
    Period { name: "7d", span: Duration::from_hours(7 * 24), step: Duration::from_hours(2) },
    Period { name: "30d", span: Duration::from_hours(30 * 24), step: Duration::from_hours(8) },
];

impl Period {
    /// The period of that name, or the shortest.
    pub fn named(name: &str) -> Self {
        PERIODS.into_iter().find(|period| period.name == name).unwrap_or(PERIODS[0])
    }

    /// When it begins, if it ends `now`.
    pub fn start(self, now: OffsetDateTime) -> OffsetDateTime {
        now - self.span
    }

    /// For sentences: in the last …
    pub fn words(self) -> &'static str {
        match self.name {
            "24h" => "day",
            "7d" => "week",
            "30d" => "month",
            _ => "hour",
        }
    }
}

/// How outcomes are told, and in which colour.
const OUTCOMES: [(Ending, &str, u8); 5] = [
    (Ending::Recorded, "recorded", 1),
    (Ending::Duplicate, "duplicate", 2),
    (Ending::Quarantined, "quarantined", 3),
    (Ending::Refused, "refused (4xx)", 4),
    (Ending::Failed, "failed (5xx)", 5),
];

#[allow(clippy::cast_precision_loss, reason = "counts below 2^53")]
fn float(count: u64) -> f64 {
    count as f64
}

/// Deliveries per minute by outcome.
pub fn deliveries(points: &[Point], period: Period) -> Chart {
    let minutes = period.step.as_secs_f64() / 60.0;
    let series = OUTCOMES.map(|(ending, name, colour)| Series {
        name,
        colour,
        values: points
            .iter()
            .map(|point| Some(float(point.deliveries(ending)) / minutes))
            .collect(),
    });
    Chart::new(&Figures {
        title: "Deliveries per minute".to_owned(),
        form: Form::Bars,
        unit: Unit::Plain,
        times: points.iter().map(|point| point.at).collect(),
        series: series.into(),
    })
}

/// From the head of a request to its answer.
pub fn latency(points: &[Point]) -> Chart {
    let series = [(0.5, "p50", 1), (0.95, "p95", 3), (0.99, "p99", 5)].map(|(q, name, colour)| {
        Series { name, colour, values: points.iter().map(|point| point.latency(q)).collect() }
    });
    Chart::new(&Figures {
        title: "Latency".to_owned(),
        form: Form::Lines,
        unit: Unit::Seconds,
        times: points.iter().map(|point| point.at).collect(),
        series: series.into(),
    })
}

/// What a period came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    pub recorded: i64,
    pub duplicate: i64,
    pub refused: i64,
    pub failed: i64,
    /// In seconds.
    pub p95: Option<f64>,
}

impl Totals {
    pub fn of(points: &[Point]) -> Self {
        let Some(sum) = Point::sum(points) else {
            return Self::default();
        };
        let count = |ending| i64::try_from(sum.deliveries(ending)).unwrap_or(i64::MAX);
        Self {
            recorded: count(Ending::Recorded),
            duplicate: count(Ending::Duplicate),
            refused: count(Ending::Refused),
            failed: count(Ending::Failed),
            p95: sum.latency(0.95),
        }
    }
}
