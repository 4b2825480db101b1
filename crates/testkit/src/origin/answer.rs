//! What an origin answers, honestly or not.
//!
//! **Intuition.** A builder for responses that reads like the response: status, fields, body, and when to send it.
//!
//! **Mechanism.** A normal answer gets a `Content-Length` (or chunks, or a close) and honours HEAD and
//! `If-None-Match`. A dishonest one is cut short, or is the test's own bytes sent as they are.
//!
//! **Failure.** A cut answer ends in a reset or a close, by choice; whatever is written to a client that left is
//! counted as abandoned by the caller.

use serde_json::json;

use super::{Gate, Received};
use crate::message;

/// One response. Each method returns the changed answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub(super) status: u16,
    pub(super) fields: Vec<(String, String)>,
    pub(super) body: Body,
    /// Waited for before the first byte.
    pub(super) before_head: Option<Gate>,
    /// Waited for between head and body.
    pub(super) before_body: Option<Gate>,
    /// Waited for before each piece of a chunked body but the first.
    pub(super) between_chunks: Option<Gate>,
    pub(super) cut_at: Option<usize>,
    pub(super) interim: Vec<u8>,
    pub(super) closes: bool,
    pub(super) resets: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Body {
    Exact(Vec<u8>),
    Chunked(Vec<Vec<u8>>),
    UntilClose(Vec<u8>),
    /// Head and all: nothing is added.
    Verbatim(Vec<u8>),
}

impl Answer {
    /// An empty answer with this status.
    #[must_use]
    pub fn new(status: u16) -> Self {
        Self {
            status,
            fields: Vec::new(),
            body: Body::Exact(Vec::new()),
            before_head: None,
            before_body: None,
            between_chunks: None,
            cut_at: None,
            interim: Vec::new(),
            closes: false,
            resets: false,
        }
    }

    /// 200 with this body and its length.
    #[must_use]
    pub fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self::new(200).body(body)
    }

    /// These bytes as they are, then a close.
    #[must_use]
    pub fn verbatim(bytes: impl Into<Vec<u8>>) -> Self {
        Self { body: Body::Verbatim(bytes.into()), ..Self::new(200) }.closing()
    }

    /// A body with a `Content-Length`.
    #[must_use]
    pub fn body(self, body: impl Into<Vec<u8>>) -> Self {
        Self { body: Body::Exact(body.into()), ..self }
    }

    /// A chunked body in these pieces.
    #[must_use]
    pub fn chunked<P: Into<Vec<u8>>>(self, pieces: impl IntoIterator<Item = P>) -> Self {
        Self { body: Body::Chunked(pieces.into_iter().map(Into::into).collect()), ..self }
    }

    /// A body without a length, ended by the close.
    #[must_use]
    pub fn until_close(self, body: impl Into<Vec<u8>>) -> Self {
        Self { body: Body::UntilClose(body.into()), ..self }.closing()
    }

    /// One more field, after those there are.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The `Cache-Control` field.
    #[must_use]
    pub fn cache_control(self, value: &str) -> Self {
        self.header("Cache-Control", value)
    }

    /// The `ETag` field, quotes included in `value`; a request whose `If-None-Match` is exactly it gets a 304.
    #[must_use]
    pub fn etag(self, value: &str) -> Self {
        self.header("ETag", value)
    }

    /// Nothing is sent until the gate opens.
    #[must_use]
    pub fn gated(self, gate: &Gate) -> Self {
        Self { before_head: Some(gate.clone()), ..self }
    }

    /// The head is sent at once, the body when the gate opens.
    #[must_use]
    pub fn gated_body(self, gate: &Gate) -> Self {
        Self { before_body: Some(gate.clone()), ..self }
    }

    /// The first chunk is sent at once, each of the others when the gate is open.
    #[must_use]
    pub fn gated_chunks(self, gate: &Gate) -> Self {
        Self { between_chunks: Some(gate.clone()), ..self }
    }

    /// Bytes sent before the head at once, whatever gates follow: interim responses.
    #[must_use]
    pub fn interim(self, bytes: impl Into<Vec<u8>>) -> Self {
        Self { interim: bytes.into(), ..self }
    }

    /// Only this many bytes of the encoded body are sent, then the connection closes.
    #[must_use]
    pub fn cut_at(self, body_bytes: usize) -> Self {
        Self { cut_at: Some(body_bytes), ..self }.closing()
    }

    /// The connection closes after this answer, whose head does not say so unless a field does.
    #[must_use]
    pub fn closing(self) -> Self {
        Self { closes: true, ..self }
    }

    /// The connection is reset after this answer.
    #[must_use]
    pub fn resetting(self) -> Self {
        Self { resets: true, ..self }.closing()
    }

    /// The value of the answer's own field.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        message::field(&self.fields, name)
    }

    /// This answer to this request: a 304 without a body where the validators agree.
    pub(super) fn to_request(&self, request: &Received) -> Self {
        let etag = self.field("etag");
        let agrees = self.status == 200 && etag.is_some() && etag == request.header("if-none-match");
        if !agrees {
            return self.clone();
        }
        let mut fresh = self.clone();
        fresh.status = 304;
        fresh.body = Body::Exact(Vec::new());
        fresh
    }

    /// The head as sent; empty where the body is verbatim.
    pub(super) fn head(&self) -> Vec<u8> {
        let length = match &self.body {
            Body::Verbatim(_) => return Vec::new(),
            Body::Exact(_) if self.status == 304 || self.status == 204 => String::new(),
            Body::Exact(_) if self.field("content-length").is_some() => String::new(),
            Body::Exact(body) => format!("Content-Length: {}\r\n", body.len()),
            Body::Chunked(_) => "Transfer-Encoding: chunked\r\n".to_owned(),
            Body::UntilClose(_) => String::new(),
        };
        let mut head = format!("HTTP/1.1 {} \r\n", self.status);
        for (name, value) in &self.fields {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&length);
        head.push_str("\r\n");
        head.into_bytes()
    }

    /// The body as sent, in the pieces it is sent in.
    pub(super) fn pieces(&self) -> Vec<Vec<u8>> {
        let mut pieces = match &self.body {
            Body::Exact(body) | Body::UntilClose(body) | Body::Verbatim(body) => vec![body.clone()],
            Body::Chunked(chunks) => {
                let encode =
                    |chunk: &Vec<u8>| [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat();
                let mut pieces: Vec<_> =
                    chunks.iter().filter(|chunk| !chunk.is_empty()).map(encode).collect();
                // The end travels with the last chunk, as servers send it.
                match pieces.last_mut() {
                    Some(last) => last.extend_from_slice(b"0\r\n\r\n"),
                    None => pieces.push(b"0\r\n\r\n".to_vec()),
                }
                pieces
            }
        };
        let mut left = self.cut_at.unwrap_or(usize::MAX);
        for piece in &mut pieces {
            piece.truncate(left);
            left -= piece.len();
        }
        pieces
    }
}

/// The account of a request that [`super::Origin::echo`] answers with.
pub(super) fn echo(request: &Received, count: u64) -> Answer {
    let account = json!({
        "method": request.method,
        "target": request.target,
        "fields": request.fields,
        "body": String::from_utf8_lossy(&request.body),
        "connection": request.connection,
        "count": count,
    });
    Answer::ok(format!("{account}\n")).header("Content-Type", "application/json")
}
