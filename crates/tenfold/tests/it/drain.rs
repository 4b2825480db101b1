//! The process ends, and takes other files, while clients at every pace go on. The long form is `bench/drain`.

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use tenfold_testkit::process::StopSignal;
use tenfold_testkit::raw::Client;
use tenfold_testkit::{Answer, Origin, wait_for};

use crate::process::{Folder, LIMIT, get, stderr};

/// Between an answer and the next request of a client.
const PACES_MS: [u64; 6] = [0, 1, 10, 100, 400, 900];

fn node(name: &'static str) -> Origin {
    Origin::serve(move |_| Answer::ok("ok").header("X-Node", name).cache_control("no-store")).expect("a node")
}

fn file(node: &Origin, cluster: &str) -> String {
    format!(
        "edge.listen = \"127.0.0.1:0\"\nadmin.listen = \"127.0.0.1:0\"\n[cluster.{cluster}]\nnodes = [\"127.1:{}\"]\n\
         [[route]]\nname = \"all\"\npath = \"/{{*rest}}\"\nto = \"{cluster}\"\n",
        // A name to us, which the system's resolver reads as 127.0.0.1 without asking anybody.
        node.addr().port()
    )
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    answered: u64,
    /// Connections that ended with `Connection: close`.
    told: u64,
    failed: Vec<String>,
}

/// One client: reads and orders on a kept connection, a pace apart, until it is refused or told to stop.
fn play(edge: SocketAddr, pace: Duration, stop: &Receiver<()>) -> Seen {
    let mut seen = Seen::default();
    while let Ok(mut client) = Client::connect(edge) {
        let mut is_new = true;
        loop {
            let answer = if seen.answered.is_multiple_of(3) {
                client.request_with_body("POST", "/order", &[], b"an order")
            } else {
                client.get("/read")
            };
            match &answer {
                Ok(answer) if answer.status == 200 => seen.answered += 1,
                // It was connected and not yet accepted when the listener closed: refused, a moment later.
                Err(_) if is_new => return seen,
                other => {
                    seen.failed.push(format!("{other:?}"));
                    return seen;
                }
            }
            if answer.is_ok_and(|answer| answer.closes) {
                seen.told += 1;
                break;
            }
            is_new = false;
            if !matches!(stop.recv_timeout(pace), Err(RecvTimeoutError::Timeout)) {
                return seen;
            }
        }
    }
    seen
}

#[test]
fn an_end_under_load_fails_nothing_and_tells_every_client() {
    let origin = node("first");
    let folder = Folder::with(&file(&origin, "api"));
    let mut process = folder.run();
    let edge = process.edge[0];
    let clients = PACES_MS.map(|ms| {
        let (sender, stop) = channel();
        (sender, std::thread::spawn(move || play(edge, Duration::from_millis(ms), &stop)))
    });
    wait_for("traffic", LIMIT, || origin.requests() > 500);
    process.child.signal(StopSignal::Terminate);
    for (_sender, client) in clients {
        let seen = client.join().expect("no panic");
        assert_eq!(seen.failed, Vec::<String>::new());
        assert!(seen.told >= 1 && seen.answered >= 1, "{seen:?}");
    }
    assert_eq!(process.child.wait(LIMIT).expect("it ends").code(), Some(0), "{}", process.child.log());
}

#[test]
fn twenty_reloads_under_load_fail_nothing() {
    let nodes = [node("first"), node("second")];
    let files = [file(&nodes[0], "api"), file(&nodes[1], "other")];
    let folder = Folder::with(&files[0]);
    let process = folder.run();
    let edge = process.edge[0];
    let clients = PACES_MS.map(|ms| {
        let (sender, stop) = channel();
        (sender, std::thread::spawn(move || play(edge, Duration::from_millis(ms), &stop)))
    });
    for turn in 1..=20 {
        let (source, name) = if turn % 2 == 1 { (&files[1], "second") } else { (&files[0], "first") };
        folder.write(source);
        let reloaded = process.command(&folder, &["reload"]);
        assert_eq!(reloaded.status.code(), Some(0), "{}", stderr(&reloaded));
        assert_eq!(get(edge, "/who").header("x-node"), Some(name));
        let before = nodes[0].requests() + nodes[1].requests();
        wait_for("traffic", LIMIT, || nodes[0].requests() + nodes[1].requests() > before + 20);
    }
    for (sender, client) in clients {
        drop(sender);
        let seen = client.join().expect("no panic");
        assert_eq!((seen.failed, seen.told), (Vec::new(), 0));
        assert!(seen.answered >= 1);
    }
}
