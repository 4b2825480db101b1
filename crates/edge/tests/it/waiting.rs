//! Everything that can be waited for has an end.

use std::net::TcpListener;
use std::time::Duration;

use tenfold_edge::config::Config;
use tenfold_testkit::origin::{Gate, Step};
use tenfold_testkit::{Answer, Origin, wait_for};

use crate::harness::{LIMIT, Running, config};

const SHORT: Duration = Duration::from_millis(150);

fn impatient(origin: &Origin, change: impl FnOnce(&mut Config)) -> Running {
    let mut config = config(&[origin.addr()]);
    change(&mut config);
    Running::start(config)
}

#[test]
fn a_head_that_does_not_end_is_a_408() {
    let origin = Origin::kv().unwrap();
    let edge = impatient(&origin, |config| config.limits.head_read = SHORT);
    let mut client = edge.client();
    client.send("GET / HTTP/1.1\r\nHo").unwrap();
    let answer = client.response().unwrap();
    assert_eq!((answer.status, answer.header("tenfold-reason")), (408, Some("head_timeout")));
    assert!(answer.closes && client.closed_in_silence());
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    let origin = Origin::kv().unwrap();
    let edge = impatient(&origin, |config| config.limits.keep_alive = SHORT);
    assert!(edge.client().closed_in_silence());
    let mut client = edge.client();
    assert_eq!(client.get("/").unwrap().status, 404);
    assert!(client.closed_in_silence());
}

#[test]
fn a_body_that_stands_still_is_a_408_and_the_node_never_gets_its_end() {
    let origin = Origin::echo().unwrap();
    let edge = impatient(&origin, |config| config.limits.body_idle = SHORT);
    let mut client = edge.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\npart").unwrap();
    let answer = client.response().unwrap();
    assert_eq!((answer.status, answer.header("tenfold-reason")), (408, Some("body_timeout")));
    wait_for("the node's connection to close", LIMIT, || origin.connections_open() == 0);
    assert_eq!(origin.requests(), 0);
}

#[test]
fn a_node_that_does_not_answer_is_a_504() {
    for cache in ["", "Cache-Control: no-store\r\n"] {
        let gate = Gate::new();
        let held = gate.clone();
        let origin = Origin::serve(move |_| Answer::ok("late").gated(&held)).unwrap();
        let edge = impatient(&origin, |config| config.clusters[0].timeouts.response = SHORT);
        let mut client = edge.client();
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{cache}\r\n")).unwrap();
        let answer = client.response().unwrap();
        assert_eq!((answer.status, answer.header("tenfold-reason")), (504, Some("response_timeout")));
        wait_for("the node to be rid of it", LIMIT, || origin.connections_open() == 0);
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\npay").unwrap();
        assert_eq!(client.response().unwrap().status, 504);
    }
}

#[test]
fn an_answer_that_stands_still_is_cut() {
    let steps = vec![
        Step::ReadRequest,
        Step::send("HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: 10\r\n\r\npart"),
        Step::Stall,
    ];
    let origin = Origin::scripted(steps).unwrap();
    let edge = impatient(&origin, |config| config.clusters[0].timeouts.idle = SHORT);
    for method in ["GET", "POST"] {
        let mut client = edge.client();
        client.send(format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n")).unwrap();
        assert!(client.response().is_err());
    }
    wait_for("the count", LIMIT, || {
        edge.refusals("response_stalled") + edge.refusals("response_truncated") == 2.0
    });
}

#[test]
fn a_node_that_takes_no_connection_is_a_504() {
    // A queue of one that is never emptied: the kernel drops what comes beyond.
    let full = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = full.local_addr().unwrap();
    socket_with_full_queue(&full);
    let mut config = config(&[address]);
    config.clusters[0].timeouts.connect = SHORT;
    let edge = Running::start(config);
    let mut held = Vec::new();
    let answer = (0..10)
        .map(|_| {
            held.push(std::net::TcpStream::connect_timeout(&address, Duration::from_millis(50)));
            edge.client().request("POST", "/", &[("Cache-Control", "no-store")])
        })
        .find_map(|answer| {
            answer.ok().filter(|answer| answer.header("tenfold-reason") == Some("connect_timeout"))
        });
    assert_eq!(answer.map(|answer| answer.status), Some(504));
}

fn socket_with_full_queue(listener: &TcpListener) {
    socket2::SockRef::from(listener).listen(0).unwrap();
}

#[test]
fn a_reader_that_is_too_slow_is_cut() {
    let body = vec![b'x'; 32 << 20];
    let origin = Origin::serve(move |_| Answer::ok(body.clone()).cache_control("no-store")).unwrap();
    let edge = impatient(&origin, |config| {
        config.limits.body_idle = SHORT;
        config.limits.send_rate_min = 1 << 30;
    });
    let mut client = edge.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    wait_for("the cut", LIMIT, || edge.refusals("slow_reader") == 1.0);
    assert!(client.response().is_err());
    wait_for("nothing in flight", LIMIT, || edge.in_flight() == 0);
}
