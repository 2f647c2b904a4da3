//! Which of an object's events shows its newest state: [`resolve`], a pure function of the set.
//! How an event's standing is read, and where its versions come from, is not decided here.
//!
//! Stripe promises no order and gives times in seconds, so several events of one object often
//! tie. What they say of their before and after orders them (`chain`, then `pairwise`); failing
//! that the object's lifecycle does (`rank`). Event ids carry no order: a winner found by them is
//! a guess, and [`Basis::Tiebreak`] says so.

mod canonical;
mod chain;
mod json;
mod pairwise;
#[cfg(test)]
mod properties;
mod rank;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod walks;

use std::cmp::Ordering;
use std::collections::HashMap;
use std::fmt;

use time::OffsetDateTime;

use canonical::canonical;
pub use canonical::differences;
use chain::{Circuit, Finding};
pub use json::Json;

/// The phases of an object's life, later ones win.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The object's own `*.created`.
    Created = 0,
    /// Everything between.
    Normal = 1,
    /// A state that is never left, such as a canceled subscription.
    Terminal = 2,
    /// The object is gone.
    Deleted = 3,
}

/// What the events of one object are ordered by, greatest last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Standing {
    /// `created` of an object whose id may be used again after a deletion, else 0.
    pub incarnation: i64,
    /// See [`Phase`].
    pub phase: Phase,
    /// `created` of the event.
    pub created: OffsetDateTime,
}

/// One event's view of an object.
#[derive(Clone, Debug)]
pub struct Version {
    /// The event's id; it decides only what nothing else does.
    pub event_id: String,
    /// The event's `type`.
    pub event_type: String,
    /// The version in which the event was rendered.
    pub api_version: Option<String>,
    /// Where the event stands among others.
    pub standing: Standing,
    /// `data.object`.
    pub object: Json,
    /// `data.previous_attributes`.
    pub previous: Option<Json>,
}

/// By which step the winner was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Basis {
    /// No other event has its standing.
    Unique,
    /// All that tie show the same state.
    Same,
    /// The before and after of the tied events form one trail, which ends here.
    Chain,
    /// Another event's before was the state of each of the others.
    Pairwise,
    /// It is furthest in its lifecycle.
    Rank,
    /// Nothing but the event id: a guess.
    Tiebreak,
}

impl Phase {
    /// The phase of this number, if there is one.
    #[must_use]
    pub fn numbered(number: i16) -> Option<Self> {
        [Self::Created, Self::Normal, Self::Terminal, Self::Deleted]
            .into_iter()
            .find(|phase| *phase as i16 == number)
    }
}

impl Basis {
    /// The basis of this name, if there is one.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Unique, Self::Same, Self::Chain, Self::Pairwise, Self::Rank, Self::Tiebreak]
            .into_iter()
            .find(|basis| basis.as_str() == name)
    }

    /// A stable name, for a column.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unique => "unique",
            Self::Same => "same",
            Self::Chain => "chain",
            Self::Pairwise => "pairwise",
            Self::Rank => "rank",
            Self::Tiebreak => "tiebreak",
        }
    }
}

impl fmt::Display for Basis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The newest version of an object, and how sure that is.
#[derive(Clone, Copy, Debug)]
pub struct Resolution<'a> {
    /// The event whose object to keep.
    pub winner: &'a Version,
    /// How it was found.
    pub basis: Basis,
    /// Whether versions of a lower standing had, or would have had, a say in it.
    pub rests_on_base: bool,
}

/// Finds the newest of an object's versions. The order in which they are given does not matter,
/// nor does giving one twice. None only for an empty set.
///
/// Usually the greatest standing decides. Versions of a lower one are looked at only where tied
/// events go round in a circle, as in A→B→A, and so end where they began.
pub fn resolve<'a>(object_type: &str, versions: &'a [Version]) -> Option<Resolution<'a>> {
    let distinct = distinct(versions);
    let mut waiting: Vec<(Vec<Class<'a>>, Box<Circuit<'a>>)> = Vec::new();
    let mut incarnation = None;
    let mut below: Option<Verdict<'a>> = None;
    // A loop, and the circles on a list: there may be more of them than the stack holds.
    for group in distinct.chunk_by(|left, right| left.standing == right.standing).rev() {
        let own = group.first().map(|version| version.standing.incarnation);
        if incarnation.is_some() && incarnation != own {
            break;
        }
        incarnation = own;
        let classes = classes(group);
        let finding = match group {
            [_] => Finding::Open(vec![Candidate { class: 0, knot: 0 }], Basis::Unique),
            _ if classes.len() == 1 => {
                Finding::Open(vec![Candidate { class: 0, knot: 0 }], Basis::Same)
            }
            _ => chain::follow(&classes),
        };
        match finding {
            Finding::Circuit(circuit) => waiting.push((classes, circuit)),
            Finding::Open(candidates, basis) => {
                below = contest(object_type, &classes, candidates, basis);
                break;
            }
        }
    }
    let rests_on_base = !waiting.is_empty();
    while let Some((classes, circuit)) = waiting.pop() {
        let base = below.as_ref().map_or(&[][..], |verdict| &verdict.possible);
        let (candidates, basis) = circuit.settle(&classes, base);
        below = contest(object_type, &classes, candidates, basis);
    }
    below.map(|verdict| Resolution { winner: verdict.winner, basis: verdict.basis, rests_on_base })
}

