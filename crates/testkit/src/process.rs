//! Child processes that cannot outlive us.
//!
//! **Intuition.** A test that dies must not leave a database running. Destructors do not run when a process is killed
//! outright, so somebody else has to watch.
//!
//! **Mechanism.** A program is started through `sh`: the shell leaves a small watcher in the background, which waits
//! on a pipe to us, and then becomes the program (`exec`, so its process id and exit status are the real ones). The
//! pipe ends when we end, however we end; the watcher then stops the program, removes the folder it was told to, and
//! goes. Program and watcher share a process group of their own, so Ctrl-C in a terminal reaches neither before us.
//!
//! **Failure.** A program that is not there is [`Error::NotInstalled`]. Output beyond [`LOG_BYTES_MAX`] pushes the
//! oldest out. A program that ignores its stop signal is killed.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::net::TcpListener;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::origin::lock;
use crate::{Error, try_wait_for};

/// Of a child's output, this much of the end is kept.
pub const LOG_BYTES_MAX: usize = 256 << 10;

/// `$1` the stop signal, `$2` a folder to remove or nothing, then the program and its arguments. The loop gives the
/// program five seconds to obey; a zombie has obeyed, though whoever adopted it may be slow to look.
const GUARD: &str = r#"
signal=$1; folder=$2; shift 2
exec 3<&0
(
    exec >/dev/null 2>&1
    trap '' TERM
    read -r _ <&3
    kill -s "$signal" $$
    tries=0
    while kill -0 $$ && [ $tries -lt 100 ]; do
        read -r state </proc/$$/stat && case $state in *") Z "*) break ;; esac
        sleep 0.05
        tries=$((tries + 1))
    done
    kill -s KILL $$
    kill -s TERM -- -$$
    [ -z "$folder" ] || { rm -rf -- "$folder"; rmdir -- "$(dirname "$folder")"; }
    kill -s KILL -- -$$
) &
exec 3<&- </dev/null
exec "$@"
"#;

/// The account a program runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its name, for messages.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group's id.
    pub gid: u32,
}

/// How a child is started and what happens to it when we die. The default runs it as us and kills it.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    /// Run as this account; `None`: as ourselves. Needs root.
    pub account: Option<Account>,
    /// What it is sent when we die, before it is killed; `None`: killed at once.
    pub stop_signal: Option<StopSignal>,
    /// Removed by the watcher when we die, with its parent if that is then empty.
    pub remove: Option<PathBuf>,
}

/// Signals that ask a program to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopSignal {
    /// SIGTERM: ends after what it is doing.
    Terminate,
    /// SIGINT: as Ctrl-C does.
    Interrupt,
    /// SIGQUIT: at once.
    Quit,
}

impl StopSignal {
    fn number(self) -> Signal {
        match self {
            Self::Terminate => Signal::SIGTERM,
            Self::Interrupt => Signal::SIGINT,
            Self::Quit => Signal::SIGQUIT,
        }
    }
}

/// A running program. Dropping it kills it and whatever it started in its process group.
#[derive(Debug)]
pub struct Child {
    name: String,
    child: std::process::Child,
    log: Arc<Mutex<Log>>,
    readers: Vec<thread::JoinHandle<()>>,
    status: Option<ExitStatus>,
    group_is_gone: bool,
    /// The watcher waits for this to close.
    _life: ChildStdin,
}

impl Child {
    /// Starts `command`: its program, arguments, changes of environment, and folder. Its standard streams are ours.
    ///
    /// # Errors
    /// [`Error::NotInstalled`], [`Error::System`].
    pub fn spawn(command: &Command) -> Result<Self, Error> {
        Self::spawn_guarded(command, &Guard::default())
    }

