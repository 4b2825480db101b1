//! The client against a real Redis that is stopped, killed, restarted and failed over.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use tenfold_state::{CallError, Config, Redis, StreamEvent, StreamId, Thread, Value, cmd, follow, probe};
use tenfold_testkit::tls::Authority;
use tenfold_testkit::{redis::Redis as Server, wait_for};

const PATIENCE: Duration = Duration::from_secs(20);
const BUDGET: Duration = Duration::from_millis(50);

#[expect(clippy::disallowed_methods, reason = "a test measures real time")]
fn now() -> Instant {
    Instant::now()
}

fn start(url: &str) -> (Redis, Thread) {
    let config = Config { url: url.into(), probe: Duration::from_millis(200), ..Config::default() };
    Redis::start(config, now).expect("the thread starts")
}

/// One call, and how long it took on the thread.
fn call(redis: &Redis, words: &'static [&'static str]) -> (Result<Value, CallError>, Duration) {
    let (answer, answered) = channel();
    redis
        .submit(move |link| async move {
            let mut command = cmd(words[0]);
            for word in &words[1..] {
                command.arg(word);
            }
            let began = link.now();
            let result = link.call(&command, BUDGET).await;
            let _ = answer.send((result, link.now() - began));
        })
        .expect("the thread takes jobs");
    answered.recv_timeout(PATIENCE).expect("the job ends")
}

fn is_up(redis: &Redis) {
    wait_for("Redis is up", PATIENCE, || redis.is_up());
}

#[test]
fn a_frozen_server_costs_the_budget_a_few_times_and_then_nothing() {
    let server = Server::start(&[]).expect("a Redis");
    let (redis, _thread) = start(&server.url());
    is_up(&redis);
    assert_eq!(call(&redis, &["SET", "a", "1"]).0, Ok(Value::Okay));
    server.freeze();
    let mut waited = 0;
    while redis.is_up() {
        let (result, took) = call(&redis, &["GET", "a"]);
        assert_eq!(result, Err(CallError::TimedOut));
        assert!(took < BUDGET * 3, "{took:?}");
        waited += 1;
        assert!(waited <= 5, "the breaker opens");
    }
    let (result, took) = call(&redis, &["GET", "a"]);
    assert_eq!(result, Err(CallError::Down));
    assert!(took < BUDGET, "{took:?}");
    server.thaw();
    is_up(&redis);
    assert_eq!(call(&redis, &["GET", "a"]).0, Ok(Value::BulkString(b"1".to_vec())));
}

#[test]
fn a_killed_server_is_found_again_when_it_is_back() {
    let mut server = Server::start(&[]).expect("a Redis");
    let (redis, _thread) = start(&server.url());
    is_up(&redis);
    server.kill();
    wait_for("a call fails", PATIENCE, || call(&redis, &["GET", "a"]).0.is_err());
    wait_for("it is down", PATIENCE, || !redis.is_up());
    server.restart().expect("it starts again");
    is_up(&redis);
    assert_eq!(call(&redis, &["GET", "a"]).0, Ok(Value::Nil));
    assert!(redis.stats().connects >= 2);
}

#[test]
fn what_the_server_refuses_leaves_the_connection_alone() {
    let server = Server::start(&["--requirepass", "hunter2"]).expect("a Redis");
    let config = Config { url: server.url(), password: Some("hunter2".into()), ..Config::default() };
    let (redis, _thread) = Redis::start(config.clone(), now).expect("the thread starts");
    is_up(&redis);
    assert!(matches!(call(&redis, &["NOSUCH"]).0, Err(CallError::Refused(_))));
    assert_eq!(call(&redis, &["PING"]).0, Ok(Value::SimpleString("PONG".into())));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(probe(&config)).expect("the password is right");
    let wrong = Config { password: Some("wrong".into()), ..config };
    let said = runtime.block_on(probe(&wrong)).expect_err("the password is wrong").to_string();
    assert!(said.contains("assword") && !said.contains("wrong:"), "{said}");
}

