//! Pages of lists: how many rows, from where on. A cursor is opaque to whoever sends it back, and
//! good only for the list and the filter that it comes from.

use serde::Serialize;
use sha2::{Digest, Sha256};
use sqlx::postgres::PgRow;
use sqlx::{FromRow, Row};
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::BrowseError;

/// Rows of a page, unless asked otherwise, and at most.
pub const USUAL: i64 = 50;
pub const MOST: i64 = 200;

/// Longest cursor: that of the longest id.
const LONGEST: usize = 2048;

/// Which page.
#[derive(Clone, Debug)]
pub struct PageRequest {
    /// Rows, from 1 to [`MOST`].
    pub limit: i64,
    /// Where the page before ended; none for the first.
    pub cursor: Option<String>,
}

impl Default for PageRequest {
    fn default() -> Self {
        Self { limit: USUAL, cursor: None }
    }
}

impl PageRequest {
    /// Checks what came from outside.
    ///
    /// # Errors
    /// The limit is none.
    pub fn new(limit: Option<i64>, cursor: Option<String>) -> Result<Self, BrowseError> {
        let limit = limit.unwrap_or(USUAL);
        if !(1..=MOST).contains(&limit) {
            return Err(BrowseError::invalid(format!("limit: expected 1 to {MOST}, not {limit}")));
        }
        Ok(Self { limit, cursor: cursor.filter(|cursor| !cursor.is_empty()) })
    }

    /// Where to go on.
    pub(super) fn after(&self, list: &Fingerprint) -> Result<Option<Cursor>, BrowseError> {
        self.cursor.as_deref().map(|text| Cursor::parse(text, list)).transpose()
    }
}

/// One page.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// What to send as `cursor` for the next page; none at the end.
    pub next: Option<String>,
    /// If the search was given up for this page, because too little fits: how far back it got. There
    /// may be more, found by going on with `next`.
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub searched_until: Option<OffsetDateTime>,
}

impl<T> Page<T> {
    /// A page of rows that were read newest first, each with columns `fits` and `last`: whether it is
    /// asked for, and whether the search was given up after it.
    pub(super) fn walked(
        rows: &[PgRow],
        limit: i64,
        list: &Fingerprint,
        place: impl Fn(&T) -> Cursor,
    ) -> Result<Self, sqlx::Error>
    where
        T: for<'r> FromRow<'r, PgRow>,
    {
        let limit = usize::try_from(limit).unwrap_or(0);
        let mut page = Self { items: Vec::new(), next: None, searched_until: None };
        for row in rows {
            if page.items.len() == limit {
                page.next = page.items.last().map(|item| place(item).text(list));
                break;
            }
            let item = T::from_row(row)?;
            let cursor = place(&item);
            if row.try_get("fits")? {
                page.items.push(item);
            }
            if row.try_get("last")? {
                page.next = Some(cursor.text(list));
                page.searched_until = Some(cursor.at);
                break;
            }
        }
        Ok(page)
    }
}

/// The key of the last row seen: a time and, as several rows may share it, a text or a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    pub at: OffsetDateTime,
    pub tie: String,
}

impl Cursor {
    pub(super) fn new(at: OffsetDateTime, tie: impl Into<String>) -> Self {
        Self { at, tie: tie.into() }
    }

    /// The form that goes out.
    pub(super) fn text(&self, list: &Fingerprint) -> String {
        let micros = self.at.unix_timestamp_nanos() / 1000;
        let plain = format!("{micros}.{}", self.tie);
        format!("{}{}", list.0, hex::encode(plain))
    }

    pub(super) fn parse(text: &str, list: &Fingerprint) -> Result<Self, BrowseError> {
        let broken = || BrowseError::invalid("cursor: that is none of ours");
        if text.len() > LONGEST || !text.is_ascii() || text.len() < list.0.len() {
            return Err(broken());
        }
        let (print, rest) = text.split_at(list.0.len());
        let plain = hex::decode(rest).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let plain = plain.ok_or_else(broken)?;
        let (micros, tie) = plain.split_once('.').ok_or_else(broken)?;
        let micros: i64 = micros.parse().map_err(|_| broken())?;
        let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000);
        let cursor = Self::new(at.map_err(|_| broken())?, tie);
        if tie.contains('\0') {
            return Err(broken());
        }
        if print != list.0 {
            return Err(BrowseError::invalid(
                "cursor: it comes from another query; begin again without it",
            ));
        }
        Ok(cursor)
    }
}

/// What tells one list, with its filter, from others.
#[derive(Clone, Debug)]
pub(super) struct Fingerprint(String);

impl Fingerprint {
    pub(super) fn of(list: &str, filter: &impl std::fmt::Debug) -> Self {
        // `Debug` quotes: two filters that differ look different.
        let digest = Sha256::digest(format!("{list} {filter:?}"));
        Self(hex::encode(&digest[..8]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_come_back_as_they_went() {
        let list = Fingerprint::of("events", &"a");
        for tie in ["", "evt_1", "with . dots", "\u{1f600}", "'; DROP TABLE events; --"] {
            let at = OffsetDateTime::from_unix_timestamp_nanos(1_790_000_000_123_456_000).unwrap();
            let cursor = Cursor::new(at, tie);
            assert_eq!(Cursor::parse(&cursor.text(&list), &list).unwrap(), cursor);
        }
        let before = Cursor::new(OffsetDateTime::from_unix_timestamp(-5).unwrap(), "x");
        assert_eq!(Cursor::parse(&before.text(&list), &list).unwrap(), before);
    }

    #[test]
    fn cursors_of_other_lists_and_nonsense_are_refused() {
        let (list, other) = (Fingerprint::of("events", &"a"), Fingerprint::of("events", &"b"));
        let text = Cursor::new(OffsetDateTime::UNIX_EPOCH, "x").text(&other);
        let error = Cursor::parse(&text, &list).unwrap_err().to_string();
        assert!(error.contains("another query"), "{error}");
        let huge = "0".repeat(1 << 20);
        let late = format!("{}{}", list.0, hex::encode("9223372036854775807.x"));
        for nonsense in
            ["x", "0123456789abcdef", "0123456789abcdefzz", "ääääääääääää", &huge, &late]
        {
            assert!(
                Cursor::parse(nonsense, &list).is_err(),
                "{}",
                &nonsense[..8.min(nonsense.len())]
            );
        }
    }
}
