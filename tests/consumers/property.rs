//! Order by object, as a property: eight workers that acknowledge, fail and die at random, and what
//! must hold whatever they do. `TOLLGATE_TEST_SEED` repeats a run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sqlx::{AssertSqlSafe, Executor, PgPool};
use tokio::time::{Instant, sleep};

use crate::seed::{Batch, Log, claim};

const OBJECTS: i64 = 30;
const EVENTS: i64 = 3000;
const WORKERS: u64 = 8;
const LEASE: Duration = Duration::from_secs(1);
/// Far more than it takes (ten seconds); beyond it something is stuck.
const PATIENCE: Duration = Duration::from_mins(2);

/// One worker at one event.
#[derive(Clone, Debug)]
struct Handling {
    position: i64,
    object: String,
    /// Before the claim, hence before its lease began.
    asked: Instant,
    start: Instant,
    /// Known once it is over; a worker that dies stays at it until its lease ends.
    end: Option<Instant>,
    outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    Failed,
    Died,
}

type Book = Arc<Mutex<Vec<Handling>>>;

struct Worker {
    pool: PgPool,
    book: Book,
    rng: StdRng,
}

impl Worker {
    /// Until everything is settled.
    async fn work(mut self) {
        let since = Instant::now();
        loop {
            assert!(since.elapsed() < PATIENCE, "something is stuck");
            let max = self.rng.random_range(1..=20);
            let asked = Instant::now();
            let batch = claim(&self.pool, "c", max).await.unwrap();
            let objects: BTreeSet<_> = batch.objects.iter().collect();
            assert_eq!(objects.len(), batch.objects.len(), "two events of one object: {batch:?}");
            if batch.claim == 0 {
                if self.all_settled().await {
                    return;
                }
                sleep(Duration::from_millis(5)).await;
            } else {
                self.handle(&batch, asked).await;
            }
        }
    }

    async fn handle(&mut self, batch: &Batch, asked: Instant) {
        let start = Instant::now();
        let dies = self.rng.random_ratio(1, 150);
        let mut done = Vec::new();
        for (&position, object) in batch.positions.iter().zip(&batch.objects) {
            let object = object.clone().unwrap();
            let fails = self.rng.random_ratio(1, 8);
            let outcome = match (dies, fails) {
                (true, _) => Outcome::Died,
                (false, true) => Outcome::Failed,
                (false, false) => Outcome::Done,
            };
            self.book.lock().unwrap().push(Handling {
                position,
                object,
                asked,
                start,
                end: None,
                outcome,
            });
            if outcome == Outcome::Done {
                done.push(position);
            }
        }
        if self.rng.random_ratio(1, 4) {
            sleep(Duration::from_millis(self.rng.random_range(1..10))).await;
        }
        if dies {
            return; // others get it when the lease ends
        }
        for &position in batch.positions.iter().filter(|position| !done.contains(position)) {
            let permanent = self.rng.random_ratio(1, 20);
            let wait = self.rng.random_range(0..30);
            self.settle(&[position], format!(
                "SELECT tollgate.nack({}, {position}, 'no', make_interval(secs => 0.001 * {wait}), {permanent})", batch.claim)).await;
        }
        // One after the other, some together, or what is left.
        if !done.is_empty() && self.rng.random_bool(0.5) {
            let (some, rest) = done.split_at(self.rng.random_range(0..=done.len()));
            for part in [some, rest] {
                self.settle(
                    part,
                    format!("SELECT tollgate.ack({}, ARRAY{part:?}::bigint[])", batch.claim),
                )
                .await;
                if rest.is_empty() {
                    break; // nothing is left of the claim
                }
            }
        } else if !done.is_empty() {
            self.settle(&done, format!("SELECT tollgate.ack({})", batch.claim)).await;
        }
    }

