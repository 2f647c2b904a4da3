//! The one place that asks the operating system what time it is.
//! Everything else takes a [`Clock`] or a time as an argument, so that tests can choose it.

use std::sync::Arc;
use std::time::SystemTime;

use time::{Date, OffsetDateTime};

/// A source of wall-clock time, cheap to clone.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> SystemTime + Send + Sync>);

impl Clock {
    /// The operating system's clock.
    #[must_use]
    #[allow(clippy::disallowed_methods, reason = "this is the place the rule points to")]
    pub fn system() -> Self {
        Self(Arc::new(SystemTime::now))
    }

    /// A clock that reads whatever `now` returns.
    #[must_use]
    pub fn from_fn(now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// Whole seconds since the Unix epoch, the unit of Stripe's `t=` and `created`.
    /// A clock set before 1970 reads as 0.
    #[must_use]
    pub fn unix_seconds(&self) -> i64 {
        (self.0)()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
    }

    /// The time in UTC.
    #[must_use]
    pub fn now(&self) -> OffsetDateTime {
        (self.0)().into()
    }

    /// The day in UTC.
    #[must_use]
    pub fn date(&self) -> Date {
        self.now().date()
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}
