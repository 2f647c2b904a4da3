//! What can go wrong with a request of the admin listener, and how each looks on the wire: a problem
//! for programs. Pages show their own.

use actix_web::error::ResponseError;
use actix_web::http::StatusCode;
use actix_web::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::web::{FormConfig, JsonConfig, PathConfig, QueryConfig};
use actix_web::{HttpRequest, HttpResponse};
use sqlx::postgres::PgDatabaseError;

use super::access::Scope;
use crate::http::problem::problem;

/// Why a request is not done.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error("a valid token is needed: Authorization: Bearer …, or log in")]
    Unauthorized,
    #[error("this needs a token with the scope {needed}")]
    Forbidden { needed: Scope },
    /// A page of somebody else's sent the browser here.
    #[error("this request does not come from a page of this gateway")]
    CrossSite,
    #[error("too many tries: wait a minute")]
    TooManyTries,
    #[error("there is no {0}")]
    NotFound(String),
    #[error("{0}")]
    Invalid(String),
    /// It is fine by itself, but not as things stand.
    #[error("{0}")]
    Conflict(String),
    #[error("the database does not answer: {0}")]
    Database(sqlx::Error),
    #[error("something went wrong here: the log says more")]
    Internal,
}

impl AdminError {
    /// Stable, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unauthorized => "unauthorized",
            Self::Forbidden { .. } => "forbidden",
            Self::CrossSite => "cross_site",
            Self::TooManyTries => "too_many_tries",
            Self::NotFound(_) => "not_found",
            Self::Invalid(_) => "invalid",
            Self::Conflict(_) => "conflict",
            Self::Database(_) => "database_unavailable",
            Self::Internal => "internal",
        }
    }
}

impl From<sqlx::Error> for AdminError {
    /// What the database says about the request is the requester's; everything else is ours.
    fn from(error: sqlx::Error) -> Self {
        let Some(answer) = error.as_database_error() else {
            return Self::Database(error);
        };
        let code = answer.code().unwrap_or_default().into_owned();
        let hint = answer.try_downcast_ref::<PgDatabaseError>().and_then(PgDatabaseError::hint);
        let words = match hint {
            Some(hint) => format!("{} ({})", answer.message(), hint.trim_end_matches('.')),
            None => answer.message().to_owned(),
        };
        match code.as_str() {
            // From migrations/0006 to 0008: no such consumer; no such claim; settled; not as it is now.
            "TG010" => Self::NotFound(words.trim_start_matches("there is no ").to_owned()),
            "TG011" | "TG012" | "TG013"
            // Unique violation, duplicate object, object in use, in a wrong state.
            | "23505" | "42710" | "55006" | "25000" => Self::Conflict(words),
            code if ["22", "23", "42"].iter().any(|class| code.starts_with(class)) => {
                Self::Invalid(words)
            }
            _ => Self::Database(error),
        }
    }
}

impl ResponseError for AdminError {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden { .. } | Self::CrossSite => StatusCode::FORBIDDEN,
            Self::TooManyTries => StatusCode::TOO_MANY_REQUESTS,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Invalid(_) => StatusCode::BAD_REQUEST,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::Database(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn error_response(&self) -> HttpResponse {
        let status = self.status_code();
        let mut response = HttpResponse::build(status);
        match self {
            Self::Unauthorized => {
                response.insert_header((WWW_AUTHENTICATE, r#"Bearer realm="tollgate""#));
            }
            Self::TooManyTries => {
                response.insert_header((RETRY_AFTER, "60"));
            }
            Self::Database(_) => {
                response.insert_header((RETRY_AFTER, "5"));
            }
            _ => {}
        }
        problem(response, status, self.code(), &self.to_string())
    }
}

/// The answer to a path that is not served.
pub async fn not_found(request: HttpRequest) -> HttpResponse {
    AdminError::NotFound(format!("page {}", request.path())).error_response()
}

fn invalid(error: impl std::fmt::Display) -> actix_web::Error {
    AdminError::Invalid(error.to_string()).into()
}

pub fn form_config(limit: usize) -> FormConfig {
    FormConfig::default().limit(limit).error_handler(|error, _| invalid(error))
}

pub fn json_config(limit: usize) -> JsonConfig {
    JsonConfig::default().limit(limit).error_handler(|error, _| invalid(error))
}

pub fn query_config() -> QueryConfig {
    QueryConfig::default().error_handler(|error, _| invalid(error))
}

pub fn path_config() -> PathConfig {
    PathConfig::default().error_handler(|error, _| invalid(error))
}
