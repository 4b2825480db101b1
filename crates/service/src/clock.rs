//! The only reader of the system's clocks.
//!
//! **Intuition.** Decisions take `now` as an argument; somebody has to supply it. A [`Clock`] is handed to each worker,
//! and a test hands out one that stands still until told to move.
//!
//! **Mechanism.** [`Clock::now`] is the monotonic clock, for durations and deadlines; [`Clock::unix_ms`] is the wall
//! clock, for ages and dates. Both are one vDSO call, tens of nanoseconds. The text of the `Date` header is made once a
//! second per thread, as RFC 9110 §5.6.7 formats it.
//!
//! **Failure.** The wall clock may step in either direction; the monotonic one never does. A wall clock before 1970
//! reads as 1970.

#![expect(clippy::disallowed_methods, reason = "this module is the one that wraps the system's clocks")]

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Length of an IMF-fixdate, for example `Sun, 06 Nov 1994 08:49:37 GMT`.
pub const HTTP_DATE_BYTES: usize = 29;

/// Reads the time. Cheap to clone; clones of a manual clock move together.
#[derive(Clone, Debug)]
pub struct Clock {
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    System,
    Manual(Arc<Manual>),
}

#[derive(Debug)]
struct Manual {
    started: Instant,
    started_unix_ms: u64,
    elapsed_ns: AtomicU64,
}

/// How long a thread tells the wall clock from the monotonic one before it reads the wall clock again.
pub const ANCHOR_MS_MAX: u64 = 100;

/// Where a manual clock starts: Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110.
const MANUAL_START_UNIX_MS: u64 = 784_111_777_000;

thread_local! {
    /// A moment of the monotonic clock, and the wall clock at it.
    static ANCHOR: Cell<(Option<Instant>, u64)> = const { Cell::new((None, 0)) };
    /// The last `Date` made on this thread, with its second. A pure function of the second, so clocks may share it.
    static HTTP_DATE: Cell<(u64, [u8; HTTP_DATE_BYTES])> = const { Cell::new((u64::MAX, [b' '; HTTP_DATE_BYTES])) };
}

impl Clock {
    /// The clocks of the operating system.
    #[must_use]
    pub fn system() -> Self {
        Self { source: Source::System }
    }

    /// A clock that stands still until [`advance`](Self::advance) is called, for tests.
    #[must_use]
    pub fn manual() -> Self {
        let manual = Manual {
            started: Instant::now(),
            started_unix_ms: MANUAL_START_UNIX_MS,
            elapsed_ns: AtomicU64::new(0),
        };
        Self { source: Source::Manual(Arc::new(manual)) }
    }

    /// Monotonic time, for durations and deadlines.
    #[must_use]
    pub fn now(&self) -> Instant {
        match &self.source {
            Source::System => Instant::now(),
            Source::Manual(manual) => manual.started + manual.elapsed(),
        }
    }

    /// Wall clock: milliseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub fn unix_ms(&self) -> u64 {
        match &self.source {
            Source::System => as_millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()),
            Source::Manual(manual) => manual.started_unix_ms.saturating_add(as_millis(manual.elapsed())),
        }
    }

    /// The wall clock at a moment of the monotonic one that was read a moment ago: for callers on a hot path, who read
    /// one clock instead of two. A step of the wall clock shows after [`ANCHOR_MS_MAX`] at the latest.
    #[must_use]
    pub fn unix_ms_at(&self, now: Instant) -> u64 {
        let Source::System = &self.source else { return self.unix_ms() };
        let (anchored, unix_ms) = ANCHOR.get();
        if let Some(since) = anchored.and_then(|anchored| now.checked_duration_since(anchored)) {
            let since_ms = as_millis(since);
            if since_ms < ANCHOR_MS_MAX {
                return unix_ms + since_ms;
            }
        }
        let unix_ms = self.unix_ms();
        ANCHOR.set((Some(now), unix_ms));
        unix_ms
    }

    /// The value of a `Date` header for the wall clock's second.
    #[must_use]
    pub fn http_date(&self) -> [u8; HTTP_DATE_BYTES] {
        self.http_date_at(self.unix_ms())
    }

    /// The value of a `Date` header for a moment that was read already.
    #[must_use]
    pub fn http_date_at(&self, unix_ms: u64) -> [u8; HTTP_DATE_BYTES] {
        let second = unix_ms / 1_000;
        HTTP_DATE.with(|cached| {
            let (cached_second, cached_text) = cached.get();
            if cached_second == second {
                return cached_text;
            }
            let text = format_http_date(second);
            cached.set((second, text));
            text
        })
    }

    /// Moves a manual clock forward, and all its clones.
    ///
    /// # Panics
    /// On the system's clock, which nobody moves.
    pub fn advance(&self, by: Duration) {
        let Source::Manual(manual) = &self.source else { panic!("only a manual clock can be advanced") };
        let by_ns = u64::try_from(by.as_nanos()).expect("a test moves its clock by less than five centuries");
        manual.elapsed_ns.fetch_add(by_ns, Ordering::Relaxed);
    }
}

