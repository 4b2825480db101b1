//! A real Redis on a port of its own, and what can befall one.
//!
//! The server keeps nothing on disk, so a restart is a loss. What a replica writes when it copies its master goes to a
//! folder of its own, or the next server would begin with it. It is spoken to in its own protocol over a plain socket, which
//! leaves the product's client out of it.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::process::{Child, free_port};
use crate::{Error, try_wait_for};

const HINT: &str = "install Redis 6.2 or newer, or Valkey (Debian, Ubuntu: redis-server; Fedora: valkey; macOS: brew install redis)";
const PROGRAMS: [&str; 2] = ["redis-server", "valkey-server"];
/// How long the server may take to come up, and to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running server. Dropping it kills it.
#[derive(Debug)]
pub struct Redis {
    child: Child,
    port: u16,
    options: Vec<String>,
    folder: TempDir,
    /// It was a replica: what made it one does not count any more.
    is_promoted: AtomicBool,
}

/// The option that makes a server a replica, before the master's address.
const REPLICA_OF: &str = "--replicaof";

impl Redis {
    /// Starts a server with these options (`--maxmemory`, `10mb`, …), and waits until it answers.
    ///
    /// # Errors
    /// [`Error::NotInstalled`], [`Error::System`], [`Error::TimedOut`].
    pub fn start(options: &[&str]) -> Result<Self, Error> {
        let port = free_port().map_err(Error::system("finding a port"))?;
        let options: Vec<_> = options.iter().map(|&option| option.to_owned()).collect();
        let folder = new_folder()?;
        let child = spawn(port, &options, folder.path())?;
        let redis = Self { child, port, options, folder, is_promoted: AtomicBool::new(false) };
        redis.until_up()?;
        Ok(redis)
    }

    /// Where it listens, on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// As a client wants it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// One command, without quoting: words between blanks. The answer as text, one line for each part of it.
    ///
    /// # Panics
    /// If the server doesn't answer.
    #[must_use]
    pub fn command(&self, words: &[&str]) -> String {
        command(self.port, words).expect("Redis answers")
    }

    /// It goes on existing and answers nothing: SIGSTOP.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// It goes on: SIGCONT.
    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// It is gone at once, with all it had.
    pub fn kill(&mut self) {
        self.child.kill();
    }

    /// It comes back on the same port, empty; once [promoted](Self::promote), as a master.
    ///
    /// # Errors
    /// As [`Redis::start`].
    pub fn restart(&mut self) -> Result<(), Error> {
        self.child.kill();
        // Whatever it wrote is gone with the rest.
        self.folder = new_folder()?;
        if *self.is_promoted.get_mut()
            && let Some(at) = self.options.iter().position(|option| option == REPLICA_OF)
        {
            self.options.drain(at..at + 2);
        }
        self.child = spawn(self.port, &self.options, self.folder.path())?;
        self.until_up()
    }

    /// A second server that copies this one, and waits until it has.
    ///
    /// # Errors
    /// As [`Redis::start`].
    pub fn replica(&self) -> Result<Self, Error> {
        let of = format!("127.0.0.1 {}", self.port);
        let replica = Self::start(&[REPLICA_OF, &of, "--repl-diskless-sync-delay", "0"])?;
        try_wait_for("the replica has its master's data", PATIENCE, || {
            replica.command(&["INFO", "replication"]).contains("master_link_status:up")
        })?;
        Ok(replica)
    }

    /// A replica becomes a master.
    pub fn promote(&self) {
        let _ = self.command(&["REPLICAOF", "NO", "ONE"]);
        self.is_promoted.store(true, Ordering::Relaxed);
    }

