//! When a worker lets events gather before it looks at them.
//!
//! **Intuition.** While clients wait for servers, whatever arrives is one more of many. To wake up for each costs more
//! than to handle it; to come a moment later finds several. So a busy worker pauses, and spends less on waking.
//!
//! **Mechanism.** A pause of [`PAUSE`] follows a turn that brought fewer than [`EVENTS_FEW`] events, while clients wait,
//! enough servers work that more events are due soon ([`SERVERS_MIN`]), and the worker has been busy for a good part of
//! the last [`WINDOW`]: one that idles would only lend its connections later.
//!
//! **Failure.** A pause too many makes those who wait for a server, and nobody else, wait [`PAUSE`] longer.

use std::time::{Duration, Instant};

/// Measured with `pgbench -S`, 20 servers, 32 and 500 clients: 24 and 43 µs of CPU per transaction with this, 26 and 67
/// with half of it, 36 and 77 with a quarter, on a busy machine.
const PAUSE: Duration = Duration::from_micros(200);
const EVENTS_FEW: usize = 8;
/// Of the pool, at all workers: each of several sees its part of the events, and pays as much for waking.
const SERVERS_MIN: usize = 16;
const WINDOW: Duration = Duration::from_millis(50);
/// Parts of a hundred that a worker handles events, sleeping and waking not counted, which take as much again: from here
/// on it pauses, and goes on to while it is busier than the latter, since pausing makes it less busy. The former is
/// about 2,500 short transactions a second.
const BUSY_PERCENT_FROM: u128 = 3;
const BUSY_PERCENT_WHILE: u128 = 1;

/// How busy a worker is.
#[derive(Debug)]
pub(super) struct Pauses {
    since: Instant,
    busy: Duration,
    is_busy: bool,
}

impl Pauses {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, busy: Duration::ZERO, is_busy: false }
    }

    /// A turn began and ended.
    pub(super) fn turn(&mut self, began: Instant, ended: Instant) {
        self.busy += ended.saturating_duration_since(began);
        let window = ended.saturating_duration_since(self.since);
        if window < WINDOW {
            return;
        }
        let percent = self.busy.as_nanos() * 100 / window.as_nanos().max(1);
        self.is_busy = percent >= if self.is_busy { BUSY_PERCENT_WHILE } else { BUSY_PERCENT_FROM };
        (self.since, self.busy) = (ended, Duration::ZERO);
    }

    /// Whether a pause pays after a turn with so many events, while clients wait for one of so many servers. Those are
    /// counted only where it matters: turns are many, and pools may be.
    pub(super) fn pays(&self, events: usize, servers: impl FnOnce() -> usize) -> bool {
        self.is_busy && events < EVENTS_FEW && servers() >= SERVERS_MIN
    }

    /// Lets events gather.
    #[expect(
        clippy::disallowed_methods,
        reason = "a pause of microseconds, taken only while everyone waits anyway"
    )]
    pub(super) fn pause() {
        std::thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use tenfold_service::clock::Clock;

    use super::*;

    const TURN: Duration = Duration::from_micros(100);

    /// Plays a window of turns of which so many per cent are busy.
    fn play(pauses: &mut Pauses, now: &mut Instant, percent: u32) {
        for _ in 0..=WINDOW.as_micros() / TURN.as_micros() {
            let began = *now + TURN * (100 - percent) / 100;
            *now += TURN;
            pauses.turn(began, *now);
        }
    }

    #[test]
    fn only_a_busy_worker_pauses_and_only_for_more_to_come() {
        let mut now = Clock::manual().now();
        let mut pauses = Pauses::new(now);
        play(&mut pauses, &mut now, 2);
        assert!(!pauses.pays(1, || 20));
        play(&mut pauses, &mut now, 60);
        assert!(pauses.pays(1, || 20));
        assert!(!pauses.pays(EVENTS_FEW, || 20) && !pauses.pays(1, || SERVERS_MIN - 1));
        // Pausing made it less busy: it goes on, until there is little to do.
        play(&mut pauses, &mut now, 2);
        assert!(pauses.pays(1, || 20));
        play(&mut pauses, &mut now, 0);
        assert!(!pauses.pays(1, || 20));
    }
}
