//! Random lives through a real gateway: shuffled, repeated, from several senders, with transactions
//! cancelled meanwhile. `TOLLGATE_TEST_HISTORIES` and `TOLLGATE_TEST_SEED` choose how many and which.

use std::collections::BTreeMap;
use std::time::Duration;

use tollgate::stripe::kinds::Kind;

use crate::histories::{History, deliveries, histories, lossy};
use crate::model::{canonical, expected};
use crate::support::App;
use crate::{Key, TableRow, assert_equal, gateway, rebuild, rows};

const SENDERS: usize = 4;

pub fn size(default: usize) -> usize {
    match std::env::var("TOLLGATE_TEST_HISTORIES") {
        Ok(text) => text.parse().expect("a number of histories"),
        Err(_) => default,
    }
}

/// Printed by tests that fail: as it stands in their output.
pub fn seed() -> u64 {
    let seed = std::env::var("TOLLGATE_TEST_SEED").map_or(20_261_121, |text| text.parse().unwrap());
    println!("TOLLGATE_TEST_SEED={seed}");
    seed
}

/// Delivers everything from several senders at once; every delivery must end in a 200.
pub async fn deliver_all(app: &App, dealt: Vec<Vec<String>>) {
    let senders = dealt.into_iter().map(|bodies| async {
        for body in bodies {
            let mut answer = app.deliver(&body).await;
            // A cancelled transaction may exhaust the writer's patience; Stripe comes back.
            while answer.status == 503 {
                answer = app.deliver(&body).await;
            }
            assert_eq!(answer.status, 200, "{}: {body}", answer.body);
        }
    });
    futures_util::future::join_all(senders).await;
}

/// Cancels whatever the writers are doing, again and again.
async fn cancel_writers(app: &App) {
    loop {
        tokio::time::sleep(Duration::from_millis(15)).await;
        sqlx::query(
            "SELECT pg_cancel_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND application_name = 'tollgate'
               AND state = 'active' AND random() < 0.3",
        )
        .execute(&app.pool)
        .await
        .unwrap();
    }
}

fn key(history: &History) -> Key {
    let table = Kind::of(&history.object_type).table.to_owned();
    let object_type = if table == "objects" { history.object_type.clone() } else { String::new() };
    (table, history.account.clone(), history.livemode, object_type, history.id.clone())
}

/// Checks a row; true if it is also what the model guesses where guessing is all that is left.
fn check(history: &History, row: Option<&TableRow>) -> bool {
    let row = row.unwrap_or_else(|| panic!("no row: {history:#?}"));
    let wanted = expected(&history.events);
    let about = || format!("{row:#?}\n{wanted:#?}\n{history:#?}");
    assert_eq!(row.incarnation, wanted.incarnation, "{}", about());
    assert_eq!(row.phase, wanted.phase, "{}", about());
    assert_eq!(row.as_of, wanted.as_of, "{}", about());
    assert_eq!(row.deleted, wanted.deleted, "tombstones stay: {}", about());
    assert!(!history.complete || row.deleted == history.deleted, "{}", about());
    let links: serde_json::Value =
        wanted.links.iter().map(|(key, id)| ((*key).to_owned(), serde_json::json!(id))).collect();
    assert_eq!(row.links, links, "{}", about());
    if matches!(wanted.order_basis, "unique" | "same") {
        assert_eq!(row.as_of_event, wanted.as_of_event, "{}", about());
        assert_eq!(row.order_basis, wanted.order_basis, "{}", about());
    }
    if history.complete && row.order_basis != "tiebreak" {
        assert_eq!(canonical(&row.object), canonical(&history.truth), "{}", about());
    }
    wanted.order_basis == "tiebreak" || canonical(&row.object) == wanted.object
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_equal_the_model_whatever_the_order() {
    let (seed, count) = (seed(), size(1000));
    let lives: Vec<History> = histories(seed, count)
        .into_iter()
        .zip(0u64..)
        .map(|(history, n)| if n % 4 == 0 { lossy(&history, n) } else { history })
        .collect();
    let mut first: Option<BTreeMap<Key, TableRow>> = None;
    for order in 0..2 {
        let app = gateway().await;
        tokio::select! {
            () = deliver_all(&app, deliveries(&lives, SENDERS, seed + order)) => {}
            () = cancel_writers(&app) => {}
        }
        let found = rows(&app.pool).await;
        assert_eq!(found.len(), lives.len());
        let differ = lives.iter().filter(|life| !check(life, found.get(&key(life)))).count();
        // Where events are missing, the rule reads a little more out of the rest than the model.
        assert!(differ * 100 <= count, "{differ} of {count}");
        assert_eq!(app.count("SELECT count(*) FROM tollgate.failures").await, 0);
        match &first {
            Some(first) => assert_equal(first, &found, "another order, other tables"),
            None => first = Some(found.clone()),
        }
        assert_eq!(rebuild(&app).await, 0, "a rebuild found rows that were wrong");
        sqlx::query("TRUNCATE stripe.invoices, stripe.objects, stripe.customers")
            .execute(&app.pool)
            .await
            .unwrap();
        assert!(rebuild(&app).await > 0);
        assert_equal(&found, &rows(&app.pool).await, "rebuilt from nothing");
        app.stop().await;
    }
}
