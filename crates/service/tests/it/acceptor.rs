//! Real sockets, accepted, counted, refused and drained.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use nix::sys::resource::{Resource, setrlimit};
use tenfold_service::{
    Error,
    acceptor::{Accepted, Acceptor, AcceptorDeps, Address, Listener, Peer, Service, Serving, Stream},
    drain::Finished,
    limits::{ConnectionLimits, Refused},
};
use tenfold_testkit::wait_for;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{LIMIT, Process};

/// A process that echoes, and says on which worker.
struct Echo {
    process: Process,
    limits: Arc<ConnectionLimits>,
    acceptor: Option<Acceptor>,
    address: SocketAddr,
    /// Local addresses that connections came to.
    locals: Arc<Mutex<Vec<SocketAddr>>>,
}

impl Echo {
    fn start(workers: usize, total_max: usize, per_ip_max: Option<usize>) -> Self {
        Self::start_on("127.0.0.1:0", workers, total_max, per_ip_max)
    }

    fn start_on(address: &str, workers: usize, total_max: usize, per_ip_max: Option<usize>) -> Self {
        let process = Process::start(workers);
        let limits = ConnectionLimits::new(total_max, per_ip_max);
        let deps = AcceptorDeps {
            limits: Arc::clone(&limits),
            registry: process.registry.clone(),
            drain: process.drain.clone(),
        };
        let listener = Listener::bind(address.parse().unwrap()).unwrap();
        let address = local_of(&listener);
        let locals: Arc<Mutex<Vec<SocketAddr>>> = Arc::default();
        let service = echo(Arc::clone(&locals));
        let acceptor = Acceptor::spawn(vec![(listener, service)], &process.workers, &deps).unwrap();
        Self { process, limits, acceptor: Some(acceptor), address, locals }
    }

    fn connect(&self) -> TcpStream {
        connect(self.address)
    }

    fn join_acceptor(&mut self) {
        self.acceptor.take().unwrap().join();
    }

    fn finish(&self) -> Finished {
        block_on(self.process.drain.finished(LIMIT))
    }
}

fn echo(locals: Arc<Mutex<Vec<SocketAddr>>>) -> Service {
    Service {
        serving: Serving::OnWorker(Arc::new(move |worker, accepted: Accepted| {
            locals.lock().unwrap().push(accepted.local.tcp().unwrap());
            Box::pin(async move {
                let Accepted { stream, permit, .. } = accepted;
                let Stream::Tcp(stream) = stream else { panic!("it listens on TCP alone") };
                let mut stream = tokio::net::TcpStream::from_std(stream).unwrap();
                let mut byte = [0];
                while stream.read(&mut byte).await.is_ok_and(|read| read == 1) {
                    let answer = [byte[0], b'0' + u8::try_from(worker.index).unwrap()];
                    stream.write_all(&answer).await.unwrap();
                }
                drop(permit);
            })
        })),
        refusal: Arc::new(say_no),
        limits: None,
    }
}

fn say_no(refused: Refused) -> Arc<[u8]> {
    format!("no: {}", refused.as_str()).into_bytes().into()
}

fn local_of(listener: &Listener) -> SocketAddr {
    listener.local().tcp().unwrap()
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
}

/// Sends a byte, checks that it comes back, and says which worker did it.
fn ping(mut stream: &TcpStream) -> u8 {
    stream.write_all(b"x").unwrap();
    let mut answer = [0; 2];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer[0], b'x');
    answer[1] - b'0'
}

fn ping_all(streams: &[TcpStream]) {
    for stream in streams {
        ping(stream);
    }
}

