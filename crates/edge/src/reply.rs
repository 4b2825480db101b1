//! What the client is told: heads written anew from a node's, from a stored answer, or from a refusal.
//!
//! Whatever a node or the cache has to say passes through here, so all of it has `X-Request-Id` and `Cache-Status` and says
//! `Connection: close` before the connection closes; refusals ([`write_refusal`]) have the id and their reason. Framing is always ours: a body whose length is unknown goes in
//! chunks to HTTP/1.1 and ends with the connection for HTTP/1.0.

use std::rc::Rc;

use bytes::Bytes;
use tenfold_cache::policy::{RangePlan, Validators, not_modified, plan_range};
use tenfold_cache::{
    Body, CacheStatus, Entry, Head, Interim, KeyBuf, Observed, Representation, RequestFacts, Timestamp,
    VARY_LINE, is_of_its_target,
};
use tenfold_http1::{BodyLength, Method, ResponseHead, write_content_length, write_status_line};

use crate::body::Framing;
use crate::conn::After;
use crate::forward::{fields_to_keep, overrides_method, told_scheme, varies_by_each, write_response_fields};
use crate::io::{COPIED_BYTES_MAX, Socket};
use crate::local::Local;
use crate::own_writes;
use crate::pass::client_pace;
use crate::reason::{Reason, Refusal, write_refusal};
use crate::request_id::RequestId;
use crate::task::{Client, Task};

/// What a node's head became.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    /// 1xx; the client's copy is in its outbox, if it takes any.
    Interim {
        /// It was `100 Continue`.
        is_continue: bool,
    },
    Final(Final),
}

/// A final head, written to the client's outbox.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Final {
    pub(crate) status: u16,
    pub(crate) framing: Framing,
    /// The connection ends with this answer; it has been told.
    pub(crate) close: bool,
    /// What the head takes of the bytes written.
    pub(crate) head_bytes: u64,
}

/// The lines that are ours on every answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ours<'a> {
    pub(crate) request_id: &'a RequestId,
    pub(crate) cache: CacheStatus,
    /// What to say of the key, on routes that show it.
    pub(crate) key: Option<ShownKey<'a>>,
    pub(crate) http10: bool,
    pub(crate) close: bool,
}

/// The part of the cache's key that a person understands: what was asked for, in normal form.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShownKey<'a> {
    pub(crate) host: &'a [u8],
    pub(crate) path: &'a [u8],
    pub(crate) query: Option<&'a [u8]>,
}

impl ShownKey<'_> {
    /// Appends the parameter. RFC 9211 §2.7; a String of RFC 9651 §4.1.6.
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"; key=\"");
        let parts = [
            self.host,
            self.path,
            if self.query.is_some() { b"?" } else { b"" },
            self.query.unwrap_or_default(),
        ];
        for byte in parts.into_iter().flatten() {
            match byte {
                b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
                0x20..=0x7e => out.push(*byte),
                // No target holds another, and no String may.
                _ => {}
            }
        }
        out.push(b'"');
    }
}

impl Ours<'_> {
    /// Appends them, and the empty line that ends the head.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"X-Request-Id: ");
        out.extend_from_slice(self.request_id.as_bytes());
        out.extend_from_slice(b"\r\nCache-Status: ");
        self.cache.write(out);
        if let Some(key) = &self.key {
            key.write(out);
        }
        out.extend_from_slice(match (self.close, self.http10) {
            (true, _) => b"\r\nConnection: close\r\n\r\n".as_slice(),
            // HTTP/1.0 closes unless told otherwise.
            (false, true) => b"\r\nConnection: keep-alive\r\n\r\n",
            (false, false) => b"\r\n\r\n",
        });
    }
}

