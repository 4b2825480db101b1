//! The console's commands, done to the tier.
//!
//! **Intuition.** PAUSE is there so that a database can be restarted: it lets what runs finish, closes the server
//! connections one by one as they come free, and holds what would begin. So it has come true when none is open.
//!
//! **Mechanism.** Flags that workers look at before they lend, and orders to them; what takes time is looked at again
//! every [`POLL`]. Reading files and ending the process are asked of the process ([`ProcessAsk`]).
//!
//! **Failure.** A client that keeps its server connection between transactions (session mode, a temporary table) keeps
//! PAUSE waiting until it leaves, as in PgBouncer; KILL ends it.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tenfold_pgwire::write;
use tenfold_service::acceptor::Stream;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    sync::oneshot,
};

use super::{
    api::{ConsoleApi, Refused, Shutdown},
    gather,
    session::{Session, serve},
    tls_settings,
};
use crate::{
    config::Config,
    mailbox::Order,
    pooler::ProcessAsk,
    report::{Pause, Report, StatsRow},
    shared::{Database, Level, Shared},
};

/// How often a command that waits looks whether it has come true.
const POLL: Duration = Duration::from_millis(20);

/// The tier under command. Clones are the same.
#[derive(Clone, Debug)]
pub struct Tier {
    shared: Arc<Shared>,
}

/// Serves a console session on a socket whose client is logged in.
pub async fn session(shared: Arc<Shared>, stream: Stream, user: Arc<str>, is_admin: bool, id: u64) {
    let session = Session { user: Arc::clone(&user), is_admin, id };
    let tier = Tier::new(Arc::clone(&shared));
    let _seat = shared.desk.sit_down();
    let served = serve_on(stream, session, &tier).await;
    if let Err(error) = served {
        shared.log(Level::Info, &format!("console of {user}: {error}"));
    }
}

async fn serve_on(stream: Stream, session: Session, tier: &Tier) -> io::Result<()> {
    match stream {
        Stream::Tcp(stream) => greet(tokio::net::TcpStream::from_std(stream)?, session, tier).await,
        Stream::Unix(stream) => greet(tokio::net::UnixStream::from_std(stream)?, session, tier).await,
    }
}

/// What the console reports of itself: tools tell PgBouncer's console from a server by this version.
const REPORTS: [(&str, &str); 7] = [
    ("server_version", "1.25.0/bouncer"),
    ("client_encoding", "UTF8"),
    ("server_encoding", "UTF8"),
    ("DateStyle", "ISO"),
    ("TimeZone", "GMT"),
    ("standard_conforming_strings", "on"),
    ("is_superuser", "on"),
];

async fn greet<S>(mut stream: S, session: Session, tier: &Tier) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut out = Vec::new();
    for (name, value) in REPORTS {
        write::parameter_status(&mut out, name.as_bytes(), value.as_bytes());
    }
    stream.write_all(&out).await?;
    serve(stream, session, tier).await
}

impl Tier {
    /// The tier behind this.
    #[must_use]
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// PAUSE without waiting for it to come true.
    ///
    /// # Errors
    /// As [`ConsoleApi::pause`].
    pub fn begin_pause(&self, database: Option<&str>) -> Result<(), Refused> {
        self.log("PAUSE", database);
        match database {
            Some(name) => self.database(name)?.paused.store(true, Ordering::Relaxed),
            None if self.shared.desk.change(Pause::Active, Pause::Paused) => {}
            None => return Err(Refused::State("already suspended/paused".into())),
        }
        self.close_servers(database, Database::close_when_free)
    }

    /// Has server connections closed: idle ones now, others when they are free.
    fn close_servers(&self, database: Option<&str>, mark: fn(&Database)) -> Result<(), Refused> {
        for database in self.databases(database)? {
            mark(&database);
            self.shared.tell_all(|| Order::Reconnect { database: Some(Arc::clone(&database)) });
        }
        Ok(())
    }

