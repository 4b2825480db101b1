//! A small, lenient reader of HTTP/1.1 messages for the kit's own ends.
//!
//! **Intuition.** The kit must read what the product wrote without sharing its codec, and must not be stricter than
//! the wire: a test that wants strictness looks at the raw bytes, which are kept.
//!
//! **Mechanism.** A [`Source`] buffers a blocking socket; a message is a head up to an empty line, then a body by
//! chunks, by Content-Length, or up to the close. Lines may end in LF alone.
//!
//! **Failure.** Nonsense is `InvalidData`, a close in the middle `UnexpectedEof`, silence `TimedOut`. A message of
//! more than [`MESSAGE_BYTES_MAX`] is refused.

use std::io::{self, Read};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use crate::wait::Deadline;

/// More than any test sends; keeps a runaway peer from filling memory.
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 << 20;
const READ_BYTES: usize = 16 << 10;

/// A start line, fields and body as they came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Message {
    pub(crate) start_line: String,
    /// In order, names as written.
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Head and undecoded body.
    pub(crate) raw: Vec<u8>,
}

impl Message {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        field(&self.fields, name)
    }

    fn field_has(&self, name: &str, token: &str) -> bool {
        fields(&self.fields, name)
            .flat_map(|value| value.split(','))
            .any(|part| part.trim().eq_ignore_ascii_case(token))
    }

    /// `Connection: close`, or HTTP/1.0 without keep-alive.
    pub(crate) fn closes(&self) -> bool {
        self.field_has("connection", "close")
            || (self.start_line.contains("HTTP/1.0") && !self.field_has("connection", "keep-alive"))
    }

    /// How the body ends when neither chunks nor a length say so is the caller's `otherwise`.
    pub(crate) fn framing(&self, otherwise: Framing) -> io::Result<Framing> {
        if self.field_has("transfer-encoding", "chunked") {
            return Ok(Framing::Chunked);
        }
        let Some(length) = self.field("content-length") else { return Ok(otherwise) };
        let length = length.trim().parse().map_err(|_| invalid(format!("Content-Length {length:?}")))?;
        Ok(Framing::Exact(length))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Exact(usize),
    Chunked,
    UntilClose,
}

/// A blocking socket with what was read ahead.
#[derive(Debug)]
pub(crate) struct Source {
    stream: Arc<TcpStream>,
    buffer: Vec<u8>,
    /// Ends the wait of the read in progress; `None`: wait for ever.
    deadline: Option<Deadline>,
}

