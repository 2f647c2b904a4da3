//! Consumers seen from outside: claims in SQL, deliveries to real targets, workers that die, and the
//! tools that users put behind them.

#![allow(clippy::disallowed_methods, reason = "tests live in the real world")]

#[path = "../support/mod.rs"]
mod support;

mod changes;
mod claims;
mod examples;
mod killed;
mod leases;
mod model;
mod nats;
mod order;
mod property;
mod push_signature;
mod reading;
mod seed;
