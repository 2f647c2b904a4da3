//! `/healthz` and `/readyz`: whether the process turns, and whether it can take events.
//! Only looks; what is done about a sick part is up to that part.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::HttpResponse;
use actix_web::http::header::CACHE_CONTROL;
use actix_web::web::Data;
use serde::Serialize;
use sqlx::PgPool;
use tokio::sync::Mutex;

use crate::consume::tally::Tally;
use crate::consume::wake::{Listening, Wake};
use crate::ingest::lanes::Lanes;
use crate::ingest::traffic::Traffic;
use crate::shutdown::Phase;
use crate::store::connect::{Database, Route, within};
use crate::store::migrations::{self, SchemaState};
use crate::store::status;

/// Longest wait for one part, so that a probe always gets its answer.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// For how long what was found of the writers' way holds.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Free space under which the embedded database counts as failing, and as nearly so: Postgres
/// stops at a full disk, and needs some to recover.
const DISK_FAIL: u64 = 256 << 20;
const DISK_WARN: u64 = 2 << 30;

/// Share of the queue's bounds from which on it counts as nearly full, in percent.
const QUEUE_WARN: usize = 80;

/// What readiness and /metrics look at.
#[derive(Clone, Debug)]
pub struct Parts {
    pub pool: PgPool,
    /// The writers' way to the database, where that is another one: through a pooler.
    pub writers: Option<WritersWay>,
    pub lanes: Arc<Lanes>,
    pub phase: Phase,
    /// If events are handed on.
    pub wake: Option<Wake>,
    /// The data directory, if the database is embedded.
    pub embedded: Option<PathBuf>,
    /// What is counted of deliveries to us, and of ours to others.
    pub traffic: Arc<Traffic>,
    pub tally: Arc<Tally>,
}

/// The writers' way to the database. Looked at by one connection at a time, however many ask: anybody
/// may, and a pooler has only so many.
#[derive(Clone, Debug)]
pub struct WritersWay {
    database: Database,
    last: Arc<Mutex<Option<(Instant, Part)>>>,
}

impl WritersWay {
    /// None where it is everybody's way.
    pub fn of(database: &Database) -> Option<Self> {
        let own = database.route() == Route::Pooler;
        own.then(|| Self { database: database.clone(), last: Arc::default() })
    }

    async fn look(&self) -> Part {
        let mut last = self.last.lock().await;
        if let Some((at, part)) = &*last
            && at.elapsed() < LOOK_AGAIN
        {
            return part.clone();
        }
        let database = self.database.clone();
        let part = timed(async move {
            status::knock(&database).await?;
            Ok((Status::Ok, "answers".to_owned()))
        });
        let part = part.await;
        *last = Some((Instant::now(), part.clone()));
        part
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Ok,
    /// Works, but somebody should look.
    Warn,
    Fail,
}

/// One part's state.
#[derive(Clone, Debug, Serialize)]
pub struct Part {
    pub status: Status,
    pub latency_ms: f64,
    pub message: String,
}

/// The body of `/readyz`.
#[derive(Debug, Serialize)]
pub struct Readiness {
    pub status: Status,
    pub database: Part,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub writers: Option<Part>,
    pub migrations: Part,
    pub intake_queue: Part,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener: Option<Part>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<Part>,
    pub shutdown: Part,
}

/// `GET /healthz`.
pub async fn healthz() -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, "no-store"))
        .json(serde_json::json!({"status": "ok"}))
}

/// `GET /readyz`.
pub async fn readyz(parts: Data<Parts>) -> HttpResponse {
    let readiness = parts.examine().await;
    let mut response = match readiness.status {
        Status::Ok | Status::Warn => HttpResponse::Ok(),
        Status::Fail => HttpResponse::ServiceUnavailable(),
    };
    response.insert_header((CACHE_CONTROL, "no-store")).json(readiness)
}

impl Parts {
    /// Asks every part, at most `CHECK_TIMEOUT` each.
    pub async fn examine(&self) -> Readiness {
        let (database, writers, migrations) =
            tokio::join!(self.database(), self.writers(), self.migrations());
        let intake_queue = self.intake_queue();
        let listener = self.wake.as_ref().map(listener);
        let disk = self.embedded.as_deref().map(disk);
        let shutdown = self.shutdown();
        let status = [&database, &migrations, &intake_queue, &shutdown]
            .into_iter()
            .chain(&writers)
            .chain(&listener)
            .chain(&disk)
            .map(|part| part.status)
            .max_by_key(|status| *status as u8)
            .unwrap_or(Status::Ok);
        Readiness { status, database, writers, migrations, intake_queue, listener, disk, shutdown }
    }

