//! Reads one setting's text as the type it stands for. Errors are the second half of a sentence
//! that begins with the value: what it should have been.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

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

pub fn duration(text: &str) -> Result<Duration, Expected> {
    humantime::parse_duration(text.trim())
        .map_err(|_| "expected a time, for example 500ms, 30s or 5m".into())
}

/// A time that must not be zero.
pub fn timeout(text: &str) -> Result<Duration, Expected> {
    duration(text).and_then(|time| {
        if time.is_zero() {
            Err("expected a time longer than nothing, for example 10s".into())
        } else {
            Ok(time)
        }
    })
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
}
