//! What requests did, by the trace that their statements name.
//!
//! **Intuition.** An API's answer to a POST tells its client that something is done. Whoever passes that answer on can ask
//! here up to where the primary's log must have been replayed for the client to see it: the request's trace id is in the
//! comments of its statements.
//!
//! **Mechanism.** [`Traces`] is a bounded map of two generations. [`Traces::seen`] notes that a trace exists, so that one
//! which only read on replicas can be told from one that nobody has heard of. [`Traced`] holds a trace as *pending* from
//! before a statement of its is sent to the primary until the transaction's answer is there; then the next sample is the
//! trace's. What was sent to the primary unread may belong to any trace: it counts for all that were seen before its end.
//!
//! **Failure.** A trace that was forgotten is one that nobody has heard of: who asks has to assume the worst.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{Split, samples::Sample};

/// Traces remembered, at least; at most twice as many. A request is asked about when it ends, so that this many may
/// begin while one runs.
const TRACES_MAX: usize = 64 * 1_024;
const SHARDS: usize = 16;
/// A request's first statement may have been sent unread, so long before one that names it, in samples: a second at least.
const UNREAD_BEFORE: u64 = 1_000;
/// Traces of one transaction; further ones count as unread.
const TRACES_OF_ONE_MAX: usize = 16;

/// A trace's id (W3C Trace Context): never all zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceId([u8; 16]);

impl TraceId {
    /// Of its sixteen bytes; `None` if all are zero.
    #[must_use]
    pub fn new(bytes: [u8; 16]) -> Option<Self> {
        (bytes != [0; 16]).then_some(Self(bytes))
    }

    /// Of its 32 digits, in lower case.
    #[must_use]
    pub fn from_hex(digits: &[u8]) -> Option<Self> {
        let mut bytes = [0; 16];
        if digits.len() != 2 * bytes.len() {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let &[high, low] = pair else { return None };
            *byte = digit(high)? << 4 | digit(low)?;
        }
        Self::new(bytes)
    }
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

/// See the module.
#[derive(Debug)]
pub struct Traces {
    hasher: RandomState,
    shards: Box<[Mutex<Shard>]>,
    /// The sample that settles what was last sent unread.
    unread: AtomicU64,
    per_shard_max: usize,
}

#[derive(Debug, Default)]
struct Shard {
    young: HashMap<TraceId, Known>,
    old: HashMap<TraceId, Known>,
}

/// One trace.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// Transactions at the primary whose answer is not there.
    pending: u32,
    /// What the primary told it, and what it wrote.
    primary: Sample,
    /// What was sent unread and settled before this one was none of its.
    since: Sample,
}

/// What a request has done so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// No statement that named it was seen.
    Unseen,
    /// The primary works for it.
    Pending,
    /// The primary did nothing for it.
    Nothing,
    /// This sample is at or above all that the primary did for it.
    By(Sample),
}

impl Default for Traces {
    fn default() -> Self {
        Self::new(TRACES_MAX)
    }
}

impl Traces {
    /// None is known yet.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self {
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            unread: AtomicU64::new(0),
            per_shard_max: (max / SHARDS).max(1),
        }
    }

    /// A statement names this trace. `next`: the next sample.
    pub fn seen(&self, trace: TraceId, next: Sample) {
        self.update(trace, next, |_| {});
    }

    /// What a request has done.
    #[must_use]
    pub fn done(&self, trace: TraceId) -> Done {
        let shard = self.shard(trace);
        let known = shard.young.get(&trace).or_else(|| shard.old.get(&trace)).copied();
        drop(shard);
        let Some(known) = known else { return Done::Unseen };
        if known.pending > 0 {
            return Done::Pending;
        }
        let unread = Sample(self.unread.load(Ordering::SeqCst));
        let primary = if unread >= known.since { known.primary.max(unread) } else { known.primary };
        if primary == Sample::NONE { Done::Nothing } else { Done::By(primary) }
    }

    fn update(&self, trace: TraceId, next: Sample, update: impl FnOnce(&mut Known)) {
        let mut shard = self.shard(trace);
        if let Some(known) = shard.young.get_mut(&trace) {
            return update(known);
        }
        let since = Sample(next.0.saturating_sub(UNREAD_BEFORE));
        let mut known = shard.old.remove(&trace).unwrap_or(Known { since, ..Known::default() });
        update(&mut known);
        if shard.young.len() >= self.per_shard_max {
            shard.old = std::mem::take(&mut shard.young);
        }
        shard.young.insert(trace, known);
    }

    fn shard(&self, trace: TraceId) -> MutexGuard<'_, Shard> {
        let at = usize::try_from(self.hasher.hash_one(trace) >> 32).unwrap_or(0) % SHARDS;
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The traces of one transaction at the primary, until its answer is there.
#[derive(Debug, Default)]
pub struct Traced {
    split: Option<Arc<Split>>,
    traces: Vec<TraceId>,
    is_unread: bool,
}

