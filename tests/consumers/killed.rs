//! Worker processes killed again and again, and the database under them: every event is handled, in
//! order by object, and repeated only where a worker was killed at it. `TOLLGATE_TEST_EVENTS` says
//! how many events (100000; a fifth of it where Postgres is killed).

use std::os::unix::process::parent_id;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::RngExt;
use rand::SeedableRng;
use rand::rngs::StdRng;
use sqlx::{Connection, Executor, PgConnection};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tollgate::embedded::{Options, Postgres};

use crate::seed::{Log, claim};

const WORKERS: usize = 8;
const BATCH: i64 = 100;
const OBJECTS: i64 = 2000;
const SERVER_KILLS: i64 = 6;
/// Tells a process of this binary that it is a worker, and on which database.
const WORKER_OF: &str = "TOLLGATE_TEST_WORKER_OF";
/// Far more than it takes (a minute); beyond it something is stuck.
const PATIENCE: Duration = Duration::from_mins(8);

fn events() -> i64 {
    std::env::var("TOLLGATE_TEST_EVENTS").map_or(100_000, |text| text.parse().expect("a number"))
}

/// The worker's body; a test in name only, so that this binary can be its own worker. Ends when
/// the test does.
#[tokio::test]
async fn worker() {
    let Ok(url) = std::env::var(WORKER_OF) else { return };
    let parent = parent_id();
    while parent_id() == parent {
        // Whatever fails, a worker connects again and asks for more.
        if let Err(error) = work(&url, parent).await {
            if code(&error).is_some_and(|code| code.starts_with("TG")) {
                eprintln!("worker: {error}");
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Claims, writes down what it handled in one transaction, and acknowledges in the next, so that
/// there is something to repeat.
async fn work(url: &str, parent: u32) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    while parent_id() == parent {
        let batch = claim(&mut connection, "c", BATCH).await?;
        if batch.claim == 0 {
            sleep(Duration::from_millis(20)).await;
            continue;
        }
        sqlx::query(
            "INSERT INTO handled (position, object, claim) SELECT *, $3 FROM unnest($1::bigint[], $2::text[])",
        )
        .bind(&batch.positions)
        .bind(&batch.objects)
        .bind(batch.claim)
        .execute(&mut connection)
        .await?;
        let ack = sqlx::query("SELECT tollgate.ack($1)").bind(batch.claim);
        match ack.execute(&mut connection).await {
            Ok(_) => {}
            // Too slow: others have it. That is no kill, but explains repeats as well.
            Err(error) if code(&error).as_deref() == Some("TG011") => {
                connection.execute("INSERT INTO late DEFAULT VALUES").await?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn code(error: &sqlx::Error) -> Option<String> {
    Some(error.as_database_error()?.code()?.into_owned())
}

fn start_worker(url: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "killed::worker"])
        .env(WORKER_OF, url)
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// A log with events in it, and where workers write down what they handled, in the order they did.
async fn prepare(url: String, events: i64) -> Log {
    let log = Log::on(url).await;
    log.sql("CREATE TABLE handled (number bigserial, position bigint, object text, claim bigint)")
        .await;
    log.sql("CREATE TABLE late (at timestamptz DEFAULT now())").await;
    log.consumer("c", "ordering => 'object', lease => '2 seconds', max_attempts => 1000").await;
    let mut left = events;
    while left > 0 {
        let object = format!("'in_' || abs(hashint8(b + i) % {OBJECTS})");
        log.insert(left.min(10_000), "'invoice.paid'", &object, "'{}'").await;
        left -= 10_000;
    }
    log
}

/// Kills workers, each about once a second, until all is handled; returns how many.
async fn kill_workers(url: &str, rng: &mut StdRng) -> i64 {
    let mut workers: Vec<Child> = (0..WORKERS).map(|_| start_worker(url)).collect();
    let (since, mut kills, mut asked) = (Instant::now(), 0, Instant::now());
    loop {
        sleep(Duration::from_millis(rng.random_range(50..200))).await;
        if asked.elapsed() > Duration::from_secs(1) {
            asked = Instant::now();
            if all_settled(url).await {
                break;
            }
        }
        assert!(since.elapsed() < PATIENCE, "not done after {PATIENCE:?}, {kills} kills");
        let victim = &mut workers[rng.random_range(0..WORKERS)];
        victim.kill().await.unwrap();
        kills += 1;
        *victim = start_worker(url);
    }
    println!("{kills} kills in {:?}", since.elapsed());
    kills
}

/// Whether nothing is left to do; `false` too if there is no telling.
async fn all_settled(url: &str) -> bool {
    let asked = timeout(Duration::from_secs(5), async {
        let mut connection = PgConnection::connect(url).await?;
        sqlx::query_scalar("SELECT lag_events = 0 FROM tollgate.consumer_status")
            .fetch_one(&mut connection)
            .await
    });
    asked.await.is_ok_and(|answer: Result<bool, sqlx::Error>| answer.unwrap_or(false))
}

/// `interrupted` batches at most were in flight when somebody was killed.
async fn check(log: &Log, events: i64, interrupted: i64) {
    let distinct: i64 = log.one("SELECT count(DISTINCT position) FROM handled").await;
    let beyond: i64 = log
        .one(format!("SELECT count(*) FROM handled WHERE position NOT BETWEEN 1 AND {events}"))
        .await;
    assert_eq!((distinct, beyond), (events, 0), "every event is handled");
    let overtaken: i64 = log
        .one(
            "SELECT count(*) FROM (
                SELECT position < max(position) OVER (PARTITION BY object ORDER BY number) AS late
                FROM (SELECT object, position, min(number) AS number FROM handled GROUP BY 1, 2) first) o WHERE late",
        )
        .await;
    assert_eq!(overtaken, 0, "in order by object");
    let wrong: i64 = log.one("SELECT count(*) FROM tollgate.deliveries").await;
    assert_eq!(wrong, 0, "no dead letters, and nothing left behind");
    let all: i64 = log.one("SELECT count(*) FROM handled").await;
    let late: i64 = log.one("SELECT count(*) FROM late").await;
    println!(
        "{} repeated, {interrupted} batches interrupted, {late} acknowledged too late",
        all - distinct
    );
    assert!(all - distinct <= (interrupted + late) * BATCH, "{} repeats", all - distinct);
    assert!(
        late <= events / 1000,
        "leases run out because workers die, not because they are slow: {late}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_workers_skip_nothing() {
    let seed = rand::random();
    println!("seed {seed}");
    let events = events();
    let log = prepare(crate::support::postgres::fresh_database().await, events).await;
    let kills = kill_workers(&log.url, &mut StdRng::seed_from_u64(seed)).await;
    assert!(kills > 8, "{kills} kills");
    check(&log, events, kills).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_postgres_skips_nothing() {
    let seed = rand::random();
    println!("seed {seed}");
    let events = events() / 5;
    let data_dir = tempfile::tempdir().unwrap();
    let options = Options { data_dir: data_dir.path().to_owned(), bin_dir: None, port: None };
    let server = Postgres::start(&options).await.unwrap();
    let log = prepare(server.connection().url(), events).await;
    let (stop, server) = (CancellationToken::new(), std::sync::Arc::new(server));
    let supervisor = tokio::spawn({
        let (stop, server) = (stop.clone(), server.clone());
        async move { server.supervise(stop).await }
    });
    let killer = tokio::spawn({
        let server = server.clone();
        async move {
            for killed in 0..SERVER_KILLS {
                sleep(Duration::from_secs(3)).await;
                if all_settled(&server.connection().url()).await {
                    return killed;
                }
                if let Some(pid) = server.pid() {
                    kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGKILL).unwrap();
                }
            }
            SERVER_KILLS
        }
    });
    let kills = kill_workers(&log.url, &mut StdRng::seed_from_u64(seed)).await;
    let servers: i64 = killer.await.unwrap();
    assert!(servers > 0, "Postgres was killed");
    check(&log, events, kills + servers * i64::try_from(WORKERS).unwrap()).await;
    stop.cancel();
    supervisor.await.unwrap();
    log.pool.close().await;
    server.stop().await.unwrap();
}
