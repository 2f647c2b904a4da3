//! What a button of the dashboard, a POST of the API or a command does: the action, and the line of the audit log
//! that tells of it, in one transaction. Who may do it is checked before, by `access`.

use rand::rngs::SysRng;
use serde_json::{Value, json};
use sqlx::PgConnection;

use super::AdminError;
use super::access::{Last, OF_NOBODY};
use crate::store::consumer_admin::{self, ConsumerOptions, Selection, TargetOptions};
use crate::store::failures::{self, Discarded};
use crate::store::handlers::NewHandler;
use crate::store::reprocess::{self, Again, Redelivered};
use crate::store::tokens::{self, Hashed, Holder, Scope};
use crate::store::{audit, handlers};

/// Longest lifetime of a token, in days.
const TOKEN_DAYS: f64 = 3660.0;

/// What every token begins with, so that one that got somewhere by mistake is recognised.
const TOKEN_PREFIX: &str = "tollgate_";

/// Longest reason for a pause, in bytes.
const REASON: usize = 500;

/// Texts from outside go into columns: no NUL, which Postgres cannot hold.
fn plain<'t>(name: &str, text: &'t str) -> Result<&'t str, AdminError> {
    if text.contains('\0') || text.len() > 4096 {
        return Err(AdminError::Invalid(format!("{name}: expected a short text without NUL")));
    }
    Ok(text)
}

/// Hands out no more to a consumer.
pub async fn pause(
    connection: &mut PgConnection,
    actor: &str,
    consumer: &str,
    because: Option<&str>,
) -> Result<(), AdminError> {
    let because = because.map(str::trim).filter(|because| !because.is_empty());
    let because = because.map(|because| plain("because", because)).transpose()?;
    if because.is_some_and(|because| because.len() > REASON) {
        return Err(AdminError::Invalid(format!("because: expected at most {REASON} bytes")));
    }
    let said = because.map_or_else(|| format!("asked for by {actor}"), str::to_owned);
    consumer_admin::pause(connection, plain("consumer", consumer)?, Some(&said)).await?;
    let detail = json!({ "because": said });
    Ok(audit::record(connection, actor, "consumer.pause", consumer, &detail).await?)
}

/// Hands out again, and closes the circuit breaker.
pub async fn resume(
    connection: &mut PgConnection,
    actor: &str,
    consumer: &str,
) -> Result<(), AdminError> {
    consumer_admin::resume(connection, plain("consumer", consumer)?).await?;
    Ok(audit::record(connection, actor, "consumer.resume", consumer, &json!({})).await?)
}

/// Has a consumer go on from another place: latest, earliest, a time or a position. Returns the
/// position after which it goes on.
pub async fn rewind(
    connection: &mut PgConnection,
    actor: &str,
    consumer: &str,
    start: &str,
) -> Result<i64, AdminError> {
    let (consumer, start) = (plain("consumer", consumer)?, plain("start", start)?);
    let cursor = consumer_admin::reset(connection, consumer, start).await?;
    let detail = json!({ "start": start, "cursor": cursor });
    audit::record(connection, actor, "consumer.rewind", consumer, &detail).await?;
    Ok(cursor)
}

/// A consumer to be made.
#[derive(Clone, Default)]
pub struct NewConsumer {
    pub name: String,
    /// latest, earliest, a time or a position.
    pub start: String,
    pub options: ConsumerOptions,
    /// None if workers claim in SQL.
    pub target: Option<TargetOptions>,
}

/// What is given of the options: who changed which events somebody gets is for the audit log, too.
fn given(options: &ConsumerOptions) -> Value {
    let mut given = json!(options);
    if let Value::Object(members) = &mut given {
        members.retain(|_, value| !value.is_null() && *value != json!([]));
    }
    given
}

/// Makes a consumer; returns the position after which it begins, and the signing secret of a push.
pub async fn create_consumer(
    connection: &mut PgConnection,
    actor: &str,
    new: &NewConsumer,
) -> Result<(i64, Option<String>), AdminError> {
    let (name, start) = (plain("name", &new.name)?, plain("start", &new.start)?);
    let made =
        consumer_admin::create(connection, name, start, &new.options, new.target.as_ref()).await?;
    let detail = json!({ "start": start, "cursor": made.0, "target": new.target.is_some(),
                         "options": given(&new.options) });
    audit::record(connection, actor, "consumer.create", name, &detail).await?;
    Ok(made)
}

