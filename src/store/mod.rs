//! The only SQL in Tollgate, apart from `migrations/`: one file per table or duty.
//! Decides nothing: what to write and when is up to `ingest` and `maintain`.

pub mod audit;
pub mod browse;
pub mod connect;
pub mod consumer_admin;
pub mod consumers;
pub mod error;
pub mod events;
pub mod failures;
pub mod gauges;
pub mod handlers;
pub mod hooks;
pub mod maintenance;
pub mod migrations;
pub mod objects;
pub mod projections;
pub mod quarantine;
pub mod reading;
pub mod rebuild;
mod remains;
pub mod reprocess;
pub mod status;
pub mod sync;
pub mod tokens;
pub mod traces;
pub mod traffic;
pub mod wake;

pub use error::{Fault, StoreError};
