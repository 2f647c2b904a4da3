//! Stripe's domain as pure functions and types: no I/O, no clock, no database.
//! Transport lives in `ingest` and `http`, SQL in `store`.

pub mod event;
mod lenient;
pub mod signature;
