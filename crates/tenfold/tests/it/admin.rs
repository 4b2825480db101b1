//! The admin server of a running process: who may ask, and what they are told.

use tenfold_testkit::raw::Client;

use crate::process::{Folder, Process, get, stderr, stdout};

fn file(admin: &str) -> String {
    format!(
        "edge.listen = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n{admin}\n[cluster.api]\nnodes = [\"127.0.0.1:1\"]\n[[route]]\nname = \"all\"\npath = \"/{{*rest}}\"\nto = \"api\"\n"
    )
}

fn post(
    process: &Process,
    path: &str,
    fields: &[(&str, &str)],
    body: &str,
) -> tenfold_testkit::raw::Response {
    let mut client = Client::connect(process.admin).expect("connects");
    client.request_with_body("POST", path, fields, body.as_bytes()).expect("an answer")
}

/// The file is read at the start alone, so its folder may go.
fn running() -> Process {
    Folder::with(&file("")).run()
}

const JSON: (&str, &str) = ("content-type", "application/json");

#[test]
fn probes_metrics_and_status_answer() {
    let folder = Folder::with(&file("probe_listen = \"127.0.0.1:0\""));
    let process = folder.run();
    assert_eq!(process.get("/healthz").status, 200);
    assert_eq!(process.get("/readyz").status, 200);
    let metrics = process.get("/metrics");
    assert!(
        metrics.header("content-type").is_some_and(|kind| kind.starts_with("application/openmetrics-text"))
    );
    assert!(metrics.text().ends_with("# EOF\n"));
    let status = process.get("/api/v1/status").json();
    assert_eq!(status["state"], "ready");
    assert_eq!(status["clusters"][0]["nodes"][0]["name"], "127.0.0.1:1");
    assert_eq!(status["routes"][0]["name"], "all");

    let probes = process.probes[0];
    assert_eq!(get(probes, "/readyz").status, 200);
    assert_eq!(get(probes, "/metrics").status, 200);
    assert_eq!(get(probes, "/api/v1/status").status, 404);
    let shown = process.command(&folder, &["status"]);
    assert!(stdout(&shown).contains("api      127.0.0.1:1"), "{}{}", stdout(&shown), stderr(&shown));
    assert_eq!(process.terminate().0, Some(0));
}

#[test]
fn the_token_is_asked_for_and_never_shown() {
    let folder = Folder::with(&file("token = \"correct-horse-battery\""));
    let process = folder.run();
    assert_eq!(process.get("/healthz").status, 200);
    assert_eq!(process.get("/metrics").status, 401);
    let refused = process.get("/api/v1/config");
    assert_eq!((refused.status, refused.header("www-authenticate")), (401, Some("Bearer")));
    let mut client = Client::connect(process.admin).expect("connects");
    let bearer = [("authorization", "Bearer correct-horse-battery")];
    let shown = client.request("GET", "/api/v1/config", &bearer).expect("an answer");
    assert_eq!(shown.status, 200);
    assert!(!shown.text().contains("correct-horse"), "{}", shown.text());
    assert_eq!(shown.json()["config"]["admin"]["token"], "***");
    // The CLI finds the token in the file.
    assert_eq!(process.command(&folder, &["status", "--json"]).status.code(), Some(0));
    assert!(!process.child.log().contains("correct-horse"));
}

#[test]
fn a_browser_on_the_same_machine_changes_nothing() {
    let process = running();
    let refused = |fields: &[(&str, &str)], status: u16| {
        let answer = post(&process, "/api/v1/purge", fields, "{\"all\":true}");
        assert_eq!(answer.status, status, "{fields:?}: {}", answer.text());
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    };
    refused(&[JSON, ("origin", "http://evil.example")], 403);
    refused(&[JSON, ("sec-fetch-site", "cross-site")], 403);
    refused(&[("content-type", "text/plain")], 415);
    assert_eq!(post(&process, "/api/v1/purge", &[JSON], "{\"all\":true}").status, 200);
    let metrics = process.get("/metrics").text();
    assert!(metrics.contains("tenfold_admin_refusals_total{reason=\"foreign_origin\"} 2"), "{metrics}");
}

#[test]
fn a_rebound_name_is_refused() {
    let process = running();
    let mut client = Client::connect(process.admin).expect("connects");
    client.send("GET /api/v1/status HTTP/1.1\r\nHost: evil.example\r\n\r\n").expect("sent");
    assert_eq!(client.response().expect("an answer").status, 421);
}

#[test]
fn malformed_requests_get_problem_json_and_a_close() {
    let process = running();
    let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(9_000));
    let cases = [
        ("GET /healthz HTTP/1.1\nHost: x\n\n", 400),
        ("GET /healthz HTTP/1.1\r\n\r\n", 400),
        (
            "POST /api/v1/purge HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
        ),
        ("POST /api/v1/purge HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 70000\r\n\r\n", 413),
        ("GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505),
        (long.as_str(), 414),
    ];
    for (bytes, status) in cases {
        let mut client = Client::connect(process.admin).expect("connects");
        client.send(bytes).expect("sent");
        let answer = client.response().expect("an answer");
        assert_eq!(answer.status, status, "{bytes:?}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert!(client.closed_in_silence(), "{bytes:?}");
    }
    assert_eq!(process.get("/healthz").status, 200);
}

#[test]
fn idle_connections_keep_nobody_out() {
    let process = running();
    let mut idle: Vec<_> = (0..64).map(|_| Client::connect(process.admin).expect("connects")).collect();
    for client in &mut idle {
        assert_eq!(client.get("/healthz").expect("an answer").status, 200);
    }
    // All places are taken: the oldest gives way.
    assert_eq!(process.get("/healthz").status, 200);
    assert!(idle[0].closed_in_silence());
    assert_eq!(idle[63].get("/healthz").expect("an answer").status, 200);
    let metrics = process.get("/metrics").text();
    let refusals = "tenfold_admin_refusals_total{reason=\"too_many_connections\"} ";
    assert!(metrics.contains(refusals), "{metrics}");
}

#[test]
fn who_connects_and_says_nothing_is_let_go() {
    let process = running();
    let mut silent = Client::connect(process.admin).expect("connects");
    assert!(silent.closed_in_silence());
    assert_eq!(process.get("/healthz").status, 200);
}
