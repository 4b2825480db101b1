//! How the client sees what servers do: each behaviour has one name in the report.

use std::time::Duration;

use tenfold_loadgen::schedule::Spacing;
use tenfold_loadgen::{Error, Plan, Report, Scenario, Schedule, Stop, run};

use crate::server::{self, Connection, ok};

/// `count` requests, ten milliseconds apart, one at a time.
fn plan(target: String, count: u32, route: &str) -> Plan {
    let scenario = format!(r#"{{"route": [{{"name": "r", "weight": 1, "path": "/", {route}}}]}}"#);
    let scenario: Scenario = serde_json::from_str(&scenario.replace(", }", "}")).unwrap();
    let schedule = Schedule::constant(100.0, Duration::from_millis(10) * count, Spacing::Even, 0).unwrap();
    let mut plan = Plan::new(vec![target], scenario, schedule);
    plan.client.connections_max = 1;
    plan
}

fn play(plan: &Plan) -> Report {
    run(plan, &Stop::default(), &mut |_| {}).unwrap().report
}

/// Plays three GETs; all are ok, or all fail alike.
fn check(target: String, expected: Option<&str>) -> Report {
    check_plan(&plan(target, 3, ""), expected)
}

fn check_plan(plan: &Plan, expected: Option<&str>) -> Report {
    let report = play(plan);
    let failures: Vec<_> = report.failures.iter().map(|(name, n)| (name.as_str(), *n)).collect();
    let expected: Vec<_> = expected.into_iter().map(|name| (name, report.offered)).collect();
    assert_eq!(failures, expected);
    assert_eq!(report.ok + report.errors, report.offered);
    report
}

/// Answers the first request of each connection with these bytes and closes it.
fn once(answer: &'static str) -> String {
    server::start(move |mut connection| {
        if connection.read().is_some() {
            connection.write(answer);
        }
    })
}

#[test]
fn whole_answers_of_every_framing_are_ok() {
    check(server::answering(|_| ok("hello")), None);
    check(server::answering(|_| ok(&"x".repeat(300_000))), None);
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    check(server::answering(move |_| chunked.to_owned()), None);
    check(server::answering(|_| "HTTP/1.1 204 No Content\r\n\r\n".to_owned()), None);
    check(server::answering(|_| format!("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n{}", ok("x"))), None);
    let large_head = format!(
        "HTTP/1.1 200 OK\r\n{}Content-Length: 0\r\n\r\n",
        format!("X: {}\r\n", "y".repeat(6000)).repeat(4)
    );
    check(server::answering(move |_| large_head.clone()), None);
    check(once("HTTP/1.1 200 OK\r\n\r\nuntil close"), None);
}

#[test]
fn a_server_that_closes_politely_costs_a_connection_each() {
    let report = check(once("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"), None);
    assert_eq!((report.connections, report.reconnects), (3, 0));
}

#[test]
fn kept_connections_are_used_again() {
    let report = check(server::answering(|_| ok("hello")), None);
    assert_eq!(report.connections, 1);
}

#[test]
fn broken_answers_have_their_names() {
    check(once("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort"), Some("truncated"));
    check(once("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel"), Some("truncated"));
    check(once("HTTP/1.1 200 OK\r\nContent-"), Some("truncated"));
    check(once("SMTP ready\r\n\r\n"), Some("malformed"));
    check(once("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), Some("malformed"));
    check(once(""), Some("closed"));
    check(server::start(Connection::reset_on_request), Some("reset"));
    let mut silent = plan(server::start(Connection::hold), 3, "");
    silent.client.timeout_ms = 200;
    check_plan(&silent, Some("timeout"));
    check(server::nobody(), Some("refused"));
}

#[test]
fn endless_heads_and_interim_answers_are_cut_off() {
    check(
        server::start(|mut connection| {
            while connection.read().is_some() {
                connection.write("HTTP/1.1 200 OK\r\n");
                (0..1000).for_each(|_| connection.write(&format!("X: {}\r\n", "y".repeat(1000))));
            }
        }),
        Some("malformed"),
    );
    check(server::answering(|_| "HTTP/1.1 100 Continue\r\n\r\n".repeat(100)), Some("malformed"));
}

#[test]
fn an_answer_nobody_asked_for_ends_the_connection() {
    // Two answers to each request: the second one is not taken for the next request's.
    let report = check(server::answering(|_| ok("a") + &ok("b")), None);
    assert_eq!(report.connections, 3);
}

#[test]
fn statuses_are_judged_by_what_the_route_expects() {
    check(server::answering(|_| "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n".into()), Some("status_503"));
    let found =
        || server::answering(|_| "HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n".into());
    check(found(), None);
    let report = play(&plan(found(), 1, r#""expect": [200]"#));
    assert_eq!(report.failures["unexpected_302"], 1);
    assert_eq!(report.statuses[&302], 1);
}

/// Answers one request per connection, and resets it when a second one arrives.
fn forgetful() -> String {
    server::start(|mut connection| {
        if connection.read().is_some() {
            connection.write(&ok("hello"));
            connection.reset_on_request();
        }
    })
}

#[test]
fn a_get_on_a_connection_that_proves_closed_is_sent_again() {
    let report = play(&plan(forgetful(), 4, ""));
    // The first reset shows on the second request; the connection made for it is reset under the third.
    assert_eq!((report.ok, report.errors, report.reconnects), (4, 0, 3));
}

#[test]
fn a_post_never_is_and_a_get_is_not_when_told_so() {
    let report = play(&plan(forgetful(), 2, r#""method": "POST""#));
    assert_eq!((report.ok, report.errors, report.reconnects), (1, 1, 0));
    let mut strict = plan(forgetful(), 2, "");
    strict.client.reconnect = false;
    let report = play(&strict);
    assert_eq!((report.ok, report.failures.get("reset"), report.reconnects), (1, Some(&1), 0));
}

#[test]
fn beyond_its_bounds_the_client_gives_up_at_once() {
    let mut bounded = plan(server::start(Connection::hold), 10, "");
    bounded.client.queue_max = 2;
    bounded.client.timeout_ms = 500;
    let report = play(&bounded);
    assert_eq!((report.failures["overflow"], report.failures["timeout"]), (7, 3));
    // Overflows never waited; the others waited as long as a user would.
    assert_eq!(report.latency.count, 3);
    assert!((500.0..5000.0).contains(&report.latency.p50_ms), "{:?}", report.latency);
}

#[test]
fn somebody_elses_host_is_not_loaded() {
    let error = run(&plan("http://192.0.2.7:80".into(), 1, ""), &Stop::default(), &mut |_| {}).unwrap_err();
    assert!(matches!(error, Error::NotLoopback { .. }), "{error}");
}
