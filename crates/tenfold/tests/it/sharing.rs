//! Three edges and the Redis that they share: one fetch for all, purges that reach all, and what happens when Redis
//! doesn't answer. The long form, under load, is `bench/cache-redis`.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use tenfold_testkit::fault::{Direction, Fault, Proxy};
use tenfold_testkit::redis::Redis;
use tenfold_testkit::{Answer, Gate, Origin, wait_for};

use crate::process::{Folder, LIMIT, Process, get, stderr, stdout};

const CLIENTS: usize = 8;

/// What each edge is told. The budgets are long, so that a busy machine is no reason for a test to fail.
fn file(origin: SocketAddr, redis: Option<&str>) -> String {
    let shared = redis.map_or(String::new(), |url| {
        format!(
            "[redis.cache]\nurl = \"{url}\"\nprobe = \"1s\"\n[cache]\nredis = \"cache\"\n\
             shared = {{ budget = \"1s\", shield_budget = \"1s\" }}\n"
        )
    });
    format!(
        "edge.listen = \"127.0.0.1:0\"\nadmin.listen = \"127.0.0.1:0\"\n[cluster.api]\nnodes = [\"{origin}\"]\n\
         [[route]]\npath = \"/{{*rest}}\"\nto = \"api\"\ncache = {{ shield = true, tags = [\"all\"] }}\n{shared}"
    )
}

fn edges(origin: SocketAddr, redis: Option<&str>) -> Vec<(Folder, Process)> {
    let start = |_| {
        let folder = Folder::with(&file(origin, redis));
        let process = folder.run();
        (folder, process)
    };
    let edges: Vec<_> = (0..3).map(start).collect();
    if redis.is_some() {
        edges.iter().for_each(|(_, edge)| until_shared(edge));
    }
    edges
}

fn shared(edge: &Process) -> serde_json::Value {
    edge.get("/api/v1/status").json()["shared"].clone()
}

fn until_shared(edge: &Process) {
    wait_for("the edge shares", LIMIT, || {
        let shared = shared(edge);
        shared["up"] == true && shared["in_step"] == true
    });
}

/// Asks every edge at once, as many times, and says how often the origin was asked.
fn fetches(edges: &[(Folder, Process)], origin: &Origin, gate: &Gate, path: &str) -> u64 {
    thread::scope(|scope| {
        for (_, edge) in edges {
            for _ in 0..CLIENTS {
                scope.spawn(move || {
                    // One host for all, or each edge would have a key of its own.
                    let mut client = tenfold_testkit::raw::Client::connect(edge.edge[0]).expect("connects");
                    let answer = client.request("GET", path, &[("Host", "shop.example")]).expect("an answer");
                    assert_eq!((answer.status, answer.text().as_str()), (200, "body"));
                });
            }
        }
        wait_for("the origin is asked", LIMIT, || gate.waiting() > 0);
        wait_for("all clients wait for it", LIMIT, || {
            let open = |(_, edge): &(Folder, Process)| {
                edge.get("/api/v1/status").json()["edge"]["connections"]["open"].as_u64().unwrap_or(0)
            };
            edges.iter().map(open).sum::<u64>() >= (CLIENTS * edges.len()) as u64
        });
        if shared(&edges[0].1).is_object() {
            wait_for("the others wait", LIMIT, || {
                let asked = edges.iter().map(|(_, edge)| state_calls(edge)).sum::<u64>();
                asked >= 20
            });
        } else {
            wait_for("each edge has asked", LIMIT, || gate.waiting() >= edges.len());
        }
        gate.open();
    });
    origin.count("GET", path)
}

/// Calls to Redis: who waits for another edge asks again and again.
fn state_calls(edge: &Process) -> u64 {
    let metrics = edge.get("/metrics").text();
    let line = metrics.lines().find_map(|line| line.strip_prefix("tenfold_state_calls_total "));
    line.and_then(|count| count.parse().ok()).unwrap_or(0)
}

#[test]
fn three_edges_with_a_shield_ask_the_origin_once_and_without_redis_three_times() {
    let redis = Redis::start(&[]).expect("a Redis");
    for (url, expected) in [(Some(redis.url()), 1), (None, 3)] {
        let gate = Gate::new();
        let origin = Origin::kv().expect("an origin");
        origin.set_default(Answer::ok("body").cache_control("max-age=600").gated(&gate));
        let edges = edges(origin.addr(), url.as_deref());
        assert_eq!(fetches(&edges, &origin, &gate, "/cold"), expected, "{url:?}");
    }
}