impl Traced {
    /// A statement of this trace is sent to the primary.
    pub fn hold(&mut self, split: &Arc<Split>, trace: TraceId) {
        if self.traces.contains(&trace) {
            return;
        }
        if self.traces.len() >= TRACES_OF_ONE_MAX {
            return self.hold_unread(split);
        }
        split
            .traces
            .update(trace, split.samples.next(), |known| known.pending = known.pending.saturating_add(1));
        self.split.get_or_insert_with(|| Arc::clone(split));
        self.traces.push(trace);
    }

    /// Something is sent to the primary that may belong to any trace.
    pub fn hold_unread(&mut self, split: &Arc<Split>) {
        self.split.get_or_insert_with(|| Arc::clone(split));
        self.is_unread = true;
    }

    /// The answer is there, or never comes.
    pub fn end(&mut self) {
        let Some(split) = self.split.take() else { return };
        let next = split.samples.next();
        for trace in self.traces.drain(..) {
            split.traces.update(trace, next, |known| {
                known.pending = known.pending.saturating_sub(1);
                known.primary = known.primary.max(next);
            });
        }
        if std::mem::take(&mut self.is_unread) {
            split.traces.unread.fetch_max(next.0, Ordering::SeqCst);
        }
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::split::Lsn;

    fn trace(number: u8) -> TraceId {
        TraceId::new([number; 16]).expect("not zero")
    }

    fn sampled(split: &Split) {
        let sample = split.samples.begin();
        split.samples.found(sample, Lsn(sample.0 * 100));
    }

    #[test]
    fn a_trace_is_pending_until_the_answer_and_then_needs_the_next_sample() {
        let split = Arc::new(Split::default());
        assert_eq!(split.traces.done(trace(1)), Done::Unseen);
        split.traces.seen(trace(1), split.samples.next());
        assert_eq!(split.traces.done(trace(1)), Done::Nothing);
        let (mut first, mut second) = (Traced::default(), Traced::default());
        first.hold(&split, trace(1));
        first.hold(&split, trace(1));
        second.hold(&split, trace(1));
        sampled(&split);
        first.end();
        assert_eq!(split.traces.done(trace(1)), Done::Pending);
        let running = split.samples.begin();
        drop(second);
        assert_eq!(split.traces.done(trace(1)), Done::By(Sample(running.0 + 1)));
        assert_eq!(split.traces.done(trace(2)), Done::Unseen);
    }

    #[test]
    fn what_was_sent_unread_counts_for_whoever_was_there() {
        let split = Arc::new(Split::default());
        split.traces.seen(trace(1), split.samples.next());
        let mut traced = Traced::default();
        traced.hold_unread(&split);
        sampled(&split);
        traced.end();
        for _ in 0..=UNREAD_BEFORE {
            sampled(&split);
        }
        split.traces.seen(trace(2), split.samples.next());
        assert_eq!(split.traces.done(trace(1)), Done::By(Sample(2)));
        assert_eq!(split.traces.done(trace(2)), Done::Nothing);
    }

    #[test]
    fn memory_is_bounded_and_the_forgotten_are_unseen() {
        let traces = Traces::new(SHARDS);
        let of = |number: u64| {
            let mut bytes = [1; 16];
            bytes[..8].copy_from_slice(&number.to_be_bytes());
            TraceId::new(bytes).expect("not zero")
        };
        for number in 0..1_000 {
            traces.seen(of(number), Sample(1));
        }
        let known: usize = traces
            .shards
            .iter()
            .map(|shard| shard.lock().expect("no panic"))
            .map(|shard| shard.young.len() + shard.old.len())
            .sum();
        assert!(known <= 2 * SHARDS);
        assert_eq!((traces.done(of(999)), traces.done(of(0))), (Done::Nothing, Done::Unseen));
    }

    #[test]
    fn one_transaction_may_name_many_traces() {
        let split = Arc::new(Split::default());
        split.traces.seen(trace(200), split.samples.next());
        let mut traced = Traced::default();
        for number in 1..=20 {
            traced.hold(&split, trace(number));
        }
        traced.end();
        assert_eq!(split.traces.done(trace(200)), Done::By(Sample(1)));
        assert_eq!(split.traces.done(trace(1)), Done::By(Sample(1)));
    }

    #[test]
    fn ids_are_read_from_digits() {
        let id = TraceId::from_hex(b"0af7651916cd43dd8448eb211c80319c");
        assert_eq!(id.map(|id| id.0[..2].to_vec()), Some(vec![0x0a, 0xf7]));
        for bad in ["", "0af7", "0af7651916cd43dd8448eb211c80319g", "0af7651916cd43dd8448eb211c80319c0"] {
            assert_eq!(TraceId::from_hex(bad.as_bytes()), None, "{bad}");
        }
    }
}
