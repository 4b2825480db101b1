//! Reads from a replica: what they take off the primary, and who notices.
//!
//! **Intuition.** A streaming replica shows what the primary committed a moment ago. Sending reads there spares the
//! primary most of its work; sending a customer there who has just written shows that customer the past. How long the
//! moment is depends on the day, so here the replica stumbles: its replay stops for a few hundredths of a second, again
//! and again.
//!
//! **Mechanism.** Requests that no cache answers (`examples/shop/personal.toml`) are played three times behind Tenfold:
//! with every statement at the primary, with reads at the replica whatever it has replayed, and with reads there only
//! if it has replayed what they may count on. Beside them a few customers write and read back
//! ([`super::own_reads`]). Statements are PostgreSQL's own count at both servers, told apart by the user and by what
//! the pooler asks on its own account.
//!
//! **Failure.** A stale own read where none may be fails the demo once its table has been shown. So does a table that
//! shows nothing: no read at the replica, or nobody who noticed that floors were ignored.

use std::path::Path;
use std::sync::mpsc::channel;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use tenfold_loadgen::schedule::Spacing;
use tenfold_loadgen::{Plan, Report, Scenario, Schedule};
use tenfold_testkit::postgres::{Jitter, Server};

use super::Options;
use super::front::{Access, Consistency, Tenfold};
use super::mix::Mix;
use super::own_reads::{Customer, OwnReads};
use super::stack::{POOLER_ASKS, ROLE, Stack};
use super::steps::Steps;
use crate::interrupt::Interrupt;

/// Requests a second, by the shop's capacity: what it serves with ease without any cache.
const RATE: f64 = 0.25;
const LENGTH: Duration = Duration::from_secs(10);
const LENGTH_QUICK: Duration = Duration::from_secs(3);
/// Played before it counts, while the pooler makes its connections to the replica.
const WARM_UP: Duration = Duration::from_secs(1);
/// Customers who read back what they wrote.
const CUSTOMERS: usize = 4;
/// The replay stops for up to the one, goes on for up to the other, and so on.
const HELD_MAX: Duration = Duration::from_millis(40);
const RUNNING_MAX: Duration = Duration::from_millis(200);

/// The load, before it is played.
pub(crate) struct Reads {
    scenario: Scenario,
    schedule: Schedule,
    warm_up: Schedule,
}

/// What came of it, played once.
pub(crate) struct Leg {
    pub(crate) load: Report,
    pub(crate) own: OwnReads,
    pub(crate) primary: Statements,
    pub(crate) replica: Statements,
    /// Processor time of the primary, in seconds.
    pub(crate) primary_cpu_s: f64,
}

/// Statements at one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Statements {
    /// The shop's.
    pub(crate) shop: u64,
    /// The pooler's own questions.
    pub(crate) pooler: u64,
}

/// The three: all at the primary, a split that ignores floors, a split with them.
pub(crate) struct Legs {
    pub(crate) primary: Leg,
    pub(crate) eventual: Leg,
    pub(crate) own_writes: Leg,
}

impl Reads {
    /// `capacity` in requests per second.
    pub(crate) fn prepare(root: &Path, capacity: f64, options: Options) -> Result<Self> {
        let path = root.join("examples/shop/personal.toml");
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut scenario: Scenario = toml::from_str(&text).with_context(|| path.display().to_string())?;
        // The crowd's customers are logged in already.
        scenario.setup.clear();
        let length = if options.quick { LENGTH_QUICK } else { LENGTH };
        let constant = |length| Schedule::constant(RATE * capacity, length, Spacing::Poisson, Mix::seed());
        Ok(Self { scenario, schedule: constant(length)?, warm_up: constant(WARM_UP)? })
    }

    /// What is played, in a line.
    pub(crate) fn describe(&self) -> String {
        format!(
            "{:.0} requests/s that no cache answers, a tenth of them writes, over {:.0} s, while {CUSTOMERS} customers \
             look at what they have just written and the replica's replay stops for up to {} ms at a time",
            self.schedule.peak_rate(),
            self.schedule.duration().as_secs_f64(),
            HELD_MAX.as_millis(),
        )
    }

