//! What phases of one load are to one another: each bad one beside the undisturbed ones around it.
//!
//! **Intuition.** On a machine that others use too, the 99th percentile of a sixth of a millisecond wanders by itself. So a
//! bad phase is compared with the undisturbed ones just before and just after it, a round is played several times, and the
//! median over the rounds is the figure. Undisturbed phases are compared with their own neighbours in the same way: that
//! ratio is what the machine does where nothing happens.
//!
//! **Mechanism.** Beside the latencies, each phase keeps what the kernel says of the edge's threads: how long they ran, and
//! how long they were ready to run and waited for their core. What a bad phase costs of the edge's own doing shows there.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::bench::Spread;
use crate::prove::failover::Took;
use crate::prove::verdict::Verdicts;

const HIT_RATIO_MAX: f64 = 1.2;
/// What asking Redis may add to a miss.
const BUDGET_MS: f64 = 5.0;
/// The thread that talks to Redis, as it is called.
const REDIS_THREAD: &str = "tenfold-state";

/// What befalls Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Day {
    Undisturbed,
    Stopped,
    Killed,
    Restarted,
    FailedOver,
}

impl Day {
    const BAD: [Self; 4] = [Self::Stopped, Self::Killed, Self::Restarted, Self::FailedOver];

    fn name(self) -> &'static str {
        match self {
            Self::Undisturbed => "undisturbed",
            Self::Stopped => "Redis stopped (SIGSTOP)",
            Self::Killed => "killed",
            Self::Restarted => "restarted",
            Self::FailedOver => "failed over to its replica",
        }
    }
}

/// What one phase showed.
pub(super) struct Phase {
    pub(super) day: Day,
    pub(super) hit: Took,
    pub(super) miss: Took,
    pub(super) failed: u64,
    pub(super) requests: u64,
    /// Of the edge meanwhile.
    pub(super) usage: Usage,
}

/// What a process's threads have had, in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    /// All but the one that talks to Redis ran so long.
    ran: u64,
    /// That one.
    redis_ran: u64,
    /// All together were ready to run and did not.
    waited: u64,
}

impl Usage {
    /// Up to now. proc(5): `schedstat` is time on a core, time waiting for one, and turns.
    pub(super) fn read(pid: u32) -> Result<Self> {
        let mut usage = Self::default();
        for task in std::fs::read_dir(format!("/proc/{pid}/task")).context("the edge has no threads")? {
            // One that ends in this moment has no figures.
            let Some((name, ran, waited)) = read_task(&task?.path()) else { continue };
            let of_kind = if name == REDIS_THREAD { &mut usage.redis_ran } else { &mut usage.ran };
            *of_kind += ran;
            usage.waited += waited;
        }
        Ok(usage)
    }

    pub(super) fn since(self, before: Self) -> Self {
        Self {
            ran: self.ran.saturating_sub(before.ran),
            redis_ran: self.redis_ran.saturating_sub(before.redis_ran),
            waited: self.waited.saturating_sub(before.waited),
        }
    }
}

fn read_task(task: &Path) -> Option<(String, u64, u64)> {
    let name = std::fs::read_to_string(task.join("comm")).ok()?.trim_end().to_owned();
    let text = std::fs::read_to_string(task.join("schedstat")).ok()?;
    let mut figures = text.split_whitespace().map(str::parse::<u64>);
    Some((name, figures.next()?.ok()?, figures.next()?.ok()?))
}

