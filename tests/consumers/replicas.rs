//! Many gateways deliver for one consumer: each event once while all goes well, at least once
//! whatever dies, in the order of its object always.

use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlx::PgPool;
use tokio::time::Instant;
use tollgate::embedded;

use crate::receiver::{Receiver, Reply, Request, SOON};
use crate::scene::{Logged, ask, lines, push_to, record, until, until_settled};
use crate::support::process::{Backing, Process, free_address};
use crate::support::{App, postgres};

#[tokio::test(flavor = "multi_thread")]
async fn four_gateways_push_each_event_once_and_in_order() {
    const EVENTS: usize = 2000;
    let first = App::spawn().await;
    let mut gateways = Vec::new();
    for _ in 0..3 {
        gateways.push(App::spawn_on(&first.database_url, &[]).await);
    }
    gateways.push(first);
    let pool = gateways[0].pool.clone();
    let receiver = Receiver::start().await;
    push_to(&pool, &receiver, ", ordering => 'object', lease => '1 minute'", ", concurrency => 32")
        .await;
    let began = Instant::now();
    for from in (0..EVENTS).step_by(500) {
        record(&pool, from, from + 500, 60).await;
    }
    receiver.until_delivered(EVENTS).await;
    println!("{EVENTS} events by four gateways: {:?}", began.elapsed());
    until_settled(&pool).await;
    let requests = receiver.requests();
    assert_eq!(requests.len(), EVENTS, "each once");
    assert!(requests.iter().all(|request| request.signed && request.attempt == 1));
    receiver.assert_in_order();
    assert!(receiver.most_at_once() <= 32);
    let left = "SELECT (SELECT count(*) FROM tollgate.attempts) + (SELECT count(*) FROM tollgate.deliveries)
                + (SELECT count(*) FROM tollgate.claims WHERE claim IS NOT NULL)";
    assert_eq!(ask(&pool, left).await, "0", "health leaves nothing behind");
    for gateway in gateways {
        gateway.stop().await;
    }
}