    /// [`Child::spawn`], as another account or with a gentler end.
    ///
    /// # Errors
    /// [`Error::NotInstalled`], [`Error::System`].
    pub fn spawn_guarded(command: &Command, guard: &Guard) -> Result<Self, Error> {
        let name = command.get_program().to_string_lossy().into_owned();
        let program = find_program(command.get_program())
            .ok_or_else(|| Error::NotInstalled { program: name.clone(), hint: "not found in PATH".into() })?;
        let mut child =
            guarded(command, &program, guard).spawn().map_err(Error::system(format!("starting {name}")))?;
        let log = Arc::new(Mutex::new(Log::default()));
        let life = child.stdin.take().expect("the guard's stdin is piped");
        let mut readers = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            readers.push(capture(stdout, &log));
        }
        if let Some(stderr) = child.stderr.take() {
            readers.push(capture(stderr, &log));
        }
        Ok(Self { name, child, log, readers, status: None, group_is_gone: false, _life: life })
    }

    /// Runs `command` to its end and returns what it printed.
    ///
    /// # Errors
    /// [`Error::Failed`] with the output if it exits with anything but zero; [`Error::TimedOut`] at `limit`, after
    /// which it is killed; as [`Child::spawn`].
    pub fn run(what: &str, command: &Command, guard: &Guard, limit: Duration) -> Result<String, Error> {
        let mut child = Self::spawn_guarded(command, guard)?;
        let status = child.wait(limit)?;
        let log = child.whole_log();
        if status.success() {
            return Ok(log);
        }
        Err(Error::Failed { what: what.to_owned(), status: status.to_string(), log })
    }

    /// The program's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The end of what it printed so far, both streams together.
    #[must_use]
    pub fn log(&self) -> String {
        lock(&self.log).text()
    }

    /// What it printed, all of it: for a program that has exited.
    fn whole_log(&mut self) -> String {
        self.let_group_go();
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        self.log()
    }

    /// Asks it to end.
    pub fn signal(&mut self, signal: StopSignal) {
        self.send(signal.number());
    }

    /// Kills it outright (SIGKILL), as a crash or the kernel's out-of-memory killer would, and waits for its end.
    pub fn kill(&mut self) {
        self.send(Signal::SIGKILL);
        if self.status.is_none() {
            self.status = self.child.wait().ok();
        }
        self.let_group_go();
    }

    fn send(&mut self, signal: Signal) {
        if self.try_wait().is_none() {
            // Not yet reaped, so the id is still its own.
            let _ = kill(self.group(), signal);
        }
    }

    fn group(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("Linux keeps process ids below 2^22"))
    }

    /// Its exit status, if it has exited.
    pub fn try_wait(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().ok().flatten();
        }
        self.status
    }

    /// Waits until it exits by itself.
    ///
    /// # Errors
    /// [`Error::TimedOut`]; it goes on running.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus, Error> {
        let what = format!("{} to exit", self.name);
        try_wait_for(&what, limit, || self.try_wait())
    }

    /// Sends `signal`, waits up to `limit`, then kills it. Returns its exit status.
    pub fn stop(&mut self, signal: StopSignal, limit: Duration) -> ExitStatus {
        self.signal(signal);
        if self.wait(limit).is_err() {
            self.kill();
        }
        self.let_group_go();
        self.status.unwrap_or_else(|| ExitStatus::from_raw(Signal::SIGKILL as i32))
    }

    /// Waits until its output contains `text`.
    ///
    /// # Errors
    /// [`Error::Failed`] as soon as it has exited without saying so; [`Error::TimedOut`].
    pub fn wait_for_output(&mut self, text: &str, limit: Duration) -> Result<(), Error> {
        let what = format!("{} to print {text:?}", self.name);
        try_wait_for(&what, limit, || {
            let exited = self.try_wait();
            let log = if exited.is_some() { self.whole_log() } else { self.log() };
            if log.contains(text) {
                return Some(Ok(()));
            }
            let status = exited?.to_string();
            Some(Err(Error::Failed { what: what.clone(), status, log }))
        })?
    }

    /// Processor time used so far by it and its descendants, the ended ones it waited for included, in seconds.
    #[must_use]
    pub fn cpu_seconds(&self) -> f64 {
        cpu_seconds(self.pid())
    }

    /// Kills what is left of the process group: the watcher, and what the program left behind. While the watcher
    /// lives the group's id cannot be given to anybody else, so this never hits a stranger; it runs once.
    fn let_group_go(&mut self) {
        if self.status.is_some() && !std::mem::replace(&mut self.group_is_gone, true) {
            let _ = killpg(self.group(), Signal::SIGKILL);
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

fn guarded(command: &Command, program: &Path, guard: &Guard) -> Command {
    let mut shell = Command::new("/bin/sh");
    let signal = match guard.stop_signal {
        None => "KILL",
        Some(StopSignal::Terminate) => "TERM",
        Some(StopSignal::Interrupt) => "INT",
        Some(StopSignal::Quit) => "QUIT",
    };
    let folder = guard.remove.as_ref().map_or(OsStr::new(""), |folder| folder.as_os_str());
    shell.args(["-c", GUARD, "guard", signal]).arg(folder).arg(program).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        shell.current_dir(folder);
    }
    if let Some(account) = &guard.account {
        shell.uid(account.uid).gid(account.gid);
    }
    shell.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    shell
}

/// The program by its path, or where PATH has it.
#[must_use]
pub fn find_program(program: impl AsRef<OsStr>) -> Option<PathBuf> {
    let program = Path::new(program.as_ref());
    if program.components().count() > 1 {
        return program.is_file().then(|| program.to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/bin:/bin"));
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|candidate| candidate.is_file())
}

/// A port on loopback that nobody listened on a moment ago. None is given twice: what one test has killed for a while and
/// starts again must not find another test's server in its place.
///
/// # Errors
/// If the system has none.
pub fn free_port() -> io::Result<u16> {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    for _ in 0..PORTS_TRIED_MAX {
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        if GIVEN.lock().unwrap_or_else(PoisonError::into_inner).insert(port) {
            return Ok(port);
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "every free port was given before"))
}

/// Ports looked at before one gives up.
const PORTS_TRIED_MAX: usize = 1000;

/// Processor time used by a process and its descendants so far, in seconds; zero if it is gone. Reads `/proc`.
#[must_use]
pub fn cpu_seconds(pid: u32) -> f64 {
    /// `USER_HZ`, the unit of `/proc/*/stat` on every Linux architecture we run on.
    const TICKS_PER_SECOND: f64 = 100.0;
    let mut all = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
        all.extend(pid.and_then(Usage::read));
    }
    let mut family = vec![pid];
    let mut ticks = 0;
    while let Some(member) = family.pop() {
        ticks += all.iter().find(|usage| usage.pid == member).map_or(0, |usage| usage.ticks);
        family.extend(all.iter().filter(|usage| usage.parent == member).map(|usage| usage.pid));
    }
    f64::from(u32::try_from(ticks).unwrap_or(u32::MAX)) / TICKS_PER_SECOND
}

/// One line of `/proc/<pid>/stat`; proc(5) numbers its fields.
struct Usage {
    pid: u32,
    parent: u32,
    /// User and system time, its own and of the children it waited for.
    ticks: u64,
}

impl Usage {
    fn read(pid: u32) -> Option<Self> {
        let line = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field, the program's name, may contain anything; the third starts after its last parenthesis.
        let fields: Vec<&str> = line.get(line.rfind(')')? + 2..)?.split(' ').collect();
        let parent = fields.get(1)?.parse().ok()?;
        let ticks = fields.get(11..15)?.iter().filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
        Some(Self { pid, parent, ticks })
    }
}

/// The end of a child's output.
#[derive(Debug, Default)]
struct Log(std::collections::VecDeque<u8>);

impl Log {
    fn append(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
        let surplus = self.0.len().saturating_sub(LOG_BYTES_MAX);
        self.0.drain(..surplus);
    }

    fn text(&self) -> String {
        let (front, back) = self.0.as_slices();
        String::from_utf8_lossy(&[front, back].concat()).into_owned()
    }
}

fn capture(mut output: impl Read + Send + 'static, log: &Arc<Mutex<Log>>) -> thread::JoinHandle<()> {
    let log = Arc::clone(log);
    thread::spawn(move || {
        let mut piece = [0; 8 << 10];
        while let Ok(read @ 1..) = output.read(&mut piece) {
            lock(&log).append(&piece[..read]);
        }
    })
}
