//! Tenfold in the demo: the release binary, one process with one file, in front of the shop and behind it.
//!
//! The edge listens where users ask, the pooler where the shop's nodes look for their database. The file is
//! `tenfold.toml` of this folder with the run's ports in it; reloads take the cap on hot rows off for one of the sales,
//! and add the replica for reads. The process is a guarded child; if it ends early or refuses its file, the error is
//! its log.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tenfold_testkit::process::{Child, Guard, StopSignal, cpu_seconds};
use tenfold_testkit::{raw, try_wait_for};

use super::observe::sum;
use super::stack::{DATABASE, PASSWORD, ROLE, START_TIME_MAX, STOP_TIME_MAX, Stack, usual_port};
use super::steps::Steps;

const EDGE_PORT: u16 = 8080;
const POOLER_PORT: u16 = 6432;
const ADMIN_PORT: u16 = 9900;
const TENFOLD_TOML: &str = include_str!("tenfold.toml");
/// The line of tenfold.toml that sizes the pool, and what stands there for a sale without the cap.
const POOL: &str = "pool = { size = 10, reserve = 2 }";
const POOL_UNCAPPED: &str = "pool = { size = 10, reserve = 2, hot_rows = \"100%\" }";
/// How long the pooler may take to have looked at a replica that it has just heard of.
const REPLICA_TIME_MAX: Duration = Duration::from_secs(15);
/// What the file's `${DB_PASSWORD}` is.
const PASSWORD_VARIABLE: &str = "DB_PASSWORD";

/// What differs from tenfold.toml, in how the shop's database is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Nothing.
    Pooled,
    /// One row may take every connection.
    Uncapped,
    /// What only reads may go to the replica.
    Split(Consistency),
}

/// What a read on the replica may count on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Consistency {
    /// Nothing but the replica's lag: no floors.
    Eventual,
    /// Its own writes, and everybody's before it.
    OwnWrites,
}

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
    /// The file's text, for [`Access::Pooled`].
    text: String,
    replica_port: u16,
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
        let replica_port = stack.replica()?.port();
        Ok(Self { child, program, config, text, replica_port, place })
    }

    /// Has the shop's database reached in this way from now on, by a reload; a replica gets reads when this returns.
    pub(crate) fn reach_database(&self, access: Access) -> Result<()> {
        write(&self.config, &with_access(&self.text, access, self.replica_port))?;
        let mut reload = Command::new(&self.program);
        reload.args(["reload", "-c"]).arg(&self.config).env(PASSWORD_VARIABLE, PASSWORD);
        let output = reload.output().context("cannot start tenfold reload")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "tenfold reload failed ({}):\n{said}", output.status);
        if !matches!(access, Access::Split(_)) {
            return Ok(());
        }
        try_wait_for("the replica to get reads", REPLICA_TIME_MAX, || {
            let up = |metrics: String| sum(&metrics, "tenfold_pooler_replica_state", "state=\"up\"") > 0.0;
            self.metrics().is_ok_and(up).then_some(())
        })
        .with_context(|| self.child.log())
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.edge())
    }

    pub(crate) fn edge(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.place.edge))
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

fn with_access(text: &str, access: Access, replica_port: u16) -> String {
    let consistency = match access {
        Access::Pooled => return text.to_owned(),
        Access::Uncapped => return text.replace(POOL, POOL_UNCAPPED),
        Access::Split(Consistency::Eventual) => "eventual",
        Access::Split(Consistency::OwnWrites) => "own_writes",
    };
    let reads =
        format!("replicas = [\"127.0.0.1:{replica_port}\"]\nreads = {{ consistency = \"{consistency}\" }}");
    text.replace(POOL, &format!("{POOL}\n{reads}"))
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_to_the_database_is_one_edit_of_the_file() {
        assert_eq!(TENFOLD_TOML.matches(POOL).count(), 1);
        let check = |access, added: &[&str]| {
            let text = with_access(TENFOLD_TOML, access, 5433);
            let lines: Vec<&str> = text.lines().filter(|line| !TENFOLD_TOML.contains(line)).collect();
            assert_eq!(lines, added, "{access:?}");
        };
        let replica = "replicas = [\"127.0.0.1:5433\"]";
        check(Access::Pooled, &[]);
        check(Access::Uncapped, &[POOL_UNCAPPED]);
        check(Access::Split(Consistency::Eventual), &[replica, "reads = { consistency = \"eventual\" }"]);
        check(Access::Split(Consistency::OwnWrites), &[replica, "reads = { consistency = \"own_writes\" }"]);
    }
}
