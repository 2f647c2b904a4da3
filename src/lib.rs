//! Tollgate takes Stripe's webhooks and makes of each signed event one committed Postgres
//! transaction.
//!
//! The way of an event, and the modules on it:
//!
//! ```text
//! bytes -> stripe::signature -> stripe::event -> ingest::queue -> ingest::writer -> store -> COMMIT -> 200
//! ```
//!
//! | module | what lives there | imports |
//! |---|---|---|
//! | [`stripe`] | the domain, pure: signature, event, kinds, snapshot, order | nothing of ours |
//! | [`store`] | the only SQL | `stripe` |
//! | [`ingest`] | the webhook route, the queue, the writers, one attempt at a batch | `stripe`, `store` |
//! | [`maintain`] | partitions, retention, what failed before, counts by the minute | `store`, `ingest` |
//! | [`consume`] | what happens to an event after COMMIT: claims, pushes, sinks | `stripe`, `store` |
//! | [`sync`] | asking Stripe: reconcile, backfill, verify, thin events | `stripe`, `store`, `ingest` |
//! | [`http`] | the listeners, health, the admin side, log lines, errors on the wire | all above |
//! | [`replay`] | sends events as Stripe does | `stripe` |
//! | [`startup`] | wires the parts, takes them down in order | all above |
//! | [`cli`] | one file per subcommand | all above |
//!
//! Beside the way stand [`settings`], [`clock`], [`counting`], [`telemetry`], [`shutdown`],
//! [`embedded`] (the private Postgres), [`fixtures`] (sample events), [`http_client`] and [`traces`]
//! (spans for OpenTelemetry).

pub mod cli;
pub mod clock;
pub mod consume;
pub mod counting;
pub mod embedded;
pub mod fixtures;
pub mod http;
pub mod http_client;
pub mod ingest;
pub mod maintain;
pub mod replay;
pub mod settings;
pub mod shutdown;
pub mod startup;
pub mod store;
pub mod stripe;
pub mod sync;
pub mod telemetry;
pub mod traces;