/// Changes what is given of a consumer, all of it or nothing; returns the signing secret of a push that
/// had none before. One that is known already is not shown again unasked.
pub async fn alter_consumer(
    connection: &mut PgConnection,
    actor: &str,
    consumer: &str,
    options: &ConsumerOptions,
    target: Option<&TargetOptions>,
) -> Result<Option<String>, AdminError> {
    let consumer = plain("consumer", consumer)?;
    let fresh = consumer_admin::secrets(connection, consumer).await?.is_empty();
    let secret = consumer_admin::alter(connection, consumer, options, target).await?;
    let detail = json!({ "target": target.is_some(), "options": given(options) });
    audit::record(connection, actor, "consumer.alter", consumer, &detail).await?;
    Ok(secret.filter(|_| fresh))
}

/// Leaves a consumer to workers that claim in SQL.
pub async fn unset_target(
    connection: &mut PgConnection,
    actor: &str,
    consumer: &str,
) -> Result<(), AdminError> {
    consumer_admin::unset_target(connection, plain("consumer", consumer)?).await?;
    Ok(audit::record(connection, actor, "consumer.untarget", consumer, &json!({})).await?)
}

/// Ends a consumer, with all that it has not done.
pub async fn drop_consumer(
    connection: &mut PgConnection,
    actor: &str,
    consumer: &str,
) -> Result<(), AdminError> {
    consumer_admin::drop_consumer(connection, plain("consumer", consumer)?).await?;
    Ok(audit::record(connection, actor, "consumer.drop", consumer, &json!({})).await?)
}

/// Hands dead letters out again; returns how many. One that is asked for by its position must be there.
pub async fn retry_dead_letters(
    connection: &mut PgConnection,
    actor: &str,
    which: Selection<'_>,
) -> Result<i64, AdminError> {
    plain("consumer", which.consumer)?;
    let done = consumer_admin::retry_dead_letters(connection, which).await?;
    note_dead_letters(connection, actor, "dead_letters.retry", which, done).await
}

/// Forgets dead letters; returns how many. One that is asked for by its position must be there.
pub async fn discard_dead_letters(
    connection: &mut PgConnection,
    actor: &str,
    which: Selection<'_>,
) -> Result<i64, AdminError> {
    plain("consumer", which.consumer)?;
    let done = consumer_admin::discard_dead_letters(connection, which).await?;
    note_dead_letters(connection, actor, "dead_letters.discard", which, done).await
}

async fn note_dead_letters(
    connection: &mut PgConnection,
    actor: &str,
    action: &str,
    which: Selection<'_>,
    done: i64,
) -> Result<i64, AdminError> {
    if let (Some(position), 0) = (which.position, done) {
        let what = format!("dead letter of {} at position {position}", which.consumer);
        return Err(AdminError::NotFound(what));
    }
    let [since, until] = [which.since, which.until].map(|time| time.map(|time| time.to_string()));
    let detail =
        json!({ "position": which.position, "since": since, "until": until, "count": done });
    audit::record(connection, actor, action, which.consumer, &detail).await?;
    Ok(done)
}

/// Makes failures due now: one, or all of a handler's. Returns how many.
pub async fn retry_failures(
    connection: &mut PgConnection,
    actor: &str,
    failure: Option<i64>,
    handler: Option<&str>,
) -> Result<u64, AdminError> {
    let handler = handler.map(|handler| plain("handler", handler)).transpose()?;
    let done = failures::retry(connection, failure, handler).await?;
    if let (Some(failure), 0) = (failure, done) {
        return Err(AdminError::NotFound(format!("failure {failure}")));
    }
    let subject = failure.map_or_else(
        || handler.map_or_else(|| "all".to_owned(), |handler| format!("handler {handler}")),
        |failure| format!("failure {failure}"),
    );
    let detail = json!({ "count": done });
    audit::record(connection, actor, "failures.retry", &subject, &detail).await?;
    Ok(done)
}

/// Forgets failures of handlers; returns how many. One that is asked for must be there.
pub async fn discard_failures(
    connection: &mut PgConnection,
    actor: &str,
    which: &Discarded,
) -> Result<u64, AdminError> {
    let subject = match which {
        Discarded::One(failure) => format!("failure {failure}"),
        Discarded::Handler(name) => format!("handler {}", plain("handler", name)?),
    };
    let done = failures::discard(connection, which).await?;
    if let (Discarded::One(failure), 0) = (which, done) {
        return Err(AdminError::NotFound(format!("failure {failure} of a handler")));
    }
    let detail = json!({ "count": done });
    audit::record(connection, actor, "failures.discard", &subject, &detail).await?;
    Ok(done)
}

/// Has a function called with every new event that fits; returns the handler's name.
pub async fn register_handler(
    connection: &mut PgConnection,
    actor: &str,
    new: &NewHandler<'_>,
) -> Result<String, AdminError> {
    let name = handlers::register(connection, new).await?;
    let detail = json!({
        "pattern": new.pattern, "function": new.function, "policy": new.policy.as_str(),
    });
    audit::record(connection, actor, "handler.register", &name, &detail).await?;
    Ok(name)
}

