//! Which keys are known not to be storable, and for which the origin fails.
//!
//! Without this memory every request for a personal page would wait for the one before it, only to learn that its
//! answer cannot be shared. A mark sends the next requests upstream at once, in parallel. Marks live in a fixed array
//! of slots (key's hash, time of expiry); a collision overwrites, which costs one key a wait. A later response that
//! can be stored drops the mark. In the same array, under hashes of their own, lie the keys whose last fetch failed: a
//! stale copy that may stand in for the failure is then served at once, and the origin is asked behind it, not too often.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::policy::Timestamp;

/// 512 KiB.
const SLOTS: usize = 1 << 16;
/// A mark's hash part; the rest is the time of expiry in seconds.
const HASH_MASK: u64 = !(u32::MAX as u64);

/// The marks.
#[derive(Debug)]
pub(crate) struct Marks {
    slots: Box<[AtomicU64]>,
}

impl Marks {
    pub(crate) fn new() -> Self {
        Self { slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Remembers a key for some seconds.
    pub(crate) fn set(&self, hash: u64, now: Timestamp, seconds: u64) {
        let expires_s = u32::try_from(now.seconds().saturating_add(seconds)).unwrap_or(u32::MAX);
        self.slot(hash).store(hash & HASH_MASK | u64::from(expires_s), Ordering::Relaxed);
    }

    /// Whether a key is still remembered.
    pub(crate) fn is_set(&self, hash: u64, now: Timestamp) -> bool {
        self.left_s(hash, now) > 0
    }

    /// For how many more seconds a key is remembered.
    pub(crate) fn left_s(&self, hash: u64, now: Timestamp) -> u64 {
        let mark = self.slot(hash).load(Ordering::Relaxed);
        let is_its = mark != 0 && mark & HASH_MASK == hash & HASH_MASK;
        if is_its { (mark & !HASH_MASK).saturating_sub(now.seconds()) } else { 0 }
    }

    /// Forgets a key.
    pub(crate) fn clear(&self, hash: u64) {
        let slot = self.slot(hash);
        let mark = slot.load(Ordering::Relaxed);
        if mark != 0 && mark & HASH_MASK == hash & HASH_MASK {
            // Losing against another thread's mark keeps the newer one, which is right.
            let _ = slot.compare_exchange(mark, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    fn slot(&self, hash: u64) -> &AtomicU64 {
        let index = usize::try_from(hash % SLOTS as u64).expect("below 2^16");
        &self.slots[index]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_lasts_its_time_and_can_be_dropped() {
        let marks = Marks::new();
        let (a, b) = (0xdead_beef_0000_0001, 0xfeed_beef_0000_0001);
        let now = Timestamp(1_700_000_000_000);
        marks.set(a, now, 10);
        assert!(marks.is_set(a, now));
        assert_eq!(marks.left_s(a, Timestamp(now.0 + 3000)), 7);
        assert!(!marks.is_set(b, now), "another key of the slot");
        assert!(!marks.is_set(a, Timestamp(now.0 + 10_000)));
        marks.clear(b);
        assert!(marks.is_set(a, now));
        marks.clear(a);
        assert!(!marks.is_set(a, now));
    }
}
