//! The gateway dies, or is asked to go.

use nix::sys::signal::Signal;
use sqlx::{Executor, PgPool};
use tollgate::embedded;

use crate::rounds;
use crate::support::load::{Load, assert_kept};
use crate::support::postgres;
use crate::support::process::{Backing, Process, free_address};

/// `kill -9` in the middle of load, restarted each time: its Postgres, orphaned, is adopted.
#[tokio::test(flavor = "multi_thread")]
async fn killed_gateways_lose_nothing_they_acknowledged() {
    let data_dir = tempfile::tempdir().unwrap();
    let address = free_address();
    let mut process = Process::start(address, Backing::Embedded(data_dir.path()), &[]).await;
    let load = Load::start(address, 16, "killed");
    for _ in 0..rounds(20) {
        load.acknowledge(200).await;
        process.signal(Signal::SIGKILL);
        process.wait().await;
        process = Process::start(address, Backing::Embedded(data_dir.path()), &[]).await;
    }
    load.acknowledge(200).await;
    let tally = load.finish().await;
    assert_eq!(tally.wrong, Vec::<u16>::new());
    assert!(tally.broken >= 1, "the load was never interrupted");
    let url = embedded::running(data_dir.path()).unwrap().expect("the database runs").url();
    assert_kept(&PgPool::connect(&url).await.unwrap(), &tally.acknowledged).await;
    process.stop().await;
    assert_eq!(
        embedded::running(data_dir.path()).unwrap(),
        None,
        "the database went with its gateway"
    );
}

/// A handler's effect and the event are one: whenever the gateway is killed, the credits are what the
/// log says.
#[tokio::test(flavor = "multi_thread")]
async fn credits_equal_the_log_however_often_the_gateway_is_killed() {
    let url = postgres::fresh_database().await;
    let flags = ["--billing-tables", "true"];
    let address = free_address();
    let mut process = Process::start(address, Backing::Url(&url), &flags).await;
    let pool = PgPool::connect(&url).await.unwrap();
    pool.execute(
        "CREATE TABLE public.account (credits bigint NOT NULL);
         INSERT INTO public.account VALUES (0);
         CREATE FUNCTION public.credit(e jsonb) RETURNS void LANGUAGE sql AS
         'UPDATE public.account SET credits = credits + 1';
         SELECT tollgate.register_handler('invoice.paid', 'public.credit(jsonb)'::regprocedure);",
    )
    .await
    .unwrap();
    let load = Load::start(address, 8, "credits");
    for round in 0..rounds(20) {
        load.acknowledge(50).await;
        process.signal(Signal::SIGKILL);
        process.wait().await;
        // What the dead gateway had sent may still be running.
        let both =
            "SELECT (SELECT credits FROM public.account), (SELECT count(*) FROM tollgate.events)";
        let (credits, events): (i64, i64) = sqlx::query_as(both).fetch_one(&pool).await.unwrap();
        assert_eq!(credits, events, "round {round}");
        process = Process::start(address, Backing::Url(&url), &flags).await;
    }
    let tally = load.finish().await;
    assert_eq!(tally.wrong, Vec::<u16>::new());
    assert_kept(&pool, &tally.acknowledged).await;
    let failures: i64 = sqlx::query_scalar("SELECT count(*) FROM tollgate.failures")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(failures, 0);
    process.stop().await;
}

/// SIGTERM under load: nobody sees a reset, or a status other than 200 and 503.
#[tokio::test(flavor = "multi_thread")]
async fn asked_to_go_it_goes_without_cutting_anybody_off() {
    let url = postgres::fresh_database().await;
    let address = free_address();
    let mut acknowledged = Vec::new();
    for round in 0..rounds(10) {
        let mut process = Process::start(address, Backing::Url(&url), &["--drain", "300ms"]).await;
        let load = Load::start(address, 64, &format!("round{round}"));
        load.acknowledge(500).await;
        process.signal(Signal::SIGTERM);
        let status = process.wait().await;
        let tally = load.finish().await;
        assert_eq!(status.code(), Some(0), "round {round}");
        assert_eq!((tally.broken, tally.wrong), (0, vec![]), "round {round}");
        acknowledged.extend(tally.acknowledged);
    }
    assert_kept(&PgPool::connect(&url).await.unwrap(), &acknowledged).await;
}

/// A terminal that is closed ends it as Ctrl-C does, and its database with it.
#[tokio::test]
async fn a_hangup_ends_it_in_good_order() {
    let data_dir = tempfile::tempdir().unwrap();
    let backing = Backing::Embedded(data_dir.path());
    let mut process = Process::start(free_address(), backing, &["--drain", "0s"]).await;
    // The shell sends one, the kernel another.
    process.signal(Signal::SIGHUP);
    process.signal(Signal::SIGHUP);
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    process.signal(Signal::SIGHUP);
    assert_eq!(process.wait().await.code(), Some(0));
    assert_eq!(embedded::running(data_dir.path()).unwrap(), None);
}

/// A second signal ends it at once.
#[tokio::test]
async fn a_second_signal_aborts() {
    let url = postgres::fresh_database().await;
    let mut process = Process::start(free_address(), Backing::Url(&url), &["--drain", "1h"]).await;
    process.signal(Signal::SIGTERM);
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    process.signal(Signal::SIGINT);
    assert_eq!(process.wait().await.code(), Some(130));
}
