//! Where a NATS server is and how to log in there: `nats://user:password@host:4222`.
//! Never shows what is secret of it. Connecting is `connection`'s.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use async_nats::ServerAddr;
use percent_encoding::percent_decode_str;
use reqwest::Url;

/// The port if none is named; NATS's own default.
const PORT: u16 = 4222;

/// The address of a NATS server, with what is needed to log in. Neither `Debug` nor `Display` shows
/// more than scheme, host and port.
#[derive(Clone, PartialEq, Eq)]
pub struct NatsUrl {
    /// Without the login: the client library writes addresses to its log.
    pub(super) server: ServerAddr,
    pub(super) login: Login,
}

/// How to log in.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Login {
    Open,
    Token(String),
    Password {
        user: String,
        password: String,
    },
    /// A file as `nsc` writes it: a JWT and a key's seed.
    Credentials(PathBuf),
}

/// Why a text is no address of a NATS server. Does not repeat the text, which may hold a password.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum NatsUrlError {
    /// No URL at all, or a bad port.
    #[error("it is no URL of the form nats://host:4222")]
    Malformed,
    /// A scheme that is not spoken here.
    #[error("it begins with neither nats:// nor tls://")]
    Scheme,
    #[error("it names no host")]
    Host,
    /// The percent-encoded user, password or path is no UTF-8.
    #[error("its user, password or path is not UTF-8")]
    Encoding,
    /// Something that would be ignored.
    #[error("after the host only ?creds=/path/to/file is understood")]
    Rest,
    /// A user and a credentials file.
    #[error("it has both a user or token and ?creds=")]
    TwoLogins,
}

impl FromStr for NatsUrl {
    type Err = NatsUrlError;

    /// Takes `nats://` and `tls://` (TLS required), a host, a port (4222 if none), and one login:
    /// `user:password@`, `token@` or `?creds=/path`, percent-encoded where needed.
    fn from_str(text: &str) -> Result<Self, NatsUrlError> {
        let url: Url = text.trim().parse().map_err(|_| NatsUrlError::Malformed)?;
        if !["nats", "tls"].contains(&url.scheme()) {
            return Err(NatsUrlError::Scheme);
        }
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or(NatsUrlError::Host)?;
        let port = url.port().unwrap_or(PORT);
        let server = format!("{}://{host}:{port}", url.scheme());
        let server = server.parse().map_err(|_| NatsUrlError::Malformed)?;
        Ok(Self { server, login: Login::of(&url)? })
    }
}

impl Login {
    fn of(url: &Url) -> Result<Self, NatsUrlError> {
        if !["", "/"].contains(&url.path()) || url.fragment().is_some() {
            return Err(NatsUrlError::Rest);
        }
        let creds = match url.query() {
            Some(query) => Some(query.strip_prefix("creds=").ok_or(NatsUrlError::Rest)?),
            None => None,
        };
        let named = !url.username().is_empty() || url.password().is_some();
        match (creds, url.password()) {
            (Some(_), _) if named => Err(NatsUrlError::TwoLogins),
            (Some(""), _) => Err(NatsUrlError::Rest),
            (Some(path), _) => Ok(Self::Credentials(decoded(path)?.into())),
            (None, Some(password)) => {
                Ok(Self::Password { user: decoded(url.username())?, password: decoded(password)? })
            }
            (None, None) if named => Ok(Self::Token(decoded(url.username())?)),
            (None, None) => Ok(Self::Open),
        }
    }
}

fn decoded(text: &str) -> Result<String, NatsUrlError> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(String::from).map_err(|_| NatsUrlError::Encoding)
}

impl fmt::Display for NatsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.server.as_url_str())
    }
}

impl fmt::Debug for NatsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NatsUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::{Login, NatsUrl, NatsUrlError};

    fn login(text: &str) -> Login {
        text.parse::<NatsUrl>().unwrap().login
    }

    #[test]
    fn the_login_is_read_and_never_shown() {
        let password = Login::Password { user: "us er".to_owned(), password: "p@ss:/".to_owned() };
        assert!(login("nats://us%20er:p%40ss%3A%2F@host") == password);
        assert!(login("tls://s3cr%2Ft@host:1") == Login::Token("s3cr/t".to_owned()));
        assert!(
            login("nats://host?creds=/etc/a%20b.creds")
                == Login::Credentials("/etc/a b.creds".into())
        );
        assert!(login("nats://host/") == Login::Open);
        for text in ["nats://us:s3cret@host:99", "nats://s3cret@host:99"] {
            let url: NatsUrl = text.parse().unwrap();
            assert_eq!(format!("{url} {url:?}"), "nats://host:99 NatsUrl(nats://host:99)");
        }
    }

    #[test]
    fn port_and_hosts_of_all_kinds() {
        let shown = |text: &str| text.parse::<NatsUrl>().unwrap().to_string();
        assert_eq!(shown("nats://nats.example"), "nats://nats.example:4222");
        assert_eq!(shown(" tls://10.0.0.1:1 \n"), "tls://10.0.0.1:1");
        assert_eq!(shown("nats://[::1]:5"), "nats://[::1]:5");
    }

    #[test]
    fn what_is_no_address_is_refused_without_repeating_it() {
        let cases = [
            ("", NatsUrlError::Malformed),
            ("nats://user:s3cret@host:notaport", NatsUrlError::Malformed),
            ("localhost:4222", NatsUrlError::Scheme),
            ("https://s3cret@host", NatsUrlError::Scheme),
            ("nats:s3cret", NatsUrlError::Host),
            ("nats:///s3cret", NatsUrlError::Host),
            ("nats://us%FFer:s3cret@host", NatsUrlError::Encoding),
            ("nats://host/s3cret", NatsUrlError::Rest),
            ("nats://host#s3cret", NatsUrlError::Rest),
            ("nats://host?token=s3cret", NatsUrlError::Rest),
            ("nats://host?creds=", NatsUrlError::Rest),
            ("nats://s3cret@host?creds=/a", NatsUrlError::TwoLogins),
        ];
        for (text, expected) in cases {
            let error = text.parse::<NatsUrl>().unwrap_err();
            assert_eq!(error, expected, "{text}");
            assert!(!format!("{error} {error:?}").contains("s3cret"));
        }
    }
}