impl Source {
    pub(crate) fn new(stream: Arc<TcpStream>) -> Self {
        Self { stream, buffer: Vec::new(), deadline: None }
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// What was read and not yet taken.
    pub(crate) fn buffered(&self) -> &[u8] {
        &self.buffer
    }

    pub(crate) fn limit(&mut self, limit: Option<Duration>) {
        self.deadline = limit.map(Deadline::after);
    }

    /// Reads once into the buffer. Zero at the end of the stream.
    pub(crate) fn fill(&mut self) -> io::Result<usize> {
        if self.buffer.len() > MESSAGE_BYTES_MAX {
            return Err(invalid("more bytes than the kit reads".into()));
        }
        let left = match self.deadline.map(Deadline::remaining) {
            None => None,
            Some(Some(left)) => Some(left),
            Some(None) => return Err(timed_out()),
        };
        self.stream.set_read_timeout(left)?;
        let mut piece = [0; READ_BYTES];
        let read = match (&*self.stream).read(&mut piece) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(timed_out()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return self.fill(),
            read => read?,
        };
        self.buffer.extend_from_slice(&piece[..read]);
        Ok(read)
    }

    /// Everything up to the close.
    pub(crate) fn rest(&mut self) -> io::Result<Vec<u8>> {
        while self.fill()? > 0 {}
        Ok(std::mem::take(&mut self.buffer))
    }

    /// Reads until the buffer holds `wanted`, and takes everything up to its end.
    pub(crate) fn through(&mut self, wanted: &[u8]) -> io::Result<Vec<u8>> {
        loop {
            if let Some(at) = find(&self.buffer, wanted) {
                return Ok(self.buffer.drain(..at + wanted.len()).collect());
            }
            if self.fill()? == 0 {
                return Err(cut_short(&self.buffer));
            }
        }
    }

    /// The next message's head; `None` when the peer closed in between. Empty lines before it are skipped.
    pub(crate) fn head(&mut self) -> io::Result<Option<Message>> {
        loop {
            let blank = self.buffer.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            self.buffer.drain(..blank);
            if let Some(end) = head_end(&self.buffer) {
                let raw: Vec<u8> = self.buffer.drain(..end).collect();
                return parse_head(raw).map(Some);
            }
            if self.fill()? > 0 {
                continue;
            }
            return if self.buffer.is_empty() { Ok(None) } else { Err(cut_short(&self.buffer)) };
        }
    }

    /// Reads the body that `framing` says follows into `message`.
    pub(crate) fn body(&mut self, message: &mut Message, framing: Framing) -> io::Result<()> {
        match framing {
            Framing::Exact(length) => {
                let body = self.exactly(length)?;
                message.raw.extend_from_slice(&body);
                message.body = body;
            }
            Framing::UntilClose => {
                message.body = self.rest()?;
                message.raw.extend_from_slice(&message.body);
            }
            Framing::Chunked => self.chunks(message)?,
        }
        Ok(())
    }

    fn chunks(&mut self, message: &mut Message) -> io::Result<()> {
        loop {
            let line = self.through(b"\n")?;
            message.raw.extend_from_slice(&line);
            let text = String::from_utf8_lossy(&line);
            let size = text.split(';').next().unwrap_or_default().trim();
            let size =
                usize::from_str_radix(size, 16).map_err(|_| invalid(format!("chunk size {size:?}")))?;
            if size == 0 {
                break;
            }
            let data = self.exactly(size)?;
            message.body.extend_from_slice(&data);
            message.raw.extend_from_slice(&data);
            message.raw.extend_from_slice(&self.through(b"\n")?);
        }
        loop {
            let trailer = self.through(b"\n")?;
            message.raw.extend_from_slice(&trailer);
            if trailer.trim_ascii().is_empty() {
                return Ok(());
            }
        }
    }

    fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        if length > MESSAGE_BYTES_MAX {
            return Err(invalid(format!("a body of {length} bytes")));
        }
        while self.buffer.len() < length {
            if self.fill()? == 0 {
                return Err(cut_short(&self.buffer));
            }
        }
        Ok(self.buffer.drain(..length).collect())
    }
}

/// The values of the fields of that name, in any case.
pub(crate) fn fields<'a>(all: &'a [(String, String)], name: &'a str) -> impl Iterator<Item = &'a str> {
    all.iter().filter(move |(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// The first of them.
pub(crate) fn field<'a>(all: &'a [(String, String)], name: &str) -> Option<&'a str> {
    all.iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

fn head_end(buffer: &[u8]) -> Option<usize> {
    let strict = find(buffer, b"\r\n\r\n").map(|at| at + 4);
    let lenient = find(buffer, b"\n\n").map(|at| at + 2);
    match (strict, lenient) {
        (Some(strict), Some(lenient)) => Some(strict.min(lenient)),
        (strict, lenient) => strict.or(lenient),
    }
}

fn parse_head(raw: Vec<u8>) -> io::Result<Message> {
    let text = String::from_utf8_lossy(&raw).into_owned();
    let mut lines = text.lines();
    let start_line = lines.next().unwrap_or_default().to_owned();
    let mut fields = Vec::new();
    for line in lines.filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').ok_or_else(|| invalid(format!("field line {line:?}")))?;
        fields.push((name.to_owned(), value.trim().to_owned()));
    }
    Ok(Message { start_line, fields, body: Vec::new(), raw })
}

pub(crate) fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len().max(1)).position(|window| window == needle)
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the peer sent nothing more within the limit")
}

fn cut_short(seen: &[u8]) -> io::Error {
    let seen = String::from_utf8_lossy(&seen[..seen.len().min(200)]).into_owned();
    io::Error::new(io::ErrorKind::UnexpectedEof, format!("closed in the middle of a message, after {seen:?}"))
}
