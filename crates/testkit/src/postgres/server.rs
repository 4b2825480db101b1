//! One PostgreSQL server: a primary, or the replica of one.
//!
//! **Intuition.** What a person does by hand with `initdb`, a few settings and `pg_basebackup`, done in a second and
//! undone completely.
//!
//! **Mechanism.** The server's settings are appended to its `postgresql.conf`, where the last mention wins. It runs
//! guarded (see [`crate::process`]): when we die it gets a fast shutdown and its folder is removed. A port that
//! somebody takes between our choosing and its binding is chosen again.
//!
//! **Failure.** A server that exits while starting is [`Error::Failed`] with its log, in which a full disk or a
//! missing module is named by PostgreSQL itself.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::{Auth, Install, Options, SUPERUSER, Tls};
use crate::process::{Child, Guard, StopSignal, free_port};
use crate::{Error, try_wait_for};

const INITDB_LIMIT: Duration = Duration::from_secs(120);
const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(10);
const QUIT_LIMIT: Duration = Duration::from_secs(5);
const PORT_TRIES_MAX: u32 = 5;
const PORT_IN_USE: &str = "Address already in use";
const DISK_FULL: &str = "No space left on device";
/// What a start says while the last processes of a killed server are still leaving.
const MEMORY_IN_USE: &str = "pre-existing shared memory block";
/// `sun_path` on the systems we run on holds 108 bytes; PostgreSQL's file name needs up to 17 with its slash.
const SOCKET_FOLDER_BYTES_MAX: usize = 90;

/// A server with its data folder. Dropping it stops it; the cluster's folder goes with the cluster.
#[derive(Debug)]
pub struct Server {
    pub(super) install: Install,
    auth: Auth,
    folder: PathBuf,
    port: u16,
    pub(super) child: Option<Child>,
    /// Between [`Server::freeze`] and [`Server::thaw`].
    pub(super) is_frozen: bool,
}

impl Server {
    pub(super) fn primary(install: Install, folder: PathBuf, options: &Options) -> Result<Self, Error> {
        let auth = options.auth.clone();
        let mut server = Self { install, auth, folder, port: 0, child: None, is_frozen: false };
        let mut initdb = server.install.program("initdb");
        initdb.arg("-D").arg(server.data()).args([
            "-U",
            SUPERUSER,
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        ]);
        match &options.auth {
            Auth::Trust => {
                initdb.arg("--auth=trust");
            }
            Auth::Scram { password } => {
                let file = server.folder.join("password");
                std::fs::write(&file, password).map_err(Error::file(&file))?;
                server.give(&file)?;
                initdb.arg("--auth=scram-sha-256").arg("--pwfile").arg(file);
            }
        }
        server.run("initdb", initdb)?;
        server.append_settings(&primary_settings(options))?;
        if let Some(tls) = &options.tls {
            server.use_tls(tls)?;
        }
        if let Some(rules) = &options.hba {
            server.write_hba(rules)?;
        }
        server.start()?;
        Ok(server)
    }

    /// A streaming replica of `primary`, from a base backup, with a replication slot of its own.
    pub(super) fn replica(primary: &Self, folder: PathBuf, number: usize) -> Result<Self, Error> {
        let (install, auth) = (primary.install.clone(), primary.auth.clone());
        let mut server = Self { install, auth, folder, port: 0, child: None, is_frozen: false };
        let mut backup = server.install.program("pg_basebackup");
        backup.arg("-D").arg(server.data()).args(["-U", SUPERUSER, "-h", "127.0.0.1", "-p"]);
        backup.arg(primary.port.to_string());
        backup.args(["--wal-method=stream", "--checkpoint=fast", "--no-sync", "--write-recovery-conf"]);
        backup.arg("--create-slot").arg(format!("--slot=replica_{number}"));
        server.authenticate(&mut backup);
        server.run("pg_basebackup", backup)?;
        server.start()?;
        Ok(server)
    }

    /// Starts it, if it is not running, and waits until it accepts connections. The port may change unless it ran
    /// before.
    ///
    /// # Errors
    /// [`Error::Failed`] with its log; [`Error::TimedOut`]; [`Error::File`].
    pub fn start(&mut self) -> Result<(), Error> {
        if self.is_running() {
            return Ok(());
        }
        if self.port != 0 {
            return try_wait_for("the killed server's memory to be free", START_LIMIT, || {
                Some(self.start_once()).filter(|started| !failed_with(started, MEMORY_IN_USE))
            })?;
        }
        let mut tries = 0;
        loop {
            tries += 1;
            self.port = free_port().map_err(Error::system("choosing a port"))?;
            self.append_settings(&self.place_settings())?;
            let started = self.start_once();
            if tries == PORT_TRIES_MAX || !failed_with(&started, PORT_IN_USE) {
                return started.map_err(|error| self.name_full_disk(error));
            }
        }
    }

