//! What a proof is played on: nodes that can be killed, the real Tenfold in front of them, and a clock.
//!
//! All processes are guarded children (`testkit`): they end with their handles, and with this process however it ends.
//! Ports are ones that nobody had a moment ago; a proof that loses that race says so and can be started again.
#![expect(clippy::disallowed_methods, reason = "a proof measures real time and lets some of it pass")]

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tenfold_testkit::process::{Child, StopSignal, find_program, free_port};
use tenfold_testkit::{raw, try_wait_for};

use crate::interrupt::on_interrupt;

const START_TIME_MAX: Duration = Duration::from_secs(20);
const STOP_TIME_MAX: Duration = Duration::from_secs(5);

/// Now, for measuring.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Lets time pass.
pub(crate) fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

/// An address on loopback that nobody listened on a moment ago.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().context("no port is free on 127.0.0.1")?)))
}

/// A folder of this run under target/, removed on drop and on Ctrl-C.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new(root: &Path) -> Result<Self> {
        let folder = root.join("target/prove").join(std::process::id().to_string());
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let removed = folder.clone();
        on_interrupt(move || drop(std::fs::remove_dir_all(removed)))?;
        Ok(Self(folder))
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("left behind {}: {error}", self.0.display());
        }
    }
}

/// A program of this build, beside this one.
pub(crate) fn built(name: &str, how: &str) -> Result<PathBuf> {
    let program = std::env::current_exe()?.with_file_name(name);
    if !program.is_file() {
        bail!("{} is not built (cargo build --release {how})", program.display());
    }
    Ok(program)
}

/// A node that is a process of its own, and writes down what it was posted.
pub(crate) struct Node {
    pub(crate) addr: SocketAddr,
    ledger: PathBuf,
    child: Option<Child>,
}

impl Node {
    /// A node that is not running yet.
    pub(crate) fn new(ledger: &Path) -> Result<Self> {
        Ok(Self { addr: free_address()?, ledger: ledger.to_owned(), child: None })
    }

    pub(crate) fn start(&mut self) -> Result<()> {
        let program = built("examples/node", "--package tenfold-testkit --example node")?;
        let mut command = Command::new(program);
        command.arg(self.addr.to_string()).arg(&self.ledger);
        let mut child = Child::spawn(&command)?;
        child.wait_for_output("listening", START_TIME_MAX)?;
        self.child = Some(child);
        Ok(())
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill();
        }
    }
}

/// The real binary.
pub(crate) struct Tenfold {
    pub(crate) child: Child,
    pub(crate) edge: SocketAddr,
    pub(crate) admin: SocketAddr,
    program: PathBuf,
    file: PathBuf,
}

impl Tenfold {
    /// Starts it with this file: `rest` begins with dotted keys, if any, and goes on with tables.
    pub(crate) fn start(scratch: &Scratch, rest: &str) -> Result<Self> {
        Self::start_as(scratch, "tenfold", rest)
    }

    /// One of several, each with a file of its own.
    pub(crate) fn start_as(scratch: &Scratch, name: &str, rest: &str) -> Result<Self> {
        Self::start_on(scratch, name, rest, None)
    }

    /// On these cores, as `taskset` names them, or on those of this process.
    pub(crate) fn start_on(scratch: &Scratch, name: &str, rest: &str, cores: Option<&str>) -> Result<Self> {
        let program = built("tenfold", "--package tenfold")?;
        let (edge, admin) = (free_address()?, free_address()?);
        let file = scratch.file(&format!("{name}.toml"));
        write_file(&file, &[edge], admin, rest)?;
        let mut command = match cores {
            Some(cores) => {
                let mut command = Command::new("taskset");
                command.args(["-c", cores]).arg(&program);
                command
            }
            None => Command::new(&program),
        };
        command.args(["run", "-c"]).arg(&file);
        let mut child = Child::spawn(&command)?;
        try_wait_for("Tenfold to be ready", START_TIME_MAX, || {
            let ready = raw::get(admin, "/readyz").is_ok_and(|answer| answer.status == 200);
            ready || child.try_wait().is_some()
        })?;
        if let Some(status) = child.try_wait() {
            bail!("Tenfold ended at start ({status}):\n{}", child.log());
        }
        Ok(Self { child, edge, admin, program, file })
    }

    /// Starts another process that takes over from this one, which is given back; its end is still to come.
    pub(crate) fn take_over(&mut self) -> Result<Child> {
        let mut command = Command::new(&self.program);
        command.args(["run", "--take-over", "-c"]).arg(&self.file);
        let mut child = Child::spawn(&command)?;
        if let Err(error) = child.wait_for_output("is ready", START_TIME_MAX) {
            bail!("{error}:\n{}", child.log());
        }
        Ok(std::mem::replace(&mut self.child, child))
    }

    /// Writes another configuration, without telling it.
    pub(crate) fn write(&self, listen: &[SocketAddr], rest: &str) -> Result<()> {
        write_file(&self.file, listen, self.admin, rest)
    }

    /// Runs a command of the CLI against it.
    pub(crate) fn command(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(&self.program);
        command.args(arguments).arg("-c").arg(&self.file).args(["--admin", &self.admin.to_string()]);
        command.env("NO_COLOR", "1").env_remove("TENFOLD_ADMIN_TOKEN");
        command.output().context("the CLI does not run")
    }

    /// SIGHUP.
    pub(crate) fn hang_up(&self) -> Result<()> {
        let kill = find_program("kill").context("no `kill` in PATH")?;
        let sent = Command::new(kill).args(["-HUP", &self.child.pid().to_string()]).status()?;
        if !sent.success() {
            bail!("kill -HUP: {sent}");
        }
        Ok(())
    }

    /// The answer of `/api/v1/status`.
    pub(crate) fn status(&self) -> Result<serde_json::Value> {
        Ok(raw::get(self.admin, "/api/v1/status").context("the admin server does not answer")?.json())
    }

    /// The sum over all series of this name.
    pub(crate) fn metric(&self, name: &str) -> Result<f64> {
        self.metric_of(name, "")
    }

    /// The sum over the series of this name whose labels contain `label`.
    pub(crate) fn metric_of(&self, name: &str, label: &str) -> Result<f64> {
        let text = raw::get(self.admin, "/metrics").context("the admin server does not answer")?.text();
        let series = text.lines().filter_map(|line| line.strip_prefix(name));
        let series: Vec<f64> = series
            .filter(|rest| rest.starts_with(['{', ' ']) && rest.contains(label))
            .filter_map(|rest| rest.split_whitespace().next_back()?.parse().ok())
            .collect();
        if series.is_empty() {
            bail!("no metric is called {name}");
        }
        Ok(series.iter().sum())
    }

    /// Resident memory now and at its peak, in MiB.
    pub(crate) fn memory_mib(&self) -> Result<(u64, u64)> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.pid()))?;
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib >> 10)
        };
        field("VmRSS:").zip(field("VmHWM:")).context("/proc does not say how much memory it has")
    }
}

impl Drop for Tenfold {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.child.log());
        }
        self.child.stop(StopSignal::Terminate, STOP_TIME_MAX);
    }
}

fn write_file(file: &Path, listen: &[SocketAddr], admin: SocketAddr, rest: &str) -> Result<()> {
    let listen: Vec<String> = listen.iter().map(|addr| format!("\"{addr}\"")).collect();
    let text = format!(
        "edge.listen = [{}]\nadmin.listen = \"{admin}\"\nlog.access = \"0%\"\n{rest}",
        listen.join(", ")
    );
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}
