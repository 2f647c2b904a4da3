//! Partitions ahead of time, and retention.

use std::time::{Duration, SystemTime};

use sqlx::Executor;
use tollgate::clock::Clock;
use tollgate::maintain::{partitions, retention};

use crate::support::App;

const DAY: u64 = 24 * 3600;

fn clock_at(date: &str) -> Clock {
    let time = humantime::parse_rfc3339(&format!("{date}T00:00:00Z")).unwrap();
    Clock::from_fn(move || time)
}

fn seconds(date: &str) -> u64 {
    let time = humantime::parse_rfc3339(&format!("{date}T00:00:00Z")).unwrap();
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

async fn deliver_at(app: &App, id: &str, created: u64) {
    let answer = app.deliver(format!(r#"{{"id":"{id}","created":{created}}}"#)).await;
    assert_eq!(answer.word(), "recorded");
}

async fn partition_of(app: &App, id: &str) -> String {
    sqlx::query_scalar("SELECT relname::text FROM tollgate.event_log l JOIN pg_class c ON c.oid = l.tableoid WHERE l.id = $1")
        .bind(id)
        .fetch_one(&app.pool)
        .await
        .unwrap()
}

#[tokio::test]
async fn events_of_any_age_have_a_partition_and_move_when_their_month_is_made() {
    let app = App::spawn().await;
    let far = seconds("2090-05-15");
    deliver_at(&app, "evt_old", 1).await;
    deliver_at(&app, "evt_far", far).await;
    assert_eq!(partition_of(&app, "evt_old").await, "event_log_past");
    assert_eq!(partition_of(&app, "evt_far").await, "event_log_later");

    let months = app.count("SELECT count(*) FROM tollgate.log_months()").await;
    // Each run makes at most two years of months.
    for _ in 0..40 {
        partitions::run_once(&app.pool, &clock_at("2090-03-01")).await.unwrap();
    }
    assert!(app.count("SELECT count(*) FROM tollgate.log_months()").await > months + 700);
    assert_eq!(partition_of(&app, "evt_far").await, "event_log_2090_05");
    deliver_at(&app, "evt_far_too", far + DAY).await;
    assert_eq!(partition_of(&app, "evt_far_too").await, "event_log_2090_05");
    assert_eq!(app.events().await, 3);
    let not_set_up = "SELECT count(*) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'raw'
        WHERE i.inhparent = 'tollgate.event_log'::regclass
          AND (c.reloptions IS DISTINCT FROM '{toast_tuple_target=2560}' OR a.attstattarget IS DISTINCT FROM 0)";
    assert_eq!(app.count(not_set_up).await, 0, "each partition keeps bodies as the first ones do");
    // Still one row per id.
    let again = app.deliver(format!(r#"{{"id":"evt_far","created":{far}}}"#)).await;
    assert_eq!(again.word(), "duplicate");
}

#[tokio::test]
async fn retention_drops_whole_months_and_what_is_older() {
    let app = App::spawn().await;
    let oldest: String = sqlx::query_scalar("SELECT min(m)::text FROM tollgate.log_months() m")
        .fetch_one(&app.pool)
        .await
        .unwrap();
    let start = seconds(&oldest);
    deliver_at(&app, "evt_ancient", 1_000_000_000).await;
    deliver_at(&app, "evt_first", start + DAY).await;
    deliver_at(&app, "evt_second", start + 40 * DAY).await;
    app.deliver("no event").await;
    let keep = Some(Duration::from_secs(35 * DAY));
    let at = |days: u64| {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(start + days * DAY);
        Clock::from_fn(move || time)
    };

    retention::run_once(&app.pool, None, &at(10_000)).await.unwrap();
    retention::run_once(&app.pool, keep, &at(60)).await.unwrap();
    assert_eq!(app.events().await, 3, "the first month is not over for 35 days yet");

    retention::run_once(&app.pool, keep, &at(68)).await.unwrap();
    assert_eq!(app.count("SELECT count(*) FROM tollgate.events WHERE id = 'evt_first'").await, 0);
    assert_eq!(app.count("SELECT count(*) FROM tollgate.positions").await, app.events().await);
    // What is old but came just now is kept as long as anything else that came now.
    assert_eq!(app.events().await, 2);
    assert_eq!(app.quarantined().await, 1);
    deliver_at(&app, "evt_late", start + DAY).await;
    assert_eq!(partition_of(&app, "evt_late").await, "event_log_past");

    retention::run_once(&app.pool, keep, &at(4000)).await.unwrap();
    assert_eq!((app.events().await, app.quarantined().await), (0, 0));
    assert_eq!(app.count("SELECT count(*) FROM tollgate.positions").await, 0);
    deliver_at(&app, "evt_new", start + 90 * DAY).await;
}

#[tokio::test]
async fn replicas_that_drop_at_the_same_time_drop_one_month_once() {
    let app = App::spawn().await;
    let months = tollgate::store::maintenance::months(&app.pool).await.unwrap();
    // Both have read the list; the second must not drop the next month in the place of the first.
    for dropped in [true, false] {
        let done: bool = sqlx::query_scalar("SELECT tollgate.drop_month($1)")
            .bind(months[0])
            .fetch_one(&app.pool)
            .await
            .unwrap();
        assert_eq!(done, dropped);
    }
    let left = tollgate::store::maintenance::months(&app.pool).await.unwrap();
    assert_eq!(left, months[1..]);
}

#[tokio::test]
async fn partitions_give_way_to_a_busy_table() {
    let app = App::spawn().await;
    let mut busy = app.pool.begin().await.unwrap();
    busy.execute("LOCK TABLE tollgate.event_log IN ROW EXCLUSIVE MODE").await.unwrap();
    let far = clock_at("2060-01-01");
    let error = partitions::run_once(&app.pool, &far).await.unwrap_err();
    assert!(error.to_string().contains("lock timeout"), "{error}");
    busy.rollback().await.unwrap();
    partitions::run_once(&app.pool, &far).await.unwrap();
}
