//! What is known about one node: how busy it is, what its checks say, and what requests have met with.
//!
//! **Intuition.** Two kinds of evidence. *Active*: probes say up or down. *Passive*: requests that fail in a row put the
//! node out for a while; when that while is over, one request is let through on trial, and its outcome decides.
//!
//! ```text
//!            threshold reached                      time is up, first pick
//!  Clear ───────────────────────► Ejected / Failing ─────────────────────► Trial
//!    ▲                             │        ▲                               │ │
//!    │  probes pass again          │        └────────── failed: twice as ───┘ │
//!    ├─────────────────────────────┘                    long                  │
//!    └──────────────────────────── succeeded ────────────────────────────────┘
//! ```
//! `Failing` is what would be `Ejected`, were not half of the nodes out already. A trial succeeds with the head of an
//! answer; until one has come whole, a single failure puts the node out again.
//!
//! **Mechanism.** The passive state is one atomic word, so that a pick reads it with one load, and a trial is claimed with
//! one compare-and-exchange. Everything else about a change of state happens under the cluster's lock.
//!
//! **Failure.** A trial whose request is dropped without a report lapses after [`TRIAL_MS`], and the next one begins.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering},
};

/// How long one trial keeps others away.
pub(crate) const TRIAL_MS: u64 = 1_000;

/// How an attempt on a node went, as far as the node is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The head of a response other than a gateway error is here. (A 500 is the application's answer, not the node's
    /// failure.) Settles a trial, but is no end to failures in a row: bodies may be what the node breaks.
    HeadOk,
    /// Such a response was whole, or went on until its client had enough.
    Ok,
    /// No connection: refused, unreachable, or not made in time.
    ConnectFailed,
    /// The connection broke before the response was whole, or what came was not HTTP.
    Reset,
    /// No response in time.
    Timeout,
    /// A gateway error: 502, 503 or 504. Counts half, since a node may say so for one route only.
    ServerError,
}

/// What a node is to new requests, for status and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NodeState {
    /// In use. Also before the first probe, and where there are none.
    Up,
    /// Its active checks fail.
    Down,
    /// Put out by failed requests, for a while.
    Ejected,
    /// Should be put out, but half of the nodes are already.
    Failing,
    /// One request is finding out whether it is well again.
    OnTrial,
}

/// One node, shared by the generations of its cluster.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Node {
    pub(crate) name: String,
    in_flight: AtomicU32,
    /// Failures in a row, in halves.
    half_failures: AtomicU32,
    passive: AtomicU64,
    active: AtomicU8,
    record: Mutex<Record>,
}

/// What only changes of state need to know.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// Probes passed in a row, since the last ejection.
    pub(crate) passed: u32,
    /// Probes failed in a row.
    pub(crate) failed: u32,
    /// Ejections that followed each other closely.
    pub(crate) ejections: u32,
    /// When it last became clear, in the cluster's milliseconds.
    pub(crate) clear_since_ms: u64,
}

/// What probes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Active {
    Unknown = 0,
    Up = 1,
    Down = 2,
}

/// What requests have met with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Passive {
    pub(crate) phase: Phase,
    pub(crate) cause: Cause,
    /// In the cluster's milliseconds; until then the phase holds.
    pub(crate) until_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Clear,
    Ejected,
    Failing,
    Trial,
}

/// Why it is out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Nobody listens: trying is of no use, and not trying loses nothing.
    Unreachable,
    /// Connections break or time out.
    Broken,
    /// It answers, with gateway errors. A passing probe is no evidence against that.
    Errors,
}

/// How good a pick a node is; the best class that has a node is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// As good as any, or due for its trial.
    Usable,
    /// Only if no other: failing, or on trial with somebody else's request.
    Doubtful,
    /// Only as the last resort: ejected.
    LastResort,
}

pub(crate) const CLASSES: usize = 3;

impl Node {
    pub(crate) fn new(name: String) -> Self {
        Self {
            name,
            in_flight: AtomicU32::new(0),
            half_failures: AtomicU32::new(0),
            passive: AtomicU64::new(Passive::CLEAR.pack()),
            active: AtomicU8::new(Active::Unknown as u8),
            record: Mutex::default(),
        }
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(crate) fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn end(&self) {
        let before = self.in_flight.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before > 0, "what ends has begun");
    }

    /// Adds a failure's halves; says how many there are in a row now.
    pub(crate) fn add_failure(&self, halves: u32) -> u32 {
        self.half_failures.fetch_add(halves, Ordering::Relaxed).saturating_add(halves)
    }

    pub(crate) fn forget_failures(&self) {
        // Read first: on a node that is well, no worker writes to the others' cache line.
        if self.half_failures.load(Ordering::Relaxed) != 0 {
            self.half_failures.store(0, Ordering::Relaxed);
        }
    }

    /// As if so many halves had been met with already.
    pub(crate) fn presume_failures(&self, halves: u32) {
        self.half_failures.store(halves, Ordering::Relaxed);
    }

    pub(crate) fn passive(&self) -> Passive {
        Passive::unpack(self.passive.load(Ordering::Relaxed))
    }

    pub(crate) fn set_passive(&self, passive: Passive) {
        self.passive.store(passive.pack(), Ordering::Relaxed);
    }

    /// Replaces the state if it is still the one that was read.
    pub(crate) fn swap_passive(&self, read: Passive, next: Passive) -> bool {
        let swapped =
            self.passive.compare_exchange(read.pack(), next.pack(), Ordering::Relaxed, Ordering::Relaxed);
        swapped.is_ok()
    }

