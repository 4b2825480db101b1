//! Nodes die under load and come back. The long form, with nodes that are processes and a minute of load, is
//! `bench/failover`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tenfold_testkit::origin::Received;
use tenfold_testkit::raw::Client;
use tenfold_testkit::{Answer, Gate, Origin, wait_for};

use crate::process::{Folder, LIMIT, Process, get};

const CLIENTS: u64 = 6;

fn node() -> Origin {
    Origin::serve(|_| Answer::ok("ok")).expect("a node")
}

fn running(nodes: &[&Origin]) -> Process {
    let nodes: Vec<_> = nodes.iter().map(|node| format!("\"{}\"", node.addr())).collect();
    let source = format!(
        "edge.listen = \"127.0.0.1:0\"\nadmin.listen = \"127.0.0.1:0\"\n[cluster.api]\nnodes = [{}]\n\
         health = {{ path = \"/health\", every = \"100ms\" }}\n\
         [[route]]\nname = \"cached\"\npath = \"/cached/{{key}}\"\nto = \"api\"\n\
         cache = {{ ttl = \"1s\", stale_if_error = \"10m\" }}\n\
         [[route]]\nname = \"rest\"\npath = \"/{{*rest}}\"\nto = \"api\"\ncache = \"off\"\n",
        nodes.join(", ")
    );
    Folder::with(&source).run()
}

fn node_state(process: &Process, index: usize) -> String {
    process.get("/api/v1/status").json()["clusters"][0]["nodes"][index]["state"].to_string()
}

/// What one client saw until it was stopped.
#[derive(Default)]
struct Seen {
    reads: u64,
    failed_reads: Vec<String>,
}

/// Two reads and an order by turns; no two orders are alike.
fn shop(edge: SocketAddr, client: u64, answered: &AtomicU64, stop: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    let mut kept = Client::connect(edge).expect("connects");
    for number in 0_u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let is_order = number.is_multiple_of(3);
        let answer = if is_order {
            // With a body and without: only one of them could be sent again at all.
            let body: &[u8] = if number.is_multiple_of(2) { b"an order" } else { b"" };
            kept.request_with_body("POST", &format!("/orders/{client}-{number}"), &[], body)
        } else {
            kept.get("/read")
        };
        seen.reads += u64::from(!is_order);
        match &answer {
            Ok(answer) if answer.status == 200 => {}
            _ if is_order => {}
            other => seen.failed_reads.push(format!("{other:?}")),
        }
        answered.fetch_add(1, Ordering::Relaxed);
        if answer.map_or(true, |answer| answer.closes) {
            kept = Client::connect(edge).expect("connects");
        }
    }
    seen
}

#[test]
fn a_node_that_dies_under_load_fails_no_read_and_no_order_is_sent_twice() {
    let gate = Gate::new();
    gate.open();
    let held = gate.clone();
    // Orders alone wait there: reads that did would keep the orders away, which go where less is in flight.
    let first = Origin::serve(move |request| match request.method.as_str() {
        "POST" => Answer::ok("ok").gated(&held),
        _ => Answer::ok("ok"),
    });
    let (mut first, second) = (first.expect("a node"), node());
    let process = running(&[&first, &second]);
    let edge = process.edge[0];
    let (answered, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (answered, stop) = (Arc::clone(&answered), Arc::clone(&stop));
            std::thread::spawn(move || shop(edge, client, &answered, &stop))
        })
        .collect();
    wait_for("traffic at both", LIMIT, || first.requests().min(second.requests()) > 200);
    // It dies with orders in hand.
    gate.close();
    let is_order = |request: &Received| request.method == "POST";
    wait_for("an order in hand", LIMIT, || gate.waiting() > 0);
    first.stop();
    let then = answered.load(Ordering::Relaxed);
    wait_for("traffic at the other", LIMIT, || answered.load(Ordering::Relaxed) > then + 500);
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        let seen = client.join().expect("no panic");
        assert!(seen.reads > 0);
        assert_eq!(seen.failed_reads, Vec::<String>::new());
    }
    let mut orders: HashMap<String, u32> = HashMap::new();
    let received = first.received().into_iter().chain(second.received());
    for order in received.filter(is_order) {
        *orders.entry(order.target).or_default() += 1;
    }
    assert!(orders.len() > 100);
    assert!(orders.values().all(|&times| times == 1), "an order was sent twice");
}

#[test]
fn with_every_node_dead_cached_routes_answer_stale_and_others_say_why() {
    let (mut first, mut second) = (node(), node());
    let process = running(&[&first, &second]);
    let edge = process.edge[0];
    assert_eq!(get(edge, "/cached/1").status, 200);
    first.stop();
    second.stop();
    // At once, before any health check can have noticed, and after all have.
    for turn in ["at once", "later"] {
        let read = get(edge, "/read");
        assert_eq!((read.status, read.header("tenfold-reason")), (503, Some("no_node")), "{turn}");
        let order = Client::connect(edge)
            .and_then(|mut client| client.request_with_body("POST", "/orders", &[], b"x"));
        let order = order.expect("an answer");
        assert_eq!((order.status, order.header("tenfold-reason")), (503, Some("no_node")), "{turn}");
        wait_for("a stale answer", LIMIT, || {
            let answer = get(edge, "/cached/1");
            assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
            answer.header("cache-status").is_some_and(|status| status.contains("stale"))
        });
        let unknown = get(edge, "/cached/never-stored");
        assert_eq!((unknown.status, unknown.header("tenfold-reason")), (503, Some("no_node")), "{turn}");
        wait_for("the checks to notice", LIMIT, || {
            (0..2).all(|index| node_state(&process, index) == "\"down\"")
        });
    }
}

#[test]
fn nodes_that_come_back_get_traffic_again() {
    let (mut first, mut second) = (node(), node());
    let process = running(&[&first, &second]);
    let edge = process.edge[0];
    first.stop();
    second.stop();
    wait_for("the checks to notice", LIMIT, || (0..2).all(|index| node_state(&process, index) == "\"down\""));
    let reads = |node: &Origin| node.count("GET", "/read");
    for node in [&mut first, &mut second] {
        node.forget();
        node.restart().expect("the port is still free");
        wait_for("traffic", LIMIT, || {
            get(edge, "/read");
            reads(node) > 0
        });
    }
    wait_for("both to be up", LIMIT, || (0..2).all(|index| node_state(&process, index) == "\"up\""));
    let before = reads(&first) + reads(&second);
    for _ in 0..50 {
        assert_eq!(get(edge, "/read").status, 200);
    }
    assert_eq!(reads(&first) + reads(&second), before + 50);
}
