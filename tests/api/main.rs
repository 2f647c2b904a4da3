//! The gateway from outside: real HTTP, a real Postgres, a database for each test.

#![allow(clippy::disallowed_methods, reason = "tests live in the real world")]

#[path = "../support/mod.rs"]
mod support;

mod answers;
mod bad_input;
mod bytes_on_the_wire;
mod credits;
mod duplicates;
mod handlers;
mod health;
mod interrupted;
mod log_lines;
mod maintenance;
mod pages;
mod schema;
mod tables;
mod views;
mod wake;
mod writing;
