//! Clients that go away before they have their answer.

use tenfold_testkit::origin::{Gate, Step};
use tenfold_testkit::{Answer, Origin, wait_for};

use crate::harness::{LIMIT, Running};

fn gated(cache: &'static str) -> (Origin, Gate) {
    let gate = Gate::new();
    let held = gate.clone();
    (Origin::serve(move |_| Answer::ok("late").cache_control(cache).gated(&held)).unwrap(), gate)
}

#[test]
fn a_get_is_cancelled_at_the_node() {
    let (origin, gate) = gated("no-store");
    let edge = Running::in_front_of(&[origin.addr()]);
    for fields in ["", "Cache-Control: no-store\r\n"] {
        let mut client = edge.client();
        client.send(format!("GET /a HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).unwrap();
        wait_for("the node to have it", LIMIT, || gate.waiting() == 1);
        drop(client);
        wait_for("the node to be rid of it", LIMIT, || origin.connections_open() == 0);
        wait_for("nothing in flight", LIMIT, || edge.in_flight() == 0 && edge.stats().fills == 0);
    }
    wait_for("the count", LIMIT, || edge.refusals("client_gone") == 2.0);
}

#[test]
fn a_fill_goes_on_while_anybody_follows() {
    let (origin, gate) = gated("max-age=60");
    let edge = Running::in_front_of(&[origin.addr()]);
    let mut leader = edge.client();
    leader.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    wait_for("the fetch", LIMIT, || gate.waiting() == 1);
    let mut follower = edge.client();
    follower.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    wait_for("the follower", LIMIT, || edge.stats().collapsed == 1);
    drop(leader);
    wait_for("the leader to be missed", LIMIT, || edge.refusals("client_gone") == 1.0);
    gate.open();
    assert_eq!(follower.response().unwrap().text(), "late");
    assert_eq!((origin.requests(), origin.abandoned()), (1, 0));
}

#[test]
fn a_post_that_was_sent_whole_runs_to_its_end() {
    for request in
        ["POST /a HTTP/1.1\r\nHost: a\r\n\r\n", "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\npay"]
    {
        let (origin, gate) = gated("no-store");
        let edge = Running::in_front_of(&[origin.addr()]);
        let mut client = edge.client();
        client.send(request).unwrap();
        wait_for("the node to have it", LIMIT, || gate.waiting() == 1);
        client.reset().unwrap();
        wait_for("the client to be gone", LIMIT, || edge.limits.open() <= 1);
        assert_eq!((origin.connections_open(), edge.in_flight()), (1, 1), "{request:?}");
        gate.open();
        wait_for("its end", LIMIT, || edge.in_flight() == 0);
        assert_eq!((origin.requests(), origin.abandoned()), (1, 0), "{request:?}");
    }
}

#[test]
fn an_upload_that_breaks_off_is_never_completed() {
    for head in ["Content-Length: 10", "Transfer-Encoding: chunked"] {
        let steps = vec![Step::expect("part"), Step::Drain];
        let origin = Origin::scripted(steps).unwrap();
        let edge = Running::in_front_of(&[origin.addr()]);
        let mut client = edge.client();
        client
            .send(format!("POST /a HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n4\r\npart\r\n").as_bytes())
            .unwrap();
        wait_for("the node to have some", LIMIT, || edge.in_flight() == 1);
        drop(client);
        wait_for("the node to be rid of it", LIMIT, || {
            edge.in_flight() == 0 && origin.connections_open() == 0
        });
    }
    // An origin that reads whole requests never gets one.
    let origin = Origin::echo().unwrap();
    let edge = Running::in_front_of(&[origin.addr()]);
    let mut client = edge.client();
    client.send("POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n").unwrap();
    wait_for("the node to have some", LIMIT, || edge.in_flight() == 1);
    drop(client);
    wait_for("the end", LIMIT, || edge.in_flight() == 0 && origin.connections_open() == 0);
    assert_eq!(origin.requests(), 0);
}
