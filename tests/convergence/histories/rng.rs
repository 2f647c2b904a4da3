//! The only source of variety in the histories: splitmix64 over a seed.
//! Not for anything that must be unguessable.

const BASE62: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A stream of choices that only its seed decides.
pub struct Rng {
    state: u64,
}

impl Rng {
    pub fn new(seed: u64) -> Self {
        let mut rng = Self { state: seed };
        // Neighbouring seeds would give overlapping streams.
        rng.state = rng.number() ^ 0x5851_f42d_4c95_7f2d;
        rng
    }

    pub fn number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A whole number in `low..=high`.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        low.saturating_add_unsigned(self.number() % (high.abs_diff(low) + 1))
    }

    /// An index into something of this length, which must not be 0.
    pub fn below(&mut self, length: usize) -> usize {
        // The top 31 bits fit into a usize everywhere.
        usize::try_from(self.number() >> 33).unwrap_or_default() % length
    }

    /// True in so many of a hundred cases.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.number() % 100 < percent
    }

    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }

    /// An id as Stripe makes them: it says nothing about when.
    pub fn id(&mut self, prefix: &str) -> String {
        let tail: String = (0..24).map(|_| char::from(self.pick(BASE62))).collect();
        format!("{prefix}_{tail}")
    }
}
