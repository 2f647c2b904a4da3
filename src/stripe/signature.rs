//! Stripe's webhook signature: header grammar, signing, verification.
//! Knows nothing of HTTP or of where secrets come from.
//!
//! The scheme is documented at <https://docs.stripe.com/webhooks/signature>: the header reads
//! `t=<unix seconds>,v1=<hex>[,v1=<hex>…]`, each `v1` an HMAC-SHA256 of `"{t}.{raw body}"` under
//! the whole `whsec_…` string. Where Stripe's SDKs differ, this accepts what all of them accept
//! and refuses what any of them refuses for security's sake.

use std::fmt;
use std::slice;
use std::str::FromStr;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Bytes of an HMAC-SHA256.
const MAC_LEN: usize = 32;

/// Largest body for which a failed match is examined further, in bytes. Looking for the reason
/// costs a JSON parse, which an unauthenticated sender must not be able to buy cheaply.
const EXAMINED_BODY_MAX: usize = 64 * 1024;

/// An endpoint's signing secret. Holds only the keyed hash state: the text cannot leak from here.
#[derive(Clone)]
pub struct SigningSecret(Hmac<Sha256>);

/// Why a text is no signing secret.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SecretError {
    /// Nothing but white space.
    #[error("the signing secret is empty")]
    Empty,
    /// White space inside: most often two secrets pasted together.
    #[error("the signing secret contains white space")]
    WhiteSpace,
}

impl FromStr for SigningSecret {
    type Err = SecretError;

    /// Takes the whole text as the key, `whsec_` prefix included, as Stripe does.
    fn from_str(text: &str) -> Result<Self, SecretError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(SecretError::Empty);
        }
        if text.chars().any(char::is_whitespace) {
            return Err(SecretError::WhiteSpace);
        }
        let keyed = Hmac::new_from_slice(text.as_bytes()).expect("HMAC takes keys of any length");
        Ok(Self(keyed))
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningSecret(…)")
    }
}

impl SigningSecret {
    fn keyed(&self, timestamp: i64, body: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        mac.update(timestamp.to_string().as_bytes());
        mac.update(b".");
        mac.update(body);
        mac
    }

    /// The value of a `Stripe-Signature` header for `body`, signed at `timestamp` (Unix seconds).
    #[must_use]
    pub fn sign(&self, timestamp: i64, body: &[u8]) -> String {
        sign_with_all(slice::from_ref(self), timestamp, body)
    }
}

/// The value of a `Stripe-Signature` header with a `v1` for each of the secrets, as Stripe sends it
/// while one is being rolled.
#[must_use]
pub fn sign_with_all(secrets: &[SigningSecret], timestamp: i64, body: &[u8]) -> String {
    let mut header = format!("t={timestamp}");
    for secret in secrets {
        header += ",v1=";
        header += &hex::encode(secret.keyed(timestamp, body).finalize().into_bytes());
    }
    header
}

/// How far a signature's timestamp may lie from now, in seconds, either way.
/// Stripe's SDKs default to 300.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tolerance(pub u32);

impl Default for Tolerance {
    fn default() -> Self {
        Self(300)
    }
}

