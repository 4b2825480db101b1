//! The flash sale: waves of buyers want one product, and everybody else goes on shopping.
//!
//! **Intuition.** Whoever buys holds the product's row for as long as a transaction takes, so buyers come one after the
//! other, however many there are. That is the shop's own limit, and nothing before it changes it. What can differ is
//! whether those who want something else wait as well: they do as soon as every connection there is waits for that row.
//!
//! **Mechanism.** The same requests at the same times (`examples/shop/sale.toml`) are played three times: at the shop
//! alone, behind Tenfold without its cap on hot rows, and with it. Buyers and others are two loads that run at once, so
//! that buyers may come in waves. Everybody's requests reach the database each time, none is answered from the cache.
//! Afterwards the database's own ledger, its order items, is held against the stock and against what buyers were told.
//!
//! **Failure.** A ledger that doesn't add up ends the demo with an error, whichever side it was played at.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use tenfold_loadgen::schedule::{Segment, Spacing};
use tenfold_loadgen::{Plan, Report, Scenario, Schedule};

use super::Options;
use super::front::Tenfold;
use super::mix::Mix;
use super::observe::{Connections, Waits};
use super::stack::Stack;
use super::steps::Steps;
use crate::interrupt::Interrupt;

/// What is on sale, in sale.toml too.
const PRODUCT: u32 = 24_000;
/// Pieces by the buyers expected: its row is wanted to the end, and some come too late.
const PIECES: f64 = 0.9;
/// Buyers a second while a wave comes, by the shop's capacity: more than one row can serve.
const BUYERS: f64 = 0.5;
const WAVE: Duration = Duration::from_secs(1);
/// How many waves, and how long they are apart.
const WAVES: (u32, Duration) = (3, Duration::from_secs(2));
const WAVES_QUICK: (u32, Duration) = (1, Duration::from_millis(500));
/// Everybody else's requests a second, by the shop's capacity: what it serves with ease.
const OTHERS: f64 = 0.1;
/// Of each load: as many as may be waiting at once, so that the generator is never itself what they wait for.
const CONNECTIONS_MAX: usize = 4_000;
const STATUS_SOLD_OUT: u16 = 409;

/// The sale, before it is played.
pub(crate) struct Sale {
    buyers: Load,
    others: Load,
    /// Of the product, when it begins.
    pieces: u64,
}

struct Load {
    scenario: Scenario,
    schedule: Schedule,
}

/// Where it is played.
#[derive(Clone, Copy)]
pub(crate) enum Stage<'a> {
    Alone,
    Behind(&'a Tenfold),
}

/// What came of it.
pub(crate) struct Sold {
    pub(crate) buyers: Report,
    pub(crate) others: Report,
    /// Pieces on sale.
    pub(crate) pieces: u64,
    /// Pieces sold, by the order items.
    pub(crate) ledger: u64,
    pub(crate) connections: Connections,
    /// How long the pooler's clients waited for a server connection.
    pub(crate) waits: Waits,
}

impl Sale {
    /// `capacity` in requests per second.
    pub(crate) fn prepare(root: &Path, capacity: f64, options: Options) -> Result<Self> {
        let path = root.join("examples/shop/sale.toml");
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut scenario: Scenario = toml::from_str(&text).with_context(|| path.display().to_string())?;
        // The crowd's customers are logged in already.
        scenario.setup.clear();
        let (waves, apart) = if options.quick { WAVES_QUICK } else { WAVES };
        let (buyers, others) = part(scenario);
        let wave = Segment { duration: WAVE, from: BUYERS * capacity, to: BUYERS * capacity };
        let pause = Segment { duration: apart, from: 0.0, to: 0.0 };
        let segments: Vec<Segment> = (0..waves).flat_map(|_| [wave, pause]).collect();
        let length = (WAVE + apart) * waves;
        let (spacing, seed) = (Spacing::Poisson, Mix::seed());
        let buyers = Load { scenario: buyers, schedule: Schedule::of_segments(segments, spacing, seed)? };
        let schedule = Schedule::constant(OTHERS * capacity, length, spacing, seed)?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
        let pieces = (PIECES * buyers.schedule.expected()) as u64;
        Ok(Self { buyers, others: Load { scenario: others, schedule }, pieces })
    }

    /// What is played, in a line.
    pub(crate) fn describe(&self) -> String {
        format!(
            "{} pieces of one product, wanted by {:.0} buyers a second in waves, while others make {:.0} requests/s, \
             over {:.1} s",
            self.pieces,
            self.buyers.schedule.peak_rate(),
            self.others.schedule.peak_rate(),
            self.others.schedule.duration().as_secs_f64(),
        )
    }

