//! What a database error means for the one who gets it: try again, give up, or blame the data.
//! The SQLSTATE classes are those of <https://www.postgresql.org/docs/current/errcodes-appendix.html>.

use sqlx::postgres::PgDatabaseError;

/// An error of the database, or of the way to it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database said no, or could not be reached.
    #[error("{}", told(.0))]
    Database(sqlx::Error),
    /// No answer in time; what the statement did is unknown.
    #[error("the database did not answer in time")]
    TimedOut,
    /// A handler in Rust failed.
    #[error("{0}")]
    Handler(String),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

/// What the database says, and where in whose function it was. Without the line of Postgres' own
/// source code that sqlx adds: whoever wrote the function would look for it there.
fn told(error: &sqlx::Error) -> String {
    let Some(error) = error.as_database_error() else {
        return error.to_string();
    };
    let error = error.downcast_ref::<PgDatabaseError>();
    match error.r#where().and_then(|place| place.lines().next()) {
        Some(place) => format!("{} ({place})", error.message()),
        None => error.message().to_owned(),
    }
}

/// What to do about a [`StoreError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The values themselves were refused: the same statement will fail for ever.
    Data,
    /// One statement does not do, or one of its parts was too much: do it step by step.
    Undecided,
    /// Other handlers are registered than the caller knows.
    Handlers,
    /// Another transaction made a row in between: begin again, at once.
    Raced,
    /// Nothing wrong with the statement: deadlock, lost connection, restart, full disk. Try again
    /// on a new connection.
    Transient,
}

/// Raised by `tollgate.commit_events` and `tollgate.write_events`.
const STEP_BY_STEP: &str = "TG001";
const OTHER_HANDLERS: &str = "TG002";
const RACED: &str = "TG003";

impl StoreError {
    /// Sorts the error. What is not plainly about the data counts as transient: to retry in vain
    /// costs time, to give up in vain costs an event.
    pub fn fault(&self) -> Fault {
        let code = match self {
            Self::Handler(_) | Self::Database(sqlx::Error::Encode(_)) => return Fault::Data,
            Self::Database(sqlx::Error::Database(error)) => error.code(),
            Self::Database(_) | Self::TimedOut => return Fault::Transient,
        };
        // 21 cardinality, 22 data exception, 23 integrity constraint.
        match code.as_deref() {
            // A key is there already though conflicts are provided for: the sequence of positions has
            // fallen behind, after a restore say. The events are not to blame.
            Some("23505") => Fault::Transient,
            Some(OTHER_HANDLERS) => Fault::Handlers,
            Some(RACED) => Fault::Raced,
            // 54 program limit exceeded: JSON nested too deep, or the NOTIFY queue full. Step by step
            // shows which.
            Some(code) if code == STEP_BY_STEP || code.starts_with("54") => Fault::Undecided,
            Some(code) if ["21", "22", "23"].iter().any(|class| code.starts_with(class)) => {
                Fault::Data
            }
            _ => Fault::Transient,
        }
    }

    /// Did the server answer, and the connection survive? Then a savepoint can be gone back to.
    pub fn is_answer(&self) -> bool {
        match self {
            Self::Handler(_) => true,
            // 57P01 to 57P03: the server is going down.
            Self::Database(sqlx::Error::Database(error)) => {
                error.code().is_none_or(|code| !code.starts_with("57P"))
            }
            Self::Database(_) | Self::TimedOut => false,
        }
    }

    /// Is it about what was asked, as opposed to how busy or sick the server is?
    pub fn is_about_statement(&self) -> bool {
        let sick = ["08", "40", "53", "55", "57", "58", "TG", "XX"];
        let code = match self {
            Self::Database(sqlx::Error::Database(error)) => error.code(),
            _ => None,
        };
        code.is_some_and(|code| !sick.iter().any(|class| code.starts_with(class)))
    }
}
