//! The admin listener, as operators, scripts and scrapers meet it.

#![allow(clippy::disallowed_methods, reason = "tests live in the real world")]

mod access;
#[path = "../support/mod.rs"]
mod support;
mod traffic;
