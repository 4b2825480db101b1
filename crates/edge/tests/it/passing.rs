//! Requests that go through to a node.

use tenfold_testkit::{Answer, Origin};

use crate::harness::Running;

#[test]
fn a_get_comes_back_with_its_body() {
    let origin = Origin::serve(|_| Answer::ok("hello").cache_control("no-store")).unwrap();
    let edge = Running::in_front_of(&[origin.addr()]);
    let mut client = edge.client();
    for _ in 0..3 {
        let answer = client.get("/a").unwrap();
        assert_eq!((answer.status, answer.text()), (200, "hello".to_owned()));
        assert!(answer.header("x-request-id").is_some());
        assert!(answer.header("cache-status").is_some());
    }
    assert_eq!(origin.connections(), 1, "the node's connection is used again");
}
