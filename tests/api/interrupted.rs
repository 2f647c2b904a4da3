//! Handlers that lose the connection they run on, hang, or leave no time for each other: the event
//! is kept or comes back, and its neighbours do not pay for it.

use std::sync::Arc;

use sqlx::{Executor, PgConnection};
use tollgate::store::hooks::{EventHandler, HandlerFuture};
use tollgate::stripe::event::Envelope;

use crate::handlers::{app, register, retry_until};
use crate::support::{App, event};

/// Ends its own backend at each event whose id has a 7 at its end.
const ENDS_IT: &str = "IF e->>'id' LIKE '%7' THEN PERFORM pg_terminate_backend(pg_backend_pid()), pg_sleep(1); END IF;
                       PERFORM app.note(e);";

async fn deliver_all(app: &App, ids: impl Iterator<Item = String>) -> Vec<u16> {
    let deliveries = ids.map(|id| async move { app.deliver(event(&id)).await.status });
    futures_util::future::join_all(deliveries).await
}

#[tokio::test]
async fn a_handler_that_ends_its_connection_costs_neither_event_nor_neighbours() {
    let app = app().await;
    register(&app, "ends_it", ENDS_IT, ", max_attempts => 3").await;
    let answers = deliver_all(&app, (0..30).map(|n| format!("evt_{n}"))).await;
    assert_eq!(answers, [200; 30]);
    assert_eq!(app.events().await, 30);
    // Those that were spared with them are made up for; the three are given up in the end, and each
    // attempt that lost its connection counted.
    retry_until(&app, "SELECT count(*) FROM app.seen", 27).await;
    let dead = "SELECT count(*) FROM tollgate.failures
                WHERE next_attempt IS NULL AND attempts = 3 AND event_id LIKE '%7'";
    retry_until(&app, dead, 3).await;
    assert_eq!(app.count("SELECT count(*) FROM tollgate.failures").await, 3);
    app.stop().await;
}

#[tokio::test]
async fn a_handler_that_rejects_and_ends_its_connection_takes_its_event_back_alone() {
    let app = app().await;
    register(&app, "ends_it", ENDS_IT, ", policy => 'reject'").await;
    let answers = deliver_all(&app, (0..10).map(|n| format!("evt_{n}"))).await;
    assert_eq!(answers, [200, 200, 200, 200, 200, 200, 200, 500, 200, 200]);
    assert_eq!(app.count("SELECT count(*) FROM app.seen").await, 9);
    assert_eq!(app.count("SELECT count(*) FROM tollgate.failures").await, 0);
    app.stop().await;
}

#[tokio::test]
async fn handlers_that_reject_and_are_slow_are_called_for_as_many_as_there_is_time_for() {
    let app = App::spawn_with(&[("write_deadline", "3s")]).await;
    app.pool.execute("CREATE SCHEMA app; CREATE TABLE app.seen (id text NOT NULL)").await.unwrap();
    let body = "PERFORM pg_sleep(0.05); INSERT INTO app.seen VALUES (e->>'id');";
    register(&app, "slow", body, ", policy => 'reject'").await;
    let mut left: Vec<String> = (0..120).map(|n| format!("evt_{n}")).collect();
    // As Stripe does: what was not taken comes again.
    for _ in 0..20 {
        let answers = deliver_all(&app, left.iter().cloned()).await;
        let mut answers = answers.into_iter();
        left.retain(|_| answers.next() != Some(200));
    }
    assert_eq!(left, Vec::<String>::new());
    assert_eq!(app.events().await, 120);
    assert_eq!(app.count("SELECT count(DISTINCT id) FROM app.seen").await, 120);
    assert_eq!(app.count("SELECT count(*) FROM app.seen").await, 120);
    app.stop().await;
}

/// Never comes back with `evt_hangs`.
#[derive(Debug)]
struct Hangs;

impl EventHandler for Hangs {
    fn name(&self) -> &'static str {
        "hangs"
    }

    fn wants(&self, _event_type: &str) -> bool {
        true
    }

    fn handle<'a>(
        &'a self,
        event: &'a Envelope,
        _: &'a [u8],
        transaction: &'a mut PgConnection,
    ) -> HandlerFuture<'a> {
        Box::pin(async move {
            if event.id.as_str() == "evt_hangs" {
                let () = std::future::pending().await;
            }
            transaction.execute("INSERT INTO public.calls DEFAULT VALUES").await?;
            Ok(())
        })
    }
}

#[tokio::test]
async fn a_handler_in_rust_that_hangs_costs_neither_event_nor_neighbours() {
    let settings = [("write_deadline", "4s")];
    let app = App::spawn_embedded(&settings, Arc::new([Arc::new(Hangs) as _])).await;
    app.pool.execute("CREATE TABLE public.calls (n serial)").await.unwrap();
    let ids = (0..20).map(|n| if n == 9 { "evt_hangs".to_owned() } else { format!("evt_{n}") });
    assert_eq!(deliver_all(&app, ids).await, [200; 20]);
    assert_eq!(app.events().await, 20);
    assert_eq!(app.count("SELECT count(*) FROM public.calls").await, 19);
    let failed = "SELECT count(*) FROM tollgate.failures WHERE event_id = 'evt_hangs'";
    assert_eq!(app.count(failed).await, 1);
    app.stop().await;
}
