//! The end of the process, and a change of configuration, while requests run.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use tenfold_testkit::origin::Gate;
use tenfold_testkit::{Answer, Origin, wait_for};

use crate::harness::{LIMIT, Running, config};

#[test]
fn draining_tells_every_connection_and_finishes_what_runs() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::serve(move |request| {
        let answer = Answer::ok("done").cache_control("no-store");
        if request.path() == "/slow" { answer.gated(&held) } else { answer }
    })
    .unwrap();
    let edge = Running::in_front_of(&[origin.addr()]);
    let (mut idle, mut busy) = (edge.client(), edge.client());
    assert!(!idle.get("/").unwrap().closes);
    busy.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    wait_for("the slow one", LIMIT, || gate.waiting() == 1);
    edge.drain.begin();
    let last = idle.get("/").unwrap();
    assert_eq!((last.status, last.closes), (200, true), "an idle connection may bring one more request");
    assert!(idle.closed_in_silence());
    gate.open();
    let done = busy.response().unwrap();
    assert_eq!((done.text(), done.closes), ("done".to_owned(), true));
    assert!(busy.closed_in_silence());
    wait_for("the end", LIMIT, || edge.limits.open() == 0);
}

#[test]
fn an_idle_connection_is_closed_after_its_grace() {
    let origin = Origin::kv().unwrap();
    let edge = Running::in_front_of(&[origin.addr()]);
    let mut idle = edge.client();
    idle.get("/").unwrap();
    edge.drain.begin();
    assert!(idle.closed_in_silence());
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a reload is told the time")]
fn a_reload_loses_no_request_and_keeps_the_cache() {
    let first = Origin::serve(|_| Answer::ok("first").cache_control("max-age=60")).unwrap();
    let second = Origin::serve(|_| Answer::ok("second").cache_control("no-store")).unwrap();
    let edge = Running::in_front_of(&[first.addr()]);
    edge.client().get("/kept").unwrap();
    let (stop, served) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut client = edge.client();
                while !stop.load(Ordering::Relaxed) {
                    let answer = client.request("POST", "/x", &[]).unwrap();
                    assert_eq!(answer.status, 200);
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for round in 0..20 {
            let nodes = if round % 2 == 0 { second.addr() } else { first.addr() };
            edge.edge.commit(edge.edge.prepare(config(&[nodes]), Instant::now()).unwrap());
            let before = served.load(Ordering::Relaxed);
            wait_for("requests to go on", LIMIT, || served.load(Ordering::Relaxed) > before + 10);
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(edge.client().get("/kept").unwrap().text(), "first");
    let mut bad = config(&[first.addr()]);
    bad.routes[0].to = "apj".to_owned();
    bad.cache.variants_max = 0;
    bad.clusters[0].name = "elsewhere".to_owned();
    let errors = edge.edge.prepare(bad, Instant::now()).unwrap_err();
    let paths: Vec<_> = errors.iter().map(|error| error.path.as_str()).collect();
    assert_eq!(paths, ["cache.variants_max", "route[0].to"]);
    assert!(!edge.registry.render().contains("elsewhere"), "what was refused leaves no series");
    assert_eq!(edge.client().request("POST", "/x", &[]).unwrap().status, 200);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test stands where the binary does")]
fn a_key_of_what_no_node_is_told_is_refused() {
    let edge = Running::in_front_of(&["127.0.0.1:9".parse().unwrap()]);
    for (name, refused) in
        [("x-forwarded-for", true), ("X_Real_IP", true), ("te", true), ("accept-language", false)]
    {
        let mut keyed = config(&["127.0.0.1:9".parse().unwrap()]);
        let key = vec![tenfold_cache::KeyPart::Header(name.to_owned())];
        keyed.routes[0].cache =
            tenfold_cache::Rule::Override(tenfold_cache::Override { key, ..Default::default() });
        let errors = edge.edge.prepare(keyed, Instant::now()).err().unwrap_or_default();
        let paths: Vec<_> = errors.iter().map(|error| error.path.as_str()).collect();
        assert_eq!(paths, if refused { vec!["route[0].cache.key"] } else { vec![] }, "{name}");
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test stands where the binary does")]
fn a_route_that_waits_for_what_no_request_has_is_refused() {
    let edge = Running::in_front_of(&["127.0.0.1:9".parse().unwrap()]);
    for (name, value, refused) in [
        ("x-forwarded-proto", "https", false),
        ("x-forwarded-proto", "http", true),
        ("x-real-ip", "192.0.2.1", true),
        ("x-beta", "1", false),
    ] {
        let mut routed = config(&["127.0.0.1:9".parse().unwrap()]);
        routed.routes[0].headers = vec![(name.to_owned(), value.to_owned())];
        let errors = edge.edge.prepare(routed, Instant::now()).err().unwrap_or_default();
        let paths: Vec<_> = errors.iter().map(|error| error.path.as_str()).collect();
        assert_eq!(paths, if refused { vec!["route[0].headers"] } else { vec![] }, "{name}: {value}");
    }
}
