//! Malformed requests, vanishing clients and lying nodes, against the real binary. The long form is `bench/hostile`.

use std::net::SocketAddr;
use std::time::Duration;

use tenfold_testkit::hostile::{self, Lie, SMUGGLED};
use tenfold_testkit::raw::Client;
use tenfold_testkit::{Answer, Origin};

use crate::process::{Folder, Process, get};

const CLOSE_LIMIT: Duration = Duration::from_secs(10);

fn running(node: &Origin) -> Process {
    let source = format!(
        "edge.listen = \"127.0.0.1:0\"\nedge.head_read = \"1s\"\nedge.body_idle = \"1s\"\nadmin.listen = \"127.0.0.1:0\"\n\
         [cluster.api]\nnodes = [\"{}\"]\n\
         [[route]]\nname = \"lies\"\npath = \"/lies/{{*rest}}\"\nto = \"api\"\ncache = {{ ttl = \"10m\" }}\n\
         [[route]]\nname = \"rest\"\npath = \"/{{*rest}}\"\nto = \"api\"\ncache = \"off\"\n",
        node.addr()
    );
    Folder::with(&source).run()
}

fn panics(process: &Process) -> String {
    let metrics = process.get("/metrics").text();
    let line = metrics.lines().find_map(|line| line.strip_prefix("tenfold_service_panics_total "));
    line.expect("the metric is always there").to_owned()
}

/// Everything a connection brings for these bytes, until it is closed.
fn sent(address: SocketAddr, bytes: &[u8]) -> Result<String, String> {
    let mut client = Client::connect_with_limit(address, CLOSE_LIMIT).expect("connects");
    // It may be closed before all of it is sent.
    drop(client.send(bytes));
    to_close(&mut client)
}

/// Everything until a close; a reset is one that brings nothing.
fn to_close(client: &mut Client) -> Result<String, String> {
    match client.read_to_close() {
        Ok(came) => Ok(String::from_utf8_lossy(&came).into_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(String::new()),
        Err(error) => Err(error.to_string()),
    }
}

/// One error with its reason, or nothing; and a close.
fn is_refusal(came: &str, field: &str) -> bool {
    let status = came.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse::<u16>().ok());
    let is_error = status.is_some_and(|status| (400..600).contains(&status));
    came.is_empty() || (is_error && came.contains(field) && !came.contains("\nHTTP/1.1 "))
}

#[test]
fn malformed_requests_are_refused_and_nothing_reaches_the_node() {
    let node = Origin::echo().expect("a node");
    let process = running(&node);
    for request in hostile::requests() {
        let came = sent(process.edge[0], &request.bytes);
        assert!(
            came.as_ref().is_ok_and(|came| is_refusal(came, "\r\nTenfold-Reason: ")),
            "{}: {came:?}",
            request.name
        );
        assert_eq!((node.requests(), node.count("GET", SMUGGLED)), (0, 0), "{}", request.name);
    }
    assert_eq!(get(process.edge[0], "/good").status, 200);
    assert_eq!(panics(&process), "0");
}

#[test]
fn malformed_requests_at_the_admin_port_are_refused() {
    let node = Origin::echo().expect("a node");
    let process = running(&node);
    for request in hostile::requests() {
        let mut client = Client::connect_with_limit(process.admin, CLOSE_LIMIT).expect("connects");
        drop(client.send(&request.bytes));
        // What waits for more need not run into its time limit.
        drop(client.half_close());
        let came = to_close(&mut client);
        assert!(
            came.as_ref().is_ok_and(|came| is_refusal(came, "problem+json")),
            "{}: {came:?}",
            request.name
        );
    }
    assert_eq!(process.get("/healthz").status, 200);
    assert_eq!(panics(&process), "0");
}

#[test]
fn lies_are_neither_believed_nor_stored() {
    let lies = hostile::answers();
    let told = lies.clone();
    let node = Origin::serve(move |request| {
        let index = request.path().strip_prefix("/lies/").and_then(|index| index.parse::<usize>().ok());
        index.and_then(|index| told.get(index)).map_or(Answer::ok("ok"), |(_, _, answer)| answer.clone())
    });
    let node = node.expect("a node");
    let process = running(&node);
    for (index, (name, lie, _)) in lies.iter().enumerate() {
        let target = format!("/lies/{index}");
        for _ in 0..2 {
            let answer = Client::connect(process.edge[0]).and_then(|mut client| client.get(&target));
            let is_refused = answer
                .as_ref()
                .is_ok_and(|answer| answer.status == 502 && answer.header("tenfold-reason").is_some());
            let held = match lie {
                Lie::Refused => is_refused,
                Lie::CutShort => is_refused || answer.is_err(),
                Lie::Surplus => answer.as_ref().is_ok_and(|answer| answer.text() == "ok"),
            };
            assert!(held, "{name}: {answer:?}");
        }
        assert!(*lie == Lie::Surplus || node.count("GET", &target) >= 2, "{name} was stored");
    }
    assert_eq!(panics(&process), "0");
}

#[test]
fn uploads_that_vanish_are_never_whole_at_the_node() {
    let node = Origin::echo().expect("a node");
    let process = running(&node);
    for (length, body) in [("Content-Length: 100000", "x"), ("Transfer-Encoding: chunked", "5\r\nhello\r\n")]
    {
        let head = format!("POST /upload HTTP/1.1\r\nHost: a\r\n{length}\r\n\r\n{body}");
        let vanishing = || {
            let mut client = Client::connect_with_limit(process.edge[0], CLOSE_LIMIT).expect("connects");
            client.send(&head).expect("sent");
            client
        };
        vanishing().reset().expect("reset");
        drop(vanishing());
        let mut half_closed = vanishing();
        half_closed.half_close().expect("half-closed");
        let came = to_close(&mut half_closed);
        assert!(
            came.as_ref().is_ok_and(|came| is_refusal(came, "\r\nTenfold-Reason: ")),
            "{length}: {came:?}"
        );
        // Stands still, and is timed out.
        let came = vanishing().read_to_close().expect("a close");
        assert!(String::from_utf8_lossy(&came).contains("\r\nTenfold-Reason: body_timeout\r\n"), "{length}");
    }
    assert_eq!(get(process.edge[0], "/good").status, 200);
    assert_eq!(node.requests(), 1, "only the good one");
    assert_eq!(panics(&process), "0");
}
