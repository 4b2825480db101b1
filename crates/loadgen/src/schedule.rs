//! When each request is meant to start, decided before the first one is sent.
//!
//! **Intuition.** A closed-loop generator waits for an answer before it asks again, so a slow server slows its own
//! examiner and the report comes out flattering ("coordinated omission"). Here the starts are a list made in
//! advance, as users are: nobody opens an app more slowly because the shop is struggling.
//!
//! **Mechanism.** A schedule is a rate over time, piecewise linear. Its integral `N(t)` is the number of requests
//! meant to have started by `t`; request `i` starts where `N(t) = i` (even spacing), or where `N(t)` equals the sum of
//! `i` exponential gaps of mean one (Poisson: the same rate, with the clumps that independent users make). Both are
//! functions of the schedule and the seed alone: the same plan gives the same offsets on every machine, and threads
//! share one without talking by each taking every n-th offset.
//!
//! **Failure.** Rates that are negative, not finite or beyond `RATE_MAX`, and schedules longer than
//! `DURATION_S_MAX`, don't build. A stretch at rate zero yields no request and no division by it.

use std::time::Duration;

use crate::error::Error;
use crate::random::Random;
use crate::trace::MinuteSeries;

/// Requests per second. Above what one thread of this generator can send on any machine of today.
pub const RATE_MAX: f64 = 1_000_000.0;
/// A day: the longest schedule.
pub const DURATION_S_MAX: u64 = 86_400;
/// The most stretches of different rate in one schedule: a day of minutes and some.
pub const SEGMENTS_MAX: usize = 2_000;

/// How requests lie between two points of a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spacing {
    /// Equal gaps: the least variance, for comparing two servers.
    Even,
    /// Exponential gaps, as independent users make them.
    Poisson,
}

/// A stretch of time with a rate that starts at `from` and moves in a straight line to `to`, in requests per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Segment {
    /// How long the stretch lasts.
    pub duration: Duration,
    /// Requests per second at its beginning.
    pub from: f64,
    /// Requests per second at its end.
    pub to: f64,
}

/// How the minutes of a trace are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Joint {
    /// Each minute holds its rate to its end: exactly the trace's counts.
    Stepped,
    /// The rate moves in a straight line from one minute's value to the next one's. The last minute holds.
    Linear,
}

/// How a trace is brought to the size of a test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TraceScale {
    /// Requests per second in the busiest minute.
    pub peak_rate: f64,
    /// How long each minute of the trace is played.
    pub minute: Duration,
    /// How minutes are joined.
    pub joint: Joint,
}

/// The intended starts of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// Never empty; every rate finite and within `0..=RATE_MAX`, every duration above zero.
    segments: Vec<Segment>,
    spacing: Spacing,
    seed: u64,
}

impl Schedule {
    /// One rate for a while.
    ///
    /// # Errors
    /// [`Error::Schedule`] when the rate or the duration is out of bounds.
    pub fn constant(rate: f64, duration: Duration, spacing: Spacing, seed: u64) -> Result<Self, Error> {
        Self::of_segments(vec![Segment { duration, from: rate, to: rate }], spacing, seed)
    }

    /// A trace's shape, scaled so that its busiest minute has `scale.peak_rate`.
    ///
    /// # Errors
    /// [`Error::Schedule`] when the trace has no request at all, or the result is out of bounds.
    pub fn trace(
        series: &MinuteSeries,
        scale: TraceScale,
        spacing: Spacing,
        seed: u64,
    ) -> Result<Self, Error> {
        let peak = series.peak();
        if peak == 0 {
            return Err(Error::Schedule("the trace has no request in it".into()));
        }
        let rates: Vec<f64> = series
            .counts()
            .iter()
            .map(|&count| scale.peak_rate * f64::from(count) / f64::from(peak))
            .collect();
        let segment = |(index, &from): (usize, &f64)| {
            let next = rates.get(index + 1).copied().unwrap_or(from);
            let to = if scale.joint == Joint::Linear { next } else { from };
            Segment { duration: scale.minute, from, to }
        };
        let segments = rates.iter().enumerate().map(segment).collect();
        Self::of_segments(segments, spacing, seed)
    }