fn read_to_end(mut stream: &TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[test]
fn connections_go_to_the_worker_with_the_fewest() {
    let echo = Echo::start(3, 100, None);
    let held: Vec<_> = (0..9).map(|_| echo.connect()).collect();
    let mut of_worker = [0; 3];
    held.iter().for_each(|stream| of_worker[usize::from(ping(stream))] += 1);
    assert_eq!(of_worker, [3, 3, 3]);
    // Those of worker 1 leave: it gets the next ones.
    let (left, stay): (Vec<_>, Vec<_>) = held.into_iter().partition(|stream| ping(stream) == 1);
    drop(left);
    wait_for("three connections to close", LIMIT, || echo.limits.open() == 6);
    let next: Vec<_> = (0..3).map(|_| echo.connect()).collect();
    assert!(next.iter().all(|stream| ping(stream) == 1));
    drop((stay, next));
    wait_for("all to close", LIMIT, || echo.limits.open() == 0);
    assert!(echo.process.workers.handles().iter().all(|handle| handle.open_connections() == 0));
    assert_eq!(echo.process.metric("tenfold_service_connections_accepted", None), 12.0);
}

#[test]
fn over_the_total_a_connection_is_told_and_closed() {
    let echo = Echo::start(2, 2, None);
    let held = [echo.connect(), echo.connect()];
    ping_all(&held);
    assert_eq!(read_to_end(&echo.connect()), "no: total");
    assert_eq!(echo.process.metric("tenfold_service_connections_refused", Some("total")), 1.0);
    assert_eq!(echo.process.metric("tenfold_service_connections_open", None), 2.0);
    drop(held);
    wait_for("both to close", LIMIT, || echo.limits.open() == 0);
    ping(&echo.connect());
}

#[test]
fn over_the_limit_of_its_address_a_connection_is_told_and_closed() {
    let echo = Echo::start(1, 100, Some(1));
    let held = echo.connect();
    ping(&held);
    assert_eq!(read_to_end(&echo.connect()), "no: per_ip");
    assert_eq!(echo.process.metric("tenfold_service_connections_refused", Some("per_ip")), 1.0);
    // Another address of this machine is another client.
    let other = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    other.bind(&SocketAddr::from(([127, 0, 0, 2], 0)).into()).unwrap();
    other.connect(&echo.address.into()).unwrap();
    ping(&other.into());
}

#[test]
fn a_refusal_reaches_a_client_that_spoke_first() {
    let echo = Echo::start(1, 0, None);
    for _ in 0..20 {
        let mut stream = echo.connect();
        // May fail if the refusal was quicker.
        drop(stream.write_all(b"GET / HTTP/1.1\r\n\r\n"));
        let mut text = Vec::new();
        // A reset may follow the refusal, but not overtake it.
        drop(stream.read_to_end(&mut text));
        assert_eq!(text, b"no: total");
    }
}

#[test]
fn the_drain_takes_what_is_queued_closes_and_waits_for_what_is_open() {
    let mut echo = Echo::start(2, 1_000, None);
    let held: Vec<_> = (0..50).map(|_| echo.connect()).collect();
    // All handshakes are done; whether they were accepted yet is left to chance.
    echo.process.drain.begin();
    echo.join_acceptor();
    assert!(TcpStream::connect(echo.address).is_err());
    ping_all(&held);
    assert_eq!(echo.process.drain.open(), 50);
    drop(held);
    assert_eq!(echo.finish(), Finished::Clean);
    assert_eq!(echo.limits.open(), 0);
}

#[test]
fn a_drain_that_is_forced_does_not_wait() {
    let mut echo = Echo::start(1, 10, None);
    let held = echo.connect();
    ping(&held);
    echo.process.drain.begin();
    echo.process.drain.force();
    echo.join_acceptor();
    assert_eq!(echo.finish(), Finished::Forced { open: 1 });
    drop(echo);
    // The workers are gone, and the connection with them.
    assert_eq!(read_to_end(&held), "");
}

#[test]
fn listeners_come_and_go_while_it_runs() {
    let echo = Echo::start(1, 100, None);
    let handle = echo.acceptor.as_ref().unwrap().handle();
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let second = local_of(&listener);
    let service = self::echo(Arc::default());
    block_on(handle.add(listener, service.clone())).unwrap();
    let (first_held, second_held) = (echo.connect(), connect(second));
    ping(&first_held);
    ping(&second_held);
    assert!(block_on(handle.remove(second)));
    assert!(TcpStream::connect(second).is_err());
    assert!(!block_on(handle.remove(second)));
    // What it accepted stays, and the address is free again.
    ping(&second_held);
    let again = Listener::bind(second).unwrap();
    block_on(handle.add(again, service.clone())).unwrap();
    ping(&connect(second));
    ping(&echo.connect());
    // After the drain there is nothing to add to.
    echo.process.drain.begin();
    wait_for("the listener to close", LIMIT, || TcpStream::connect(second).is_err());
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    assert!(matches!(block_on(handle.add(listener, service)), Err(Error::AcceptorStopped)));
}

#[test]
fn a_handler_that_panics_gives_its_permit_back() {
    let process = Process::start(1);
    let limits = ConnectionLimits::new(10, Some(10));
    let deps = AcceptorDeps {
        limits: Arc::clone(&limits),
        registry: process.registry.clone(),
        drain: process.drain.clone(),
    };
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = local_of(&listener);
    let calls = Arc::new(AtomicUsize::new(0));
    let called = Arc::clone(&calls);
    let service = Service {
        serving: Serving::OnWorker(Arc::new(move |_, accepted| {
            assert!(called.fetch_add(1, Ordering::Relaxed) > 0, "the first one, before its future");
            Box::pin(async move {
                let _held = accepted;
                panic!("the second one, in its future");
            })
        })),
        refusal: Arc::new(|_| Arc::default()),
        limits: None,
    };
    let _acceptor = Acceptor::spawn(vec![(listener, service)], &process.workers, &deps).unwrap();
    for _ in 0..2 {
        assert_eq!(read_to_end(&connect(address)), "");
    }
    wait_for("both permits", LIMIT, || limits.open() == 0 && process.panics.lock().unwrap().len() == 2);
    assert_eq!(process.workers.handles()[0].open_connections(), 0);
}

#[test]
fn an_unspecified_address_tells_where_the_client_came_in() {
    let echo = Echo::start_on("0.0.0.0:0", 1, 10, None);
    ping(&connect(SocketAddr::new([127, 0, 0, 3].into(), echo.address.port())));
    let local = echo.locals.lock().unwrap()[0];
    assert_eq!(local, SocketAddr::new(IpAddr::from([127, 0, 0, 3]), echo.address.port()));
}

#[test]
fn an_address_that_cannot_be_bound_says_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error = Listener::bind(address).unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "cannot listen on {address}: the address is in use; stop the process that listens there (`ss -ltnp` \
             names it) or choose another port"
        )
    );
    // TEST-NET-1 is nobody's.
    let error = Listener::bind("192.0.2.1:80".parse().unwrap()).unwrap_err().to_string();
    assert!(error.contains("this machine has no such address"), "{error}");
}

