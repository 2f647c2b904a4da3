//! What deliveries came to, minute by minute: `tollgate.traffic_minutes`. Counted in
//! `ingest::traffic`, added here by `maintain::traffic`, read for charts.

use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgPool, Row};
use time::OffsetDateTime;

use super::StoreError;
use super::connect::within;

/// Upper bounds of the latency buckets, in seconds; one more bucket holds what took longer. The
/// table and /metrics share them. To change them takes a migration: the rows know only their place.
pub const LATENCY_BOUNDS: [f64; 24] = [
    0.000_25, 0.000_5, 0.000_75, 0.001, 0.001_5, 0.002, 0.003, 0.005, 0.007_5, 0.01, 0.02, 0.03,
    0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0,
];

/// Number of latency buckets, the open one included.
pub const LATENCY_BUCKETS: usize = LATENCY_BOUNDS.len() + 1;

/// Most points of one series; a finer step is made coarser.
pub const MOST_POINTS: u32 = 2000;

/// Longest wait for the statement that adds, and for those that read.
const LIMIT: Duration = Duration::from_secs(15);

/// How a delivery ended, as far as charts tell it apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ending {
    /// A new event.
    Recorded = 0,
    /// An event that was there already.
    Duplicate = 1,
    /// Signed, but no usable event.
    Quarantined = 2,
    /// Not taken, by the sender's fault: 4xx.
    Refused = 3,
    /// Not taken, by ours: 5xx.
    Failed = 4,
}

impl Ending {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 5] =
        [Self::Recorded, Self::Duplicate, Self::Quarantined, Self::Refused, Self::Failed];

    /// A stable name, for the table and for labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Recorded => "recorded",
            Self::Duplicate => "duplicate",
            Self::Quarantined => "quarantined",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|ending| ending.as_str() == name)
    }
}

/// Deliveries that ended alike.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counts {
    /// Bytes of their bodies.
    pub bytes: u64,
    /// What they took together.
    pub seconds: f64,
    /// How many fell into each bucket of [`LATENCY_BOUNDS`].
    pub latency: [u64; LATENCY_BUCKETS],
}

impl Counts {
    /// How many there were.
    pub fn deliveries(&self) -> u64 {
        self.latency.iter().sum()
    }

    /// Adds others to these.
    pub fn add(&mut self, other: &Self) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.seconds += other.seconds;
        for (mine, theirs) in self.latency.iter_mut().zip(other.latency) {
            *mine = mine.saturating_add(theirs);
        }
    }

    /// What came on top of an earlier reading of the same counts.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut more = *self;
        more.bytes = more.bytes.saturating_sub(earlier.bytes);
        more.seconds = (more.seconds - earlier.seconds).max(0.0);
        for (mine, theirs) in more.latency.iter_mut().zip(earlier.latency) {
            *mine = mine.saturating_sub(theirs);
        }
        more
    }

    /// The latency that a share `q` of them stayed within, in seconds: interpolated within its
    /// bucket, and at most the last bound. None if there were no deliveries.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let all = self.deliveries();
        if all == 0 {
            return None;
        }
        let rank = float(all) * q.clamp(0.0, 1.0);
        let (mut below, mut lower) = (0.0, 0.0);
        for (count, upper) in self.latency.iter().zip(LATENCY_BOUNDS) {
            let count = float(*count);
            if count > 0.0 && below + count >= rank {
                return Some(lower + (upper - lower) * ((rank - below) / count));
            }
            (below, lower) = (below + count, upper);
        }
        Some(lower)
    }
}

/// Exact up to 2^53, which no count here comes near to.
#[allow(clippy::cast_precision_loss, reason = "see above")]
fn float(count: u64) -> f64 {
    count as f64
}

/// What was counted within one minute.
#[derive(Clone, Copy, Debug)]
pub struct Minute {
    /// Its beginning.
    pub at: OffsetDateTime,
    pub ending: Ending,
    pub counts: Counts,
}

