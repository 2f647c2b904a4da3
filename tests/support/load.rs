//! Senders that keep a gateway busy and remember what they were promised.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use sqlx::PgPool;
use tokio::task::JoinSet;

use super::wire::{Wire, delivery};
use super::{event, sign};

/// What the senders saw.
#[derive(Debug, Default)]
pub struct Tally {
    /// Ids that were answered 2xx.
    pub acknowledged: Vec<String>,
    /// Answers with another status, but 503.
    pub wrong: Vec<u16>,
    /// Answers 503.
    pub unavailable: usize,
    /// Connections that broke while a request was under way.
    pub broken: usize,
}

/// Senders at work.
pub struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicUsize>,
    lanes: JoinSet<Tally>,
}

impl Load {
    /// Starts `lanes` senders, each with a connection that it keeps as long as the gateway lets it.
    pub fn start(address: SocketAddr, lanes: usize, name: &str) -> Self {
        let (stop, acknowledged) = (Arc::default(), Arc::default());
        let lanes = (0..lanes)
            .map(|lane| {
                send(
                    address,
                    format!("evt_{name}_{lane}"),
                    Arc::clone(&stop),
                    Arc::clone(&acknowledged),
                )
            })
            .collect();
        Self { stop, acknowledged, lanes }
    }

    /// Waits until this many more events have been acknowledged.
    pub async fn acknowledge(&self, more: usize) {
        let goal = self.acknowledged.load(Ordering::Relaxed) + more;
        let reached = async {
            while self.acknowledged.load(Ordering::Relaxed) < goal {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_mins(1), reached)
            .await
            .expect("acknowledgements within a minute");
    }

    /// Ends the senders after their current request.
    pub async fn finish(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Tally::default();
        for lane in self.lanes.join_all().await {
            all.acknowledged.extend(lane.acknowledged);
            all.wrong.extend(lane.wrong);
            all.unavailable += lane.unavailable;
            all.broken += lane.broken;
        }
        all
    }
}

async fn send(
    address: SocketAddr,
    name: String,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicUsize>,
) -> Tally {
    let mut tally = Tally::default();
    let (mut wire, mut number) = (None, 0_u64);
    while !stop.load(Ordering::Relaxed) {
        let Some(connection) = &mut wire else {
            wire = Wire::connect(address).await.ok();
            if wire.is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            continue;
        };
        let id = format!("{name}_{number}");
        let body = event(&id).into_bytes();
        let request = delivery("/webhooks/stripe", &sign(&body), &body);
        let answer = async {
            connection.send(&request).await?;
            connection.answer().await
        };
        match answer.await {
            Err(_) => {
                tally.broken += 1;
                wire = None;
            }
            Ok(answer) => {
                match answer.status {
                    200 => {
                        acknowledged.fetch_add(1, Ordering::Relaxed);
                        tally.acknowledged.push(id);
                        number += 1;
                    }
                    503 => tally.unavailable += 1,
                    other => tally.wrong.push(other),
                }
                if answer.close {
                    wire = None;
                }
            }
        }
    }
    tally
}

/// Every acknowledged id is in the log exactly once, and no id is there twice.
pub async fn assert_kept(pool: &PgPool, acknowledged: &[String]) {
    let missing: Vec<String> = sqlx::query_scalar(
        "SELECT id FROM unnest($1::text[]) AS a (id) EXCEPT ALL SELECT id FROM tollgate.events",
    )
    .bind(acknowledged)
    .fetch_all(pool)
    .await
    .unwrap();
    assert_eq!(missing, Vec::<String>::new(), "acknowledged, but not in the log");
    let twice: i64 =
        sqlx::query_scalar("SELECT count(*) - count(DISTINCT id) FROM tollgate.events")
            .fetch_one(pool)
            .await
            .unwrap();
    assert_eq!(twice, 0, "ids in the log more than once");
    let unplaced: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM tollgate.event_log FULL JOIN tollgate.positions USING (created, id)
         WHERE position IS NULL OR raw IS NULL",
    )
    .fetch_one(pool)
    .await
    .unwrap();
    assert_eq!(unplaced, 0, "events without a position, or positions without an event");
}
