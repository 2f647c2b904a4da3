//! Waking those who wait for events: by notification, after an outage, and without either.

use std::net::SocketAddr;
use std::time::Duration;

use sqlx::PgPool;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tollgate::consume::wake::{Listening, Wake, Waker};
use tollgate::store::connect::{Database, Route};
use tollgate::store::wake::Listener;

use crate::support::postgres;

const HOUR: Duration = Duration::from_hours(1);
const SOON: Duration = Duration::from_secs(20);

fn database(url: &str) -> Database {
    Database::new(url.parse().unwrap(), Route::Direct)
}

/// A listener on a database of its own, once it is connected.
struct Bench {
    pool: PgPool,
    wake: Wake,
    stop: CancellationToken,
    task: JoinHandle<()>,
    /// Without somebody who waits nobody listens.
    waiting: Waker,
}

impl Bench {
    async fn new() -> Self {
        let url = postgres::fresh_database().await;
        let stop = CancellationToken::new();
        let (wake, task) = Wake::start(database(&url), HOUR, stop.clone());
        let pool = PgPool::connect(&url).await.unwrap();
        let bench = Self { pool, waiting: wake.subscribe(), wake, stop, task };
        bench.until_connected().await;
        bench
    }

    async fn until_connected(&self) {
        let connected = async {
            while !self.wake.connected() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(SOON, connected).await.expect("a connection");
    }

    async fn notify(&self, channel: &str) {
        sqlx::query("SELECT pg_notify($1, 'x')").bind(channel).execute(&self.pool).await.unwrap();
    }

    /// Ends the listener's connection from outside.
    async fn cut(&self) {
        let cut: i64 = sqlx::query_scalar(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
             WHERE datname = current_database() AND query LIKE 'LISTEN %'",
        )
        .fetch_one(&self.pool)
        .await
        .unwrap();
        assert_eq!(cut, 1, "one listening connection");
    }
}

/// Hearing of every event costs the server and the gateway.
#[tokio::test]
async fn nobody_listens_for_nobody() {
    let Bench { pool, wake, stop, task, waiting } = Bench::new().await;
    drop(waiting);
    sqlx::query("NOTIFY tollgate_events").execute(&pool).await.unwrap();
    let gone = async {
        while wake.connected() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, gone).await.expect("an end");
    assert_eq!(wake.listening(), Listening::No(None));
    let mut waker = wake.subscribe();
    timeout(SOON, waker.next()).await.expect("a look at what was missed");
    assert!(wake.connected());
    stop.cancel();
    timeout(SOON, task).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_notification_wakes_everybody_long_before_the_interval() {
    let bench = Bench::new().await;
    let mut wakers = [bench.wake.subscribe(), bench.wake.subscribe()];
    for channel in ["tollgate_events", "tollgate_consumers"] {
        bench.notify("another_channel").await;
        for waker in &mut wakers {
            assert!(timeout(Duration::from_millis(100), waker.next()).await.is_err());
        }
        bench.notify(channel).await;
        for waker in &mut wakers {
            timeout(SOON, waker.next()).await.expect(channel);
        }
    }
    bench.stop.cancel();
    timeout(SOON, bench.task).await.unwrap().unwrap();
    assert_eq!(bench.wake.listening(), Listening::No(None));
}

#[tokio::test]
async fn a_cut_connection_is_made_anew_and_wakes_everybody_to_catch_up() {
    let bench = Bench::new().await;
    for _ in 0..3 {
        let mut waker = bench.wake.subscribe();
        bench.cut().await;
        timeout(SOON, waker.next()).await.expect("woken after connecting again");
        bench.until_connected().await;
        bench.notify("tollgate_events").await;
        timeout(SOON, waker.next()).await.expect("woken by a notification");
    }
}

#[tokio::test]
async fn a_burst_costs_a_slow_reader_a_few_looks() {
    let bench = Bench::new().await;
    let mut waker = bench.wake.subscribe();
    sqlx::query("SELECT pg_notify('tollgate_events', n::text) FROM generate_series(1, 20000) n")
        .execute(&bench.pool)
        .await
        .unwrap();
    let mut looks = 0;
    while timeout(Duration::from_millis(500), waker.next()).await.is_ok() {
        looks += 1;
        assert!(looks <= 50, "woken too often");
        sleep(Duration::from_millis(20)).await;
    }
    assert!(looks >= 1);
}

#[tokio::test]
async fn without_a_database_the_interval_still_passes_and_the_reason_is_told() {
    let nowhere = database("postgres://x@127.0.0.1:1/x");
    let (wake, _) = Wake::start(nowhere, Duration::from_millis(50), CancellationToken::new());
    let mut waker = wake.subscribe();
    let began = Instant::now();
    waker.next().await;
    assert!(began.elapsed() >= Duration::from_millis(50));
    let told = async {
        loop {
            match wake.listening() {
                Listening::No(Some(why)) => break why,
                _ => waker.next().await,
            }
        }
    };
    let why = timeout(SOON, told).await.expect("a reason");
    assert!(why.contains("refused"), "{why}");
}

#[tokio::test]
async fn a_peer_that_vanished_without_a_word_is_noticed() {
    let url = postgres::fresh_database().await;
    let mut through: reqwest::Url = url.parse().unwrap();
    let server = format!("{}:{}", through.host_str().unwrap(), through.port().unwrap_or(5432));
    let frozen = CancellationToken::new();
    let proxy = proxy(server, frozen.clone()).await;
    through.set_ip_host(proxy.ip()).unwrap();
    through.set_port(Some(proxy.port())).unwrap();
    let pool = PgPool::connect(&url).await.unwrap();
    let mut listener = Listener::connect(&database(through.as_str())).await.unwrap();
    let (silence, answer) = (Duration::from_millis(50), Duration::from_millis(500));

    let quiet = timeout(Duration::from_millis(300), listener.heard(silence, answer)).await;
    assert!(quiet.is_err(), "silence alone is no error");
    sqlx::query("NOTIFY tollgate_events").execute(&pool).await.unwrap();
    timeout(SOON, listener.heard(silence, answer)).await.unwrap().unwrap();

    frozen.cancel();
    let heard = timeout(SOON, listener.heard(silence, answer)).await.expect("it is noticed");
    assert!(matches!(heard, Err(sqlx::Error::Io(_))), "{heard:?}");
}

/// Passes connections on until `frozen`; then says nothing more, and keeps them open.
async fn proxy(server: String, frozen: CancellationToken) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut near, _) = listener.accept().await.unwrap();
            let mut far = TcpStream::connect(&server).await.unwrap();
            let frozen = frozen.clone();
            tokio::spawn(async move {
                let copy = tokio::io::copy_bidirectional(&mut near, &mut far);
                if frozen.run_until_cancelled(copy).await.is_none() {
                    std::future::pending::<()>().await;
                }
            });
        }
    });
    address
}
