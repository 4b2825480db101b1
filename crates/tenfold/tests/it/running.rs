//! A process that runs: starting, reloading, purging, ending.

use std::net::{SocketAddr, TcpListener};

use tenfold_testkit::process::StopSignal;
use tenfold_testkit::raw::Client;
use tenfold_testkit::{Answer, Gate, Origin, wait_for};

use crate::process::{Folder, LIMIT, Process, get, stderr, stdout};

fn file(listen: &str, node: SocketAddr, rest: &str) -> String {
    format!(
        "[edge]\nlisten = {listen}\n[admin]\nlisten = \"127.0.0.1:0\"\n[log]\naccess = \"100%\"\n[cluster.api]\nnodes = [\"{node}\"]\n[[route]]\nname = \"all\"\npath = \"/{{*rest}}\"\nto = \"api\"\n{rest}\n"
    )
}

const ANY_PORT: &str = "\"127.0.0.1:0\"";

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("its address")
}

#[test]
fn requests_are_proxied_and_logged() {
    let origin = Origin::echo().expect("an origin");
    let folder = Folder::with(&file(ANY_PORT, origin.addr(), ""));
    let process = folder.run();
    assert_eq!(get(process.edge[0], "/hello").status, 200);
    assert_eq!(origin.count("GET", "/hello"), 1);
    wait_for("the access log", LIMIT, || process.child.log().contains("/hello"));
    let status = process.get("/api/v1/status").json();
    assert_eq!(status["routes"][0]["requests"], 1);
    let (code, log) = process.terminate();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("ended: everything was finished"), "{log}");
}

#[test]
fn every_port_in_use_is_named_before_anything_runs() {
    let (edge, admin) = (
        TcpListener::bind("127.0.0.1:0").expect("a port"),
        TcpListener::bind("127.0.0.1:0").expect("a port"),
    );
    let (edge, admin) = (edge.local_addr().map(|at| (at, edge)), admin.local_addr().map(|at| (at, admin)));
    let ((edge, _edge), (admin, _admin)) = (edge.expect("bound"), admin.expect("bound"));
    let source = file("EDGE", edge, "")
        .replace(ANY_PORT, &format!("\"{admin}\""))
        .replace("EDGE", &format!("\"{edge}\""));
    let folder = Folder::with(&source);
    let ran = folder.tenfold(&["run"]);
    assert_eq!(ran.status.code(), Some(1));
    for address in [edge, admin] {
        assert!(stderr(&ran).contains(&format!("cannot listen on {address}")), "{}", stderr(&ran));
    }
}

