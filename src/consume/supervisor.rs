//! Runs an engine for each consumer that has a target, as targets come, change and go.
//! Any replica may deliver any consumer's events: nothing is divided up between them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::dead_letters;
use super::engine::Engine;
use super::nats::{NatsOptions, NatsTarget};
use super::push::{PrivateTargets, PushOptions, PushTarget};
use super::tally::Tally;
use super::target::Target;
use super::wake::Wake;
use crate::clock::Clock;
use crate::store::StoreError;
use crate::store::consumers::{self, TargetKind, TargetRow};
use crate::traces::Traces;

/// How often to look for new targets and dead letters.
const INTERVAL: Duration = Duration::from_secs(1);

/// Wait after a look that failed.
const RETRY: Duration = Duration::from_secs(5);

/// What engines need, whichever target they have.
#[derive(Clone, Debug)]
pub struct Supervisor {
    pub pool: PgPool,
    pub wake: Wake,
    pub private: PrivateTargets,
    pub clock: Clock,
    pub traces: Traces,
    /// How long attempts under way may take to end once it is told to stop.
    pub grace: Duration,
    pub tally: Arc<Tally>,
}

#[derive(Debug)]
struct Running {
    row: TargetRow,
    stop: CancellationToken,
    engine: JoinHandle<()>,
}

impl Supervisor {
    /// Keeps engines running until told to stop, and then until their attempts have ended, but not
    /// beyond `grace`: what is given up then comes again when its lease has run out.
    pub async fn run(self, stop: CancellationToken) {
        let mut running = BTreeMap::new();
        // Engines that were told to stop because their target changed or went.
        let mut ending = JoinSet::new();
        while !stop.is_cancelled() {
            let pause = match self.look(&mut running, &mut ending).await {
                Ok(()) => INTERVAL,
                Err(error) => {
                    tracing::warn!(%error, "cannot look for targets and dead letters, trying again");
                    RETRY
                }
            };
            while ending.try_join_next().is_some() {}
            // Only the sleep is cut short: a statement is always awaited to its end.
            stop.run_until_cancelled(tokio::time::sleep(pause)).await;
        }
        let mut engines = Vec::new();
        for (_, Running { stop, engine, .. }) in running {
            stop.cancel();
            engines.push(engine.abort_handle());
            ending.spawn(engine);
        }
        let ended = async { while ending.join_next().await.is_some() {} };
        if tokio::time::timeout(self.grace, ended).await.is_err() {
            tracing::warn!("deliveries under way did not end in time; they will be made again");
            engines.iter().for_each(tokio::task::AbortHandle::abort);
        }
    }

    async fn look(
        &self,
        running: &mut BTreeMap<String, Running>,
        ending: &mut JoinSet<Result<(), tokio::task::JoinError>>,
    ) -> Result<(), StoreError> {
        dead_letters::run_once(&self.pool).await?;
        let targets = consumers::targets(&self.pool).await?;
        let changed =
            |_: &String, it: &mut Running| !targets.contains(&it.row) || it.engine.is_finished();
        for (_, Running { stop, engine, .. }) in running.extract_if(.., changed) {
            stop.cancel();
            ending.spawn(engine);
        }
        for row in targets {
            if running.contains_key(&row.consumer) {
                continue;
            }
            match self.target(&row) {
                Ok(target) => {
                    tracing::info!(consumer = row.consumer, kind = ?row.kind, "delivering");
                    running.insert(row.consumer.clone(), self.start(row, target));
                }
                Err(problem) => {
                    tracing::error!(
                        consumer = row.consumer,
                        problem,
                        "paused: the target is unusable"
                    );
                    consumers::pause(&self.pool, &row.consumer, &problem).await?;
                }
            }
        }
        Ok(())
    }

    fn start(&self, row: TargetRow, target: Arc<dyn Target>) -> Running {
        let stop = CancellationToken::new();
        let (consumer, tally) = (row.consumer.clone(), Arc::clone(&self.tally));
        let engine = Engine::new(self.pool.clone(), consumer, target, row.concurrency, tally)
            .traced(self.traces.clone(), row.kind);
        let engine = tokio::spawn(engine.run(self.wake.subscribe(), stop.clone()));
        Running { row, stop, engine }
    }

    fn target(&self, row: &TargetRow) -> Result<Arc<dyn Target>, String> {
        fn text(error: impl std::fmt::Display) -> String {
            error.to_string()
        }
        match row.kind {
            TargetKind::Push => {
                let secrets = row.secrets.iter().map(|secret| secret.parse().map_err(text));
                let options = PushOptions {
                    url: row.url.parse().map_err(text)?,
                    secrets: secrets.collect::<Result<_, _>>()?,
                    timeout: row.timeout,
                    connections: row.concurrency,
                };
                let target = PushTarget::new(options, self.private, self.clock.clone());
                Ok(Arc::new(target.map_err(text)?))
            }
            TargetKind::Nats => {
                let options = NatsOptions {
                    url: row.url.parse().map_err(text)?,
                    prefix: row.subject.clone(),
                    timeout: row.timeout,
                };
                Ok(Arc::new(NatsTarget::new(options)))
            }
        }
    }
}
