//! The admin server: probes, metrics and the API behind the CLI, on the control thread.
//!
//! **Intuition.** It is the one door through which a running process is asked or told something, so it trusts nobody more
//! than it must: a browser on the same machine can reach loopback too, and so can whoever rebinds a DNS name to it.
//!
//! **Mechanism.** A handful of short connections on the strict codec. [`guard`] says who may ask; [`api`] answers.
//! `probe_listen` serves the probes and metrics alone, without a token, for those who only watch.
//!
//! **Failure.** Bounded in everything: connections, the bytes of a head and a body, the time for each. What breaks a rule
//! gets problem JSON and a close. A stuck client costs one place for at most [`REQUEST_READ`] and [`RESPONSE_WRITE`]; when
//! all places are taken, the oldest connection that waits for a request gives its place to the new one, so that idle
//! connections never keep a probe out.

pub mod api;
pub mod guard;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tenfold_http1 as http1;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::live::Live;
use guard::Listener;

/// Connections at once, on one listener. One more displaces one that waits, or is closed before a byte is read.
const CONNECTIONS_MAX: usize = 64;
/// A request's body: a purge order, or nothing.
const BODY_BYTES_MAX: usize = 64 * 1024;
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// From the first byte awaited to the last byte of the body; also how long a connection may stay idle.
const REQUEST_READ: Duration = Duration::from_secs(15);
/// Until the first byte of a new connection: who connects has something to ask.
const FIRST_BYTE: Duration = Duration::from_secs(2);
const RESPONSE_WRITE: Duration = Duration::from_secs(15);
/// After a failed `accept` (out of descriptors), so that the loop doesn't spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is sent back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// The body's type.
    pub content_type: &'static str,
    /// Of a 405: what would have been right.
    pub allow: Option<&'static str>,
    /// Of a refusal: why, for the counter.
    pub reason: Option<&'static str>,
    /// The body.
    pub body: Vec<u8>,
}

/// The request as [`guard`] and [`api`] see it.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// As sent.
    pub method: String,
    /// Without the query.
    pub path: String,
    /// As sent, of the target or the Host field.
    pub host: String,
    /// The fields that guard the door.
    pub authorization: Option<String>,
    /// Sent by browsers.
    pub origin: Option<String>,
    /// Sent by browsers.
    pub fetch_site: Option<String>,
    /// Of the body.
    pub content_type: Option<String>,
    /// Whole, bounded.
    pub body: Vec<u8>,
}

impl Response {
    /// A JSON body.
    #[must_use]
    pub fn json(status: u16, body: &serde_json::Value) -> Self {
        let body = format!("{body}\n").into_bytes();
        Self { status, content_type: "application/json", allow: None, reason: None, body }
    }

    /// Problem JSON. RFC 9457.
    #[must_use]
    pub fn problem(status: u16, reason: &'static str, detail: &str) -> Self {
        let body = serde_json::json!({
            "title": http1::canonical_reason(status), "status": status, "reason": reason, "detail": detail,
        });
        Self { content_type: "application/problem+json", reason: Some(reason), ..Self::json(status, &body) }
    }

    /// Plain text.
    #[must_use]
    pub fn text(status: u16, body: &str) -> Self {
        Self {
            status,
            content_type: "text/plain; charset=utf-8",
            allow: None,
            reason: None,
            body: body.into(),
        }
    }
}

/// A connection's place among [`CONNECTIONS_MAX`].
#[derive(Debug)]
struct Place {
    /// Nothing was asked yet, so nothing is lost by a close.
    waits: Cell<bool>,
    displaced: Notify,
}

/// The places taken on one listener, the oldest first.
type Places = Rc<RefCell<Vec<Rc<Place>>>>;

/// Gives its place back at the end, however that comes.
struct Seat {
    places: Places,
    place: Rc<Place>,
}

