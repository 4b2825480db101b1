//! Who sits between the clients and PostgreSQL in `bench pooler`.
//!
//! **Intuition.** The same clients and the same server, and in between us, the peer, the least that could be there (the
//! floor), or nothing.
//!
//! **Mechanism.** Each seat is a guarded child on a private port. What is compared by CPU has one worker on core 0; this
//! process, and so PostgreSQL and pgbench, keep to the other cores. One worker against two is asked on all cores, since
//! the second needs somewhere to be. PgBouncer refuses to run as root, so it runs as PostgreSQL's account.
//!
//! **Failure.** A seat that ends at its start shows what it said.

use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tenfold_testkit::postgres::Install;
use tenfold_testkit::process::{Child, Guard, StopSignal, free_port};
use tenfold_testkit::try_wait_for;

use crate::bench::sides::Program;

const START_TIME_MAX: Duration = Duration::from_secs(20);
const STOP_TIME_MAX: Duration = Duration::from_secs(10);
const CORE_OF_SEATS: &str = "0";

/// A place in the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seat {
    /// Us, one worker on the seats' core.
    Tenfold,
    /// The peer.
    Pgbouncer,
    /// The least that lends connections: what the kernel alone costs.
    Relay,
    /// Nobody.
    Direct,
    /// Us, one worker wherever the kernel puts it.
    OneWorker,
    /// Us, two workers wherever the kernel puts them.
    TwoWorkers,
}

impl Seat {
    pub(crate) const ALL: [Self; 6] =
        [Self::Tenfold, Self::Pgbouncer, Self::Relay, Self::Direct, Self::OneWorker, Self::TwoWorkers];

    /// How it is chosen on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tenfold => "tenfold",
            Self::Pgbouncer => "pgbouncer",
            Self::Relay => "relay",
            Self::Direct => "direct",
            Self::OneWorker => "one-worker",
            Self::TwoWorkers => "two-workers",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|seat| seat.name() == name)
    }

    /// For people.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Tenfold => "Tenfold",
            Self::Pgbouncer => "PgBouncer",
            Self::Relay => "bare relay (the floor)",
            Self::Direct => "direct",
            Self::OneWorker => "Tenfold, 1 worker, any core",
            Self::TwoWorkers => "Tenfold, 2 workers, any core",
        }
    }

    fn program(self) -> Option<Program> {
        match self {
            Self::Tenfold | Self::OneWorker | Self::TwoWorkers => Some(Program::Tenfold),
            Self::Pgbouncer => Some(Program::Pgbouncer),
            Self::Relay | Self::Direct => None,
        }
    }
}

/// What a seat is started with, besides its kind.
#[derive(Clone, Debug)]
pub(crate) struct Place<'a> {
    /// The repository: configurations are in its bench/peers/.
    pub(crate) root: &'a Path,
    /// Where filled-in configurations go; readable by PostgreSQL's account.
    pub(crate) folder: &'a Path,
    /// PostgreSQL's port on loopback.
    pub(crate) server: u16,
    /// PgBouncer's word for how clients prove themselves (`trust`, `scram-sha-256`), which is ours too.
    pub(crate) auth: &'a str,
    /// Lines of a users file in PgBouncer's form.
    pub(crate) users: &'a str,
    /// Server connections.
    pub(crate) size: u32,
    /// And in need.
    pub(crate) reserve: u32,
}

/// A seat that is taken.
pub(crate) struct Seated {
    pub(crate) seat: Seat,
    pub(crate) version: String,
    pub(crate) port: u16,
    /// `None` where nobody sits.
    child: Option<Child>,
}

impl Seated {
    /// Starts it and waits until it listens.
    pub(crate) fn start(seat: Seat, place: &Place<'_>) -> Result<Self> {
        let version = seat.program().map(Program::version).transpose()?.unwrap_or_default();
        if seat == Seat::Direct {
            return Ok(Self { seat, version, port: place.server, child: None });
        }
        let port = free_port()?;
        let (command, guard) = command(seat, place, port)?;
        let mut seated = Self { seat, version, port, child: Some(Child::spawn_guarded(&command, &guard)?) };
        seated.wait_until_listening().with_context(|| seat.label())?;
        Ok(seated)
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::pid)
    }

    /// What it said last, for a message.
    pub(crate) fn log(&self) -> String {
        self.child.as_ref().map_or_else(String::new, Child::log)
    }

    fn wait_until_listening(&mut self) -> Result<()> {
        let Some(child) = &mut self.child else { return Ok(()) };
        let address = (Ipv4Addr::LOCALHOST, self.port);
        let ended = try_wait_for("the pooler to listen", START_TIME_MAX, || match child.try_wait() {
            Some(status) => Some(Some(status)),
            None => TcpStream::connect(address).is_ok().then_some(None),
        });
        match ended.with_context(|| child.log())? {
            Some(status) => bail!("it ended at its start ({status}):\n{}", child.log()),
            None => Ok(()),
        }
    }
}

