//! The programs of examples/workers, each twice at a time on a real database. Python and Node.js
//! find their packages in target/test-tools; without these the tests are skipped, but not where
//! CI=true.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::seed::Log;

fn root() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}

/// Whether a program is there and does this.
async fn works(program: &str, args: &[&str], node_path: &Path) -> bool {
    let mut command = Command::new(program);
    command.args(args).env("NODE_PATH", node_path).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().await.is_ok_and(|status| status.success())
}

fn skip(what: &str) {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{what} is missing");
    eprintln!("SKIPPED: {what} is missing; scripts/ensure-test-tools installs it");
}

fn start(program: &str, file: &Path, url: &str) -> Child {
    Command::new(program)
        .arg(file)
        .env("DATABASE_URL", url)
        .env("FAIL_TYPE", "test.fails")
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// Ends it as a supervisor would; returns what it printed.
async fn stop(worker: Child) -> Vec<String> {
    let pid = Pid::from_raw(i32::try_from(worker.id().expect("it still runs")).unwrap());
    kill(pid, Signal::SIGTERM).unwrap();
    let ended = timeout(Duration::from_secs(20), worker.wait_with_output());
    let output = ended.await.expect("it ends").unwrap();
    assert_eq!(output.status.code(), Some(0), "a clean end");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

async fn until(log: &Log, condition: &str) {
    for _ in 0..600 {
        if log.one::<bool>(format!("SELECT {condition}")).await {
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
    panic!("after a minute still not: {condition}");
}

async fn two_of(program: &str, file: &Path, consumer: &str) {
    let log = Log::new().await;
    log.seed(150).await;
    let fails = log.event("test.fails", "in_x").await;
    // Whoever can sign an event chooses its texts.
    log.event("test.odd", "p\n0) WHERE false; CREATE TABLE public.pwned(); --\t1\tx\ty").await;
    let workers = [start(program, file, &log.url), start(program, file, &log.url)];
    // What comes while they wait, they are told of or find.
    until(&log, "EXISTS (SELECT FROM tollgate.consumer_status WHERE lag_events = 1)").await;
    log.seed(148).await;
    until(
        &log,
        "(SELECT cursor = 300 AND lag_events = 1 AND in_flight = 0 FROM tollgate.consumer_status)",
    )
    .await;
    let mut printed = Vec::new();
    for worker in workers {
        printed.extend(stop(worker).await);
    }
    printed.sort_unstable();
    let expected = "SELECT concat_ws(' ', position, id, type) FROM tollgate.events WHERE position <> $1 ORDER BY 1";
    let mut expected: Vec<String> =
        sqlx::query_scalar(expected).bind(fails).fetch_all(&log.pool).await.unwrap();
    expected.sort_unstable();
    assert_eq!(printed, expected, "each once, by one or the other");
    let broken_out = log.one::<bool>("SELECT to_regclass('public.pwned') IS NOT NULL").await;
    assert!(!broken_out, "a text of an event was run as SQL");
    assert_eq!(log.rows(consumer, "waiting").await, [fails]);
    let told: String = log.one("SELECT error FROM tollgate.deliveries").await;
    assert!(["told to fail", "handle failed"].contains(&told.as_str()), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn python() {
    let python = root().join("target/test-tools/python/bin/python");
    let python = python.to_str().unwrap();
    if !works(python, &["-c", "import psycopg"], Path::new("")).await {
        return skip("Python with psycopg");
    }
    two_of(python, &root().join("examples/workers/worker.py"), "python").await;
}

/// Modules find packages beside the file or above it, hence the copy.
#[tokio::test(flavor = "multi_thread")]
async fn node() {
    let packages = root().join("target/test-tools/node/node_modules");
    if !works("node", &["-e", "require('pg')"], &packages).await {
        return skip("Node.js with pg");
    }
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(&packages, folder.path().join("node_modules")).unwrap();
    let copy = folder.path().join("worker.mjs");
    std::fs::copy(root().join("examples/workers/worker.mjs"), &copy).unwrap();
    two_of("node", &copy, "node").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shell() {
    if !works("psql", &["--version"], Path::new("")).await {
        return skip("psql");
    }
    two_of("sh", &root().join("examples/workers/worker.sh"), "shell").await;
}
