//! What a person sees while the demo works: one line for each step, and a live line during the load.
//!
//! On a terminal the live line is written over itself; elsewhere one line is printed every few seconds, so that a log
//! stays readable. Nothing else of the demo prints before the table.

use std::io::{IsTerminal as _, Write as _};
use std::time::Instant;

use tenfold_loadgen::Second;

/// Where there is no terminal, a line is printed this often.
const PLAIN_LINE_EVERY_S: u32 = 10;

pub(crate) struct Steps {
    began: Instant,
    step_began: Instant,
    is_terminal: bool,
}

impl Steps {
    pub(crate) fn new() -> Self {
        let began = now();
        Self { began, step_began: began, is_terminal: std::io::stdout().is_terminal() }
    }

    /// A step is done; says how long it took.
    pub(crate) fn done(&mut self, what: &str) {
        let took = self.step_began.elapsed().as_secs_f64();
        self.line(&format!("{what} ({took:.1} s)"));
        self.step_began = now();
    }

    /// Something worth knowing that took no time.
    pub(crate) fn say(&mut self, what: &str) {
        self.line(what);
        self.step_began = now();
    }

    /// One second of load.
    pub(crate) fn second(&mut self, name: &str, second: &Second, length_s: f64) {
        let Second { second: at, offered, ok, errors, p99_ms, in_flight, .. } = second;
        let line = format!(
            "  {name}: {at:>3}/{length_s:.0} s  {offered:>5} offered  {ok:>5} answered  {errors:>4} errors  \
             p99 {p99_ms:>6.0} ms  {in_flight:>5} waiting"
        );
        if self.is_terminal {
            print!("\r{line}\x1b[K");
            let _ = std::io::stdout().flush();
        } else if at % PLAIN_LINE_EVERY_S == PLAIN_LINE_EVERY_S - 1 {
            println!("{line}");
        }
    }

    fn line(&self, text: &str) {
        let start = if self.is_terminal { "\r\x1b[K" } else { "" };
        println!("{start}[{:>4.0} s] {text}", self.began.elapsed().as_secs_f64());
    }
}

#[expect(clippy::disallowed_methods, reason = "a command line program tells people how long things took")]
fn now() -> Instant {
    Instant::now()
}
