//! Real traffic as recorded: who was asked for (key traces) and how much a minute (rate series).
//!
//! **Intuition.** Invented load is too kind: uniform keys make caches look bad, a textbook Zipf makes them look good,
//! and nobody invents a crowd that grows fiftyfold within two minutes. So the popularity and the shape come from
//! recordings (`data/README.md` names them).
//!
//! **Mechanism.** A key trace is a file of big-endian signed 32-bit keys in the order they were asked for; keys are
//! renamed to dense ranks `0..distinct` in order of first appearance, so that a shop with that many products can play
//! it. A rate series is a CSV of `minute_utc,requests`, from which a window is cut by its first and last minute.
//!
//! **Failure.** A file that isn't one is refused with its line or size. Both are bounded before they are kept.

use std::collections::HashMap;

use crate::error::Error;

/// The longest key trace: 16 MiB of keys in memory.
pub const TRACE_KEYS_MAX: usize = 4 * 1024 * 1024;
/// The longest rate series: a year of minutes.
pub const SERIES_MINUTES_MAX: usize = 366 * 24 * 60;

/// Keys in the order they were asked for, as dense ranks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyTrace {
    /// Never empty; every rank is below `distinct`.
    ranks: Vec<u32>,
    distinct: u32,
}

impl KeyTrace {
    /// Reads `web07.trace`, `web12.trace` and their kin: big-endian signed 32-bit keys and nothing else.
    ///
    /// # Errors
    /// [`Error::Trace`] when the size isn't a multiple of four, is zero, or is above [`TRACE_KEYS_MAX`] keys.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let (words, rest) = bytes.as_chunks::<4>();
        if !rest.is_empty() {
            return Err(Error::Trace(format!("{} bytes are not a whole number of 32-bit keys", bytes.len())));
        }
        if words.len() > TRACE_KEYS_MAX {
            return Err(Error::Trace(format!("{} keys; {TRACE_KEYS_MAX} are possible", words.len())));
        }
        Self::of_keys(words.iter().map(|word| i32::from_be_bytes(*word)))
    }

    /// A trace of any keys.
    ///
    /// # Errors
    /// [`Error::Trace`] when there is none, or more than [`TRACE_KEYS_MAX`].
    pub fn of_keys(keys: impl IntoIterator<Item = i32>) -> Result<Self, Error> {
        let mut rank_of = HashMap::new();
        let mut ranks = Vec::new();
        for key in keys {
            if ranks.len() == TRACE_KEYS_MAX {
                return Err(Error::Trace(format!("more than {TRACE_KEYS_MAX} keys")));
            }
            let next = u32::try_from(rank_of.len()).expect("at most TRACE_KEYS_MAX");
            ranks.push(*rank_of.entry(key).or_insert(next));
        }
        if ranks.is_empty() {
            return Err(Error::Trace("no key in it".into()));
        }
        Ok(Self { ranks, distinct: u32::try_from(rank_of.len()).expect("at most TRACE_KEYS_MAX") })
    }

    /// The same trace over `keys_max` keys at most: ranks beyond them wrap round.
    ///
    /// # Errors
    /// [`Error::Trace`] when `keys_max` is zero.
    pub fn wrapped(mut self, keys_max: u32) -> Result<Self, Error> {
        if keys_max == 0 {
            return Err(Error::Trace("wrapped to no key at all".into()));
        }
        self.ranks.iter_mut().for_each(|rank| *rank %= keys_max);
        self.distinct = self.distinct.min(keys_max);
        Ok(self)
    }

    /// The rank of the `index`-th request; past its end, the trace begins again.
    #[must_use]
    pub fn rank(&self, index: u64) -> u32 {
        let length = u64::try_from(self.ranks.len()).expect("at most TRACE_KEYS_MAX");
        self.ranks[usize::try_from(index % length).expect("below the length")]
    }

    /// The ranks, in order.
    #[must_use]
    pub fn ranks(&self) -> &[u32] {
        &self.ranks
    }

    /// The number of different keys.
    #[must_use]
    pub fn distinct(&self) -> u32 {
        self.distinct
    }
}

/// Requests per minute, one value a minute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MinuteSeries {
    /// Never empty.
    counts: Vec<u32>,
}

/// The first and the last minute of the World Cup's flash crowd of 12 May 1998, with the calm on both sides: for
/// `worldcup98_1998-05-12.csv`, or the whole series.
pub const FLASH_CROWD: (&str, &str) = ("1998-05-12 06:34", "1998-05-12 06:46");

impl MinuteSeries {
    /// A series of any counts.
    ///
    /// # Errors
    /// [`Error::Trace`] when there is none, or more than [`SERIES_MINUTES_MAX`].
    pub fn of_counts(counts: Vec<u32>) -> Result<Self, Error> {
        if counts.is_empty() || counts.len() > SERIES_MINUTES_MAX {
            let minutes = counts.len();
            return Err(Error::Trace(format!("{minutes} minutes; 1 to {SERIES_MINUTES_MAX} are possible")));
        }
        Ok(Self { counts })
    }

