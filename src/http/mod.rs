//! HTTP: the public listener around the webhook route, the admin listener, health, request ids and
//! log lines, and how errors look on the wire. What a delivery means is `ingest`'s.

pub mod admin;
pub mod concerns;
pub mod dashboard;
pub mod health;
pub mod listener;
pub mod metrics;
pub mod problem;
pub mod starting;
pub mod trace;
