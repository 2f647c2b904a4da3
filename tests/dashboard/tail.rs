//! The live tail's stream, as a browser reads it: nothing is missed over a break, and it ends with the
//! session.

use std::time::Duration;

use tokio::time::timeout;

use crate::scene::{Session, TOKEN, guarded};
use crate::support::{client, event};

/// Longest wait for anything on a stream; a session is looked at every 15 seconds.
const SOON: Duration = Duration::from_mins(1);

struct Stream {
    answer: reqwest::Response,
    text: String,
}

impl Stream {
    async fn open(session: &Session<'_>, path: &str, seen: Option<&str>) -> Self {
        let mut request =
            client().get(session.app.admin_url(path)).header("cookie", &session.cookie);
        if let Some(seen) = seen {
            request = request.header("last-event-id", seen);
        }
        let answer = request.timeout(SOON * 2).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        Self { answer, text: String::new() }
    }

    /// The next message of this kind: its id and its data.
    async fn next(&mut self) -> Option<(String, String)> {
        loop {
            while let Some(end) = self.text.find("\n\n") {
                let message: String = self.text.drain(..end + 2).collect();
                let field = |name: &str| {
                    message.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned)
                };
                if let Some(data) = field("data: ") {
                    return Some((field("id: ").unwrap_or_default(), data));
                }
            }
            let chunk = timeout(SOON, self.answer.chunk()).await.expect("something on the stream");
            self.text += std::str::from_utf8(&chunk.unwrap()?).unwrap();
        }
    }
}

fn id_of(data: &str) -> String {
    let data: serde_json::Value = serde_json::from_str(data).unwrap();
    data["id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_after_a_break_misses_nothing() {
    let app = guarded().await;
    let session = Session::begin(&app, TOKEN).await;
    app.deliver(event("evt_before")).await;
    let mut stream = Stream::open(&session, "/live/stream?type=invoice.*&after=0", None).await;
    app.deliver(event("evt_1")).await;
    assert_eq!(id_of(&stream.next().await.unwrap().1), "evt_before");
    let (seen, data) = stream.next().await.unwrap();
    assert_eq!(id_of(&data), "evt_1");
    drop(stream);
    for id in ["evt_2", "evt_3"] {
        app.deliver(event(id)).await;
    }
    app.deliver(event("evt_other").replace("invoice.paid", "charge.captured")).await;
    // What the browser saw last counts for more than where the page began.
    let mut stream =
        Stream::open(&session, "/live/stream?type=invoice.*&after=0", Some(&seen)).await;
    app.deliver(event("evt_4")).await;
    for expected in ["evt_2", "evt_3", "evt_4"] {
        assert_eq!(id_of(&stream.next().await.unwrap().1), expected);
    }
    app.stop().await;
    assert!(stream.next().await.is_none(), "a stream does not hold up the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_the_session_and_there_are_so_many() {
    let app = guarded().await;
    let session = Session::begin(&app, TOKEN).await;
    let mut streams = Vec::new();
    for _ in 0..32 {
        streams.push(Stream::open(&session, "/live/stream", None).await);
    }
    assert_eq!(session.get("/live/stream").await.status, 409);
    assert_eq!(session.get("/live/stream?type=in*").await.status, 400);
    session.post("/logout", &[]).await;
    let mut last = streams.pop().unwrap();
    let (_, data) = last.next().await.unwrap();
    assert_eq!(data, "over");
    assert!(last.next().await.is_none());
}
