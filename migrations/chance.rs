//! Random numbers from a seed (SplitMix64). The same seed gives the same numbers in every version and on
//! every machine, so a run that failed can be had again.

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A stream of its own for one thing among many: the document number `index` of a kind, the writer number `index`.
    pub fn of(seed: u64, kind: u64, index: u64) -> Self {
        let mut mixed = Self(seed);
        let base = mixed.next() ^ kind.wrapping_mul(0xd6e8_feb8_6659_fd93);
        Self(base.wrapping_add(index.wrapping_mul(0xa076_1d64_78bd_642f)))
    }

    /// The next 64 bits.
    #[allow(clippy::should_implement_trait, reason = "an endless stream is not an iterator to its callers")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; 0 where `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next().checked_rem(end).unwrap_or(0)
    }

    /// A number between two, both included.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        low + self.below((high - low) as u64 + 1) as i64
    }

    /// True so many times in a hundred.
    pub fn percent(&mut self, hundredths: u64) -> bool {
        self.below(100) < hundredths
    }

    /// One of these.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len() as u64) as usize]
    }

    /// Into any order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let mut chance = Chance::new(1);
        assert_eq!(chance.next(), 0x910a_2dec_8902_5cc1);
        assert_ne!(Chance::of(1, 1, 7).next(), Chance::of(1, 2, 7).next());
        assert!((0..1000).all(|_| (-3..=3).contains(&chance.between(-3, 3))));
    }
}
