//! Deliveries by the minute: what the dashboard's charts are made of.

use std::time::Duration;

use sqlx::PgPool;
use time::OffsetDateTime;
use tollgate::clock::Clock;
use tollgate::ingest::queue::Outcome;
use tollgate::ingest::traffic::Traffic;
use tollgate::maintain::traffic::{self as duty, Ledger};
use tollgate::store::traffic::{self, Counts, Ending, LATENCY_BOUNDS, Minute, Point};

use crate::support::{App, event, postgres};

/// All of the last and the next hour in one.
async fn recent(pool: &PgPool) -> Point {
    let now = Clock::system().now();
    let hour = Duration::from_hours(1);
    let points = traffic::series(pool, now - hour, now + hour, Duration::from_mins(1)).await;
    Point::sum(&points.unwrap()).unwrap()
}

/// A migrated database without a gateway.
async fn database() -> PgPool {
    let app = App::spawn().await;
    let pool = app.pool.clone();
    app.stop().await;
    pool
}

#[tokio::test]
async fn deliveries_are_written_down_at_shutdown_and_add_up_over_gateways() {
    let url = postgres::fresh_database().await;
    let (one, two) = (App::spawn_on(&url, &[]).await, App::spawn_on(&url, &[]).await);
    assert_eq!(one.deliver(event("evt_minutes_1")).await.word(), "recorded");
    assert_eq!(one.deliver(event("evt_minutes_2")).await.word(), "recorded");
    assert_eq!(two.deliver(event("evt_minutes_2")).await.word(), "duplicate");
    assert_eq!(two.deliver(event("evt_minutes_3")).await.word(), "recorded");
    assert_eq!(two.deliver("{}").await.word(), "quarantined");
    assert_eq!(one.deliver_signed(b"{}".to_vec(), "t=1,v1=00").await.status, 400);
    let pool = one.pool.clone();
    one.stop().await;
    two.stop().await;

    let all = recent(&pool).await;
    let counts = Ending::ALL.map(|ending| all.deliveries(ending));
    assert_eq!(counts, [3, 1, 1, 1, 0]);
    let bytes = u64::try_from(event("evt_minutes_1").len()).unwrap();
    assert_eq!(all.of(Ending::Recorded).bytes, 3 * bytes);
    let (half, most) = (all.latency(0.5).unwrap(), all.latency(0.99).unwrap());
    assert!(half > 0.0 && half <= most && most < 30.0, "{half} {most}");
    let seconds = all.of(Ending::Recorded).seconds;
    assert!(seconds > 0.0 && seconds < 60.0, "{seconds}");
}

#[tokio::test]
async fn counts_wait_for_the_database_and_keep_their_minutes() {
    let pool = database().await;
    let traffic = std::sync::Arc::new(Traffic::default());
    let second = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(600));
    let clock = {
        let second = second.clone();
        Clock::from_fn(move || {
            let at = second.load(std::sync::atomic::Ordering::Relaxed);
            std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(at)
        })
    };
    let nobody = sqlx::postgres::PgPoolOptions::new()
        .acquire_timeout(Duration::from_secs(1))
        .connect_lazy("postgres://nobody@127.0.0.1:1/none")
        .unwrap();
    let recorded = || {
        let outcome = Outcome::Recorded { position: 1 };
        traffic.answered(Ok(&outcome), None, 7, Duration::from_millis(4));
    };

    let mut ledger = Ledger::new(clock, traffic.clone());
    recorded();
    ledger.run_once(&nobody).await.unwrap_err();
    second.store(661, std::sync::atomic::Ordering::Relaxed);
    recorded();
    recorded();
    ledger.run_once(&nobody).await.unwrap_err();
    ledger.run_once(&pool).await.unwrap();
    // Nothing new, nothing written.
    ledger.run_once(&pool).await.unwrap();

    let at = |second| OffsetDateTime::from_unix_timestamp(second).unwrap();
    let minute = Duration::from_mins(1);
    let points = traffic::series(&pool, at(540), at(780), minute).await.unwrap();
    let recorded: Vec<_> = points.iter().map(|point| point.deliveries(Ending::Recorded)).collect();
    assert_eq!(recorded, [0, 1, 2, 0]);
    assert_eq!(points[2].of(Ending::Recorded).bytes, 14);
    assert_eq!(points[0].latency(0.5), None);
    let p50 = points[2].latency(0.5).unwrap();
    assert!((0.003..=0.005).contains(&p50), "{p50}");
    // Steps of two minutes hold both.
    let points = traffic::series(&pool, at(600), at(661), minute * 2).await.unwrap();
    let recorded: Vec<_> = points.iter().map(|point| point.deliveries(Ending::Recorded)).collect();
    assert_eq!(recorded, [3]);
}

#[tokio::test]
async fn what_is_older_than_ninety_days_goes() {
    let pool = database().await;
    let day = Duration::from_hours(24);
    let now = Clock::system().now().replace_second(0).unwrap().replace_nanosecond(0).unwrap();
    let mut counts = Counts::default();
    counts.latency[3] = 1;
    let ages = [now, now - day * 89, now - day * 91, now - day * 400];
    let minutes = ages.map(|at| Minute { at, ending: Ending::Duplicate, counts });
    traffic::add(&pool, &minutes).await.unwrap();
    duty::run_once(&pool, &Clock::system()).await.unwrap();
    let left: Vec<OffsetDateTime> =
        sqlx::query_scalar("SELECT minute FROM tollgate.traffic_minutes ORDER BY minute DESC")
            .fetch_all(&pool)
            .await
            .unwrap();
    assert_eq!(left, ages[..2]);
}

/// The rows know buckets by their place only.
#[tokio::test]
async fn the_table_says_what_its_buckets_are() {
    let pool = database().await;
    let comment: String = sqlx::query_scalar(
        "SELECT col_description('tollgate.traffic_minutes'::regclass, attnum) FROM pg_attribute
         WHERE attrelid = 'tollgate.traffic_minutes'::regclass AND attname = 'latency'",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    let list = |bounds: &[f64], unit: f64| {
        let bounds: Vec<_> = bounds
            .iter()
            .map(|bound| ((bound * unit * 100.0).round() / 100.0).to_string())
            .collect();
        bounds.join(", ")
    };
    let (short, long): (Vec<_>, Vec<_>) = LATENCY_BOUNDS.iter().partition(|bound| **bound < 1.0);
    let said = format!("up to {} milliseconds, {} seconds,", list(&short, 1e3), list(&long, 1.0));
    assert!(comment.contains(&said), "{said}\n{comment}");
}