/// Adds counts to the table, in one statement.
pub async fn add(pool: &PgPool, minutes: &[Minute]) -> Result<(), StoreError> {
    fn column<T>(minutes: &[Minute], value: impl Fn(&Minute) -> T) -> Vec<T> {
        minutes.iter().map(value).collect()
    }
    let latency: Vec<i64> =
        minutes.iter().flat_map(|minute| minute.counts.latency).map(bigint).collect();
    let added = within(pool, LIMIT, async |connection| {
        sqlx::query("SELECT tollgate.add_traffic($1, $2, $3, $4, $5, $6)")
            .bind(column(minutes, |minute| minute.at))
            .bind(column(minutes, |minute| minute.ending.as_str()))
            .bind(column(minutes, |minute| bigint(minute.counts.deliveries())))
            .bind(column(minutes, |minute| bigint(minute.counts.bytes)))
            .bind(column(minutes, |minute| minute.counts.seconds))
            .bind(&latency)
            .execute(connection)
            .await
    });
    Ok(added.await.map(drop)?)
}

fn bigint(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Deletes at most `most` rows of minutes before a time; returns how many went.
pub async fn forget(pool: &PgPool, before: OffsetDateTime, most: i64) -> Result<u64, StoreError> {
    let done = within(pool, LIMIT, async |connection| {
        sqlx::query(
            "DELETE FROM tollgate.traffic_minutes WHERE (minute, outcome) IN
                (SELECT minute, outcome FROM tollgate.traffic_minutes WHERE minute < $1 ORDER BY minute LIMIT $2)",
        )
        .bind(before)
        .bind(most)
        .execute(connection)
        .await
    });
    Ok(done.await?.rows_affected())
}

/// One step of a series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// The step's beginning.
    pub at: OffsetDateTime,
    by_ending: [Counts; Ending::ALL.len()],
}

impl Point {
    fn empty(at: OffsetDateTime) -> Self {
        Self { at, by_ending: Default::default() }
    }

    /// What ended so.
    pub fn of(&self, ending: Ending) -> &Counts {
        &self.by_ending[ending as usize]
    }

    /// How many deliveries ended so.
    pub fn deliveries(&self, ending: Ending) -> u64 {
        self.of(ending).deliveries()
    }

    /// The latency in seconds that a share `q` (0.5, 0.95, 0.99) stayed within, of all deliveries
    /// but the refused, which never came to the database. None without any.
    pub fn latency(&self, q: f64) -> Option<f64> {
        let mut all = Counts::default();
        for ending in Ending::ALL.into_iter().filter(|ending| *ending != Ending::Refused) {
            all.add(self.of(ending));
        }
        all.quantile(q)
    }

    /// Everything of a series in one, as of its first step.
    pub fn sum(points: &[Self]) -> Option<Self> {
        let mut all = Self::empty(points.first()?.at);
        for point in points {
            for (mine, theirs) in all.by_ending.iter_mut().zip(&point.by_ending) {
                mine.add(theirs);
            }
        }
        Some(all)
    }
}

/// The time between `from` and `until` in steps, oldest first, also those without a delivery. Steps
/// are whole minutes and begin at whole multiples of `step`; the first holds `from`. At most
/// [`MOST_POINTS`]: `step` is raised where it would take more. Empty if `until` is not after `from`.
pub async fn series(
    pool: &PgPool,
    from: OffsetDateTime,
    until: OffsetDateTime,
    step: Duration,
) -> Result<Vec<Point>, StoreError> {
    let Some(steps) = Steps::between(from, until, step) else {
        return Ok(Vec::new());
    };
    let mut points: Vec<Point> = steps.all().map(Point::empty).collect();
    for row in rows(pool, &steps).await? {
        let at: i64 = row.try_get("step")?;
        let point = usize::try_from(at).ok().and_then(|at| points.get_mut(at));
        let ending = Ending::named(row.try_get("outcome")?);
        if let (Some(point), Some(ending)) = (point, ending) {
            point.by_ending[ending as usize] = counts(&row)?;
        }
    }
    Ok(points)
}

async fn rows(pool: &PgPool, steps: &Steps) -> Result<Vec<PgRow>, sqlx::Error> {
    // By place: to take the arrays apart into rows costs several times as much.
    let sums: Vec<_> =
        (1..=LATENCY_BUCKETS).map(|at| format!("sum(latency[{at}])::bigint")).collect();
    let sql = format!(
        "SELECT (extract(epoch FROM minute)::bigint - $1) / $3 AS step, outcome, sum(bytes)::bigint AS bytes,
                sum(seconds) AS seconds, ARRAY[{}] AS latency
         FROM tollgate.traffic_minutes
         WHERE minute >= to_timestamp($1::float8) AND minute < to_timestamp($2::float8) GROUP BY 1, 2",
        sums.join(", ")
    );
    within(pool, LIMIT, async |connection| {
        sqlx::query(AssertSqlSafe(sql))
            .bind(steps.first)
            .bind(steps.end)
            .bind(steps.step)
            .fetch_all(connection)
            .await
    })
    .await
}