impl Drop for Seated {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // PgBouncer takes SIGTERM for "at once", as we want it here, and SIGINT for "when clients have gone".
            child.stop(StopSignal::Terminate, STOP_TIME_MAX);
        }
    }
}

fn command(seat: Seat, place: &Place<'_>, port: u16) -> Result<(Command, Guard)> {
    let mut command = Command::new("taskset");
    let mut guard = Guard::default();
    match seat {
        Seat::Tenfold => {
            let config = tenfold_config(seat, place, port, "1")?;
            command.args(["-c", CORE_OF_SEATS]).arg(Program::Tenfold.path()?).args(["run", "-c"]).arg(config);
        }
        Seat::OneWorker | Seat::TwoWorkers => {
            let workers = if seat == Seat::OneWorker { "1" } else { "2" };
            let config = tenfold_config(seat, place, port, workers)?;
            command.args(["-c", &all_cores()]).arg(Program::Tenfold.path()?).args(["run", "-c"]).arg(config);
        }
        Seat::Pgbouncer => {
            let config = fill(seat, place, "pooler.pgbouncer.ini", &[("PORT", port.to_string())])?;
            command.args(["-c", CORE_OF_SEATS]).arg(Program::Pgbouncer.path()?).arg("-q").arg(config);
            guard.account = Install::find()?.account;
        }
        Seat::Relay => {
            command.args(["-c", CORE_OF_SEATS]).arg(std::env::current_exe()?).arg("relay");
            command.args([port.to_string(), place.server.to_string(), place.size.to_string()]);
        }
        Seat::Direct => bail!("nobody sits where clients connect directly"),
    }
    Ok((command, guard))
}

fn all_cores() -> String {
    // What this process may use is narrower: it has put itself on the other cores.
    let cores = std::fs::read_to_string("/sys/devices/system/cpu/online");
    cores.map_or_else(|_| "0,1".into(), |cores| cores.trim().to_owned())
}

fn tenfold_config(seat: Seat, place: &Place<'_>, port: u16, workers: &str) -> Result<PathBuf> {
    let words =
        [("PORT", port.to_string()), ("ADMIN", free_port()?.to_string()), ("WORKERS", workers.to_owned())];
    fill(seat, place, "pooler.tenfold.toml", &words)
}

/// Writes a template of bench/peers/ with its words filled in, and the users beside it, in a folder of the seat's own.
fn fill(seat: Seat, place: &Place<'_>, template: &str, words: &[(&str, String)]) -> Result<PathBuf> {
    let path = place.root.join("bench/peers").join(template);
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let folder = place.folder.join(seat.name());
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let common = [
        ("DIR", folder.display().to_string()),
        ("SERVER", place.server.to_string()),
        ("AUTH", place.auth.to_owned()),
        ("SIZE", place.size.to_string()),
        ("RESERVE", place.reserve.to_string()),
    ];
    let words = common.iter().chain(words);
    let filled = words.fold(text, |text, (word, value)| text.replace(&format!("@{word}@"), value));
    let config = folder.join(template);
    for (file, text) in [(&config, filled.as_str()), (&folder.join("users.txt"), place.users)] {
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seat_is_found_by_its_name() {
        assert!(Seat::ALL.into_iter().all(|seat| Seat::from_name(seat.name()) == Some(seat)));
        assert_eq!(Seat::from_name("nobody"), None);
    }

    #[test]
    fn no_word_of_a_template_is_left_over() {
        let root = crate::repository();
        let folder = std::env::temp_dir().join(format!("tenfold-seats-{}", std::process::id()));
        let place = Place {
            root: &root,
            folder: &folder,
            server: 5432,
            auth: "trust",
            users: "\"postgres\" \"\"\n",
            size: 20,
            reserve: 0,
        };
        let ours = tenfold_config(Seat::TwoWorkers, &place, 6432, "2").expect("it is written");
        let words = [("PORT", "6432".to_owned())];
        let theirs = fill(Seat::Pgbouncer, &place, "pooler.pgbouncer.ini", &words).expect("it is written");
        let texts = [ours, theirs].map(|file| std::fs::read_to_string(file).expect("it was written"));
        std::fs::remove_dir_all(&folder).expect("it was made");
        let left_over = |text: &String| {
            text.split('@').any(|word| !word.is_empty() && word.chars().all(|c| c.is_ascii_uppercase()))
        };
        assert!(texts.iter().all(|text| !left_over(text)), "{texts:?}");
        assert!(texts[0].contains("workers = 2") && texts[1].contains("default_pool_size = 20"));
    }
}
