//! The five promises under fire: processes killed, connections cut, shutdown under load.
//! `TOLLGATE_FAULT_ROUNDS` sets how many rounds each test goes (20, and 10 for shutdown).

#![allow(clippy::disallowed_methods, reason = "tests live in the real world")]

#[path = "../support/mod.rs"]
mod support;

mod database;
mod gateway;

/// Rounds that a test goes.
fn rounds(default: usize) -> usize {
    std::env::var("TOLLGATE_FAULT_ROUNDS")
        .map_or(default, |text| text.parse().expect("a number of rounds"))
}
