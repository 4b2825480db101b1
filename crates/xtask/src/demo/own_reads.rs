//! Customers who look at what they have just written, and notice when it isn't there.
//!
//! **Intuition.** Whoever changes a cart or places an order looks at it next. A replica that is a moment behind shows
//! the cart as it was, or says that there is no such order: a stale own read.
//!
//! **Mechanism.** A few customers, each in a thread, write on one HTTP connection and read on another, so that node and
//! database connection are as likely others as the same. Three times of four one sets the quantity of a product in the
//! cart to what it was not before, which the shop answers with a cart it has read anew, and then asks for the cart; the
//! fourth time one places an order and then asks for that. Nobody else asks for their products, so anything but what
//! was written is stale.
//!
//! **Failure.** An exchange that fails, or whose answer says nothing about what was written, is counted as failed; the
//! customer goes on with two new connections.

use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use serde_json::Value;
use tenfold_testkit::raw::{Client, Response};

/// The first customer's product. `{key}` ends below it, and what is limited begins above the last one's.
const PRODUCT_FIRST: u32 = 23_000;
/// Between two writes of one customer.
const PAUSE: Duration = Duration::from_millis(100);
/// Each of so many writes is an order.
const ORDER_EVERY: u32 = 4;
/// The cart's quantities go round up to this; the shop allows 99.
const QUANTITIES: u32 = 90;

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct OwnReads {
    /// Reads of what the reader had written before.
    pub(crate) read: u64,
    /// Of these, those that did not show it.
    pub(crate) stale: u64,
    /// Exchanges that told nothing.
    pub(crate) failed: u64,
}

impl OwnReads {
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            read: self.read + other.read,
            stale: self.stale + other.stale,
            failed: self.failed + other.failed,
        }
    }

    fn count(&mut self, seen: Seen) {
        match seen {
            Seen::Written => self.read += 1,
            Seen::Stale => {
                self.read += 1;
                self.stale += 1;
            }
            Seen::Nothing => self.failed += 1,
        }
    }
}

/// What an answer shows of what was written before it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Written,
    Stale,
    Nothing,
}

/// Somebody logged in.
pub(crate) struct Customer<'a> {
    pub(crate) token: &'a str,
    /// Which of those who do this; no two are the same.
    pub(crate) number: u32,
}

impl Customer<'_> {
    /// Writes and reads until the other end of `stop` is dropped.
    pub(crate) fn shop(&self, edge: SocketAddr, stop: &Receiver<()>) -> OwnReads {
        let mut own = OwnReads::default();
        let mut connections = None;
        let mut turn = 0_u32;
        while matches!(stop.recv_timeout(PAUSE), Err(RecvTimeoutError::Timeout)) {
            turn = turn.wrapping_add(1);
            let done = match &mut connections {
                Some(open) => self.write_and_read(open, turn, &mut own),
                None => Connections::open(edge, self.token)
                    .and_then(|open| self.write_and_read(connections.insert(open), turn, &mut own)),
            };
            if done.is_err() {
                own.failed += 1;
                connections = None;
            }
        }
        own
    }

    fn write_and_read(&self, open: &mut Connections, turn: u32, own: &mut OwnReads) -> io::Result<()> {
        let product = PRODUCT_FIRST + self.number;
        if turn.is_multiple_of(ORDER_EVERY) {
            let body = format!("{{\"items\":[{{\"productId\":{product},\"quantity\":1}}]}}");
            let placed = open.write("POST", "/api/orders", &body)?;
            let Some(order) = order_placed(&placed) else {
                own.count(Seen::Nothing);
                return Ok(());
            };
            own.count(order_seen(&open.read(&format!("/api/orders/{order}"))?, order, product));
            return Ok(());
        }
        // Never the quantity that was there: an order in between has emptied the cart of it.
        let quantity = 1 + turn % QUANTITIES;
        let body = format!("{{\"quantity\":{quantity}}}");
        let answer = open.write("PUT", &format!("/api/cart/items/{product}"), &body)?;
        own.count(cart_seen(&answer, product, quantity));
        own.count(cart_seen(&open.read("/api/cart")?, product, quantity));
        Ok(())
    }
}

/// One to write on, one to read on.
struct Connections {
    writes: Client,
    reads: Client,
    authorization: String,
}

impl Connections {
    fn open(edge: SocketAddr, token: &str) -> io::Result<Self> {
        Ok(Self {
            writes: Client::connect(edge)?,
            reads: Client::connect(edge)?,
            authorization: format!("Bearer {token}"),
        })
    }

