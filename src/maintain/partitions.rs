//! Makes the log's monthly partitions ahead of time.
//! How a month is added is the database function's affair; nothing is lost if this never runs.

use sqlx::PgPool;
use time::{Date, Month};

use crate::clock::Clock;
use crate::store::{StoreError, maintenance};

/// Months kept ready beyond the current one.
const AHEAD: usize = 3;

/// Most partitions made in one run: after a long pause the rest follows an hour later.
const MOST: usize = 24;

/// Adds the months that are missing up to `AHEAD` from now.
pub async fn run_once(pool: &PgPool, clock: &Clock) -> Result<(), StoreError> {
    let Some(newest) = maintenance::months(pool).await?.pop() else {
        return Ok(());
    };
    for month in missing(newest, clock.date()) {
        if !maintenance::add_month(pool, month).await? {
            return Ok(());
        }
        tracing::info!(%month, "made a partition of the log");
    }
    Ok(())
}

/// The months after `newest` up to `AHEAD` after `today`'s, oldest first.
fn missing(newest: Date, today: Date) -> impl Iterator<Item = Date> {
    let mut wanted = first_of_month(today);
    for _ in 0..AHEAD {
        wanted = next_month(wanted);
    }
    std::iter::successors(Some(next_month(newest)), |month| Some(next_month(*month)))
        .take_while(move |month| *month <= wanted)
        .take(MOST)
}

/// The first day of a date's month.
pub(super) fn first_of_month(date: Date) -> Date {
    date.replace_day(1).unwrap_or(date)
}

/// The first day of the month after a date's.
pub(super) fn next_month(date: Date) -> Date {
    let (year, month) = (date.year(), date.month());
    let year = if month == Month::December { year + 1 } else { year };
    Date::from_calendar_date(year, month.next(), 1).unwrap_or(Date::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(year: i32, month: u8, day: u8) -> Date {
        Date::from_calendar_date(year, month.try_into().unwrap(), day).unwrap()
    }

    #[test]
    fn three_months_ahead_across_the_year() {
        let months: Vec<_> = missing(date(2026, 11, 1), date(2026, 11, 30)).collect();
        assert_eq!(months, [date(2026, 12, 1), date(2027, 1, 1), date(2027, 2, 1)]);
        assert_eq!(missing(date(2027, 2, 1), date(2026, 11, 1)).count(), 0);
    }

    #[test]
    fn a_long_absence_is_made_up_in_bounded_steps() {
        assert_eq!(missing(date(2000, 1, 1), date(2026, 11, 1)).count(), MOST);
    }
}
