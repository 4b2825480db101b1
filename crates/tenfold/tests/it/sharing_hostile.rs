//! Origins that would spoil what edges share: what one edge may not keep, the other never sees, and nobody waits for it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use tenfold_testkit::raw::{Client, Response};
use tenfold_testkit::redis::Redis;
use tenfold_testkit::{Answer, Gate, Origin, wait_for};

use crate::process::{Folder, LIMIT, Process};

const HOST: (&str, &str) = ("Host", "shop.example");

/// Two edges with a shield. A node may take a while, and not for ever.
fn edges(origin: SocketAddr, redis: &Redis) -> Vec<(Folder, Process)> {
    let file = format!(
        "edge.listen = \"127.0.0.1:0\"\nadmin.listen = \"127.0.0.1:0\"\n[cluster.api]\nnodes = [\"{origin}\"]\n\
         retries.per_request = 0\ntimeout.response = \"2s\"\n[[route]]\npath = \"/{{*rest}}\"\nto = \"api\"\n\
         cache = {{ shield = true }}\n[redis.cache]\nurl = \"{}\"\nprobe = \"1s\"\n[cache]\nredis = \"cache\"\n\
         shared = {{ budget = \"1s\", shield_budget = \"1s\" }}\n",
        redis.url()
    );
    let start = |_| {
        let folder = Folder::with(&file);
        let process = folder.run();
        wait_for("the edge shares", LIMIT, || {
            let shared = shared(&process);
            shared["up"] == true && shared["in_step"] == true
        });
        (folder, process)
    };
    (0..2).map(start).collect()
}

fn shared(edge: &Process) -> serde_json::Value {
    edge.get("/api/v1/status").json()["shared"].clone()
}

fn ask(edge: &Process, path: &str, more: &[(&str, &str)]) -> std::io::Result<Response> {
    Client::connect_with_limit(edge.edge[0], LIMIT)?.request("GET", path, &[&[HOST], more].concat())
}

/// What comes of each path at an edge: its status, or none where the connection breaks.
fn statuses(edge: &Process, paths: &[&str]) -> Vec<Option<u16>> {
    paths.iter().map(|path| ask(edge, path, &[]).ok().map(|answer| answer.status)).collect()
}

#[test]
fn what_one_edge_may_not_keep_no_other_sees() {
    let redis = Redis::start(&[]).expect("a Redis");
    let gate = Gate::new();
    let origin = Origin::kv().expect("an origin");
    let fresh = || Answer::ok("x".repeat(64)).cache_control("max-age=600");
    origin.set("/500", Answer::new(500).body("bad"));
    origin.set("/hangs", fresh().gated(&gate));
    origin.set("/cut", fresh().cut_at(10));
    origin.set("/cookie", fresh().header("Set-Cookie", "sid=1"));
    origin.set("/age", fresh().header("Age", "99999999999999"));
    origin.set("/flood", fresh().interim("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(1000)));
    origin.set("/star", fresh().header("Vary", "*"));
    origin.set("/good", fresh());
    let paths = ["/500", "/hangs", "/cookie", "/age", "/flood", "/star", "/cut"];
    let expected = [500, 504, 200, 200, 502, 200].map(Some);
    let edges = edges(origin.addr(), &redis);
    for (at, (_, edge)) in edges.iter().enumerate() {
        let seen = statuses(edge, &paths);
        assert_eq!(seen[..6], expected, "edge {at}");
        // Refused or broken off, as its head was on its way or not.
        assert_ne!(seen[6], Some(200), "edge {at}");
        for path in paths {
            assert_eq!(origin.count("GET", path), at as u64 + 1, "{path}: each edge asks for itself");
        }
    }
    // Values are stored in order, so after this one all that were to come are there.
    assert!(ask(&edges[0].1, "/good", &[]).is_ok());
    wait_for("it is stored", LIMIT, || shared(&edges[0].1)["stored"] == 1);
    let good = ask(&edges[1].1, "/good", &[]).expect("an answer");
    assert_eq!(good.header("cache-status"), Some("Tenfold; hit; detail=shared"));
    assert_eq!(redis.command(&["KEYS", "tenfold:{*}:v"]).lines().count(), 1, "and nothing else is");
    gate.open();
}

#[test]
fn an_origin_that_changes_its_vary_gives_no_edge_the_wrong_variant() {
    let redis = Redis::start(&[]).expect("a Redis");
    let origin = Origin::serve(|request| {
        let kind = request.header("x-kind").unwrap_or("none").to_owned();
        let vary = if kind == "3" { "X-Other" } else { "X-Kind" };
        Answer::ok(kind).cache_control("max-age=600").header("Vary", vary)
    })
    .expect("an origin");
    let edges = edges(origin.addr(), &redis);
    let stored = || edges.iter().map(|(_, edge)| shared(edge)["stored"].as_u64().unwrap_or(0)).sum::<u64>();
    let kind = |edge: usize, kind: &str| {
        let answer = ask(&edges[edge].1, "/a", &[("X-Kind", kind)]).expect("an answer");
        (answer.text(), answer.header("cache-status").is_some_and(|status| status.contains("detail=shared")))
    };
    for (nth, (edge, asked, from_the_other)) in
        [(0, "1", false), (1, "2", false), (1, "1", true), (0, "2", true)].into_iter().enumerate()
    {
        assert_eq!(kind(edge, asked), (asked.to_owned(), from_the_other), "{edge} {asked}");
        wait_for("it is stored", LIMIT, || stored() == (nth as u64 + 1).min(2));
    }
    // From now on it varies by something else, and answers whoever lacks that, on the edge that has no other.
    assert_eq!(kind(0, "3").0, "3");
    wait_for("it is stored", LIMIT, || stored() == 3);
    assert_eq!(kind(1, "4"), ("3".to_owned(), true)); // RFC 9111 §4.1
}

/// Serves a gibibyte to each connection, and says nothing of its length.
fn endless() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for connection in listener.incoming() {
            let Ok(mut connection) = connection else { return };
            thread::spawn(move || {
                let _ = connection.read(&mut [0; 4096]);
                let head = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nConnection: close\r\n\r\n";
                let _ = connection.write_all(head);
                let block = vec![b'x'; 1 << 20];
                let _ = (0..1 << 10).try_for_each(|_| connection.write_all(&block));
            });
        }
    });
    address
}

#[test]
fn a_gibibyte_passes_by_and_other_edges_do_not_wait_for_it() {
    let redis = Redis::start(&[]).expect("a Redis");
    let edges = edges(endless(), &redis);
    let begin = |edge: &Process| {
        let mut client = TcpStream::connect(edge.edge[0]).expect("connects");
        client.set_read_timeout(Some(Duration::from_secs(60))).expect("a limit");
        client.write_all(b"GET /a HTTP/1.0\r\nHost: shop.example\r\n\r\n").expect("sent");
        client
    };
    let mut first = begin(&edges[0].1);
    let (mut received, mut buffer) = (0_u64, vec![0; 1 << 20]);
    while received < 64 << 20 {
        received += first.read(&mut buffer).expect("more") as u64;
    }
    // It has outgrown the cache by now, and that is known everywhere.
    let mut second = begin(&edges[1].1);
    assert!(second.read(&mut buffer).expect("an answer") > 0);
    drop(second);
    loop {
        match first.read(&mut buffer).expect("more") {
            0 => break,
            read => received += read as u64,
        }
    }
    assert!(received > 1 << 30, "{received}");
    for (_, edge) in &edges {
        assert_eq!(shared(edge)["stored"], 0);
        assert_eq!(edge.get("/api/v1/status").json()["cache"]["objects"], 0);
    }
}
