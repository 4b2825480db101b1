//! A server of a benchmark: started on a private port and its core, stopped when dropped.
//!
//! The configuration is a template of bench/peers/ with ports and folders filled in; `taskset` pins the server to its
//! core. It is a guarded child (`testkit::process`), so it ends with this process however that ends, and what it said
//! is shown if it does not come up.

use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tenfold_testkit::process::{Child, StopSignal, free_port};
use tenfold_testkit::try_wait_for;

use super::sides::{Program, Side};
use super::{Bench, Scratch};

pub(crate) const SERVER_CORE: &str = "0";
pub(crate) const CLIENT_CORE: &str = "1";
/// The body of every answer: 1 KiB.
pub(crate) const BODY_BYTES: usize = 1024;
const START_TIME_MAX: Duration = Duration::from_secs(10);
const STOP_TIME_MAX: Duration = Duration::from_secs(5);

pub(crate) struct Server {
    child: Child,
    port: u16,
}

/// The body every side must answer with.
pub(crate) fn body() -> String {
    "tenfold ".repeat(BODY_BYTES / 8)
}

impl Server {
    pub(crate) fn start(root: &Path, scratch: &Scratch, side: &Side, origin: u16) -> Result<Self> {
        let port = free_port()?;
        let words = [
            ("PORT", port.to_string()),
            ("ADMIN", free_port()?.to_string()),
            ("ORIGIN", origin.to_string()),
            ("VARIANT", side.variant.to_owned()),
            ("OPTION", side.option.to_owned()),
        ];
        let config = fill(root, scratch, &side.template, side.variant, &words)?;
        Self::spawn(scratch, side.program, &config, SERVER_CORE, port)
    }

    /// What answers the misses: nginx, saying 1 KiB, on the client's core.
    pub(crate) fn start_origin(root: &Path, scratch: &Scratch, bench: Bench) -> Result<Self> {
        let port = free_port()?;
        let words = [("PORT", port.to_string()), ("BODY", body())];
        let config = fill(root, scratch, "origin.nginx.conf", bench.name(), &words)?;
        Self::spawn(scratch, Program::Nginx, &config, CLIENT_CORE, port)
    }

    /// nginx with a configuration of its own, which has a place for one option.
    pub(super) fn start_nginx(root: &Path, scratch: &Scratch, template: &str, option: usize) -> Result<Self> {
        let (port, origin) = (free_port()?, free_port()?);
        let words = [("PORT", port), ("ORIGIN", origin)].map(|(word, port)| (word, port.to_string()));
        let option = [("OPTION", option.to_string()), ("VARIANT", "room".to_owned())];
        let config = fill(root, scratch, template, "room", &[words, option].concat())?;
        Self::spawn(scratch, Program::Nginx, &config, CLIENT_CORE, port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// CPU time used so far, in seconds.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        self.child.cpu_seconds()
    }

    fn spawn(scratch: &Scratch, program: Program, config: &Path, core: &str, port: u16) -> Result<Self> {
        let mut command = Command::new("taskset");
        command.args(["-c", core]).arg(program.path()?);
        match program {
            Program::Tenfold => command.args(["run", "-c"]).arg(config),
            Program::Nginx => command.args(["-e", "stderr", "-p"]).arg(&scratch.folder).arg("-c").arg(config),
            Program::Haproxy => command.args(["-db", "-f"]).arg(config),
            Program::Pgbouncer => command.arg("-q").arg(config),
        };
        let mut server = Self { child: Child::spawn(&command)?, port };
        server.wait_until_listening()?;
        Ok(server)
    }

    fn wait_until_listening(&mut self) -> Result<()> {
        let address = (Ipv4Addr::LOCALHOST, self.port);
        let ended = try_wait_for("the server to listen", START_TIME_MAX, || match self.child.try_wait() {
            Some(status) => Some(Some(status)),
            None => TcpStream::connect(address).is_ok().then_some(None),
        })
        .with_context(|| self.child.log())?;
        match ended {
            Some(status) => bail!("the server ended at start ({status}):\n{}", self.child.log()),
            None => Ok(()),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.stop(StopSignal::Terminate, STOP_TIME_MAX);
    }
}
/// Writes a template of bench/peers/ with its words filled in; a word left over is an error.
fn fill(
    root: &Path,
    scratch: &Scratch,
    template: &str,
    variant: &str,
    words: &[(&str, String)],
) -> Result<PathBuf> {
    let path = root.join("bench/peers").join(template);
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    // Each side has its own folder in memory, made here because servers expect it.
    let memory = scratch.memory.join(format!("{template}-{variant}"));
    std::fs::create_dir_all(&memory).with_context(|| format!("cannot make {}", memory.display()))?;
    let places = [("DIR", scratch.folder.display().to_string()), ("SHM", memory.display().to_string())];
    let filled = places
        .iter()
        .chain(words)
        .fold(text, |text, (word, value)| text.replace(&format!("@{word}@"), value));
    let (stem, extension) = template.rsplit_once('.').unwrap_or((template, "conf"));
    let target = scratch.folder.join(format!("{stem}-{variant}.{extension}"));
    std::fs::write(&target, filled).with_context(|| format!("cannot write {}", target.display()))?;
    Ok(target)
}
