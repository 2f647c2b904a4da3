//! Stripe's domain as pure functions and types: no I/O, no clock, no database.
//! Transport lives in `ingest`, `sync` and `http`, SQL in `store`.

pub mod api_key;
pub mod event;
pub mod kinds;
mod lenient;
pub mod order;
pub mod resources;
pub mod signature;
pub mod snapshot;
pub mod snapshot_event;
pub mod types;
