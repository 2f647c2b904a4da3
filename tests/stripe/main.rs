//! Stripe's side: what the gateway fetches by itself, the gateway beside Stripe's own command line, and
//! whether the fake API that both meet behaves as the real one does.

#![allow(clippy::disallowed_methods, reason = "tests live in the real world")]

mod backfill;
mod cli;
mod connect;
mod fake;
mod faults;
mod forwarded;
mod printed;
mod reconcile;
mod scene;
#[path = "../support/mod.rs"]
mod support;
mod thin;
mod triggered;
mod trouble;
mod verify;

use serde_json::Value;
use support::stripe::{API_KEY, FakeStripe};

/// Asks as a client of the platform does; status and body.
async fn get(stripe: &FakeStripe, path: &str) -> (u16, Value) {
    let request = support::client().get(format!("{}{path}", stripe.base())).bearer_auth(API_KEY);
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.text().await.unwrap();
    (status, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}")))
}

/// The ids of a list.
fn ids(list: &Value) -> Vec<&str> {
    list["data"].as_array().unwrap().iter().map(|object| object["id"].as_str().unwrap()).collect()
}
