//! The demo: one shop, one flash crowd and one flash sale, alone and behind Tenfold.
//!
//! An ordinary shop (`examples/shop`, two nodes on a PostgreSQL primary with a replica) is measured for what it can
//! serve alone. Then the World Cup flash crowd of 12 May 1998, scaled so that its busiest minute offers one and a half
//! times that, is played at the shop alone, and again at the same shop behind Tenfold: same machine, same requests in
//! the same order at the same times. After the crowd comes a sale of one product, at the shop alone, and behind Tenfold
//! without and with its cap on hot rows; then what customers read of their own, all at the primary, and from the replica
//! without and with floors. Three tables put it all beside each other. Behind Tenfold, one process is the edge before
//! the nodes and the pooler between them and their database.
//!
//! Everything is started on loopback and lives in a folder of this run under target/demo, which ./demo removes, except
//! PostgreSQL's data where its account cannot reach that; all of it ends with this process. Ctrl-C is noticed between
//! any two steps and during the load; in the middle of anything else the children's watchers clean up. An error says
//! what was being done.

mod capacity;
mod front;
mod mix;
mod observe;
mod own_reads;
mod pass;
mod reads;
mod sale;
mod stack;
mod steps;
mod table;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use tenfold_loadgen::Slo;

use crate::interrupt::Interrupt;
use capacity::Known;
use front::{Access, Place, Tenfold};
use mix::Mix;
use pass::{Crowd, Pass};
use reads::{Legs, Reads};
use sale::{Sale, Sold, Stage};
use stack::{Database, POOLED_CONNECTIONS_MAX, Stack};
use steps::Steps;

/// What must hold over all routes but payment (latency), and over all (errors).
pub(crate) const SLO: Slo = Slo { p99_ms: 500.0, error_ratio: 0.001 };
/// The crowd's busiest minute by the shop's own capacity.
const OVERLOAD: f64 = 1.5;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Seconds instead of minutes: a first look, whose figures are rough.
    pub(crate) quick: bool,
    /// End after the table instead of leaving the shop open.
    pub(crate) once: bool,
}

/// Plays the demo.
pub(crate) fn run(root: &Path, options: Options) -> Result<ExitCode> {
    let interrupt = Interrupt::install()?;
    let played = play(root, options, &interrupt);
    let asked = interrupt.was_asked();
    interrupt.finish();
    match played {
        Err(_) if asked => {
            println!("\nStopped; nothing is left running.");
            Ok(ExitCode::from(130))
        }
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => Err(error),
    }
}

fn play(root: &Path, options: Options, interrupt: &Interrupt) -> Result<()> {
    let folder = root.join("target/demo");
    ensure!(
        folder.join("shop/node_modules").is_dir(),
        "{} has no shop with its libraries: start the demo with ./demo, which puts it there",
        folder.display()
    );
    let run = folder.join(format!("run-{}", std::process::id()));
    std::fs::create_dir_all(&run).with_context(|| format!("cannot make {}", run.display()))?;
    let mut steps = Steps::new();
    let mut stack = Stack::start(&folder.join("shop"), &run, options, interrupt, &mut steps)?;
    let mix = Mix::prepare(&stack, root, options)?;
    interrupt.check()?;

    let capacity = capacity_of(&stack, &mix, &folder, options, interrupt, &mut steps)?;
    let play = Play {
        crowd: Crowd::scaled(root, OVERLOAD * capacity.rate, options)?,
        sale: Sale::prepare(root, capacity.rate, options)?,
        reads: Reads::prepare(root, capacity.rate, options)?,
        mix,
        options,
        interrupt,
    };
    steps.say(&play.crowd.describe(capacity.rate));
    let (alone, sale_alone) = play.alone(&mut stack, &mut steps)?;
    let tenfold = put_in_front(&mut stack, &run, &mut steps)?;
    let (behind, sales_behind, legs) = play.behind(&mut stack, &tenfold, &mut steps)?;
    interrupt.check()?;
    println!("\n{}", table::crowd(&play.crowd, &capacity, &alone, &behind, options.quick));
    let [uncapped, capped] = &sales_behind;
    println!("{}", table::sale(&play.sale, [&sale_alone, uncapped, capped]));
    println!("{}", table::reads(&play.reads, &legs));
    legs.judge()?;

    if !options.once {
        let alone = stack.start_node_alone(&mut steps)?;
        println!("{}", tenfold.invitation(&alone));
        interrupt.wait();
        println!();
        interrupt.check()?;
    }
    Ok(())
}

/// The last one measured, where that is good enough; else measured now.
fn capacity_of(
    stack: &Stack,
    mix: &Mix,
    folder: &Path,
    options: Options,
    interrupt: &Interrupt,
    steps: &mut Steps,
) -> Result<Known> {
    if options.quick {
        return match Known::load(folder) {
            Some(known) => Ok(known),
            None => capacity::estimate(stack, mix, interrupt, steps),
        };
    }
    let capacity = capacity::measure(stack, mix, interrupt, steps)?;
    capacity.save(folder)?;
    Ok(capacity)
}

/// Starts Tenfold, and the shop's nodes anew with their database at its pooler.
fn put_in_front(stack: &mut Stack, run: &Path, steps: &mut Steps) -> Result<Tenfold> {
    let place = Place::choose(steps)?;
    stack.start_nodes(Database::Pooled(place.pooler))?;
    let tenfold = Tenfold::start(run, stack, place)?;
    steps.done(&format!(
        "Tenfold runs: {}; the nodes run anew, each with up to {POOLED_CONNECTIONS_MAX} connections to its pooler",
        tenfold.url()
    ));
    Ok(tenfold)
}

/// What is played on every stage.
struct Play<'a> {
    crowd: Crowd,
    sale: Sale,
    reads: Reads,
    mix: Mix,
    options: Options,
    interrupt: &'a Interrupt,
}

impl Play<'_> {
    fn alone(&self, stack: &mut Stack, steps: &mut Steps) -> Result<(Pass, Sold)> {
        let crowd = pass::play(stack, None, &self.mix, &self.crowd, self.interrupt, steps)?;
        let sale = self.sale.play("alone", Stage::Alone, stack, &self.mix, self.interrupt, steps)?;
        Ok((crowd, sale))
    }

    /// The crowd, the sale without and with the cap on hot rows, and reads from the replica.
    fn behind(
        &self,
        stack: &mut Stack,
        tenfold: &Tenfold,
        steps: &mut Steps,
    ) -> Result<(Pass, [Sold; 2], Legs)> {
        pass::warm_up(stack, &self.mix, self.interrupt, self.options)?;
        let crowd = pass::play(stack, Some(tenfold), &self.mix, &self.crowd, self.interrupt, steps)?;
        let mut sale = |name, access| {
            tenfold.reach_database(access)?;
            self.sale.play(name, Stage::Behind(tenfold), stack, &self.mix, self.interrupt, steps)
        };
        let uncapped = sale("pooled, no cap", Access::Uncapped)?;
        let capped = sale("pooled, with the cap", Access::Pooled)?;
        let legs = self.reads.play(stack, tenfold, &self.mix, self.interrupt, steps)?;
        Ok((crowd, [uncapped, capped], legs))
    }
}
