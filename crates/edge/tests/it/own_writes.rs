//! Clients that see what they did: the token on the way out, and what it does on the way in.

use std::sync::{Arc, Mutex};

use tenfold_cache::Rule;
use tenfold_edge::config::{OwnWrites, SealKey};
use tenfold_edge::{After, Positions};
use tenfold_testkit::raw::Response;
use tenfold_testkit::{Answer, Origin};

use crate::harness::{Running, config, route};

const NAME: &str = "Tenfold-Position";

/// An edge whose database is always where `after` says.
fn edge(origin: &Origin, after: After) -> (Running, Arc<Mutex<Vec<[u8; 16]>>>) {
    edge_with(origin, after, "a key of sixteen")
}

fn edge_with(origin: &Origin, after: After, key: &str) -> (Running, Arc<Mutex<Vec<[u8; 16]>>>) {
    let mut config = config(&[origin.addr()]);
    config.routes = vec![route("all", "/{*rest}", Rule::Respect)];
    config.routes[0].own_writes = true;
    config.own_writes = OwnWrites { key: Some(SealKey::new(key.as_bytes())), ..OwnWrites::default() };
    let running = Running::start(config);
    let asked: Arc<Mutex<Vec<[u8; 16]>>> = Arc::default();
    let traces = Arc::clone(&asked);
    let positions: Positions = Arc::new(move |trace| {
        traces.lock().unwrap().push(trace);
        Box::pin(async move { after })
    });
    running.edge.set_positions(positions);
    (running, asked)
}

fn origin() -> Origin {
    Origin::serve(|request| match request.method.as_str() {
        "GET" => Answer::ok("page").cache_control("max-age=600"),
        _ => Answer::ok("done"),
    })
    .unwrap()
}

fn token(response: &Response) -> Option<String> {
    let token = response.header(NAME)?.to_owned();
    let cookie = response.header("Set-Cookie")?;
    assert!(cookie.starts_with(&format!("{NAME}={token}; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax")));
    Some(token)
}

#[test]
fn an_unsafe_requests_answer_brings_the_position_and_the_next_requests_use_it() {
    let origin = origin();
    let (edge, asked) = edge(&origin, After::At { system: 0x71, timeline: 2, lsn: 0x500 });
    let mut client = edge.client();
    assert_eq!(token(&client.get("/page").unwrap()), None);
    let written = client.request_with_body("POST", "/write", &[], b"x").unwrap();
    assert_eq!(written.text(), "done");
    let first = token(&written).unwrap();
    assert!(first.starts_with("1.71.2.500.0."), "{first}");
    let trace = asked.lock().unwrap()[0];
    let told = origin.last().unwrap().header("traceparent").unwrap().to_owned();
    let digits: String = trace.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(told.split('-').nth(1), Some(digits.as_str()));
    // A trace of the client's own is continued.
    let own = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    client.request("DELETE", "/write", &[("traceparent", own)]).unwrap();
    assert_eq!(asked.lock().unwrap()[1][..2], [0x0a, 0xf7]);
    let cookie = format!("a=b; {NAME}={first}");
    let again = client.request("GET", "/page", &[("Cookie", &cookie)]).unwrap();
    assert!(
        again.header("Cache-Status").unwrap().contains("fwd=stale"),
        "{:?}",
        again.header("Cache-Status")
    );
    assert!(again.header("Cache-Status").unwrap().contains("detail=own_write"));
    let node = origin.last().unwrap();
    assert_eq!((node.header(NAME), node.header("Cookie")), (Some(first.as_str()), Some("a=b")));
    for who in [&[("Cookie", cookie.as_str())][..], &[]] {
        let stored = client.request("GET", "/page", who).unwrap();
        assert!(
            stored.header("Cache-Status").unwrap().contains("hit"),
            "{:?}",
            stored.header("Cache-Status")
        );
    }
    assert_eq!(origin.count("GET", "/page"), 2);
}

#[test]
fn a_write_of_unknown_position_is_told_by_time_and_none_by_nothing() {
    let origin = origin();
    let (unknown, _) = edge(&origin, After::Unknown);
    let written = unknown.client().request("POST", "/write", &[]).unwrap();
    let token = token(&written).unwrap();
    assert!(token.starts_with("1.0.0.0.") && !token.starts_with("1.0.0.0.0."), "{token}");
    let (nothing, _) = edge(&origin, After::Nothing);
    let answered = nothing.client().request("POST", "/write", &[]).unwrap();
    assert_eq!((answered.header(NAME), answered.header("Set-Cookie")), (None, None));
    // The other edge has the same key.
    let cookie = format!("{NAME}={token}");
    nothing.client().get("/page").unwrap();
    let read = nothing.client().request("GET", "/page", &[("Cookie", &cookie)]).unwrap();
    assert!(read.header("Cache-Status").unwrap().contains("fwd=stale"));
    assert_eq!(origin.last().unwrap().header("Cookie"), None);
}

#[test]
fn a_node_that_fails_after_it_was_asked_may_have_done_it() {
    let origin = Origin::serve(|_| Answer::verbatim("nonsense\r\n\r\n")).unwrap();
    let (edge, _) = edge(&origin, After::Unknown);
    let failed = edge.client().request_with_body("POST", "/write", &[], b"x").unwrap();
    assert_eq!(failed.status, 502);
    assert!(token(&failed).is_some());
}

#[test]
fn what_nobody_sealed_counts_for_nothing() {
    let origin = origin();
    let at = After::At { system: 0x71, timeline: 2, lsn: 0x500 };
    let (edge, _) = edge(&origin, at);
    let mut client = edge.client();
    client.get("/page").unwrap();
    let good = token(&client.request("POST", "/write", &[]).unwrap()).unwrap();
    let (stranger, _) = edge_with(&origin, at, "a key of another cluster's edges");
    let foreign = token(&stranger.client().request("POST", "/write", &[]).unwrap()).unwrap();
    let long = format!("1.{}", "f".repeat(4_000));
    // Other numbers under a seal that is one.
    let mixed = good.replacen(".500.", ".501.", 1);
    let half = &good[..good.len() / 2];
    let unsealed = "1.71.2.fffffff.0.18bcfe56800.00112233445566778899aabbccddeeff";
    let many = format!("x{}", format!("; {NAME}={foreign}").repeat(60));
    for made_up in [unsealed, "x", "", &long, &foreign, &mixed, half, &format!("{good}{good}"), &many] {
        for field in [("Cookie", format!("a=b; {NAME}={made_up}")), (NAME, made_up.to_owned())] {
            let read = client.request("GET", "/page", &[(field.0, &field.1)]).unwrap();
            assert!(read.header("Cache-Status").unwrap().contains("hit"), "{field:?}");
            client.request("POST", "/write", &[(field.0, &field.1)]).unwrap();
            let node = origin.last().unwrap();
            let cookie = (field.0 == "Cookie").then_some("a=b");
            assert_eq!((node.header(NAME), node.header("Cookie")), (None, cookie), "{field:?}");
        }
    }
    assert_eq!(origin.count("GET", "/page"), 1);
    let cookie = format!("{NAME}=x; {NAME}={good}");
    client.request("GET", "/page", &[("Cookie", &cookie)]).unwrap();
    assert_eq!(
        origin.last().unwrap().header(NAME),
        Some(good.as_str()),
        "beside a made-up one it still counts"
    );
}