#[test]
fn a_replica_that_took_the_masters_place_is_not_written_to() {
    let server = Server::start(&[]).expect("a Redis");
    let other = Server::start(&[]).expect("another Redis");
    let (redis, _thread) = start(&server.url());
    is_up(&redis);
    let _ = server.command(&["REPLICAOF", "127.0.0.1", &other.port().to_string()]);
    wait_for("the write is refused as broken", PATIENCE, || {
        matches!(call(&redis, &["SET", "a", "1"]).0, Err(CallError::Broken(_)))
    });
}

fn followed(redis: &Redis) -> Receiver<StreamEvent> {
    let (events, received): (Sender<StreamEvent>, _) = channel();
    let job = move |link: std::rc::Rc<tenfold_state::Link>| async move {
        follow(&link, "orders", |event| drop(events.send(event))).await;
    };
    redis.submit(job).expect("the thread takes jobs");
    received
}

/// The next event that is not a mere contact.
fn next(events: &Receiver<StreamEvent>) -> StreamEvent {
    loop {
        match events.recv_timeout(PATIENCE) {
            Ok(StreamEvent::Contact) => {}
            Ok(event) => return event,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => panic!("no event"),
        }
    }
}

/// The next join; what is lost before it is passed over.
fn joined(events: &Receiver<StreamEvent>) -> (u64, bool) {
    loop {
        match next(events) {
            StreamEvent::Joined { epoch, kept_place } => return (epoch, kept_place),
            StreamEvent::Lost(_) => {}
            StreamEvent::Entry(id, _) => panic!("{id} before the join"),
            StreamEvent::Contact => unreachable!("passed over"),
        }
    }
}

fn entry(events: &Receiver<StreamEvent>) -> (StreamId, String) {
    match next(events) {
        StreamEvent::Entry(id, fields) => {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            (id, fields.iter().map(|(name, value)| format!("{}={}", text(name), text(value))).collect())
        }
        other => panic!("an entry was expected, not {other:?}"),
    }
}

#[test]
fn a_reader_that_was_cut_off_goes_on_where_it_was() {
    let server = Server::start(&[]).expect("a Redis");
    let _ = server.command(&["XADD", "orders", "*", "n", "0"]);
    let (redis, _thread) = start(&server.url());
    let events = followed(&redis);
    let (epoch, kept) = joined(&events);
    assert!(!kept, "a first reader begins at the front");
    assert_eq!(entry(&events).1, "n=0");
    let _ = server.command(&["XADD", "orders", "*", "n", "1"]);
    assert_eq!(entry(&events).1, "n=1");
    let _ = server.command(&["CLIENT", "KILL", "TYPE", "normal"]);
    let _ = server.command(&["XADD", "orders", "*", "n", "2"]);
    assert_eq!(joined(&events), (epoch, true));
    assert_eq!(entry(&events).1, "n=2");
}

#[test]
fn a_restart_a_trimmed_stream_and_a_promotion_are_lost_places() {
    let mut server = Server::start(&[]).expect("a Redis");
    let (redis, _thread) = start(&server.url());
    let events = followed(&redis);
    let (first, _) = joined(&events);
    let _ = server.command(&["XADD", "orders", "*", "n", "1"]);
    assert_eq!(entry(&events).1, "n=1");

    let _ = server.command(&["DEL", "orders"]);
    let _ = server.command(&["CLIENT", "KILL", "TYPE", "normal"]);
    assert_eq!(joined(&events), (first, false), "the entry read last is gone");

    server.restart().expect("it starts again");
    let (second, kept) = joined(&events);
    assert!(second != first && !kept);

    let other = Server::start(&[]).expect("another Redis");
    let _ = server.command(&["REPLICAOF", "127.0.0.1", &other.port().to_string()]);
    wait_for("it copies", PATIENCE, || {
        server.command(&["INFO", "replication"]).contains("master_link_status:up")
    });
    server.promote();
    let (third, kept) = joined(&events);
    assert!(third != second && !kept);
    let _ = server.command(&["XADD", "orders", "*", "n", "3"]);
    assert_eq!(entry(&events).1, "n=3");
}

