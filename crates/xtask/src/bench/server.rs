//! A server of a benchmark: started on a private port and its core, stopped when dropped.
//!
//! The configuration is a template of bench/peers/ with ports and folders filled in; `taskset` pins the server to its
//! core. It is a guarded child (`testkit::process`), so it ends with this process however that ends, and what it said
//! is shown if it does not come up.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tenfold_testkit::process::{Child, StopSignal, free_port};
use tenfold_testkit::{raw, try_wait_for};

use super::rows::Size;
use super::sides::{Program, Side};
use super::{Bench, Scratch};
use crate::cores;

pub(crate) const SERVER_CORE: &str = cores::SERVER;
pub(crate) const CLIENT_CORE: &str = "1";
const START_TIME_MAX: Duration = Duration::from_secs(10);
const STOP_TIME_MAX: Duration = Duration::from_secs(5);
/// Varnish in the foreground, in its own memory, with one pool of threads, of which it needs one for each connection
/// that is busy.
const VARNISH: [&str; 11] = [
    "-F",
    "-j",
    "none",
    "-s",
    "malloc,256m",
    "-p",
    "thread_pools=1",
    "-p",
    "thread_pool_min=100",
    "-p",
    "thread_pool_max=200",
];

pub(crate) struct Server {
    child: Child,
    port: u16,
    /// Where Tenfold's metrics are.
    admin: u16,
}

impl Server {
    /// On `cores`, as `taskset` names them.
    pub(crate) fn start(
        root: &Path,
        scratch: &Scratch,
        side: &Side,
        origin: u16,
        cores: &str,
    ) -> Result<Self> {
        let (port, admin) = (free_port()?, free_port()?);
        if side.program == Program::Floor {
            return Self::spawn(scratch, side, Path::new(side.variant), cores, (port, admin));
        }
        let words = [
            ("PORT", port.to_string()),
            ("ADMIN", admin.to_string()),
            ("ORIGIN", origin.to_string()),
            ("VARIANT", side.variant.to_owned()),
            ("OPTION", side.option.to_owned()),
        ];
        let config = fill(root, scratch, &side.template, side.variant, &words)?;
        Self::spawn(scratch, side, &config, cores, (port, admin))
    }

    /// What answers the misses, on the client's core: nginx, with files for what is larger than 1 KiB.
    pub(crate) fn start_origin(root: &Path, scratch: &Scratch, bench: Bench) -> Result<Self> {
        let port = free_port()?;
        let words = [("PORT", port.to_string()), ("BODY", Size::SMALL.body())];
        let config = fill(root, scratch, "origin.nginx.conf", bench.name(), &words)?;
        for size in Size::ALL {
            let path = scratch.memory.join(format!("origin.nginx.conf-{}{}", bench.name(), size.path()));
            std::fs::write(&path, size.body()).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Self::spawn(scratch, &Side::nginx(), &config, CLIENT_CORE, (port, 0))
    }

    /// nginx with a configuration of its own, which has a place for one option.
    pub(super) fn start_nginx(root: &Path, scratch: &Scratch, template: &str, option: usize) -> Result<Self> {
        let (port, origin) = (free_port()?, free_port()?);
        let words = [("PORT", port), ("ORIGIN", origin)].map(|(word, port)| (word, port.to_string()));
        let option = [("OPTION", option.to_string()), ("VARIANT", "room".to_owned())];
        let config = fill(root, scratch, template, "room", &[words, option].concat())?;
        Self::spawn(scratch, &Side::nginx(), &config, CLIENT_CORE, (port, 0))
    }

    /// The sum of Tenfold's series of this name whose labels contain `label`.
    pub(crate) fn metric(&self, name: &str, label: &str) -> Result<f64> {
        let text = raw::get(SocketAddr::from((Ipv4Addr::LOCALHOST, self.admin)), "/metrics")?.text();
        let values = text.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let labels = series.strip_prefix(name).filter(|rest| rest.is_empty() || rest.starts_with('{'))?;
            value.parse::<f64>().ok().filter(|_| labels.contains(label))
        });
        Ok(values.sum())
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

    fn spawn(
        scratch: &Scratch,
        side: &Side,
        config: &Path,
        cores: &str,
        (port, admin): (u16, u16),
    ) -> Result<Self> {
        let mut command = Command::new("taskset");
        command.args(["-c", cores]).arg(side.program.path()?);
        match side.program {
            Program::Tenfold => command.args(["run", "-c"]).arg(config),
            Program::Nginx => command.args(["-e", "stderr", "-p"]).arg(&scratch.folder).arg("-c").arg(config),
            Program::Haproxy => command.args(["-db", "-f"]).arg(config),
            Program::Varnish => {
                command.args(VARNISH).arg("-n").arg(scratch.folder.join("varnish"));
                command.arg("-a").arg(format!("127.0.0.1:{port},HTTP")).arg("-f").arg(config)
            }
            Program::Floor => command.arg("floor").arg(config).arg(port.to_string()),
            Program::Pgbouncer => command.arg("-q").arg(config),
        };
        let mut server = Self { child: Child::spawn(&command)?, port, admin };
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