impl Manual {
    fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.elapsed_ns.load(Ordering::Relaxed))
    }
}

fn as_millis(duration: Duration) -> u64 {
    // Not through `as_millis`, whose 128 bits cost more than reading the clock.
    duration.as_secs().saturating_mul(1_000).saturating_add(u64::from(duration.subsec_millis()))
}

/// The last second an IMF-fixdate can tell: 9999-12-31T23:59:59Z.
const HTTP_DATE_SECOND_MAX: u64 = 253_402_300_799;

fn format_http_date(second: u64) -> [u8; HTTP_DATE_BYTES] {
    let time = UNIX_EPOCH + Duration::from_secs(second.min(HTTP_DATE_SECOND_MAX));
    let text = httpdate::fmt_http_date(time);
    text.as_bytes().try_into().expect("an IMF-fixdate has 29 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_told_and_its_clones_with_it() {
        let clock = Clock::manual();
        let twin = clock.clone();
        let (now, unix_ms) = (clock.now(), clock.unix_ms());
        assert_eq!((twin.now(), twin.unix_ms()), (now, unix_ms));
        clock.advance(Duration::from_millis(1_500));
        assert_eq!(twin.now() - now, Duration::from_millis(1_500));
        assert_eq!(twin.unix_ms() - unix_ms, 1_500);
    }

    #[test]
    fn the_date_follows_the_clock_second_by_second() {
        let clock = Clock::manual();
        assert_eq!(&clock.http_date(), b"Sun, 06 Nov 1994 08:49:37 GMT");
        clock.advance(Duration::from_millis(999));
        assert_eq!(&clock.http_date(), b"Sun, 06 Nov 1994 08:49:37 GMT");
        clock.advance(Duration::from_millis(1));
        assert_eq!(&clock.http_date(), b"Sun, 06 Nov 1994 08:49:38 GMT");
    }

    #[test]
    fn the_system_clock_is_in_this_century() {
        let year_ms = 365 * 24 * 3_600 * 1_000;
        assert!((50 * year_ms..130 * year_ms).contains(&Clock::system().unix_ms()));
        let text = Clock::system().http_date();
        assert!(httpdate::parse_http_date(std::str::from_utf8(&text).unwrap()).is_ok());
    }

    #[test]
    fn the_wall_clock_is_told_from_the_monotonic_one_for_a_while() {
        let clock = Clock::system();
        let now = clock.now();
        let unix_ms = clock.unix_ms_at(now);
        assert!(clock.unix_ms().abs_diff(unix_ms) < 5_000);
        assert_eq!(clock.unix_ms_at(now + Duration::from_millis(99)), unix_ms + 99);
        // Past that the wall clock is read again, and it has not moved that far.
        assert!(clock.unix_ms_at(now + Duration::from_secs(3_600)) < unix_ms + 60_000);
        // A moment before the anchor has nothing to be told from.
        assert!(clock.unix_ms_at(now) < unix_ms + 60_000);
        let manual = Clock::manual();
        assert_eq!(manual.unix_ms_at(now), manual.unix_ms());
    }

    #[test]
    fn a_date_beyond_the_format_is_clamped() {
        assert_eq!(&format_http_date(u64::MAX), b"Fri, 31 Dec 9999 23:59:59 GMT");
    }
}
