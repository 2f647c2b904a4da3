//! Real events, if they are there: every object reaches a table, whatever the order. They are no
//! part of this project; `TOLLGATE_TEST_EVENTS` names their folder.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::lives::deliver_all;
use crate::histories::Rng;
use crate::{assert_equal, gateway, rows};

const ORDERS: u64 = 20;
const SENDERS: usize = 4;

/// The bodies, each under an id of its own.
fn bodies() -> Vec<(Value, String)> {
    let folder = std::env::var_os("TOLLGATE_TEST_EVENTS")
        .map_or_else(|| PathBuf::from("../shared/stripe_events/events"), PathBuf::from);
    let mut paths = Vec::new();
    json_files(&folder, &mut paths);
    paths.sort();
    let event = |(path, n): (PathBuf, usize)| {
        let text = std::fs::read_to_string(&path).unwrap();
        let mut event: Value = serde_json::from_str(&text).ok()?;
        event["id"] = format!("evt_captured{n:04}").into();
        let body = event.to_string();
        Some((event, body))
    };
    paths.into_iter().zip(0..).filter_map(event).collect()
}

fn json_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            json_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "json") {
            found.push(path);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn real_events_give_the_same_tables_in_every_order() {
    let events = bodies();
    if events.is_empty() {
        eprintln!("SKIPPED: no captured events here");
        return;
    }
    let mut first = None;
    for order in 0..ORDERS {
        let mut rng = Rng::new(order);
        let mut all: Vec<String> = events.iter().map(|(_, body)| body.clone()).collect();
        let again: Vec<String> = all.iter().filter(|_| rng.chance(30)).cloned().collect();
        all.extend(again);
        rng.shuffle(&mut all);
        let mut dealt = vec![Vec::new(); SENDERS];
        for (n, body) in all.into_iter().enumerate() {
            dealt[n % SENDERS].push(body);
        }
        let app = gateway().await;
        deliver_all(&app, dealt).await;
        assert_eq!(app.count("SELECT count(*) FROM tollgate.failures").await, 0);
        let found = rows(&app.pool).await;
        for (event, _) in &events {
            let object = &event["data"]["object"];
            let Some(id) = object["id"].as_str() else {
                continue;
            };
            assert!(found.keys().any(|key| key.4 == id), "no row for {id}: {event}");
        }
        match &first {
            Some(first) => assert_equal(first, &found, "another order, other tables"),
            None => first = Some(found),
        }
        app.stop().await;
    }
}
