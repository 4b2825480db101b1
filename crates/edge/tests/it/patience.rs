//! Nobody waits for what need not be waited for, and nobody keeps others waiting for ever.

use std::io::Write as _;
use std::net::TcpListener;
use std::time::Duration;

use tenfold_balance::NodeState;
use tenfold_testkit::origin::Gate;
use tenfold_testkit::{Answer, Origin, wait_for};

use crate::harness::{LIMIT, Running, config};

const SHORT: Duration = Duration::from_millis(150);

fn gated(answer: impl Fn() -> Answer + Send + Sync + 'static) -> (Origin, Gate) {
    let gate = Gate::new();
    let held = gate.clone();
    (Origin::serve(move |_| answer().gated(&held)).unwrap(), gate)
}

#[test]
fn a_head_does_not_wait_for_its_body() {
    for (method, cache) in [("GET", "no-store"), ("GET", "max-age=60"), ("POST", "no-store")] {
        let gate = Gate::new();
        let held = gate.clone();
        let origin =
            Origin::serve(move |_| Answer::new(200).chunked(["late"]).cache_control(cache).gated_body(&held))
                .unwrap();
        let edge = Running::in_front_of(&[origin.addr()]);
        let mut client = edge.client();
        client.send(format!("{method} /a HTTP/1.1\r\nHost: a\r\n\r\n")).unwrap();
        client.read_through("\r\n\r\n").unwrap();
        gate.open();
        client.read_through("4\r\nlate\r\n0\r\n\r\n").unwrap();
    }
}

#[test]
fn an_upload_below_the_minimum_rate_is_a_408_though_it_never_stands_still() {
    let origin = Origin::echo().unwrap();
    let mut config = config(&[origin.addr()]);
    config.limits.body_idle = SHORT;
    config.limits.send_rate_min = 1 << 30;
    let edge = Running::start(config);
    let mut client = edge.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n").unwrap();
    wait_for("the cut", LIMIT, || {
        // Refused once the edge has closed.
        let _ = client.send("dribble");
        edge.refusals("body_timeout") == 1.0
    });
    wait_for("the node's connection to close", LIMIT, || origin.connections_open() == 0);
    assert_eq!(origin.requests(), 0);
}

#[test]
fn a_body_that_breaks_the_protocol_bothers_no_node() {
    let origin = Origin::echo().unwrap();
    let edge = Running::in_front_of(&[origin.addr()]);
    let mut client = edge.client();
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.send(format!("{head}4\r\npart\r\nXX\r\n")).unwrap();
    assert_eq!(client.response().unwrap().status, 400);
    assert_eq!(edge.client().request_with_body("POST", "/", &[], b"x").unwrap().status, 200);
    assert_eq!(origin.connections(), 1, "for the second request");
}

#[test]
fn a_client_that_leaves_is_missed_behind_all_that_it_has_pipelined() {
    let (origin, gate) = gated(|| Answer::ok("late").cache_control("no-store"));
    let edge = Running::in_front_of(&[origin.addr()]);
    let mut client = edge.client();
    client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    wait_for("the node to have it", LIMIT, || gate.waiting() == 1);
    client.send("GET /b HTTP/1.1\r\nHost: a\r\n\r\n".repeat(2_000)).unwrap();
    drop(client);
    wait_for("the node to be rid of it", LIMIT, || origin.connections_open() == 0);
    wait_for("the count", LIMIT, || edge.refusals("client_gone") == 1.0);
}

#[test]
fn an_empty_line_behind_a_body_begins_no_request() {
    let origin = Origin::echo().unwrap();
    let mut config = config(&[origin.addr()]);
    config.limits.head_read = SHORT;
    config.limits.keep_alive = 4 * SHORT;
    let edge = Running::start(config);
    for stray in ["\r\n", "\r"] {
        let mut client = edge.client();
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody{stray}")).unwrap();
        assert_eq!(client.response().unwrap().status, 200);
        assert!(client.closed_in_silence(), "{stray:?}");
    }
    let mut client = edge.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody\r\n").unwrap();
    assert_eq!(client.response().unwrap().status, 200);
    assert_eq!(client.get("/").unwrap().status, 200);
    assert_eq!(edge.refusals("head_timeout"), 0.0);
}

#[test]
fn a_node_in_trial_is_trusted_as_soon_as_it_answers() {
    let gate = Gate::new();
    let held = gate.clone();
    let mut origin = Origin::serve(move |request| {
        let answer = Answer::new(200).chunked(["a", "b"]).cache_control("no-store");
        if request.path() == "/long" { answer.gated_body(&held) } else { answer }
    })
    .unwrap();
    let other = Origin::serve(|_| Answer::ok("other").cache_control("no-store")).unwrap();
    let edge = Running::in_front_of(&[origin.addr(), other.addr()]);
    let mut client = edge.client();
    origin.stop();
    wait_for("the node to be out", LIMIT, || {
        client.get("/").unwrap();
        state(&edge, 0) != NodeState::Up
    });
    origin.restart().unwrap();
    // An answer without end: the node has proved itself with the head.
    wait_for("a trial", LIMIT, || {
        let mut trying = edge.client();
        trying.send("GET /long HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        trying.read_through("\r\n\r\n").unwrap();
        state(&edge, 0) == NodeState::Up
    });
    gate.open();
}

pub(crate) fn state(edge: &Running, node: usize) -> NodeState {
    #[expect(clippy::disallowed_methods, reason = "a test asks what is so now")]
    let status = edge.edge.status(std::time::Instant::now());
    status.clusters[0].nodes[node].state
}

#[test]
fn what_nobody_wants_is_not_read_for_ever() {
    let node = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = config(&[node.local_addr().unwrap()]);
    config.clusters[0].timeouts.idle = SHORT;
    let edge = Running::start(config);
    let mut client = edge.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let (mut node, _) = node.accept().unwrap();
    node.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\npart").unwrap();
    client.read_through("part").unwrap();
    client.reset().unwrap();
    wait_for("its end", LIMIT, || {
        // Refused once the edge has closed.
        let _ = node.write_all(b"x");
        edge.in_flight() == 0
    });
}

#[test]
fn both_sides_may_be_quiet_once_the_node_has_answered() {
    let node = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = config(&[node.local_addr().unwrap()]);
    config.limits.body_idle = 3 * SHORT;
    config.limits.head_read = 9 * SHORT;
    config.limits.send_rate_min = 1 << 30;
    let edge = Running::start(config);
    let mut client = edge.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n").unwrap();
    let (mut node, _) = node.accept().unwrap();
    node.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
    client.read_through("\r\n\r\n").unwrap();
    // Several times as long as the rate is measured for.
    let mut clock = edge.client();
    clock.send("GET").unwrap();
    wait_for("time to pass", LIMIT, || {
        client.send("1\r\nx\r\n").unwrap();
        edge.refusals("head_timeout") == 1.0
    });
    client.send("0\r\n\r\n").unwrap();
    node.write_all(b"2\r\nok\r\n0\r\n\r\n").unwrap();
    client.read_through("ok\r\n0\r\n\r\n").unwrap();
    assert_eq!(edge.refusals("body_timeout"), 0.0);
}
