//! Who may read metrics while the database, which knows the tokens, is down: whoever it let in
//! within the last hour. That is when metrics are wanted most, and they hold no secrets.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::http::header::{AUTHORIZATION, COOKIE};
use tokio::time::Instant;

use crate::http::admin::AdminError;
use crate::store::tokens::Hashed;

/// How long somebody is remembered, and how many are.
const REMEMBERED: Duration = Duration::from_hours(1);
const MOST: usize = 64;

/// Those who were let in, by a hash of what they brought.
#[derive(Debug, Default)]
pub(super) struct Known(Mutex<HashMap<Hashed, Instant>>);

impl Known {
    /// Passes on what was decided about a request; only where nothing could be, memory decides.
    pub(super) fn judge(
        &self,
        request: &HttpRequest,
        decided: Result<(), AdminError>,
    ) -> Result<(), AdminError> {
        let brought = [AUTHORIZATION, COOKIE].map(|name| request.headers().get(name));
        self.decide(Hashed::of(&format!("{brought:?}")), Instant::now(), decided)
    }

    fn decide(
        &self,
        who: Hashed,
        now: Instant,
        decided: Result<(), AdminError>,
    ) -> Result<(), AdminError> {
        // Nothing panics while holding the lock, so a poisoned map is still whole.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, since| now.duration_since(*since) < REMEMBERED);
        match decided {
            Ok(()) => {
                if known.len() < MOST || known.contains_key(&who) {
                    known.insert(who, now);
                }
                Ok(())
            }
            Err(error @ (AdminError::Unauthorized | AdminError::Forbidden { .. })) => {
                known.remove(&who);
                Err(error)
            }
            // Not decided, whatever the reason.
            Err(_) if known.contains_key(&who) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_let_in_before_are_let_in_while_the_database_is_down() {
        let known = Known::default();
        let (start, minute) = (Instant::now(), Duration::from_mins(1));
        let (one, other) = (Hashed::of("one"), Hashed::of("other"));
        let down = || Err(AdminError::Database(sqlx::Error::PoolTimedOut));
        assert!(known.decide(one, start, down()).is_err());
        assert!(known.decide(one, start, Ok(())).is_ok());
        assert!(known.decide(one, start + minute, down()).is_ok());
        assert!(known.decide(other, start + minute, down()).is_err());
        // Not for ever, and not once it was refused.
        assert!(known.decide(one, start + minute * 60, down()).is_err());
        assert!(known.decide(one, start, Ok(())).is_ok());
        assert!(known.decide(one, start, Err(AdminError::Unauthorized)).is_err());
        assert!(known.decide(one, start, down()).is_err());
        for number in 0..1000 {
            assert!(known.decide(Hashed::of(&number.to_string()), start, Ok(())).is_ok());
        }
        assert_eq!(known.0.lock().unwrap().len(), MOST);
    }
}
