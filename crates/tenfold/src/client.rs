//! The CLI's end of the admin API: one request, one answer, plain blocking sockets.
//!
//! Where the admin server listens and what token it wants comes from the file. The file may be broken (that is when
//! `tenfold reload` is most wanted), so only those two keys are read from it, and what can't be read is its default.
//!
//! **Failure.** Nothing there, no answer in time, or not HTTP: an error that says what to do. Answers are bounded.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use tenfold_http1 as http1;

use crate::cli::Running;
use crate::config;

const CONNECT: Duration = Duration::from_secs(3);
/// A reload may have to resolve names before it can answer.
const ANSWER: Duration = Duration::from_secs(60);
/// No answer of ours is nearly as long.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// The admin server of a running process.
#[derive(Debug)]
pub struct Client {
    address: SocketAddr,
    token: Option<String>,
}

/// What it said.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body, `null` if it was not JSON.
    pub body: serde_json::Value,
}

impl Client {
    /// Of the process that `running` speaks of.
    #[must_use]
    pub fn new(running: &Running) -> Self {
        let (written, token) = config::admin_of(Path::new(&running.file.config));
        Self { address: running.admin.unwrap_or_else(|| reachable(written)), token }
    }

    /// Asks for something.
    pub fn get(&self, path: &str) -> Result<Answer, String> {
        self.request("GET", path, None)
    }

    /// Tells it something.
    pub fn post(&self, path: &str, body: &serde_json::Value) -> Result<Answer, String> {
        self.request("POST", path, Some(&body.to_string()))
    }

    fn request(&self, method: &str, path: &str, body: Option<&str>) -> Result<Answer, String> {
        let address = self.address;
        let mut stream = TcpStream::connect_timeout(&address, CONNECT).map_err(|error| {
            format!("no Tenfold answers at {address}: {error}\nis `tenfold run` running, with this file? Otherwise name its admin.listen with --admin")
        })?;
        let failed = |error: std::io::Error| format!("the admin server at {address} did not answer: {error}");
        stream.set_read_timeout(Some(ANSWER)).map_err(failed)?;
        stream.set_write_timeout(Some(ANSWER)).map_err(failed)?;
        stream.write_all(&self.encode(method, path, body)).map_err(failed)?;
        let mut bytes = Vec::new();
        stream.take(ANSWER_BYTES_MAX as u64).read_to_end(&mut bytes).map_err(failed)?;
        decode(&bytes, method)
            .ok_or_else(|| format!("what answers at {address} is not Tenfold's admin server"))
    }

    fn encode(&self, method: &str, path: &str, body: Option<&str>) -> Vec<u8> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n", self.address);
        if let Some(token) = &self.token {
            head += &format!("authorization: Bearer {token}\r\n");
        }
        if let Some(body) = body {
            head += &format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
        }
        format!("{head}\r\n{}", body.unwrap_or_default()).into_bytes()
    }
}

impl Answer {
    /// Whether it was done.
    #[must_use]
    pub fn is_fine(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Why not, from problem JSON.
    #[must_use]
    pub fn detail(&self) -> String {
        let detail = self.body.get("detail").and_then(|detail| detail.as_str());
        detail.map_or_else(|| format!("the admin server answered {}", self.status), str::to_owned)
    }
}

/// An address to listen on as one to connect to.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

fn decode(bytes: &[u8], method: &str) -> Option<Answer> {
    let limits = http1::Limits::default();
    let method = if method == "POST" { http1::Method::Post } else { http1::Method::Get };
    let (head, consumed) = http1::parse_response(bytes, &mut 0, &method, &limits).ok()??;
    let mut decoder = http1::BodyDecoder::new(head.body, &limits);
    let mut rest = &bytes[consumed..];
    let mut body = Vec::new();
    loop {
        let (used, piece) = decoder.decode(rest).ok()?;
        rest = &rest[used..];
        match piece {
            http1::Piece::Data(data) => body.extend_from_slice(data),
            http1::Piece::End => break,
            http1::Piece::NeedMore => return None,
        }
    }
    Some(Answer { status: head.status, body: serde_json::from_slice(&body).unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_is_reached_on_loopback() {
        let check = |listen: &str, connect: &str| {
            assert_eq!(reachable(listen.parse().unwrap()), connect.parse().unwrap());
        };
        check("0.0.0.0:9900", "127.0.0.1:9900");
        check("[::]:9900", "[::1]:9900");
        check("10.1.2.3:9900", "10.1.2.3:9900");
    }

    #[test]
    fn only_a_whole_answer_counts() {
        let whole = b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n{\"a\": true}";
        let answer = decode(whole, "GET").expect("whole");
        assert_eq!((answer.status, answer.body["a"].as_bool()), (200, Some(true)));
        for end in 0..whole.len() {
            assert!(decode(&whole[..end], "GET").is_none(), "{end}");
        }
        assert!(decode(b"SSH-2.0-OpenSSH\r\n", "GET").is_none());
    }
}
