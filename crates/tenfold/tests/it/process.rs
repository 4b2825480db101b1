//! The real binary: one command that ends, or a process that runs until it is told to stop.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tenfold_testkit::process::{Child, StopSignal};
use tenfold_testkit::raw::{Client, Response};
use tenfold_testkit::wait_for;

/// Generous: the machine may be busy, and a test that passes never waits this long.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// The program under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_tenfold");

/// A folder with a `tenfold.toml`.
pub(crate) struct Folder {
    folder: TempDir,
}

impl Folder {
    pub(crate) fn with(source: &str) -> Self {
        let folder = Self { folder: tempfile::tempdir().expect("a folder") };
        folder.write(source);
        folder
    }

    pub(crate) fn write(&self, source: &str) {
        std::fs::write(self.file(), source).expect("a file");
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.path().join("tenfold.toml")
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Runs `tenfold` in the folder until it ends by itself.
    pub(crate) fn tenfold(&self, arguments: &[&str]) -> Output {
        let mut command = self.command();
        command.args(arguments).output().expect("the binary runs")
    }

    fn command(&self) -> Command {
        let mut command = Command::new(BINARY);
        command.current_dir(self.path()).env("NO_COLOR", "1").env_remove("TENFOLD_ADMIN_TOKEN");
        command
    }

    /// Starts `tenfold run` and waits until it is ready.
    pub(crate) fn run(&self) -> Process {
        self.run_with(&[])
    }

    /// The same, with more arguments.
    pub(crate) fn run_with(&self, arguments: &[&str]) -> Process {
        let mut command = self.command();
        command.args(["run", "-c"]).arg(self.file()).args(arguments);
        let child = Child::spawn(&command).expect("the binary starts");
        let ready = wait_for("the ready line", LIMIT, || {
            let log = child.log();
            log.lines().find(|line| line.contains("is ready")).map(str::to_owned)
        });
        let places = |kind: &str| -> Vec<SocketAddr> {
            let marker = format!("{kind} http://");
            ready.split(marker.as_str()).skip(1).map(first_address).collect()
        };
        let pooler = ready
            .split("pooler ")
            .skip(1)
            .map(|text| text.split([',', '"']).next().unwrap_or_default().trim().to_owned());
        let pooler = pooler.collect();
        Process { admin: places("admin")[0], edge: places("edge"), probes: places("probes"), pooler, child }
    }
}

/// A running Tenfold whose stdout is a pipe that nobody reads. Killed when dropped.
pub(crate) struct Unread {
    child: std::process::Child,
    pub(crate) edge: SocketAddr,
}

impl Folder {
    pub(crate) fn run_unread(&self) -> Unread {
        use std::io::BufRead as _;
        let mut command = self.command();
        command.args(["run", "-c"]).arg(self.file()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        let mut lines = std::io::BufReader::new(child.stderr.take().expect("piped")).lines();
        let ready = lines
            .find_map(|line| line.ok().filter(|line| line.contains("is ready")))
            .expect("the ready line");
        // Diagnostics are read, so that only stdout is stuck.
        std::thread::spawn(move || lines.for_each(drop));
        let (_, edge) = ready.split_once("edge http://").expect("the edge's address");
        Unread { child, edge: first_address(edge) }
    }
}

impl Unread {
    pub(crate) fn terminate_and_wait(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs").success());
        let status = wait_for("its end", LIMIT, || self.child.try_wait().expect("a child"));
        assert_eq!(status.code(), Some(0));
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn first_address(text: &str) -> SocketAddr {
    let end = text.find([',', '"']).unwrap_or(text.len());
    text[..end].trim().parse().expect("an address in the ready line")
}

/// A running Tenfold. Killed when dropped.
pub(crate) struct Process {
    pub(crate) child: Child,
    pub(crate) admin: SocketAddr,
    pub(crate) edge: Vec<SocketAddr>,
    pub(crate) probes: Vec<SocketAddr>,
    /// Addresses, and paths of Unix sockets.
    pub(crate) pooler: Vec<String>,
}

impl Process {
    /// A request to the admin server, on a connection of its own.
    pub(crate) fn get(&self, path: &str) -> Response {
        get(self.admin, path)
    }

    /// Asks for a reload; the admin port is the kernel's choice, so the CLI has to be told.
    pub(crate) fn command(&self, folder: &Folder, arguments: &[&str]) -> Output {
        let admin = self.admin.to_string();
        folder.tenfold(&[arguments, &["--admin", &admin]].concat())
    }

    /// Sends a signal by the name that `kill` knows.
    pub(crate) fn kill(&self, signal: &str) {
        let pid = self.child.pid().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill runs").success());
    }

    /// SIGTERM, and the exit code once it has ended.
    pub(crate) fn terminate(mut self) -> (Option<i32>, String) {
        self.child.signal(StopSignal::Terminate);
        let status = self.child.wait(LIMIT).expect("it ends");
        (status.code(), self.child.log())
    }
}

pub(crate) fn get(address: SocketAddr, path: &str) -> Response {
    Client::connect(address).and_then(|mut client| client.get(path)).expect("an answer")
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
