//! A server of a benchmark: started on a private port and its core, stopped when dropped.
//!
//! The configuration is a template of bench/peers/ with ports and folders filled in. `taskset` pins it; `setpriv` asks
//! the kernel to end it should this process be killed outright, so nothing outlives a benchmark. What it says goes to a
//! file, shown if it does not come up.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

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

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn spawn(scratch: &Scratch, program: Program, config: &Path, core: &str, port: u16) -> Result<Self> {
        let path = program.path()?;
        let log = config.with_extension("log");
        let mut command = Command::new("taskset");
        command.args(["-c", core, "setpriv", "--pdeathsig", "TERM", "--"]).arg(&path);
        match program {
            Program::Tenfold => command.args(["run", "-c"]).arg(config),
            Program::Nginx => command.args(["-e", "stderr", "-p"]).arg(&scratch.folder).arg("-c").arg(config),
            Program::Haproxy => command.args(["-db", "-f"]).arg(config),
        };
        let out = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        command.stdin(std::process::Stdio::null()).stdout(out.try_clone()?).stderr(out);
        let child = command.spawn().with_context(|| format!("cannot start {}", path.display()))?;
        let mut server = Self { child, port };
        server.wait_until_listening(&log)?;
        Ok(server)
    }

    fn wait_until_listening(&mut self, log: &Path) -> Result<()> {
        let said = || std::fs::read_to_string(log).unwrap_or_default();
        let started = now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended at start ({status}):\n{}", said());
            }
            if now() - started > START_TIME_MAX {
                bail!("the server did not listen within {START_TIME_MAX:?}:\n{}", said());
            }
            pause();
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        // Already gone is fine; there is nothing else to do about either here.
        let _ = kill(pid, Signal::SIGTERM);
        let started = now();
        while now() - started < STOP_TIME_MAX {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            pause();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port nobody listens on now. Someone else may take it before we do; then the server says so and the run ends.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port on 127.0.0.1")?;
    Ok(listener.local_addr()?.port())
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

#[expect(
    clippy::disallowed_methods,
    reason = "a command line program waits for its children by the real clock"
)]
fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "polls a child that cannot be waited for otherwise")]
fn pause() {
    std::thread::sleep(Duration::from_millis(20));
}
