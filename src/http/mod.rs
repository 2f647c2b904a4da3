//! HTTP around the webhook route: the listener, health, request ids and log lines, and how errors
//! look on the wire. What a delivery means is `ingest`'s.

pub mod health;
pub mod listener;
pub mod problem;
pub mod trace;
