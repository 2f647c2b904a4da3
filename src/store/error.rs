//! What a database error means for the one who gets it: try again, give up, or blame the data.
//! The SQLSTATE classes are those of <https://www.postgresql.org/docs/current/errcodes-appendix.html>.

/// An error of the database, or of the way to it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database said no, or could not be reached.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    /// No answer in time; what the statement did is unknown.
    #[error("the database did not answer in time")]
    TimedOut,
}

/// What to do about a [`StoreError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The values themselves were refused: the same statement will fail for ever.
    Data,
    /// Nothing wrong with the statement: deadlock, lost connection, restart, full disk. Try again
    /// on a new connection.
    Transient,
}

impl StoreError {
    /// Sorts the error. What is not plainly about the data counts as transient: to retry in vain
    /// costs time, to give up in vain costs an event.
    pub fn fault(&self) -> Fault {
        let Self::Database(sqlx::Error::Database(error)) = self else {
            return match self {
                Self::Database(sqlx::Error::Encode(_)) => Fault::Data,
                _ => Fault::Transient,
            };
        };
        // 21 cardinality, 22 data exception, 23 integrity constraint. Not 54, program limit exceeded:
        // our values are bounded, and a full NOTIFY queue is of that class.
        match error.code().as_deref() {
            // A key is there already though conflicts are provided for: the sequence of positions has
            // fallen behind, after a restore say. The events are not to blame.
            Some("23505") => Fault::Transient,
            Some(code) if ["21", "22", "23"].iter().any(|class| code.starts_with(class)) => {
                Fault::Data
            }
            _ => Fault::Transient,
        }
    }
}
