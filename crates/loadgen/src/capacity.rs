//! The highest constant rate that holds an SLO.
//!
//! **Intuition.** "1.5 times the shop's capacity" needs the capacity, of this shop on this machine today. Like weighing
//! with two pans: double the weight until the pan drops, then halve the gap.
//!
//! **Mechanism.** [`find`] is the search alone: a rate in, held or missed out, through a closure, so that it is tested
//! against invented targets. From a guess it doubles while the SLO holds (or halves while it misses), then bisects,
//! geometrically, until the gap is at most `precision` of the rate. Before each probe the target is let settle, since
//! a miss leaves queues behind. [`measure`] is the search with real runs.
//!
//! **Failure.** A target that misses at `rate_min` has no capacity, which is an error; one that holds at `rate_max` has
//! that much and `is_ceiling` says so. The number of probes is bounded: `PROBES_MAX`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::plan::{Plan, Stop};
use crate::report::{Second, Slo};
use crate::schedule::{Schedule, Spacing};

/// The most probes of one search. Doubling from 1 to a million takes 20, bisecting to 1 % another 7.
pub const PROBES_MAX: usize = 40;
/// The most calm-down runs before one probe.
pub const SETTLE_RUNS_MAX: usize = 10;
/// How long a calm-down run waits for an answer: whoever takes longer is not calm.
const SETTLE_TIMEOUT_MS: u64 = 5_000;

/// How to search.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Search {
    /// The rate to begin with, in requests per second.
    pub guess: f64,
    /// The lowest rate worth knowing.
    pub rate_min: f64,
    /// The highest rate to try.
    pub rate_max: f64,
    /// Bisect until the gap is at most this share of the rate: 0.05 is 5 %.
    pub precision: f64,
}

impl Search {
    /// From `guess`, to 5 %.
    #[must_use]
    pub fn from_guess(guess: f64) -> Self {
        Self { guess, rate_min: 1.0, rate_max: 50_000.0, precision: 0.05 }
    }
}

/// One probe: a rate, and what came of it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// Requests per second.
    pub rate: f64,
    /// Whether the SLO held.
    pub held: bool,
    /// The SLO's 99th percentile.
    pub p99_ms: f64,
    /// Errors by requests offered.
    pub error_ratio: f64,
}

/// The result of a search.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Capacity {
    /// The highest rate that held.
    pub rate: f64,
    /// True when that is the search's `rate_max`: the target may do more.
    pub is_ceiling: bool,
    /// All probes, in order.
    pub probes: Vec<Probe>,
}

/// Searches with `probe(rate)`, which runs one constant rate and says what came of it.
///
/// # Errors
/// [`Error::Capacity`] when the target holds at no rate, or the search's bounds make no sense; and whatever `probe`
/// returns.
pub fn find(search: Search, mut probe: impl FnMut(f64) -> Result<Probe, Error>) -> Result<Capacity, Error> {
    let Search { guess, rate_min, rate_max, precision } = search;
    // Written so that a NaN fails it.
    let makes_sense = 0.0 < rate_min && rate_min <= guess && guess <= rate_max && rate_max.is_finite();
    if !makes_sense || !(0.001..1.0).contains(&precision) {
        return Err(Error::Capacity(format!("a search that makes no sense: {search:?}")));
    }
    let mut probes: Vec<Probe> = Vec::new();
    let (mut held, mut missed): (Option<f64>, Option<f64>) = (None, None);
    let mut rate = guess;
    while probes.len() < PROBES_MAX {
        let outcome = probe(rate)?;
        probes.push(outcome);
        if outcome.held {
            held = Some(rate);
        } else {
            missed = Some(rate);
        }
        rate = match (held, missed) {
            (Some(low), None) if low >= rate_max => {
                return Ok(Capacity { rate: low, is_ceiling: true, probes });
            }
            (Some(low), None) => (low * 2.0).min(rate_max),
            (None, Some(high)) if high <= rate_min => {
                return Err(Error::Capacity(format!(
                    "the SLO is missed even at {rate_min} requests per second"
                )));
            }
            (None, Some(high)) => (high / 2.0).max(rate_min),
            (Some(low), Some(high)) if high <= low * (1.0 + precision) => break,
            (Some(low), Some(high)) => (low * high).sqrt(),
            (None, None) => unreachable!("the probe just made is one of both"),
        };
    }
    let rate = held.ok_or_else(|| Error::Capacity(format!("no rate held in {PROBES_MAX} probes")))?;
    Ok(Capacity { rate, is_ceiling: false, probes })
}

/// How [`measure`] probes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measure {
    /// Where to search.
    pub search: Search,
    /// How long each probe lasts.
    pub probe: Duration,
    /// What must hold.
    pub slo: Slo,
    /// Before each probe, a second of `calm_rate` requests per second is played until its 99th percentile is at most
    /// `calm_p99_ms` without an error, [`SETTLE_RUNS_MAX`] times at most.
    pub calm_rate: f64,
    /// See `calm_rate`.
    pub calm_p99_ms: f64,
}

