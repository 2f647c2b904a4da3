//! Why a delivery is not answered with 2xx. The status of each is chosen in `http::problem`.

use std::time::Duration;

use crate::stripe::signature::SignatureError;

/// Why a delivery was refused. Nothing of it was stored.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    #[error(
        "no endpoint of this name is configured: the paths are /webhooks/stripe for the endpoint named default, and /webhooks/stripe/NAME for each in the configuration file"
    )]
    UnknownEndpoint,
    #[error("the body is larger than {limit} bytes")]
    BodyTooLarge { limit: usize },
    #[error("the body did not arrive within {0:?}")]
    BodyTimeout(Duration),
    #[error("the connection ended, or its framing broke, before the body was complete")]
    BodyIncomplete,
    #[error(transparent)]
    Signature(#[from] SignatureError),
    #[error(transparent)]
    NotWritten(#[from] NotWritten),
}

impl IngestError {
    /// A stable, machine-readable name for answers, logs and metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownEndpoint => "endpoint_unknown",
            Self::BodyTooLarge { .. } => "body_too_large",
            Self::BodyTimeout(_) => "body_timeout",
            Self::BodyIncomplete => "body_incomplete",
            Self::Signature(error) => error.code(),
            Self::NotWritten(error) => error.code(),
        }
    }
}

/// Why a good event could not be written now. Stripe sends it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotWritten {
    #[error("too many events are waiting to be written")]
    QueueFull,
    #[error("the gateway is shutting down")]
    ShuttingDown,
    #[error("the database did not take the event in time")]
    Database,
    #[error("a handler with the policy reject failed")]
    Rejected,
}

impl NotWritten {
    pub fn code(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::ShuttingDown => "shutting_down",
            Self::Database => "database_unavailable",
            Self::Rejected => "handler_rejected",
        }
    }
}
