//! Which objects were written last, and in which second, to foresee which events tie: Stripe often
//! tells of one object several times in a second. A guess, and only about the way an event takes.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::store::objects::ObjectRow;
use crate::stripe::order::Standing;

/// How many are remembered: some seconds' worth. Where two fall on one place, the later one stays.
const PLACES: usize = 1 << 14;

/// Hashes: in the upper half of each of an object and what orders its events, in the lower half of
/// the state that was shown.
#[derive(Debug)]
pub struct Recent(Box<[AtomicU64]>);

impl Default for Recent {
    fn default() -> Self {
        Self((0..PLACES).map(|_| AtomicU64::new(0)).collect())
    }
}

impl Recent {
    /// Whether the row probably ties with one before it that shows another state; remembers it. To
    /// find that out in the database costs as much as writing the row.
    pub fn ties(&self, row: &ObjectRow<'_>) -> bool {
        let Standing { incarnation, phase, created } = row.standing;
        let place = hash(&(&row.key.account, &row.key.id, incarnation, phase as i16, created));
        let mark = place & !STATE | hash(&row.object) & STATE;
        let Some(place) = usize::try_from(place % PLACES as u64).ok().and_then(|at| self.0.get(at))
        else {
            return false;
        };
        let before = place.swap(mark, Ordering::Relaxed);
        before & !STATE == mark & !STATE && before != mark
    }
}

/// The half of a mark that tells the state.
const STATE: u64 = u32::MAX as u64;

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::events::{NewEvent, Source};
    use crate::store::objects::fold;
    use crate::stripe::event::Envelope;

    fn ties(recent: &Recent, event_id: &str, created: i64, name: &str) -> bool {
        let raw = format!(
            r#"{{"id":"{event_id}","type":"customer.updated","created":{created},
                "data":{{"object":{{"id":"cus_1","object":"customer","name":"{name}"}}}}}}"#
        );
        let envelope = Envelope::parse(raw.as_bytes()).unwrap();
        let (endpoint, raw, source) = ("default".to_owned(), raw.into(), Source::Webhook);
        let event = NewEvent { envelope, endpoint, source, raw, traceparent: None };
        let rows = fold(&[&event]);
        recent.ties(&rows[0])
    }

    #[test]
    fn another_state_of_the_same_second_ties() {
        let recent = Recent::default();
        assert!(!ties(&recent, "evt_1", 100, "Ann"));
        assert!(!ties(&recent, "evt_1", 100, "Ann"), "tried again");
        assert!(!ties(&recent, "evt_2", 100, "Ann"), "the same state");
        assert!(ties(&recent, "evt_3", 100, "Bea"));
        assert!(!ties(&recent, "evt_4", 101, "Cid"), "another second");
        assert!(!ties(&Recent::default(), "evt_3", 100, "Bea"), "nothing known");
    }
}
