//! Sends events to a gateway the way Stripe does: load them, plan the deliveries, send, report.
//! Arguments and output belong to `cli::replay`; the gateway's side of it to `ingest`.

pub mod plan;
pub mod report;
pub mod sender;
pub mod source;

pub use plan::{Delivery, Options, Plan};
pub use report::Report;
pub use sender::{Pace, Sender, Target};
pub use source::Event;