    /// Any piecewise linear rate: ramps, steps and spikes are lists of segments.
    ///
    /// # Errors
    /// [`Error::Schedule`] when a rate or the duration is out of bounds, or there is no segment.
    pub fn of_segments(segments: Vec<Segment>, spacing: Spacing, seed: u64) -> Result<Self, Error> {
        let refuse = |why: String| Err(Error::Schedule(why));
        if segments.is_empty() || segments.len() > SEGMENTS_MAX {
            return refuse(format!("{} segments; between 1 and {SEGMENTS_MAX} are possible", segments.len()));
        }
        if let Some(rate) =
            segments.iter().flat_map(|s| [s.from, s.to]).find(|r| !(0.0..=RATE_MAX).contains(r))
        {
            return refuse(format!("a rate of {rate} requests per second; 0 to {RATE_MAX} are possible"));
        }
        if segments.iter().any(|s| s.duration.is_zero()) {
            return refuse("a duration of zero".into());
        }
        let schedule = Self { segments, spacing, seed };
        if schedule.duration() > Duration::from_secs(DURATION_S_MAX) {
            return refuse(format!("longer than {DURATION_S_MAX} s"));
        }
        Ok(schedule)
    }

    /// From the start to the end of the last segment.
    #[must_use]
    pub fn duration(&self) -> Duration {
        self.segments.iter().fold(Duration::ZERO, |sum, s| sum.saturating_add(s.duration))
    }

    /// The number of requests the rates amount to. With even spacing this many are sent; with Poisson spacing, this
    /// many give or take its square root.
    #[must_use]
    pub fn expected(&self) -> f64 {
        self.segments.iter().map(Segment::requests).sum()
    }

    /// The highest rate the schedule reaches, in requests per second.
    #[must_use]
    pub fn peak_rate(&self) -> f64 {
        self.segments.iter().flat_map(|s| [s.from, s.to]).fold(0.0, f64::max)
    }

    /// The intended starts, in order, as offsets from the start of the run.
    #[must_use]
    pub fn offsets(&self) -> Offsets<'_> {
        let random = Random::new(self.seed);
        let mut offsets =
            Offsets { schedule: self, random, arrived: 0.0, segment: 0, before: 0.0, began: 0.0 };
        if self.spacing == Spacing::Poisson {
            offsets.arrived = offsets.random.exponential();
        }
        offsets
    }
}

impl Segment {
    /// The requests of the whole stretch.
    fn requests(&self) -> f64 {
        (self.from + self.to) / 2.0 * self.duration.as_secs_f64()
    }

    /// When, in seconds from the segment's beginning, `requests` have started: the inverse of
    /// `from·t + slope·t²/2`, in the form that neither cancels nor divides by a slope of zero.
    fn second_of(&self, requests: f64) -> f64 {
        if requests <= 0.0 {
            return 0.0;
        }
        let slope = (self.to - self.from) / self.duration.as_secs_f64();
        let root = (self.from * self.from + 2.0 * slope * requests).max(0.0).sqrt();
        (2.0 * requests / (self.from + root)).min(self.duration.as_secs_f64())
    }
}

/// Iterator over the intended starts of a [`Schedule`]. Never decreases.
#[derive(Clone, Debug)]
pub struct Offsets<'s> {
    schedule: &'s Schedule,
    random: Random,
    /// `N` of the next request.
    arrived: f64,
    /// The segment that `arrived` is looked for in; those before it are used up.
    segment: usize,
    /// `N` at the beginning of `segment`.
    before: f64,
    /// Seconds from the start of the run to the beginning of `segment`.
    began: f64,
}