/// Writes a node's head for the client. `sent` is whether the node has the whole request; a connection on which an answer
/// overtakes its request cannot be used again.
pub(crate) fn on_node_head(
    local: &Local,
    task: &Task,
    head: &ResponseHead<'_>,
    sent: bool,
    out: &mut Vec<u8>,
) -> Answer {
    if head.is_interim() {
        write_interim(task, head, out);
        return Answer::Interim { is_continue: head.status == 100 };
    }
    tell_cache(local, task, head);
    let before = out.len();
    let framing = framing_for(&task.client, head);
    let close = !sent || framing == Framing::UntilClose || local.closes(&task.client);
    write_status(out, head.status);
    write_response_fields(out, &head.fields, head.names_hop_by_hop);
    if tenfold_http1::find(&head.fields, "date").is_none() {
        write_date(local, out);
    }
    write_framing(
        out,
        framing,
        head.content_length.filter(|_| framing == Framing::None && head.status != 204),
    );
    let stored = task.recording.borrow().is_some();
    task.ours(CacheStatus { stored, ..task.cache }, close).write(out);
    let head_bytes = (out.len() - before) as u64;
    Answer::Final(Final { status: head.status, framing, close, head_bytes })
}

fn write_interim(task: &Task, head: &ResponseHead<'_>, out: &mut Vec<u8>) {
    let wanted = !task.client.http10 && (head.status != 100 || task.client.expect_continue);
    if wanted && write_status_line(out, head.status).is_ok() {
        write_response_fields(out, &head.fields, head.names_hop_by_hop);
        out.extend_from_slice(b"\r\n");
    }
}

/// Passes an interim response on that came to a fill. Not to clients that know none.
pub(crate) fn write_shared_interim(task: &Task, interim: &Interim, out: &mut Vec<u8>) {
    if !task.client.http10 && write_status_line(out, interim.status).is_ok() {
        out.extend_from_slice(&interim.head);
        out.extend_from_slice(b"\r\n");
    }
}

/// The cache learns of what may have changed what it holds, and of what it may hold.
fn tell_cache(local: &Local, task: &Task, head: &ResponseHead<'_>) {
    let cache = local.cache();
    let rule = &task.route().rule;
    if task.watch.is_none() && task.request.is_safe() {
        return;
    }
    let fields = fields_to_keep(&head.fields, head.names_hop_by_hop);
    let content_length = if task.client.head_only { head.content_length } else { body_length(head) };
    let observed = Observed { status: head.status, fields: &fields, content_length };
    // One that varies by everything leaves the key what it is: nobody gains by waiting for another's answer.
    if let Some(watch) = task.watch.as_ref().filter(|_| !varies_by_each(&head.fields)) {
        let now = local.timestamp();
        let recording = task.with_facts(|facts| cache.observe(watch, facts, rule, &observed, now));
        task.recording.replace(recording.flatten());
    }
    if task.request.is_safe() {
        return;
    }
    let (method, target, host) = task.request.described();
    let (path, query) = split_target(target);
    let is_post = task.request.method == Method::Post;
    let untouched = is_post && cache.is_untouched(task.purges, host, (path, query));
    let facts = RequestFacts::read(std::str::from_utf8(method).unwrap_or_default(), &[]);
    cache.invalidate(&facts, rule, host, (path, query), head.status, &head.fields);
    if untouched && is_of_its_target(&head.fields, host, (path, query)) {
        record_post(local, task, &observed);
    }
}

/// A POST's response may be what a GET gets from now on.
fn record_post(local: &Local, task: &Task, observed: &Observed<'_>) {
    let (_, _, host) = task.request.described();
    let route = task.route();
    let now = local.timestamp();
    let recording = task.with_head(|head, fields| {
        if overrides_method(fields) {
            return None;
        }
        let facts = RequestFacts::read(head.method_text, fields).under(&route.rule);
        let mut key = KeyBuf::new();
        route.key(&mut key, told_scheme(fields), host, (head.path, head.query), &facts);
        let requested = Timestamp(local.worker.clock.unix_ms_at(task.account.started));
        local.cache().observe_post((&key, requested), &facts, &route.rule, observed, now)
    });
    task.recording.replace(recording.flatten());
}

fn split_target(target: &[u8]) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(b'?', target) {
        Some(at) => (&target[..at], Some(&target[at + 1..])),
        None => (target, None),
    }
}

/// The body's length, if the head announces it.
pub(crate) fn body_length(head: &ResponseHead<'_>) -> Option<u64> {
    match head.body {
        BodyLength::Exact(length) => Some(length),
        BodyLength::None => Some(0),
        BodyLength::Chunked | BodyLength::UntilClose => None,
    }
}

