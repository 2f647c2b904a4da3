//! Which handlers lost the connection to the database while they ran: those that end it, or hang.
//! Such an error tells nothing of who is to blame, so it takes more than one to spare a handler.

use time::OffsetDateTime;

use crate::store::events::{EventKey, NewEvent};
use crate::store::handlers::Policy;
use crate::store::hooks::Handler;
use crate::stripe::event::EventId;

/// How often one event has to interrupt a handler: once may be a database that restarts.
const TIMES: usize = 2;

/// How many interruptions by any event it takes to spare a handler that parks: what is parked is
/// tried again event by event.
const TIMES_BY_ANY: usize = 3;

/// How many are remembered.
const MOST: usize = 64;

/// The interruptions since the last commit.
#[derive(Debug, Default)]
pub struct Interrupted(Vec<(String, (OffsetDateTime, EventId))>);

impl Interrupted {
    /// Remembers one.
    pub fn note(&mut self, handler: &str, event: &(OffsetDateTime, EventId)) {
        if self.0.len() == MOST {
            self.0.remove(0);
        }
        self.0.push((handler.to_owned(), event.clone()));
    }

    /// A commit went well.
    pub fn forget(&mut self) {
        self.0.clear();
    }

    /// Why the handler is not to be called with this event, if so.
    pub fn tell(&self, handler: Handler<'_>, event: &NewEvent) -> Option<String> {
        let parks = handler.policy() == Policy::Park;
        self.spares(handler.name(), event.key(), parks)
            .then(|| "the connection to the database was lost whenever it ran".to_owned())
    }

    fn spares(&self, handler: &str, event: EventKey<'_>, parks: bool) -> bool {
        let its = || self.0.iter().filter(|(name, _)| name == handler);
        let same = its().filter(|(_, (created, id))| (*created, id) == event).count();
        same >= TIMES || parks && its().count() >= TIMES_BY_ANY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handler_is_spared_after_its_second_interruption_by_an_event_or_its_third_by_any() {
        let event =
            |id: &str| (OffsetDateTime::UNIX_EPOCH, EventId::try_from(id.to_owned()).unwrap());
        let mut interrupted = Interrupted::default();
        let told = |interrupted: &Interrupted, id| {
            let (created, id) = event(id);
            [true, false].map(|parks| interrupted.spares("h", (created, &id), parks))
        };
        interrupted.note("h", &event("a"));
        interrupted.note("other", &event("a"));
        assert_eq!(told(&interrupted, "a"), [false, false]);
        interrupted.note("h", &event("a"));
        assert_eq!(told(&interrupted, "a"), [true, true]);
        assert_eq!(told(&interrupted, "b"), [false, false]);
        interrupted.note("h", &event("c"));
        assert_eq!(told(&interrupted, "b"), [true, false]);
        interrupted.forget();
        assert_eq!(told(&interrupted, "a"), [false, false]);
        (0..2 * MOST).for_each(|_| interrupted.note("h", &event("d")));
        assert_eq!(interrupted.0.len(), MOST);
    }
}
