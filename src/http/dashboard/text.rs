//! What people read, made of what machines keep: texts of strangers made harmless, times, amounts
//! and counts. Escaping for HTML is the templates'.

use std::fmt::Write as _;

use time::OffsetDateTime;
use time::UtcOffset;
use time::format_description::well_known::Rfc3339;

/// Longest text shown in a table or a title, in characters.
pub const SHORT: usize = 300;

/// Seconds from which on a day says more than how many days ago it was.
const LONG_AGO: i64 = 60 * 86_400;

/// Whether a character would not be seen, or would show others in another order than they have, or
/// give a terminal orders: controls, bidirectional marks, separators of lines, what has no width.
pub fn is_treacherous(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{180e}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// The text with everything spelt out that would not be seen, or show other characters in another
/// order than they have: control characters, bidirectional marks, what has no width.
pub fn harmless(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\u{1b}' => safe.push('␛'),
            '\n' | '\t' => safe.push(' '),
            c if is_treacherous(c) => {
                let _ = write!(safe, "\\u{{{:x}}}", u32::from(c));
            }
            c => safe.push(c),
        }
    }
    safe
}

/// The same, and no longer than `most` characters.
pub fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", harmless(&text[..end])),
        None => harmless(text),
    }
}

/// `1234567` as `1,234,567`.
pub fn thousands(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3 + 1);
    if number < 0 {
        text.push('-');
    }
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number as short as an axis wants it: `950`, `1.2k`, `3M`.
pub fn short_number(number: f64) -> String {
    let (value, unit) = match number.abs() {
        1e9.. => (number / 1e9, "G"),
        1e6.. => (number / 1e6, "M"),
        1e3.. => (number / 1e3, "k"),
        _ => (number, ""),
    };
    let text = format!("{value:.2}");
    format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
}

/// How many decimals Stripe's amounts in a currency have
/// (<https://docs.stripe.com/currencies#zero-decimal>).
fn decimals(currency: &str) -> usize {
    match currency {
        "bif" | "clp" | "djf" | "gnf" | "jpy" | "kmf" | "krw" | "mga" | "pyg" | "rwf" | "vnd"
        | "vuv" | "xaf" | "xof" | "xpf" => 0,
        "bhd" | "jod" | "kwd" | "omr" | "tnd" => 3,
        _ => 2,
    }
}

/// An amount in minor units as people write it, without the currency's name: `1,234.50`.
pub fn amount(minor: i64, currency: &str) -> String {
    let decimals = decimals(&currency.to_ascii_lowercase());
    let unit = 10_u64.pow(u32::try_from(decimals).unwrap_or_default());
    let size = minor.unsigned_abs();
    let sign = if minor < 0 { "-" } else { "" };
    let whole = thousands(i64::try_from(size / unit).unwrap_or(i64::MAX));
    if decimals == 0 {
        return format!("{sign}{whole}");
    }
    format!("{sign}{whole}.{:0decimals$}", size % unit)
}

/// A duration as people say it: `850 ms`, `12 s`, `3 min`, `5 h`, `2 d`.
#[allow(clippy::cast_possible_truncation, reason = "beyond i64 it is a long time all the same")]
pub fn span(seconds: f64) -> String {
    let whole = seconds.abs() as i64;
    match whole {
        0 if seconds == 0.0 => "0 s".to_owned(),
        0 if seconds < 0.001 => "< 1 ms".to_owned(),
        0 => format!("{:.0} ms", seconds * 1e3),
        1..=9 => format!("{seconds:.1} s"),
        10..=119 => format!("{whole} s"),
        120..=7199 => format!("{} min", whole / 60),
        7200..=172_799 => format!("{} h", whole / 3600),
        _ => format!("{} d", whole / 86_400),
    }
}

/// How long ago, or in how long: `12 s ago`, `in 3 min`, `now`; of what is long ago, the day.
pub fn relative(time: OffsetDateTime, now: OffsetDateTime) -> String {
    let seconds = (now - time).whole_seconds();
    #[allow(clippy::cast_precision_loss, reason = "a few decimals of a long time")]
    match seconds {
        -1..=1 => "now".to_owned(),
        LONG_AGO.. => time.to_offset(UtcOffset::UTC).date().to_string(),
        2.. => format!("{} ago", span(seconds as f64).replace(".0", "")),
        _ => format!("in {}", span(-seconds as f64).replace(".0", "")),
    }
}

/// `2026-01-31 12:00:05 UTC`.
pub fn exact(time: OffsetDateTime) -> String {
    let time = time.to_offset(UtcOffset::UTC);
    let (hour, minute, second) = time.to_hms();
    format!("{} {hour:02}:{minute:02}:{second:02} UTC", time.date())
}

/// With thousandths, for what follows within a second.
pub fn precise(time: OffsetDateTime) -> String {
    let time = time.to_offset(UtcOffset::UTC);
    let (hour, minute, second, milli) = time.to_hms_milli();
    format!("{hour:02}:{minute:02}:{second:02}.{milli:03}")
}

/// As RFC 3339 has it, for machines.
pub fn iso(time: OffsetDateTime) -> String {
    time.to_offset(UtcOffset::UTC).format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_seen_is_spelt_out() {
        assert_eq!(harmless("Zürich 日本 עברית"), "Zürich 日本 עברית");
        assert_eq!(harmless("a\u{202e}b\u{200b}c\u{7}"), r"a\u{202e}b\u{200b}c\u{7}");
        assert_eq!(harmless("\u{1b}[31mred"), "␛[31mred");
        assert_eq!(cut("äöüß", 2), "äö…");
        assert_eq!(cut("äö", 2), "äö");
    }

    #[test]
    fn amounts_have_the_decimals_of_their_currency() {
        for (minor, currency, text) in [
            (123_450, "eur", "1,234.50"),
            (5, "usd", "0.05"),
            (-199, "USD", "-1.99"),
            (1_500, "jpy", "1,500"),
            (1_234, "kwd", "1.234"),
            (i64::MIN, "usd", "-92,233,720,368,547,758.08"),
        ] {
            assert_eq!(amount(minor, currency), text);
        }
    }

    #[test]
    fn numbers_and_spans_are_short() {
        assert_eq!(thousands(-1_234_567), "-1,234,567");
        assert_eq!(thousands(999), "999");
        assert_eq!(short_number(1_250.0), "1.25k");
        assert_eq!(short_number(0.5), "0.5");
        for (seconds, text) in
            [(0.0, "0 s"), (0.0123, "12 ms"), (3.25, "3.2 s"), (75.0, "75 s"), (90_000.0, "25 h")]
        {
            assert_eq!(span(seconds), text);
        }
        let now = OffsetDateTime::UNIX_EPOCH + time::Duration::days(1);
        assert_eq!(relative(now - time::Duration::seconds(5), now), "5 s ago");
        assert_eq!(relative(now + time::Duration::minutes(5), now), "in 5 min");
        assert_eq!(relative(now, now), "now");
        assert_eq!(relative(now, now + time::Duration::days(61)), "1970-01-02");
    }
}
