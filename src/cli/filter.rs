//! Which events of the log, as flags: the same for every command that lists, exports or sends them.
//! What the values may be is `store::browse::filter`'s.

use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::store::browse::{BrowseError, EventFilter};

/// Which events.
#[derive(Debug, Default, clap::Args)]
pub struct FilterArgs {
    /// invoice.paid, invoice.* or *; may be repeated
    #[arg(long = "type", value_name = "PATTERN", help_heading = "Filters")]
    types: Vec<String>,
    /// About the object of this id
    #[arg(long, value_name = "ID", help_heading = "Filters")]
    object: Option<String>,
    /// About this customer, or what the billing tables hold of it
    #[arg(long, value_name = "ID", help_heading = "Filters")]
    customer: Option<String>,
    /// Of this connected account; - for the platform's own
    #[arg(long, value_name = "ID", help_heading = "Filters", allow_hyphen_values = true)]
    account: Option<String>,
    /// true for live, false for test events
    #[arg(long, value_name = "BOOL", help_heading = "Filters")]
    livemode: Option<String>,
    /// ok, failing (something of it is tried again) or dead (given up)
    #[arg(long, help_heading = "Filters")]
    status: Option<String>,
    /// Made since
    #[arg(long, value_name = "WHEN", help_heading = "Filters")]
    since: Option<String>,
    /// Made before
    #[arg(long, value_name = "WHEN", help_heading = "Filters")]
    until: Option<String>,
    /// Of this id, or with * at the end, of ids that begin so
    #[arg(long, help_heading = "Filters")]
    id: Option<String>,
}

impl FilterArgs {
    /// Whether any of it is given.
    pub fn is_given(&self) -> bool {
        let parts = [
            &self.object,
            &self.customer,
            &self.account,
            &self.livemode,
            &self.status,
            &self.since,
            &self.until,
            &self.id,
        ];
        !self.types.is_empty() || parts.into_iter().any(Option::is_some)
    }

    /// The filter, with time spans counted back from `now`.
    ///
    /// # Errors
    /// A sentence that says what was expected.
    pub fn filter(&self, now: OffsetDateTime) -> Result<EventFilter, BrowseError> {
        let mut filter = EventFilter::default();
        for pattern in &self.types {
            filter.set("type", pattern)?;
        }
        let (since, until) = (ago(self.since.as_deref(), now), ago(self.until.as_deref(), now));
        let parts = [
            ("object", &self.object),
            ("customer", &self.customer),
            ("account", &self.account),
            ("livemode", &self.livemode),
            ("status", &self.status),
            ("since", &since),
            ("until", &until),
            ("id", &self.id),
        ];
        for (name, value) in parts {
            if let Some(value) = value {
                filter.set(name, value)?;
            }
        }
        Ok(filter)
    }
}

/// A time span as the time that long ago; anything else as it is.
fn ago(text: Option<&str>, now: OffsetDateTime) -> Option<String> {
    let text = text?;
    let span: Option<Duration> = humantime::parse_duration(text).ok();
    let time = span.and_then(|span| now.checked_sub(time::Duration::try_from(span).ok()?));
    Some(time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| text.to_owned()))
}
