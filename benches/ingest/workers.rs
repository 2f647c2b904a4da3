//! SQL workers beside the load, a consumer each: they claim all events without their bodies, and
//! acknowledge them. A process of their own, so that what they take of the CPU can be told apart.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, ensure};
use futures_util::future::try_join_all;
use sqlx::{Connection, PgConnection};

use crate::usage::Watch;

/// Events per claim.
const BATCH: i32 = 100;

/// Pause of a worker that found nothing, or is to rest.
const PAUSE: Duration = Duration::from_millis(5);

/// Words to the process, a line each.
const GO: &str = "go";
const REST: &str = "rest";

/// The process that works, resting at first.
pub struct Workers {
    child: Child,
    orders: ChildStdin,
    backends: Vec<u32>,
}

impl Workers {
    /// Starts so many on this database.
    ///
    /// # Errors
    /// If they cannot connect.
    pub fn start(database: &str, count: usize) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--bench", "--workers", &count.to_string(), "--work-on", database])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the workers")?;
        let (orders, answers) = (child.stdin.take(), child.stdout.take());
        let mut line = String::new();
        BufReader::new(answers.context("no output")?).read_line(&mut line)?;
        let backends: Vec<u32> =
            line.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        ensure!(backends.len() == count, "the workers did not start");
        Ok(Self { child, orders: orders.context("no input")?, backends })
    }

    /// The process, and the backends that serve it.
    pub fn watch(&self, name: &str) -> Watch {
        let pids = [self.child.id()].into_iter().chain(self.backends.iter().copied()).collect();
        Watch { name: name.to_owned(), pids }
    }

    /// Begins with what comes from now on.
    pub fn go(&self) -> anyhow::Result<()> {
        Ok(writeln!(&self.orders, "{GO}")?)
    }

    pub fn rest(&self) -> anyhow::Result<()> {
        Ok(writeln!(&self.orders, "{REST}")?)
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        // Ended or not, there is nobody to tell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The process itself: says which backends serve it, and does as its input says until that ends.
///
/// # Errors
/// If the database fails.
pub async fn work(database: &str, count: usize) -> anyhow::Result<()> {
    let busy = Arc::new(AtomicBool::new(false));
    let mut connections = Vec::new();
    let mut backends = Vec::new();
    for number in 0..count {
        let mut connection = PgConnection::connect(database).await?;
        let create = "SELECT tollgate.create_consumer($1, if_not_exists => true), pg_backend_pid()";
        let (_, backend): (i64, i32) =
            sqlx::query_as(create).bind(name(number)).fetch_one(&mut connection).await?;
        backends.push(backend.to_string());
        connections.push(connection);
    }
    println!("{}", backends.join(" "));
    let orders = Arc::clone(&busy);
    let (ended, end) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        for order in std::io::stdin().lines().map_while(Result::ok) {
            orders.store(order == GO, Relaxed);
        }
        ended.send(())
    });
    let all = connections.into_iter().enumerate().map(|(number, it)| worker(it, number, &busy));
    tokio::select! {
        failed = try_join_all(all) => failed.map(drop),
        _ = end => Ok(()),
    }
}

fn name(number: usize) -> String {
    format!("bench-{number}")
}

async fn worker(
    mut connection: PgConnection,
    number: usize,
    busy: &AtomicBool,
) -> anyhow::Result<()> {
    let mut rested = true;
    loop {
        if !busy.load(Relaxed) {
            rested = true;
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        if std::mem::take(&mut rested) {
            let reset = "SELECT tollgate.reset_consumer($1, 'latest')";
            sqlx::query(reset).bind(name(number)).execute(&mut connection).await?;
        }
        let claim = "SELECT claim FROM tollgate.claim($1, $2, bodies => false)";
        let claimed: Vec<i64> = sqlx::query_scalar(claim)
            .bind(name(number))
            .bind(BATCH)
            .fetch_all(&mut connection)
            .await?;
        match claimed.first() {
            Some(claim) => {
                let ack = sqlx::query("SELECT tollgate.ack($1)").bind(claim);
                ack.execute(&mut connection).await?;
            }
            None => tokio::time::sleep(PAUSE).await,
        }
    }
}
