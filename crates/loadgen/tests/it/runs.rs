//! Whole runs: rates, queues, traces, log-ins, logs, capacity.

use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tenfold_loadgen::capacity::{Measure, measure};
use tenfold_loadgen::schedule::Spacing;
use tenfold_loadgen::trace::KeyTrace;
use tenfold_loadgen::{Error, Plan, Run, Scenario, Schedule, Slo, Stop, ideal, log_in, run, table};

use crate::server::{self, ok};

const SECOND: Duration = Duration::from_secs(1);

fn plan(target: String, rate: f64, duration: Duration, scenario: &str) -> Plan {
    let scenario: Scenario = serde_json::from_str(scenario).unwrap();
    Plan::new(vec![target], scenario, Schedule::constant(rate, duration, Spacing::Even, 0).unwrap())
}

fn play(plan: &Plan) -> Run {
    run(plan, &Stop::default(), &mut |_| {}).unwrap()
}

const HOME: &str = r#"{"name": "home", "route": [{"name": "home", "weight": 1, "path": "/"}]}"#;

#[test]
fn two_thousand_a_second_for_three_seconds() {
    let mut plan = plan(server::answering(|_| ok("hello")), 2000.0, 3 * SECOND, HOME);
    // Wide enough for a machine that is busy with other tests; a generator that can't keep up misses it by far.
    plan.slo = Some(Slo { p99_ms: 1000.0, error_ratio: 0.0 });
    let mut seconds = Vec::new();
    let report = run(&plan, &Stop::default(), &mut |second| seconds.push(*second)).unwrap().report;
    assert_eq!((report.offered, report.ok, report.errors), (6000, 6000, 0));
    assert!(report.slo.unwrap().held, "{:?}", report.slo);
    assert_eq!(seconds, report.series);
    assert!(seconds.len() >= 3, "{}", seconds.len());
    assert_eq!(seconds.iter().map(|second| second.offered).sum::<u64>(), 6000);
    assert_eq!(seconds.iter().map(|second| second.ok).sum::<u64>(), 6000);
    assert!(report.cpu_s > 0.0 && report.cpu_s < 3.0, "{}", report.cpu_s);
    let text = table::render(&report);
    for part in ["6000", "SLO          held", "p99.99", "home"] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let json = serde_json::to_string(&report).unwrap();
    let read: tenfold_loadgen::Report = serde_json::from_str(&json).unwrap();
    assert_eq!((read.offered, read.routes.len()), (6000, 1));
}

/// Answers nothing until the gate has opened.
fn gated(gate: Receiver<()>) -> String {
    let gate = Mutex::new(gate);
    server::answering(move |_| {
        // Once the other end is dropped, every wait ends at once.
        let _ = gate.lock().unwrap().recv();
        ok("hello")
    })
}

#[test]
fn a_stall_is_felt_by_everyone_who_came_meanwhile() {
    let (open, gate) = channel::<()>();
    let mut open = Some(open);
    let mut plan = plan(gated(gate), 100.0, SECOND, HOME);
    plan.client.connections_max = 1;
    // The gate opens when the first second has been reported.
    let report = run(&plan, &Stop::default(), &mut |_| drop(open.take())).unwrap().report;
    assert_eq!((report.offered, report.ok), (100, 100));
    // A closed loop would have reported one slow request. Here half of them waited half of the second.
    assert!(report.latency.max_ms >= 950.0, "{:?}", report.latency);
    assert!(report.latency.p50_ms >= 450.0, "{:?}", report.latency);
    assert!(report.series[0].in_flight > 50, "{:?}", report.series[0]);
}

#[test]
fn connections_never_exceed_their_maximum() {
    let (open, gate) = channel::<()>();
    let mut open = Some(open);
    let mut plan = plan(gated(gate), 100.0, SECOND, HOME);
    plan.client.connections_max = 4;
    plan.client.threads = 2;
    let report = run(&plan, &Stop::default(), &mut |_| drop(open.take())).unwrap().report;
    assert_eq!((report.ok, report.connections), (100, 4));
}

#[test]
fn a_run_can_be_stopped() {
    let plan = plan(server::answering(|_| ok("hello")), 50.0, 3600 * SECOND, HOME);
    let stop = Stop::default();
    let report = run(&plan, &stop, &mut |_| stop.stop()).unwrap().report;
    assert!(report.stopped && report.played_s < 30.0, "{}", report.played_s);
}

