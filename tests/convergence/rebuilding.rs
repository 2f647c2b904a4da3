//! What a rebuild, and a decision by the log, must know beside the log as they read it: bodies that
//! changed since, and events that retention has dropped.

use std::time::Duration;

use serde_json::{Value, json};
use tollgate::clock::Clock;
use tollgate::maintain::retention;
use tollgate::stripe::order::Basis;

use crate::named::{event, only_row};
use crate::support::App;
use crate::{gateway, rebuild, rebuilt_while};

const DAY: Duration = Duration::from_hours(24);

/// An invoice's event, in a version that has the given links.
fn invoice(id: &str, created: i64, status: &str, links: &Value) -> String {
    let mut invoice = json!({"id": "in_1", "object": "invoice", "status": status});
    for (link, to) in links.as_object().unwrap() {
        invoice[link] = to.clone();
    }
    event(id, "invoice.updated", created, &invoice, None)
}

/// Drops all events there are, as retention does in two and a half months.
async fn forget(app: &App) {
    let later = Clock::system().now() + 75 * DAY;
    let clock = Clock::from_fn(move || later.into());
    retention::run_once(&app.pool, Some(35 * DAY), &clock).await.unwrap();
    assert_eq!(app.events().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_comes_in_a_later_version_while_a_rebuild_reads_is_not_put_back() {
    let app = gateway().await;
    let old = invoice("evt_1", 100, "open", &json!({"charge": "ch_1"}));
    let better = invoice("evt_1", 100, "open", &json!({"charge": "ch_2"}))
        .replace("2024-06-20", "2025-03-31.basil");
    assert_eq!(app.deliver(&old).await.status, 200);
    let mut come_again = Some(&better);
    let done = rebuilt_while(&app, || {
        let Some(better) = come_again.take() else { return };
        let deliver = async { assert_eq!(app.deliver(better).await.word(), "duplicate") };
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(deliver));
    })
    .await;
    assert_eq!(come_again, None);
    let (_, row) = only_row(&app).await;
    assert_eq!((&row.object["charge"], &row.links["charge"]), (&json!("ch_2"), &json!("ch_2")));
    assert_eq!(done.changed.iter().map(|(_, rows)| rows).sum::<i64>(), 0);
    app.stop().await;
}

#[tokio::test]
async fn a_late_event_does_not_displace_one_that_the_log_has_forgotten() {
    let app = gateway().await;
    for body in [
        invoice("evt_1", 100, "draft", &json!({"charge": "ch_1"})),
        invoice("evt_5", 500, "paid", &json!({})),
    ] {
        assert_eq!(app.deliver(body).await.status, 200);
    }
    forget(&app).await;
    let late = invoice("evt_2", 200, "open", &json!({"payment_intent": "pi_2"}));
    assert_eq!(app.deliver(late).await.status, 200);
    for rebuilt in [false, true] {
        let (_, row) = only_row(&app).await;
        assert_eq!((row.as_of_event.as_str(), &row.object["status"]), ("evt_5", &json!("paid")));
        assert_eq!(row.links, json!({"charge": "ch_1", "payment_intent": "pi_2"}), "{rebuilt}");
        assert_eq!(rebuild(&app).await, 0);
    }
    app.stop().await;
}

#[tokio::test]
async fn what_forgotten_events_say_of_links_stays_with_newer_ones() {
    let app = gateway().await;
    let first = invoice("evt_1", 100, "draft", &json!({"charge": "ch_1"}));
    assert_eq!(app.deliver(first).await.status, 200);
    forget(&app).await;
    // After all that was dropped, and before it.
    let newest = (Clock::system().now() + 80 * DAY).unix_timestamp();
    for body in [
        invoice("evt_9", newest, "paid", &json!({})),
        invoice("evt_0", 50, "draft", &json!({"payment_intent": "pi_0"})),
    ] {
        assert_eq!(app.deliver(body).await.status, 200);
    }
    for rebuilt in [false, true] {
        let (_, row) = only_row(&app).await;
        assert_eq!((row.as_of_event.as_str(), row.order_basis.as_str()), ("evt_9", "unique"));
        assert_eq!(row.links, json!({"charge": "ch_1", "payment_intent": "pi_0"}), "{rebuilt}");
        assert_eq!(rebuild(&app).await, 0);
    }
    // What is wrong is mended all the same.
    sqlx::query("UPDATE stripe.invoices SET object = object || '{\"status\": \"void\"}'")
        .execute(&app.pool)
        .await
        .unwrap();
    assert_eq!(rebuild(&app).await, 1);
    assert_eq!(only_row(&app).await.1.object["status"], "paid");
    app.stop().await;
}

#[tokio::test]
async fn a_guess_stays_one_when_what_it_was_made_from_is_forgotten() {
    let app = gateway().await;
    for (id, status) in [("evt_1", "open"), ("evt_2", "uncollectible")] {
        assert_eq!(app.deliver(invoice(id, 500, status, &json!({}))).await.status, 200);
    }
    let before = only_row(&app).await.1;
    forget(&app).await;
    let late = invoice("evt_0", 200, "draft", &json!({"charge": "ch_0"}));
    assert_eq!(app.deliver(late).await.status, 200);
    let (_, row) = only_row(&app).await;
    assert_eq!((&row.as_of_event, &row.order_basis), (&before.as_of_event, &before.order_basis));
    assert_ne!(row.order_basis, Basis::Unique.as_str());
    assert_eq!(row.links, json!({"charge": "ch_0"}));
    app.stop().await;
}