    fn start_once(&mut self) -> Result<(), Error> {
        let mut postgres = self.install.program("postgres");
        postgres.arg("-D").arg(self.data()).current_dir(&self.folder);
        let guard = Guard {
            stop_signal: Some(StopSignal::Interrupt),
            remove: Some(self.folder.clone()),
            ..self.guard()
        };
        let mut child = Child::spawn_guarded(&postgres, &guard)?;
        let ready = try_wait_for("PostgreSQL to accept connections", START_LIMIT, || {
            if let Some(status) = child.try_wait() {
                let (what, status) = ("starting PostgreSQL".to_owned(), status.to_string());
                return Some(Err(Error::Failed { what, status, log: child.log() }));
            }
            self.accepts().then_some(Ok(()))
        });
        ready??;
        self.child = Some(child);
        Ok(())
    }

    /// Whether it lets clients in, which it says before asking who they are.
    fn accepts(&self) -> bool {
        let mut ready = Command::new(self.install.bin.join("pg_isready"));
        ready.args(["-q", "-t", "1", "-h", "127.0.0.1", "-p"]).arg(self.port.to_string());
        ready.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        ready.status().is_ok_and(|status| status.success())
    }

    /// Stops it as `pg_ctl -m fast` does: clients are disconnected, the log is complete. Its data stays.
    pub fn stop(&mut self) {
        self.thaw();
        let Some(mut child) = self.child.take() else { return };
        child.signal(StopSignal::Interrupt);
        if child.wait(STOP_LIMIT).is_err() {
            child.stop(StopSignal::Quit, QUIT_LIMIT);
        }
    }

    /// Kills it outright, as a power cut would; [`Server::start`] then recovers.
    pub fn kill(&mut self) {
        // Processes that stand still would not notice that their server is gone.
        self.thaw();
        if let Some(mut child) = self.child.take() {
            child.kill();
        }
    }

