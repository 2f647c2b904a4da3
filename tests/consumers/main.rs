//! Consumers seen from outside: claims in SQL, deliveries to real targets, workers that die, and the
//! tools that users put behind them.

#![allow(clippy::disallowed_methods, reason = "tests live in the real world")]

#[path = "../support/mod.rs"]
mod support;

mod again;
mod breaker;
mod changes;
mod claims;
mod deliveries;
mod engine;
mod examples;
mod killed;
mod leases;
mod model;
mod nats;
mod nats_gateway;
mod order;
mod property;
mod push_signature;
mod quiet;
mod reading;
mod receiver;
mod replicas;
mod routing;
mod scene;
mod seed;
mod target_changes;
