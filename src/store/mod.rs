//! The only SQL in Tollgate, apart from `migrations/`: one file per table or duty.
//! Decides nothing: what to write and when is up to `ingest` and `maintain`.

pub mod connect;
pub mod error;
pub mod events;
pub mod maintenance;
pub mod migrations;
pub mod quarantine;
pub mod status;

pub use error::{Fault, StoreError};
