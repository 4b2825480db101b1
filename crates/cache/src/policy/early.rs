//! Renewing a response before it is stale, so that nobody waits for it. Vattani, Chierichetti, Lowenstein: "Optimal
//! Probabilistic Cache Stampede Prevention" (VLDB 2015).
//!
//! **Intuition.** A page that a thousand clients a second ask for is stale for a moment every ten seconds, and whoever
//! comes in that moment waits for the node. If one of those who come just before had asked for a new one, behind its own
//! answer, nobody would. Which one? Each throws dice that get hotter towards the end: a page that many ask for is
//! renewed in time, and one that nobody asks for is left to expire.
//!
//! **Mechanism.** A request that finds a response fresh renews it if `−Δ·β·ln(u)` reaches what is left of its freshness,
//! where `Δ` is how long its last fetch took and `u` is drawn evenly from (0, 1]. With λ requests a second the first one
//! is expected to about `Δ·β·ln(λΔβ)` before the end. That would be ever earlier the slower the node and the more clients
//! there are, so it may happen only in the last [`WINDOW_DIVISOR`]th of the freshness that the response came with: a
//! response is fetched at most `24/23 ≈ 1.044` times as often as without, whatever the load.
//!
//! **Failure.** A response of which it is not known how long it took to fetch is not renewed early. A clock that steps
//! makes one too early or too late.

/// The paper's β. At its 1, a fetch of 20 ms under 1,000 requests a second comes too late once in about 1,600 lifetimes;
/// at 2, one in 10^10, by `exp(−λΔβ·exp(−1/β))`.
const BETA: f64 = 2.0;
/// The share of a response's freshness in which it may be renewed early.
pub const WINDOW_DIVISOR: u64 = 24;

/// A response that is about to become stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Early {
    left_ms: u64,
    fetch_ms: u64,
}

impl Early {
    /// A response with `left_ms` of its freshness left that has been here for `resident_ms`, and took `fetch_ms` to fetch
    /// (0 where that is not known); `None` if it is too early to think of it.
    #[must_use]
    #[inline]
    pub fn of(left_ms: u64, resident_ms: u64, fetch_ms: u64) -> Option<Self> {
        // What it came with is what is left and what has passed here: an age it brought along doesn't count.
        let came_with_ms = left_ms.saturating_add(resident_ms);
        let is_near = fetch_ms > 0 && left_ms <= came_with_ms / WINDOW_DIVISOR;
        is_near.then_some(Self { left_ms, fetch_ms })
    }

    /// Whether this request is the one that renews it. `draw` is random, a new one for each request.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "milliseconds far below 2^53")]
    pub fn is_due(&self, draw: u64) -> bool {
        const STEPS: f64 = (1_u64 << 53) as f64;
        let unit = ((draw >> 11) as f64 + 1.0) / STEPS;
        -(self.fetch_ms as f64) * BETA * unit.ln() >= self.left_ms as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_a_lifetime_counts() {
        let check = |left_ms, resident_ms, fetch_ms, expected: bool| {
            let early = Early::of(left_ms, resident_ms, fetch_ms);
            assert_eq!(early.is_some(), expected, "{left_ms} {resident_ms} {fetch_ms}");
        };
        check(416, 9_584, 20, true);
        check(417, 9_583, 20, false);
        check(0, 10_000, 20, true);
        check(10, 9_990, 0, false); // never measured
        check(300, 0, 20, false); // came with little left: that is no reason to ask again at once
        check(u64::MAX, u64::MAX, 1, false);
    }

    #[test]
    fn chances_rise_towards_the_end_and_with_the_time_it_takes() {
        let share = |left_ms, fetch_ms| {
            let early = Early { left_ms, fetch_ms };
            let mut draw = 1_u64;
            let due = (0..100_000).filter(|_| {
                draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                early.is_due(draw)
            });
            due.count()
        };
        let expected = |left_ms: f64, fetch_ms: f64| 100_000.0 * (-left_ms / (fetch_ms * BETA)).exp();
        for (left_ms, fetch_ms) in [(0, 20), (20, 20), (100, 20), (400, 20), (400, 200)] {
            #[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
            let (have, want) = (share(left_ms, fetch_ms) as f64, expected(left_ms as f64, fetch_ms as f64));
            assert!((have - want).abs() < 500.0, "{left_ms} {fetch_ms}: {have} {want}");
        }
        assert!(Early { left_ms: 1, fetch_ms: 1 }.is_due(0), "the smallest draw always is");
        assert!(!Early { left_ms: 1, fetch_ms: 1 }.is_due(u64::MAX));
    }
}
