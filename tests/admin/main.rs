//! The admin listener, as operators, scripts and scrapers meet it.

#![allow(clippy::disallowed_methods, reason = "tests live in the real world")]
#![allow(clippy::float_cmp, reason = "metrics are floats, and most of them count")]

mod access;
mod again;
mod api;
mod api_refusals;
mod bench;
mod browse;
mod collector;
mod deploy;
mod metrics;
mod openapi;
mod readme;
mod scrape;
mod seed;
mod server;
#[path = "../support/mod.rs"]
mod support;
mod traces;
mod traces_kept;
mod traces_lost;
mod traffic;
mod whole;
