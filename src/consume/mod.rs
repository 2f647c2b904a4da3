//! What happens to an event after COMMIT: consumers' targets get it, at least once, in order where
//! they ask for that. Who gets which event when is decided in the database (`store::consumers`).

pub mod dead_letters;
pub mod engine;
pub mod nats;
pub mod push;
mod spans;
pub mod supervisor;
pub mod tally;
pub mod target;
pub mod wake;