/// What the sender got wrong. Each has a stable code in [`SignatureError::code`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SignatureError {
    /// No `Stripe-Signature` header.
    #[error(
        "the request has no Stripe-Signature header: it does not come from Stripe, or a proxy removed the header"
    )]
    Missing,
    /// The header is there, but no timestamp can be read from it.
    #[error("the Stripe-Signature header is malformed: it must read t=<unix seconds>,v1=<hex>")]
    Malformed,
    /// A timestamp, but no well-formed signature of scheme `v1`.
    #[error("the Stripe-Signature header holds no v1 signature of 64 hexadecimal digits")]
    NoV1,
    /// The signature is right, and older than the tolerance.
    #[error(
        "the signature is right but its timestamp is {age} s old, and the tolerance is {tolerance} s: a replayed request, a very slow proxy, or this machine's clock is ahead"
    )]
    TooOld { age: i64, tolerance: u32 },
    /// The signature is right, and further in the future than the tolerance.
    #[error(
        "the signature is right but its timestamp lies {ahead} s in the future, and the tolerance is {tolerance} s: this machine's clock is behind"
    )]
    InFuture { ahead: i64, tolerance: u32 },
    /// No `v1` matches any secret.
    #[error(
        "no v1 signature matches: the signing secret is not this endpoint's (each endpoint, and each `stripe listen`, has its own), or the body was altered on its way"
    )]
    NoMatch,
    /// No `v1` matches, but one would if the body had not been altered.
    #[error(
        "no v1 signature matches, but the secret is right: {0} on the way; forward the raw bytes"
    )]
    Altered(Alteration),
}

/// What was done to a body whose signature would match without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Alteration {
    /// Trailing white space was added or removed.
    #[error("trailing white space was added or removed")]
    WhiteSpace,
    /// The JSON was parsed and written out again.
    #[error("the JSON was parsed and written out again")]
    Reserialized,
}

impl SignatureError {
    /// A stable, machine-readable name for the answer and the metrics.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing => "signature_missing",
            Self::Malformed => "signature_malformed",
            Self::NoV1 => "signature_no_v1",
            Self::TooOld { .. } => "timestamp_too_old",
            Self::InFuture { .. } => "timestamp_in_future",
            Self::NoMatch => "signature_mismatch",
            Self::Altered(_) => "body_altered",
        }
    }
}

/// A parsed `Stripe-Signature` header.
#[derive(Debug, PartialEq, Eq)]
pub struct SignatureHeader {
    timestamp: i64,
    candidates: Vec<[u8; MAC_LEN]>,
}

impl FromStr for SignatureHeader {
    type Err = SignatureError;

    /// Items in any order; the first `t` counts; schemes other than `v1` (also `v0`, which Stripe
    /// fakes in test mode) are ignored; a `v1` that is not 64 hexadecimal digits is skipped.
    fn from_str(header: &str) -> Result<Self, SignatureError> {
        let mut timestamp = None;
        let mut candidates = Vec::new();
        for item in header.split(',') {
            let Some((scheme, value)) = item.trim().split_once('=') else {
                continue;
            };
            match scheme {
                "t" if timestamp.is_none() => timestamp = Some(unix_seconds(value)?),
                "v1" => {
                    let mut mac = [0; MAC_LEN];
                    if hex::decode_to_slice(value, &mut mac).is_ok() {
                        candidates.push(mac);
                    }
                }
                _ => {}
            }
        }
        let timestamp = timestamp.ok_or(SignatureError::Malformed)?;
        if candidates.is_empty() {
            return Err(SignatureError::NoV1);
        }
        Ok(Self { timestamp, candidates })
    }
}

/// Digits only: Rust's own parser would also take a sign.
fn unix_seconds(text: &str) -> Result<i64, SignatureError> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        text.parse().map_err(|_| SignatureError::Malformed)
    } else {
        Err(SignatureError::Malformed)
    }
}

impl SignatureHeader {
    /// Checks the header against the exact bytes received. Any secret and any `v1` may match,
    /// as Stripe sends one `v1` per secret while one is being rolled.
    ///
    /// `now` is in Unix seconds. The signature is checked before the timestamp, so that a wrong
    /// secret is never reported as a stale clock.
    ///
    /// # Errors
    /// Says which of the two failed, and why as far as that can be told.
    pub fn verify(
        &self,
        body: &[u8],
        secrets: &[SigningSecret],
        now: i64,
        tolerance: Tolerance,
    ) -> Result<(), SignatureError> {
        if !self.matches(body, secrets) {
            return Err(self
                .alteration(body, secrets)
                .map_or(SignatureError::NoMatch, SignatureError::Altered));
        }
        let age = now.saturating_sub(self.timestamp);
        let limit = i64::from(tolerance.0);
        if age > limit {
            return Err(SignatureError::TooOld { age, tolerance: tolerance.0 });
        }
        if age < -limit {
            return Err(SignatureError::InFuture {
                ahead: age.saturating_neg(),
                tolerance: tolerance.0,
            });
        }
        Ok(())
    }