    /// Reads lines of `minute_utc,requests` (`1998-05-12 06:40,57509`) with or without a header line, all or a window
    /// given by its first and last minute, both included.
    ///
    /// # Errors
    /// [`Error::Trace`] with the line that isn't of that form, or when the window holds no minute.
    pub fn parse(csv: &str, window: Option<(&str, &str)>) -> Result<Self, Error> {
        let mut counts = Vec::new();
        for (index, line) in csv.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
            let malformed = || Error::Trace(format!("line {}: {line:?} is not minute,requests", index + 1));
            let (minute, count) = line.split_once(',').ok_or_else(malformed)?;
            if index == 0 && !minute.starts_with(|c: char| c.is_ascii_digit()) {
                continue;
            }
            let count = count.trim().parse().map_err(|_| malformed())?;
            // Minutes are written so that their order as text is their order in time.
            if window.is_some_and(|(first, last)| minute < first || minute > last) {
                continue;
            }
            if counts.len() == SERIES_MINUTES_MAX {
                return Err(Error::Trace(format!("more than {SERIES_MINUTES_MAX} minutes")));
            }
            counts.push(count);
        }
        if counts.is_empty() {
            let (first, last) = window.unwrap_or(("the beginning", "the end"));
            return Err(Error::Trace(format!("no minute between {first} and {last}")));
        }
        Ok(Self { counts })
    }

    /// Requests in each minute.
    #[must_use]
    pub fn counts(&self) -> &[u32] {
        &self.counts
    }

    /// Requests in the busiest minute.
    #[must_use]
    pub fn peak(&self) -> u32 {
        self.counts.iter().copied().max().expect("never empty")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB07: &[u8] = include_bytes!("../../../data/web07.trace");
    const WEB12: &[u8] = include_bytes!("../../../data/web12.trace");
    const MAY_12: &str = include_str!("../../../data/worldcup98_1998-05-12.csv");
    const JULY_3: &str = include_str!("../../../data/worldcup98_1998-07-03.csv");

    fn hottest_share(trace: &KeyTrace, hottest: usize) -> f64 {
        let mut counts = vec![0_u32; usize::try_from(trace.distinct()).unwrap()];
        trace.ranks().iter().for_each(|&rank| counts[usize::try_from(rank).unwrap()] += 1);
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let hot: u32 = counts.iter().take(hottest).sum();
        f64::from(hot) / f64::from(u32::try_from(trace.ranks().len()).unwrap())
    }

    #[test]
    fn the_traces_hold_what_their_readme_says() {
        for (bytes, requests, distinct, share) in
            [(WEB07, 76_118, 20_484, 0.519), (WEB12, 95_607, 13_756, 0.666)]
        {
            let trace = KeyTrace::parse(bytes).unwrap();
            assert_eq!((trace.ranks().len(), trace.distinct()), (requests, distinct));
            assert!((hottest_share(&trace, 1000) - share).abs() < 0.0006, "{}", hottest_share(&trace, 1000));
        }
    }

    #[test]
    fn keys_become_dense_ranks_in_order_of_first_appearance() {
        let trace = KeyTrace::of_keys([70, -3, 70, 9, i32::MIN, -3]).unwrap();
        assert_eq!(trace.ranks(), [0, 1, 0, 2, 3, 1]);
        assert_eq!(trace.distinct(), 4);
        assert_eq!([trace.rank(5), trace.rank(6), trace.rank(u64::MAX)], [1, 0, trace.ranks()[3]]);
        let wrapped = trace.wrapped(3).unwrap();
        assert_eq!((wrapped.ranks(), wrapped.distinct()), (&[0, 1, 0, 2, 0, 1][..], 3));
        assert!(wrapped.wrapped(0).is_err());
    }

    #[test]
    fn files_that_are_no_key_trace_are_refused() {
        assert!(KeyTrace::parse(b"").is_err());
        assert!(KeyTrace::parse(b"\0\0\0").is_err());
        assert!(KeyTrace::parse(b"\0\0\0\x01\0").is_err());
    }

    #[test]
    fn the_flash_crowd_is_where_it_should_be() {
        let crowd = MinuteSeries::parse(MAY_12, Some(FLASH_CROWD)).unwrap();
        assert_eq!(crowd.counts().len(), 13);
        assert_eq!(crowd.counts()[..7], [1196, 1192, 1150, 1252, 15_085, 25_574, 57_509]);
        assert_eq!(crowd.peak(), 57_509);
        assert_eq!(MinuteSeries::parse(JULY_3, None).unwrap().counts().len(), 1440);
    }

    #[test]
    fn lines_that_are_no_series_are_refused() {
        for csv in ["", "minute_utc,requests\n", "1998-05-12 06:34", "1998-05-12 06:34,-1\n", "a,b\nc,d\n"] {
            assert!(MinuteSeries::parse(csv, None).is_err(), "{csv:?}");
        }
        assert!(MinuteSeries::parse("1998-05-12 06:34,1\n", Some(("1999", "2000"))).is_err());
        assert!(MinuteSeries::of_counts(vec![]).is_err());
    }
}
