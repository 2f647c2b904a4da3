//! Step 2: the tied events that say what they changed, as edges of a graph of states, and where
//! a walk over all of them must end.
//! Events are compared one by one in `pairwise`; states without any edges are left to others.

use std::collections::HashMap;

use serde_json::Value;

use super::canonical::{at, changed_paths};
use super::{Basis, Candidate, Class, Version};

/// Up to this API version, arrays in `previous_attributes` held only the changed elements.
const PARTIAL_ARRAYS: &str = "2017-04-06";

/// The most values (states times attributes) compared in one group; a group of more is left to the
/// next steps. A second's events of one object need some dozens.
const CELLS_MAX: usize = 1 << 20;

/// What the edges of a group tell.
#[derive(Debug)]
pub(super) enum Finding<'a> {
    /// One of these is the last; if it is one only, found by this step.
    Open(Vec<Candidate>, Basis),
    /// The walk ends where it began, which a lower group must tell.
    Circuit(Box<Circuit<'a>>),
}

/// Whether the arrays in this event's `previous_attributes` are whole.
pub(super) fn whole_arrays(version: &Version) -> bool {
    version.api_version.as_deref().is_some_and(|version| version > PARTIAL_ARRAYS)
}

/// Follows the edges of a group of tied events.
///
/// A walk that uses each edge once leaves its start once more than it enters it, and enters its
/// end once more than it leaves it. All other states balance, so the end is known without the
/// order of the walk. If all balance, the walk is a circuit.
pub(super) fn follow<'a>(classes: &[Class<'a>]) -> Finding<'a> {
    match Graph::new(classes) {
        Some(graph) => graph.finding(classes),
        None => Finding::Open((0..classes.len()).map(loose).collect(), Basis::Tiebreak),
    }
}

/// A candidate with a knot of its own.
fn loose(class: usize) -> Candidate {
    Candidate { class, knot: class }
}

/// States and edges of a group.
///
/// A state is what stands at the paths that any event of the group reports as changed. If no event
/// is missing the rest of the object is the same in all of them; if it is not, something changed
/// without a report, and the reports still chain.
#[derive(Debug)]
struct Graph<'a> {
    paths: Vec<Vec<&'a str>>,
    /// Numbers for the values, so that states are short.
    values: HashMap<String, usize>,
    vertices: HashMap<Vec<usize>, usize>,
    /// By vertex, as all that follow.
    states: Vec<Vec<usize>>,
    classes: Vec<Vec<usize>>,
    /// Edges in less edges out.
    surplus: Vec<i64>,
    /// The vertex that stands for all that are connected with this one.
    root: Vec<usize>,
    edges: Vec<(usize, usize)>,
}

