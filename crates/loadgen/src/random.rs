//! A small deterministic generator, so that the same plan plays the same requests everywhere.
//!
//! SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014): one 64-bit state, an
//! addition and two multiplications a number, and any seed is a good one. A stream per request comes from hashing the
//! request's number into the seed, so that threads need not share one. Not for secrets.

const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// A stream of pseudorandom numbers.
#[derive(Clone, Debug)]
pub(crate) struct Random {
    state: u64,
}

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The stream of one request: depends on the plan's seed and the request's number alone.
    pub(crate) fn of_request(seed: u64, number: u64) -> Self {
        Self { state: mix(seed ^ mix(number.wrapping_add(GOLDEN_GAMMA))) }
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN_GAMMA);
        mix(self.state)
    }

    /// Uniform in `0..bound`; 0 when `bound` is 0. By multiplication: the bias is below 2⁻³² for bounds below 2³².
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        let product = u128::from(self.next()) * u128::from(bound);
        u64::try_from(product >> 64).expect("the upper half of a product of two u64")
    }

    /// Exponential with mean one.
    pub(crate) fn exponential(&mut self) -> f64 {
        // 53 bits make a uniform in (0, 1]: never zero, so the logarithm is finite.
        #[expect(clippy::cast_precision_loss, reason = "53 bits are exact")]
        let uniform = ((self.next() >> 11) + 1) as f64 / (1_u64 << 53) as f64;
        -uniform.ln()
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_the_published_one() {
        // Reference values of SplitMix64 for seed 1234567.
        let mut random = Random::new(1_234_567);
        let expected = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!([random.next(), random.next(), random.next()], expected);
    }

    #[test]
    fn below_covers_its_range_evenly() {
        let mut random = Random::new(1);
        let mut seen = [0_u32; 10];
        (0..100_000).for_each(|_| seen[usize::try_from(random.below(10)).unwrap()] += 1);
        assert!(seen.iter().all(|n| (9_700..10_300).contains(n)), "{seen:?}");
        assert_eq!(random.below(0), 0);
        assert_eq!(random.below(1), 0);
    }

    #[test]
    fn exponential_has_mean_one() {
        let mut random = Random::new(3);
        let mean = (0..100_000).map(|_| random.exponential()).sum::<f64>() / 100_000.0;
        assert!((mean - 1.0).abs() < 0.02, "{mean}");
    }
}
