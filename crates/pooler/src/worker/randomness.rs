//! Random bytes for nonces and cancel keys, drawn from the system's generator many at a time.
//!
//! **Intuition.** A draw costs about a microsecond however few bytes it is for, and a login takes two.
//!
//! **Mechanism.** [`Randomness`] belongs to one worker. Bytes that were given out are overwritten.
//!
//! **Failure.** Without a generator nothing is safe, so that ends the worker.

/// Drawn at once.
const BYTES: usize = 1_024;

/// Random bytes in store.
pub(super) struct Randomness {
    bytes: Box<[u8; BYTES]>,
    used: usize,
}

impl std::fmt::Debug for Randomness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Randomness").finish_non_exhaustive()
    }
}

impl Randomness {
    pub(super) fn new() -> Self {
        Self { bytes: Box::new([0; BYTES]), used: BYTES }
    }

    /// Bytes that nobody has had.
    pub(super) fn take<const N: usize>(&mut self) -> [u8; N] {
        const { assert!(N <= BYTES) };
        if BYTES - self.used < N {
            aws_lc_rs::rand::fill(&mut *self.bytes)
                .expect("the operating system gives randomness, or nothing is safe");
            self.used = 0;
        }
        let store = &mut self.bytes[self.used..self.used + N];
        let mut taken = [0; N];
        taken.copy_from_slice(store);
        store.fill(0);
        self.used += N;
        taken
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn nothing_is_given_out_twice_or_kept() {
        let mut randomness = Randomness::new();
        // More than are drawn at once, so that drawing again is part of it.
        let taken: HashSet<[u8; 18]> = (0..BYTES).map(|_| randomness.take()).collect();
        assert_eq!(taken.len(), BYTES);
        assert!(!taken.contains(&[0; 18]));
        assert!(randomness.bytes[..randomness.used].iter().all(|byte| *byte == 0));
    }
}