    pub(crate) fn active(&self) -> Active {
        match self.active.load(Ordering::Relaxed) {
            1 => Active::Up,
            2 => Active::Down,
            _ => Active::Unknown,
        }
    }

    pub(crate) fn set_active(&self, active: Active) {
        self.active.store(active as u8, Ordering::Relaxed);
    }

    pub(crate) fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outcome {
    /// What it counts against the node, in halves of a failure, and why; none for a success.
    pub(crate) fn failure(self) -> Option<(u32, Cause)> {
        match self {
            Self::HeadOk | Self::Ok => None,
            Self::ConnectFailed => Some((2, Cause::Unreachable)),
            Self::Reset | Self::Timeout => Some((2, Cause::Broken)),
            Self::ServerError => Some((1, Cause::Errors)),
        }
    }
}

impl NodeState {
    /// Stable name, for status and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Ejected => "ejected",
            Self::Failing => "failing",
            Self::OnTrial => "on_trial",
        }
    }
}

impl Passive {
    pub(crate) const CLEAR: Self = Self { phase: Phase::Clear, cause: Cause::Unreachable, until_ms: 0 };

    /// The time of an ejection, or of a trial, is up: the next pick is a trial.
    pub(crate) fn is_over(self, now_ms: u64) -> bool {
        self.phase != Phase::Clear && self.until_ms <= now_ms
    }

    /// What this is called, of a node that is not down.
    pub(crate) fn state(self, now_ms: u64) -> NodeState {
        match self.phase {
            Phase::Clear => NodeState::Up,
            Phase::Trial => NodeState::OnTrial,
            _ if self.is_over(now_ms) => NodeState::OnTrial,
            Phase::Ejected => NodeState::Ejected,
            Phase::Failing => NodeState::Failing,
        }
    }

    /// How good a pick this makes; none: not to be tried at all.
    ///
    /// A node that is down is tried only in a `panic`, when so many are down that the checks themselves are in doubt; and
    /// not even then if requests have found nobody listening.
    pub(crate) fn class(self, is_down: bool, is_panic: bool, now_ms: u64) -> Option<Class> {
        if is_down && !is_panic {
            return None;
        }
        if self.phase == Phase::Clear || self.is_over(now_ms) {
            return Some(Class::Usable);
        }
        let is_unreachable = self.cause == Cause::Unreachable;
        if is_down && is_unreachable {
            return None;
        }
        match self.phase {
            Phase::Ejected => Some(Class::LastResort),
            Phase::Failing if !is_unreachable => Some(Class::Usable),
            _ => Some(Class::Doubtful),
        }
    }

    /// Two bits of phase, two of cause, sixty of milliseconds.
    fn pack(self) -> u64 {
        self.until_ms << 4 | (self.cause as u64) << 2 | self.phase as u64
    }

    fn unpack(word: u64) -> Self {
        let phase = match word & 3 {
            0 => Phase::Clear,
            1 => Phase::Ejected,
            2 => Phase::Failing,
            _ => Phase::Trial,
        };
        let cause = match word >> 2 & 3 {
            0 => Cause::Unreachable,
            1 => Cause::Broken,
            _ => Cause::Errors,
        };
        Self { phase, cause, until_ms: word >> 4 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHASES: [Phase; 4] = [Phase::Clear, Phase::Ejected, Phase::Failing, Phase::Trial];
    const CAUSES: [Cause; 3] = [Cause::Unreachable, Cause::Broken, Cause::Errors];

    #[test]
    fn a_state_survives_its_word() {
        for phase in PHASES {
            for cause in CAUSES {
                for until_ms in [0, 1, 60_000, (1 << 60) - 1] {
                    let passive = Passive { phase, cause, until_ms };
                    assert_eq!(Passive::unpack(passive.pack()), passive);
                }
            }
        }
    }

    #[test]
    fn how_good_a_pick_is() {
        use {Cause::*, Class::*, Phase::*};
        /// Classes of a node that is not down, and of one that is in a panic; the time is not up.
        fn check(phase: Phase, cause: Cause, not_down: Option<Class>, down_in_panic: Option<Class>) {
            let passive = Passive { phase, cause, until_ms: 10 };
            assert_eq!(passive.class(false, false, 9), not_down, "{phase:?} {cause:?}");
            assert_eq!(passive.class(false, true, 9), not_down, "{phase:?} {cause:?}");
            assert_eq!(passive.class(true, true, 9), down_in_panic, "{phase:?} {cause:?}, down");
            assert_eq!(passive.class(true, false, 9), None);
            // Once the time is up, a trial is as good as any.
            assert_eq!(passive.class(false, false, 10), Some(Usable));
            assert_eq!(passive.class(true, true, 10), Some(Usable));
            assert_eq!(passive.class(true, false, 10), None);
        }
        check(Clear, Unreachable, Some(Usable), Some(Usable));
        check(Ejected, Unreachable, Some(LastResort), None);
        check(Ejected, Broken, Some(LastResort), Some(LastResort));
        check(Ejected, Errors, Some(LastResort), Some(LastResort));
        check(Failing, Unreachable, Some(Doubtful), None);
        check(Failing, Broken, Some(Usable), Some(Usable));
        check(Failing, Errors, Some(Usable), Some(Usable));
        check(Trial, Unreachable, Some(Doubtful), None);
        check(Trial, Broken, Some(Doubtful), Some(Doubtful));
        check(Trial, Errors, Some(Doubtful), Some(Doubtful));
    }
}
