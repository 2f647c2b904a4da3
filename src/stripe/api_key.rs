//! A key to Stripe's API: what it tells of itself, and nothing else of it to anybody but Stripe.
//! Requests are made by `sync::client`.

use std::fmt;
use std::str::FromStr;

/// A secret or restricted key, `sk_…` or `rk_…` (<https://docs.stripe.com/keys>).
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

/// Why a text is no key to the API. Says nothing of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiKeyError {
    #[error("expected a secret or restricted key, sk_… or rk_…")]
    Unusable,
    #[error("this is a publishable key (pk_…), which may ask for nothing; expected sk_… or rk_…")]
    Publishable,
    #[error("this is a webhook's signing secret (whsec_…); expected an API key, sk_… or rk_…")]
    SigningSecret,
}

impl FromStr for ApiKey {
    type Err = ApiKeyError;

    fn from_str(text: &str) -> Result<Self, ApiKeyError> {
        let text = text.trim();
        if text.starts_with("pk_") {
            Err(ApiKeyError::Publishable)
        } else if text.starts_with("whsec_") {
            Err(ApiKeyError::SigningSecret)
        } else if text.len() >= 8 && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ApiKeyError::Unusable)
        }
    }
}

impl ApiKey {
    /// Whether it opens live data; a key opens one mode only, and names it.
    pub fn livemode(&self) -> bool {
        self.0.contains("_live_")
    }

    /// The key, for the header of a request.
    pub fn secret(&self) -> &str {
        &self.0
    }

    /// A text from outside without the key, should somebody have put it there.
    pub fn scrubbed(&self, text: &str) -> String {
        text.replace(&self.0, "…")
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_name_their_mode_and_show_nothing() {
        let live: ApiKey = " rk_live_abcdef\n".parse().unwrap();
        let test: ApiKey = "sk_test_abcdef".parse().unwrap();
        assert_eq!((live.livemode(), test.livemode()), (true, false));
        assert_eq!(format!("{live:?}"), "ApiKey(…)");
        assert_eq!(test.scrubbed("Invalid API Key: sk_test_abcdef"), "Invalid API Key: …");
    }

    #[test]
    fn what_is_no_key_is_told_apart() {
        for (text, why) in [
            ("", ApiKeyError::Unusable),
            ("sk_test_ab cd", ApiKeyError::Unusable),
            ("pk_live_abcdef", ApiKeyError::Publishable),
            ("whsec_abcdef", ApiKeyError::SigningSecret),
        ] {
            assert_eq!(text.parse::<ApiKey>().unwrap_err(), why);
        }
    }
}
