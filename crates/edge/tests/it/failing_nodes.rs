//! Nodes that die, and what is tried again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tenfold_balance::NodeState;
use tenfold_cache::Purge;
use tenfold_testkit::origin::{Gate, Step};
use tenfold_testkit::{Answer, Origin, wait_for};

use crate::harness::{LIMIT, Running};
use crate::patience::state;

fn node(name: &'static str) -> Origin {
    Origin::serve(move |_| Answer::ok(name).cache_control("no-store")).unwrap()
}

#[test]
fn a_dead_node_costs_no_request() {
    let (mut first, second) = (node("first"), node("second"));
    let edge = Running::in_front_of(&[first.addr(), second.addr()]);
    let mut client = edge.client();
    for i in 0..10 {
        assert_eq!(client.get(&format!("/{i}")).unwrap().status, 200);
    }
    first.stop();
    for i in 0..200 {
        assert_eq!(client.get(&format!("/{i}")).unwrap().text(), "second");
        assert_eq!(client.request_with_body("POST", &format!("/{i}"), &[], b"x").unwrap().text(), "second");
    }
}

#[test]
fn without_any_node_the_answer_is_quick_and_says_why() {
    let mut origin = node("only");
    let edge = Running::in_front_of(&[origin.addr()]);
    let mut client = edge.client();
    assert_eq!(client.get("/").unwrap().status, 200);
    origin.stop();
    #[expect(clippy::disallowed_methods, reason = "the answer's time is what is tested")]
    for _ in 0..50 {
        let asked = Instant::now();
        let answer = client.get("/").unwrap();
        assert_eq!((answer.status, answer.header("tenfold-reason")), (503, Some("no_node")));
        assert_eq!(answer.header("retry-after"), Some("1"));
        assert!(asked.elapsed() < Duration::from_millis(50), "{:?}", asked.elapsed());
    }
    origin.restart().unwrap();
    wait_for("traffic to return", LIMIT, || client.get("/").unwrap().status == 200);
}

#[test]
fn a_get_that_met_a_dying_connection_is_sent_again_and_a_post_is_not() {
    let dying = || Origin::scripted(vec![Step::ReadRequest, Step::Reset]).unwrap();
    for (method, requests) in [("GET", 2), ("POST", 1), ("PUT", 2), ("PATCH", 1), ("DELETE", 2)] {
        let (first, second) = (dying(), dying());
        let edge = Running::in_front_of(&[first.addr(), second.addr()]);
        let answer = edge.client().request(method, "/", &[("Cache-Control", "no-store")]).unwrap();
        assert_eq!((answer.status, answer.header("tenfold-reason")), (502, Some("node_closed")), "{method}");
        assert_eq!(first.requests() + second.requests(), requests, "{method}");
    }
}

