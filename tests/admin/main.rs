//! The admin listener, as operators, scripts and scrapers meet it.

#![allow(clippy::disallowed_methods, reason = "tests live in the real world")]

mod access;
mod bench;
mod collector;
mod seed;
mod server;
#[path = "../support/mod.rs"]
mod support;
mod traces;
mod traces_kept;
mod traces_lost;
mod traffic;
