//! The dashboard, as browsers see it: over HTTP, and in a real one.

#![allow(clippy::disallowed_methods, reason = "tests live in the real world")]

mod browser;
mod looks;
mod pages;
#[path = "../consumers/receiver.rs"]
#[allow(dead_code, reason = "shared with the tests of consumers")]
mod receiver;
mod scene;
mod story;
#[path = "../support/mod.rs"]
mod support;
mod tail;
