//! What people look at, in the admin API, the dashboard and on the command line: events by any
//! filter, and what became of each. Reads only, page by page; what to do about it is `reprocess`'s.
//!
//! Functions take a connection that is best within a transaction (`store::connect::transact`): some
//! set planner options for as long as that lasts. They must not be cancelled half-way.

pub mod billing;
pub mod consumers;
pub mod deliveries;
pub mod event;
pub mod events;
pub mod filter;
pub mod objects;
pub mod page;
pub mod problems;
mod search;
pub mod timeline;
pub mod totals;

pub use filter::{EventFilter, Status};
pub use page::{Cursor, Page, PageRequest};
#[doc(hidden)]
pub use search::statements;

use sqlx::PgConnection;

/// What was asked for makes no sense, or the database did not answer.
#[derive(Debug, thiserror::Error)]
pub enum BrowseError {
    /// A sentence for whoever asked.
    #[error("{0}")]
    Invalid(String),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

impl BrowseError {
    fn invalid(sentence: impl Into<String>) -> Self {
        Self::Invalid(sentence.into())
    }
}

/// Has the planner use the indexes that these queries are made for, whatever it thinks of the
/// tables, until the transaction ends. No compiling: it takes longer than the queries.
async fn steer(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query(
        "SELECT set_config('jit', 'off', true), set_config('enable_seqscan', 'off', true),
                set_config('plan_cache_mode', 'force_custom_plan', true)",
    )
    .execute(connection)
    .await
    .map(drop)
}
