//! A consumer against a model of it: whatever is done to it in whatever order, each event is settled,
//! dead, skipped by a reset, or comes again. `TOLLGATE_TEST_SEED` repeats a run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, IteratorRandom};
use rand::{RngExt, SeedableRng};
use sqlx::AssertSqlSafe;
use tokio::time::{Instant, sleep};

use crate::seed::{Log, claim};

/// Histories in a run, each of a consumer of its own.
const HISTORIES: usize = 8;
const STEPS: usize = 80;

/// What should be, for one consumer.
struct Model<'a> {
    log: &'a Log,
    rng: &'a mut StdRng,
    name: String,
    /// What workers have, by claim; some of these may have lost it.
    open: BTreeMap<i64, BTreeSet<i64>>,
    /// Not to come again: acknowledged, forgotten as a dead letter, skipped.
    over: BTreeSet<i64>,
    ordered: bool,
    /// Whether it is for the platform's own events alone.
    filtered: bool,
}

/// Events that such a consumer never gets.
const FOREIGN: &str = "SELECT position FROM tollgate.events WHERE account <> ''";

impl Model<'_> {
    async fn step(&mut self) {
        let name = self.name.clone();
        match self.rng.random_range(0..42) {
            0..12 => _ = self.claim().await,
            12..18 => self.ack().await,
            18..27 => self.nack().await,
            27..29 => {
                if let Some(&claim) = self.open.keys().choose(self.rng) {
                    self.log.lapse(claim).await;
                }
            }
            29..33 => self.log.let_time_pass().await,
            33 => self.reset().await,
            34 => self.alter().await,
            35 => self.log.sql(format!("SELECT tollgate.retry_dead_letters('{name}')")).await,
            36 => {
                self.over.extend(self.dead().await);
                self.log.sql(format!("SELECT tollgate.discard_dead_letters('{name}')")).await;
            }
            37 => {
                let most = [1, 2, 5, 50].choose(self.rng).unwrap();
                let alter =
                    format!("SELECT tollgate.alter_consumer('{name}', max_attempts => {most})");
                self.log.sql(alter).await;
            }
            38 | 39 => self.give_again().await,
            _ => {
                let (events, objects) =
                    (self.rng.random_range(1..20), [1, 3, 10].choose(self.rng).unwrap());
                self.log.seed_objects(events, *objects).await;
                if self.rng.random_bool(0.3) {
                    // Of these, the last few are another account's.
                    let (last, n) = (self.log.latest().await, self.rng.random_range(0..events));
                    let others = format!("UPDATE tollgate.event_log l SET account = 'acct_1' FROM tollgate.positions p
                                       WHERE p.created = l.created AND p.id = l.id AND p.position > {last} - {n}");
                    self.log.sql(others).await;
                }
            }
        }
    }

    /// Returns how many came, none of which should not have.
    async fn claim(&mut self) -> usize {
        let max = *[1, 2, 5, 100].choose(self.rng).unwrap();
        let batch = self.log.claim(&self.name, max).await;
        // Whoever lost what it had knows it now.
        let open = self.log.all("SELECT claim FROM tollgate.claims WHERE claim IS NOT NULL").await;
        self.open.retain(|claim, _| open.contains(claim));
        let positions: BTreeSet<i64> = batch.positions.iter().copied().collect();
        assert!(batch.positions.is_sorted() && positions.len() == batch.positions.len());
        assert!(positions.is_disjoint(&self.over), "again: {positions:?}");
        if self.filtered {
            let foreign: BTreeSet<i64> = self.log.all(FOREIGN).await.into_iter().collect();
            assert!(positions.is_disjoint(&foreign), "not its own: {positions:?}");
        }
        for others in self.open.values() {
            assert!(positions.is_disjoint(others), "shared: {positions:?}, {others:?}");
        }
        if batch.claim != 0 {
            self.open.insert(batch.claim, positions);
        }
        if self.ordered {
            let held: Vec<i64> = self.open.values().flatten().copied().collect();
            let objects: i64 = self
                .log
                .one(format!(
                    "SELECT count(DISTINCT (account, object_id)) FROM tollgate.events WHERE position = ANY (ARRAY{held:?}::bigint[])"
                ))
                .await;
            assert_eq!(usize::try_from(objects).unwrap(), held.len(), "two of an object: {held:?}");
        }
        batch.positions.len()
    }

    /// A claim and some of what it holds.
    fn some(&mut self) -> Option<(i64, Vec<i64>)> {
        let (&claim, held) = self.open.iter().choose(self.rng)?;
        let all = self.rng.random_bool(0.5);
        let some = held.iter().copied().filter(|_| all || self.rng.random_bool(0.5)).collect();
        Some((claim, some))
    }

    fn settled(&mut self, claim: i64, positions: &[i64]) {
        let held = self.open.get_mut(&claim).unwrap();
        held.retain(|position| !positions.contains(position));
        if held.is_empty() {
            self.open.remove(&claim);
        }
    }

    async fn ack(&mut self) {
        let Some((claim, some)) = self.some() else { return };
        let all = self.open[&claim].len() == some.len();
        let done =
            if all { self.log.ack(claim).await } else { self.log.ack_some(claim, &some).await };
        assert_eq!(usize::try_from(done).unwrap(), some.len());
        self.over.extend(&some);
        self.settled(claim, &some);
    }

    async fn nack(&mut self) {
        let Some((claim, some)) = self.some() else { return };
        let permanent = self.rng.random_ratio(1, 5);
        for position in some {
            self.log.nack(claim, position, &format!("'0', {permanent}")).await;
            self.settled(claim, &[position]);
        }
    }

    async fn reset(&mut self) {
        let all: Vec<i64> =
            self.log.all("SELECT position FROM tollgate.positions ORDER BY 1").await;
        let Some(&to) = all.choose(self.rng) else { return };
        let to = if self.rng.random_ratio(1, 4) { 0 } else { to };
        let cursor = self.log.status(&self.name, "cursor").await;
        self.log.sql(format!("SELECT tollgate.reset_consumer('{}', '{to}')", self.name)).await;
        if to < cursor {
            self.open.clear();
            self.over.retain(|&position| position <= to);
        } else {
            self.over
                .extend(all.into_iter().filter(|&position| position > cursor && position <= to));
        }
    }

    /// Some events at random: settled, dead, waiting, with a worker, or not read yet.
    async fn give_again(&mut self) {
        let all: Vec<i64> = self.log.all("SELECT position FROM tollgate.positions").await;
        let foreign: Vec<i64> = self.log.all(FOREIGN).await;
        let count = *[1, 3, 10].choose(self.rng).unwrap();
        let some: Vec<i64> = all.sample(self.rng, count).copied().collect();
        let excluded = some.iter().filter(|at| self.filtered && foreign.contains(at)).count();
        let cursor = self.log.status(&self.name, "cursor").await;
        let again = format!("tollgate.give_again('{}', ARRAY{some:?}::bigint[])", self.name);
        let given: Vec<i64> = self
            .log
            .all(&format!(
                "SELECT unnest(ARRAY[g.due + g.open, g.gone, g.excluded])::bigint FROM {again} g"
            ))
            .await;
        let excluded = i64::try_from(excluded).unwrap();
        assert_eq!(given, [i64::try_from(some.len()).unwrap() - excluded, 0, excluded]);
        self.over.retain(|at| {
            *at > cursor || !some.contains(at) || self.filtered && foreign.contains(at)
        });
    }

    async fn alter(&mut self) {
        let ordered = self.rng.random_bool(0.5);
        let to = if ordered { "object" } else { "none" };
        let alter = format!("SELECT tollgate.alter_consumer('{}', ordering => '{to}')", self.name);
        match sqlx::query(AssertSqlSafe(alter)).execute(&self.log.pool).await {
            Ok(_) if self.ordered == ordered => {}
            // Whatever was open had run out.
            Ok(_) => (self.ordered, self.open) = (ordered, BTreeMap::new()),
            Err(error) => {
                assert_eq!(error.as_database_error().unwrap().code().unwrap(), "55006");
                assert!(!self.open.is_empty(), "nothing is in flight");
            }
        }
    }

    async fn dead(&self) -> Vec<i64> {
        self.log.rows(&self.name, "dead").await
    }

    /// What is neither over nor dead, which is what the status says too.
    async fn left(&self) -> BTreeSet<i64> {
        let mut left: BTreeSet<i64> =
            self.log.all("SELECT position FROM tollgate.positions").await.into_iter().collect();
        for position in self.dead().await {
            left.remove(&position);
        }
        left.retain(|position| !self.over.contains(position));
        if self.filtered {
            for position in self.log.all(FOREIGN).await {
                left.remove(&position);
            }
        }
        let lag = self.log.status(&self.name, "lag_events").await;
        assert_eq!(usize::try_from(lag).unwrap(), left.len(), "{left:?}");
        left
    }

    /// All claims end, and what is left comes.
    async fn finish(&mut self) {
        self.log.sql("UPDATE tollgate.claims SET expires_at = now() WHERE claim IS NOT NULL").await;
        let mut idle = 0;
        while idle < 3 {
            self.log.let_time_pass().await;
            idle = if self.claim().await == 0 { idle + 1 } else { 0 };
            while !self.open.is_empty() {
                self.ack().await;
            }
        }
        assert_eq!(self.left().await, BTreeSet::new());
        let rows =
            "SELECT count(*) + (SELECT sum(cardinality(held)) FROM tollgate.consumer_progress)
                    FROM tollgate.deliveries WHERE state <> 'dead'";
        let rows: i64 = self.log.one(format!("SELECT ({rows})::bigint")).await;
        assert_eq!(rows, 0, "nothing is stuck");
    }
}

