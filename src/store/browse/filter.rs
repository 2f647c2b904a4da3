//! Which events: the filter as people write it, checked. Its values are data: they are bound, never
//! written into SQL, and there is no pattern language but that of event types.

use serde::{Deserialize, Serialize};
use time::format_description::well_known::{Iso8601, Rfc3339};
use time::{Date, OffsetDateTime, Time};
use utoipa::ToSchema;

use super::BrowseError;
use crate::store::handlers::{Pattern, is_own};

/// Longest value of a filter in bytes: as long as columns are.
const LONGEST: usize = 255;

/// Most patterns of types at once.
const PATTERNS: usize = 20;

/// How an event does, as `tollgate.event_status` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Nothing of it failed, as far as it came.
    Ok,
    /// Something of it is tried again.
    Failing,
    /// Something of it has been given up.
    Dead,
}

impl Status {
    pub const ALL: [Self; 3] = [Self::Ok, Self::Failing, Self::Dead];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failing => "failing",
            Self::Dead => "dead",
        }
    }
}

/// Which events; what is empty or None does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct EventFilter {
    /// Patterns of which one must fit.
    pub types: Vec<String>,
    /// The id of the object that the event is about.
    pub object: Option<String>,
    /// A customer: events about it, and about what the billing tables hold of it.
    pub customer: Option<String>,
    /// The connected account; an empty text for the platform's own events.
    pub account: Option<String>,
    pub livemode: Option<bool>,
    pub status: Option<Status>,
    /// Made by Stripe at this time or later.
    pub since: Option<OffsetDateTime>,
    /// Made by Stripe before this time.
    pub until: Option<OffsetDateTime>,
    /// An event's id, or with `*` at its end how it begins.
    pub id: Option<String>,
}

/// The names of a filter's parts, as in URLs and forms.
pub const NAMES: [&str; 9] =
    ["type", "object", "customer", "account", "livemode", "status", "since", "until", "id"];

impl EventFilter {
    /// Adds one part by its name ([`NAMES`]), as a URL or a form has it. An empty value is none,
    /// but for `account`, where `-` stands for the platform's own. Several types: several times, or
    /// with commas between.
    ///
    /// # Errors
    /// A sentence that says what was expected.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), BrowseError> {
        let value = value.trim();
        if value.is_empty() {
            return Ok(());
        }
        match name {
            "type" => {
                for pattern in value.split(',').map(str::trim).filter(|part| !part.is_empty()) {
                    self.add_type(pattern)?;
                }
            }
            "object" => self.object = Some(text(name, value)?),
            "customer" => self.customer = Some(text(name, value)?),
            "account" if value == "-" => self.account = Some(String::new()),
            "account" => self.account = Some(text(name, value)?),
            "livemode" => self.livemode = Some(boolean(name, value)?),
            "status" => {
                let known = Status::ALL.into_iter().find(|status| status.as_str() == value);
                let wrong = || expected(name, "ok, failing or dead");
                self.status = Some(known.ok_or_else(wrong)?);
            }
            "since" => self.since = Some(instant(name, value)?),
            "until" => self.until = Some(instant(name, value)?),
            "id" => self.id = Some(text(name, value)?),
            _ => {
                return Err(BrowseError::invalid(format!(
                    "events cannot be filtered by {}: expected one of {}",
                    shown(name),
                    NAMES.join(", ")
                )));
            }
        }
        Ok(())
    }

    fn add_type(&mut self, pattern: &str) -> Result<(), BrowseError> {
        let pattern = text("type", pattern)?;
        let parsed: Pattern =
            pattern.parse().map_err(|error| BrowseError::invalid(format!("type: {error}")))?;
        if self.types.len() == PATTERNS {
            return Err(BrowseError::invalid(format!("type: at most {PATTERNS} patterns")));
        }
        if !self.types.iter().any(|known| known == parsed.as_str()) {
            self.types.push(parsed.as_str().to_owned());
        }
        Ok(())
    }

    /// Whether events of this type are asked for, where all is meant to be all of Stripe's: those of
    /// Tollgate's own (`tollgate.…`) are, if it names them.
    pub fn means(&self, event_type: &str) -> bool {
        match self.types.as_slice() {
            [] => !is_own(event_type),
            types => types.iter().any(|pattern| Pattern::new(pattern).fits(event_type)),
        }
    }

    /// The parts that are set, as [`Self::set`] takes them.
    pub fn pairs(&self) -> Vec<(&'static str, String)> {
        let mut pairs = Vec::new();
        let mut add = |name, value: Option<String>| pairs.extend(value.map(|value| (name, value)));
        let time = |time: Option<OffsetDateTime>| time.and_then(|time| time.format(&Rfc3339).ok());
        add("type", (!self.types.is_empty()).then(|| self.types.join(",")));
        add("object", self.object.clone());
        add("customer", self.customer.clone());
        let account = self.account.as_deref();
        add("account", account.map(|it| if it.is_empty() { "-" } else { it }.to_owned()));
        add("livemode", self.livemode.map(|live| live.to_string()));
        add("status", self.status.map(|status| status.as_str().to_owned()));
        add("since", time(self.since));
        add("until", time(self.until));
        add("id", self.id.clone());
        pairs
    }
}