/// A URL of sentinels for the master "shop".
fn by_sentinels(ports: &[u16]) -> String {
    let hosts: Vec<_> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    format!("redis+sentinel://{}/shop", hosts.join(","))
}

fn writes(redis: &Redis) -> bool {
    call(redis, &["SET", "a", "1"]).0 == Ok(Value::Okay)
}

#[test]
fn sentinels_name_the_master_and_its_successor() {
    let mut master = Server::start(&[]).expect("a Redis");
    let replica = master.replica().expect("a replica");
    let hung = master.sentinel("shop", &[]).expect("a sentinel");
    let sentinel = master.sentinel("shop", &[]).expect("another sentinel");
    sentinel.until_it_knows_a_replica("shop").expect("a replica to take over");
    hung.freeze();
    // The first is nobody, the second hangs.
    let nobody = Server::start(&[]).map(|server| server.port()).expect("a port");
    let (redis, _thread) = start(&by_sentinels(&[nobody, hung.port(), sentinel.port()]));
    let events = followed(&redis);
    let (epoch, _) = joined(&events);
    is_up(&redis);
    assert!(writes(&redis));
    assert_eq!(master.command(&["GET", "a"]).trim(), "1");
    // It fails over by itself, and this client follows.
    master.kill();
    wait_for("writes go to the successor", PATIENCE, || writes(&redis));
    assert_eq!(replica.command(&["GET", "a"]).trim(), "1");
    let (after, kept) = joined(&events);
    assert!(after != epoch && !kept, "a successor has a history of its own");
}

#[test]
fn a_master_that_was_made_a_replica_is_left_for_the_new_one() {
    let master = Server::start(&[]).expect("a Redis");
    let replica = master.replica().expect("a replica");
    let sentinel = master.sentinel("shop", &[]).expect("a sentinel");
    sentinel.until_it_knows_a_replica("shop").expect("a replica to take over");
    let (redis, _thread) = start(&by_sentinels(&[sentinel.port()]));
    is_up(&redis);
    assert!(writes(&redis));
    assert!(sentinel.command(&["SENTINEL", "FAILOVER", "shop"]).contains("OK"));
    wait_for("writes go to the new master", PATIENCE, || {
        writes(&redis) && replica.command(&["ROLE"]).starts_with("master")
    });
    let _ = replica.command(&["SET", "a", "2"]);
    wait_for("it is the one that is read", PATIENCE, || {
        call(&redis, &["GET", "a"]).0 == Ok(Value::BulkString(b"2".to_vec()))
    });
}

#[test]
fn what_sentinels_do_not_know_is_said() {
    let master = Server::start(&[]).expect("a Redis");
    let sentinel = master.sentinel("shop", &["--requirepass", "hunter2"]).expect("a sentinel");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let said = |url: String| runtime.block_on(probe(&Config { url, ..Config::default() }));
    let port = sentinel.port();
    let known = format!("redis+sentinel://:hunter2@127.0.0.1:{port}/shop");
    said(known).expect("the master is there");
    let unknown =
        said(format!("redis+sentinel://:hunter2@127.0.0.1:{port}/sohp")).expect_err("no such master");
    assert_eq!(unknown.to_string(), "a sentinel knows of no master called sohp");
    let unauthorised = said(by_sentinels(&[port])).expect_err("a password is needed").to_string();
    assert!(
        unauthorised.starts_with("a sentinel: ") && unauthorised.contains("uthenticat"),
        "{unauthorised}"
    );
    let wrong = said(format!("redis+sentinel://127.0.0.1:{}/shop", master.port())).expect_err("no sentinel");
    assert!(wrong.to_string().starts_with("a sentinel: "), "{wrong}");
}

/// What a server shows who it is with, in files.
struct Shown {
    folder: tempfile::TempDir,
}