    /// Plays it three times; the split with floors is left on.
    pub(crate) fn play(
        &self,
        stack: &mut Stack,
        tenfold: &Tenfold,
        mix: &Mix,
        interrupt: &Interrupt,
        steps: &mut Steps,
    ) -> Result<Legs> {
        let mut leg = |name, access| {
            tenfold.reach_database(access)?;
            self.play_once(name, stack, tenfold, mix, interrupt, steps)
        };
        Ok(Legs {
            primary: leg("all at the primary", Access::Pooled)?,
            eventual: leg("split, no floors", Access::Split(Consistency::Eventual))?,
            own_writes: leg("split, with floors", Access::Split(Consistency::OwnWrites))?,
        })
    }

    fn play_once(
        &self,
        name: &str,
        stack: &mut Stack,
        tenfold: &Tenfold,
        mix: &Mix,
        interrupt: &Interrupt,
        steps: &mut Steps,
    ) -> Result<Leg> {
        Mix::reset(stack)?;
        tenfold_loadgen::run(&self.plan(mix, tenfold, &self.warm_up), interrupt.stop(), &mut |_| {})?;
        interrupt.check()?;
        stack.wait_until_idle()?;
        stack.forget_statements()?;
        let cpu_s = stack.cluster().primary().cpu_seconds();
        let jitter = Jitter::start(stack.replica()?, HELD_MAX, RUNNING_MAX, Mix::seed())?;
        let plan = self.plan(mix, tenfold, &self.schedule);
        let length_s = self.schedule.duration().as_secs_f64();
        let (load, own) = beside_customers(mix, tenfold, || {
            tenfold_loadgen::run(&plan, interrupt.stop(), &mut |second| steps.second(name, second, length_s))
        })?;
        let primary_cpu_s = stack.cluster().primary().cpu_seconds() - cpu_s;
        drop(jitter);
        interrupt.check()?;
        let load = load?.report;
        stack.check_alive()?;
        let [primary, replica] = [stack.cluster().primary(), stack.replica()?].map(Statements::at);
        let (primary, replica) = (primary?, replica?);
        steps.done(&format!(
            "played {name}: {} requests, {} stale of {} own reads",
            load.offered, own.stale, own.read
        ));
        Ok(Leg { load, own, primary, replica, primary_cpu_s })
    }

    fn plan(&self, mix: &Mix, tenfold: &Tenfold, schedule: &Schedule) -> Plan {
        let mut plan = mix.plan(vec![tenfold.url()], schedule.clone());
        plan.scenario = self.scenario.clone();
        plan
    }
}

/// Runs `load` while customers read back what they write, and for as long.
fn beside_customers<T>(mix: &Mix, tenfold: &Tenfold, load: impl FnOnce() -> T) -> Result<(T, OwnReads)> {
    std::thread::scope(|scope| {
        let customers: Vec<_> = mix
            .tokens()
            .iter()
            .take(CUSTOMERS)
            .zip(0..)
            .map(|(token, number)| {
                let (done, stop) = channel();
                let customer = Customer { token, number };
                (done, scope.spawn(move || customer.shop(tenfold.edge(), &stop)))
            })
            .collect();
        let load = load();
        let (done, customers): (Vec<_>, Vec<_>) = customers.into_iter().unzip();
        drop(done);
        let own = customers.into_iter().try_fold(OwnReads::default(), |all, customer| {
            Ok::<_, anyhow::Error>(all.and(customer.join().map_err(|_| anyhow!("a customer panicked"))?))
        });
        Ok((load, own?))
    })
}