    /// Whether its process lives.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().is_none())
    }

    /// Where it listens, on 127.0.0.1. Stays the same over stops and starts.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A connection string for any driver, to the database `postgres` as its superuser.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of(SUPERUSER)
    }

    /// A connection string to this database.
    #[must_use]
    pub fn url_of(&self, database: &str) -> String {
        let password = match &self.auth {
            Auth::Trust => String::new(),
            Auth::Scram { password } => format!(":{password}"),
        };
        format!("postgresql://{SUPERUSER}{password}@127.0.0.1:{}/{database}", self.port)
    }

    /// The folder of its Unix socket, private to the account it runs as; `None` where the path is too long for one.
    #[must_use]
    pub fn socket_folder(&self) -> Option<PathBuf> {
        (self.folder.as_os_str().len() <= SOCKET_FOLDER_BYTES_MAX).then(|| self.folder.clone())
    }

    /// Runs SQL through the `psql` program, in the database `postgres`; returns unaligned rows without headings.
    ///
    /// # Errors
    /// [`Error::Failed`] with PostgreSQL's message, at the first statement that fails.
    pub fn psql(&self, sql: &str) -> Result<String, Error> {
        self.psql_in(SUPERUSER, sql)
    }

    /// [`Server::psql`] in this database.
    ///
    /// # Errors
    /// As [`Server::psql`].
    pub fn psql_in(&self, database: &str, sql: &str) -> Result<String, Error> {
        let mut psql = self.install.program("psql");
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", SUPERUSER]);
        psql.arg("-p")
            .arg(self.port.to_string())
            .args(["-d", database])
            .args(["-c", sql])
            .stdin(Stdio::null());
        self.authenticate(&mut psql);
        let output = psql.output().map_err(Error::system("starting psql"))?;
        if !output.status.success() {
            let log = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(Error::Failed { what: "psql".into(), status: output.status.to_string(), log });
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }

    /// Processor time used so far by its processes since it started, in seconds.
    #[must_use]
    pub fn cpu_seconds(&self) -> f64 {
        self.child.as_ref().map_or(0.0, Child::cpu_seconds)
    }

    /// The end of its log.
    #[must_use]
    pub fn log(&self) -> String {
        self.child.as_ref().map_or_else(String::new, Child::log)
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn guard(&self) -> Guard {
        Guard { account: self.install.account.clone(), ..Guard::default() }
    }

    pub(super) fn authenticate(&self, command: &mut Command) {
        if let Auth::Scram { password } = &self.auth {
            command.env("PGPASSWORD", password);
        }
    }

    /// Runs one of PostgreSQL's programs as the server's account; a death of ours in the middle leaves nothing.
    fn run(&self, what: &str, mut command: Command) -> Result<(), Error> {
        command.current_dir(&self.folder);
        let guard = Guard { remove: Some(self.folder.clone()), ..self.guard() };
        Child::run(what, &command, &guard, INITDB_LIMIT).map(drop).map_err(|error| self.name_full_disk(error))
    }

    /// A full disk, which hides in the middle of a log, becomes an error that says so.
    fn name_full_disk(&self, error: Error) -> Error {
        match error {
            Error::Failed { log, .. } if log.contains(DISK_FULL) => {
                Error::File { path: self.folder.clone(), source: io::ErrorKind::StorageFull.into() }
            }
            error => error,
        }
    }

    /// Files that only the server's account may read, as PostgreSQL wants of a key.
    fn use_tls(&self, tls: &Tls) -> Result<(), Error> {
        let mut settings = vec![("ssl".to_owned(), "on".to_owned())];
        let mut file = |setting: &str, name: &str, text: &str| {
            let path = self.data().join(name);
            std::fs::write(&path, text).map_err(Error::file(&path))?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))
                .map_err(Error::file(&path))?;
            settings.push((setting.to_owned(), name.to_owned()));
            self.give(&path)
        };
        file("ssl_cert_file", "server.crt", &tls.identity.certificate)?;
        file("ssl_key_file", "server.key", &tls.identity.key)?;
        if let Some(ca) = &tls.client_ca {
            file("ssl_ca_file", "clients.crt", ca)?;
        }
        self.append_settings(&settings)
    }

    pub(super) fn write_hba(&self, rules: &str) -> Result<(), Error> {
        let path = self.data().join("pg_hba.conf");
        std::fs::write(&path, rules).map_err(Error::file(&path))
    }

    fn give(&self, file: &Path) -> Result<(), Error> {
        let Some(account) = &self.install.account else { return Ok(()) };
        std::os::unix::fs::chown(file, Some(account.uid), Some(account.gid)).map_err(Error::file(file))
    }

    fn append_settings(&self, settings: &[(String, String)]) -> Result<(), Error> {
        let file = self.data().join("postgresql.conf");
        let mut lines = String::new();
        for (name, value) in settings {
            lines.push_str(&format!("{name} = '{}'\n", value.replace('\'', "''")));
        }
        let opened = OpenOptions::new().append(true).open(&file);
        opened.and_then(|mut conf| conf.write_all(lines.as_bytes())).map_err(Error::file(&file))
    }

    fn place_settings(&self) -> Vec<(String, String)> {
        let sockets = self.socket_folder().map_or_else(String::new, |folder| folder.display().to_string());
        let name = self.folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        vec![
            ("listen_addresses".into(), "127.0.0.1".into()),
            ("port".into(), self.port.to_string()),
            ("unix_socket_directories".into(), sockets),
            ("cluster_name".into(), name),
        ]
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn failed_with(started: &Result<(), Error>, message: &str) -> bool {
    matches!(started, Err(Error::Failed { log, .. }) if log.contains(message))
}

fn primary_settings(options: &Options) -> Vec<(String, String)> {
    let mut settings: Vec<(&str, String)> = vec![
        ("shared_buffers", "128MB".into()),
        ("max_connections", options.connections_max.to_string()),
        ("shared_preload_libraries", "pg_stat_statements".into()),
        ("pg_stat_statements.save", "off".into()),
        ("max_wal_senders", "10".into()),
        // A replica finds a primary that came back at once, not after five seconds.
        ("wal_retrieve_retry_interval", "100ms".into()),
        ("log_line_prefix", "%m [%p] ".into()),
    ];
    if !options.fsync {
        let durability = ["fsync", "synchronous_commit", "full_page_writes"];
        settings.extend(durability.map(|name| (name, "off".to_owned())));
    }
    let own = settings.into_iter().map(|(name, value)| (name.to_owned(), value));
    own.chain(options.settings.iter().cloned()).collect()
}
