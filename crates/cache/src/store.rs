//! The RAM tier.

use std::hash::BuildHasher;

/// A seeded hash.
#[derive(Clone, Debug)]
pub(crate) struct SeededHash(foldhash::quality::SeedableRandomState);

impl SeededHash {
    pub(crate) fn new(seed: u64) -> Self {
        Self(foldhash::quality::SeedableRandomState::with_seed(seed, foldhash::SharedSeed::global_random()))
    }
}

impl BuildHasher for SeededHash {
    type Hasher = <foldhash::quality::SeedableRandomState as BuildHasher>::Hasher;

    fn build_hasher(&self) -> Self::Hasher {
        self.0.build_hasher()
    }
}
