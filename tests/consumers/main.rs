//! What happens to events after COMMIT, seen from outside: real targets, and the tools that users
//! put behind them.

#![allow(clippy::disallowed_methods, reason = "tests live in the real world")]

#[path = "../support/mod.rs"]
mod support;

mod push_signature;