impl Iterator for Offsets<'_> {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        loop {
            let segment = self.schedule.segments.get(self.segment)?;
            let within = self.arrived - self.before;
            // The end belongs to the next segment: a request due exactly at the end of the run is not sent, so that
            // ten a second for a second are ten. The tolerance keeps rounding from adding one.
            if within < segment.requests() - 1e-9 {
                let offset = self.began + segment.second_of(within);
                self.arrived += match self.schedule.spacing {
                    Spacing::Even => 1.0,
                    Spacing::Poisson => self.random.exponential(),
                };
                return Some(Duration::from_secs_f64(offset));
            }
            self.before += segment.requests();
            self.began += segment.duration.as_secs_f64();
            self.segment += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn millis(schedule: &Schedule) -> Vec<u128> {
        schedule.offsets().map(|offset| (offset + Duration::from_micros(500)).as_millis()).collect()
    }

    fn segments(list: &[(u64, f64, f64)]) -> Vec<Segment> {
        list.iter().map(|&(s, from, to)| Segment { duration: Duration::from_secs(s), from, to }).collect()
    }

    fn check(list: &[(u64, f64, f64)], expected: &[u128]) {
        let schedule = Schedule::of_segments(segments(list), Spacing::Even, 0).unwrap();
        assert_eq!(millis(&schedule), expected, "{list:?}");
    }

    #[test]
    fn a_constant_rate_is_evenly_spaced() {
        check(&[(1, 4.0, 4.0)], &[0, 250, 500, 750]);
        check(&[(2, 1.0, 1.0)], &[0, 1000]);
        check(&[(1, 0.0, 0.0)], &[]);
    }

    #[test]
    fn steps_follow_one_another() {
        check(&[(1, 2.0, 2.0), (1, 4.0, 4.0)], &[0, 500, 1000, 1250, 1500, 1750]);
        check(&[(1, 1.0, 1.0), (5, 0.0, 0.0), (1, 2.0, 2.0)], &[0, 6000, 6500]);
    }

    #[test]
    fn a_ramp_comes_closer_and_closer() {
        // N(t) = t² over two seconds: requests 0..4 at the roots of 0..4.
        check(&[(2, 0.0, 4.0)], &[0, 1000, 1414, 1732]);
        // And back down: the mirror image, N(t) = 4t − t².
        check(&[(2, 4.0, 0.0)], &[0, 268, 586, 1000]);
    }

    #[test]
    fn a_trace_is_scaled_to_its_peak() {
        let series = MinuteSeries::of_counts(vec![50, 100, 25]).unwrap();
        let scale = TraceScale { peak_rate: 4.0, minute: SECOND, joint: Joint::Stepped };
        let stepped = Schedule::trace(&series, scale, Spacing::Even, 0).unwrap();
        assert_eq!(millis(&stepped), [0, 500, 1000, 1250, 1500, 1750, 2000]);
        let linear =
            Schedule::trace(&series, TraceScale { joint: Joint::Linear, ..scale }, Spacing::Even, 0).unwrap();
        assert!((linear.expected() - (3.0 + 2.5 + 1.0)).abs() < 1e-9);
        assert_eq!(linear.duration(), 3 * SECOND);
        assert!((linear.peak_rate() - 4.0).abs() < 1e-9);
    }

    #[test]
    fn nonsense_does_not_build() {
        for rate in [-1.0, f64::NAN, f64::INFINITY, RATE_MAX * 1.01] {
            assert!(Schedule::constant(rate, SECOND, Spacing::Even, 0).is_err(), "{rate}");
        }
        assert!(Schedule::constant(1.0, Duration::ZERO, Spacing::Even, 0).is_err());
        assert!(Schedule::constant(1.0, Duration::MAX, Spacing::Even, 0).is_err());
        assert!(Schedule::of_segments(vec![], Spacing::Even, 0).is_err());
        let silent = MinuteSeries::of_counts(vec![0, 0]).unwrap();
        let scale = TraceScale { peak_rate: 1.0, minute: SECOND, joint: Joint::Stepped };
        assert!(Schedule::trace(&silent, scale, Spacing::Even, 0).is_err());
    }

    #[test]
    fn poisson_clumps_as_independent_users_do() {
        let schedule = Schedule::constant(1000.0, 20 * SECOND, Spacing::Poisson, 7).unwrap();
        let mut per_second = [0_f64; 20];
        schedule.offsets().for_each(|offset| per_second[usize::try_from(offset.as_secs()).unwrap()] += 1.0);
        let mean = per_second.iter().sum::<f64>() / 20.0;
        let variance = per_second.iter().map(|n| (n - mean).powi(2)).sum::<f64>() / 19.0;
        assert!((mean - 1000.0).abs() < 30.0, "mean {mean}");
        // A Poisson count's variance is its mean; even spacing would have zero.
        assert!((300.0..3000.0).contains(&variance), "variance {variance}");
    }

    proptest! {
        #[test]
        fn offsets_never_decrease_and_stay_within(
            list in prop::collection::vec((1..20_u64, 0.0..200.0_f64, 0.0..200.0_f64), 1..6),
            poisson: bool,
            seed: u64,
        ) {
            let spacing = if poisson { Spacing::Poisson } else { Spacing::Even };
            let schedule = Schedule::of_segments(segments(&list), spacing, seed).unwrap();
            let offsets: Vec<_> = schedule.offsets().collect();
            prop_assert!(offsets.is_sorted());
            prop_assert!(offsets.last().is_none_or(|last| *last <= schedule.duration()));
            prop_assert_eq!(&offsets, &schedule.offsets().collect::<Vec<_>>());
            if !poisson {
                #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
                let sent = offsets.len() as f64;
                prop_assert!((sent - schedule.expected()).abs() <= 1.0);
            }
        }
    }
}
