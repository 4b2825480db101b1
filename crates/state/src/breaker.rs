//! When to stop asking.
//!
//! **Intuition.** A server that is slow or frozen costs each caller its whole budget, for nothing. After a few such calls
//! the rest need not try; one probe now and then finds out whether it is worth it again.
//!
//! **Mechanism.** The outcomes of the last calls are bits of a word. The breaker opens after [`IN_A_ROW_MAX`] failures in a
//! row, or when half of the last [`WINDOW`] failed. It then says when to probe: after a pause that doubles from
//! [`PAUSE_MIN`] to [`PAUSE_MAX`], and starts over once the server has held for [`HOLDS`].
//!
//! **Failure.** A probe that fails doubles the pause. Nothing here knows a clock.

use std::time::{Duration, Instant};

/// Failures in a row that open it.
const IN_A_ROW_MAX: u32 = 5;
/// Calls that are looked back on.
const WINDOW: u32 = 32;
/// Before the first probe.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Between probes of a server that stays away.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// A server that has held so long is trusted as at the start.
const HOLDS: Duration = Duration::from_secs(10);

/// Says whether calls are worth making.
#[derive(Clone, Debug)]
pub struct Breaker {
    /// A set bit is a failure; the last call is the lowest.
    outcomes: u32,
    calls: u32,
    in_a_row: u32,
    pause: Duration,
    /// Since when it is closed; `None` while open.
    closed_since: Option<Instant>,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { outcomes: 0, calls: 0, in_a_row: 0, pause: PAUSE_MIN, closed_since: None }
    }
}

impl Breaker {
    /// Open until a first probe succeeds.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether calls may be made.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed_since.is_some()
    }

    /// A call was answered in time.
    pub fn on_success(&mut self) {
        self.record(false);
        self.in_a_row = 0;
    }

    /// A call was not. Says whether that was one too many: the breaker is open now.
    pub fn on_failure(&mut self, now: Instant) -> bool {
        self.record(true);
        self.in_a_row += 1;
        let half = self.calls >= WINDOW && self.outcomes.count_ones() >= WINDOW / 2;
        if self.closed_since.is_none() || self.in_a_row < IN_A_ROW_MAX && !half {
            return false;
        }
        self.open(now);
        true
    }

    /// Opens it, whatever the record says: the connection broke.
    pub fn open(&mut self, now: Instant) {
        let Some(since) = self.closed_since.take() else { return };
        if now.saturating_duration_since(since) >= HOLDS {
            self.pause = PAUSE_MIN;
        }
    }

    /// How long to wait before the next probe. Each time it is asked, the next pause is longer.
    pub fn next_pause(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(PAUSE_MAX);
        pause
    }

    /// A probe was answered in time.
    pub fn close(&mut self, now: Instant) {
        *self = Self { pause: self.pause, closed_since: Some(now), ..Self::default() };
    }

    fn record(&mut self, failed: bool) {
        self.outcomes = self.outcomes << 1 | u32::from(failed);
        self.calls = (self.calls + 1).min(WINDOW);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A breaker that has just closed, and when.
    fn closed() -> (Breaker, Instant) {
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        let now = Instant::now();
        let mut breaker = Breaker::new();
        assert!(!breaker.is_closed());
        breaker.close(now);
        (breaker, now)
    }

    #[test]
    fn a_row_of_failures_opens_it() {
        let (mut breaker, now) = closed();
        for _ in 0..IN_A_ROW_MAX - 1 {
            assert!(!breaker.on_failure(now));
        }
        breaker.on_success();
        for _ in 0..IN_A_ROW_MAX - 1 {
            assert!(!breaker.on_failure(now));
        }
        assert!(breaker.on_failure(now));
        assert!(!breaker.is_closed());
        assert!(!breaker.on_failure(now), "it opens once");
    }

    #[test]
    fn a_server_that_answers_every_other_time_is_not_worth_asking() {
        let (mut breaker, now) = closed();
        let opened = (0..WINDOW).any(|_| {
            breaker.on_success();
            breaker.on_failure(now)
        });
        assert!(opened);
        let (mut breaker, now) = closed();
        let opened = (0..1000).any(|_| {
            breaker.on_success();
            breaker.on_success();
            breaker.on_failure(now)
        });
        assert!(!opened, "a third may fail");
    }

    #[test]
    fn pauses_grow_until_the_server_holds() {
        let (mut breaker, now) = closed();
        breaker.open(now);
        assert_eq!(breaker.next_pause(), PAUSE_MIN);
        assert_eq!(breaker.next_pause(), PAUSE_MIN * 2);
        breaker.close(now);
        breaker.open(now + Duration::from_secs(1));
        assert_eq!(breaker.next_pause(), PAUSE_MIN * 4, "it did not hold");
        assert!((0..10).any(|_| breaker.next_pause() == PAUSE_MAX));
        assert_eq!(breaker.next_pause(), PAUSE_MAX);
        breaker.close(now);
        breaker.open(now + HOLDS);
        assert_eq!(breaker.next_pause(), PAUSE_MIN);
    }
}