    /// A sentinel that watches this server, calls it by a name, and decides alone that it is gone, half a second after it
    /// has fallen silent. Its file is in a folder of its own, which goes with it.
    ///
    /// # Errors
    /// As [`Redis::start`].
    pub fn sentinel(&self, name: &str, options: &[&str]) -> Result<Sentinel, Error> {
        let folder = new_folder()?;
        let file = folder.path().join("sentinel.conf");
        let watched = format!(
            "sentinel monitor {name} 127.0.0.1 {} 1\nsentinel down-after-milliseconds {name} 500\n\
             sentinel failover-timeout {name} 2000\n",
            self.port
        );
        std::fs::write(&file, watched).map_err(Error::system("writing a sentinel's file"))?;
        let port = free_port().map_err(Error::system("finding a port"))?;
        let mut command = Command::new(program()?);
        command.arg(&file).args(["--sentinel", "--bind", "127.0.0.1", "--port", &port.to_string()]);
        command.args(options).current_dir(folder.path());
        let (child, options, is_promoted) = (Child::spawn(&command)?, Vec::new(), AtomicBool::new(false));
        let sentinel = Sentinel { server: Self { child, port, options, folder, is_promoted } };
        sentinel.server.until_up()?;
        Ok(sentinel)
    }

    fn until_up(&self) -> Result<(), Error> {
        try_wait_for("Redis answers", PATIENCE, || {
            command(self.port, &["PING"])
                .is_ok_and(|answer| ["PONG", "NOAUTH"].iter().any(|said| answer.contains(said)))
        })
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.pid().cast_signed());
        // It may have gone already, which the test will notice.
        let _ = kill(pid, signal);
    }
}

/// A server that watches a master and has a replica take its place. Dropping it kills it.
#[derive(Debug)]
pub struct Sentinel {
    server: Redis,
}

impl Sentinel {
    /// Where it listens, on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.server.port
    }

    /// As [`Redis::command`].
    ///
    /// # Panics
    /// If it doesn't answer.
    #[must_use]
    pub fn command(&self, words: &[&str]) -> String {
        self.server.command(words)
    }

    /// As [`Redis::freeze`].
    pub fn freeze(&self) {
        self.server.freeze();
    }

    /// Waits until it knows a replica that could take the master's place.
    ///
    /// # Errors
    /// [`Error::TimedOut`].
    pub fn until_it_knows_a_replica(&self, name: &str) -> Result<(), Error> {
        try_wait_for("the sentinel knows a replica", PATIENCE, || {
            self.command(&["SENTINEL", "REPLICAS", name]).contains("master-link-status\nok")
        })
    }
}

fn new_folder() -> Result<TempDir, Error> {
    tempfile::tempdir().map_err(Error::system("making a folder"))
}

fn program() -> Result<PathBuf, Error> {
    let program = PROGRAMS.iter().find_map(crate::process::find_program);
    program.ok_or_else(|| Error::NotInstalled { program: "Redis".into(), hint: HINT.into() })
}

fn spawn(port: u16, options: &[String], folder: &Path) -> Result<Child, Error> {
    let mut command = Command::new(program()?);
    command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--appendonly", "no"]);
    command.args(options).current_dir(folder);
    Child::spawn(&command)
}

/// One exchange on a connection of its own.
fn command(port: u16, words: &[&str]) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut request = format!("*{}\r\n", words.len());
    for word in words {
        request += &format!("${}\r\n{word}\r\n", word.len());
    }
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    read_answer(&mut BufReader::new(stream), &mut answer)?;
    Ok(answer)
}

fn read_answer(from: &mut impl BufRead, answer: &mut String) -> std::io::Result<()> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    let (kind, rest) = line.trim_end().split_at_checked(1).unwrap_or_default();
    let count: i64 = rest.parse().unwrap_or(-1);
    match kind {
        "$" if count >= 0 => {
            let mut bytes = vec![0; usize::try_from(count).unwrap_or_default() + 2];
            from.read_exact(&mut bytes)?;
            bytes.truncate(bytes.len() - 2);
            *answer += &String::from_utf8_lossy(&bytes);
            answer.push('\n');
        }
        "*" => {
            for _ in 0..count {
                read_answer(from, answer)?;
            }
        }
        _ => {
            *answer += rest;
            answer.push('\n');
        }
    }
    Ok(())
}
