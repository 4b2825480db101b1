//! What the shop can serve by itself: the highest constant rate of the same mix that holds the SLO.
//!
//! First a rough search with short probes, then a fine one around its result with probes of fifteen seconds, because a
//! rate that holds for three seconds may only not have filled its queues yet. The result is kept under target/demo for
//! `--quick`, which otherwise makes do with one probe: what the shop answers a second when it is offered too much.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use tenfold_loadgen::Schedule;
use tenfold_loadgen::capacity::{self, Capacity, Probe, Search};
use tenfold_loadgen::schedule::Spacing;

use super::SLO;
use super::mix::Mix;
use super::stack::Stack;
use super::steps::Steps;
use crate::interrupt::Interrupt;

/// Where the first search begins, in requests per second: what such a shop does on a small machine.
const GUESS: f64 = 400.0;
const ROUGH_PROBE: Duration = Duration::from_secs(2);
const ROUGH_PRECISION: f64 = 0.3;
const PROBE: Duration = Duration::from_secs(15);
const PRECISION: f64 = 0.1;
/// The fine search looks no further above a rate that holds; the next step up is a search of its own.
const FINE_RANGE: f64 = 1.35;
/// `--quick`: offered for so long, by users who give up so soon that no queue outlives the probe.
const QUICK_RATE: f64 = 800.0;
const QUICK_PROBE: Duration = Duration::from_secs(3);
const QUICK_TIMEOUT_MS: u64 = 1000;

/// A measured capacity.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Known {
    /// Requests per second.
    pub(crate) rate: f64,
    /// How long the probes were that found it.
    pub(crate) probe_s: f64,
}

impl Known {
    /// The last one measured here; `None` if there is none that can be read.
    pub(crate) fn load(folder: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(folder.join("capacity.json")).ok()?).ok()
    }

    pub(crate) fn save(&self, folder: &Path) -> Result<()> {
        let path = folder.join("capacity.json");
        std::fs::write(&path, serde_json::to_vec(self)?)
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Searches the shop's capacity.
pub(crate) fn measure(stack: &Stack, mix: &Mix, interrupt: &Interrupt, steps: &mut Steps) -> Result<Known> {
    steps.say("searching what the shop can serve alone");
    let mut search = |search: Search, length: Duration| -> Result<Capacity> {
        let found = capacity::find(search, |rate| {
            // A neighbour on the machine may spoil a probe; the shop is held to have missed when it misses twice.
            let first = probe(stack, mix, interrupt, rate, length)?;
            let probe = if first.held { first } else { probe(stack, mix, interrupt, rate, length)? };
            steps.say(&line(&probe));
            Ok(probe)
        });
        interrupt.check()?;
        Ok(found?)
    };
    let rough = search(Search { precision: ROUGH_PRECISION, ..Search::from_guess(GUESS) }, ROUGH_PROBE)?;
    let mut guess = rough.rate;
    let rate = loop {
        let fine = Search { guess, rate_min: 1.0, rate_max: guess * FINE_RANGE, precision: PRECISION };
        let found = search(fine, PROBE)?;
        if !found.is_ceiling {
            break found.rate;
        }
        guess = found.rate * FINE_RANGE;
    };
    let known = Known { rate, probe_s: PROBE.as_secs_f64() };
    steps.say(&format!(
        "the shop's capacity: {rate:.0} requests/s hold p99 ≤ {:.0} ms and errors ≤ {:.1} % for {:.0} s",
        SLO.p99_ms,
        SLO.error_ratio * 100.0,
        known.probe_s
    ));
    Ok(known)
}

/// One rate for a while, at a shop that has nothing left to do.
fn probe(
    stack: &Stack,
    mix: &Mix,
    interrupt: &Interrupt,
    rate: f64,
    length: Duration,
) -> Result<Probe, tenfold_loadgen::Error> {
    stack.wait_until_idle().map_err(|error| tenfold_loadgen::Error::Capacity(format!("{error:#}")))?;
    let plan = mix.plan(stack.urls(), Schedule::constant(rate, length, Spacing::Poisson, Mix::seed())?);
    let report = tenfold_loadgen::run(&plan, interrupt.stop(), &mut |_| {})?.report;
    if interrupt.was_asked() {
        return Err(tenfold_loadgen::Error::Capacity("stopped".into()));
    }
    let verdict = SLO.judge(&report);
    Ok(Probe { rate, held: verdict.held, p99_ms: verdict.p99_ms, error_ratio: verdict.error_ratio })
}

fn line(probe: &Probe) -> String {
    let verdict = if probe.held { "holds" } else { "misses" };
    format!(
        "  the shop alone at {:>5.0} requests/s {verdict}: p99 {:.0} ms, {:.2} % errors",
        probe.rate,
        probe.p99_ms,
        probe.error_ratio * 100.0
    )
}

/// One short probe: more than it can serve, and what it answered a second.
pub(crate) fn estimate(stack: &Stack, mix: &Mix, interrupt: &Interrupt, steps: &mut Steps) -> Result<Known> {
    let schedule = Schedule::constant(QUICK_RATE, QUICK_PROBE, Spacing::Poisson, Mix::seed())?;
    let mut plan = mix.plan(stack.urls(), schedule);
    plan.client.timeout_ms = QUICK_TIMEOUT_MS;
    let run = tenfold_loadgen::run(&plan, interrupt.stop(), &mut |_| {})?;
    interrupt.check()?;
    // Its best second: the first ones go to warming up, the last ones to a queue of users who have left.
    let best = run.report.series.iter().map(|second| second.ok).max().unwrap_or(0).max(1);
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
    let answered = best as f64;
    steps.done(&format!(
        "the shop answers {answered:.0} requests/s when offered {QUICK_RATE:.0}: its capacity, roughly"
    ));
    Ok(Known { rate: answered, probe_s: QUICK_PROBE.as_secs_f64() })
}