impl Measure {
    /// From `guess`, probing for `probe` each; calm is half the SLO's latency at 5 requests per second.
    #[must_use]
    pub fn new(guess: f64, probe: Duration, slo: Slo) -> Self {
        let calm_p99_ms = (slo.p99_ms / 2.0).max(1.0);
        Self { search: Search::from_guess(guess), probe, slo, calm_rate: 5.0, calm_p99_ms }
    }
}

/// Measures the capacity of the plan's targets with the plan's mix; the plan's own schedule, SLO and log are not used.
/// `on_probe` sees each probe when it is done, `progress` each second of it.
///
/// # Errors
/// As [`find`] and [`crate::run`]; [`Error::Capacity`] when stopped.
pub fn measure(
    plan: &Plan,
    measure: &Measure,
    stop: &Stop,
    progress: &mut dyn FnMut(&Second),
    on_probe: &mut dyn FnMut(&Probe),
) -> Result<Capacity, Error> {
    let mut plan = plan.clone();
    plan.log_requests = false;
    plan.slo = Some(measure.slo);
    if plan.tokens.is_empty() {
        plan.tokens = crate::log_in(&plan)?.into();
    }
    find(measure.search, |rate| {
        settle(&plan, measure, stop)?;
        plan.schedule = Schedule::constant(rate, measure.probe, Spacing::Poisson, plan.seed)?;
        let report = crate::run(&plan, stop, progress)?.report;
        if stop.is_stopped() {
            return Err(Error::Capacity("stopped".into()));
        }
        let verdict = measure.slo.judge(&report);
        let probe =
            Probe { rate, held: verdict.held, p99_ms: verdict.p99_ms, error_ratio: verdict.error_ratio };
        on_probe(&probe);
        Ok(probe)
    })
}

/// Waits until the target answers a trickle quickly again. One that never does is probed all the same: that is the
/// probe's finding, not ours.
fn settle(plan: &Plan, measure: &Measure, stop: &Stop) -> Result<(), Error> {
    let calm = Slo { p99_ms: measure.calm_p99_ms, error_ratio: 0.0 };
    let schedule = Schedule::constant(measure.calm_rate, Duration::from_secs(1), Spacing::Even, plan.seed)?;
    let mut plan = Plan { schedule, ..plan.clone() };
    plan.client.timeout_ms = plan.client.timeout_ms.min(SETTLE_TIMEOUT_MS);
    for _ in 0..SETTLE_RUNS_MAX {
        let report = crate::run(&plan, stop, &mut |_| {})?.report;
        if stop.is_stopped() {
            return Err(Error::Capacity("stopped".into()));
        }
        if calm.judge(&report).held {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Searches a target whose true capacity is `limit`.
    fn search(guess: f64, limit: f64) -> Result<Capacity, Error> {
        let probe = |rate: f64| Ok(Probe { rate, held: rate <= limit, p99_ms: rate, error_ratio: 0.0 });
        find(Search::from_guess(guess), probe)
    }

    fn check(guess: f64, limit: f64, probes_max: usize) {
        let found = search(guess, limit).unwrap();
        assert!(found.rate <= limit && found.rate * 1.05 >= limit, "{guess} {limit}: {found:?}");
        assert!(found.probes.len() <= probes_max, "{guess} {limit}: {} probes", found.probes.len());
        assert!(!found.is_ceiling);
    }

    #[test]
    fn the_capacity_is_found_from_below_and_from_above() {
        check(100.0, 100.0, 6);
        check(100.0, 730.0, 9);
        check(1000.0, 33.3, 11);
        check(1.0, 1.0, 6);
        check(1.0, 40_000.0, 21);
    }

    #[test]
    fn a_target_that_holds_nothing_has_no_capacity() {
        assert!(search(100.0, 0.5).unwrap_err().to_string().contains("even at 1 "));
    }

    #[test]
    fn a_target_beyond_the_search_is_a_ceiling() {
        let found = search(100.0, f64::INFINITY).unwrap();
        assert!(found.is_ceiling);
        assert!((found.rate - 50_000.0).abs() < 1e-9);
    }

    #[test]
    fn a_target_that_never_answers_the_same_is_not_probed_forever() {
        let mut calls = 0;
        let flip = |rate: f64| {
            calls += 1;
            Ok(Probe { rate, held: calls % 2 == 1, p99_ms: 0.0, error_ratio: 0.0 })
        };
        let found = find(Search { precision: 0.001, ..Search::from_guess(100.0) }, flip).unwrap();
        assert!(found.probes.len() <= PROBES_MAX);
    }

    #[test]
    fn nonsense_is_refused() {
        let good = Search::from_guess(100.0);
        for bad in [
            Search { guess: f64::NAN, ..good },
            Search { guess: 0.5, ..good },
            Search { rate_min: 0.0, ..good },
            Search { rate_max: 50.0, ..good },
            Search { precision: 0.0, ..good },
        ] {
            let error = find(bad, |_| unreachable!("not probed")).unwrap_err();
            assert!(matches!(error, Error::Capacity(_)), "{bad:?}");
        }
    }
}
