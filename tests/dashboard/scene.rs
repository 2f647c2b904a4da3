//! What tests of the dashboard set up: a gateway that needs a token, the demo's events, events of a
//! hostile sender, and a form sent as a browser does.

use std::num::NonZeroUsize;

use tokio_util::sync::CancellationToken;
use tollgate::clock::Clock;
use tollgate::fixtures::{SEED, START, stories};
use tollgate::replay::{Options, Pace, Plan, Sender, Target, source};

use crate::support::{App, SECRET};

/// The token of the settings.
pub const TOKEN: &str = "a-token-of-the-settings";

/// Text that would do harm on a page that does not escape, and in a terminal.
pub const HOSTILE: &str =
    "<img src=x onerror=window.harmed=1><script>window.harmed=1</script>'\"&amp;";

/// A gateway that needs a token.
pub async fn guarded() -> App {
    App::spawn_with(&[("admin_token", TOKEN)]).await
}

/// Delivers the demo's events through the real endpoint.
pub async fn deliver_the_demo(app: &App) {
    let events = source::from_stories(&stories(SEED, START));
    let plan = Plan::new(events, &Options { shuffle: Some(7), duplicates: 30, unique_ids: None });
    let url = app.url("/webhooks/stripe");
    let target = Target { url: url.parse().unwrap(), secret: SECRET.parse().unwrap() };
    let pace = Pace { concurrency: NonZeroUsize::new(8).unwrap(), interval: None, retries: 5 };
    let sender = Sender::new(target, pace, Clock::system()).unwrap();
    let report = sender.send(&plan, &CancellationToken::new(), |_| ()).await;
    assert!(report.complete(), "the demo's events were not all taken");
}

/// An event whose every text is hostile: markup, marks that turn text around, orders to a terminal,
/// and a megabyte.
pub fn hostile_event() -> String {
    let text = format!("{HOSTILE}\u{202e}gnp.txt\u{200b}");
    serde_json::json!({
        "id": format!("evt_{HOSTILE}\u{202e}"), "object": "event", "type": format!("invoice.{HOSTILE}\u{1b}[31m"),
        "created": crate::support::now(), "livemode": false, "api_version": HOSTILE,
        "account": format!("acct_{HOSTILE}"),
        "data": {"object": {
            "id": format!("in_{HOSTILE}"), "object": "invoice", "customer": format!("cus_{HOSTILE}"),
            "description": text, HOSTILE: [text, "\u{1b}]0;owned\u{7}"], "long": "x".repeat(900_000),
        }},
    })
    .to_string()
}
