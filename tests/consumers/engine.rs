//! The engine by itself, step by step, with a target of the test's own: what a new sink builds on.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tollgate::clock::Clock;
use tollgate::consume::engine::Engine;
use tollgate::consume::target::{Attempt, Delivery, Target, Verdict};
use tollgate::maintain::history;

use crate::seed::Log;

/// Notes what comes, and answers as it is told.
struct Scripted {
    came: Mutex<Vec<(i64, i32)>>,
    verdict: fn(&Delivery) -> Verdict,
}

impl Target for Scripted {
    fn deliver<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, Attempt> {
        self.came.lock().unwrap().push((delivery.position, delivery.attempt));
        let verdict = (self.verdict)(delivery);
        let error = if verdict == Verdict::Delivered { "" } else { "told to" }.to_owned();
        let attempt =
            Attempt { verdict, status: None, error, answer: String::new(), took: Duration::ZERO };
        std::future::ready(attempt).boxed()
    }
}

#[tokio::test]
async fn steps_deliver_retry_and_give_up() {
    let log = Log::new().await;
    log.seed(4).await;
    log.consumer("c", "max_attempts => 3").await;
    log.sql("SELECT tollgate.set_target('c', 'http://localhost')").await;
    let target = Arc::new(Scripted {
        came: Mutex::default(),
        verdict: |delivery| match (delivery.position, delivery.attempt) {
            (2, 1) | (4, _) => Verdict::Retry { after: None },
            (3, _) => Verdict::Refused,
            _ => Verdict::Delivered,
        },
    });
    let mut engine = Engine::new(log.pool.clone(), "c".into(), target.clone(), 16, Arc::default());
    assert_eq!(engine.run_once().await.unwrap(), 4);
    assert_eq!(engine.run_once().await.unwrap(), 0, "nothing is due yet");
    for left in [2, 1] {
        log.sql("UPDATE tollgate.deliveries SET next_attempt = now() WHERE state = 'waiting'")
            .await;
        assert_eq!(engine.run_once().await.unwrap(), left);
    }
    let mut came = std::mem::take(&mut *target.came.lock().unwrap());
    came.sort_unstable();
    assert_eq!(came, [(1, 1), (2, 1), (2, 2), (3, 1), (4, 1), (4, 2), (4, 3)]);
    let dead: Vec<String> =
        log.all("SELECT position || ' ' || reason FROM tollgate.dead_letters ORDER BY 1").await;
    assert_eq!(dead, ["3 non_retryable", "4 max_attempts_exceeded"]);
    assert_eq!(log.one::<i64>("SELECT count(*) FROM tollgate.deliveries").await, 2);
}

#[tokio::test]
async fn attempts_are_forgotten_after_a_month_and_dead_letters_never() {
    let log = Log::new().await;
    log.seed(2).await;
    log.consumer("c", "").await;
    log.sql("SELECT tollgate.set_target('c', 'http://localhost')").await;
    let target = Scripted { came: Mutex::default(), verdict: |_| Verdict::Refused };
    let mut engine =
        Engine::new(log.pool.clone(), "c".into(), Arc::new(target), 16, Arc::default());
    assert_eq!(engine.run_once().await.unwrap(), 2);
    log.sql("UPDATE tollgate.attempts SET at = now() - interval '31 days' WHERE position = 1")
        .await;
    history::run_once(&log.pool, &Clock::system()).await.unwrap();
    let left: Vec<i64> = log.all("SELECT position FROM tollgate.attempts").await;
    assert_eq!(left, [2]);
    assert_eq!(log.one::<i64>("SELECT count(*) FROM tollgate.dead_letters").await, 2);
}