/// What is known of a group: its winner, and which versions could be it.
#[derive(Debug)]
struct Verdict<'a> {
    winner: &'a Version,
    basis: Basis,
    /// One of each state; only the winner, unless that is a guess.
    possible: Vec<&'a Version>,
}

/// The tied events that show one state, by event id.
#[derive(Debug)]
struct Class<'a> {
    members: Vec<&'a Version>,
    newest: &'a Version,
}

/// A class that may be the last one. Of those with the same knot any may follow on any other, so
/// a comparison of states proves nothing between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Candidate {
    class: usize,
    knot: usize,
}

/// One version per event, by standing and event id. An event rendered twice counts in the higher
/// API version, as in the log.
fn distinct(versions: &[Version]) -> Vec<&Version> {
    let mut all: Vec<&Version> = versions.iter().collect();
    all.sort_unstable_by(|left, right| {
        left.event_id
            .cmp(&right.event_id)
            .then_with(|| right.api_version.cmp(&left.api_version))
            .then_with(|| unlikely(right, left))
    });
    all.dedup_by(|next, kept| next.event_id == kept.event_id);
    // Stable: keeps the order of the ids.
    all.sort_by_key(|version| version.standing);
    all
}

/// Orders versions that one id and API version should make equal, so that the result is a function
/// of the set even if they are not.
fn unlikely(left: &Version, right: &Version) -> Ordering {
    fn texts(version: &Version) -> (&str, Option<&str>) {
        (version.object.text(), version.previous.as_ref().map(Json::text))
    }
    left.standing
        .cmp(&right.standing)
        .then_with(|| left.event_type.cmp(&right.event_type))
        .then_with(|| texts(left).cmp(&texts(right)))
}

/// Step 1: versions that show the same state become one. What they say of the state before stays
/// with each, as a state can be entered more than once.
fn classes<'a>(group: &[&'a Version]) -> Vec<Class<'a>> {
    let mut classes: Vec<Class<'a>> = Vec::new();
    if let [first, .., newest] | [first @ newest] = group
        && group.iter().all(|version| version.object.text() == first.object.text())
    {
        return vec![Class { members: group.to_vec(), newest }];
    }
    let mut known: HashMap<String, usize> = HashMap::new();
    for &version in group {
        let class = *known.entry(canonical(&version.object)).or_insert(classes.len());
        match classes.get_mut(class) {
            Some(class) => {
                class.members.push(version);
                class.newest = version;
            }
            None => classes.push(Class { members: vec![version], newest: version }),
        }
    }
    classes
}

/// Steps 3 to 5, for what the chain has left over; `basis` is the one if that is a single class.
fn contest<'a>(
    object_type: &str,
    classes: &[Class<'a>],
    candidates: Vec<Candidate>,
    basis: Basis,
) -> Option<Verdict<'a>> {
    let sure = |candidate: Candidate, basis| {
        let winner = classes.get(candidate.class)?.newest;
        Some(Verdict { winner, basis, possible: vec![winner] })
    };
    if let [only] = candidates[..] {
        return sure(only, basis);
    }
    let left = pairwise::narrow(classes, candidates);
    if let [only] = left[..] {
        return sure(only, Basis::Pairwise);
    }
    let foremost = rank::foremost(object_type, classes, &left);
    let knotted = |candidate: &Candidate| foremost.iter().any(|best| best.knot == candidate.knot);
    let guesses: Vec<Candidate> = left.iter().copied().filter(knotted).collect();
    if let [only] = guesses[..] {
        return sure(only, Basis::Rank);
    }
    let versions = |candidates: &[Candidate]| -> Vec<&'a Version> {
        candidates.iter().filter_map(|one| classes.get(one.class)).map(|one| one.newest).collect()
    };
    let winner =
        versions(&guesses).into_iter().max_by(|left, right| left.event_id.cmp(&right.event_id))?;
    Some(Verdict { winner, basis: Basis::Tiebreak, possible: versions(&left) })
}
