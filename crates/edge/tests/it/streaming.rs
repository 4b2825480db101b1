//! Bodies on their way through, both ways at once.

use std::thread;

use tenfold_testkit::origin::{Gate, Step};
use tenfold_testkit::{Answer, Origin, wait_for};

use crate::harness::{LIMIT, Running};

#[test]
fn uploads_arrive_as_they_were_sent() {
    let origin = Origin::serve(|request| Answer::ok(request.body.clone()).cache_control("no-store")).unwrap();
    let edge = Running::in_front_of(&[origin.addr()]);
    let mut client = edge.client();
    let body: Vec<u8> = (0..1_000_000_u32).map(|i| i.to_le_bytes()[1]).collect();
    assert!(client.request_with_body("POST", "/a", &[], &body).unwrap().body == body);
    assert_eq!(client.request_with_body("PUT", "/a", &[], b"small").unwrap().text(), "small");
    client
        .send("POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nT: r\r\n\r\n")
        .unwrap();
    assert_eq!(client.response().unwrap().text(), "abcdefg");
    let seen = origin.last().unwrap();
    assert_eq!((seen.header("transfer-encoding"), seen.header("content-length")), (Some("chunked"), None));
    client.send("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").unwrap();
    assert_eq!(client.response().unwrap().text(), "");
    assert_eq!(origin.last().unwrap().header("content-length"), Some("0"));
}

#[test]
fn the_answer_may_begin_before_the_upload_ends_and_both_go_on() {
    let steps = vec![
        Step::expect("begin"),
        Step::send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n"),
        Step::expect("end"),
        Step::send("4\r\nlast\r\n0\r\n\r\n"),
    ];
    let origin = Origin::scripted(steps).unwrap();
    let edge = Running::in_front_of(&[origin.addr()]);
    let mut client = edge.client();
    client.send("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nbegin").unwrap();
    client.read_through("first").unwrap();
    client.send("end").unwrap();
    client.read_through("4\r\nlast\r\n0\r\n\r\n").unwrap();
}

#[test]
fn a_final_answer_to_an_unfinished_upload_is_seen_and_ends_the_connection() {
    let steps = vec![
        Step::expect("\r\n\r\n"),
        Step::send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"),
        Step::Drain,
    ];
    let origin = Origin::scripted(steps).unwrap();
    let edge = Running::in_front_of(&[origin.addr()]);
    let mut client = edge.client();
    client.send("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\npart").unwrap();
    let answer = client.response().unwrap();
    assert_eq!((answer.status, answer.text(), answer.closes), (403, "no".to_owned(), true));
    wait_for("the node's connection to close", LIMIT, || origin.connections_open() == 0);
}

#[test]
fn an_expectation_is_passed_on_and_its_answer_back() {
    let steps = vec![
        Step::expect("\r\n\r\n"),
        Step::send("HTTP/1.1 100 Continue\r\n\r\n"),
        Step::expect("body"),
        Step::send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
    ];
    let origin = Origin::scripted(steps).unwrap();
    let edge = Running::in_front_of(&[origin.addr()]);
    let mut client = edge.client();
    client.send("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n").unwrap();
    client.read_through("HTTP/1.1 100 Continue\r\n\r\n").unwrap();
    client.send("body").unwrap();
    assert_eq!(client.response().unwrap().text(), "ok");
}

#[test]
fn a_node_that_knows_no_expectation_does_not_keep_the_client_waiting() {
    let origin = Origin::serve(|request| Answer::ok(request.body.clone())).unwrap();
    let edge = Running::in_front_of(&[origin.addr()]);
    let mut client = edge.client();
    client.send("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n").unwrap();
    assert_eq!(client.status().unwrap(), 100);
    client.send("body").unwrap();
    assert_eq!(client.response().unwrap().text(), "body");
}

#[test]
fn an_expectation_refused_by_the_node_is_refused_to_the_client() {
    let steps = vec![
        Step::expect("\r\n\r\n"),
        Step::send("HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n"),
        Step::Drain,
    ];
    let origin = Origin::scripted(steps).unwrap();
    let edge = Running::in_front_of(&[origin.addr()]);
    let mut client = edge.client();
    client.send("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n").unwrap();
    let answer = client.response().unwrap();
    assert_eq!((answer.status, answer.interim.len(), answer.closes), (417, 0, true));
}

#[test]
fn early_hints_come_before_the_answer() {
    let gate = Gate::new();
    let held = gate.clone();
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n";
    let origin =
        Origin::serve(move |_| Answer::ok("x").cache_control("no-store").interim(hints).gated(&held))
            .unwrap();
    let edge = Running::in_front_of(&[origin.addr()]);
    let mut client = edge.client();
    // Not cacheable, so passed through; what fills fetch is for all and comes without hints.
    client.send("POST /a HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    client.read_through("Link: </a.css>; rel=preload\r\n").unwrap();
    gate.open();
    client.read_through("HTTP/1.1 200 OK\r\n").unwrap();
    let mut old = edge.client();
    old.send("POST /a HTTP/1.0\r\nHost: a\r\n\r\n").unwrap();
    assert!(old.read_to_close().unwrap().starts_with(b"HTTP/1.1 200 OK"), "HTTP/1.0 knows no 1xx");
}

#[test]
fn a_slow_reader_holds_the_node_back_not_our_memory() {
    let body = vec![b'x'; 64 << 20];
    let length = body.len();
    let origin = Origin::serve(move |_| Answer::ok(body.clone()).cache_control("no-store")).unwrap();
    let edge = Running::in_front_of(&[origin.addr()]);
    let mut client = edge.client();
    client.send("POST /a HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    client.read_through("\r\n\r\n").unwrap();
    let before = tenfold_service::metrics::process::resident_bytes().unwrap();
    thread::yield_now();
    let read = client.read_through(vec![b'x'; 1 << 20]).unwrap();
    let after = tenfold_service::metrics::process::resident_bytes().unwrap();
    assert!(read.len() < length);
    assert!(after.saturating_sub(before) < 16 << 20, "{before} to {after}");
}

#[test]
fn answers_without_a_body_have_none() {
    let answer = |request: &tenfold_testkit::origin::Received| match request.path() {
        "/204" => Answer::new(204),
        "/304" => Answer::new(304).etag("\"x\""),
        _ => Answer::ok("0123456789").cache_control("no-store"),
    };
    let origin = Origin::serve(answer).unwrap();
    let edge = Running::in_front_of(&[origin.addr()]);
    let mut client = edge.client();
    let none = client.request("POST", "/204", &[]).unwrap();
    assert_eq!((none.status, none.header("content-length")), (204, None));
    assert_eq!(client.request("POST", "/304", &[]).unwrap().status, 304);
    let head = client.request("HEAD", "/a", &[]).unwrap();
    assert_eq!((head.status, head.header("content-length")), (200, Some("10")));
    assert_eq!(client.request("POST", "/a", &[]).unwrap().text(), "0123456789");
}
