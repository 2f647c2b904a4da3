//! The live tail: events on a page as they come, through server-sent events. Follows the log by
//! position, so that who comes back after a break misses none.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::HeaderName;
use actix_web::web::{self, Bytes, Data, Query, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use askama::Template;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, sleep, sleep_until};

use super::page::{self, Shell, Visit, unanswered};
use super::{filters, text};
use crate::http::admin::{AdminError, access};
use crate::store::handlers::Pattern;
use crate::store::reading::{self, Page, ReadEvent, Wanted};

const PATH: &str = "/live";

/// Streams at once, over all who look. Each asks the database when events come.
const STREAMS: usize = 32;

/// Events on the page when it opens, and how many positions are looked through for them.
const FIRST: usize = 30;
const BACK: i64 = 1000;

/// A word at least so often, so that nothing in between takes the stream for dead; as often it is
/// asked whether the session still lasts.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Wait before asking again a database that does not answer.
const PAUSE: Duration = Duration::from_secs(2);

/// Wait after being woken, so that a busy log is read some events at a time and not one by one.
const GATHER: Duration = Duration::from_millis(50);

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Room for streams.
pub struct Places(Arc<Semaphore>);

impl Default for Places {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(STREAMS)))
    }
}

pub fn routes(config: &mut ServiceConfig) {
    config
        .app_data(Data::new(Places::default()))
        .route(PATH, web::get().to(tail))
        .route("/live/stream", web::get().to(stream));
}

#[derive(Deserialize)]
struct Which {
    #[serde(default, rename = "type")]
    pattern: String,
    after: Option<i64>,
}

impl Which {
    fn wanted(&self) -> Result<Wanted, AdminError> {
        let patterns = match self.pattern.trim() {
            "" => Vec::new(),
            text => vec![
                text.parse::<Pattern>().map_err(|wrong| AdminError::Invalid(wrong.to_string()))?,
            ],
        };
        Ok(Wanted::new(&patterns, None, false))
    }
}

#[derive(Template)]
#[template(path = "live.html")]
struct LivePage {
    shell: Shell,
    pattern: String,
    /// Newest first.
    events: Vec<ReadEvent>,
    after: i64,
}

async fn tail(visit: Visit, which: Query<Which>) -> Result<HttpResponse, AdminError> {
    let wanted = which.wanted()?;
    let read = async move |connection: &mut _| {
        let latest = reading::latest(connection).await.map_err(unanswered)?;
        let page = reading::page(connection, (latest - BACK).max(0), &wanted).await;
        Ok((latest, page.map_err(unanswered)?))
    };
    let (latest, page) = visit.read(read).await?;
    let after = page.reached.unwrap_or(latest).max(latest);
    let events = page.events.into_iter().rev().take(FIRST).collect();
    let shell = visit.shell("Live tail", PATH).await?;
    page::show(&LivePage { shell, pattern: which.into_inner().pattern, events, after })
}

async fn stream(
    visit: Visit,
    request: HttpRequest,
    which: Query<Which>,
    places: Data<Places>,
) -> Result<HttpResponse, AdminError> {
    let wanted = which.wanted()?;
    let Ok(permit) = Arc::clone(&places.0).try_acquire_owned() else {
        return Err(AdminError::Conflict(format!(
            "{STREAMS} live tails are open, which is as many as there may be"
        )));
    };
    let (sender, receiver) = mpsc::channel(16);
    let seen = request.headers().get(LAST_EVENT_ID).and_then(|id| id.to_str().ok()?.parse().ok());
    let follower =
        Follower { wanted, place: seen.or(which.after), visit, request, sender, _permit: permit };
    // In a task of its own: what it asks the database is not cancelled when the browser leaves.
    actix_web::rt::spawn(follower.follow());
    let lines = futures_util::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|line| (Ok::<_, std::convert::Infallible>(line), receiver))
    });
    Ok(HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header(("x-accel-buffering", "no"))
        .streaming(lines))
}

struct Follower {
    visit: Visit,
    request: HttpRequest,
    wanted: Wanted,
    /// Everything up to here was sent, or does not fit.
    place: Option<i64>,
    sender: mpsc::Sender<Bytes>,
    _permit: OwnedSemaphorePermit,
}

/// Why a stream ends.
enum End {
    /// The browser has left, or the gateway goes down: the browser comes back by itself.
    Gone,
    /// Whoever looks may no more.
    Over,
}

impl Follower {
    async fn follow(mut self) {
        let stop = self.visit.admin.stop.clone();
        let ended = stop.run_until_cancelled(self.run()).await;
        if matches!(ended, Some(End::Over)) {
            // To a browser that reads no more this does not matter.
            let _ = self.sender.try_send(Bytes::from_static(b"event: end\ndata: over\n\n"));
        }
    }

    async fn run(&mut self) -> End {
        // Subscribed before the first look, so that nothing comes in between.
        let mut waker = self.visit.admin.wake.subscribe();
        let mut heartbeat = Instant::now();
        loop {
            if heartbeat <= Instant::now() {
                if matches!(
                    self.beat().await,
                    Err(AdminError::Unauthorized | AdminError::Forbidden { .. })
                ) {
                    return End::Over;
                }
                heartbeat = Instant::now() + HEARTBEAT;
            }
            let more = match self.next_page().await {
                Ok(page) => {
                    for event in &page.events {
                        if self.say(message(event)).await.is_err() {
                            return End::Gone;
                        }
                    }
                    self.place = page.reached.or(self.place);
                    page.reached.is_some()
                }
                Err(error) => {
                    tracing::debug!(%error, "a live tail waits for the database");
                    sleep(PAUSE).await;
                    false
                }
            };
            if more {
                continue;
            }
            tokio::select! {
                () = waker.next() => sleep(GATHER).await,
                () = sleep_until(heartbeat) => {}
                () = self.sender.closed() => return End::Gone,
            }
        }
    }

    /// Says that the stream is there, and up to where; fails if whoever looks may no more.
    async fn beat(&self) -> Result<(), AdminError> {
        access::identify(&self.visit.admin, &self.request).await?;
        let line = match self.place {
            Some(place) => format!("id: {place}\n:\n\n"),
            None => ":\n\n".to_owned(),
        };
        self.say(line).await.map_err(|_| AdminError::Internal)
    }

    async fn say(&self, text: String) -> Result<(), mpsc::error::SendError<Bytes>> {
        self.sender.send(Bytes::from(text)).await
    }

    async fn next_page(&mut self) -> Result<Page, AdminError> {
        let (wanted, place) = (self.wanted.clone(), self.place);
        let (place, page) = self
            .visit
            .read(async move |connection| {
                let place = match place {
                    Some(place) => place,
                    None => reading::latest(connection).await.map_err(unanswered)?,
                };
                Ok((place, reading::page(connection, place, &wanted).await.map_err(unanswered)?))
            })
            .await?;
        self.place = Some(place);
        Ok(page)
    }
}

/// An event on the wire. JSON has no line breaks of its own, so one line of data does.
fn message(event: &ReadEvent) -> String {
    let data = json!({
        "id": text::cut(&event.id, text::SHORT),
        "type": text::cut(&event.event_type, text::SHORT),
        "object": event.object_id.as_deref().map(|id| text::cut(id, text::SHORT)),
        "account": text::cut(&event.account, text::SHORT),
        "livemode": event.livemode,
        "time": text::precise(event.received_at),
        "received_at": text::iso(event.received_at),
        "href": format!("/events/{}", page::encoded(&event.id)),
    });
    format!("id: {}\ndata: {data}\n\n", event.position)
}
