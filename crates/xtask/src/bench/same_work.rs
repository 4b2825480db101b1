//! All sides must have done the same work, or their costs can't be compared.
//!
//! Before the load, each side answers the same request twice and is held to it: status 200, the origin's body to the
//! byte, its type, validators and lifetime. The origin gives each of its answers a serial number, so two equal serials prove a
//! cache and two different ones prove a fetch.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::Bench;
use super::server::body;
use super::sides::Side;

const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);

/// Asks twice; says what is wrong.
pub(crate) fn check(bench: Bench, side: &Side, port: u16) -> Result<()> {
    let first = ask(port).with_context(|| side.label())?;
    let second = ask(port).with_context(|| side.label())?;
    for answer in [&first, &second] {
        check_one(answer).with_context(|| side.label())?;
    }
    let same = first.field("x-serial") == second.field("x-serial");
    match bench {
        Bench::CacheHit if !same => {
            bail!("{} asked the origin again instead of answering from its cache", side.label())
        }
        Bench::Proxy if same => bail!("{} answered from a cache instead of asking the origin", side.label()),
        _ => Ok(()),
    }
}

fn check_one(answer: &Answer) -> Result<()> {
    ensure!(answer.status == "200", "status {} instead of 200", answer.status);
    ensure!(answer.body == body().as_bytes(), "{} body bytes that are not the origin's", answer.body.len());
    let expected = [("content-type", "text/plain"), ("cache-control", "max-age=86400"), ("etag", "\"one\"")];
    for (name, value) in expected {
        let found = answer.field(name);
        ensure!(found == Some(value), "{name} is {found:?} instead of {value:?}");
    }
    ensure!(answer.field("x-serial").is_some(), "the origin's serial number is missing");
    Ok(())
}

#[derive(Debug)]
struct Answer {
    status: String,
    /// Names in lower case.
    fields: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }
}

/// One request, read to its Content-Length and not by waiting for a close.
fn ask(port: u16) -> Result<Answer> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(ANSWER_TIME_MAX))?;
    stream.write_all(format!("GET /item HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n").as_bytes())?;
    let mut received = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let count = stream.read(&mut piece).context("no complete answer")?;
        ensure!(count > 0, "the connection closed in the middle of the answer");
        received.extend_from_slice(&piece[..count]);
        if let Some(answer) = parse(&received)? {
            return Ok(answer);
        }
    }
}

/// `None` until the whole body is there.
fn parse(received: &[u8]) -> Result<Option<Answer>> {
    let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let head = String::from_utf8_lossy(&received[..end]);
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).context("no status line")?.to_owned();
    let fields: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
        .collect();
    let mut answer = Answer { status, fields, body: received[end + 4..].to_vec() };
    let length: usize = answer.field("content-length").context("no Content-Length")?.parse()?;
    if answer.body.len() < length {
        return Ok(None);
    }
    answer.body.truncate(length);
    Ok(Some(answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(head: &str, body: &str) -> Result<Option<Answer>> {
        parse(format!("{head}\r\n\r\n{body}").as_bytes())
    }

    #[test]
    fn an_answer_is_read_to_its_length() {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Serial: a";
        assert!(answer(head, "1234").expect("valid").is_none());
        let whole = answer(head, "12345").expect("valid").expect("complete");
        assert_eq!(
            (whole.status.as_str(), whole.body.as_slice(), whole.field("x-serial")),
            ("200", &b"12345"[..], Some("a"))
        );
        assert!(answer("HTTP/1.1 200 OK", "12345").is_err());
    }

    #[test]
    fn other_work_is_refused() {
        let good = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nCache-Control: max-age=86400\r\nETag: \"one\"\r\nX-Serial: a\r\nContent-Length: {}",
            body().len()
        );
        let check =
            |head: &str, body: &str| check_one(&answer(head, body).expect("valid").expect("complete"));
        assert!(check(&good, &body()).is_ok());
        assert!(check(&good, &body().replace('t', "T")).is_err());
        assert!(check(&good.replace("200", "404"), &body()).is_err());
        assert!(check(&good.replace("ETag", "X-Tag"), &body()).is_err());
        assert!(check(&good.replace("X-Serial", "X-Other"), &body()).is_err());
    }
}
