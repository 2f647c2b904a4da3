//! What tests of deliveries set up and look at in the database: consumers with targets, many
//! events at once, the state of it all; and gateways whose log is kept.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Executor, PgPool};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::receiver::{Receiver, SECRET, SOON};
use crate::support;
use crate::support::process::free_address;

/// Runs statements.
pub async fn run(pool: &PgPool, sql: &str) {
    pool.execute(AssertSqlSafe(sql.to_owned()))
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// One value, as text.
pub async fn ask(pool: &PgPool, sql: &str) -> String {
    let sql = format!("SELECT ({sql})::text");
    let value: Option<String> =
        sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(pool).await.unwrap();
    value.unwrap_or_default()
}

/// Waits until a condition holds in the database.
pub async fn until(pool: &PgPool, condition: &str) {
    let holding = async {
        while ask(pool, condition).await != "true" {
            sleep(Duration::from_millis(10)).await;
        }
    };
    if timeout(SOON, holding).await.is_err() {
        let status = "SELECT json_agg(s) FROM tollgate.consumer_status s";
        panic!("not so: {condition}; {}", ask(pool, status).await);
    }
}

/// Makes the consumer `app`, pushed to `receiver` from the log's beginning. The other arguments are
/// further ones of `create_consumer` and `set_target`, beginning with a comma.
pub async fn push_to(pool: &PgPool, receiver: &Receiver, consumer: &str, target: &str) {
    // In one transaction, or it would be claimed from in between.
    let sql = format!(
        "SELECT tollgate.create_consumer('app', start => 'earliest'{consumer});
         SELECT tollgate.set_target('app', '{}', secrets => '{{{SECRET}}}'{target})",
        receiver.url()
    );
    run(pool, &sql).await;
}

/// Records events evt_FROM to evt_TO-1 at once, by turns of so many objects.
pub async fn record(pool: &PgPool, from: usize, to: usize, objects: usize) {
    let sql = format!(
        r#"BEGIN;
        INSERT INTO tollgate.event_log (created, id, endpoint, account, livemode, type, object_type, object_id, source, raw)
        SELECT '2026-01-01Z', 'evt_' || n, 'default', '', false, 'thing.done', 'thing', 'thing_' || n % {objects}, 'webhook',
               convert_to(format('{{"id":"evt_%s","object":"event","data":{{"object":{{"id":"thing_%s"}}}}}}', n, n % {objects}), 'UTF8')
        FROM generate_series({from}, {to} - 1) n;
        SELECT tollgate.place_events(array_fill('2026-01-01Z'::timestamptz, ARRAY[{to} - {from}]), array_agg('evt_' || n),
                                     array_agg(format('"id":"evt_%s"}}', n)), 'event')
        FROM generate_series({from}, {to} - 1) n;
        COMMIT"#
    );
    run(pool, &sql).await;
}

/// Waits until everything is settled: delivered or a dead letter.
pub async fn until_settled(pool: &PgPool) {
    until(pool, "SELECT bool_and(lag_events = 0) FROM tollgate.consumer_status").await;
}

/// A gateway in a process of its own, whose log is kept.
pub struct Logged {
    child: Child,
    folder: TempDir,
}

impl Logged {
    pub async fn start(database_url: &str, flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = free_address();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_tollgate"))
            .args(["serve", "--log-format", "json", "--drain", "0s"])
            .args(["--listen", &address.to_string()])
            .args(["--admin-listen", "127.0.0.1:0"])
            .args(flags)
            .env("STRIPE_WEBHOOK_SECRET", support::SECRET)
            .env("DATABASE_URL", database_url)
            // A word about which would be in the log.
            .env_remove("TOLLGATE_TEST_DIR")
            .env_remove("TOLLGATE_TEST_DATABASE_URL")
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let gateway = Self { child, folder };
        let client = support::client();
        let ready = format!("http://{address}/readyz");
        let answers = async {
            while !client.get(&ready).send().await.is_ok_and(|answer| answer.status() == 200) {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(SOON, answers).await.expect("a gateway that is ready");
        gateway
    }

    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
    }

    /// Ends it as a service manager would; its log.
    pub async fn stop(mut self) -> Vec<Value> {
        self.signal(Signal::SIGTERM);
        let status = timeout(SOON, self.child.wait()).await.expect("an end").unwrap();
        assert!(status.success(), "{status}: {:#?}", self.log());
        self.log()
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// Its log up to now, line by line.
    pub fn log(&self) -> Vec<Value> {
        let log = std::fs::read_to_string(self.path()).unwrap();
        log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

/// The lines with this message.
pub fn lines<'a>(log: &'a [Value], message: &str) -> Vec<&'a Value> {
    log.iter().filter(|line| line["message"] == message).collect()
}
