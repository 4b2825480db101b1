//! A pooler of the test's own, in this process, in front of the test binary's PostgreSQL.

use std::{
    net::{SocketAddr, TcpListener},
    process::{Command, Output},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use tenfold_pooler::{
    Deps, Pooler, PoolerThreads, ProcessAsk,
    config::{Config, Database, Host, Password},
    tls::MakeTls,
};
use tenfold_service::{
    acceptor::{Accepted, Address, Peer, Stream},
    clock::Clock,
    drain::Drain,
    limits::ConnectionLimits,
    metrics::Registry,
};

use tokio::sync::oneshot;

use crate::direct::cluster;

/// Clients of one pooler in a test, at most.
const CLIENTS_MAX: usize = 20_000;

/// A running pooler. It ends when dropped.
pub(crate) struct Pooled {
    pub(crate) pooler: Pooler,
    address: SocketAddr,
    threads: Option<PoolerThreads>,
    stop: Arc<AtomicBool>,
    stop_control: Option<oneshot::Sender<()>>,
    helpers: Vec<JoinHandle<()>>,
    pub(crate) log: Arc<Mutex<Vec<String>>>,
    /// What its console asks of the process.
    pub(crate) asks: Option<tokio::sync::mpsc::Receiver<ProcessAsk>>,
}

/// One database, `postgres` as everyone's, without passwords towards the server.
pub(crate) fn config() -> Config {
    let port = cluster().primary().port();
    let mut database = Database::new("postgres", vec![Host::Tcp { host: "127.0.0.1".into(), port }]);
    database.user = Some("postgres".into());
    database.password = Some(Password::new("unused"));
    database.pool.size = 4;
    database.pool.reserve = 0;
    let mut config = Config { databases: vec![database], ..Config::default() };
    config.auth = tenfold_pooler::config::AuthMethod::Trust;
    config
}

impl Pooled {
    pub(crate) fn start(config: Config) -> Self {
        Self::start_with(config, 1)
    }

    pub(crate) fn start_with(config: Config, workers: usize) -> Self {
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&log);
        let (process, asks) = tokio::sync::mpsc::channel(1);
        let deps = Deps {
            clock: Clock::system(),
            registry: Registry::new(workers),
            drain: Drain::new(),
            log: Arc::new(move |_, line: &str| lines.lock().unwrap().push(line.to_owned())),
            seed: 7,
            workers,
            process,
            make_tls: no_files(),
        };
        let pooler = Pooler::build(config, deps).unwrap();
        let threads = pooler.start().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (stop_control, stopped) = oneshot::channel();
        let control = spawn_control(pooler.clone(), stopped);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let accepting = spawn_accepting(listener, pooler.clone(), Arc::clone(&stop));
        Self {
            pooler,
            address,
            threads: Some(threads),
            stop,
            stop_control: Some(stop_control),
            helpers: vec![control, accepting],
            log,
            asks: Some(asks),
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Runs psql against it: standard output, or standard error if that fails.
    pub(crate) fn psql(&self, sql: &str) -> Result<String, String> {
        let output = self.psql_command().args(["-c", sql]).output().unwrap();
        told(output)
    }

    pub(crate) fn psql_command(&self) -> Command {
        let mut psql = Command::new("psql");
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]);
        psql.args(["-h", "127.0.0.1", "-U", "postgres", "-d", "postgres"]);
        psql.args(["-p", &self.port().to_string()])
            .env("PGPASSWORD", "unused")
            .env("PGCONNECT_TIMEOUT", "10");
        psql
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.stop_control.take());
        // Wakes the accepting thread.
        let _ = std::net::TcpStream::connect(self.address);
        if let Some(threads) = self.threads.take() {
            threads.stop().unwrap();
        }
        for helper in self.helpers.drain(..) {
            helper.join().unwrap();
        }
    }
}

/// No configuration here names files.
fn no_files() -> MakeTls {
    MakeTls {
        towards_clients: Arc::new(|_, _| Err("there are no files".into())),
        towards_servers: Arc::new(|_, _| Err("there are no files".into())),
    }
}

pub(crate) fn told(output: Output) -> Result<String, String> {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().trim_end().to_owned();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

fn spawn_control(pooler: Pooler, stopped: oneshot::Receiver<()>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let local = tokio::task::LocalSet::new();
        local.spawn_local(pooler.control());
        // The sender is dropped with the pooler.
        local.block_on(&runtime, async move {
            let _ = stopped.await;
        });
    })
}

fn spawn_accepting(listener: TcpListener, pooler: Pooler, stop: Arc<AtomicBool>) -> JoinHandle<()> {
    let limits = ConnectionLimits::new(CLIENTS_MAX, None);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let stream = stream.unwrap();
            stream.set_nonblocking(true).unwrap();
            stream.set_nodelay(true).unwrap();
            let peer = stream.peer_addr().unwrap();
            let local = stream.local_addr().unwrap();
            let permit = limits.try_acquire(peer.ip()).unwrap();
            pooler.accept(Accepted {
                stream: Stream::Tcp(stream),
                peer: Peer::Tcp(peer),
                local: Address::Tcp(local),
                permit,
            });
        }
    })
}
