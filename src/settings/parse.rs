//! Reads one setting's text as the type it stands for. Errors are the second half of a sentence
//! that begins with the value: what it should have been.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

/// What a value should have been.
pub type Expected = String;

pub fn whole(text: &str, least: u64, most: u64) -> Result<u64, Expected> {
    text.trim()
        .parse()
        .ok()
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| format!("expected a whole number from {least} to {most}"))
}

pub fn count(text: &str, least: u64, most: u32) -> Result<usize, Expected> {
    whole(text, least, most.into()).map(|number| usize::try_from(number).unwrap_or(usize::MAX))
}

pub fn flag(text: &str) -> Result<bool, Expected> {
    match text.trim() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err("expected true or false".into()),
    }
}

/// Longest time that something is waited for: sums of such times never overflow, and Postgres takes
/// them as a limit.
const LONGEST_WAIT: Duration = Duration::from_hours(24);

/// Longest time at all: whatever the time is, that much before it has a date.
const LONGEST_PERIOD: Duration = Duration::from_hours(100 * 366 * 24);

/// A time to wait for, a day at most.
pub fn duration(text: &str) -> Result<Duration, Expected> {
    let time = humantime::parse_duration(text.trim()).ok();
    time.filter(|time| *time <= LONGEST_WAIT)
        .ok_or_else(|| "expected a time up to a day, for example 500ms, 30s or 5m".into())
}

/// A time to wait for that must not be zero.
pub fn timeout(text: &str) -> Result<Duration, Expected> {
    duration(text).and_then(|time| {
        if time.is_zero() {
            Err("expected a time longer than nothing, for example 10s".into())
        } else {
            Ok(time)
        }
    })
}

/// A time of at least a second.
pub fn period(text: &str) -> Result<Duration, Expected> {
    let time = humantime::parse_duration(text.trim()).ok();
    time.filter(|time| (Duration::from_secs(1)..=LONGEST_PERIOD).contains(time))
        .ok_or_else(|| "expected a time from 1s to 100 years, for example 5m or 400d".into())
}

/// A log filter: levels, and targets with theirs. A word that is no level would be taken for a target,
/// and silence everything else.
pub fn log_filter(text: &str) -> Result<String, Expected> {
    let expected = "expected a log filter, for example info or tollgate=debug";
    let levels = ["off", "error", "warn", "info", "debug", "trace", "0", "1", "2", "3", "4", "5"];
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let word = part.chars().all(|c| c.is_ascii_alphanumeric());
        if word && part != "tollgate" && !levels.contains(&part.to_ascii_lowercase().as_str()) {
            return Err(format!(
                "{expected}; {part} is none of the levels {}",
                levels[..6].join(", ")
            ));
        }
    }
    match text.parse::<tracing_subscriber::EnvFilter>() {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("{expected}: {error}")),
    }
}

/// A text as it may be shown: of a URL, without what stands before the host or behind the path, where
/// people put credentials. Where it is not clear which is which, nothing of either.
pub fn shown(text: &str) -> String {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), text),
    };
    let query = rest.find(['?', '#']);
    match (rest.rsplit_once('@'), query) {
        (None, None) => text.to_owned(),
        (None, Some(query)) => format!("{scheme}{}…", &rest[..query]),
        (Some((_, host)), None) => format!("{scheme}…@{host}"),
        (Some(_), Some(_)) => format!("{scheme}…"),
    }
}

/// Bytes, with or without a binary unit.
pub fn bytes(text: &str) -> Result<usize, Expected> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: Option<usize> = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => Some(1),
        "k" | "kb" | "kib" => Some(1 << 10),
        "m" | "mb" | "mib" => Some(1 << 20),
        "g" | "gb" | "gib" => Some(1 << 30),
        _ => None,
    };
    unit.and_then(|unit| digits.trim().parse::<usize>().ok()?.checked_mul(unit))
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| "expected a size, for example 512KiB or 1MiB".into())
}

pub fn address(text: &str) -> Result<SocketAddr, Expected> {
    text.trim().parse().map_err(|_| {
        "expected an address and a port, for example 127.0.0.1:8080 or 0.0.0.0:8080".into()
    })
}

/// A share of all, from 0 to 1.
pub fn share(text: &str) -> Result<f64, Expected> {
    let share = text.trim().parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "expected a share from 0 to 1, for example 0.1".into())
}

/// The base of a collector's addresses. Credentials have a setting of their own, which is secret.
pub fn collector(text: &str) -> Result<Url, Expected> {
    let url: Option<Url> = text.trim().parse().ok();
    let usable = |url: &Url| {
        ["http", "https"].contains(&url.scheme())
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
    };
    url.filter(usable).ok_or_else(|| {
        "expected a URL, for example http://localhost:4318; credentials go into otlp_headers".into()
    })
}

