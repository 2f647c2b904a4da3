//! The database dies, or cuts its connections.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlx::{Connection, PgConnection, PgPool};
use tollgate::embedded;

use crate::rounds;
use crate::support::load::{Load, assert_kept};
use crate::support::postgres;
use crate::support::process::{Backing, Process, free_address};

/// `kill -9` of the embedded Postgres, by turns the whole server and one of its backends.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_postgres_loses_nothing_and_comes_back_by_itself() {
    let data_dir = tempfile::tempdir().unwrap();
    let address = free_address();
    let process = Process::start(address, Backing::Embedded(data_dir.path()), &[]).await;
    let load = Load::start(address, 16, "dbkilled");
    for round in 0..rounds(20) {
        load.acknowledge(200).await;
        let victim = if round % 2 == 0 {
            postmaster(data_dir.path())
        } else {
            a_backend(data_dir.path()).await
        };
        kill(victim, Signal::SIGKILL).unwrap();
    }
    load.acknowledge(200).await;
    let tally = load.finish().await;
    assert_eq!((tally.broken, tally.wrong), (0, vec![]), "clients see 200 or 503, and no reset");
    let url = embedded::running(data_dir.path()).unwrap().expect("the database runs").url();
    assert_kept(&PgPool::connect(&url).await.unwrap(), &tally.acknowledged).await;
    process.stop().await;
}

fn postmaster(data_dir: &std::path::Path) -> Pid {
    let file = std::fs::read_to_string(data_dir.join("postgres/postmaster.pid")).unwrap();
    Pid::from_raw(file.lines().next().unwrap().trim().parse().unwrap())
}

/// One of the gateway's connections, as seen from the server. Waits for that: when it was killed, its
/// backends may go on for a while and acknowledge, before another is up.
async fn a_backend(data_dir: &std::path::Path) -> Pid {
    let found = async {
        loop {
            if let Some(pid) = look_for_backend(data_dir).await {
                return Pid::from_raw(pid);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), found).await.expect("the database runs")
}

async fn look_for_backend(data_dir: &std::path::Path) -> Option<i32> {
    let url = embedded::running(data_dir).ok()??.url();
    let mut admin = PgConnection::connect(&url).await.ok()?;
    let pid = sqlx::query_scalar(
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'tollgate' AND pid <> pg_backend_pid()
         ORDER BY (query LIKE '%tollgate.%_events(%') DESC, random() LIMIT 1",
    );
    pid.fetch_optional(&mut admin).await.ok()?
}

/// `pg_terminate_backend` of every gateway connection every 200 ms.
#[tokio::test(flavor = "multi_thread")]
async fn terminated_backends_lose_nothing() {
    let url = postgres::fresh_database().await;
    let address = free_address();
    let process = Process::start(address, Backing::Url(&url), &[]).await;
    let load = Load::start(address, 32, "cut");
    let mut admin = PgConnection::connect(&url).await.unwrap();
    let mut cut = 0;
    for _ in 0..rounds(20) * 2 {
        load.acknowledge(1).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        let terminated: i64 = sqlx::query_scalar(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
             WHERE datname = current_database() AND application_name = 'tollgate'",
        )
        .fetch_one(&mut admin)
        .await
        .unwrap();
        cut += terminated;
    }
    load.acknowledge(100).await;
    let tally = load.finish().await;
    assert!(cut > 20, "{cut} connections were cut");
    assert_eq!((tally.broken, tally.wrong), (0, vec![]), "clients see 200 or 503, and no reset");
    assert_kept(&PgPool::connect(&url).await.unwrap(), &tally.acknowledged).await;
    process.stop().await;
}
