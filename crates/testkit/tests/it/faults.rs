//! The fault proxy: each fault, at its byte, in its direction.

use std::io::ErrorKind;
use std::time::Duration;

use tenfold_testkit::fault::{Direction, Fault, Proxy};
use tenfold_testkit::origin::Step;
use tenfold_testkit::raw::{self, Client};
use tenfold_testkit::{Answer, Origin, wait_for};

use crate::{SHORT, SOON};

/// 28 bytes of head and 10 of body.
const RESPONSE: &str = "HTTP/1.1 200 OK\r\nX-Pad: 1\r\n\r\n0123456789";

fn bed() -> (Origin, Proxy) {
    let origin = Origin::scripted(vec![Step::ReadRequest, Step::send(RESPONSE), Step::Drain]).unwrap();
    let proxy = Proxy::start(origin.addr()).unwrap();
    (origin, proxy)
}

fn ask(proxy: &Proxy, limit: Duration) -> Client {
    let mut client = Client::connect_with_limit(proxy.addr(), limit).unwrap();
    client.send("GET / HTTP/1.1\r\n\r\n").unwrap();
    client
}

#[test]
fn without_a_fault_everything_passes() {
    let origin = Origin::serve(|_| Answer::ok(vec![7; 1 << 20])).unwrap();
    let proxy = Proxy::start(origin.addr()).unwrap();
    let mut client = Client::connect(proxy.addr()).unwrap();
    assert_eq!(client.get("/").unwrap().body.len(), 1 << 20);
    assert_eq!(client.request_with_body("POST", "/", &[], &vec![1; 1 << 20]).unwrap().status, 200);
    assert_eq!(origin.last().unwrap().body.len(), 1 << 20);
    assert_eq!(proxy.connections_open(), 1);
    drop(client);
    wait_for("the connection to end on both sides", SOON, || {
        proxy.connections_open() == 0 && origin.connections_open() == 0
    });
}

#[test]
fn a_cut_ends_the_stream_at_its_byte() {
    let (_origin, proxy) = bed();
    proxy.set(Direction::ToClient, Fault::CutAt(20));
    assert_eq!(ask(&proxy, SOON).read_to_close().unwrap(), &RESPONSE.as_bytes()[..20]);
}

#[test]
fn a_cut_towards_the_server_hides_the_rest_from_it() {
    let (origin, proxy) = bed();
    proxy.set(Direction::ToServer, Fault::CutAt(5));
    assert!(ask(&proxy, SOON).closed_in_silence());
    assert_eq!(origin.requests(), 0);
}

#[test]
fn a_reset_is_a_reset() {
    let (_origin, proxy) = bed();
    proxy.set(Direction::ToClient, Fault::ResetAt(0));
    assert_eq!(ask(&proxy, SOON).read_to_close().unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_half_close_ends_one_direction_alone() {
    let (origin, proxy) = bed();
    proxy.set(Direction::ToClient, Fault::HalfCloseAt(10));
    let mut client = ask(&proxy, SOON);
    assert_eq!(client.read_to_close().unwrap().len(), 10);
    client.send("still heard").unwrap();
    assert_eq!(origin.connections_open(), 1);
}

#[test]
fn a_stall_lasts_until_the_fault_is_healed() {
    let (_origin, proxy) = bed();
    proxy.set(Direction::ToClient, Fault::StallAt(30));
    let mut client = ask(&proxy, SHORT);
    assert_eq!(client.read_to_close().unwrap_err().kind(), ErrorKind::TimedOut);
    proxy.heal();
    assert_eq!(client.read_through("9").unwrap(), RESPONSE.as_bytes());
}

#[test]
fn one_byte_is_corrupted() {
    let (_origin, proxy) = bed();
    proxy.set(Direction::ToClient, Fault::CorruptAt(RESPONSE.len() as u64 - 1));
    let mut client = ask(&proxy, SOON);
    let seen = client.read_through([!b'9']).unwrap();
    assert_eq!(seen[..seen.len() - 1], RESPONSE.as_bytes()[..RESPONSE.len() - 1]);
}

#[test]
fn a_delay_holds_back_and_then_delivers() {
    let (_origin, proxy) = bed();
    proxy.set(Direction::ToClient, Fault::Delay(SHORT * 4));
    assert_eq!(ask(&proxy, SHORT).read_through("9").unwrap_err().kind(), ErrorKind::TimedOut);
    ask(&proxy, SOON).read_through("9").unwrap();
}

#[test]
fn refusing_and_severing() {
    let (_origin, mut proxy) = bed();
    let mut client = ask(&proxy, SOON);
    client.read_through("9").unwrap();
    proxy.refuse();
    assert_eq!(raw::get(proxy.addr(), "/").unwrap_err().kind(), ErrorKind::ConnectionRefused);
    proxy.sever();
    assert_eq!(client.read_to_close().unwrap_err().kind(), ErrorKind::ConnectionReset);
    proxy.accept().unwrap();
    ask(&proxy, SOON).read_through("9").unwrap();
}
