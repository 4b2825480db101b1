//! One pass: the crowd arrives, and what it cost is read off before and after.
//!
//! Both passes play the same schedule with the same seed, so the same requests start at the same offsets. The crowd's
//! shape is recorded (requests per minute to the World Cup site); its height is given by the shop's capacity, and how
//! long a minute is played is chosen so that enough requests are played without the demo taking all day.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tenfold_loadgen::ideal::{self, Ideal, Rule};
use tenfold_loadgen::schedule::{Joint, Spacing, TraceScale};
use tenfold_loadgen::trace::MinuteSeries;
use tenfold_loadgen::{Report, Schedule};

use super::Options;
use super::front::Tenfold;
use super::mix::{Mix, TRACE};
use super::observe::{Connections, Reading, Waits};
use super::stack::Stack;
use super::steps::Steps;
use crate::interrupt::Interrupt;

/// The crowd from its first minute to its last: a minute before it there were 1,252 requests, in its third 57,509.
const WINDOW: (&str, &str) = ("1998-05-12 06:38", "1998-05-12 06:43");
/// How many requests a pass should play, if the shop is fast enough for that within `MINUTE_MAX`.
const REQUESTS_WANTED: f64 = 61_000.0;
const MINUTE_MIN: Duration = Duration::from_secs(4);
const MINUTE_MAX: Duration = Duration::from_secs(30);
const MINUTE_QUICK: Duration = Duration::from_millis(500);
const WARM_UP: Duration = Duration::from_secs(4);
const WARM_UP_QUICK: Duration = Duration::from_millis(500);
/// Requests a second, within what any such shop serves.
const WARM_UP_RATE: f64 = 200.0;
/// The ttl of every cached route in tenfold.toml.
const TTL_MS: u64 = 30_000;

/// The crowd, brought to this shop's size.
pub(crate) struct Crowd {
    schedule: Schedule,
    minute: Duration,
}

impl Crowd {
    /// `peak_rate` in requests per second, during the busiest minute.
    pub(crate) fn scaled(root: &Path, peak_rate: f64, options: Options) -> Result<Self> {
        let path = root.join("data/worldcup98_1998-05-12.csv");
        let csv =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let series = MinuteSeries::parse(&csv, Some(WINDOW))?;
        let minute = if options.quick { MINUTE_QUICK } else { minute_for(&series, peak_rate) };
        let scale = TraceScale { peak_rate, minute, joint: Joint::Stepped };
        Ok(Self { schedule: Schedule::trace(&series, scale, Spacing::Poisson, Mix::seed())?, minute })
    }

    pub(crate) fn length_s(&self) -> f64 {
        self.schedule.duration().as_secs_f64()
    }

    pub(crate) fn describe(&self, capacity: f64) -> String {
        format!(
            "the crowd: World Cup, {} to {}, each minute in {:.1} s; keys of {TRACE}; \
             {:.0} requests, {:.0} a second in the busiest minute, {:.1} times the shop's capacity",
            WINDOW.0,
            &WINDOW.1[11..],
            self.minute.as_secs_f64(),
            self.schedule.expected(),
            self.schedule.peak_rate(),
            self.schedule.peak_rate() / capacity,
        )
    }
}

/// What a node that has just started is asked before it counts: what it answers slowly while its code is new.
pub(crate) fn warm_up(stack: &Stack, mix: &Mix, interrupt: &Interrupt, options: Options) -> Result<()> {
    let length = if options.quick { WARM_UP_QUICK } else { WARM_UP };
    let schedule = Schedule::constant(WARM_UP_RATE, length, Spacing::Poisson, Mix::seed())?;
    tenfold_loadgen::run(&mix.plan(stack.urls(), schedule), interrupt.stop(), &mut |_| {})?;
    interrupt.check()
}

/// How long to play a minute of the trace so that `REQUESTS_WANTED` are played.
fn minute_for(series: &MinuteSeries, peak_rate: f64) -> Duration {
    let total: f64 = series.counts().iter().map(|&count| f64::from(count)).sum();
    let seconds = REQUESTS_WANTED / (peak_rate * total / f64::from(series.peak()));
    Duration::from_secs_f64(seconds.clamp(MINUTE_MIN.as_secs_f64(), MINUTE_MAX.as_secs_f64()))
}

/// What came of a pass.
pub(crate) struct Pass {
    pub(crate) report: Report,
    /// Spent during the pass.
    pub(crate) spent: Reading,
    /// What an unlimited cache would have fetched of the same requests.
    pub(crate) ideal: Ideal,
    pub(crate) connections: Connections,
    /// How long the pooler's clients waited for a server connection.
    pub(crate) waits: Waits,
}

/// Plays the crowd once: at Tenfold, or at both nodes of the shop in turn.
pub(crate) fn play(
    stack: &mut Stack,
    tenfold: Option<&Tenfold>,
    mix: &Mix,
    crowd: &Crowd,
    interrupt: &Interrupt,
    steps: &mut Steps,
) -> Result<Pass> {
    stack.wait_until_idle()?;
    Mix::reset(stack)?;
    let (name, targets) = match tenfold {
        Some(tenfold) => ("behind Tenfold", vec![tenfold.url()]),
        None => ("alone", stack.urls()),
    };
    let mut plan = mix.plan(targets, crowd.schedule.clone());
    plan.log_requests = true;
    stack.cluster().forget_queries()?;
    let before = Reading::take(stack, tenfold)?;
    let length_s = crowd.length_s();
    let waits = Waits::read(tenfold)?;
    let mut connections = Connections::default();
    let run = tenfold_loadgen::run(&plan, interrupt.stop(), &mut |second| {
        connections.look(stack, tenfold);
        steps.second(name, second, length_s);
    })?;
    interrupt.check()?;
    stack.check_alive()?;
    let spent = Reading::take(stack, tenfold)?.since(&before);
    let waits = Waits::read(tenfold)?.since(&waits);
    let origin_us = Duration::from_secs_f64(spent.response_mean_s()).as_micros();
    let origin_us = u64::try_from(origin_us).unwrap_or(u64::MAX);
    let cached = Rule { ttl_ms: Some(TTL_MS), origin_us };
    let rules: Vec<Rule> =
        mix.cacheable().into_iter().map(|may| if may { cached } else { Rule::OFF }).collect();
    let ideal = ideal::play(&run.log, &rules);
    steps.done(&format!("played {name}: {} requests, {} errors", run.report.offered, run.report.errors));
    Ok(Pass { report: run.report, spent, ideal, connections, waits })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_is_as_long_as_the_requests_need() {
        let series = MinuteSeries::of_counts(vec![1000, 50_000, 49_000]).expect("three minutes");
        let check = |peak_rate, seconds: f64| {
            let minute = minute_for(&series, peak_rate).as_secs_f64();
            assert!((minute - seconds).abs() < 0.01, "{peak_rate}: {minute}");
        };
        check(3050.0, 10.0);
        check(1e6, MINUTE_MIN.as_secs_f64());
        check(1.0, MINUTE_MAX.as_secs_f64());
    }
}