fn framing_for(client: &Client, head: &ResponseHead<'_>) -> Framing {
    match head.body {
        BodyLength::Chunked | BodyLength::UntilClose if client.http10 => Framing::UntilClose,
        length => Framing::of(length),
    }
}

fn write_framing(out: &mut Vec<u8>, framing: Framing, length_without_body: Option<u64>) {
    match framing {
        Framing::Exact(length) => write_content_length(out, length),
        Framing::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        Framing::None => {
            if let Some(length) = length_without_body {
                write_content_length(out, length);
            }
        }
        Framing::UntilClose => {}
    }
}

fn write_date(local: &Local, out: &mut Vec<u8>) {
    out.extend_from_slice(b"Date: ");
    out.extend_from_slice(&local.worker.clock.http_date());
    out.extend_from_slice(b"\r\n");
}

/// Answers in the origin's place, and says whether the connection goes on. The request's body, if any, is unread.
pub(crate) async fn refuse(local: &Rc<Local>, socket: &mut Socket, task: &mut Task, reason: Reason) -> After {
    task.account.reason = Some(reason);
    task.account.status = reason.status();
    let close = !task.request.has_no_body() || local.closes(&task.client);
    let refusal = Refusal {
        reason,
        request_id: &task.request_id,
        close,
        head_only: task.client.head_only,
        date: &local.worker.clock.http_date(),
    };
    let lines = own_writes::lines_of_failure(local, task, reason);
    let before = socket.outbox.len();
    write_refusal(&mut socket.outbox, &refusal);
    let head = socket.outbox.get(before..).unwrap_or_default();
    if let (Some(lines), Some(end)) = (lines, memchr::memchr(b'\n', head)) {
        // Behind the status line.
        let at = before + end + 1;
        socket.outbox.splice(at..at, lines.bytes());
    }
    let limits = task.snapshot.config.limits;
    match socket.writer(client_pace(&limits)).flush().await {
        Ok(()) => After::of(close),
        Err(_) => After::Abort,
    }
}

/// What is left to write behind a head, and what the account needs to know.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) status: u16,
    /// All of the body, written or not.
    pub(crate) body_bytes: u64,
    /// A body that is too large to be copied behind the head.
    pub(crate) rest: Option<Body>,
}

/// What of a stored response goes out.
enum Shown<'e> {
    /// As it is stored: copied or counted only once it is known how it goes out.
    Whole(&'e Body),
    Made(Body),
}

impl std::ops::Deref for Shown<'_> {
    type Target = Body;

    fn deref(&self) -> &Body {
        match self {
            Self::Whole(body) => body,
            Self::Made(body) => body,
        }
    }
}

/// Writes an answer from a stored response, as the request gets it: whole, one or several ranges of it, or 304. A body of
/// more than [`COPIED_BYTES_MAX`] is left to be written from where it lies.
pub(crate) fn write_stored(
    out: &mut Vec<u8>,
    entry: &Entry,
    shown: &Representation<'_>,
    facts: &RequestFacts<'_>,
    (head_only, age_s): (bool, u64),
    ours: &Ours<'_>,
) -> Stored {
    if not_modified(facts, entry.status, &shown.validators) {
        write_status(out, 304);
        write_fields_but_content(out, shown.head);
        write_vary(out, shown.adds_vary);
        write_age(out, age_s);
        ours.write(out);
        return Stored { status: 304, body_bytes: 0, rest: None };
    }
    // A part has the ranges of what it is a part of; a body that was compressed here has none.
    let status = if entry.part.is_some() { 200 } else { entry.status };
    let plan = match shown.coding {
        None => plan_range(facts, status, &shown.validators, entry.complete_length()),
        Some(_) => RangePlan::Full,
    };
    let made = match plan {
        RangePlan::Single { start, end } => Some(write_partial(out, entry, start, end)),
        RangePlan::Several(ranges) => write_parts(out, entry, &ranges, ours.request_id),
        RangePlan::NotSatisfiable => Some(write_unsatisfiable(out, entry)),
        RangePlan::Full => None,
    };
    let (status, body) = match made {
        Some((status, body)) => (status, Shown::Made(body)),
        None => {
            write_status(out, entry.status);
            out.extend_from_slice(shown.head);
            (entry.status, Shown::Whole(shown.body))
        }
    };
    write_vary(out, shown.adds_vary);
    if !matches!(status, 204 | 304) {
        write_content_length(out, body.len() as u64);
    }
    write_age(out, age_s);
    ours.write(out);
    if head_only {
        return Stored { status, body_bytes: 0, rest: None };
    }
    let body_bytes = body.len() as u64;
    // What can't be read now is left for the write to fail at.
    if body.len() <= COPIED_BYTES_MAX && body.append_to(out).is_ok() {
        return Stored { status, body_bytes, rest: None };
    }
    let rest = match body {
        Shown::Whole(body) => body.clone(),
        Shown::Made(body) => body,
    };
    Stored { status, body_bytes, rest: Some(rest) }
}

