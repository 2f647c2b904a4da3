//! Positions: whoever pages by them misses nothing and sees nothing twice, whatever commits when.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::postgres::PgListener;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, PgPool};

use crate::support::{App, event};

/// Records one event in an open transaction, without giving it a position yet.
fn record(id: &str) -> AssertSqlSafe<String> {
    AssertSqlSafe(format!(
        "INSERT INTO tollgate.event_log (created, id, endpoint, account, livemode, type, source, raw)
         VALUES (now(), '{id}', 'default', '', false, 't', 'webhook', '{{}}')"
    ))
}

fn publish(id: &str) -> AssertSqlSafe<String> {
    AssertSqlSafe(format!(
        "SELECT tollgate.place_events(ARRAY[now()], ARRAY['{id}'], ARRAY['\"id\":\"{id}\"}}'], 'event')"
    ))
}

#[tokio::test]
async fn a_slow_transaction_holds_nobody_up_and_comes_after_whoever_overtook_it() {
    let app = App::spawn().await;
    let mut slow = PgConnection::connect(&app.database_url).await.unwrap();
    slow.execute("BEGIN").await.unwrap();
    slow.execute(record("evt_slow")).await.unwrap();
    // The slow one is at work between its two steps, say in a handler. Others go on.
    for n in 0..5 {
        assert_eq!(app.deliver(event(&format!("evt_{n}"))).await.word(), "recorded");
    }
    let seen: i64 = app.count("SELECT max(position) FROM tollgate.events").await;
    slow.execute(publish("evt_slow")).await.unwrap();
    slow.execute("COMMIT").await.unwrap();
    let late = app.count("SELECT position FROM tollgate.events WHERE id = 'evt_slow'").await;
    assert!(late > seen, "{late} after {seen}");
}

#[tokio::test]
async fn a_writer_rolled_back_leaves_a_gap_and_no_confusion() {
    let app = App::spawn().await;
    let mut connection = PgConnection::connect(&app.database_url).await.unwrap();
    connection.execute("BEGIN").await.unwrap();
    connection.execute(record("evt_1")).await.unwrap();
    connection.execute(publish("evt_1")).await.unwrap();
    connection.execute("ROLLBACK").await.unwrap();
    assert_eq!(app.deliver(event("evt_1")).await.word(), "recorded");
    assert_eq!(app.count("SELECT min(position) FROM tollgate.events").await, 2);
}

/// Pages through the log as a consumer would, until `done` and nothing is left.
async fn read_pages(pool: PgPool, done: Arc<AtomicBool>) -> Vec<String> {
    let (mut last, mut seen) = (0_i64, Vec::new());
    loop {
        let finished = done.load(Ordering::SeqCst);
        let page: Vec<(i64, String)> =
            sqlx::query_as("SELECT position, id FROM tollgate.events WHERE position > $1 ORDER BY position LIMIT 50")
                .bind(last)
                .fetch_all(&pool)
                .await
                .unwrap();
        if page.is_empty() && finished {
            return seen;
        }
        if page.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        for (position, id) in page {
            assert!(position > last, "{position} after {last}");
            last = position;
            seen.push(id);
        }
    }
}

/// Counts notifications until the one that says `stop`.
async fn listen(pool: PgPool) -> tokio::task::JoinHandle<Vec<String>> {
    let mut listener = PgListener::connect_with(&pool).await.unwrap();
    listener.listen("tollgate_events").await.unwrap();
    tokio::spawn(async move {
        let mut seen = Vec::new();
        loop {
            let notice = listener.recv().await.unwrap();
            if notice.payload() == "stop" {
                return seen;
            }
            let json: serde_json::Value = serde_json::from_str(notice.payload()).unwrap();
            seen.push(json["id"].as_str().unwrap().to_owned());
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn reader_and_listener_see_every_event_of_four_gateways_once() {
    const SENDERS: usize = 16;
    const EACH: usize = 100;
    let first = App::spawn().await;
    let mut gateways = Vec::new();
    for _ in 0..3 {
        gateways.push(App::spawn_on(&first.database_url, &[("batch_events", "7")]).await);
    }
    gateways.push(first);
    let gateways = Arc::new(gateways);
    let pool = gateways[0].pool.clone();
    let done = Arc::new(AtomicBool::new(false));
    let reader = tokio::spawn(read_pages(pool.clone(), Arc::clone(&done)));
    let listener = listen(pool.clone()).await;
    let slow = tokio::spawn(commit_slowly(gateways[0].database_url.clone()));

    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let gateways = Arc::clone(&gateways);
            tokio::spawn(async move {
                for n in 0..EACH {
                    // Every tenth event is sent by two senders, through two gateways.
                    let id = if n % 10 == 0 {
                        format!("evt_{}_{n}", sender / 2)
                    } else {
                        format!("evt_s{sender}_{n}")
                    };
                    let answer = gateways[(sender + n) % gateways.len()].deliver(event(&id)).await;
                    assert_eq!(answer.status, 200);
                }
            })
        })
        .collect();
    for sender in senders {
        sender.await.unwrap();
    }
    let slow = slow.await.unwrap();
    done.store(true, Ordering::SeqCst);
    let read = reader.await.unwrap();
    pool.execute("NOTIFY tollgate_events, 'stop'").await.unwrap();
    let heard: Vec<String> = listener.await.unwrap();

    let expected = SENDERS * EACH * 9 / 10 + SENDERS / 2 * EACH / 10 + slow;
    let distinct: HashSet<_> = read.iter().collect();
    assert_eq!((read.len(), distinct.len()), (expected, expected));
    let heard_distinct: HashSet<_> = heard.iter().collect();
    assert_eq!((heard.len(), heard_distinct.len()), (expected, expected));
}

/// Commits events by hand, each after a while between its two steps; returns how many.
async fn commit_slowly(url: String) -> usize {
    let mut connection = PgConnection::connect(&url).await.unwrap();
    for n in 0..10 {
        connection.execute("BEGIN").await.unwrap();
        connection.execute(record(&format!("evt_slow_{n}"))).await.unwrap();
        tokio::time::sleep(Duration::from_millis(40)).await;
        connection.execute(publish(&format!("evt_slow_{n}"))).await.unwrap();
        connection.execute("COMMIT").await.unwrap();
    }
    10
}
