//! Wakes whoever waits for new events: one listening connection for the process, fanned out to any
//! number of waiters. Only says that something may be new; what is, the waiters ask the database.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::store::connect::Database;
use crate::store::wake::Listener;

/// Without a notification for this long the server is asked whether it is still there, and must
/// answer within the second time.
const SILENCE: Duration = Duration::from_secs(15);
const ANSWER: Duration = Duration::from_secs(5);

/// Waits before connecting again, doubling. Short, and without jitter: it is one connection for
/// each process, and meanwhile everybody polls.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Where waiters are woken from. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Wake {
    bell: Arc<Bell>,
    poll: Duration,
}

#[derive(Debug)]
struct Bell {
    /// Counts the rings. A waiter that was busy sees that the number changed, however often it did:
    /// so nothing is lost, and a burst costs it one look.
    rings: watch::Sender<u64>,
    /// Somebody waits now, perhaps the first.
    wanted: Notify,
    listening: watch::Sender<Listening>,
}

/// Whether notifications are heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listening {
    Yes,
    /// They are not; why, if it was tried. It is not while nobody waits.
    No(Option<String>),
}

impl Wake {
    /// Listens while anybody waits, until `stop`. `direct` must lead to the server itself.
    /// `poll` is the longest that a waiter sleeps, whatever happens to the connection.
    pub fn start(
        direct: Database,
        poll: Duration,
        stop: CancellationToken,
    ) -> (Self, JoinHandle<()>) {
        let bell = Arc::new(Bell {
            rings: watch::Sender::new(0),
            wanted: Notify::new(),
            listening: watch::Sender::new(Listening::No(None)),
        });
        let task = {
            let bell = Arc::clone(&bell);
            tokio::spawn(async move {
                stop.run_until_cancelled(bell.listen(&direct)).await;
                bell.listening.send_replace(Listening::No(None));
            })
        };
        (Self { bell, poll }, task)
    }

    /// A waiter, who hears of everything from now on: subscribe first, then look.
    pub fn subscribe(&self) -> Waker {
        let rings = self.bell.rings.subscribe();
        self.bell.wanted.notify_one();
        Waker { rings, poll: self.poll }
    }

    /// Whether notifications are heard. If not, waiters still look every `poll`.
    pub fn listening(&self) -> Listening {
        self.bell.listening.borrow().clone()
    }

    /// Whether the listening connection is there.
    pub fn connected(&self) -> bool {
        self.listening() == Listening::Yes
    }
}

impl Bell {
    fn ring(&self) {
        self.rings.send_modify(|rings| *rings = rings.wrapping_add(1));
    }

    /// Listens for ever, on one connection after another.
    async fn listen(&self, direct: &Database) {
        let mut pause = FIRST_PAUSE;
        loop {
            // Hearing of 20,000 events a second costs this process and the server; not for nobody.
            while self.rings.receiver_count() == 0 {
                self.listening.send_replace(Listening::No(None));
                self.wanted.notified().await;
            }
            let began = Instant::now();
            let error = match Listener::connect(direct).await {
                Ok(listener) => match self.pass_on(listener).await {
                    Some(error) => error,
                    None => continue,
                },
                Err(error) => error,
            };
            let lost = self.listening.send_replace(Listening::No(Some(error.to_string())));
            if matches!(lost, Listening::Yes | Listening::No(None)) {
                tracing::warn!(%error, "notifications are not heard; looking for events every poll_interval");
            }
            // One that lasted owes nothing to those before it.
            if lost == Listening::Yes && began.elapsed() > LONGEST_PAUSE {
                pause = FIRST_PAUSE;
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Rings with every notification, until the connection fails; None if nobody waits any more.
    async fn pass_on(&self, mut listener: Listener) -> Option<sqlx::Error> {
        if let Listening::No(Some(_)) = self.listening.send_replace(Listening::Yes) {
            tracing::info!("notifications are heard again");
        }
        // What was announced while nobody listened.
        self.ring();
        while self.rings.receiver_count() > 0 {
            match listener.heard(SILENCE, ANSWER).await {
                Ok(()) => self.ring(),
                Err(error) => return Some(error),
            }
        }
        None
    }
}

/// Waits for something new.
#[derive(Debug)]
pub struct Waker {
    rings: watch::Receiver<u64>,
    poll: Duration,
}

impl Waker {
    /// Returns when something may be new: events or changed consumers were announced since this
    /// returned last, the connection was made anew, or the poll interval passed. May be cancelled;
    /// nothing is lost by that.
    pub async fn next(&mut self) {
        let rung = async {
            if self.rings.changed().await.is_err() {
                // Nobody rings any more: the clock alone is left.
                std::future::pending::<()>().await;
            }
        };
        // Either way it is time to look.
        let _ = timeout(self.poll, rung).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bell() -> Wake {
        let bell = Arc::new(Bell {
            rings: watch::Sender::new(0),
            wanted: Notify::new(),
            listening: watch::Sender::new(Listening::No(None)),
        });
        Wake { bell, poll: Duration::from_hours(1) }
    }

    /// Whether `next` returns without anything further happening.
    async fn at_once(waker: &mut Waker) -> bool {
        timeout(Duration::from_millis(50), waker.next()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_ring_between_two_waits_is_not_lost_and_many_count_as_one() {
        let wake = bell();
        let (mut early, mut idle) = (wake.subscribe(), wake.subscribe());
        assert!(!at_once(&mut early).await);
        for _ in 0..20_000 {
            wake.bell.ring();
        }
        let mut late = wake.subscribe();
        assert!(at_once(&mut early).await);
        assert!(!at_once(&mut early).await);
        assert!(at_once(&mut idle).await, "each has its own");
        assert!(!at_once(&mut late).await);
    }

    #[tokio::test(start_paused = true)]
    async fn without_rings_the_interval_passes_also_when_nobody_is_left_to_ring() {
        let wake = bell();
        let mut waker = wake.subscribe();
        drop(wake);
        let began = Instant::now();
        for hours in 1..3 {
            waker.next().await;
            assert_eq!(began.elapsed().as_secs(), hours * 3600);
        }
    }
}