    /// Compares in constant time, every candidate with every secret.
    fn matches(&self, body: &[u8], secrets: &[SigningSecret]) -> bool {
        secrets.iter().any(|secret| {
            let mac = secret.keyed(self.timestamp, body);
            self.candidates.iter().any(|candidate| mac.clone().verify_slice(candidate).is_ok())
        })
    }

    /// Looks for an innocent change that explains a mismatch. The body stays refused either way.
    fn alteration(&self, body: &[u8], secrets: &[SigningSecret]) -> Option<Alteration> {
        if body.len() > EXAMINED_BODY_MAX {
            return None;
        }
        let trimmed = body.trim_ascii_end();
        let mut with_newline = trimmed.to_vec();
        with_newline.push(b'\n');
        if self.matches(trimmed, secrets) || self.matches(&with_newline, secrets) {
            return Some(Alteration::WhiteSpace);
        }
        let value: serde_json::Value = serde_json::from_slice(body).ok()?;
        let pretty = serde_json::to_vec_pretty(&value).ok()?;
        let compact = serde_json::to_vec(&value).ok()?;
        (self.matches(&pretty, secrets) || self.matches(&compact, secrets))
            .then_some(Alteration::Reserialized)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> SigningSecret {
        text.parse().unwrap()
    }

    fn check(header: &str, body: &[u8], now: i64) -> Result<(), SignatureError> {
        header.parse::<SignatureHeader>()?.verify(
            body,
            &[secret("whsec_a"), secret("whsec_b")],
            now,
            Tolerance(300),
        )
    }

    #[test]
    fn either_secret_of_a_rolled_endpoint_matches() {
        for text in ["whsec_a", "whsec_b"] {
            let header = secret(text).sign(1000, b"{}");
            assert_eq!(check(&header, b"{}", 1000), Ok(()));
        }
        let header = secret("whsec_c").sign(1000, b"{}");
        assert_eq!(check(&header, b"{}", 1000), Err(SignatureError::NoMatch));
    }

    #[test]
    fn the_tolerance_holds_both_ways_and_to_the_second() {
        let header = secret("whsec_a").sign(1000, b"{}");
        for now in [700, 1000, 1300] {
            assert_eq!(check(&header, b"{}", now), Ok(()));
        }
        assert_eq!(
            check(&header, b"{}", 1301),
            Err(SignatureError::TooOld { age: 301, tolerance: 300 })
        );
        assert_eq!(
            check(&header, b"{}", 699),
            Err(SignatureError::InFuture { ahead: 301, tolerance: 300 })
        );
    }

    #[test]
    fn an_innocent_change_of_the_body_is_named_and_still_refused() {
        let pretty = b"{\n  \"id\": \"evt_1\",\n  \"b\": [\n    1\n  ]\n}";
        let header = secret("whsec_a").sign(1000, pretty);
        let altered = |body: &[u8]| check(&header, body, 1000);
        let with_newline = [pretty.as_slice(), b"\n"].concat();
        assert_eq!(altered(&with_newline), Err(SignatureError::Altered(Alteration::WhiteSpace)));
        assert_eq!(
            altered(b"{\"id\":\"evt_1\",\"b\":[1]}"),
            Err(SignatureError::Altered(Alteration::Reserialized))
        );
        assert_eq!(altered(b"{\"id\":\"evt_2\",\"b\":[1]}"), Err(SignatureError::NoMatch));
    }

    #[test]
    fn debug_shows_no_secret() {
        assert_eq!(format!("{:?}", secret("whsec_topsecret")), "SigningSecret(…)");
    }
}