#[test]
fn keys_are_asked_for_in_the_traces_order_whatever_the_threads() {
    for threads in [1, 3] {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let asking = Arc::clone(&asked);
        let target = server::answering(move |request| {
            asking.lock().unwrap().push(request.target.clone());
            ok("hello")
        });
        let scenario = r#"{"route": [{"name": "p", "weight": 3, "path": "/p/{key}"}, {"name": "n", "weight": 1, "path": "/n"}]}"#;
        let mut plan = plan(target, 1000.0, SECOND / 5, scenario);
        plan.keys = Some(Arc::new(KeyTrace::of_keys((0..1000).rev()).unwrap()));
        plan.client.threads = threads;
        plan.log_requests = true;
        let Run { report, log } = play(&plan);
        let mut asked = asked.lock().unwrap().clone();
        asked.retain(|target| target != "/n");
        let mut expected: Vec<_> = (1..=report.routes[0].offered).map(|key| format!("/p/{key}")).collect();
        asked.sort();
        expected.sort();
        assert_eq!(asked, expected);
        assert_eq!((log.lines().len(), log.dropped()), (200, 0));
        assert!(log.lines().is_sorted_by_key(|line| line.intended_us));
        assert!(log.lines().iter().all(|line| line.ok && line.intended_us <= line.started_us));
        let targets: BTreeSet<_> = log.lines().iter().map(|line| line.target).collect();
        assert_eq!(targets.len(), expected.len() + 1);
        let rule = ideal::Rule { ttl_ms: Some(60_000), origin_us: 1000 };
        assert_eq!(ideal::fetches(&log, &[rule, rule]), u64::try_from(targets.len()).unwrap());
    }
}

#[test]
fn targets_take_turns() {
    let names = ["a", "b"].map(|name| server::answering(move |_| ok(name)));
    let mut plan = plan(names[0].clone(), 1000.0, SECOND / 10, HOME);
    plan.targets = names.to_vec();
    plan.client.connections_max = 8;
    let report = play(&plan).report;
    assert_eq!((report.offered, report.ok), (100, 100));
    let one_gone = Plan { targets: vec![names[0].clone(), server::nobody()], ..plan };
    let report = play(&one_gone).report;
    assert_eq!((report.ok, report.failures["refused"]), (50, 50));
}

const SHOP: &str = r#"{
    "name": "shop",
    "setup": [{"name": "log in", "repeat": 3, "path": "/login", "body": "{\"user\": \"user{n}\"}", "keep": "/token"}],
    "route": [
        {"name": "cart", "weight": 1, "path": "/cart", "class": "personal", "headers": {"Authorization": "Bearer {token}"}},
        {"name": "order", "weight": 1, "method": "POST", "path": "/orders", "class": "write", "slo_exempt": true,
         "headers": {"Authorization": "Bearer {token}"}, "body": "{\"product\": {random:1-5}}", "expect": [201]}
    ],
    "count_header": [{"name": "Cache-Status", "part": 1}]
}"#;

/// A shop where one logs in.
fn shop() -> String {
    server::answering(|request| {
        let answer = |status: &str, body: &str| {
            format!(
                "HTTP/1.1 {status}\r\nCache-Status: t; fwd=bypass\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )
        };
        let is_known =
            (0..3).any(|n| request.head.contains(&format!("Authorization: Bearer tok-user{n}\r\n")));
        match (request.method.as_str(), request.target.as_str()) {
            ("POST", "/login") => answer("200 OK", &request.body.replace("user\": \"", "token\": \"tok-")),
            _ if !is_known => answer("401 Who?", ""),
            ("POST", "/orders") if !request.body.starts_with("{\"product\": ") => answer("400 What?", ""),
            ("POST", "/orders") => answer("201 Created", "{}"),
            _ => answer("200 OK", "{}"),
        }
    })
}

#[test]
fn logged_in_users_carry_their_tokens() {
    let mut plan = plan(shop(), 500.0, SECOND / 5, SHOP);
    assert_eq!(log_in(&plan).unwrap(), ["tok-user0", "tok-user1", "tok-user2"]);
    let report = play(&plan).report;
    assert_eq!((report.offered, report.ok, &report.failures.len()), (100, 100, &0));
    assert_eq!(report.classes.iter().map(|class| class.offered).sum::<u64>(), 100);
    assert_eq!(report.headers["Cache-Status"]["fwd=bypass"], 100);
    assert_eq!(report.latency_slo.count, report.routes[0].latency.count);
    plan.tokens = Arc::new(vec!["forged".into()]);
    assert_eq!(play(&plan).report.failures["status_401"], 100);
}

#[test]
fn a_log_in_that_fails_is_told_before_the_run() {
    let refused = |target: String, because: &str| {
        let error = log_in(&plan(target, 1.0, SECOND, SHOP)).unwrap_err();
        assert!(matches!(&error, Error::Setup { why, .. } if why.contains(because)), "{error}");
    };
    refused(server::answering(|_| "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n".into()), "status 500");
    refused(server::answering(|_| ok("{}")), "/token");
    refused(server::nobody(), "refused");
}

#[test]
fn the_capacity_of_a_server_that_cannot_be_slower_is_the_ceiling() {
    let plan = plan(server::answering(|_| ok("hello")), 1.0, SECOND, HOME);
    let mut how = Measure::new(50.0, SECOND / 4, Slo { p99_ms: 2000.0, error_ratio: 0.0 });
    how.search.rate_max = 150.0;
    let mut probes = 0;
    let found = measure(&plan, &how, &Stop::default(), &mut |_| {}, &mut |_| probes += 1).unwrap();
    assert!(found.is_ceiling && (found.rate - 150.0).abs() < 1e-9, "{found:?}");
    assert_eq!((probes, found.probes.len()), (3, 3));
}
