//! A small generator of random numbers, for jitter and sampling; never for secrets.
//!
//! **Intuition.** Jitter needs numbers that differ between processes and cost nothing, not numbers nobody can guess.
//! The generator is passed in as an argument, so that whoever needs it can be tested with a known seed.
//!
//! **Mechanism.** SplitMix64: one 64-bit counter stepped by the golden ratio, then mixed. Every seed is good, including
//! zero, and the period is 2^64.
//!
//! Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.

use std::hash::{BuildHasher, Hasher};

/// A SplitMix64 generator.
#[derive(Clone, Debug)]
pub struct Rng {
    state: u64,
}

impl Rng {
    /// A generator that always yields the same numbers for the same seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// A generator seeded by the operating system, through the keys the standard library draws for its hash maps.
    #[must_use]
    pub fn from_os() -> Self {
        Self::new(std::collections::hash_map::RandomState::new().build_hasher().finish())
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number in `0.0..1.0`, uniformly.
    pub fn next_ratio(&mut self) -> f64 {
        // 53 bits are what a double holds exactly.
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// An independent generator, for another task.
    #[must_use]
    pub fn split(&mut self) -> Self {
        Self::new(self.next_u64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_that_of_the_reference_implementation() {
        // First outputs of Vigna's splitmix64.c for the seed 1234567.
        let mut rng = Rng::new(1_234_567);
        let drawn: Vec<_> = (0..3).map(|_| rng.next_u64()).collect();
        assert_eq!(drawn, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn ratios_fill_the_unit_interval() {
        let mut rng = Rng::new(7);
        let ratios: Vec<_> = (0..10_000).map(|_| rng.next_ratio()).collect();
        assert!(ratios.iter().all(|ratio| (0.0..1.0).contains(ratio)));
        let mean = ratios.iter().sum::<f64>() / 10_000.0;
        assert!((mean - 0.5).abs() < 0.02, "{mean}");
    }

    #[test]
    fn two_seeds_of_the_system_differ() {
        assert_ne!(Rng::from_os().next_u64(), Rng::from_os().next_u64());
    }
}