    fn write(&mut self, method: &str, path: &str, body: &str) -> io::Result<Response> {
        let fields = [("Authorization", &*self.authorization), ("Content-Type", "application/json")];
        self.writes.request_with_body(method, path, &fields, body.as_bytes())
    }

    fn read(&mut self, path: &str) -> io::Result<Response> {
        self.reads.request("GET", path, &[("Authorization", &self.authorization)])
    }
}

/// The order's number, if there is one now.
fn order_placed(answer: &Response) -> Option<u64> {
    json(answer).filter(|_| answer.status == 201)?.get("id")?.as_u64()
}

/// The order with its only item, or not: its head and its items are read one after the other.
fn order_seen(answer: &Response, order: u64, product: u32) -> Seen {
    match (answer.status, json(answer)) {
        (404, _) => Seen::Stale,
        (200, Some(found)) if found["id"] == order => {
            let is_whole = found["items"][0]["productId"] == product;
            if is_whole { Seen::Written } else { Seen::Stale }
        }
        _ => Seen::Nothing,
    }
}

/// The cart with that many of the product, or with none or others.
fn cart_seen(answer: &Response, product: u32, quantity: u32) -> Seen {
    let cart = json(answer).filter(|_| answer.status == 200);
    let Some(items) = cart.as_ref().and_then(|cart| cart.get("items")?.as_array()) else {
        return Seen::Nothing;
    };
    let is_there = items.iter().any(|item| item["productId"] == product && item["quantity"] == quantity);
    if is_there { Seen::Written } else { Seen::Stale }
}

fn json(answer: &Response) -> Option<Value> {
    serde_json::from_slice(&answer.body).ok()
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::sync::mpsc::channel;

    use super::*;

    fn answer(status: u16, body: &str) -> Response {
        Response {
            status,
            reason: String::new(),
            fields: Vec::new(),
            body: body.into(),
            interim: Vec::new(),
            raw: Vec::new(),
            closes: false,
        }
    }

    #[test]
    fn a_cart_without_what_was_put_in_is_stale() {
        let check = |status, body, seen| assert_eq!(cart_seen(&answer(status, body), 7, 3), seen, "{body}");
        check(200, r#"{"items":[{"productId":1,"quantity":9},{"productId":7,"quantity":3}]}"#, Seen::Written);
        check(200, r#"{"items":[{"productId":7,"quantity":2}]}"#, Seen::Stale);
        check(200, r#"{"items":[{"productId":8,"quantity":3}]}"#, Seen::Stale);
        check(200, r#"{"items":[]}"#, Seen::Stale);
        check(200, "{}", Seen::Nothing);
        check(200, "<html>", Seen::Nothing);
        check(503, r#"{"items":[]}"#, Seen::Nothing);
    }

    #[test]
    fn an_order_that_is_not_there_or_not_whole_is_stale() {
        let check = |status, body, seen| assert_eq!(order_seen(&answer(status, body), 5, 7), seen, "{body}");
        check(200, r#"{"id":5,"items":[{"productId":7}]}"#, Seen::Written);
        check(200, r#"{"id":5,"items":[]}"#, Seen::Stale);
        check(404, "{}", Seen::Stale);
        check(200, r#"{"id":6,"items":[{"productId":7}]}"#, Seen::Nothing);
        check(500, "", Seen::Nothing);
        assert_eq!(order_placed(&answer(201, r#"{"id":5}"#)), Some(5));
        assert_eq!(order_placed(&answer(409, r#"{"id":5}"#)), None);
    }

    /// Answers every request with an empty cart, until the client leaves.
    fn empty_cart(mut stream: std::net::TcpStream) {
        let mut seen = [0; 4096];
        while stream.read(&mut seen).is_ok_and(|read| read > 0) {
            let cart = "{\"items\":[]}";
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{cart}", cart.len());
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }

    #[test]
    fn a_shop_that_forgets_is_found_out() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let edge = listener.local_addr().expect("bound");
        let (done, stop) = channel();
        let customer = std::thread::spawn(move || Customer { token: "t", number: 0 }.shop(edge, &stop));
        // One connection to write on, one to read on. The customer leaves after what is under way.
        let [writes, reads] = [(); 2].map(|()| listener.accept().expect("a customer").0);
        let servers = [writes, reads].map(|stream| std::thread::spawn(move || empty_cart(stream)));
        drop(done);
        let own = customer.join().expect("no panic");
        assert!(own.read >= 2 && own.stale == own.read && own.failed == 0, "{own:?}");
        for server in servers {
            server.join().expect("no panic");
        }
    }
}
