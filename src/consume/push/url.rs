//! The URL of a push target: what one may be, and how it is shown.
//! Whether its host may be reached is the guard's affair.

use std::fmt;
use std::str::FromStr;

use reqwest::Url;

/// Longest URL, in bytes: what browsers and proxies agree on.
const URL_MAX: usize = 2048;

/// Where pushes go to. Shows neither user and password nor the query, in which tokens are found;
/// [`PushUrl::expose`] does.
#[derive(Clone, PartialEq, Eq)]
pub struct PushUrl(Url);

/// Why a text is no URL to push to. Never shows the text, which may hold a password.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PushUrlError {
    #[error("the URL is {0} bytes long; at most {URL_MAX} are allowed")]
    TooLong(usize),
    /// The parser's reason.
    #[error("not a URL ({0}); expected one like https://app.example.com/webhooks")]
    NotAUrl(String),
    #[error("the URL's scheme is {0}; pushes need http or https")]
    Scheme(String),
    #[error("the URL has no host")]
    NoHost,
    #[error("the URL has a fragment (#…), which is never sent to a server; leave it out")]
    Fragment,
}

impl FromStr for PushUrl {
    type Err = PushUrlError;

    fn from_str(text: &str) -> Result<Self, PushUrlError> {
        if text.len() > URL_MAX {
            return Err(PushUrlError::TooLong(text.len()));
        }
        let url: Url = text.parse().map_err(|error| PushUrlError::NotAUrl(format!("{error}")))?;
        if !["http", "https"].contains(&url.scheme()) {
            return Err(PushUrlError::Scheme(url.scheme().to_owned()));
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(PushUrlError::NoHost);
        }
        if url.fragment().is_some() {
            return Err(PushUrlError::Fragment);
        }
        Ok(Self(url))
    }
}

impl PushUrl {
    /// The URL with all its secrets.
    #[must_use]
    pub fn expose(&self) -> &Url {
        &self.0
    }

    /// Host and port, as a message names them.
    pub(super) fn authority(&self) -> String {
        let host = self.0.host_str().unwrap_or_default();
        let port = self.0.port_or_known_default().unwrap_or_default();
        format!("{host}:{port}")
    }

    /// Where a redirect leads, without its secrets.
    pub(super) fn joined(&self, location: &str) -> Option<Self> {
        self.0.join(location).ok().map(Self)
    }
}

impl fmt::Display for PushUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(url) = self;
        let user = if url.username().is_empty() && url.password().is_none() { "" } else { "…@" };
        let host = url.host_str().unwrap_or_default();
        write!(f, "{}://{user}{host}", url.scheme())?;
        if let Some(port) = url.port() {
            write!(f, ":{port}")?;
        }
        f.write_str(url.path())?;
        f.write_str(if url.query().is_some() { "?…" } else { "" })
    }
}

impl fmt::Debug for PushUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PushUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> PushUrlError {
        text.parse::<PushUrl>().unwrap_err()
    }

    #[test]
    fn what_cannot_be_pushed_to_is_refused() {
        assert_eq!(refusal("ftp://example.com/"), PushUrlError::Scheme("ftp".to_owned()));
        assert_eq!(refusal("mailto:a@example.com"), PushUrlError::Scheme("mailto".to_owned()));
        assert_eq!(refusal("https://example.com/#top"), PushUrlError::Fragment);
        assert_eq!(refusal("https://example.com/#"), PushUrlError::Fragment);
        for text in ["", "example.com", "/hook", "https://", "https://a:pa ss@", "http://[::1"] {
            assert!(matches!(refusal(text), PushUrlError::NotAUrl(_)), "{text}");
        }
        let longest = format!("https://example.com/{}", "a".repeat(URL_MAX - 20));
        assert!(longest.parse::<PushUrl>().is_ok());
        assert_eq!(refusal(&format!("{longest}a")), PushUrlError::TooLong(URL_MAX + 1));
    }

    #[test]
    fn neither_password_nor_query_is_shown() {
        let url: PushUrl = "https://ann:s3cret@Example.com:8443/hook?token=s3cret".parse().unwrap();
        assert_eq!(url.to_string(), "https://…@example.com:8443/hook?…");
        assert_eq!(format!("{url:?}"), "PushUrl(https://…@example.com:8443/hook?…)");
        assert_eq!(url.expose().password(), Some("s3cret"));
        assert_eq!(url.authority(), "example.com:8443");
        for text in ["https://s3cret@host:x/", "https://ann:s3cret@/", "x://ann:s3cret@host/"] {
            assert!(!format!("{0} {0:?}", refusal(text)).contains("s3cret"), "{text}");
        }
    }
}
