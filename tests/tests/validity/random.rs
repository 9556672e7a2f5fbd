//! Random numbers that a seed repeats.

use std::time::{SystemTime, UNIX_EPOCH};

/// The seed of every run.
pub const FIXED: u64 = 0x7472_696d_7461_6221;

/// The fixed seed, and another one: of `TRIMTAB_FUZZ_SEED`, or new and printed.
pub fn seeds() -> [u64; 2] {
    let other = std::env::var("TRIMTAB_FUZZ_SEED").map_or_else(
        |_| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            u64::from(now.subsec_nanos()) << 32 | now.as_secs() & 0xffff_ffff
        },
        |text| text.parse().expect("TRIMTAB_FUZZ_SEED is a number"),
    );
    println!("seeds {FIXED} and {other}: TRIMTAB_FUZZ_SEED={other} repeats the second");
    [FIXED, other]
}

/// SplitMix64.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to `n`, without `n`.
    pub fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).unwrap()
    }

    /// From `low` to `high`, both possible.
    pub fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }

    /// True in so many of a hundred.
    pub fn percent(&mut self, n: usize) -> bool {
        self.below(100) < n
    }

    pub fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }
}
