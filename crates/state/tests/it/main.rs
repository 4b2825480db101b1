//! The client against a real Redis that is stopped, killed, restarted and failed over.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use tenfold_state::{CallError, Config, Redis, StreamEvent, StreamId, Thread, Value, cmd, follow, probe};
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