fn write_vary(out: &mut Vec<u8>, adds_vary: bool) {
    if adds_vary {
        out.extend_from_slice(VARY_LINE);
    }
}

/// The codec lets no other status through than one that can be written.
fn write_status(out: &mut Vec<u8>, status: u16) {
    if write_status_line(out, status).is_err() {
        out.extend_from_slice(b"HTTP/1.1 502 Bad Gateway\r\n");
    }
}

/// The bytes from `start` to `end` of the representation, of which a stored part may hold only some.
fn slice_of(entry: &Entry, start: u64, end: u64) -> Body {
    let held = entry.body.len();
    let first = entry.part.map_or(0, |part| part.start);
    // The plan lies within what is held.
    let place = |at: u64| usize::try_from(at.saturating_sub(first)).unwrap_or(held).min(held);
    entry.body.slice(place(start)..place(end).max(place(start)))
}

fn write_content_range(out: &mut Vec<u8>, (start, end): (u64, u64), complete: u64) {
    out.extend_from_slice(
        format!("Content-Range: bytes {start}-{}/{complete}\r\n", end.saturating_sub(1)).as_bytes(),
    );
}

/// Whether a line of a head is of this field.
fn is_line_of(line: &[u8], name: &[u8]) -> bool {
    line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
        && line.get(name.len()) == Some(&b':')
}

fn write_partial(out: &mut Vec<u8>, entry: &Entry, start: u64, end: u64) -> (u16, Body) {
    write_status(out, 206);
    for line in entry.head.split_inclusive(|&byte| byte == b'\n') {
        if !is_line_of(line, b"content-range") {
            out.extend_from_slice(line);
        }
    }
    write_content_range(out, (start, end), entry.complete_length());
    (206, slice_of(entry, start, end))
}