#[test]
fn a_purge_at_one_edge_is_one_at_all_and_the_shared_copy_is_not_used() {
    let redis = Redis::start(&[]).expect("a Redis");
    let origin = Origin::kv().expect("an origin");
    origin.set_default(Answer::ok("body").cache_control("max-age=600"));
    let edges = edges(origin.addr(), Some(&redis.url()));
    let ask = |edge: &Process| {
        let mut client = tenfold_testkit::raw::Client::connect(edge.edge[0]).expect("connects");
        let answer = client.request("GET", "/a", &[("Host", "shop.example")]).expect("an answer");
        answer.header("cache-status").unwrap_or_default().to_owned()
    };
    assert!(ask(&edges[0].1).contains("fwd=uri-miss; stored"), "the first one fetches");
    wait_for("it is stored", LIMIT, || shared(&edges[0].1)["stored"] == 1);
    for (_, edge) in &edges[1..] {
        assert_eq!(ask(edge), "Tenfold; hit; detail=shared");
        assert!(ask(edge).starts_with("Tenfold; hit; ttl="));
    }
    assert_eq!(origin.count("GET", "/a"), 1);
    let (folder, edge) = &edges[0];
    let purged = edge.command(folder, &["purge", "--tag", "all"]);
    assert_eq!((stdout(&purged).as_str(), stderr(&purged).as_str()), ("all: purged\n", ""));
    wait_for("every edge asks again", LIMIT, || {
        edges
            .iter()
            .all(|(_, edge)| edge.get("/metrics").text().contains("tenfold_cache_purges_heard_total 1"))
    });
    assert!(ask(&edges[2].1).contains("fwd="), "neither RAM nor Redis has it");
    assert_eq!(origin.count("GET", "/a"), 2);
}

#[test]
fn who_waits_for_another_edge_gives_redis_no_more_than_its_budget_in_all() {
    let redis = Redis::start(&[]).expect("a Redis");
    let proxy = Proxy::start(([127, 0, 0, 1], redis.port()).into()).expect("a proxy");
    let gate = Gate::new();
    let origin = Origin::kv().expect("an origin");
    origin.set_default(Answer::ok("body").cache_control("max-age=600").gated(&gate));
    // Nobody knows yet how long a fetch takes, so only the budget ends the wait within the test's patience.
    let patient = |url: &str| {
        let text = file(origin.addr(), Some(url)).replace("shield_budget = \"1s\"", "shield_budget = \"2s\"");
        let folder = Folder::with(&text.replace("[[route]]", "timeout.response = \"10m\"\n[[route]]"));
        let process = folder.run();
        until_shared(&process);
        (folder, process)
    };
    let (near, far) = (patient(&redis.url()), patient(&format!("redis://{}", proxy.addr())));
    let ask = |edge: &Process| {
        let edge = edge.edge[0];
        thread::spawn(move || {
            let mut client = tenfold_testkit::raw::Client::connect(edge).expect("connects");
            client.request("GET", "/slow", &[("Host", "shop.example")]).expect("an answer").status
        })
    };
    let first = ask(&near.1);
    wait_for("the first edge fetches", LIMIT, || gate.waiting() == 1);
    // Each answer is in time, and all of them together are not.
    proxy.set(Direction::ToClient, Fault::Delay(Duration::from_millis(200)));
    let second = ask(&far.1);
    wait_for("the second edge asks for itself", LIMIT, || gate.waiting() == 2);
    assert!(far.1.get("/metrics").text().contains("tenfold_cache_shield_waits_in_vain_total 1"));
    gate.open();
    assert_eq!([first, second].map(|asked| asked.join().expect("no panic")), [200, 200]);
}

#[test]
fn without_redis_everything_answers_and_check_says_so() {
    let mut redis = Redis::start(&[]).expect("a Redis");
    let origin = Origin::kv().expect("an origin");
    origin.set_default(Answer::ok("body").cache_control("max-age=600"));
    let url = redis.url();
    let (folder, edge) = {
        let folder = Folder::with(&file(origin.addr(), Some(&url)));
        let process = folder.run();
        (folder, process)
    };
    until_shared(&edge);
    redis.kill();
    wait_for("it is noticed", LIMIT, || shared(&edge)["up"] == false && shared(&edge)["in_step"] == false);
    assert_eq!(get(edge.edge[0], "/a").status, 200);
    let purged = edge.command(&folder, &["purge", "--all"]);
    assert_eq!(purged.status.code(), Some(0));
    assert!(stderr(&purged).contains("warning: Redis cannot be reached"), "{}", stderr(&purged));
    let checked = folder.tenfold(&["check"]);
    assert_eq!(checked.status.code(), Some(0), "edges work without it");
    assert!(stderr(&checked).contains("redis \"cache\" cannot be reached"), "{}", stderr(&checked));
    redis.restart().expect("it starts again");
    until_shared(&edge);
    wait_for("the purge is told", LIMIT, || shared(&edge)["purges_waiting"] == 0);
    assert!(edge.child.log().contains("redis cache is away"), "{}", edge.child.log());
}
