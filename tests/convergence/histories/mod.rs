//! Random lives of Stripe objects: the events they emit, in true order, and what became of them.
//! A seed decides everything. What the gateway should make of them is said in `model`.

mod catalog;
mod invoices;
mod payments;
mod render;
mod rng;
mod subscriptions;
mod teller;

use std::collections::HashSet;

use serde_json::Value;

pub use rng::Rng;
use teller::{Teller, Upgrade, Versions};

const TYPES: [&str; 10] = [
    "subscription",
    "subscription",
    "invoice",
    "customer",
    "product",
    "coupon",
    "payment_intent",
    "charge",
    "payment_method",
    "widget",
];

/// The life of one object of one account and mode.
#[derive(Clone, Debug)]
pub struct History {
    pub object_type: String,
    pub id: String,
    /// Empty for the account itself.
    pub account: String,
    pub livemode: bool,
    /// Bodies, in true order. An id that is there twice was rendered in two API versions.
    pub events: Vec<String>,
    /// The object as the last event showed it; nothing that was lost changes it.
    pub truth: Value,
    pub deleted: bool,
    /// No event is missing.
    pub complete: bool,
}

/// The history with this seed.
pub fn history(seed: u64) -> History {
    let mut rng = Rng::new(seed);
    let object_type = rng.pick(&TYPES);
    let account = rng.pick(&["", "", "", "acct_1Blue", "acct_1Green"]).to_owned();
    let livemode = rng.chance(50);
    let versions = versions(&mut rng);
    let mut teller = Teller::new(rng, account, livemode, versions);
    let deleted = match object_type {
        "subscription" => subscriptions::subscription(&mut teller),
        "invoice" => invoices::invoice(&mut teller),
        "payment_intent" => payments::payment_intent(&mut teller),
        "charge" => payments::charge(&mut teller),
        "payment_method" => payments::payment_method(&mut teller),
        _ => catalog::any(&mut teller, object_type),
    };
    History {
        object_type: object_type.to_owned(),
        id: teller.state["id"].as_str().unwrap().to_owned(),
        account: teller.account,
        livemode: teller.livemode,
        events: teller.events,
        truth: teller.shown,
        deleted,
        complete: true,
    }
}

/// So many histories, each of another object: those whose key came up before are left out.
pub fn histories(seed: u64, count: usize) -> Vec<History> {
    let mut rng = Rng::new(seed);
    let mut keys = HashSet::new();
    let mut all = Vec::new();
    while all.len() < count {
        let next = history(rng.number());
        let key = (next.object_type.clone(), next.account.clone(), next.livemode, next.id.clone());
        if keys.insert(key) {
            all.push(next);
        }
    }
    all
}

/// The history with some of its bodies lost, but not all.
pub fn lossy(history: &History, seed: u64) -> History {
    let mut rng = Rng::new(seed);
    let percent = rng.pick(&[5, 20, 50]);
    let kept = rng.below(history.events.len());
    let events = history.events.iter().enumerate();
    let events: Vec<String> = events
        .filter(|(at, _)| *at == kept || !rng.chance(percent))
        .map(|(_, body)| body.clone())
        .collect();
    let complete = history.complete && events.len() == history.events.len();
    History { events, complete, ..history.clone() }
}

/// All bodies in any order, some of them more than once, dealt out to so many senders.
pub fn deliveries(histories: &[History], senders: usize, seed: u64) -> Vec<Vec<String>> {
    let mut rng = Rng::new(seed);
    let mut bodies: Vec<&String> = histories.iter().flat_map(|history| &history.events).collect();
    let again: Vec<&String> = bodies.iter().copied().filter(|_| rng.chance(20)).collect();
    bodies.extend(again);
    rng.shuffle(&mut bodies);
    let mut dealt = vec![Vec::new(); senders];
    for body in bodies {
        dealt[rng.below(senders)].push(body.clone());
    }
    dealt
}

fn versions(rng: &mut Rng) -> Versions {
    if rng.chance(20) {
        let (at, both) = (rng.below(8), rng.pick(&[0, 0, 1, 3, 20]));
        let upgrade = Upgrade { at, both, to: "2025-03-31.basil" };
        return Versions { first: Some("2020-08-27"), upgrade: Some(upgrade) };
    }
    let recent = [
        "2017-06-05",
        "2018-11-08",
        "2020-08-27",
        "2020-08-27",
        "2022-11-15",
        "2024-06-20",
        "2025-03-31.basil",
        "2025-09-30.clover",
    ];
    let first = match rng.between(0, 19) {
        0 => None,
        1 => Some(rng.pick(&["2015-10-16", "2017-04-06"])),
        _ => Some(rng.pick(&recent)),
    };
    Versions { first, upgrade: None }
}
