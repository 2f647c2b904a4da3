//! What of the figures somebody should look at, in words, for the dashboard and for
//! `tollgate status`. Where the figures come from is `store`'s, where links lead the dashboard's.

use super::dashboard::text::{span, thousands};
use crate::store::browse::consumers::Consumer;
use crate::store::browse::totals::Totals;

/// Lag from which on a consumer counts as behind, in seconds.
const BEHIND: f64 = 60.0;

/// What a concern is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// A part of the gateway, as on `/readyz`.
    Gateway,
    Consumers,
    DeadLetters,
    Failures,
    Quarantine,
    /// What Stripe was asked for.
    Stripe,
}

/// Something that somebody should look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Concern {
    /// Whether something is broken, as opposed to waiting for somebody.
    pub bad: bool,
    pub text: String,
    pub about: About,
}

/// How much there is of what should not be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trouble {
    pub dead_letters: i64,
    /// Failures of tables and handlers that are tried again, and those given up.
    pub failing: i64,
    pub given_up: i64,
    pub quarantined: i64,
    /// Events of the last day that had to be fetched, and accounts that could not be compared.
    pub late_events: i64,
    pub uncompared: i64,
}

impl From<&Totals> for Trouble {
    fn from(totals: &Totals) -> Self {
        let Totals {
            dead_letters, failing, given_up, quarantined, late_events, uncompared, ..
        } = *totals;
        Self { dead_letters, failing, given_up, quarantined, late_events, uncompared }
    }
}

impl Trouble {
    /// Of tables and handlers.
    pub fn failures(self) -> i64 {
        self.failing + self.given_up
    }
}

/// What wants a look, the worst first.
pub fn concerns(consumers: &[Consumer], trouble: Trouble) -> Vec<Concern> {
    let mut all: Vec<_> = consumers.iter().filter_map(of_consumer).collect();
    let mut add = |bad, count: i64, one: &str, many: &str, about| {
        if count > 0 {
            let text = if count == 1 {
                format!("1 {one}")
            } else {
                format!("{} {many}", thousands(count))
            };
            all.push(Concern { bad, text, about });
        }
    };
    add(
        true,
        trouble.dead_letters,
        "event was given up by a consumer",
        "events were given up by consumers",
        About::DeadLetters,
    );
    add(
        true,
        trouble.given_up,
        "failure of a table or handler was given up",
        "failures of tables or handlers were given up",
        About::Failures,
    );
    add(
        true,
        trouble.uncompared,
        "account could not be compared with Stripe's events: see tollgate.reconciliations",
        "accounts could not be compared with Stripe's events: see tollgate.reconciliations",
        About::Stripe,
    );
    add(
        false,
        trouble.late_events,
        "event of the last day was brought by no webhook, and fetched from Stripe: see tollgate.gaps",
        "events of the last day were brought by no webhook, and fetched from Stripe: see tollgate.gaps",
        About::Stripe,
    );
    add(
        false,
        trouble.failing,
        "failure of a table or handler is tried again",
        "failures of tables or handlers are tried again",
        About::Failures,
    );
    add(
        false,
        trouble.quarantined,
        "body is in quarantine",
        "bodies are in quarantine",
        About::Quarantine,
    );
    all.sort_by_key(|concern| !concern.bad);
    all
}

fn of_consumer(consumer: &Consumer) -> Option<Concern> {
    let Consumer { name, lag_events, lag_seconds, .. } = consumer;
    let (bad, text) = match consumer.state.as_str() {
        "open" | "half_open" => {
            (true, format!("Consumer {name}: its target fails, the breaker is open"))
        }
        "paused" if *lag_events > 0 => {
            (false, format!("Consumer {name} is paused, with a lag of {}", thousands(*lag_events)))
        }
        _ if *lag_seconds > BEHIND => {
            (false, format!("Consumer {name} is {} behind", span(*lag_seconds)))
        }
        _ => return None,
    };
    Some(Concern { bad, text, about: About::Consumers })
}

/// All of it in a sentence.
pub fn verdict(concerns: &[Concern]) -> String {
    match concerns.len() {
        0 => "All is well.".to_owned(),
        1 => "One thing wants a look.".to_owned(),
        some => format!("{some} things want a look."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_to_say_is_said_in_one_sentence() {
        assert_eq!(verdict(&concerns(&[], Trouble::default())), "All is well.");
    }

    #[test]
    fn the_worst_comes_first() {
        let trouble =
            Trouble { dead_letters: 1, failing: 2, quarantined: 1000, ..Trouble::default() };
        let concerns = concerns(&[], trouble);
        let texts: Vec<_> = concerns.iter().map(|concern| concern.text.as_str()).collect();
        assert_eq!(
            texts,
            [
                "1 event was given up by a consumer",
                "2 failures of tables or handlers are tried again",
                "1,000 bodies are in quarantine",
            ]
        );
        assert_eq!(verdict(&concerns), "3 things want a look.");
    }
}