#[test]
fn a_reload_changes_routes_and_a_bad_file_changes_nothing() {
    let (first, second) = (Origin::echo().expect("an origin"), Origin::echo().expect("an origin"));
    let folder = Folder::with(&file(ANY_PORT, first.addr(), ""));
    let process = folder.run();
    assert_eq!(get(process.edge[0], "/1").status, 200);

    folder.write(&file(ANY_PORT, second.addr(), "").replace("to = \"api\"", "to = \"apj\""));
    let refused = process.command(&folder, &["reload"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("did you mean \"api\"?"), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("what runs is unchanged"), "{}", stderr(&refused));
    assert_eq!(get(process.edge[0], "/2").status, 200);
    assert_eq!((first.requests(), second.requests()), (2, 0));

    folder.write(&file(ANY_PORT, second.addr(), ""));
    let reloaded = process.command(&folder, &["reload"]);
    assert_eq!(reloaded.status.code(), Some(0), "{}", stderr(&reloaded));
    assert_eq!(stdout(&reloaded), "reloaded\n");
    assert_eq!(get(process.edge[0], "/3").status, 200);
    assert_eq!((first.requests(), second.requests()), (2, 1));
}

#[test]
fn sighup_reloads_too_and_says_so_in_the_log() {
    let origin = Origin::echo().expect("an origin");
    let folder = Folder::with(&file(ANY_PORT, origin.addr(), ""));
    let process = folder.run();
    folder.write("workers = \"many\"");
    hang_up(&process);
    wait_for("the refusal in the log", LIMIT, || process.child.log().contains("not reloaded"));
    assert!(process.child.log().contains("workers cannot be a string"));
    folder.write(&file(ANY_PORT, origin.addr(), ""));
    hang_up(&process);
    wait_for("the reload in the log", LIMIT, || process.child.log().contains("info: reloaded"));
    assert_eq!(get(process.edge[0], "/").status, 200);
}

fn hang_up(process: &Process) {
    let pid = process.child.pid().to_string();
    let sent = std::process::Command::new("kill").args(["-HUP", &pid]).status().expect("kill runs");
    assert!(sent.success());
}

#[test]
fn what_needs_a_restart_is_named_and_the_rest_applied() {
    let (first, second) = (Origin::echo().expect("an origin"), Origin::echo().expect("an origin"));
    let folder = Folder::with(&file(ANY_PORT, first.addr(), ""));
    let process = folder.run();
    folder.write(&format!("workers = 7\n{}", file(ANY_PORT, second.addr(), "")));
    let reloaded = process.command(&folder, &["reload"]);
    assert_eq!(reloaded.status.code(), Some(0));
    assert!(
        stderr(&reloaded).contains("warning: workers has changed, which needs a restart"),
        "{}",
        stderr(&reloaded)
    );
    assert_eq!(get(process.edge[0], "/").status, 200);
    assert_eq!(second.requests(), 1);
}

#[test]
fn listeners_come_and_go_with_a_reload() {
    let origin = Origin::echo().expect("an origin");
    let (a, b) = (free_address(), free_address());
    let folder = Folder::with(&file(&format!("\"{a}\""), origin.addr(), ""));
    let process = folder.run();
    let mut open = Client::connect(a).expect("connects");
    assert_eq!(open.get("/").expect("an answer").status, 200);

    folder.write(&file(&format!("[\"{a}\", \"{b}\"]"), origin.addr(), ""));
    assert_eq!(process.command(&folder, &["reload"]).status.code(), Some(0));
    assert_eq!(get(b, "/").status, 200);

    folder.write(&file(&format!("\"{b}\""), origin.addr(), ""));
    assert_eq!(process.command(&folder, &["reload"]).status.code(), Some(0));
    assert!(Client::connect(a).is_err(), "nobody listens there any more");
    assert_eq!(open.get("/").expect("an open connection goes on").status, 200);
    assert_eq!(get(b, "/").status, 200);

    let taken = TcpListener::bind(a).expect("free again");
    folder.write(&file(&format!("[\"{a}\", \"{b}\"]"), origin.addr(), ""));
    let refused = process.command(&folder, &["reload"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains(&format!("cannot listen on {a}")), "{}", stderr(&refused));
    drop(taken);
}

#[test]
fn a_listener_that_is_replaced_makes_way_for_the_one_on_its_port() {
    let origin = Origin::echo().expect("an origin");
    let (a, taken) = (free_address(), TcpListener::bind("127.0.0.1:0").expect("a port"));
    let any = SocketAddr::new(std::net::Ipv4Addr::UNSPECIFIED.into(), a.port());
    let folder = Folder::with(&file(&format!("\"{a}\""), origin.addr(), ""));
    let process = folder.run();
    let mut open = Client::connect(a).expect("connects");
    assert_eq!(open.get("/").expect("an answer").status, 200);

    let both = format!("[\"{any}\", \"{}\"]", taken.local_addr().expect("its address"));
    folder.write(&file(&both, origin.addr(), ""));
    assert_eq!(process.command(&folder, &["reload"]).status.code(), Some(2));
    assert_eq!(get(a, "/").status, 200, "it is back: nothing of a refused reload stays");
    let listens = |at: SocketAddr| {
        let status = process.get("/api/v1/status").json();
        assert_eq!(status["edge"]["listen"], serde_json::json!([at.to_string()]));
    };
    listens(a);

    folder.write(&file(&format!("\"{any}\""), origin.addr(), ""));
    let reloaded = process.command(&folder, &["reload"]);
    assert_eq!(reloaded.status.code(), Some(0), "{}", stderr(&reloaded));
    listens(any);
    assert_eq!(get(a, "/").status, 200);
    assert_eq!(open.get("/").expect("an open connection goes on").status, 200);
}

#[test]
fn a_reader_that_takes_nothing_does_not_keep_the_process() {
    let origin = Origin::echo().expect("an origin");
    let source = file(ANY_PORT, origin.addr(), "");
    let folder = Folder::with(&source);
    let stuck = folder.run_unread();
    let mut client = Client::connect(stuck.edge).expect("connects");
    // More than the pipe and the writer's batch hold.
    for _ in 0..4_000 {
        assert_eq!(client.get("/a-line-of-the-access-log-that-nobody-reads").expect("an answer").status, 200);
    }
    drop(client);
    stuck.terminate_and_wait();
}

#[test]
fn a_purge_sends_the_next_request_to_the_node() {
    let origin = Origin::kv().expect("an origin");
    origin.set_default(Answer::ok("x").cache_control("max-age=600"));
    let folder = Folder::with(&file(ANY_PORT, origin.addr(), ""));
    let process = folder.run();
    let edge = process.edge[0];
    let fetched_after = |path: &str| {
        assert_eq!(get(edge, path).status, 200);
        origin.count("GET", path)
    };
    assert_eq!((fetched_after("/a"), fetched_after("/a"), fetched_after("/b")), (1, 1, 1));
    let url = format!("http://{edge}/a");
    let purged = process.command(&folder, &["purge", "--url", &url]);
    assert_eq!(stdout(&purged), format!("{url}: purged\n"), "{}", stderr(&purged));
    assert_eq!((fetched_after("/a"), fetched_after("/b")), (2, 1));
    assert_eq!(process.command(&folder, &["purge", "--all"]).status.code(), Some(0));
    assert_eq!((fetched_after("/a"), fetched_after("/b")), (3, 2));
    let metrics = process.get("/metrics").text();
    for line in ["tenfold_cache_purges_total 2", "tenfold_cache_objects 2"] {
        assert!(metrics.lines().any(|have| have == line), "{line} in {metrics}");
    }
    let up = format!("tenfold_balance_node_up{{cluster=\"api\",node=\"{}\"}} 1", origin.addr());
    assert!(metrics.lines().any(|have| have == up), "{up} in {metrics}");
    let wrong = process.command(&folder, &["purge", "--url", "not a url"]);
    assert_eq!(wrong.status.code(), Some(2));
}

#[test]
fn what_is_stored_and_what_comes_next_is_explained() {
    let origin = Origin::kv().expect("an origin");
    let answer = Answer::ok("x")
        .cache_control("max-age=600")
        .header("Vary", "Accept-Language")
        .header("Cache-Tag", "page");
    origin.set_default(answer);
    let folder = Folder::with(&file(ANY_PORT, origin.addr(), ""));
    let process = folder.run();
    let edge = process.edge[0];
    let url = format!("http://{edge}/a");
    let explain = |more: &[&str]| {
        let explained = process.command(&folder, &[&["cache", "explain", &url], more].concat());
        assert_eq!(explained.status.code(), Some(0), "{}", stderr(&explained));
        stdout(&explained)
    };
    assert!(explain(&[]).contains("miss (uri_miss): nothing is stored"), "{}", explain(&[]));
    assert_eq!(get(edge, "/a").status, 200);
    let hit = explain(&[]);
    for part in
        ["hit (fresh)", "of 600 s", "tags          page", "accept-language: (absent)", "200 from origin"]
    {
        assert!(hit.contains(part), "{part} in {hit}");
    }
    let german = explain(&["-H", "Accept-Language: de"]);
    assert!(german.contains("miss (vary_miss)"), "{german}");
    assert!(explain(&["-X", "POST"]).contains("bypass (method)"));
    let told: serde_json::Value = serde_json::from_str(&explain(&["--json"])).expect("JSON");
    assert_eq!(
        (told["next"]["outcome"].as_str(), told["stored"][0]["source"].as_str()),
        (Some("hit"), Some("origin"))
    );
    assert_eq!(origin.count("GET", "/a"), 1, "nothing is fetched by asking");
    let wrong = process.command(&folder, &["cache", "explain", "shop.example"]);
    assert_eq!(wrong.status.code(), Some(2));
}

#[test]
fn a_drain_finishes_what_runs_and_tells_probes() {
    let origin = Origin::kv().expect("an origin");
    let gate = Gate::new();
    origin.set_default(Answer::ok("late").gated(&gate));
    let folder = Folder::with(&file(ANY_PORT, origin.addr(), ""));
    let mut process = folder.run();
    let edge = process.edge[0];
    let waiting = std::thread::spawn(move || get(edge, "/late"));
    wait_for("the request at the origin", LIMIT, || gate.waiting() == 1);

    process.child.signal(StopSignal::Terminate);
    wait_for("readyz to say so", LIMIT, || process.get("/readyz").status == 503);
    assert_eq!(process.get("/healthz").status, 200);
    wait_for("the listener to close", LIMIT, || Client::connect(edge).is_err());
    gate.open();
    let answer = waiting.join().expect("answered");
    assert_eq!((answer.status, answer.text().as_str()), (200, "late"));
    assert_eq!(answer.header("connection"), Some("close"));
    let status = process.child.wait(LIMIT).expect("it ends");
    assert_eq!(status.code(), Some(0), "{}", process.child.log());
}

#[test]
fn a_second_signal_ends_it_now() {
    let origin = Origin::kv().expect("an origin");
    let gate = Gate::new();
    origin.set_default(Answer::ok("never").gated(&gate));
    let folder = Folder::with(&file(ANY_PORT, origin.addr(), "[drain]\ndeadline = \"1h\""));
    let mut process = folder.run();
    let edge = process.edge[0];
    let waiting = std::thread::spawn(move || Client::connect(edge).and_then(|mut client| client.get("/")));
    wait_for("the request at the origin", LIMIT, || gate.waiting() == 1);
    process.child.signal(StopSignal::Terminate);
    wait_for("the drain", LIMIT, || process.child.log().contains("draining"));
    process.child.signal(StopSignal::Terminate);
    process.child.wait(LIMIT).expect("it ends");
    assert!(process.child.log().contains("ended at once"), "{}", process.child.log());
    drop(waiting.join());
    gate.open();
}

#[test]
fn a_json_log_is_json_on_every_line() {
    let origin = Origin::echo().expect("an origin");
    let source = file(ANY_PORT, origin.addr(), "").replace("[log]", "[log]\nformat = \"json\"");
    let folder = Folder::with(&source);
    let process = folder.run();
    assert_eq!(get(process.edge[0], "/json").status, 200);
    wait_for("the access log", LIMIT, || process.child.log().contains("\"target\":\"/json\""));
    let (_, log) = process.terminate();
    for line in log.lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
}

/// Asks again and again on one connection, opening another when told to, until nobody listens any more. Says how many
/// answers there were, or which one was missing.
fn keep_asking(edge: SocketAddr) -> Result<u64, String> {
    let mut answers = 0;
    while let Ok(mut client) = Client::connect(edge) {
        let before = answers;
        loop {
            let answer = match client.get("/busy") {
                Ok(answer) => answer,
                // A connection without one answer was still in the listener's queue when that closed.
                Err(_) if answers == before => return Ok(answers),
                Err(error) => return Err(format!("after {answers} answers: {error}")),
            };
            if answer.status != 200 {
                return Err(format!("status {} after {answers} answers", answer.status));
            }
            answers += 1;
            if answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
                break;
            }
        }
    }
    Ok(answers)
}

#[test]
fn reloads_and_the_end_fail_no_request_of_a_busy_client() {
    let origin = Origin::echo().expect("an origin");
    let folder = Folder::with(&file(ANY_PORT, origin.addr(), ""));
    let mut process = folder.run();
    let edge = process.edge[0];
    let clients: Vec<_> = (0..4).map(|_| std::thread::spawn(move || keep_asking(edge))).collect();
    for round in 1..=5 {
        wait_for("requests between reloads", LIMIT, || origin.requests() > round * 20);
        assert_eq!(process.command(&folder, &["reload"]).status.code(), Some(0));
    }
    process.child.signal(StopSignal::Terminate);
    for client in clients {
        let answers = client.join().expect("the client ends");
        assert!(answers.as_ref().is_ok_and(|&answers| answers > 0), "{answers:?}");
    }
    assert_eq!(process.child.wait(LIMIT).expect("it ends").code(), Some(0), "{}", process.child.log());
}
