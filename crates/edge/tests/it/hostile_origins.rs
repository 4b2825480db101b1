//! Nodes that lie, break off or never stop.

use tenfold_testkit::{Answer, Origin, wait_for};

use crate::harness::{LIMIT, Running};

const CACHED: &str = "Cache-Control: max-age=60\r\n";

/// Asks twice for what this origin sends. What is not HTTP must be refused with 502, and never stored.
fn check_refused(sent: &str, reason: &str) {
    let bytes = sent.to_owned();
    let origin = Origin::serve(move |_| Answer::verbatim(bytes.clone())).unwrap();
    let edge = Running::in_front_of(&[origin.addr()]);
    for _ in 0..2 {
        let answer = edge.client().get("/a").unwrap_or_else(|error| panic!("{sent:?}: {error}"));
        assert_eq!((answer.status, answer.header("tenfold-reason")), (502, Some(reason)), "{sent:?}");
    }
    assert!(origin.requests() >= 2, "{sent:?} was stored");
    assert_eq!(edge.stats().objects, 0, "{sent:?} was stored");
}

#[test]
fn an_answer_that_is_not_http_is_a_bad_gateway() {
    for sent in [
        "nonsense\r\n\r\n".to_owned(),
        "HTTP/1.1 OK\r\n\r\n".to_owned(),
        format!("HTTP/1.1 200 OK\r\n{CACHED}Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx"),
        format!(
            "HTTP/1.1 200 OK\r\n{CACHED}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        ),
        format!("HTTP/1.1 200 OK\r\n{CACHED}Content-Length: -1\r\n\r\n"),
        format!("HTTP/1.1 200 OK\r\n{CACHED}Bad Name: 1\r\nContent-Length: 0\r\n\r\n"),
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n".to_owned(),
        format!("HTTP/1.1 200 OK\r\n{}", "X-Endless: header\r\n".repeat(10_000)),
        "HTTP/1.1 102 Processing\r\n\r\n".repeat(20),
    ] {
        check_refused(&sent, "bad_response");
    }
    check_refused("", "node_closed");
    check_refused("HTTP/1.1 200 OK\r\nContent-Le", "node_closed");
}

/// Asks twice, with the client's connection ending before the announced end each time.
fn check_cut(answer: Answer) {
    let shown = format!("{answer:?}");
    let origin = Origin::serve(move |_| answer.clone()).unwrap();
    let edge = Running::in_front_of(&[origin.addr()]);
    for version in ["1.1", "1.0"] {
        let mut client = edge.client();
        client.send(format!("GET /a HTTP/{version}\r\nHost: a\r\n\r\n")).unwrap();
        let got = client.response();
        assert!(got.as_ref().map_or(true, |answer| answer.status == 502), "{shown}: taken as whole: {got:?}");
    }
    assert!(origin.requests() >= 2, "{shown} was stored");
    assert_eq!(edge.stats().objects, 0, "{shown} was stored");
}

#[test]
fn a_body_that_breaks_off_is_never_ended_nor_stored() {
    for cache in ["no-store", "max-age=60"] {
        let long = vec![b'x'; 200_000];
        check_cut(Answer::ok("hello world").cache_control(cache).cut_at(5));
        check_cut(Answer::ok(long.clone()).cache_control(cache).cut_at(150_000));
        check_cut(Answer::new(200).chunked(["hello", "world"]).cache_control(cache).cut_at(12));
        check_cut(Answer::new(200).chunked([long.clone(), long]).cache_control(cache).cut_at(250_000));
        let head = format!("HTTP/1.1 200 OK\r\nCache-Control: {cache}\r\nTransfer-Encoding: chunked\r\n\r\n");
        check_cut(Answer::verbatim(format!("{head}5\r\nhello\r\nXX\r\n")));
        check_cut(Answer::verbatim(format!("{head}5\r\nhello\r\n5\r\nworldXX0\r\n\r\n")));
    }
}

#[test]
fn bytes_behind_an_answer_are_nobodys() {
    let smuggled =
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    let origin = Origin::serve(move |_| Answer::verbatim(smuggled)).unwrap();
    let edge = Running::in_front_of(&[origin.addr()]);
    let mut client = edge.client();
    for path in ["/a", "/b", "/c"] {
        assert_eq!(client.get(path).unwrap().text(), "ok");
    }
}

#[test]
fn an_answer_until_the_close_is_whole_and_can_be_stored() {
    let origin =
        Origin::serve(|_| Answer::new(200).until_close("all of it").cache_control("max-age=60")).unwrap();
    let edge = Running::in_front_of(&[origin.addr()]);
    for _ in 0..2 {
        assert_eq!(edge.client().get("/a").unwrap().text(), "all of it");
    }
    assert_eq!(origin.requests(), 1);
}

#[test]
fn a_failed_fill_leaves_nothing_in_flight() {
    let origin = Origin::serve(|_| Answer::ok("hello world").cache_control("max-age=60").cut_at(5)).unwrap();
    let edge = Running::in_front_of(&[origin.addr()]);
    // Cut, or refused where the failure was known before the head was sent.
    assert!(edge.client().get("/a").map_or(true, |answer| answer.status == 502));
    wait_for("nothing in flight", LIMIT, || edge.in_flight() == 0 && edge.stats().fills == 0);
}