/// The base of an API's addresses, without a path: https, or http to this machine itself, since a key
/// goes with each request.
pub fn api_base(text: &str) -> Result<Url, Expected> {
    let url: Option<Url> = text.trim().parse().ok();
    let local = |url: &Url| matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    let usable = |url: &Url| {
        (url.scheme() == "https" || (url.scheme() == "http" && local(url)))
            && url.username().is_empty()
            && url.password().is_none()
            && url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none()
    };
    url.filter(usable).ok_or_else(|| {
        "expected https://host without a path; http:// only to localhost, for tests".into()
    })
}

/// A number of requests per second.
pub fn rate(text: &str) -> Result<f64, Expected> {
    let rate = text.trim().parse().ok().filter(|rate| (0.1..=10_000.0).contains(rate));
    rate.ok_or_else(|| "expected requests per second from 0.1 to 10000, for example 20".into())
}

/// Headers as in `a=1,b=2`, values percent-encoded
/// (<https://opentelemetry.io/docs/specs/otel/protocol/exporter/>).
pub fn headers(text: &str) -> Result<HeaderMap, Expected> {
    let header = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        let value = percent_decode_str(value.trim()).collect::<Vec<_>>();
        let mut value = HeaderValue::from_bytes(&value).ok()?;
        value.set_sensitive(true);
        Some((name.trim().parse::<HeaderName>().ok()?, value))
    };
    let pairs = text.split(',').filter(|pair| !pair.trim().is_empty());
    pairs
        .map(header)
        .collect::<Option<_>>()
        .ok_or_else(|| "expected headers as in api-key=…,x-team=billing".into())
}

/// A secret's text: itself, or what stands in the file that `file:` names.
pub fn secret_text(text: &str) -> Result<String, Expected> {
    match text.trim().strip_prefix("file:") {
        Some(path) => std::fs::read_to_string(Path::new(path))
            .map(|content| content.trim().to_owned())
            .map_err(|error| format!("names the file {path}, which cannot be read: {error}")),
        None => Ok(text.trim().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_take_binary_units() {
        assert_eq!(bytes("1MiB"), Ok(1 << 20));
        assert_eq!(bytes("64 kb"), Ok(64 << 10));
        assert_eq!(bytes("100"), Ok(100));
        for bad in ["", "0", "MiB", "1TiB", "-1", "99999999999999999999", "1.5MiB", "1é"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_keep_within_their_bounds() {
        assert_eq!(whole("5", 1, 9), Ok(5));
        assert_eq!(whole("0", 1, 9), Err("expected a whole number from 1 to 9".into()));
        assert!(whole("nine", 1, 9).is_err());
    }

    #[test]
    fn times_keep_within_what_can_be_added_up() {
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        assert_eq!(timeout("24h"), Ok(LONGEST_WAIT));
        assert!(timeout("0s").is_err() && timeout("25h").is_err());
        assert_eq!(period("400d"), Ok(Duration::from_hours(400 * 24)));
        for bad in ["500ms", "0s", "18446744073709551615s", "20000y", "soon", "-1s"] {
            assert!(period(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_slip_in_a_level_silences_nothing() {
        for good in
            ["info", "WARN", "tollgate", "info,sqlx=warn", "tollgate::sync=trace", "off", ""]
        {
            assert!(log_filter(good).is_ok(), "{good}");
        }
        for bad in ["warning", "info,nonsense", "tollgate=loud", "verbose"] {
            assert!(log_filter(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn credentials_of_urls_are_not_shown() {
        assert_eq!(shown("info"), "info");
        assert_eq!(shown("https://x.example/otlp"), "https://x.example/otlp");
        assert_eq!(shown("https://u:p@ss@x.example/a"), "https://…@x.example/a");
        assert_eq!(shown("https://x.example/a?key=b"), "https://x.example/a…");
        assert_eq!(shown("https://x.example/#b"), "https://x.example/…");
        assert_eq!(shown("u:p@x.example:4318"), "…@x.example:4318");
        for text in ["https://u:p?w@x/y", "https://x/y?to=a@b", "https://u:p#w@x"] {
            assert_eq!(shown(text), "https://…");
        }
    }

    #[test]
    fn collectors_are_urls_without_credentials() {
        assert!(collector(" https://otlp.example.com:4318/otlp ").is_ok());
        for bad in
            ["", "localhost:4318", "grpc://x:4317", "http://a:b@x", "http://x?k=v", "http://"]
        {
            assert!(collector(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn headers_are_pairs_and_never_shown() {
        let good = headers("Api-Key=s3cret%3D%20x, x-team = billing ,").unwrap();
        assert_eq!(
            (&good["api-key"], &good["x-team"]),
            (&"s3cret= x".parse().unwrap(), &"billing".parse().unwrap())
        );
        assert!(!format!("{good:?}").contains("s3cret"), "{good:?}");
        for bad in ["key", "a b=c", "=x", "a=b%0Ac"] {
            assert!(headers(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn shares_lie_between_nothing_and_all() {
        assert_eq!((share("0"), share(" 0.25"), share("1.0")), (Ok(0.0), Ok(0.25), Ok(1.0)));
        for bad in ["", "-0.1", "1.1", "NaN", "inf", "half"] {
            assert!(share(bad).is_err(), "{bad}");
        }
    }
}
