//! The budget of requests to Stripe's API, which all replicas and commands share.

use std::time::Duration;

use sqlx::PgPool;

use crate::store::StoreError;
use crate::store::connect::within;

/// Longest wait for a statement.
const LIMIT: Duration = Duration::from_secs(15);

/// Takes the right to one request, of `rate` a second; returns how long to wait before it is made.
pub async fn take(pool: &PgPool, rate: f64) -> Result<Duration, StoreError> {
    let seconds: f64 = within(pool, LIMIT, async |connection| {
        let taken = sqlx::query_scalar("SELECT tollgate.take_api_token($1)").bind(rate);
        taken.fetch_one(connection).await
    })
    .await?;
    Ok(Duration::try_from_secs_f64(seconds).unwrap_or_default())
}

/// Has nobody make a request for some time.
pub async fn hold(pool: &PgPool, rate: f64, time: Duration) -> Result<(), StoreError> {
    within(pool, LIMIT, async |connection| {
        let hold = sqlx::query("SELECT tollgate.hold_api($1, $2)").bind(rate);
        hold.bind(time.as_secs_f64()).execute(connection).await
    })
    .await?;
    Ok(())
}
