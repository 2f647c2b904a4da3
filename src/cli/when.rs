//! Points in time as people write them on the command line.
//! What is done with them is each command's.

use std::str::FromStr;
use std::time::Duration;

use time::format_description::BorrowedFormatItem;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, OffsetDateTime};

const DAY: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]");

/// Where to begin, as given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    Earliest,
    Ago(Duration),
    At(OffsetDateTime),
}

impl FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "earliest" {
            return Ok(Self::Earliest);
        }
        let ago = humantime::parse_duration(text).map(Self::Ago).ok();
        let at = || OffsetDateTime::parse(text, &Rfc3339).ok().map(Self::At);
        let day = || Date::parse(text, DAY).ok().map(|day| Self::At(day.midnight().assume_utc()));
        ago.or_else(at).or_else(day).ok_or_else(|| {
            "expected a time span, a day, a time or earliest: 90s, 2d, 2026-01-31, 2026-01-01T00:00:00Z"
                .to_owned()
        })
    }
}

impl Since {
    /// The time meant; none for all there is. Nothing was received before 1970, and the database
    /// cannot count back as far as a time span can.
    pub fn time(self, now: OffsetDateTime) -> Option<OffsetDateTime> {
        let time = match self {
            Self::Earliest => None,
            Self::Ago(span) => time::Duration::try_from(span).ok().and_then(|s| now.checked_sub(s)),
            Self::At(time) => Some(time),
        };
        time.filter(|time| *time > OffsetDateTime::UNIX_EPOCH)
    }

    /// The time meant, or 1970 for all there is.
    pub fn time_or_epoch(self, now: OffsetDateTime) -> OffsetDateTime {
        self.time(now).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_span_a_time_or_earliest() {
        let now = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        let time = |text: &str| text.parse::<Since>().map(|since| since.time(now));
        let at = |seconds| Ok(Some(OffsetDateTime::from_unix_timestamp(seconds).unwrap()));
        assert_eq!(time("1h"), at(1_799_996_400));
        assert_eq!(time("2026-01-01T01:00:00+01:00"), at(1_767_225_600));
        assert_eq!(time("2026-01-01"), at(1_767_225_600));
        for everything in ["earliest", "9999years", "0001-01-01T00:00:00Z", "500000000000years"] {
            assert_eq!(time(everything), Ok(None), "{everything}");
        }
        for wrong in ["", "yesterday", "1", "-1h", "2026-02-30"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }
}
