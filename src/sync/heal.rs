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

/// How long a row is left alone after a look: at first its second may hardly have been over. Doubled each
/// time that it is still a guess.
const REST: Duration = Duration::from_secs(15);
const LONGEST_REST: Duration = Duration::from_hours(6);

/// Rows that are left alone at most; with more, healing waits.
const MOST_RESTING: usize = 5_000;

/// The duty, and what it leaves alone for now.
#[derive(Debug, Default)]
pub struct Healer {
    /// By their names, as `Known` has it.
    resting: HashMap<String, Rest>,
}

/// Until when a row is left alone, and how long that is.
#[derive(Clone, Copy, Debug)]
struct Rest {
    until: Instant,
    time: Duration,
}

impl Healer {
    /// Looks again and again, until told to stop.
    pub async fn run(mut self, context: &Context, stop: CancellationToken) {
        loop {
            match self.run_once(context).await {
                Ok(_) | Err(SyncError::Busy | SyncError::Api(ApiError::Stopped)) => {}
                Err(error) => {
                    tracing::warn!(%error, "rows that are guesses could not be looked up");
                }
            }
            if stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_none() {
                return;
            }
        }
    }

    /// Looks up what is a guess now; returns how many rows were mended.
    pub async fn run_once(&mut self, context: &Context) -> Result<usize, SyncError> {
        // Remembered for as long again, so that it is known whose look did not help.
        self.resting.retain(|_, rest| rest.until + rest.time > Instant::now());
        if self.resting.len() >= MOST_RESTING {
            return Ok(0);
        }
        let livemode = context.client.livemode();
        let now = Instant::now();
        let resting = self.resting.iter().filter(|(_, rest)| rest.until > now);
        let resting: Vec<_> = resting.map(|(name, _)| name.clone()).collect();
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
            let name = row.name();
            let rest = self.resting.get(&name).map_or(REST, |rest| rest.time * 2);
            let rest = match look_up(context, &row).await {
                Ok(Some(look)) if !look.gone => {
                    healed += context.write(&[look.fetched], Source::Reconcile).await?;
                    rest
                }
                // An event about its end will come; until then the guess is as good as any.
                Ok(_) => LONGEST_REST,
                Err(error) if error.is_about_asked() => {
                    tracing::warn!(%error, table = row.table, id = row.id, "a guess cannot be looked up");
                    LONGEST_REST
                }
                Err(error) => return Err(error.into()),
            };
            let time = rest.min(LONGEST_REST);
            self.resting.insert(name, Rest { until: Instant::now() + time, time });
        }
        Ok(healed)
    }
}