    fn database(&self, name: &str) -> Result<Arc<Database>, Refused> {
        self.shared.database(name).ok_or_else(|| Refused::NoDatabase(name.to_owned()))
    }

    /// One, or all.
    fn databases(&self, name: Option<&str>) -> Result<Vec<Arc<Database>>, Refused> {
        match name {
            Some(name) => Ok(vec![self.database(name)?]),
            None => Ok(self.shared.databases()),
        }
    }

    fn wake(&self, databases: &[Arc<Database>]) {
        for database in databases {
            self.shared.tell_all(|| Order::Wake { database: Arc::clone(database) });
        }
    }

    fn log(&self, command: &str, database: Option<&str>) {
        let what = database.map_or_else(String::new, |name| format!(" '{name}'"));
        self.shared.log(Level::Info, &format!("{command}{what} command issued"));
    }

    /// Ends the process once all clients have left, or no server connection serves anybody.
    async fn end_after(self, how: Shutdown) {
        let is_over = |database: &Arc<Database>| match how {
            Shutdown::WaitForClients => database.clients.load(Ordering::Relaxed) == 0,
            _ => {
                let pools = database.pools();
                let at_replicas: Vec<_> = pools.iter().flat_map(|pool| pool.at_replicas()).collect();
                pools.iter().chain(&at_replicas).all(|pool| pool.open() <= pool.idle())
            }
        };
        while !self.shared.databases().iter().all(is_over) {
            tokio::time::sleep(POLL).await;
        }
        let ask = self.shared.process.send(ProcessAsk::Shutdown { at_once: false });
        if ask.await.is_err() {
            self.shared.log(Level::Warn, "SHUTDOWN: the process does not take this command");
        }
    }

    fn ask(&self, ask: ProcessAsk) -> Result<(), Refused> {
        let nobody = |_| Refused::State("the process does not take this command now".into());
        self.shared.process.try_send(ask).map_err(nobody)
    }

