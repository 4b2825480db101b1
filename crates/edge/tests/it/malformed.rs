//! What is not HTTP/1.1 as the RFCs have it, and what is not for a proxy.

use tenfold_testkit::{Answer, Origin};

use crate::harness::{Running, config};

fn origin() -> Origin {
    Origin::serve(|_| Answer::ok("ok").cache_control("no-store")).unwrap()
}

/// Every one of these is refused with this status and reason, and closed, and no node hears of it.
const REFUSED: &[(&str, u16, &str)] = &[
    ("GET / HTTP/1.1\r\n\r\n", 400, "missing_host"),
    ("GET / HTTP/1.1\nHost: a\n\n", 400, "bare_line_end"),
    ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, "duplicate_host"),
    ("GET / HTTP/1.1\r\nHost: a\r\nX : 1\r\n\r\n", 400, "space_before_colon"),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n", 400, "invalid_field_value"),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n folded\r\n\r\n", 400, "folded_field"),
    ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505, "unsupported_version"),
    ("get / http/1.1\r\nHost: a\r\n\r\n", 400, "invalid_version"),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        400,
        "duplicate_content_length",
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        "conflicting_length",
    ),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc", 400, "invalid_content_length"),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        501,
        "unsupported_transfer_coding",
    ),
    ("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "host_mismatch"),
    ("\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n", 400, "invalid_method"),
];

#[test]
fn what_is_malformed_is_refused_by_name_and_never_passed_on() {
    let origin = origin();
    let edge = Running::in_front_of(&[origin.addr()]);
    for (request, status, reason) in REFUSED {
        let mut client = edge.client();
        client.send(request).unwrap();
        let answer = client.response().unwrap_or_else(|error| panic!("{request:?}: {error}"));
        assert_eq!((answer.status, answer.header("tenfold-reason")), (*status, Some(*reason)), "{request:?}");
        assert!(answer.closes, "{request:?}");
        assert!(client.closed_in_silence(), "{request:?}");
    }
    assert_eq!(origin.requests(), 0);
}

#[test]
fn a_head_without_end_is_refused_at_its_limit() {
    let origin = origin();
    let edge = Running::in_front_of(&[origin.addr()]);
    let mut client = edge.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n").unwrap();
    // The edge may close before all of it is sent.
    for _ in 0..20 {
        if client.send(format!("X-Filler: {}\r\n", "x".repeat(4000))).is_err() {
            break;
        }
    }
    assert_eq!(client.response().unwrap().status, 431);
    assert_eq!(origin.requests(), 0);
}

#[test]
fn garbage_behind_a_request_does_not_take_its_answer_away() {
    let origin = origin();
    let edge = Running::in_front_of(&[origin.addr()]);
    let mut client = edge.client();
    client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\nGARBAGE\r\n\r\n").unwrap();
    assert_eq!(client.response().unwrap().text(), "ok");
    let refused = client.response().unwrap();
    assert_eq!((refused.status, refused.closes), (400, true));
    assert_eq!(origin.requests(), 1);
}

#[test]
fn a_bad_chunk_ends_the_request_and_the_nodes_connection() {
    let origin = origin();
    let edge = Running::in_front_of(&[origin.addr()]);
    let mut client = edge.client();
    client
        .send("POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n")
        .unwrap();
    let refused = client.response().unwrap();
    assert_eq!((refused.status, refused.header("tenfold-reason")), (400, Some("invalid_chunk_size")));
    assert!(refused.closes && client.closed_in_silence());
    assert_eq!(origin.requests(), 0, "the node never saw a whole request");
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let origin =
        Origin::serve(|request| Answer::ok(request.target.clone()).cache_control("max-age=60")).unwrap();
    let edge = Running::in_front_of(&[origin.addr()]);
    let mut client = edge.client();
    for _ in 0..2 {
        let requests: String = (0..50).map(|i| format!("GET /{i} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
        client.send(requests).unwrap();
        for i in 0..50 {
            assert_eq!(client.response().unwrap().text(), format!("/{i}"));
        }
    }
    assert_eq!(origin.requests(), 50);
}

#[test]
fn a_dribbled_request_is_a_request() {
    let origin = origin();
    let edge = Running::in_front_of(&[origin.addr()]);
    let mut client = edge.client();
    client.dribble("\r\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(client.response().unwrap().text(), "ok");
}

#[test]
fn connect_and_trace_are_refused_and_options_for_all_is_answered_here() {
    let origin = origin();
    let edge = Running::in_front_of(&[origin.addr()]);
    let refused = edge.client().request("TRACE", "/", &[]).unwrap();
    assert_eq!((refused.status, refused.header("tenfold-reason")), (405, Some("method_refused")));
    let mut client = edge.client();
    client.send("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n").unwrap();
    let refused = client.response().unwrap();
    assert_eq!((refused.status, refused.closes), (405, true));
    let all = edge.client().request("OPTIONS", "*", &[]).unwrap();
    assert_eq!((all.status, all.header("allow").is_some()), (204, true));
    assert_eq!(origin.requests(), 0);
}

#[test]
fn an_upgrade_is_not_passed_on() {
    let origin = origin();
    let edge = Running::in_front_of(&[origin.addr()]);
    let fields = [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "x")];
    assert_eq!(edge.client().request("GET", "/", &fields).unwrap().status, 200);
    let seen = origin.last().unwrap();
    assert_eq!((seen.header("upgrade"), seen.header("http2-settings")), (None, None));
}

#[test]
fn http_1_0_gets_neither_chunks_nor_a_connection_it_did_not_ask_for() {
    let origin =
        Origin::serve(|_| Answer::new(200).chunked(["one", "two"]).cache_control("no-store")).unwrap();
    let edge = Running::in_front_of(&[origin.addr()]);
    let mut client = edge.client();
    client.send("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n").unwrap();
    let answer = String::from_utf8(client.read_to_close().unwrap()).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert_eq!(body, "onetwo");
    assert!(
        !head.to_lowercase().contains("transfer-encoding") && head.contains("Connection: close"),
        "{head}"
    );
}

#[test]
fn http_1_0_keeps_its_connection_if_it_asks_and_the_length_is_known() {
    let origin = origin();
    let edge = Running::in_front_of(&[origin.addr()]);
    let mut client = edge.client();
    for _ in 0..2 {
        client.send("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n").unwrap();
        assert_eq!(client.response().unwrap().header("connection"), Some("keep-alive"));
    }
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(client.response().unwrap().header("connection"), Some("close"));
    assert!(client.closed_in_silence());
}

#[test]
fn a_body_beyond_the_limit_is_refused() {
    let origin = origin();
    let mut config = config(&[origin.addr()]);
    config.limits.request_body_bytes_max = 10;
    let edge = Running::start(config);
    let known = edge.client().request_with_body("POST", "/", &[], b"12345678901").unwrap();
    assert_eq!((known.status, known.header("tenfold-reason")), (413, Some("body_too_large")));
    let mut client = edge.client();
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n12345678901\r\n0\r\n\r\n")
        .unwrap();
    assert_eq!(client.response().unwrap().status, 413);
    assert_eq!(origin.requests(), 0);
}

#[test]
fn a_connection_ends_in_an_orderly_way_after_its_last_request() {
    let origin = origin();
    let mut config = config(&[origin.addr()]);
    config.limits.requests_per_connection_max = 2;
    let edge = Running::start(config);
    let mut client = edge.client();
    assert!(!client.get("/").unwrap().closes);
    assert!(client.get("/").unwrap().closes);
    assert!(client.closed_in_silence());
}
