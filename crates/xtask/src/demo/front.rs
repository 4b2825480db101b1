//! Tenfold in the demo: the release binary, one process with one file, in front of the shop and behind it.
//!
//! The edge listens where users ask, the pooler where the shop's nodes look for their database. The file is
//! `tenfold.toml` of this folder with the run's ports in it; the sale plays it twice, once with the cap on hot rows
//! taken off, by a reload. The process is a guarded child; if it ends early or refuses its file, the error is its log.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use tenfold_testkit::process::{Child, Guard, StopSignal, cpu_seconds};
use tenfold_testkit::{raw, try_wait_for};

use super::stack::{DATABASE, PASSWORD, ROLE, START_TIME_MAX, STOP_TIME_MAX, Stack, usual_port};
use super::steps::Steps;

const EDGE_PORT: u16 = 8080;
const POOLER_PORT: u16 = 6432;
const ADMIN_PORT: u16 = 9900;
const TENFOLD_TOML: &str = include_str!("tenfold.toml");
/// The line of tenfold.toml that sizes the pool, and what stands there for a sale without the cap.
const POOL: &str = "pool = { size = 10, reserve = 2 }";
const POOL_UNCAPPED: &str = "pool = { size = 10, reserve = 2, hot_rows = \"100%\" }";
/// What the file's `${DB_PASSWORD}` is.
const PASSWORD_VARIABLE: &str = "DB_PASSWORD";

/// Where Tenfold will be, before it is there.
pub(crate) struct Place {
    edge: u16,
    pub(crate) pooler: u16,
    admin: u16,
}

impl Place {
    pub(crate) fn choose(steps: &mut Steps) -> Result<Self> {
        Ok(Self {
            edge: usual_port(EDGE_PORT, steps)?,
            pooler: usual_port(POOLER_PORT, steps)?,
            admin: usual_port(ADMIN_PORT, steps)?,
        })
    }
}

/// A running Tenfold.
pub(crate) struct Tenfold {
    child: Child,
    program: PathBuf,
    config: PathBuf,
    /// The file's text, with the cap.
    text: String,
    place: Place,
}

impl Tenfold {
    pub(crate) fn start(run: &Path, stack: &Stack, place: Place) -> Result<Self> {
        let program = std::env::current_exe()?.with_file_name("tenfold");
        let text = config(stack, &place);
        let config = run.join("tenfold.toml");
        write(&config, &text)?;
        let mut command = Command::new(&program);
        command.args(["run", "-c"]).arg(&config).env(PASSWORD_VARIABLE, PASSWORD);
        let guard = Guard { stop_signal: Some(StopSignal::Terminate), ..Guard::default() };
        let mut child = Child::spawn_guarded(&command, &guard)
            .context("Tenfold is not built (cargo build --release --package tenfold)")?;
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, place.admin));
        try_wait_for("Tenfold to be ready", START_TIME_MAX, || {
            let ready = raw::get(admin, "/readyz").is_ok_and(|answer| answer.status == 200);
            (ready || child.try_wait().is_some()).then_some(())
        })
        .with_context(|| child.log())?;
        if let Some(status) = child.try_wait() {
            bail!("Tenfold ended at start ({status}):\n{}", child.log());
        }
        Ok(Self { child, program, config, text, place })
    }

    /// Takes the cap on hot rows off, or puts it back.
    pub(crate) fn cap_hot_rows(&self, is_capped: bool) -> Result<()> {
        let text = if is_capped { self.text.clone() } else { self.text.replace(POOL, POOL_UNCAPPED) };
        write(&self.config, &text)?;
        let mut reload = Command::new(&self.program);
        reload.args(["reload", "-c"]).arg(&self.config).env(PASSWORD_VARIABLE, PASSWORD);
        let output = reload.output().context("cannot start tenfold reload")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "tenfold reload failed ({}):\n{said}", output.status);
        Ok(())
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.place.edge)
    }

    pub(crate) fn cpu_seconds(&self) -> f64 {
        cpu_seconds(self.child.pid())
    }

    /// What `/metrics` says now.
    pub(crate) fn metrics(&self) -> Result<String> {
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, self.place.admin));
        let answer = raw::get(admin, "/metrics").context("Tenfold does not answer on its admin address")?;
        Ok(answer.text())
    }

    /// What is open while the demo waits.
    pub(crate) fn invitation(&self, alone: &str) -> String {
        format!(
            "Open, until Ctrl-C:\n  \
             the shop alone          {alone}/\n  \
             the shop behind Tenfold {}/\n  \
             its database, pooled    PGPASSWORD={PASSWORD} psql -h 127.0.0.1 -p {} -U {ROLE} {DATABASE}\n  \
             Tenfold's metrics       http://127.0.0.1:{}/metrics\n  \
             how it is doing         {} status -c {config}\n  \
             its configuration       {config}",
            self.url(),
            self.place.pooler,
            self.place.admin,
            self.program.display(),
            config = self.config.display(),
        )
    }
}

impl Drop for Tenfold {
    fn drop(&mut self) {
        self.child.stop(StopSignal::Terminate, STOP_TIME_MAX);
    }
}

fn config(stack: &Stack, place: &Place) -> String {
    let nodes: Vec<String> = stack.addresses().iter().map(|address| format!("\"{address}\"")).collect();
    let server = format!("postgres://{ROLE}@127.0.0.1:{}/{DATABASE}", stack.cluster().primary().port());
    TENFOLD_TOML
        .replace("@EDGE@", &place.edge.to_string())
        .replace("@POOLER@", &place.pooler.to_string())
        .replace("@ADMIN@", &place.admin.to_string())
        .replace("@NODES@", &nodes.join(", "))
        .replace("@SERVER@", &server)
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cap_can_be_taken_off_the_file() {
        assert_eq!(TENFOLD_TOML.matches(POOL).count(), 1);
        assert_ne!(TENFOLD_TOML.replace(POOL, POOL_UNCAPPED), TENFOLD_TOML);
    }
}