impl<'a> Graph<'a> {
    /// None without edges, or where edges cannot be trusted.
    fn new(classes: &[Class<'a>]) -> Option<Self> {
        let first = classes.first()?.newest;
        let mut members = classes.iter().flat_map(|class| &class.members);
        if !members.all(|one| whole_arrays(one) && one.api_version == first.api_version) {
            return None;
        }
        let mut reports: Vec<(usize, &'a Version, &'a Value)> = Vec::new();
        let mut paths: Vec<Vec<&'a str>> = Vec::new();
        for (index, class) in classes.iter().enumerate() {
            for &version in &class.members {
                let Some(previous) = version.previous.as_deref() else { continue };
                reports.push((index, version, previous));
                paths.extend(changed_paths(&version.object, previous));
            }
        }
        // A path that goes on from a shorter one is part of it, and sorts right after it.
        paths.sort_unstable();
        paths.dedup_by(|next, kept| next.starts_with(kept));
        let states = classes.len().saturating_add(reports.len());
        if paths.is_empty() || paths.len().saturating_mul(states) > CELLS_MAX {
            return None;
        }
        let mut graph = Graph {
            paths,
            values: HashMap::new(),
            vertices: HashMap::new(),
            states: Vec::new(),
            classes: Vec::new(),
            surplus: Vec::new(),
            root: Vec::new(),
            edges: Vec::new(),
        };
        let mut after = Vec::with_capacity(classes.len());
        for (index, class) in classes.iter().enumerate() {
            let vertex = graph.vertex(&class.newest.object, None);
            graph.classes[vertex].push(index);
            after.push(vertex);
        }
        for (class, version, previous) in reports {
            let before = graph.vertex(&version.object, Some(previous));
            graph.connect(before, after[class]);
        }
        Some(graph)
    }

    fn vertex(&mut self, object: &Value, previous: Option<&Value>) -> usize {
        let mut state = Vec::with_capacity(self.paths.len());
        for path in &self.paths {
            let next = self.values.len();
            state.push(*self.values.entry(at(object, previous, path)).or_insert(next));
        }
        let next = self.states.len();
        let vertex = *self.vertices.entry(state.clone()).or_insert(next);
        if vertex == next {
            self.states.push(state);
            self.classes.push(Vec::new());
            self.surplus.push(0);
            self.root.push(vertex);
        }
        vertex
    }

    fn connect(&mut self, before: usize, after: usize) {
        // An event that changed nothing we compare is only a state.
        if before == after {
            return;
        }
        self.edges.push((before, after));
        self.surplus[before] -= 1;
        self.surplus[after] += 1;
        let (before, after) = (self.find(before), self.find(after));
        self.root[before] = after;
    }

    fn find(&mut self, mut vertex: usize) -> usize {
        while self.root[vertex] != vertex {
            self.root[vertex] = self.root[self.root[vertex]];
            vertex = self.root[vertex];
        }
        vertex
    }

    fn finding(mut self, classes: &[Class<'a>]) -> Finding<'a> {
        let mut touched = vec![false; self.states.len()];
        for &(before, after) in &self.edges {
            touched[before] = true;
            touched[after] = true;
        }
        let mut parts: HashMap<usize, Vec<usize>> = HashMap::new();
        let mut aside = Vec::new();
        for (vertex, touched) in touched.into_iter().enumerate() {
            if touched {
                parts.entry(self.find(vertex)).or_default().push(vertex);
            } else {
                aside.push(vertex);
            }
        }
        let mut candidates = self.strays(&aside);
        let balanced = |part: &[usize]| part.iter().all(|&vertex| self.surplus[vertex] == 0);
        if parts.len() == 1 && parts.values().all(|part| balanced(part)) {
            let round = parts.into_values().flatten().collect();
            return Finding::Circuit(Box::new(Circuit { graph: self, round, strays: candidates }));
        }
        let ends = |sign| self.surplus.iter().filter(|surplus| **surplus == sign).count();
        let within = self.surplus.iter().all(|surplus| surplus.abs() < 2);
        let trail = parts.len() == 1 && within && ends(1) == 1;
        for (root, part) in parts {
            let circuit = balanced(&part);
            for vertex in part {
                if !circuit && self.surplus[vertex] <= 0 {
                    continue;
                }
                for &class in &self.classes[vertex] {
                    let knot = if circuit { classes.len() + root } else { class };
                    candidates.push(Candidate { class, knot });
                }
            }
        }
        // Maps have no order of their own.
        candidates.sort_unstable_by_key(|candidate| candidate.class);
        Finding::Open(candidates, if trail { Basis::Chain } else { Basis::Pairwise })
    }

    /// The classes of the vertices without an edge, less those rendered amid a change that an edge
    /// reports: each value is the one before or the one after. They are older than that edge's end.
    fn strays(&mut self, aside: &[usize]) -> Vec<Candidate> {
        self.edges.sort_unstable();
        self.edges.dedup();
        let work = aside.len().saturating_mul(self.edges.len()).saturating_mul(self.paths.len());
        let amid = |state: &[usize], before: usize, after: usize| {
            let ends = self.states[before].iter().zip(&self.states[after]);
            state.iter().zip(ends).all(|(value, (was, is))| value == was || value == is)
        };
        let explained = |vertex: usize| {
            let state = &self.states[vertex];
            work <= CELLS_MAX && self.edges.iter().any(|&(from, to)| amid(state, from, to))
        };
        let strays = aside.iter().filter(|vertex| !explained(**vertex));
        strays.flat_map(|&vertex| &self.classes[vertex]).copied().map(loose).collect()
    }
}

/// A walk that ends where it began.
#[derive(Debug)]
pub(super) struct Circuit<'a> {
    graph: Graph<'a>,
    /// The vertices on it.
    round: Vec<usize>,
    /// Classes that are not on it.
    strays: Vec<Candidate>,
}

impl Circuit<'_> {
    /// What is left once the state before the group is known: one of `base`, or nothing.
    pub(super) fn settle(
        mut self,
        classes: &[Class<'_>],
        base: &[&Version],
    ) -> (Vec<Candidate>, Basis) {
        let mut begun: Vec<usize> = self.equal(classes, base);
        let mut basis = Basis::Chain;
        if begun.is_empty() {
            // Something changed without a report, or its event is missing.
            basis = Basis::Pairwise;
            begun = self.similar(classes, base);
        }
        if begun.is_empty() {
            begun = std::mem::take(&mut self.round);
        }
        // Of several beginnings none follows on another more than the other on it.
        let alone = begun.len() == 1;
        let knot = classes.len();
        let mut candidates = self.strays;
        for class in begun.into_iter().flat_map(|vertex| &self.graph.classes[vertex]) {
            candidates.push(if alone { loose(*class) } else { Candidate { class: *class, knot } });
        }
        candidates.sort_unstable_by_key(|candidate| candidate.class);
        (candidates, basis)
    }

    /// The vertices that show the whole state of a base.
    fn equal(&self, classes: &[Class<'_>], base: &[&Version]) -> Vec<usize> {
        let base: Vec<String> = base.iter().map(|version| at(&version.object, None, &[])).collect();
        let shown = |class: &usize| {
            classes
                .get(*class)
                .is_some_and(|class| base.contains(&at(&class.newest.object, None, &[])))
        };
        let on = |vertex: &usize| self.graph.classes[*vertex].iter().any(shown);
        self.round.iter().copied().filter(on).collect()
    }

    /// The vertices that equal a base in the attributes that changed on the way round.
    fn similar(&mut self, classes: &[Class<'_>], base: &[&Version]) -> Vec<usize> {
        let rendered = classes.first().and_then(|class| class.newest.api_version.as_deref());
        let mut found = Vec::new();
        for version in base.iter().filter(|base| base.api_version.as_deref() == rendered) {
            let vertex = self.graph.vertex(&version.object, None);
            if self.round.contains(&vertex) && !found.contains(&vertex) {
                found.push(vertex);
            }
        }
        found
    }
}
