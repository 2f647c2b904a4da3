//! Consumers seen from outside: claims in SQL, deliveries to real targets, and the tools that users
//! put behind them.

#![allow(clippy::disallowed_methods, reason = "tests live in the real world")]

#[path = "../support/mod.rs"]
mod support;

mod nats;
mod push_signature;
