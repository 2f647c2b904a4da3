//! Asking Stripe: events that no webhook brought, objects that no event showed, rows that are wrong.
//! What comes of it goes into the log through `ingest`; what is remembered of it stands in
//! `store::sync`, and where Stripe's API has what in `stripe::resources`.

pub mod accounts;
pub mod backfill;
pub mod client;
pub mod context;
pub mod error;
pub mod heal;
pub mod hydrate;
pub mod inlet;
pub mod list;
pub mod objects;
pub mod reconcile;
pub mod verify;

pub use accounts::Accounts;
pub use client::{Client, ClientOptions};
pub use context::Context;
pub use error::{ApiError, SyncError};
pub use inlet::Inlet;