fn counts(row: &PgRow) -> Result<Counts, sqlx::Error> {
    let unsigned = |count: i64| u64::try_from(count).unwrap_or(0);
    let mut latency = [0; LATENCY_BUCKETS];
    for (bucket, count) in latency.iter_mut().zip(row.try_get::<Vec<i64>, _>("latency")?) {
        *bucket = unsigned(count);
    }
    Ok(Counts { bytes: unsigned(row.try_get("bytes")?), seconds: row.try_get("seconds")?, latency })
}

/// Steps of a series, in Unix seconds.
#[derive(Debug, PartialEq)]
struct Steps {
    first: i64,
    /// After the last.
    end: i64,
    step: i64,
}

impl Steps {
    fn between(from: OffsetDateTime, until: OffsetDateTime, step: Duration) -> Option<Self> {
        let (from, until) = (from.unix_timestamp(), until.unix_timestamp());
        let span = until.checked_sub(from).filter(|span| *span > 0)?;
        let step = i64::try_from(step.as_secs()).unwrap_or(i64::MAX);
        // One less, because steps begin at multiples.
        let least = span / i64::from(MOST_POINTS - 1) + 1;
        // No step is longer than the calendar.
        let step = step.clamp(1, 1 << 40).max(least);
        let step = (step + 59) / 60 * 60;
        let first = from.div_euclid(step) * step;
        let end = (until - 1).div_euclid(step) * step + step;
        Some(Self { first, end, step })
    }

    fn all(&self) -> impl Iterator<Item = OffsetDateTime> {
        let step = usize::try_from(self.step).unwrap_or(1);
        (self.first..self.end)
            .step_by(step)
            .map(|at| OffsetDateTime::from_unix_timestamp(at).unwrap_or(OffsetDateTime::UNIX_EPOCH))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(buckets: &[(usize, u64)]) -> Counts {
        let mut counts = Counts::default();
        for (at, count) in buckets {
            counts.latency[*at] = *count;
        }
        counts
    }

    #[test]
    fn quantiles_are_interpolated_within_their_bucket() {
        assert_eq!(Counts::default().quantile(0.5), None);
        // All between 0.1 and 0.15 s.
        let even = counts(&[(15, 100)]);
        assert!((even.quantile(0.5).unwrap() - 0.125).abs() < 1e-9);
        assert!((even.quantile(0.0).unwrap() - 0.1).abs() < 1e-9);
        assert!((even.quantile(1.0).unwrap() - 0.15).abs() < 1e-9);
        // 90 within 0.25 ms, 10 between 0.3 and 0.5 s.
        let split = counts(&[(0, 90), (18, 10)]);
        assert!((split.quantile(0.95).unwrap() - 0.4).abs() < 1e-9);
        assert!(split.quantile(0.9).unwrap() <= 0.000_25);
        // What took longer than the last bound is said to have taken that.
        assert_eq!(counts(&[(24, 3)]).quantile(0.5), Some(30.0));
    }

    #[test]
    fn steps_are_whole_and_bounded() {
        let at = |seconds| OffsetDateTime::from_unix_timestamp(seconds).unwrap();
        let steps = |from, until, step| Steps::between(at(from), at(until), step);
        let minute = Duration::from_mins(1);
        let of = |first, end, step| Some(Steps { first, end, step });
        assert_eq!(steps(61, 181, minute), of(60, 240, 60));
        assert_eq!(steps(60, 180, minute), of(60, 180, 60));
        assert_eq!(steps(60, 61, Duration::ZERO), of(60, 120, 60));
        assert_eq!(steps(0, 1, Duration::from_secs(61)), of(0, 120, 120));
        assert_eq!(steps(5, 5, minute), None);
        assert_eq!(steps(6, 5, minute), None);
        let ever = Steps::between(at(-60_000_000_000), at(250_000_000_000), minute).unwrap();
        assert!(ever.all().count() <= MOST_POINTS as usize);
        assert_eq!(steps(0, 60, Duration::MAX).unwrap().all().count(), 1);
    }
}