/// Judges all phases, in the order they were played: undisturbed ones stand at both ends.
pub(super) fn judge(phases: &[Phase], verdicts: &mut Verdicts) {
    let failed = phases.iter().map(|phase| phase.failed).sum();
    verdicts.none(&format!("failed requests in {} phases", phases.len()), failed);
    let of = |day| phases.iter().enumerate().filter(move |(_, phase)| phase.day == day);
    for (what, took) in [("hits", hits as fn(&Phase) -> &Took), ("misses", misses)] {
        let calm = || of(Day::Undisturbed).map(|(_, phase)| took(phase));
        let shown = format!(
            "{} / {}",
            Spread::of(calm().map(|took| took.p50_ms)).text(2),
            Spread::of(calm().map(|took| took.p99_ms)).text(2)
        );
        verdicts.note(&format!("undisturbed: {what}, p50 / p99, ms"), shown);
    }
    let ratios = |day| {
        let ratio = |(at, phase): (usize, &Phase)| Some(phase.hit.p99_ms / around(phases, at, hits)?);
        Spread::of(of(day).filter_map(ratio))
    };
    verdicts.note(
        "undisturbed: hits, p99, beside the undisturbed around",
        format!("{}×", ratios(Day::Undisturbed).text(2)),
    );
    for day in Day::BAD {
        let ratio = ratios(day);
        let what = format!("{}: hits, p99", day.name());
        verdicts.bar(
            &what,
            format!("{}×", ratio.text(2)),
            "≤ 1.2× undisturbed",
            ratio.median <= HIT_RATIO_MAX,
        );
        let more = |(at, phase): (usize, &Phase)| Some(phase.miss.p99_ms - around(phases, at, misses)?);
        let added = Spread::of(of(day).filter_map(more));
        let what = format!("{}: misses, p99", day.name());
        verdicts.bar(&what, format!("{} ms more", added.text(2)), "≤ 5 ms more", added.median <= BUDGET_MS);
    }
    for day in [Day::Undisturbed].into_iter().chain(Day::BAD) {
        let mut shown = String::new();
        let parts: [fn(&Usage) -> u64; 3] =
            [|usage| usage.ran, |usage| usage.redis_ran, |usage| usage.waited];
        for part in parts {
            let each = of(day).map(|(_, phase)| microseconds(part(&phase.usage)) / count(phase.requests));
            let _ =
                write!(shown, "{}{:.1}", if shown.is_empty() { "" } else { " / " }, Spread::of(each).median);
        }
        let what = format!("{}: the edge's time per request, its Redis thread's, both wait", day.name());
        verdicts.note(&what, format!("{shown} µs"));
    }
}

fn hits(phase: &Phase) -> &Took {
    &phase.hit
}

fn misses(phase: &Phase) -> &Took {
    &phase.miss
}

/// The mean of the 99th percentiles of the nearest undisturbed phases before and after the one at `at`, in
/// milliseconds; `None` at an end.
fn around(phases: &[Phase], at: usize, took: fn(&Phase) -> &Took) -> Option<f64> {
    let is_calm = |phase: &&Phase| phase.day == Day::Undisturbed;
    let before = phases[..at].iter().rfind(is_calm)?;
    let after = phases[at + 1..].iter().find(is_calm)?;
    Some(f64::midpoint(took(before).p99_ms, took(after).p99_ms))
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn microseconds(ns: u64) -> f64 {
    ns as f64 / 1e3
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn count(requests: u64) -> f64 {
    requests.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phase(day: Day, hit_p99_ms: f64, miss_p99_ms: f64) -> Phase {
        let took = |p99_ms| Took { p99_ms, ..Took::default() };
        let (hit, miss) = (took(hit_p99_ms), took(miss_p99_ms));
        Phase { day, hit, miss, failed: 0, requests: 1, usage: Usage::default() }
    }

    /// Three rounds in which a bad phase's hits take so many times what the undisturbed ones around them take.
    fn all_held(ratios: [f64; 3]) -> bool {
        let mut phases = Vec::new();
        for (round, ratio) in (1_u32..).zip(ratios) {
            let calm = f64::from(round);
            for day in Day::BAD {
                phases.push(phase(Day::Undisturbed, calm, 1.0));
                phases.push(phase(day, calm * ratio, 1.0));
            }
            phases.push(phase(Day::Undisturbed, calm, 1.0));
        }
        let mut verdicts = Verdicts::new("phases");
        judge(&phases, &mut verdicts);
        verdicts.all_held()
    }

    #[test]
    fn the_median_over_the_rounds_is_judged_beside_the_phases_around() {
        assert!(all_held([1.0, 1.1, 1.2]));
        assert!(all_held([9.0, 1.1, 1.2]), "once is the machine");
        assert!(!all_held([9.0, 1.0, 1.3]), "twice is not");
    }

    #[test]
    fn what_was_not_played_was_not_held() {
        let mut verdicts = Verdicts::new("phases");
        judge(&[phase(Day::Undisturbed, 1.0, 1.0)], &mut verdicts);
        assert!(!verdicts.all_held());
    }
}
