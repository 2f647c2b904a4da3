//! Thin events, which name an object and do not show it: a consumer of the gateway's own, from which
//! they are claimed one batch at a time, with retries and dead letters like any consumer's.

use std::collections::HashMap;
use std::time::Duration;

use sqlx::{PgPool, Row};
use time::OffsetDateTime;

use crate::store::StoreError;
use crate::store::connect::within;

/// Longest wait for a statement.
const LIMIT: Duration = Duration::from_secs(30);

/// What the consumer of a mode is called: a key opens one mode, so each has its own.
fn consumer(livemode: bool) -> &'static str {
    if livemode { "tollgate-thin-events-live" } else { "tollgate-thin-events-test" }
}

/// Makes the consumer, if it is not there: of all thin events of the mode, from the first on.
pub async fn make_consumer(pool: &PgPool, livemode: bool) -> Result<(), StoreError> {
    within(pool, LIMIT, async |connection| {
        // The types of thin events begin with the version of the API that their objects are of. The
        // lease is for a batch whose every request takes long; the attempts are for weeks.
        sqlx::query(
            "SELECT tollgate.create_consumer($1, types => '{v1.*,v2.*}', start => 'earliest', livemode => $2,
                                             lease => '30 minutes', max_attempts => 500, if_not_exists => true)",
        )
        .bind(consumer(livemode))
        .bind(livemode)
        .execute(connection)
        .await
    })
    .await?;
    Ok(())
}

/// A thin event.
#[derive(Clone, Debug)]
pub struct Thin {
    pub claim: i64,
    pub position: i64,
    pub event_id: String,
    pub attempt: i32,
    /// The body as received.
    pub raw: Vec<u8>,
}

/// Claims some.
pub async fn claim(pool: &PgPool, livemode: bool, most: i32) -> Result<Vec<Thin>, StoreError> {
    let (claimed, bodies) = within(pool, LIMIT, async |connection| {
        let claimed = sqlx::query(
            r#"SELECT claim, "position", event_id, attempt FROM tollgate.claim($1, $2, bodies => false)"#,
        )
        .bind(consumer(livemode))
        .bind(most)
        .fetch_all(&mut *connection)
        .await?;
        let positions: Vec<i64> =
            claimed.iter().map(|row| row.try_get("position")).collect::<Result<_, _>>()?;
        // In a statement of its own: the one that claims does not see what was committed since it
        // began, and claims that, too.
        let bodies = sqlx::query_as::<_, (i64, Vec<u8>)>(
            r#"SELECT "position", raw FROM tollgate.events WHERE "position" = ANY ($1)"#,
        )
        .bind(positions)
        .fetch_all(connection)
        .await?;
        Ok((claimed, bodies))
    })
    .await?;
    let mut bodies: HashMap<i64, Vec<u8>> = bodies.into_iter().collect();
    let mut thin = Vec::with_capacity(claimed.len());
    for row in &claimed {
        let position = row.try_get("position")?;
        if let Some(raw) = bodies.remove(&position) {
            let (claim, event_id) = (row.try_get("claim")?, row.try_get("event_id")?);
            thin.push(Thin { claim, position, event_id, attempt: row.try_get("attempt")?, raw });
        }
    }
    Ok(thin)
}

/// Is done with one.
pub async fn ack(pool: &PgPool, thin: &Thin) -> Result<(), StoreError> {
    within(pool, LIMIT, async |connection| {
        let ack = sqlx::query("SELECT tollgate.ack($1, $2)").bind(thin.claim);
        ack.bind(vec![thin.position]).execute(connection).await
    })
    .await?;
    Ok(())
}

/// Could not do one: again after some time, the consumer's own if none is given.
pub async fn nack(
    pool: &PgPool,
    thin: &Thin,
    error: &str,
    retry_in: Option<Duration>,
) -> Result<(), StoreError> {
    within(pool, LIMIT, async |connection| {
        sqlx::query("SELECT tollgate.nack($1, $2, $3, make_interval(secs => $4))")
            .bind(thin.claim)
            .bind(thin.position)
            .bind(error.replace('\0', "\u{fffd}"))
            .bind(retry_in.map(|wait| wait.as_secs_f64()))
            .execute(connection)
            .await
    })
    .await?;
    Ok(())
}

/// Whether an event of this id, made about that time, is in the log.
pub async fn has_event(pool: &PgPool, id: &str, about: OffsetDateTime) -> Result<bool, StoreError> {
    let found = within(pool, LIMIT, async |connection| {
        sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM tollgate.event_log l WHERE l.id = $1
                AND l.created BETWEEN $2 - interval '1 hour' AND $2 + interval '1 hour')",
        )
        .bind(id)
        .bind(about)
        .fetch_one(connection)
        .await
    });
    Ok(found.await?)
}
