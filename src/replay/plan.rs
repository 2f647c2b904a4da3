//! Which deliveries to make, in which order: a pure function of the events and the options.
//! When each is due, and what becomes of it, is `sender`'s affair.

use bytes::Bytes;
use rand::RngExt;
use rand::SeedableRng;
use rand::distr::{Alphanumeric, SampleString};
use rand::rngs::StdRng;
use rand::seq::{SliceRandom, index};

use super::source::{Event, Origin};

/// Length of the random part of a fresh id, as in Stripe's own.
const FRESH_LEN: usize = 24;

/// Two to the power of 64 by the golden ratio: its multiples lie as far apart as can be.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

/// What to do with the events before they are sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Sends them in an order drawn from this seed; `None` keeps theirs.
    pub shuffle: Option<u64>,
    /// Percentage of the events that are sent a second time, at a random place later on. Drawn
    /// from the seed of `shuffle`, or from 0.
    pub duplicates: u8,
    /// Gives each event a fresh id drawn from this seed, so that it is new to a gateway that has
    /// seen it before. Both deliveries of a duplicate have the same.
    pub unique_ids: Option<u64>,
}

/// One delivery to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    pub body: Bytes,
    pub origin: Origin,
}

impl Delivery {
    /// The delivery of the event of this number: the same whenever it is made.
    #[must_use]
    pub fn of(number: usize, event: Event, options: &Options) -> Self {
        let body = match (options.unique_ids, &event.id) {
            (Some(seed), Some(id)) => {
                // Far apart, so that no other run has the ids of this one for its own next events.
                let place = u64::try_from(number).unwrap_or_default().wrapping_mul(SPREAD);
                with_fresh_id(&event.body, id, &mut StdRng::seed_from_u64(seed ^ place))
            }
            _ => event.body,
        };
        Self { body, origin: event.origin }
    }
}

/// The numbers of so many events, in the order in which they are sent.
#[must_use]
pub fn order(count: usize, options: &Options) -> Vec<usize> {
    let mut order: Vec<_> = (0..count).collect();
    let mut rng = StdRng::seed_from_u64(options.shuffle.unwrap_or_default());
    if options.shuffle.is_some() {
        order.shuffle(&mut rng);
    }
    with_duplicates(&order, options.duplicates, &mut rng)
}

/// All deliveries to make, in order.
#[derive(Clone, Debug)]
pub struct Plan {
    deliveries: Vec<Delivery>,
}

impl Plan {
    #[must_use]
    pub fn new(events: Vec<Event>, options: &Options) -> Self {
        let made: Vec<_> = events
            .into_iter()
            .enumerate()
            .map(|(number, event)| Delivery::of(number, event, options))
            .collect();
        let deliveries = order(made.len(), options).into_iter().map(|number| made[number].clone());
        Self { deliveries: deliveries.collect() }
    }

    pub fn deliveries(&self) -> &[Delivery] {
        &self.deliveries
    }
}

/// Replaces the event's id wherever it stands as a whole JSON string. One that is written with
/// needless escapes is not found, and stays.
fn with_fresh_id(body: &Bytes, id: &str, rng: &mut StdRng) -> Bytes {
    let Ok(text) = str::from_utf8(body) else { return body.clone() };
    let prefix = id.rfind('_').map_or("", |end| &id[..=end]);
    let fresh = format!("\"{prefix}{}\"", Alphanumeric.sample_string(rng, FRESH_LEN));
    text.replace(&format!("\"{id}\""), &fresh).into()
}

/// Draws `percent` of what is sent, and for each a place behind its first.
fn with_duplicates(order: &[usize], percent: u8, rng: &mut StdRng) -> Vec<usize> {
    let count = order.len();
    let amount = (count * usize::from(percent.min(100)) + 50) / 100;
    let mut again: Vec<_> = index::sample(rng, count, amount)
        .into_iter()
        .map(|first| (rng.random_range(first..count), first))
        .collect();
    again.sort_unstable();
    let mut again = again.into_iter().peekable();
    let mut planned = Vec::with_capacity(count + amount);
    for (place, number) in order.iter().enumerate() {
        planned.push(*number);
        while let Some((_, first)) = again.next_if(|(after, _)| *after == place) {
            planned.push(order[first]);
        }
    }
    planned
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};
    use std::sync::LazyLock;

    use super::*;
    use crate::fixtures;
    use crate::replay::source::from_stories;
    use crate::stripe::event::Envelope;

    fn events() -> Vec<Event> {
        static EVENTS: LazyLock<Vec<Event>> =
            LazyLock::new(|| from_stories(&fixtures::stories(fixtures::SEED, fixtures::START)));
        EVENTS.clone()
    }

    fn ids(options: &Options) -> Vec<String> {
        Plan::new(events(), options)
            .deliveries()
            .iter()
            .map(|delivery| Envelope::parse(&delivery.body).unwrap().id.to_string())
            .collect()
    }

    fn given() -> Vec<String> {
        events().into_iter().map(|event| event.id.unwrap()).collect()
    }

    #[test]
    fn without_options_events_go_out_as_given() {
        assert_eq!(ids(&Options::default()), given());
    }

    #[test]
    fn a_seed_decides_the_order() {
        let shuffled = |seed| ids(&Options { shuffle: Some(seed), ..Options::default() });
        assert_eq!(shuffled(1), shuffled(1));
        assert_ne!(shuffled(1), shuffled(2));
        assert_ne!(shuffled(1), given());
        let sorted = |mut ids: Vec<String>| {
            ids.sort();
            ids
        };
        assert_eq!(sorted(shuffled(1)), sorted(given()));
    }

    #[test]
    fn a_share_of_the_events_is_sent_twice_and_the_rest_stays_in_order() {
        for percent in [0, 30, 100] {
            let sent = ids(&Options { duplicates: percent, ..Options::default() });
            let mut times = HashMap::new();
            let firsts: Vec<_> = sent
                .iter()
                .filter(|id| {
                    let times = times.entry(*id).or_insert(0);
                    *times += 1;
                    *times == 1
                })
                .cloned()
                .collect();
            assert_eq!(firsts, given());
            assert!(times.values().all(|times| *times <= 2));
            let expected = (given().len() * usize::from(percent) + 50) / 100;
            assert_eq!(sent.len() - given().len(), expected);
        }
    }

    #[test]
    fn fresh_ids_are_new_shared_by_duplicates_and_change_nothing_else() {
        let fresh =
            |seed| ids(&Options { duplicates: 100, unique_ids: Some(seed), ..Options::default() });
        let given: HashSet<_> = given().into_iter().collect();
        let unique: HashSet<_> = fresh(7).into_iter().collect();
        assert_eq!(unique.len(), given.len());
        assert!(unique.is_disjoint(&given));
        assert!(unique.is_disjoint(&fresh(8).into_iter().collect()));

        let body = Bytes::from_static(br#"{"id": "evt_1","x":"evt_12","y":["evt_1"]}"#);
        let changed = with_fresh_id(&body, "evt_1", &mut StdRng::seed_from_u64(1));
        let id = Envelope::parse(&changed).unwrap().id.to_string();
        assert_eq!(changed, format!(r#"{{"id": "{id}","x":"evt_12","y":["{id}"]}}"#));
        assert!(id.starts_with("evt_") && id.len() == "evt_".len() + FRESH_LEN);
    }
}