impl Statements {
    /// Counted there since they were forgotten.
    fn at(server: &Server) -> Result<Self> {
        let counts = server.psql(&format!(
            "SELECT coalesce(sum(calls) FILTER (WHERE NOT asks), 0) || ' ' || coalesce(sum(calls) FILTER (WHERE asks), 0) \
             FROM (SELECT calls, {POOLER_ASKS} AS asks FROM pg_stat_statements \
             WHERE userid = '{ROLE}'::regrole) AS shop"
        ))?;
        let parse = |(shop, pooler): (&str, &str)| {
            Some(Self { shop: shop.parse().ok()?, pooler: pooler.parse().ok()? })
        };
        counts
            .split_once(' ')
            .and_then(parse)
            .with_context(|| format!("PostgreSQL answers {counts:?} when asked for its statements"))
    }
}

impl Legs {
    /// An error if a read was stale where none may be, or if these legs can't tell.
    pub(crate) fn judge(&self) -> Result<()> {
        judge([&self.primary, &self.eventual, &self.own_writes].map(|leg| (leg.own, leg.replica)))
    }
}

/// In the order of [`Legs`].
fn judge(legs: [(OwnReads, Statements); 3]) -> Result<()> {
    let [(at_primary, _), (eventual, _), (own_writes, _)] = legs;
    for (name, own) in [("at the primary", at_primary), ("with floors", own_writes)] {
        let OwnReads { read, stale, .. } = own;
        ensure!(read > 0, "nobody read back what they wrote {name}");
        ensure!(stale == 0, "{stale} of {read} own reads {name} were stale");
    }
    for (name, (_, replica)) in ["ignoring floors", "with floors"].into_iter().zip(&legs[1..]) {
        ensure!(replica.shop > 0, "the split {name} sent the replica nothing, so it shows nothing");
    }
    ensure!(
        eventual.stale > 0,
        "none of {} own reads was stale without floors, so that none is with them shows nothing",
        eventual.read
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use tenfold_loadgen::scenario::Class;

    use super::*;

    #[test]
    fn no_cache_answers_the_load_and_a_tenth_of_it_writes() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/shop/personal.toml");
        let text = std::fs::read_to_string(path).expect("part of the repository");
        let scenario: Scenario = toml::from_str(&text).expect("a scenario");
        scenario.validate().expect("playable");
        let weight = |class| {
            let routes = scenario.routes.iter().filter(|route| route.class == class);
            routes.map(|route| route.weight).sum::<u32>()
        };
        assert_eq!([Class::Cacheable, Class::Personal, Class::Write].map(weight), [0, 90, 10]);
    }

    #[test]
    fn legs_that_are_stale_or_show_nothing_fail() {
        let leg = |read, stale, shop| (OwnReads { read, stale, failed: 0 }, Statements { shop, pooler: 7 });
        let check = |legs, complaint: Option<&str>| {
            let judged = judge(legs).map_err(|error| error.to_string());
            match complaint {
                None => assert_eq!(judged, Ok(())),
                Some(words) => assert!(judged.as_ref().is_err_and(|text| text.contains(words)), "{judged:?}"),
            }
        };
        check([leg(9, 0, 0), leg(9, 2, 50), leg(9, 0, 50)], None);
        check([leg(9, 1, 0), leg(9, 2, 50), leg(9, 0, 50)], Some("1 of 9 own reads at the primary"));
        check([leg(9, 0, 0), leg(9, 2, 50), leg(9, 3, 50)], Some("3 of 9 own reads with floors"));
        check(
            [leg(9, 0, 0), leg(9, 2, 50), leg(0, 0, 50)],
            Some("nobody read back what they wrote with floors"),
        );
        check(
            [leg(9, 0, 0), leg(9, 0, 0), leg(9, 0, 50)],
            Some("the split ignoring floors sent the replica"),
        );
        check([leg(9, 0, 0), leg(9, 2, 50), leg(9, 0, 0)], Some("the split with floors sent the replica"));
        check([leg(9, 0, 0), leg(9, 0, 50), leg(9, 0, 50)], Some("none of 9 own reads was stale"));
    }
}