#[tokio::test]
async fn no_history_loses_or_repeats_an_event() {
    let seed = std::env::var("TOLLGATE_TEST_SEED")
        .map_or_else(|_| rand::random(), |text| text.parse::<u64>().expect("a number"));
    println!("TOLLGATE_TEST_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let log = Log::new().await;
    for history in 0..HISTORIES {
        let (name, ordered) = (format!("c{history}"), rng.random_bool(0.6));
        let most = *[1, 2, 4, 50].choose(&mut rng).unwrap();
        let ordering = if ordered { "object" } else { "none" };
        let filtered = rng.random_bool(0.5);
        let filter = if filtered { "'{\"\"}'" } else { "NULL" };
        let like =
            format!("ordering => '{ordering}', max_attempts => {most}, accounts => {filter}");
        log.consumer(&name, &like).await;
        let (open, over) = (BTreeMap::new(), BTreeSet::new());
        let mut model =
            Model { log: &log, rng: &mut rng, name: name.clone(), open, over, ordered, filtered };
        for step in 0..STEPS {
            model.step().await;
            if step % 10 == 0 {
                model.left().await;
            }
        }
        model.finish().await;
        log.sql(format!("SELECT tollgate.drop_consumer('{name}')")).await;
    }
}

/// Workers acknowledge and claim in one transaction, which locks in the worst order, while the
/// consumer is sent to and fro, and back to the beginning at last. A deadlock costs a try, no event.
#[tokio::test(flavor = "multi_thread")]
async fn rewinding_at_work_loses_nothing() {
    let log = Log::new().await;
    log.seed_objects(1000, 100).await;
    log.consumer("c", "ordering => 'object', max_attempts => 1000").await;
    let since = Instant::now();
    let rewound = Arc::new(AtomicBool::new(false));
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let (pool, rewound) = (log.pool.clone(), Arc::clone(&rewound));
            tokio::spawn(async move {
                let (mut seen, mut last) = (BTreeSet::new(), 0);
                loop {
                    let last_lap = rewound.load(SeqCst);
                    assert!(since.elapsed() < Duration::from_mins(2), "something is stuck");
                    let lag = sqlx::query_scalar::<_, i64>(
                        "SELECT lag_events FROM tollgate.consumer_status",
                    );
                    let left = lag.fetch_one(&pool).await.unwrap();
                    let mut transaction = pool.begin().await.unwrap();
                    if last != 0 {
                        let ack = sqlx::query("SELECT tollgate.ack($1)").bind(last);
                        if let Err(error) = ack.execute(&mut *transaction).await {
                            let code =
                                error.as_database_error().unwrap().code().unwrap().into_owned();
                            assert!(["TG011", "40P01"].contains(&code.as_str()), "{error}");
                            last = if code == "TG011" { 0 } else { last };
                            continue;
                        }
                    }
                    match claim(&mut *transaction, "c", 7).await {
                        Ok(batch) => {
                            transaction.commit().await.unwrap();
                            last = batch.claim;
                            seen.extend(batch.positions);
                        }
                        Err(error) => {
                            assert_eq!(error.as_database_error().unwrap().code().unwrap(), "40P01");
                        }
                    }
                    if last_lap && left == 0 && last == 0 {
                        return seen;
                    }
                }
            })
        })
        .collect();
    for to in [500, 300, 900, 10, 500, 0, 250, 700, 100, 0] {
        sleep(Duration::from_millis(100)).await;
        let reset = format!("SELECT tollgate.reset_consumer('c', '{to}')");
        while let Err(error) = sqlx::query(AssertSqlSafe(reset.clone())).execute(&log.pool).await {
            assert_eq!(error.as_database_error().unwrap().code().unwrap(), "40P01");
        }
    }
    rewound.store(true, SeqCst);
    let mut seen = BTreeSet::new();
    for worker in workers {
        seen.extend(worker.await.unwrap());
    }
    assert_eq!(seen.len(), 1000);
    assert_eq!(log.status("c", "lag_events").await, 0);
}