#[test]
fn reasons_have_stable_names() {
    let names = [Refused::Total, Refused::PerIp, Refused::Worker].map(Refused::as_str);
    assert_eq!(names, ["total", "per_ip", "worker"]);
}

/// A process whose service takes sockets on the acceptor's thread, from one path.
struct Taking {
    process: Process,
    acceptor: Acceptor,
    taken: std::sync::mpsc::Receiver<Accepted>,
    path: std::path::PathBuf,
    _folder: tempfile::TempDir,
}

fn taking(limits: Option<Arc<ConnectionLimits>>) -> Taking {
    let process = Process::start(1);
    let deps = AcceptorDeps {
        limits: ConnectionLimits::new(0, None),
        registry: process.registry.clone(),
        drain: process.drain.clone(),
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(".s.PGSQL.6432");
    let (taker, taken) = std::sync::mpsc::channel();
    let take = move |accepted| taker.send(accepted).unwrap();
    let service = Service { serving: Serving::HandOver(Arc::new(take)), refusal: Arc::new(say_no), limits };
    let listener = Listener::bind_path(&path).unwrap();
    let acceptor = Acceptor::spawn(vec![(listener, service)], &process.workers, &deps).unwrap();
    Taking { process, acceptor, taken, path, _folder: folder }
}

#[test]
fn a_tier_with_its_own_threads_takes_sockets_from_a_path_and_learns_whose_they_are() {
    let own = ConnectionLimits::new(1, Some(1));
    let Taking { process, acceptor, taken, path, _folder } = taking(Some(Arc::clone(&own)));
    let mut client = UnixStream::connect(&path).unwrap();
    let accepted = taken.recv_timeout(LIMIT).unwrap();
    let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    let pid = Some(i32::try_from(std::process::id()).unwrap());
    assert_eq!(accepted.peer, Peer::Unix { uid, gid, pid });
    assert_eq!(accepted.local, Address::Unix(path.clone()));
    let Stream::Unix(mut stream) = accepted.stream else { panic!("it came by the path") };
    client.write_all(b"x").unwrap();
    wait_for("the byte", LIMIT, || stream.read(&mut [0]).is_ok_and(|read| read == 1));
    // Its own limit holds, the acceptor's is another.
    assert_eq!(own.open(), 1);
    let mut said = String::new();
    UnixStream::connect(&path).unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "no: total");
    // The drain waits for it, and the file goes with the listener.
    process.drain.begin();
    acceptor.join();
    assert!(!path.exists());
    assert_eq!(process.drain.open(), 1);
    drop(accepted.permit);
    assert_eq!(block_on(process.drain.finished(LIMIT)), Finished::Clean);
}

