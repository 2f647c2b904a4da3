//! Stripe's domain as pure functions and types: no I/O, no clock, no database.
//! Transport lives in `ingest` and `http`, SQL in `store`.

pub mod event;
pub mod kinds;
mod lenient;
pub mod order;
pub mod signature;
pub mod snapshot;
pub mod types;