impl Shown {
    fn new(authority: &Authority, names: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let identity = authority.server(names);
        let files = [
            ("server.pem", identity.certificate.as_str()),
            ("server.key", &identity.key),
            ("ca.pem", authority.certificate()),
        ];
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).expect("a file");
        }
        Self { folder }
    }

    /// For a server that takes TLS on this port.
    fn options(&self, port: u16) -> Vec<String> {
        let file = |name: &str| self.folder.path().join(name).display().to_string();
        let options = [
            ("--tls-port", port.to_string()),
            ("--tls-cert-file", file("server.pem")),
            ("--tls-key-file", file("server.key")),
            ("--tls-ca-cert-file", file("ca.pem")),
            ("--tls-auth-clients", "no".into()),
        ];
        options.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
    }
}

fn free_port() -> u16 {
    tenfold_testkit::process::free_port().expect("a port")
}

fn words(options: &[String]) -> Vec<&str> {
    options.iter().map(String::as_str).collect()
}

#[test]
fn sentinels_and_the_master_they_name_are_spoken_to_by_tls() {
    let authority = Authority::new("private");
    let shown = Shown::new(&authority, &["localhost", "127.0.0.1"]);
    let (port, sentinel_port) = (free_port(), free_port());
    let server = Server::start(&words(&shown.options(port))).expect("a Redis with TLS");
    let mut options = shown.options(sentinel_port);
    options.extend(["--tls-replication", "yes"].map(str::to_owned));
    let sentinel = server.sentinel("shop", &words(&options)).expect("a sentinel with TLS");
    let named = |port: u16| {
        let _ = sentinel.command(&["SENTINEL", "REMOVE", "shop"]);
        let monitor = ["SENTINEL", "MONITOR", "shop", "127.0.0.1", &port.to_string(), "1"];
        assert_eq!(sentinel.command(&monitor).trim(), "OK");
    };
    named(port);
    let config = Config {
        url: format!("rediss+sentinel://localhost:{sentinel_port}/shop"),
        ca: Some(authority.certificate().as_bytes().to_vec()),
        probe: Duration::from_millis(200),
        ..Config::default()
    };
    let (redis, _thread) = Redis::start(config.clone(), now).expect("the thread starts");
    is_up(&redis);
    assert!(writes(&redis));
    assert_eq!(server.command(&["GET", "a"]).trim(), "1");

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let refused =
        |config: &Config| runtime.block_on(probe(config)).expect_err("not to be believed").to_string();
    let stranger = Authority::new("stranger").certificate().as_bytes().to_vec();
    let said = refused(&Config { ca: Some(stranger), ..config.clone() });
    assert!(said.starts_with("a sentinel: ") && said.contains("certificate"), "{said}");
    // A sentinel that is believed names a server that does not speak TLS there.
    named(server.port());
    let said = refused(&config);
    assert!(said.contains("which a sentinel named as the master"), "{said}");
}

#[test]
fn a_server_is_spoken_to_by_tls_if_it_is_the_one_that_the_url_names() {
    let authority = Authority::new("private");
    let shown = Shown::new(&authority, &["localhost"]);
    let tls_port = free_port();
    let server = Server::start(&words(&shown.options(tls_port))).expect("a Redis with TLS");
    let config = Config {
        url: format!("rediss://localhost:{tls_port}"),
        ca: Some(authority.certificate().as_bytes().to_vec()),
        probe: Duration::from_millis(200),
        ..Config::default()
    };
    let (redis, _thread) = Redis::start(config.clone(), now).expect("the thread starts");
    is_up(&redis);
    assert!(writes(&redis));
    assert_eq!(server.command(&["GET", "a"]).trim(), "1");

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let refused =
        |config: &Config| runtime.block_on(probe(config)).expect_err("not to be believed").to_string();
    let stranger = Authority::new("stranger").certificate().as_bytes().to_vec();
    let said = refused(&Config { ca: Some(stranger), ..config.clone() });
    assert!(said.contains("certificate"), "{said}");
    let said = refused(&Config { ca: None, ..config.clone() });
    assert!(said.contains("certificate"), "the system knows nothing of it: {said}");
    let said = refused(&Config { url: format!("rediss://127.0.0.1:{tls_port}"), ..config.clone() });
    assert!(said.contains("certificate"), "another name: {said}");
    let unreadable = Config { ca: Some(b"-----BEGIN CERTIFICATE-----\n!".to_vec()), ..config };
    assert!(unreadable.validate().is_err());
}