#[test]
fn a_path_is_taken_over_from_the_dead_and_not_from_the_living() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(".s.PGSQL.5432");
    // A process that was killed leaves its file behind.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let listener = Listener::bind_path(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o777);
    let error = Listener::bind_path(&path).unwrap_err().to_string();
    assert!(error.contains("another process listens there"), "{error}");
    // What a successor put in our place is not ours to remove.
    std::fs::remove_file(&path).unwrap();
    let successor = Listener::bind_path(&path).unwrap();
    drop(listener);
    UnixStream::connect(&path).unwrap();
    drop(successor);
    assert!(!path.exists());
}

#[test]
fn a_path_that_cannot_be_bound_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let check = |path: std::path::PathBuf, advice: &str| {
        let error = Listener::bind_path(&path).unwrap_err().to_string();
        assert!(error.contains(advice), "{error}");
    };
    let file = folder.path().join("notes");
    std::fs::write(&file, "kept").unwrap();
    check(file.clone(), "is no socket");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "kept");
    check(folder.path().join("absent/.s.PGSQL.1"), "make it");
    check("@tenfold".into(), "abstract namespace");
    check("".into(), "1 to 107 bytes");
    check(folder.path().join("x".repeat(108)), "1 to 107 bytes");
}

const CHILD: &str = "TENFOLD_TEST_WITHOUT_DESCRIPTORS";

/// Limits on descriptors are the whole process's, so this runs in one of its own.
#[test]
fn without_descriptors_accepting_pauses_and_goes_on() {
    if std::env::var_os(CHILD).is_some() {
        return without_descriptors();
    }
    let name = "acceptor::without_descriptors_accepting_pauses_and_goes_on";
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
    assert!(String::from_utf8_lossy(&child.stdout).contains("1 passed"));
}

fn without_descriptors() {
    let echo = Echo::start(1, 100, None);
    let served = echo.connect();
    ping(&served);
    // As many as are open now, and one for the client's socket: none is left for the server's.
    let open = tenfold_service::metrics::process::open_descriptors().unwrap() as u64;
    setrlimit(Resource::RLIMIT_NOFILE, open + 1, open + 1000).unwrap();
    let waiting = echo.connect();
    let pauses = || echo.process.metric("tenfold_service_accept_pauses", None);
    wait_for("two pauses", LIMIT, || pauses() >= 2.0);
    // The one that is served goes on; when there is room again, so does the one that waits.
    ping(&served);
    assert!(pauses() < 100.0, "it pauses, it does not spin");
    let pinging = thread::spawn(move || ping(&waiting));
    drop(served);
    assert_eq!(pinging.join().unwrap(), 0);
}