impl EventFilter {
    /// Which events, in words: as the audit log has it.
    pub fn words(&self) -> String {
        let pairs = self.pairs().into_iter();
        let words: Vec<_> = pairs.map(|(name, value)| format!("{name}={value}")).collect();
        if words.is_empty() { "all events".to_owned() } else { words.join(" ") }
    }
}

/// A value that a column may hold.
pub(super) fn text(name: &str, value: &str) -> Result<String, BrowseError> {
    if value.len() > LONGEST {
        return Err(expected(name, &format!("at most {LONGEST} bytes")));
    }
    if value.contains('\0') {
        return Err(expected(name, "a text without the character NUL"));
    }
    Ok(value.to_owned())
}

pub(super) fn boolean(name: &str, value: &str) -> Result<bool, BrowseError> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(expected(name, "true or false")),
    }
}

/// A time as people write it: RFC 3339, a day (its midnight, UTC), or Unix seconds.
///
/// # Errors
/// A sentence that says what was expected.
pub fn instant(name: &str, value: &str) -> Result<OffsetDateTime, BrowseError> {
    // In a URL, + is a space.
    let repaired = value.replacen(' ', "+", usize::from(value.len() == 25));
    let parsed = OffsetDateTime::parse(&repaired, &Rfc3339)
        .or_else(|_| OffsetDateTime::parse(&value.replacen(' ', "T", 1), &Rfc3339))
        .ok()
        .or_else(|| {
            Some(Date::parse(value, &Iso8601::DATE).ok()?.with_time(Time::MIDNIGHT).assume_utc())
        })
        .or_else(|| OffsetDateTime::from_unix_timestamp(value.parse().ok()?).ok());
    // Postgres keeps times from 4713 BC on, JSON those of four digits; nobody means one that old.
    parsed.filter(|time| (1..=9999).contains(&time.year())).ok_or_else(|| {
        expected(name, "a time such as 2026-01-31T12:00:00Z, 2026-01-31, or Unix seconds")
    })
}

fn expected(name: &str, what: &str) -> BrowseError {
    BrowseError::invalid(format!("{name}: expected {what}"))
}

/// The beginning of what somebody sent, for a message.
fn shown(name: &str) -> String {
    format!("{:?}", name.chars().take(40).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(pairs: &[(&str, &str)]) -> Result<EventFilter, String> {
        let mut filter = EventFilter::default();
        for (name, value) in pairs {
            filter.set(name, value).map_err(|error| error.to_string())?;
        }
        Ok(filter)
    }

    #[test]
    fn filters_go_out_as_they_came_in() {
        let all = filter(&[
            ("type", "invoice.*, charge.failed"),
            ("type", "invoice.*"),
            ("object", "in_1"),
            ("customer", "cus_1"),
            ("account", "-"),
            ("livemode", "true"),
            ("status", "dead"),
            ("since", "2026-01-31"),
            ("until", "2026-02-01T12:00:00+02:00"),
            ("id", "evt_*"),
        ])
        .unwrap();
        assert_eq!(all.types, ["invoice.*", "charge.failed"]);
        assert_eq!(all.account.as_deref(), Some(""));
        let pairs = all.pairs();
        let again: Vec<_> = pairs.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(filter(&again).unwrap(), all);
        assert_eq!(filter(&[("type", ""), ("id", "  ")]).unwrap(), EventFilter::default());
    }

    #[test]
    fn what_is_no_value_is_refused_with_a_sentence() {
        let long = "x".repeat(1 << 20);
        for (name, value, says) in [
            ("type", "in*ice", "expected a type"),
            ("type", "^invoice$ |.*", "expected a type"),
            ("object", "a\0b", "NUL"),
            ("object", &long, "at most 255 bytes"),
            ("livemode", "yes", "true or false"),
            ("status", "fine", "ok, failing or dead"),
            ("since", "yesterday", "expected a time"),
            ("until", "2026-13-01", "expected a time"),
            ("until", "99999999999999999999", "expected a time"),
            ("colour", "red", "cannot be filtered by \"colour\""),
        ] {
            let error = filter(&[(name, value)]).unwrap_err();
            assert!(error.contains(says), "{name}: {error}");
        }
    }

    #[test]
    fn snapshots_are_meant_by_who_names_them() {
        for (types, meant) in [("", false), ("*", false), ("tollgate.*", true), ("a.b,*", false)] {
            let filter = filter(&[("type", types)]).unwrap();
            assert_eq!(filter.means("tollgate.snapshot"), meant, "{types}");
            assert_eq!(filter.means("invoice.paid"), types != "tollgate.*", "{types}");
        }
    }

    #[test]
    fn times_are_written_in_several_ways() {
        let noon = instant("since", "2026-01-31T12:00:00Z").unwrap();
        for same in ["2026-01-31T13:00:00+01:00", "2026-01-31 12:00:00Z", "1769860800"] {
            assert_eq!(instant("since", same).unwrap(), noon, "{same}");
        }
        assert_eq!(instant("since", "2026-01-31T13:00:00 01:00").unwrap(), noon);
    }
}