/// Several ranges, one behind the other between boundaries. RFC 9110 §15.3.7.2. Whoever wrote the body did not know this
/// request's id, so it can't be in it. Nothing is written where the body can't be read.
fn write_parts(
    out: &mut Vec<u8>,
    entry: &Entry,
    ranges: &[(u64, u64)],
    id: &RequestId,
) -> Option<(u16, Body)> {
    let before = out.len();
    write_status(out, 206);
    let is_type =
        |line: &[u8]| line.get(..13).is_some_and(|start| start.eq_ignore_ascii_case(b"content-type:"));
    let (mut types, mut body) = (Vec::new(), Vec::new());
    for line in entry.head.split_inclusive(|&byte| byte == b'\n') {
        if is_type(line) { types.extend_from_slice(line) } else { out.extend_from_slice(line) }
    }
    out.extend_from_slice(b"Content-Type: multipart/byteranges; boundary=\"");
    out.extend_from_slice(id.as_bytes());
    out.extend_from_slice(b"\"\r\n");
    for &(start, end) in ranges {
        body.extend_from_slice(b"--");
        body.extend_from_slice(id.as_bytes());
        body.extend_from_slice(b"\r\n");
        body.extend_from_slice(&types);
        write_content_range(&mut body, (start, end), entry.complete_length());
        body.extend_from_slice(b"\r\n");
        if slice_of(entry, start, end).append_to(&mut body).is_err() {
            out.truncate(before);
            return None;
        }
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--");
    body.extend_from_slice(id.as_bytes());
    body.extend_from_slice(b"--\r\n");
    Some((206, Bytes::from(body).into()))
}

/// What this range met says nothing of the representation's lifetime: a cache behind us would take it for the answer to all.
fn write_unsatisfiable(out: &mut Vec<u8>, entry: &Entry) -> (u16, Body) {
    write_status(out, 416);
    for line in entry.head.split_inclusive(|&byte| byte == b'\n') {
        if !is_content_line(line) && !gives_lifetime(line) {
            out.extend_from_slice(line);
        }
    }
    out.extend_from_slice(format!("Content-Range: bytes */{}\r\n", entry.complete_length()).as_bytes());
    (416, Bytes::new().into())
}

fn write_age(out: &mut Vec<u8>, age_s: u64) {
    out.extend_from_slice(b"Age: ");
    out.extend_from_slice(itoa::Buffer::new().format(age_s).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// A 304 repeats what says which representation is meant, not what describes a body that isn't there (RFC 9110 §15.4.5).
fn write_fields_but_content(out: &mut Vec<u8>, head: &[u8]) {
    for line in head.split_inclusive(|&byte| byte == b'\n').filter(|line| !is_content_line(line)) {
        out.extend_from_slice(line);
    }
}

fn is_content_line(line: &[u8]) -> bool {
    const CONTENT: &[u8] = b"content-";
    let starts = line.get(..CONTENT.len()).is_some_and(|start| start.eq_ignore_ascii_case(CONTENT));
    starts && !is_line_of(line, b"content-location")
}

/// `Expires`, `Cache-Control` and the fields that replace it for some caches (RFC 9213).
fn gives_lifetime(line: &[u8]) -> bool {
    const CONTROL: &[u8] = b"cache-control";
    let name = line.split(|&byte| byte == b':').next().unwrap_or_default();
    let is_control = name
        .len()
        .checked_sub(CONTROL.len())
        .and_then(|at| name.get(at..))
        .is_some_and(|end| end.eq_ignore_ascii_case(CONTROL));
    is_control || name.eq_ignore_ascii_case(b"expires") || name.eq_ignore_ascii_case(b"surrogate-control")
}

/// Writes the head of a response that is being fetched. The framing of what follows, and whether the client must be left
/// after it.
pub(crate) fn write_fetched(local: &Local, task: &Task, head: &Head, out: &mut Vec<u8>) -> Final {
    let before = out.len();
    let bodiless = task.client.head_only || matches!(head.status, 204 | 304);
    let framing = match (bodiless, head.content_length, task.client.http10) {
        (true, ..) => Framing::None,
        (false, Some(length), _) => Framing::Exact(length),
        (false, None, true) => Framing::UntilClose,
        (false, None, false) => Framing::Chunked,
    };
    let close = framing == Framing::UntilClose || local.closes(&task.client);
    let detail = head.stored.err().map(tenfold_cache::Uncacheable::as_str).or(task.cache.detail);
    let cache = CacheStatus { stored: head.stored.is_ok(), ttl_s: head.ttl_s, detail, ..task.cache };
    let ours = task.ours(cache, close);
    let validators: Validators<'_> = head.validators();
    let adds_vary = head.adds_vary(&task.route().rule);
    let unchanged = task.is_conditional()
        && task.with_facts(|facts| not_modified(facts, head.status, &validators)).unwrap_or(false);
    if unchanged {
        write_status(out, 304);
        write_fields_but_content(out, &head.head);
        write_vary(out, adds_vary);
        if let Some(age_s) = head.age_s {
            write_age(out, age_s);
        }
        ours.write(out);
        let head_bytes = (out.len() - before) as u64;
        return Final { status: 304, framing: Framing::None, close, head_bytes };
    }
    write_status(out, head.status);
    out.extend_from_slice(&head.head);
    write_vary(out, adds_vary);
    write_framing(out, framing, head.content_length.filter(|_| head.status != 204));
    if let Some(age_s) = head.age_s {
        write_age(out, age_s);
    }
    ours.write(out);
    Final { status: head.status, framing, close, head_bytes: (out.len() - before) as u64 }
}

/// Is this a method that the edge answers itself or not at all?
pub(crate) fn is_refused(method: Method) -> bool {
    matches!(method, Method::Connect | Method::Trace)
}
