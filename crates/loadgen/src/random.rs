//! The draws of a plan, the same wherever it is played.
//!
//! [`Rng`] makes the bits; here they become what a schedule needs. A stream per request comes from hashing the request's
//! number into the seed, so that threads need not share one. Not for secrets.

use tenfold_service::rng::Rng;

/// A stream of pseudorandom numbers.
#[derive(Clone, Debug)]
pub(crate) struct Random {
    rng: Rng,
}

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self { rng: Rng::new(seed) }
    }

    /// The stream of one request: depends on the plan's seed and the request's number alone.
    pub(crate) fn of_request(seed: u64, number: u64) -> Self {
        Self::new(Rng::new(seed ^ Rng::new(number).next_u64()).next_u64())
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.rng.next_u64()
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

#[cfg(test)]
mod tests {
    use super::*;

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