impl Seat {
    fn take(places: &Places) -> Self {
        let place = Rc::new(Place { waits: Cell::new(true), displaced: Notify::new() });
        places.borrow_mut().push(Rc::clone(&place));
        Self { places: Rc::clone(places), place }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.places.borrow_mut().retain(|other| !Rc::ptr_eq(other, &self.place));
    }
}

/// Accepts until the runtime ends.
pub async fn serve(listener: TcpListener, kind: Listener, live: Rc<Live>) {
    let places = Places::default();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        if places.borrow().len() >= CONNECTIONS_MAX {
            live.count_refusal("too_many_connections");
            if !displace(&places) {
                continue;
            }
        }
        let (seat, live) = (Seat::take(&places), Rc::clone(&live));
        tokio::task::spawn_local(async move {
            // Displaced goes first: then the other branch has nothing begun that would be cut in the middle.
            tokio::select! {
                biased;
                () = seat.place.displaced.notified() => {}
                () = connection(stream, kind, live, &seat.place) => {}
            }
        });
    }
}

/// Takes the place of the oldest connection that waits; false if none does.
fn displace(places: &Places) -> bool {
    let mut places = places.borrow_mut();
    let Some(at) = places.iter().position(|place| place.waits.get()) else { return false };
    places.remove(at).displaced.notify_one();
    true
}

async fn connection(mut stream: TcpStream, kind: Listener, live: Rc<Live>, place: &Place) {
    let mut buffer = Vec::new();
    if !matches!(timeout(FIRST_BYTE, fill(&mut stream, &mut buffer)).await, Ok(true)) {
        return;
    }
    loop {
        place.waits.set(true);
        let read = timeout(REQUEST_READ, read_request(&mut stream, &mut buffer)).await;
        place.waits.set(false);
        let (response, is_head, keep_alive) = match read {
            Ok(Ok(Some((request, keep_alive)))) => {
                let is_head = request.method == "HEAD";
                (answer(&request, kind, &live).await, is_head, keep_alive)
            }
            Ok(Ok(None)) => return,
            Ok(Err(refusal)) => (refusal, false, false),
            Err(_) if buffer.is_empty() => return,
            Err(_) => (Response::problem(408, "request_timeout", "the request took too long"), false, false),
        };
        if let Some(reason) = response.reason {
            live.count_refusal(reason);
        }
        let bytes = encode(&response, is_head, keep_alive);
        let sent = timeout(RESPONSE_WRITE, stream.write_all(&bytes)).await;
        if !matches!(sent, Ok(Ok(()))) || !keep_alive {
            linger(&mut stream).await;
            return;
        }
    }
}

/// Lets the client read the answer before unread bytes of its request turn the close into a reset.
async fn linger(stream: &mut TcpStream) {
    const LINGER: Duration = Duration::from_millis(500);
    let mut sink = [0_u8; 4096];
    let drained = async {
        let _ = stream.shutdown().await;
        while stream.read(&mut sink).await.is_ok_and(|n| n > 0) {}
    };
    let _ = timeout(LINGER, drained).await;
}

async fn answer(request: &Request, kind: Listener, live: &Rc<Live>) -> Response {
    match guard::admit(request, kind, live.token()) {
        Ok(endpoint) => api::answer(endpoint, request, live).await,
        Err(refusal) => refusal,
    }
}