/// Events that came more than once.
fn repeats(requests: &[Request]) -> usize {
    let mut events: Vec<_> = requests.iter().map(|request| &request.event).collect();
    events.sort();
    let all = events.len();
    events.dedup();
    all - events.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_gateway_held_the_others_take_over() {
    const LEASE: Duration = Duration::from_secs(2);
    const CONCURRENCY: usize = 12;
    let url = postgres::fresh_database().await;
    let start = || Logged::start(&url, &["--log", "tollgate=debug"]);
    let mut gateways: Vec<_> = join_all((0..4).map(|_| start())).await;
    let pool = PgPool::connect(&url).await.unwrap();
    let receiver = Receiver::start().await;
    receiver.answer(|_| Reply::status(200).after(Duration::from_millis(60)));
    let target = format!(", timeout => '1 second', concurrency => {CONCURRENCY}");
    push_to(&pool, &receiver, ", ordering => 'object', lease => '2 seconds'", &target).await;
    record(&pool, 0, 400, 50).await;
    receiver.until_delivered(100).await;
    // The one that delivers most holds most: what it settles makes room, which it fills at once.
    gateways.sort_by_key(|gateway| lines(&gateway.log(), "delivery.delivered").len());
    gateways.pop().unwrap().signal(Signal::SIGKILL);
    let killed = Instant::now();
    receiver.until_delivered(400).await;
    until_settled(&pool).await;
    let requests = receiver.requests();
    let repeated = repeats(&requests);
    assert!(repeated <= CONCURRENCY, "{repeated} repeats");
    receiver.assert_in_order();
    // What had been handed out before the kill came again as a second attempt.
    let taken_over: Vec<_> = requests
        .iter()
        .filter(|request| request.attempt > 1)
        .map(|request| request.began - killed)
        .collect();
    println!("taken over after the kill: {taken_over:?}");
    assert!((1..=CONCURRENCY).contains(&taken_over.len()), "{taken_over:?}");
    // The lease, a poll interval, and time for slow machines.
    let limit = LEASE + Duration::from_secs(1) + Duration::from_secs(4);
    assert!(taken_over.iter().all(|after| *after < limit), "{taken_over:?}");
    for gateway in gateways {
        gateway.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_postgres_loses_no_delivery() {
    const CONCURRENCY: usize = 8;
    let data_dir = tempfile::tempdir().unwrap();
    let process = Process::start(free_address(), Backing::Embedded(data_dir.path()), &[]).await;
    let pool =
        PgPool::connect(&embedded::running(data_dir.path()).unwrap().unwrap().url()).await.unwrap();
    let receiver = Receiver::start().await;
    receiver.answer(|_| Reply::status(200).after(Duration::from_millis(20)));
    let target = format!(", timeout => '1 second', concurrency => {CONCURRENCY}");
    push_to(&pool, &receiver, ", ordering => 'object', lease => '2 seconds'", &target).await;
    record(&pool, 0, 300, 40).await;
    pool.close().await;
    receiver.until_delivered(100).await;
    kill(postmaster(data_dir.path()), Signal::SIGKILL).unwrap();
    receiver.until_delivered(300).await;
    let pool = tokio::time::timeout(SOON, reconnected(data_dir.path())).await.unwrap();
    until_settled(&pool).await;
    let repeated = repeats(&receiver.requests());
    println!("repeated after the kill of Postgres: {repeated}");
    assert!(repeated <= CONCURRENCY, "{repeated} repeats");
    receiver.assert_in_order();
    process.stop().await;
}

fn postmaster(data_dir: &Path) -> Pid {
    let file = std::fs::read_to_string(data_dir.join("postgres/postmaster.pid")).unwrap();
    Pid::from_raw(file.lines().next().unwrap().trim().parse().unwrap())
}

async fn reconnected(data_dir: &Path) -> PgPool {
    loop {
        if let Ok(Some(server)) = embedded::running(data_dir)
            && let Ok(pool) = PgPool::connect(&server.url()).await
        {
            return pool;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_goes_down_settles_what_is_under_way() {
    let app = App::spawn().await;
    let receiver = Receiver::start().await;
    receiver.answer(|_| Reply::status(200).after(Duration::from_millis(700)));
    push_to(&app.pool, &receiver, "", ", concurrency => 10").await;
    record(&app.pool, 0, 30, 30).await;
    receiver.until("ten under way", |requests| requests.len() == 10).await;
    let url = app.database_url.clone();
    app.stop().await;
    let pool = PgPool::connect(&url).await.unwrap();
    let settled = receiver.requests();
    assert!(settled.iter().all(Request::delivered), "it did not wait for them");
    assert_eq!(ask(&pool, "SELECT in_flight FROM tollgate.consumer_status").await, "0");
    receiver.answer(|_| Reply::status(200));
    let next = App::spawn_on(&url, &[]).await;
    until_settled(&pool).await;
    assert_eq!((receiver.requests().len(), receiver.delivered().len()), (30, 30), "none twice");
    until(&pool, "SELECT count(*) = 0 FROM tollgate.deliveries").await;
    next.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hung_target_does_not_keep_a_gateway_from_going_down() {
    let url = postgres::fresh_database().await;
    let gateway = Logged::start(&url, &["--shutdown-timeout", "2s"]).await;
    let pool = PgPool::connect(&url).await.unwrap();
    let receiver = Receiver::start().await;
    receiver.answer(|_| Reply::hang());
    push_to(&pool, &receiver, ", lease => '80 seconds'", ", timeout => '40 seconds'").await;
    record(&pool, 0, 3, 3).await;
    receiver.until("three under way", |requests| requests.len() == 3).await;
    let began = Instant::now();
    // Expects a good end.
    let log = gateway.stop().await;
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    let told = "deliveries under way did not end in time; they will be made again";
    assert_eq!(lines(&log, told).len(), 1, "{log:#?}");
    assert_eq!(ask(&pool, "SELECT in_flight FROM tollgate.consumer_status").await, "3");
}
