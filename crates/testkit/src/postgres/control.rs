//! Changing a running server, and hurting it: settings, rules, signals to its processes, standstill, promotion.
//!
//! **Mechanism.** What an administrator would do: `ALTER SYSTEM` and a reload, a new `pg_hba.conf` and SIGHUP,
//! `pg_promote()`. Signals go to processes whose parent is the server, and to no others.
//!
//! **Failure.** Errors are PostgreSQL's own, or say that the process is none of the server's.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Server;
use crate::process::{Child, StopSignal};
use crate::{Error, try_wait_for};

const PROMOTE_LIMIT: Duration = Duration::from_secs(20);
const QUIT_LIMIT: Duration = Duration::from_secs(5);

/// What can be done to one of a server's processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendSignal {
    /// SIGKILL: it dies, and the server restarts all the others.
    Kill,
    /// SIGSTOP: it stands still, its socket open.
    Stop,
    /// SIGCONT: it goes on.
    Continue,
}

impl Server {
    /// Stops it as `pg_ctl -m immediate` does: nobody is told, the next start recovers.
    pub fn stop_immediately(&mut self) {
        self.thaw();
        if let Some(mut child) = self.child.take() {
            child.stop(StopSignal::Quit, QUIT_LIMIT);
        }
    }

    /// [`Server::stop`] and [`Server::start`], on the same port.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn restart(&mut self) -> Result<(), Error> {
        self.stop();
        self.start()
    }

    /// Changes a setting that needs no restart, for connections open and to come.
    ///
    /// # Errors
    /// As [`Server::psql`].
    pub fn set(&self, name: &str, value: &str) -> Result<(), Error> {
        let value = value.replace('\'', "''");
        self.psql(&format!("ALTER SYSTEM SET {name} = '{value}'"))?;
        self.psql("SELECT pg_reload_conf()").map(drop)
    }

    /// Replaces `pg_hba.conf` and has it read. The first line should let [`super::SUPERUSER`] in, or this kit is locked
    /// out.
    ///
    /// # Errors
    /// [`Error::File`]; as [`Server::psql`].
    pub fn set_hba(&self, rules: &str) -> Result<(), Error> {
        self.write_hba(rules)?;
        self.psql("SELECT pg_reload_conf()")?;
        let wrong = self.psql("SELECT count(*) FROM pg_hba_file_rules WHERE error IS NOT NULL")?;
        if wrong == "0" { Ok(()) } else { Err(Error::User("pg_hba.conf has mistakes".into())) }
    }

    /// Makes a replica a primary, and waits until it is.
    ///
    /// # Errors
    /// As [`Server::psql`]; [`Error::TimedOut`].
    pub fn promote(&self) -> Result<(), Error> {
        self.psql("SELECT pg_promote(false)")?;
        try_wait_for("the replica to be promoted", PROMOTE_LIMIT, || {
            self.psql("SELECT pg_is_in_recovery()").is_ok_and(|answer| answer == "f").then_some(())
        })
    }

    /// Sends a signal to one of its processes, by the number that `pg_backend_pid()` told.
    ///
    /// # Errors
    /// [`Error::System`] if there is no such process, or it is none of this server's.
    pub fn signal_backend(&self, pid: i32, signal: BackendSignal) -> Result<(), Error> {
        let ours = self.child.as_ref().is_some_and(|child| parent_of(pid) == Some(child.pid()));
        if !ours {
            let source = std::io::ErrorKind::NotFound.into();
            return Err(Error::System { what: format!("process {pid} is none of this server's"), source });
        }
        let signal = match signal {
            BackendSignal::Kill => Signal::SIGKILL,
            BackendSignal::Stop => Signal::SIGSTOP,
            BackendSignal::Continue => Signal::SIGCONT,
        };
        kill(Pid::from_raw(pid), signal).map_err(|errno| Error::system("signalling a backend")(errno.into()))
    }

    /// SIGSTOP to all its processes: connections stay open and are accepted by the system, and nothing is answered.
    /// [`Server::thaw`], stopping or killing it ends that.
    pub fn freeze(&mut self) {
        self.is_frozen = true;
        self.signal_all(Signal::SIGSTOP);
    }

    /// SIGCONT to all its processes.
    pub fn thaw(&mut self) {
        if std::mem::take(&mut self.is_frozen) {
            self.signal_all(Signal::SIGCONT);
        }
    }

    /// The server first: one that stands still makes no further processes.
    fn signal_all(&self, signal: Signal) {
        let Some(server) = self.child.as_ref().map(Child::pid) else { return };
        let send = |pid: u32| {
            if let Ok(pid) = i32::try_from(pid) {
                // It may have ended meanwhile.
                let _ = kill(Pid::from_raw(pid), signal);
            }
        };
        send(server);
        let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = processes.filter_map(|process| process.file_name().to_str()?.parse::<i32>().ok());
        pids.filter(|pid| parent_of(*pid) == Some(server)).for_each(|pid| send(pid.unsigned_abs()));
    }
}

/// The parent of a process: the fourth field of `/proc/PID/stat`, the second behind the name in parentheses.
fn parent_of(pid: i32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}
