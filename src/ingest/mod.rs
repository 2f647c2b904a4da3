//! The way of an event from the socket to COMMIT: `handler` verifies and parses it, `queue` holds
//! it for a moment, `writer` commits it with whatever else is waiting, and the handler answers.
//! Which listener serves the route, and how errors look on the wire, is `http`'s.

pub mod body;
pub mod commit;
pub mod endpoint;
pub mod error;
pub mod handler;
mod interrupted;
pub mod lanes;
pub mod queue;
pub mod recent;
mod spans;
pub mod traffic;
pub mod writer;

pub use endpoint::{Endpoint, EndpointName, Endpoints, LivemodeRule};
pub use error::IngestError;
pub use handler::Intake;
