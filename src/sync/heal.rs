//! Asks Stripe about rows that are guesses, where nothing but event ids could tell which of several
//! events of one second came last; what it shows then stands above them.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::context::Context;
use super::error::{ApiError, SyncError};
use super::objects::look_up;
use crate::store::events::Source;
use crate::store::sync::compare::{self, Known};
use crate::store::sync::lease::Lease;

/// The duty's name.
const DUTY: &str = "heal";

/// How often to look for such rows.
const INTERVAL: Duration = Duration::from_secs(10);

/// Rows of a table at once.
const AT_ONCE: i64 = 20;

/// How long a row is left alone that could not be mended: at first its second was hardly over.
const REST: Duration = Duration::from_secs(15);
const LONG_REST: Duration = Duration::from_hours(6);

/// Rows that are left alone at most; with more, healing waits.
const MOST_RESTING: usize = 5_000;

/// The duty, and what it leaves alone for now.
#[derive(Debug, Default)]
pub struct Healer {
    resting: HashMap<String, Instant>,
}

impl Healer {
    /// Looks again and again, until told to stop.
    pub async fn run(mut self, context: &Context, stop: CancellationToken) {
        loop {
            match self.run_once(context).await {
                Ok(_) | Err(SyncError::Busy | SyncError::Api(ApiError::Stopped)) => {}
                Err(error) => {
                    tracing::warn!(%error, "rows that are guesses could not be looked up")
                }
            }
            if stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_none() {
                return;
            }
        }
    }

    /// Looks up what is a guess now; returns how many rows were mended.
    pub async fn run_once(&mut self, context: &Context) -> Result<usize, SyncError> {
        self.resting.retain(|_, until| *until > Instant::now());
        if self.resting.len() >= MOST_RESTING {
            return Ok(0);
        }
        let livemode = context.client.livemode();
        let resting: Vec<_> = self.resting.keys().cloned().collect();
        let ties = compare::ties(&context.pool, livemode, AT_ONCE, &resting).await?;
        if ties.is_empty() {
            return Ok(0);
        }
        let mut lease = context.lead(DUTY).await?;
        let healed = self.heal(context, ties, &mut lease).await;
        lease.release().await;
        healed
    }

    async fn heal(
        &mut self,
        context: &Context,
        ties: Vec<Known>,
        lease: &mut Lease,
    ) -> Result<usize, SyncError> {
        let mut healed = 0;
        for row in ties {
            lease.check().await?;
            let look = match look_up(context, &row).await {
                Ok(look) => look,
                // About this object, or its account: others may fare better.
                Err(
                    error @ (ApiError::Forbidden(_)
                    | ApiError::NotFound { .. }
                    | ApiError::Refused(_)),
                ) => {
                    tracing::warn!(%error, table = row.table, id = row.id, "a guess cannot be looked up");
                    None
                }
                Err(error) => return Err(error.into()),
            };
            let rest = match look {
                // An event about its end will come; until then the guess is as good as any.
                None => LONG_REST,
                Some(look) if look.gone => LONG_REST,
                Some(look) => {
                    healed += context.write(&[look.shown], Source::Reconcile).await?;
                    REST
                }
            };
            self.resting.insert(row.id, Instant::now() + rest);
        }
        Ok(healed)
    }
}