    /// Returns when `is_true`, or once the pause it belongs to is over.
    async fn wait(&self, is_over: impl Fn() -> bool, is_true: impl Fn() -> bool) -> Result<(), Refused> {
        while !is_true() {
            if is_over() {
                return Err(Refused::State("resumed before it was done".into()));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }
}

impl ConsoleApi for Tier {
    async fn report(&self) -> Report {
        let mut report = gather::report(&self.shared).await;
        report.routes = gather::routes(&self.shared);
        self.shared.desk.observe(self.shared.clock.now(), &report.totals);
        report
    }

    fn averages(&self, totals: &[StatsRow]) -> Vec<StatsRow> {
        self.shared.desk.averages(self.shared.clock.now(), totals)
    }

    fn config(&self) -> Arc<Config> {
        self.shared.config.load_full()
    }

    fn apply(&self, mut config: Config) -> Result<Option<String>, Refused> {
        let waits = tls_settings::remake(&self.shared.config.load(), &mut config, &self.shared.make_tls)?;
        let disabled: Vec<_> = self.shared.databases();
        let disabled: Vec<_> =
            disabled.into_iter().filter(|database| database.disabled.load(Ordering::Relaxed)).collect();
        crate::pooler::reload(&self.shared, config).map_err(|errors| {
            let first = errors.first().map(|error| format!("{}: {}", error.path, error.message));
            Refused::Value(first.unwrap_or_default())
        })?;
        // What was closed by DISABLE stays closed.
        disabled.iter().for_each(|database| database.disabled.store(true, Ordering::Relaxed));
        Ok(waits)
    }

    async fn reload(&self) -> Result<(), Refused> {
        self.log("RELOAD", None);
        let (reply, answer) = oneshot::channel();
        self.ask(ProcessAsk::Reload { reply })?;
        match answer.await {
            Ok(reloaded) => reloaded.map_err(Refused::Config),
            Err(_) => Err(Refused::Config("the process is about to end".into())),
        }
    }

    async fn pause(&self, database: Option<&str>) -> Result<(), Refused> {
        self.begin_pause(database)?;
        let databases = self.databases(database)?;
        let is_over = || match database {
            Some(_) => databases.iter().any(|database| !database.paused.load(Ordering::Relaxed)),
            None => self.shared.desk.pause() == Pause::Active,
        };
        self.wait(is_over, || databases.iter().all(|database| database.servers() == 0)).await
    }

    async fn suspend(&self) -> Result<(), Refused> {
        self.log("SUSPEND", None);
        if !self.shared.desk.change(Pause::Active, Pause::Suspended) {
            return Err(Refused::State("already suspended/paused".into()));
        }
        self.shared.tell_all(|| Order::Suspend { on: true });
        // What was asked before is answered, and has arrived.
        while gather::report(&self.shared).await.unanswered > 0 {
            if self.shared.desk.pause() == Pause::Active {
                return Err(Refused::State("resumed before it was done".into()));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    fn resume(&self, database: Option<&str>) -> Result<(), Refused> {
        self.log("RESUME", database);
        if self.shared.closing.load(Ordering::Relaxed) {
            return Err(Refused::State("pooler is shutting down".into()));
        }
        if let Some(name) = database {
            let database = self.database(name)?;
            if !database.paused.swap(false, Ordering::Relaxed) {
                return Err(Refused::State(format!("database {name} is not paused")));
            }
            self.wake(&[database]);
            return Ok(());
        }
        let desk = &self.shared.desk;
        if !desk.change(Pause::Paused, Pause::Active) && !desk.change(Pause::Suspended, Pause::Active) {
            return Err(Refused::State("pooler is not paused/suspended".into()));
        }
        self.shared.tell_all(|| Order::Suspend { on: false });
        self.wake(&self.shared.databases());
        Ok(())
    }

    fn reconnect(&self, database: Option<&str>) -> Result<(), Refused> {
        self.log("RECONNECT", database);
        self.close_servers(database, Database::reconnect)
    }

    async fn wait_close(&self, database: Option<&str>) -> Result<(), Refused> {
        self.databases(database)?;
        let is_meant = |name: &str| database.is_none_or(|database| database == name);
        loop {
            let report = gather::report(&self.shared).await;
            if !report.servers.iter().any(|server| server.close_needed && is_meant(&server.database)) {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn enable(&self, database: &str, enabled: bool) -> Result<(), Refused> {
        self.log(if enabled { "ENABLE" } else { "DISABLE" }, Some(database));
        self.database(database)?.disabled.store(!enabled, Ordering::Relaxed);
        Ok(())
    }

    fn kill(&self, database: Option<&str>) -> Result<(), Refused> {
        self.log("KILL", database);
        for database in self.databases(database)? {
            database.paused.store(true, Ordering::Relaxed);
            self.shared.tell_all(|| Order::Kill { database: Some(Arc::clone(&database)) });
        }
        Ok(())
    }

    async fn kill_client(&self, id: u64) -> Result<(), Refused> {
        let report = gather::report(&self.shared).await;
        let client = report.clients.iter().find(|client| client.id == id);
        let worker = client.ok_or_else(|| Refused::Value("client not found".into()))?.worker;
        self.shared.tell(worker, Order::KillClient { id });
        Ok(())
    }

    fn shutdown(&self, how: Shutdown) -> Result<(), Refused> {
        self.log("SHUTDOWN", None);
        if how == Shutdown::Now {
            return self.ask(ProcessAsk::Shutdown { at_once: true });
        }
        if self.shared.closing.swap(true, Ordering::Relaxed) {
            return Err(Refused::State("already shutting down".into()));
        }
        if how == Shutdown::WaitForServers {
            self.shared.desk.change(Pause::Active, Pause::Paused);
        }
        tokio::spawn(self.clone().end_after(how));
        Ok(())
    }
}