    /// Plays it once.
    pub(crate) fn play(
        &self,
        name: &str,
        stage: Stage<'_>,
        stack: &mut Stack,
        mix: &Mix,
        interrupt: &Interrupt,
        steps: &mut Steps,
    ) -> Result<Sold> {
        stack.wait_until_idle()?;
        Mix::reset(stack)?;
        stack.sql(&format!("UPDATE stock SET available = {} WHERE product_id = {PRODUCT}", self.pieces))?;
        let (targets, tenfold) = match stage {
            Stage::Alone => (stack.urls(), None),
            Stage::Behind(tenfold) => (vec![tenfold.url()], Some(tenfold)),
        };
        let before = Waits::read(tenfold)?;
        let mut connections = Connections::default();
        let [buyers, others] = [&self.buyers, &self.others].map(|load| load.plan(mix, targets.clone()));
        let length_s = self.others.schedule.duration().as_secs_f64();
        let (buyers, others) = std::thread::scope(|scope| {
            let buyers = scope.spawn(|| tenfold_loadgen::run(&buyers, interrupt.stop(), &mut |_| {}));
            let others = tenfold_loadgen::run(&others, interrupt.stop(), &mut |second| {
                connections.look(stack, tenfold);
                steps.second(name, second, length_s);
            });
            (buyers.join(), others)
        });
        interrupt.check()?;
        let buyers = buyers.map_err(|_| anyhow!("the buyers' load panicked"))??.report;
        let others = others?.report;
        let waits = Waits::read(tenfold)?.since(&before);
        // Buyers who gave up are served all the same, and count.
        stack.wait_until_idle()?;
        stack.check_alive()?;
        let ledger = audit(stack, self.pieces, &buyers)?;
        let offered = buyers.offered + others.offered;
        steps.done(&format!("played the sale {name}: {offered} requests, {ledger} pieces sold"));
        Ok(Sold { buyers, others, pieces: self.pieces, ledger, connections, waits })
    }
}

impl Load {
    fn plan(&self, mix: &Mix, targets: Vec<String>) -> Plan {
        let mut plan = mix.plan(targets, self.schedule.clone());
        plan.scenario = self.scenario.clone();
        plan.client.connections_max = CONNECTIONS_MAX;
        plan
    }
}

/// Buyers who came too late.
pub(crate) fn sold_out(buyers: &Report) -> u64 {
    buyers.statuses.get(&STATUS_SOLD_OUT).copied().unwrap_or(0)
}

/// The scenario's buyers, and everybody else.
fn part(scenario: Scenario) -> (Scenario, Scenario) {
    let (mut buyers, mut others) = (scenario.clone(), scenario);
    buyers.routes.retain(|route| route.slo_exempt);
    others.routes.retain(|route| !route.slo_exempt);
    (buyers, others)
}

/// Pieces sold, once it is certain that the ledger, the stock and the buyers agree.
fn audit(stack: &Stack, pieces: u64, buyers: &Report) -> Result<u64> {
    let ledger = stack.sql(&format!(
        "SELECT coalesce(sum(quantity), 0) || ' ' || (SELECT available FROM stock WHERE product_id = {PRODUCT}) \
         FROM order_items WHERE product_id = {PRODUCT}"
    ))?;
    let (sold, left) = ledger
        .split_once(' ')
        .and_then(|(sold, left)| Some((sold.parse::<u64>().ok()?, left.parse::<u64>().ok()?)))
        .with_context(|| format!("PostgreSQL answers {ledger:?} when asked what was sold"))?;
    ensure!(sold <= pieces, "oversold: {sold} of {pieces} pieces");
    ensure!(sold + left == pieces, "of {pieces} pieces {sold} are sold and {left} are left");
    let told = buyers.ok - sold_out(buyers);
    ensure!(told <= sold, "{told} buyers were told that they have one; {sold} are sold");
    Ok(sold)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_buyers_ask_for_the_product_on_sale_and_no_cache_helps_the_others() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/shop/sale.toml");
        let text = std::fs::read_to_string(path).expect("part of the repository");
        let scenario: Scenario = toml::from_str(&text).expect("a scenario");
        scenario.validate().expect("playable");
        let (buyers, others) = part(scenario.clone());
        assert_eq!((buyers.routes.len(), others.routes.len()), (1, 4));
        assert!(others.routes.iter().all(|route| route.class != tenfold_loadgen::scenario::Class::Cacheable));
        for route in &scenario.routes {
            let asks = route.body.as_deref().is_some_and(|body| body.contains(&PRODUCT.to_string()));
            assert_eq!(asks, route.slo_exempt, "{}", route.name);
        }
    }
}