/// Ends the calls of a handler.
pub async fn drop_handler(
    connection: &mut PgConnection,
    actor: &str,
    name: &str,
) -> Result<(), AdminError> {
    if !handlers::drop_handler(connection, plain("name", name)?).await? {
        return Err(AdminError::NotFound(format!("handler {name}")));
    }
    Ok(audit::record(connection, actor, "handler.drop", name, &json!({})).await?)
}

/// Makes a token, for so many days or for ever; returns its text, which is not kept.
pub async fn create_token(
    connection: &mut PgConnection,
    actor: &str,
    holder: &Holder,
    days: Option<f64>,
) -> Result<String, AdminError> {
    tokens::check_name(&holder.name).map_err(|why| AdminError::Invalid(format!("name: {why}")))?;
    if days.is_some_and(|days| !(days > 0.0 && days <= TOKEN_DAYS)) {
        return Err(AdminError::Invalid(format!(
            "days: expected more than 0, at most {TOKEN_DAYS}"
        )));
    }
    if actor == OF_NOBODY && holder.scope != Scope::Admin {
        return Err(AdminError::Conflict(
            "the first token ends that nobody needs one: it must have the scope admin, or you are shut out".to_owned(),
        ));
    }
    let token = tokens::random_text(TOKEN_PREFIX, &mut SysRng).map_err(|_| AdminError::Internal)?;
    let lifetime = days.map(|days| days * 86_400.0);
    tokens::create(connection, holder, &Hashed::of(&token), actor, lifetime).await.map_err(
        |error| match AdminError::from(error) {
            AdminError::Conflict(_) => {
                AdminError::Conflict(format!("there is a token {} already", holder.name))
            }
            other => other,
        },
    )?;
    let detail = json!({ "scope": holder.scope.as_str(), "days": days });
    audit::record(connection, actor, "token.create", &holder.name, &detail).await?;
    Ok(token)
}

/// Revokes a token; the transaction must not be committed if that fails.
pub async fn revoke_token(
    connection: &mut PgConnection,
    actor: &str,
    name: &str,
    last: Last,
) -> Result<(), AdminError> {
    let Some(scope) = tokens::revoke(connection, plain("name", name)?).await? else {
        return Err(AdminError::NotFound(format!("token {name}")));
    };
    if last == Last::Stays && !tokens::any(connection).await? {
        return Err(AdminError::Conflict(format!(
            "{name} is the last token, and without any nobody needs one: make another with the scope admin first"
        )));
    }
    if last == Last::Stays && scope == Scope::Admin && !tokens::any_admin(connection).await? {
        return Err(AdminError::Conflict(format!(
            "{name} is the last token with the scope admin, and without any nobody could make one here: make another first"
        )));
    }
    Ok(audit::record(connection, actor, "token.revoke", name, &json!({})).await?)
}

/// Has handlers and billing tables take events again; returns how many things are to be done.
/// `what` says for the audit log which events: an id, or a filter.
pub async fn reprocess(
    connection: &mut PgConnection,
    actor: &str,
    which: &reprocess::Selection,
    again: &Again,
    what: &str,
) -> Result<i32, AdminError> {
    if !again.projection && again.handlers.as_ref().is_some_and(Vec::is_empty) {
        let nothing = "that would do nothing: ask for the projection, or name handlers";
        return Err(AdminError::Invalid(nothing.to_owned()));
    }
    for handler in again.handlers.iter().flatten() {
        plain("handlers", handler)?;
    }
    let names = again.handlers.as_deref().unwrap_or_default();
    if let Some(name) = reprocess::unknown_handlers(connection, names).await?.first() {
        return Err(AdminError::NotFound(format!("handler {name}")));
    }
    let because = format!("asked for by {actor}");
    let asked = reprocess::reprocess(connection, which, again, &because).await?;
    let detail = json!({
        "events": which.len(), "count": asked, "projection": again.projection, "handlers": again.handlers,
    });
    audit::record(connection, actor, "events.reprocess", what, &detail).await?;
    Ok(asked)
}

/// Hands events to a consumer again. `what` says for the audit log which events.
pub async fn replay(
    connection: &mut PgConnection,
    actor: &str,
    which: &reprocess::Selection,
    consumer: &str,
    what: &str,
) -> Result<Redelivered, AdminError> {
    plain("consumer", consumer)?;
    let done = reprocess::redeliver(connection, which, consumer).await?;
    let detail: Value = json!({
        "consumer": consumer, "events": which.len(), "due": done.due, "open": done.open, "gone": done.gone,
    });
    audit::record(connection, actor, "events.replay", what, &detail).await?;
    Ok(done)
}