    /// Our part ends when we say so, which is before others can begin.
    async fn settle(&self, positions: &[i64], sql: String) {
        let now = Instant::now();
        for handling in self.book.lock().unwrap().iter_mut() {
            if handling.end.is_none()
                && handling.outcome != Outcome::Died
                && positions.contains(&handling.position)
            {
                handling.end = Some(now);
            }
        }
        self.pool.execute(AssertSqlSafe(sql)).await.unwrap();
    }

    async fn all_settled(&self) -> bool {
        let status = sqlx::query_scalar(
            "SELECT lag_events = 0 FROM tollgate.consumer_status WHERE name = 'c'",
        );
        status.fetch_one(&self.pool).await.unwrap()
    }
}

fn check(book: Vec<Handling>, dead: &BTreeSet<i64>) {
    let mut by_object: BTreeMap<String, Vec<Handling>> = BTreeMap::new();
    let mut done = BTreeSet::new();
    for handling in book {
        if handling.outcome == Outcome::Done {
            assert!(done.insert(handling.position), "{} is done twice", handling.position);
        }
        by_object.entry(handling.object.clone()).or_default().push(handling);
    }
    for position in 1..=EVENTS {
        assert!(
            done.contains(&position) != dead.contains(&position),
            "{position} is neither settled nor dead"
        );
    }
    assert_eq!(i64::try_from(by_object.len()).unwrap(), OBJECTS);
    for (object, mut handled) in by_object {
        handled.sort_by_key(|handling| handling.start);
        for pair in handled.windows(2) {
            let end = pair[0].end.unwrap_or(pair[0].asked + LEASE);
            assert!(end <= pair[1].start, "{object}: {:?} overlaps {:?}", pair[0], pair[1]);
            let retried = pair[0].position == pair[1].position;
            assert!(
                retried || pair[0].position < pair[1].position,
                "{object}: {pair:?} is not in order"
            );
            let over = pair[0].outcome == Outcome::Done || dead.contains(&pair[0].position);
            assert!(retried || over, "{object}: {pair:?} overtook");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn order_holds_whatever_workers_do() {
    let seed = std::env::var("TOLLGATE_TEST_SEED")
        .map_or_else(|_| rand::random(), |text| text.parse::<u64>().expect("a number"));
    println!("TOLLGATE_TEST_SEED={seed}");
    let log = Log::new().await;
    log.consumer("c", "ordering => 'object', lease => '1 second', max_attempts => 4").await;
    let mut rng = StdRng::seed_from_u64(seed);
    let shift: i64 = rng.random_range(0..1000);
    let object = format!("'in_' || abs(hashint8(b + i + {shift}) % {OBJECTS})");
    log.insert(EVENTS / 2, "'invoice.paid'", &object, "'{}'").await;
    let book = Book::default();
    let workers: Vec<_> = (0..WORKERS)
        .map(|n| {
            let rng = StdRng::seed_from_u64(seed.wrapping_add(n + 1));
            let (pool, book) = (log.pool.clone(), Arc::clone(&book));
            tokio::spawn(Worker { pool, book, rng }.work())
        })
        .collect();
    // The rest comes while they are at work.
    for _ in 0..EVENTS / 2 / 100 {
        log.insert(100, "'invoice.paid'", &object, "'{}'").await;
    }
    for worker in workers {
        worker.await.unwrap();
    }
    let book = std::mem::take(&mut *book.lock().unwrap());
    let count = |outcome| book.iter().filter(|handling| handling.outcome == outcome).count();
    let (failed, died) = (count(Outcome::Failed), count(Outcome::Died));
    assert!(failed > 100 && died > 0, "it was tried in earnest: {failed} failed, {died} died");
    let dead: BTreeSet<i64> = log.rows("c", "dead").await.into_iter().collect();
    check(book, &dead);
    let left: i64 = log.one("SELECT count(*) FROM tollgate.deliveries WHERE state <> 'dead'").await;
    assert_eq!(left, 0);
}