    async fn database(&self) -> Part {
        let pool = self.pool.clone();
        timed(async move {
            within(&pool, CHECK_TIMEOUT, status::ping).await?;
            Ok((Status::Ok, "answers".to_owned()))
        })
        .await
    }

    async fn writers(&self) -> Option<Part> {
        Some(self.writers.as_ref()?.look().await)
    }

    async fn migrations(&self) -> Part {
        let pool = self.pool.clone();
        timed(async move {
            let state = within(&pool, CHECK_TIMEOUT, migrations::state).await?;
            let status = match state {
                SchemaState::Current { .. } => Status::Ok,
                SchemaState::Ahead { .. } => Status::Warn,
                SchemaState::Behind { .. } => Status::Fail,
            };
            Ok((status, state.to_string()))
        })
        .await
    }

    fn intake_queue(&self) -> Part {
        let depth = self.lanes.depth();
        let share =
            (depth.events * 100 / depth.limits.events).max(depth.bytes * 100 / depth.limits.bytes);
        let status = match share {
            100.. => Status::Fail,
            QUEUE_WARN.. => Status::Warn,
            _ => Status::Ok,
        };
        let message =
            format!("{} events, {} bytes waiting ({share} % full)", depth.events, depth.bytes);
        Part { status, latency_ms: 0.0, message }
    }

    fn shutdown(&self) -> Part {
        let (status, message) = if self.phase.draining() {
            (Status::Fail, "shutting down")
        } else {
            (Status::Ok, "not asked for")
        };
        Part { status, latency_ms: 0.0, message: message.to_owned() }
    }
}

/// Runs a check in a task of its own, which neither the timeout nor a client that hangs up
/// cancels half-way (see `store::connect`).
async fn timed(
    check: impl Future<Output = Result<(Status, String), sqlx::Error>> + Send + 'static,
) -> Part {
    let start = Instant::now();
    let (status, message) = match tokio::time::timeout(CHECK_TIMEOUT, tokio::spawn(check)).await {
        Ok(Ok(Ok(answer))) => answer,
        Ok(Ok(Err(error))) => (Status::Fail, error.to_string()),
        Ok(Err(error)) => (Status::Fail, error.to_string()),
        Err(_) => (Status::Fail, format!("no answer within {CHECK_TIMEOUT:?}")),
    };
    Part { status, latency_ms: start.elapsed().as_secs_f64() * 1e3, message }
}

/// Never a failure: without notifications consumers look for events at intervals.
fn listener(wake: &Wake) -> Part {
    let (status, message) = match wake.listening() {
        Listening::Yes => (Status::Ok, "hears notifications".to_owned()),
        Listening::No(None) => (Status::Ok, "not needed yet, or connecting".to_owned()),
        Listening::No(Some(why)) => (Status::Warn, format!("hears no notifications: {why}")),
    };
    Part { status, latency_ms: 0.0, message }
}

/// Bytes that may still be written where a folder is.
pub fn disk_free(folder: &std::path::Path) -> std::io::Result<u64> {
    let space = nix::sys::statvfs::statvfs(folder)?;
    #[allow(clippy::useless_conversion, reason = "the types differ between systems")]
    let free = u64::from(space.blocks_available()) * u64::from(space.fragment_size());
    Ok(free)
}

fn disk(data_dir: &std::path::Path) -> Part {
    let start = Instant::now();
    let (status, message) = match disk_free(data_dir) {
        Err(error) => (Status::Fail, format!("{}: {error}", data_dir.display())),
        Ok(free) => {
            let status = match free {
                ..DISK_FAIL => Status::Fail,
                DISK_FAIL..DISK_WARN => Status::Warn,
                DISK_WARN.. => Status::Ok,
            };
            (status, format!("{} MiB free for {}", free >> 20, data_dir.display()))
        }
    };
    Part { status, latency_ms: start.elapsed().as_secs_f64() * 1e3, message }
}
