//! What buttons do, each with its line in the audit log, in one transaction.

use serde_json::{Value, json};
use sqlx::PgConnection;

use crate::http::admin::{Admin, AdminError, Identity};
use crate::store::consumer_admin::{self, Selection};
use crate::store::reprocess::{self, Again, Redelivered};
use crate::store::{audit, failures};

/// Does something to a subject, and notes who did it.
async fn act<T: 'static>(
    admin: &Admin,
    who: &Identity,
    (action, subject, detail): (&'static str, &str, Value),
    work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, AdminError> + 'static,
) -> Result<T, AdminError> {
    let (actor, subject) = (who.name.clone(), subject.to_owned());
    admin
        .transact(async move |connection| {
            let done = work(connection).await?;
            audit::record(connection, &actor, action, &subject, &detail).await?;
            Ok(done)
        })
        .await
}

/// Brings an event's billing table up to date and calls its handlers again; how many things that is.
pub async fn reprocess(admin: &Admin, who: &Identity, event: &str) -> Result<i32, AdminError> {
    let (id, because) = (event.to_owned(), format!("asked for by {}", who.name));
    act(admin, who, ("event.reprocess", event, json!({})), async move |connection| {
        let which = reprocess::select_id(connection, &id, None).await?;
        if which.is_empty() {
            return Err(AdminError::NotFound(format!("event {id} in the log")));
        }
        let again = Again { projection: true, handlers: None };
        Ok(reprocess::reprocess(connection, &which, &again, &because).await?)
    })
    .await
}

/// Hands an event out to a consumer again.
pub async fn replay(
    admin: &Admin,
    who: &Identity,
    event: &str,
    consumer: &str,
) -> Result<Redelivered, AdminError> {
    let (id, name) = (event.to_owned(), consumer.to_owned());
    let detail = json!({"consumer": consumer});
    act(admin, who, ("event.replay", event, detail), async move |connection| {
        let which = reprocess::select_id(connection, &id, None).await?;
        if which.is_empty() {
            return Err(AdminError::NotFound(format!("event {id} in the log")));
        }
        Ok(reprocess::redeliver(connection, &which, &name).await?)
    })
    .await
}

/// Hands out no more to a consumer.
pub async fn pause(
    admin: &Admin,
    who: &Identity,
    consumer: &str,
    because: Option<String>,
) -> Result<(), AdminError> {
    let name = consumer.to_owned();
    let detail = json!({"because": because});
    act(admin, who, ("consumer.pause", consumer, detail), async move |connection| {
        Ok(consumer_admin::pause(connection, &name, because.as_deref()).await?)
    })
    .await
}

/// Hands out to a consumer again.
pub async fn resume(admin: &Admin, who: &Identity, consumer: &str) -> Result<(), AdminError> {
    let name = consumer.to_owned();
    act(admin, who, ("consumer.resume", consumer, json!({})), async move |connection| {
        Ok(consumer_admin::resume(connection, &name).await?)
    })
    .await
}

/// Takes a consumer to another place in the log; the position after which it goes on.
pub async fn rewind(
    admin: &Admin,
    who: &Identity,
    consumer: &str,
    to: &str,
) -> Result<i64, AdminError> {
    let (name, place) = (consumer.to_owned(), to.to_owned());
    act(admin, who, ("consumer.reset", consumer, json!({"to": to})), async move |connection| {
        Ok(consumer_admin::reset(connection, &name, &place).await?)
    })
    .await
}

/// Hands dead letters out again, or forgets them: one, or all of a consumer; how many.
pub async fn settle_dead_letters(
    admin: &Admin,
    who: &Identity,
    consumer: &str,
    position: Option<i64>,
    retry: bool,
) -> Result<i64, AdminError> {
    let name = consumer.to_owned();
    let action = if retry { "dead_letters.retry" } else { "dead_letters.discard" };
    act(admin, who, (action, consumer, json!({"position": position})), async move |connection| {
        let which = Selection { consumer: &name, position, since: None };
        Ok(if retry {
            consumer_admin::retry_dead_letters(connection, which).await?
        } else {
            consumer_admin::discard_dead_letters(connection, which).await?
        })
    })
    .await
}

/// Has failures tried again now: one, or all of a handler; how many.
pub async fn retry_failures(
    admin: &Admin,
    who: &Identity,
    failure: Option<i64>,
    handler: Option<String>,
) -> Result<u64, AdminError> {
    let subject = handler.clone().unwrap_or_default();
    let detail = json!({"failure": failure});
    act(admin, who, ("failures.retry", &subject, detail), async move |connection| {
        Ok(failures::retry(connection, failure, handler.as_deref()).await?)
    })
    .await
}
