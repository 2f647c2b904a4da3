//! Delivers events to NATS JetStream: one message per event, delivered once a stream has stored it.
//! Making streams, and how long they keep what, is up to whoever runs NATS.

mod connection;
mod message;
mod url;

use std::fmt;
use std::time::Duration;

use async_nats::{Request, RequestErrorKind};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::time::{Instant, timeout_at};

use self::connection::{Connection, Connector};
use self::message::Answer;
use super::target::{ANSWER_KEPT, Attempt, Delivery, Target, Verdict};

pub use self::message::is_prefix;
pub use self::url::{NatsUrl, NatsUrlError};

/// Where to deliver to.
#[derive(Clone, Debug)]
pub struct NatsOptions {
    pub url: NatsUrl,
    /// What subjects begin with; see [`is_prefix`]. Customarily [`NatsOptions::PREFIX`].
    pub prefix: String,
    /// For a whole attempt, connecting included.
    pub timeout: Duration,
}

impl NatsOptions {
    /// The prefix of subjects unless another is chosen.
    pub const PREFIX: &'static str = "stripe";
}

/// Publishes each event to `PREFIX.TYPE` and waits until a stream has it. The message is the body as
/// Stripe sent it; `Nats-Msg-Id` is the event's id, so that a stream stores an event once, however
/// often it is sent within the stream's duplicate window (2 minutes unless set otherwise).
///
/// Connects when it is first needed and whenever the connection is lost. Dropping it closes the
/// connection. Needs a tokio runtime, the same one for its whole life.
pub struct NatsTarget {
    connector: Connector,
    prefix: String,
    timeout: Duration,
}

impl fmt::Debug for NatsTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsTarget")
            .field("url", self.connector.url())
            .field("prefix", &self.prefix)
            .field("timeout", &self.timeout)
            .finish()
    }
}

/// Why an attempt failed, in a sentence.
enum Failure {
    Retry(String),
    Refused(String),
    /// With what came back instead of an acknowledgement.
    Answered(String, String),
}

impl NatsTarget {
    /// Does not connect yet.
    pub fn new(options: NatsOptions) -> Self {
        let NatsOptions { url, prefix, timeout } = options;
        Self { connector: Connector::new(url, timeout), prefix, timeout }
    }

    /// Gives the stream's acknowledgement.
    async fn publish(&self, delivery: &Delivery, deadline: Instant) -> Result<String, Failure> {
        let connection = match timeout_at(deadline, self.connector.connection()).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return Err(Failure::Retry(error.to_string())),
            Err(_) => {
                let (url, seconds) = (self.connector.url(), self.timeout.as_secs_f64());
                return Err(Failure::Retry(format!("no connection to {url} within {seconds} s")));
            }
        };
        let subject = message::subject(&self.prefix, &delivery.event_type);
        let headers = message::headers(delivery);
        let size = message::wire_size(&headers, delivery.raw.len());
        if let Some(why) = message::too_large(size, connection.client.max_payload()) {
            return Err(Failure::Refused(why));
        }
        let request = Request::new().headers(headers).payload(delivery.raw.clone());
        let answer = self.request(&connection, &subject, request, deadline).await;
        let answer = answer.map_err(Failure::Retry)?;
        let kept = beginning(String::from_utf8_lossy(&answer).into_owned());
        match message::read_answer(&answer) {
            Answer::Stored => Ok(kept),
            Answer::Refused(words) => {
                Err(Failure::Answered(format!("the stream refused the event: {words}"), kept))
            }
            Answer::Strange => {
                let why = format!("what answered on {subject} is no stream of JetStream");
                Err(Failure::Answered(why, kept))
            }
        }
    }

    /// Gives what came back, or why nothing did.
    async fn request(
        &self,
        connection: &Connection,
        subject: &str,
        request: Request,
        deadline: Instant,
    ) -> Result<Bytes, String> {
        let url = self.connector.url();
        let answer = connection.client.send_request(subject.to_owned(), request);
        let answer = tokio::select! {
            biased;
            answer = timeout_at(deadline, answer) => answer,
            () = connection.lost.cancelled() => {
                let heard = connection.heard();
                return Err(format!("{url}: connection lost before an acknowledgement came{heard}"));
            }
        };
        match answer {
            Ok(Ok(answer)) => Ok(answer.payload),
            Ok(Err(error)) if error.kind() == RequestErrorKind::NoResponders => {
                Err(message::no_stream(subject, &self.prefix))
            }
            Ok(Err(error)) => Err(format!("{url}: {error}")),
            Err(_) => {
                // The connection may be dead without having been closed. Besides, the client
                // remembers each unanswered request for as long as it lives.
                connection.retire();
                let (seconds, heard) = (self.timeout.as_secs_f64(), connection.heard());
                Err(format!("no stream acknowledged {subject} within {seconds} s{heard}"))
            }
        }
    }
}

impl Target for NatsTarget {
    fn deliver<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, Attempt> {
        Box::pin(async move {
            let start = Instant::now();
            let outcome = self.publish(delivery, start + self.timeout).await;
            let retry = Verdict::Retry { after: None };
            let (verdict, error, answer) = match outcome {
                Ok(answer) => (Verdict::Delivered, String::new(), answer),
                Err(Failure::Retry(error)) => (retry, error, String::new()),
                Err(Failure::Refused(error)) => (Verdict::Refused, error, String::new()),
                Err(Failure::Answered(error, answer)) => (retry, error, answer),
            };
            let error = beginning(error);
            Attempt { verdict, status: None, error, answer, took: start.elapsed() }
        })
    }
}

fn beginning(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(ANSWER_KEPT));
    text
}