#[test]
fn a_connection_closed_while_idle_is_replaced() {
    let steps = vec![Step::ReadRequest, Step::send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")];
    let origin = Origin::scripted(steps).unwrap();
    let edge = Running::in_front_of(&[origin.addr()]);
    let mut client = edge.client();
    for i in 0..20 {
        // The node closes after each answer without having said so; sometimes before we look, sometimes after.
        let method = if i % 2 == 0 { "GET" } else { "PUT" };
        assert_eq!(client.request(method, "/", &[("Cache-Control", "no-store")]).unwrap().text(), "ok");
    }
    assert_eq!(origin.requests(), 20);
}

#[test]
fn no_answer_is_tried_again_once_some_of_it_was_seen() {
    let steps = vec![Step::ReadRequest, Step::send("HTTP/1.1 200 OK\r\nContent-Len"), Step::Reset];
    let origin = Origin::scripted(steps).unwrap();
    let edge = Running::in_front_of(&[origin.addr()]);
    let answer = edge.client().request("GET", "/", &[("Cache-Control", "no-store")]).unwrap();
    assert_eq!(answer.status, 502);
    assert_eq!(origin.requests(), 1);
}

/// Answers once, to be kept for failures, and fails from then on.
fn once_well(gate: &Gate) -> Origin {
    let held = gate.clone();
    let asked = AtomicBool::new(false);
    Origin::serve(move |_| {
        if asked.swap(true, Ordering::Relaxed) {
            return Answer::new(503).gated(&held);
        }
        Answer::ok("kept").cache_control("max-age=0, stale-if-error=60").etag("\"1\"")
    })
    .unwrap()
}

#[test]
fn a_stale_copy_stands_in_for_an_error_told_to_a_request_that_goes_alone() {
    let gate = Gate::new();
    gate.open();
    let origin = once_well(&gate);
    let edge = Running::in_front_of(&[origin.addr()]);
    let mut client = edge.client();
    assert_eq!(client.get("/a").unwrap().status, 200);
    wait_for("the copy", LIMIT, || edge.stats().objects == 1);
    let part = client.request("GET", "/a", &[("Range", "bytes=0-1")]).unwrap();
    assert_eq!((part.status, part.text()), (206, "ke".to_owned()));
    assert_eq!(client.request("HEAD", "/a", &[]).unwrap().status, 200);
    assert!(origin.requests() >= 2);
    assert_eq!(origin.connections(), 1, "an error that came whole costs no connection");
}

#[test]
fn a_copy_purged_meanwhile_stands_in_for_nothing() {
    let gate = Gate::new();
    let origin = once_well(&gate);
    let edge = Running::in_front_of(&[origin.addr()]);
    let mut client = edge.client();
    client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(client.response().unwrap().status, 200);
    wait_for("the copy", LIMIT, || edge.stats().objects == 1);
    client.send("GET /a HTTP/1.1\r\nHost: a\r\nRange: bytes=0-1\r\n\r\n").unwrap();
    wait_for("the origin to be asked", LIMIT, || gate.waiting() == 1);
    let _ = edge.edge.purge(&Purge::All, false);
    gate.open();
    let answer = client.response().unwrap();
    assert_eq!(answer.status, 503, "{answer:?}");
}

#[test]
fn a_node_that_breaks_every_body_is_put_out() {
    for cache in ["no-store", "max-age=60"] {
        let broken =
            Origin::serve(move |_| Answer::ok("hello world").cache_control(cache).cut_at(5)).unwrap();
        let other = node("other");
        let edge = Running::in_front_of(&[broken.addr(), other.addr()]);
        for i in 0..20 {
            // Cut, if it got the broken node.
            let _ = edge.client().get(&format!("/{i}"));
        }
        assert_eq!(state(&edge, 0), NodeState::Ejected, "{cache}");
        assert_eq!(broken.requests(), 5, "{cache}");
    }
}

#[test]
fn a_download_that_its_client_ends_speaks_for_the_node() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::serve(move |request| match request.path() {
        "/cut" => Answer::ok("hello world").cache_control("no-store").cut_at(5),
        _ => Answer::new(200).chunked(["a", "b"]).cache_control("no-store").gated_body(&held),
    })
    .unwrap();
    let edge = Running::in_front_of(&[origin.addr()]);
    let cut = |times| (0..times).for_each(|_| assert!(edge.client().request("POST", "/cut", &[]).is_err()));
    let leave = |method: &str| {
        let mut client = edge.client();
        client.send(format!("{method} /long HTTP/1.1\r\nHost: a\r\n\r\n")).unwrap();
        client.read_through("\r\n\r\n").unwrap();
        client.reset().unwrap();
        wait_for("the node to be rid of it", LIMIT, || edge.in_flight() == 0);
    };
    (0..6).for_each(|_| leave("GET"));
    cut(4);
    leave("GET");
    cut(4);
    assert_eq!(state(&edge, 0), NodeState::Up);
    cut(1);
    assert_eq!(state(&edge, 0), NodeState::Failing, "the only node can't be put out");
    gate.open();
}
