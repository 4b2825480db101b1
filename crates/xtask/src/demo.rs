//! The demo: one shop, one flash crowd, twice.
//!
//! An ordinary shop (`examples/shop`, two nodes on a PostgreSQL primary with a replica) is measured for what it can
//! serve alone. Then the World Cup flash crowd of 12 May 1998, scaled so that its busiest minute offers one and a half
//! times that, is played at the shop alone, and again at the same shop behind Tenfold: same machine, same requests in
//! the same order at the same times. The table puts both beside each other.
//!
//! Everything is started on loopback and lives in a folder of this run under target/demo, which ./demo removes, except PostgreSQL's data where its account cannot
//! reach that; all of it ends with this process. Ctrl-C is noticed between any two steps and during the load; in the
//! middle of anything else the children's watchers clean up. An error says what was being done.

mod capacity;
mod mix;
mod observe;
mod pass;
mod stack;
mod steps;
mod table;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use tenfold_loadgen::Slo;

use crate::interrupt::Interrupt;
use capacity::Known;
use mix::Mix;
use pass::{Crowd, Target};
use stack::{Stack, Tenfold};
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

    let known = Known::load(&folder).filter(|_| options.quick);
    let capacity = match known {
        Some(known) => known,
        None if options.quick => capacity::estimate(&stack, &mix, interrupt, &mut steps)?,
        None => capacity::measure(&stack, &mix, interrupt, &mut steps)?,
    };
    if !options.quick {
        capacity.save(&folder)?;
    }
    let crowd = Crowd::scaled(root, OVERLOAD * capacity.rate, options)?;
    steps.say(&crowd.describe(capacity.rate));

    let alone = pass::play(Target::Shop, &mut stack, None, &mix, &crowd, interrupt, &mut steps)?;
    let tenfold = Tenfold::start(&run, &stack, &mut steps)?;
    let behind =
        pass::play(Target::Tenfold, &mut stack, Some(&tenfold), &mix, &crowd, interrupt, &mut steps)?;
    interrupt.check()?;
    println!("\n{}", table::render(&crowd, &capacity, &alone, &behind, options.quick));

    if !options.once {
        println!("{}", stack.invitation(&tenfold));
        interrupt.wait();
        println!();
        interrupt.check()?;
    }
    Ok(())
}
