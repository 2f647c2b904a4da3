//! Step 3: which of the states left over were before another one, by what single events say.
//! Whole walks are followed in `chain`; here one event may be all there is.

use super::canonical::{changed_paths, shows};
use super::chain::whole_arrays;
use super::{Candidate, Class, Version};

/// The most candidates compared each with each, the bits of a set. More are left as they are.
const CANDIDATES_MAX: usize = u64::BITS as usize;

/// Drops the candidates that came before others.
///
/// One came before another if an event of the other reports a before that it shows; and so on from
/// there. Where that goes in a circle none of the circle is dropped for the others: they get one
/// knot.
pub(super) fn narrow(classes: &[Class<'_>], candidates: Vec<Candidate>) -> Vec<Candidate> {
    if candidates.len() > CANDIDATES_MAX {
        return candidates;
    }
    let reach = reach(classes, &candidates);
    let reaches = |from: usize, to: usize| reach.get(from).is_some_and(|set| set & (1 << to) != 0);
    let mut left = Vec::new();
    for (index, candidate) in candidates.iter().enumerate() {
        let mut others = 0..candidates.len();
        if others.any(|other| reaches(index, other) && !reaches(other, index)) {
            continue;
        }
        // The first of the circle names it.
        let first = (0..index).find(|&other| reaches(index, other) && reaches(other, index));
        let knot = first.and_then(|first| candidates.get(first)).unwrap_or(candidate).knot;
        left.push(Candidate { class: candidate.class, knot });
    }
    left
}

/// For each candidate the set of those that came after it.
fn reach(classes: &[Class<'_>], candidates: &[Candidate]) -> Vec<u64> {
    let class = |candidate: &Candidate| classes.get(candidate.class);
    let reports: Vec<Vec<&Version>> = candidates
        .iter()
        .map(|candidate| class(candidate).map_or_else(Vec::new, |class| reports(class)))
        .collect();
    let mut reach = vec![0_u64; candidates.len()];
    for (from, earlier) in candidates.iter().enumerate() {
        for (to, later) in candidates.iter().enumerate() {
            let knotted = earlier.knot == later.knot;
            let led = class(earlier).is_some_and(|class| {
                reports.get(to).is_some_and(|all| all.iter().any(|one| follows(one, class.newest)))
            });
            if let Some(set) = reach.get_mut(from)
                && from != to
                && (knotted || led)
            {
                *set |= 1 << to;
            }
        }
    }
    for via in 0..reach.len() {
        let beyond = reach.get(via).copied().unwrap_or_default();
        for set in &mut reach {
            if *set & (1 << via) != 0 {
                *set |= beyond;
            }
        }
    }
    reach
}

/// The events of a class that report a change; in old versions not of arrays, which are in parts.
fn reports<'a>(class: &Class<'a>) -> Vec<&'a Version> {
    let mut found = class.members.clone();
    found.retain(|version| {
        let Some(previous) = version.previous.as_deref() else { return false };
        let paths = changed_paths(&version.object, previous);
        let array = |path: &Vec<&str>| {
            path.iter()
                .try_fold(previous, |value, key| value.get(key))
                .is_some_and(serde_json::Value::is_array)
        };
        !paths.is_empty()
            && !shows(Some(&version.object), previous)
            && (whole_arrays(version) || !paths.iter().any(array))
    });
    found
}

/// Whether an event's before may have been this state. Only renderings in one API version compare.
fn follows(event: &Version, state: &Version) -> bool {
    event.api_version == state.api_version
        && event.previous.as_ref().is_some_and(|previous| shows(Some(&state.object), previous))
}
