//! Why Stripe's API did not give what was asked for, and why a duty of `sync` was not done.

use crate::ingest::error::NotWritten;
use crate::store::StoreError;

/// An answer that is none, or a no.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("Stripe does not know the API key, or it was revoked: {0}")]
    Unauthorized(Said),
    #[error("the API key may not do this, or the account is not connected (any more): {0}")]
    Forbidden(Said),
    #[error("Stripe has no such thing: {said}")]
    NotFound {
        said: Said,
        /// As of an answer: the second, on Stripe's clock, in which it looked, or an earlier one.
        second: time::OffsetDateTime,
    },
    #[error("Stripe refused the request: {0}")]
    Refused(Said),
    #[error("Stripe's API did not answer usably, in {attempts} attempts: {why}")]
    Unavailable { attempts: u32, why: String },
    #[error("this is not Stripe's API: {0}")]
    NotStripe(String),
    #[error("Stripe's list {0} does not end: the same page came again")]
    Endless(String),
    #[error("the gateway is shutting down")]
    Stopped,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ApiError {
    /// Whether it is about the account, list or object that was asked for: others may fare better.
    pub fn is_about_asked(&self) -> bool {
        matches!(
            self,
            Self::Forbidden(_) | Self::NotFound { .. } | Self::Refused(_) | Self::Endless(_)
        )
    }

    /// Whether Stripe says that something that was named is not there: the object itself, or a cursor.
    pub fn is_missing(&self) -> bool {
        let (Self::NotFound { said, .. } | Self::Refused(said)) = self else { return false };
        // The second is what the API's second version says.
        matches!(said.code.as_deref(), Some("resource_missing" | "not_found"))
    }

    /// When Stripe looked, if it says that there is no such object. Not if there is one in the other
    /// mode, or that there is no such path.
    pub fn gone(&self) -> Option<time::OffsetDateTime> {
        match self {
            Self::NotFound { said, second } => {
                let here = self.is_missing() && !said.message.contains(" mode");
                here.then_some(*second)
            }
            _ => None,
        }
    }
}

impl From<sqlx::Error> for ApiError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// What Stripe says with an error.
#[derive(Clone, Debug, Default)]
pub struct Said {
    pub status: u16,
    /// Stripe's own code, `resource_missing` for example.
    pub code: Option<String>,
    pub message: String,
    /// What Stripe's support asks for.
    pub request_id: Option<String>,
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { status, code, message, request_id } = self;
        write!(f, "{status}")?;
        if let Some(code) = code {
            write!(f, " {code}")?;
        }
        if !message.is_empty() {
            write!(f, ", {message}")?;
        }
        match request_id {
            Some(id) => write!(f, " ({id})"),
            None => Ok(()),
        }
    }
}

/// Why a duty was not done, or not to its end. What was done until then stays.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error("an event could not be written: {0}")]
    NotWritten(#[from] NotWritten),
    #[error("another process is doing this now")]
    Busy,
    #[error("{0}")]
    Wrong(String),
}

impl SyncError {
    /// As of [`ApiError::is_about_asked`].
    pub fn is_about_asked(&self) -> bool {
        matches!(self, Self::Api(error) if error.is_about_asked())
    }

    /// Whether Stripe gave no usable answer, to this or to everything.
    pub fn is_silence(&self) -> bool {
        matches!(self, Self::Api(ApiError::Unavailable { .. }))
    }
}

impl From<StoreError> for SyncError {
    fn from(error: StoreError) -> Self {
        Self::Api(error.into())
    }
}
