//! Origins and the raw client, against each other and against bytes written by hand.

use std::io::ErrorKind;

use tenfold_testkit::origin::Step;
use tenfold_testkit::raw::{self, Client};
use tenfold_testkit::{Answer, Gate, Origin, wait_for};

use crate::{SHORT, SOON};

#[test]
fn echo_tells_what_it_received() {
    let origin = Origin::echo().unwrap();
    let mut client = Client::connect(origin.addr()).unwrap();
    let response = client.request_with_body("POST", "/a?b=c", &[("X-One", "1")], b"hello").unwrap();
    let account = response.json();
    assert_eq!((response.status, account["method"].as_str()), (200, Some("POST")));
    assert_eq!((&account["target"], &account["body"]), (&"/a?b=c".into(), &"hello".into()));
    assert_eq!(account["fields"][1], serde_json::json!(["X-One", "1"]));
    client.get("/a").unwrap();
    assert_eq!(client.get("/a").unwrap().json()["count"], 2);
    assert_eq!((origin.requests(), origin.count("GET", "/a"), origin.connections()), (3, 2, 1));
    assert!(origin.received()[0].raw.ends_with(b"\r\n\r\nhello"));
    assert_eq!(origin.last().unwrap().path(), "/a");
}

#[test]
fn connections_are_counted_while_open() {
    let origin = Origin::echo().unwrap();
    let client = Client::connect(origin.addr()).unwrap();
    wait_for("one open connection", SOON, || origin.connections_open() == 1);
    drop(client);
    wait_for("no open connection", SOON, || origin.connections_open() == 0);
}

#[test]
fn an_answer_can_be_changed_and_revalidated() {
    let origin = Origin::kv().unwrap();
    let mut client = Client::connect(origin.addr()).unwrap();
    assert_eq!(client.get("/p").unwrap().status, 404);
    origin.set("/p", Answer::ok("v1").etag("\"1\"").cache_control("max-age=5"));
    let response = client.get("/p?q").unwrap();
    assert_eq!((response.text().as_str(), response.header("cache-control")), ("v1", Some("max-age=5")));
    let fresh = client.request("GET", "/p", &[("If-None-Match", "\"1\"")]).unwrap();
    assert_eq!((fresh.status, fresh.body.len()), (304, 0));
    let head = client.request("HEAD", "/p", &[]).unwrap();
    assert_eq!((head.header("content-length"), head.body.len()), (Some("2"), 0));
    origin.set_default(Answer::new(503));
    assert_eq!(client.get("/other").unwrap().status, 503);
}

#[test]
fn a_gate_holds_the_answer_until_it_opens() {
    let origin = Origin::kv().unwrap();
    let gate = Gate::new();
    origin.set("/slow", Answer::ok("at last").gated(&gate));
    let mut client = Client::connect_with_limit(origin.addr(), SOON).unwrap();
    client.send("GET /slow HTTP/1.1\r\n\r\n").unwrap();
    wait_for("the answer to be held", SOON, || gate.waiting() == 1);
    gate.open();
    assert_eq!(client.response().unwrap().text(), "at last");
    assert_eq!(gate.waiting(), 0);
}

#[test]
fn chunks_come_one_by_one() {
    let origin = Origin::kv().unwrap();
    let gate = Gate::new();
    origin.set("/c", Answer::new(200).chunked(["one", "two"]).gated_chunks(&gate));
    let mut client = Client::connect(origin.addr()).unwrap();
    client.send("GET /c HTTP/1.1\r\n\r\n").unwrap();
    client.read_through("one").unwrap();
    wait_for("the second chunk to be held", SOON, || gate.waiting() == 1);
    gate.open();
    assert!(client.read_through("0\r\n\r\n").unwrap().ends_with(b"3\r\ntwo\r\n0\r\n\r\n"));
    assert_eq!(client.get("/c").unwrap().text(), "onetwo");
}

#[test]
fn a_client_that_leaves_a_held_answer_is_noticed() {
    let origin = Origin::kv().unwrap();
    let gate = Gate::new();
    origin.set_default(Answer::ok("nobody reads this").gated_body(&gate));
    let mut client = Client::connect(origin.addr()).unwrap();
    client.send("GET / HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(client.status().unwrap(), 200);
    drop(client);
    wait_for("the origin to notice", SOON, || origin.abandoned() == 1);
}

#[test]
fn a_lying_origin_cuts_its_answer() {
    let origin = Origin::serve(|_| Answer::ok("0123456789").cut_at(4)).unwrap();
    let mut client = Client::connect(origin.addr()).unwrap();
    client.send("GET / HTTP/1.1\r\n\r\n").unwrap();
    let bytes = client.read_to_close().unwrap();
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.contains("Content-Length: 10") && text.ends_with("\r\n\r\n0123"), "{text}");
    let error = raw::get(origin.addr(), "/").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
}

#[test]
fn a_script_is_played_step_by_step() {
    let script = vec![
        Step::expect("GET"),
        Step::send("HTTP/1.1 200 OK\r\nContent-"),
        Step::send("Length: 2\r\n\r\nhi"),
        Step::HalfClose,
        Step::Drain,
    ];
    let origin = Origin::scripted_each(vec![script, vec![Step::ReadRequest, Step::Reset]]).unwrap();
    let mut client = Client::connect(origin.addr()).unwrap();
    assert_eq!(client.get("/").unwrap().text(), "hi");
    assert!(client.closed_in_silence());
    let error = raw::get(origin.addr(), "/second").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(origin.last().unwrap().target, "/second");
}

#[test]
fn a_stalled_origin_is_a_time_out() {
    let origin = Origin::scripted(vec![Step::Stall]).unwrap();
    let mut client = Client::connect_with_limit(origin.addr(), SHORT).unwrap();
    assert_eq!(client.get("/").unwrap_err().kind(), ErrorKind::TimedOut);
}

#[test]
fn a_stopped_origin_refuses_and_comes_back_on_its_port() {
    let mut origin = Origin::echo().unwrap();
    let mut client = Client::connect(origin.addr()).unwrap();
    client.get("/").unwrap();
    origin.stop();
    assert!(matches!(client.get("/"), Err(error) if error.kind() != ErrorKind::TimedOut));
    assert_eq!(raw::get(origin.addr(), "/").unwrap_err().kind(), ErrorKind::ConnectionRefused);
    origin.restart().unwrap();
    assert_eq!(raw::get(origin.addr(), "/").unwrap().status, 200);
}

#[test]
fn idle_connections_close_as_a_keep_alive_timeout_would() {
    let origin = Origin::echo().unwrap();
    let mut client = Client::connect(origin.addr()).unwrap();
    client.get("/").unwrap();
    origin.close_connections();
    assert!(client.closed_in_silence());
}

#[test]
fn interim_responses_are_set_aside() {
    let early = "HTTP/1.1 103 Early Hints\r\nLink: </s.css>\r\n\r\n";
    let origin = Origin::serve(move |_| Answer::ok("x").interim(early)).unwrap();
    let mut client = Client::connect(origin.addr()).unwrap();
    let response = client.request_with_body("PUT", "/", &[("Expect", "100-continue")], b"b").unwrap();
    assert_eq!((response.status, response.interim), (200, vec![100, 103]));
}