/// One whole request from the front of `buffer`; `None` when the client has gone.
async fn read_request(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
) -> Result<Option<(Request, bool)>, Response> {
    let limits = http1::Limits { head_bytes_max: HEAD_BYTES_MAX, ..http1::Limits::default() };
    let refuse = |error: &http1::Error| Response::problem(error.status(), error.reason(), &error.to_string());
    let mut scanned = 0;
    let (mut request, consumed, framing, keep_alive, expects_continue) = loop {
        if let Some((head, consumed)) =
            http1::parse_request(buffer, &mut scanned, &limits).map_err(|e| refuse(&e))?
        {
            break (Request::of(&head), consumed, head.body, keeps_alive(&head), head.expect_continue);
        }
        if !fill(stream, buffer).await {
            return Ok(None);
        }
    };
    buffer.drain(..consumed);
    if matches!(framing, http1::BodyLength::Exact(length) if length > BODY_BYTES_MAX as u64) {
        return Err(Response::problem(413, "body_too_large", "a request here is at most 64 KiB"));
    }
    if expects_continue && stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.is_err() {
        return Ok(None);
    }
    let mut decoder = http1::BodyDecoder::new(framing, &limits);
    loop {
        let (used, piece) = decoder.decode(buffer).map_err(|e| refuse(&e))?;
        let needs_more = match piece {
            http1::Piece::Data(bytes) => {
                request.body.extend_from_slice(bytes);
                false
            }
            http1::Piece::NeedMore => true,
            http1::Piece::End => {
                buffer.drain(..used);
                return Ok(Some((request, keep_alive)));
            }
        };
        buffer.drain(..used);
        if request.body.len() > BODY_BYTES_MAX {
            return Err(Response::problem(413, "body_too_large", "a request here is at most 64 KiB"));
        }
        if needs_more && !fill(stream, buffer).await {
            return Ok(None);
        }
    }
}

/// Nobody needs kept-alive connections in HTTP/1.0, which would have to be confirmed.
fn keeps_alive(head: &http1::RequestHead<'_>) -> bool {
    head.keep_alive && head.version == http1::Version::Http11
}

/// Reads more behind `buffer`; false when the client has gone.
async fn fill(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> bool {
    let mut chunk = [0_u8; 4096];
    match stream.read(&mut chunk).await {
        Ok(0) | Err(_) => false,
        Ok(count) => {
            buffer.extend_from_slice(&chunk[..count]);
            true
        }
    }
}

impl Request {
    fn of(head: &http1::RequestHead<'_>) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        // Where a guarding field is there twice, the values are joined, so that neither alone decides.
        let field = |name: &[u8]| {
            let named = head.fields.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name));
            let values: Vec<_> = named.map(|(_, value)| text(value)).collect();
            (!values.is_empty()).then(|| values.join(", "))
        };
        Self {
            method: head.method_text.to_owned(),
            path: text(head.path),
            host: text(head.host),
            authorization: field(b"authorization"),
            origin: field(b"origin"),
            fetch_site: field(b"sec-fetch-site"),
            content_type: field(b"content-type"),
            body: Vec::new(),
        }
    }
}

fn encode(response: &Response, is_head: bool, keep_alive: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(response.body.len() + 256);
    let field = |name: &str, value: &str| format!("{name}: {value}\r\n");
    let mut head = format!("HTTP/1.1 {} {}\r\n", response.status, http1::canonical_reason(response.status));
    head += &field("content-type", response.content_type);
    head += &field("content-length", &response.body.len().to_string());
    head += &field("cache-control", "no-store");
    head += &field("x-content-type-options", "nosniff");
    if response.status == 401 {
        head += &field("www-authenticate", "Bearer");
    }
    if let Some(allow) = response.allow {
        head += &field("allow", allow);
    }
    if !keep_alive {
        head += &field("connection", "close");
    }
    head += "\r\n";
    out.extend_from_slice(head.as_bytes());
    if !is_head {
        out.extend_from_slice(&response.body);
    }
    out
}

/// Binds an admin address for the control thread's runtime; the error says what to do.
pub fn bind(address: SocketAddr, key: &str) -> Result<std::net::TcpListener, String> {
    let listener = std::net::TcpListener::bind(address).map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            format!("cannot listen on {address} ({key}): it is in use; stop what has it (`ss -ltnp`), or change {key}")
        }
        std::io::ErrorKind::AddrNotAvailable => {
            format!("cannot listen on {address} ({key}): this machine does not have that address; change {key}")
        }
        _ => format!("cannot listen on {address} ({key}): {error}"),
    })?;
    listener.set_nonblocking(true).map_err(|error| format!("cannot listen on {address} ({key}): {error}"))?;
    Ok(listener)
}
