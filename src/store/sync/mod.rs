//! What asking Stripe's API needs to remember, and to know of log and tables: one file per duty.
//! Who asks for what, and when, is up to `sync`.

pub mod backfill;
pub mod budget;
pub mod compare;
pub mod lease;
pub mod reconcile;
pub mod thin;
