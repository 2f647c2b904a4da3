//! `/api/v1/tokens`, `/api/v1/audit`, `/api/v1/whoami`: who may do what, and who did.

use actix_web::web::{Data, Json, Path, Payload, Query};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};

use super::super::{Admin, AdminError, AdminOnly, Read, actions};
use super::Problems;
use super::ask::{body, page};
use super::consumers::Done;
use crate::store::audit;
use crate::store::tokens::{self, Holder, Scope, TokenLine};

/// Whose token a request came with.
#[derive(Debug, Serialize, ToSchema)]
pub struct Who {
    #[schema(example = "mailer")]
    pub name: String,
    /// read, operate or admin.
    #[schema(example = "read")]
    pub scope: &'static str,
}

/// Whose token this is, and what it allows.
#[utoipa::path(get, path = "/api/v1/whoami", tag = "access",
    responses((status = 200, description = "You", body = Who), Problems))]
pub async fn whoami(Read(who): Read) -> Json<Who> {
    Json(Who { name: who.name, scope: who.scope.as_str() })
}

/// A token, without its text, which is not kept.
#[derive(Debug, Serialize, ToSchema)]
pub struct Token {
    pub name: String,
    pub scope: &'static str,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    pub created_by: String,
    #[serde(with = "time::serde::rfc3339::option")]
    pub expires_at: Option<OffsetDateTime>,
    /// When it was last used, to the minute.
    #[serde(with = "time::serde::rfc3339::option")]
    pub used_at: Option<OffsetDateTime>,
}

impl From<TokenLine> for Token {
    fn from(line: TokenLine) -> Self {
        Self {
            name: line.name,
            scope: line.scope.as_str(),
            created_at: line.created_at,
            created_by: line.created_by,
            expires_at: line.expires_at,
            used_at: line.used_at,
        }
    }
}

/// The tokens, beside that of the settings.
#[utoipa::path(get, path = "/api/v1/tokens", tag = "access",
    responses((status = 200, description = "They", body = Vec<Token>), Problems))]
pub async fn list(_: AdminOnly, admin: Data<Admin>) -> Result<Json<Vec<Token>>, AdminError> {
    let listed = admin.transact(async |connection| Ok(tokens::list(connection).await?)).await?;
    Ok(Json(listed.into_iter().map(Token::from).collect()))
}

/// A token to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    #[schema(example = "grafana")]
    name: String,
    /// read, operate or admin.
    #[schema(example = "read")]
    scope: String,
    /// How long it is good for; for ever, unless said.
    days: Option<f64>,
}

/// A token that was made.
#[derive(Serialize, ToSchema)]
pub struct MadeToken {
    /// The token itself. It is not kept, and cannot be shown again.
    pub token: String,
}

/// Make a token.
#[utoipa::path(post, path = "/api/v1/tokens", tag = "access", request_body = NewToken,
    responses((status = 200, description = "It", body = MadeToken), Problems))]
pub async fn create(
    AdminOnly(who): AdminOnly,
    admin: Data<Admin>,
    payload: Payload,
) -> Result<Json<MadeToken>, AdminError> {
    let NewToken { name, scope, days } = body(payload).await?;
    let wrong = |why: &str| AdminError::Invalid(format!("scope: {why}"));
    let scope: Scope = scope.parse().map_err(wrong)?;
    let holder = Holder { name, scope };
    let token = admin.transact(async move |connection| {
        actions::create_token(connection, &who.name, &holder, days).await
    });
    Ok(Json(MadeToken { token: token.await? }))
}

/// Revoke a token, and end the sessions that were begun with it.
#[utoipa::path(delete, path = "/api/v1/tokens/{name}", tag = "access",
    params(("name" = String, Path, description = "Its name", example = "grafana")),
    responses((status = 200, description = "It is refused from now on", body = Done), Problems))]
pub async fn revoke(
    AdminOnly(who): AdminOnly,
    admin: Data<Admin>,
    name: Path<String>,
) -> Result<Json<Done>, AdminError> {
    let last = admin.access.last();
    let done = admin.transact(async move |connection| {
        actions::revoke_token(connection, &who.name, &name, last).await
    });
    done.await.map(|()| Json(Done { done: true }))
}

/// A line of the audit log.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditLine {
    pub entry: i64,
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// Name of the token; `admin` for that of the settings, `local` for who needed none, `cli:USER`.
    pub actor: String,
    /// A stable code, for example `consumer.pause`.
    pub action: String,
    pub subject: String,
    #[schema(value_type = Object)]
    pub detail: Value,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AuditQuery {
    /// Only entries with a smaller number: the last one of the page before.
    before: Option<i64>,
    /// Entries, 1 to 200; 50 unless said.
    limit: Option<i64>,
}

/// Who did what, newest first.
#[utoipa::path(get, path = "/api/v1/audit", tag = "access", params(AuditQuery),
    responses((status = 200, description = "The entries", body = Vec<AuditLine>), Problems))]
pub async fn log(
    _: Read,
    admin: Data<Admin>,
    query: Query<AuditQuery>,
) -> Result<Json<Vec<AuditLine>>, AdminError> {
    let AuditQuery { before, limit } = query.into_inner();
    let most = page(limit, None)?.limit;
    let entries =
        admin.transact(async move |connection| Ok(audit::newest(connection, before, most).await?));
    let line = |entry: audit::Entry| AuditLine {
        entry: entry.entry,
        at: entry.at,
        actor: entry.actor,
        action: entry.action,
        subject: entry.subject,
        detail: entry.detail,
    };
    Ok(Json(entries.await?.into_iter().map(line).collect()))
}
