//! Clients nobody wants: garbage, dribbles, bytes without end, uploads that vanish.
//!
//! **Intuition.** A client has four ways to hurt a server: bytes it does not expect, too many of them, too few, and
//! leaving at the wrong moment. Each function here plays one of them, at scale, and returns what became of it.
//!
//! **Mechanism.** Blocking sockets on a few threads; the dribbling crowd is one thread over non-blocking sockets. What is
//! random comes from a fixed seed, so that a run can be played again.
//!
//! **Failure.** A connection that is neither answered nor closed within [`LIMIT`] is what these look for: it is counted.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tenfold_testkit::hostile;
use tenfold_testkit::raw::Client;

use super::stand::{now, pause};

/// Until a connection must have been closed. The edge of the proof gives a head or a body two seconds, the admin server
/// gives a request fifteen.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);
const THREADS: u64 = 4;
const GARBAGE_BYTES_MAX: u64 = 1024;
const DRIBBLE_EVERY: Duration = Duration::from_millis(200);
/// Inputs named when something is wrong.
const EXAMPLES_MAX: usize = 8;
/// Bytes poured into one connection before it is given up as insatiable.
pub(crate) const POUR_BYTES_MAX: usize = 64 << 20;

/// What became of a number of connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ends {
    /// An error status with a `Tenfold-Reason`, or one from the admin server, and a close.
    pub(crate) refused: u64,
    /// A close or a reset without an answer.
    pub(crate) closed: u64,
    /// An answer that is none of an error.
    pub(crate) accepted: u64,
    /// Neither answered nor closed in time.
    pub(crate) open: u64,
    /// Names of the inputs that were accepted or left open, or refused without a reason.
    pub(crate) wrong: Vec<String>,
}

impl Ends {
    fn add(&mut self, other: Self) {
        self.refused += other.refused;
        self.closed += other.closed;
        self.accepted += other.accepted;
        self.open += other.open;
        self.wrong.extend(other.wrong);
    }

    pub(crate) fn shown(&self) -> String {
        let Self { refused, closed, wrong, .. } = self;
        let examples = wrong.iter().take(EXAMPLES_MAX).cloned().collect::<Vec<_>>().join(", ");
        let wrong =
            if wrong.is_empty() { String::new() } else { format!("; {} wrong: {examples}", wrong.len()) };
        format!("{refused} refused, {closed} closed{wrong}")
    }

    /// Judges everything a connection brought until its end.
    fn judge(&mut self, name: &str, came: io::Result<Vec<u8>>, needs_reason: bool) {
        let came = match came {
            Ok(came) => came,
            Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => {
                self.open += 1;
                self.wrong.push(format!("{name} (left open)"));
                return;
            }
            // A reset. What came before it is lost to this reader, which is the sender's own doing.
            Err(_) => Vec::new(),
        };
        if came.is_empty() {
            self.closed += 1;
            return;
        }
        let text = String::from_utf8_lossy(&came).to_ascii_lowercase();
        let status = text.strip_prefix("http/1.1 ").and_then(|rest| rest.get(..3)?.parse::<u16>().ok());
        let answers =
            text.match_indices("http/1.1 ").filter(|(at, _)| begins_status(&text[at + 9..])).count();
        let has_reason = text.contains("\r\ntenfold-reason: ") || !needs_reason;
        match status {
            Some(400..=599) if answers == 1 && has_reason => self.refused += 1,
            _ => {
                self.accepted += 1;
                self.wrong.push(format!("{name} ({})", text.lines().next().unwrap_or_default()));
            }
        }
    }
}

/// What follows `HTTP/1.1 ` in a status line, and in no sentence.
fn begins_status(text: &str) -> bool {
    text.len() >= 3 && text.bytes().take(3).all(|byte| byte.is_ascii_digit())
}

/// Every malformed request of the table, each on a connection of its own.
pub(crate) fn malformed(address: SocketAddr, needs_reason: bool) -> Result<Ends> {
    let mut ends = Ends::default();
    for request in hostile::requests() {
        let mut client = Client::connect_with_limit(address, LIMIT).context("connecting")?;
        // It may close before it has read all; what it said is still there.
        drop(client.send(&request.bytes));
        ends.judge(&request.name, client.read_to_close(), needs_reason);
    }
    Ok(ends)
}

/// Random bytes on many connections, half of them behind the beginning of a request.
pub(crate) fn random(address: SocketAddr, connections: u64, needs_reason: bool) -> Result<Ends> {
    let play = move |thread: u64| -> Result<Ends> {
        let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ (thread + 1));
        let mut ends = Ends::default();
        for number in (thread..connections).step_by(usize::try_from(THREADS)?) {
            let mut client = Client::connect_with_limit(address, LIMIT).context("connecting")?;
            drop(client.send(random.garbage()));
            drop(client.half_close());
            ends.judge(&format!("garbage {number}"), client.read_to_close(), needs_reason);
            // Leaves no port waiting.
            drop(client.reset());
        }
        Ok(ends)
    };
    let threads: Vec<_> = (0..THREADS).map(|thread| std::thread::spawn(move || play(thread))).collect();
    let mut ends = Ends::default();
    for thread in threads {
        ends.add(thread.join().ok().context("a client panicked")??);
    }
    Ok(ends)
}

struct Random(u64);

impl Random {
    /// Marsaglia's xorshift64.
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn garbage(&mut self) -> Vec<u8> {
        const BEGINNINGS: [&str; 4] = [
            "GET / HTTP/1.1\r\nHost: a\r\n",
            "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET /",
            "HTTP/1.1 ",
        ];
        let mut bytes = Vec::new();
        if self.next().is_multiple_of(2) {
            let chosen = usize::try_from(self.next() % 4).unwrap_or(0);
            bytes.extend_from_slice(BEGINNINGS[chosen].as_bytes());
        }
        let length = 1 + self.next() % GARBAGE_BYTES_MAX;
        // A control byte in front: no luck may make this a request.
        bytes.push(1);
        bytes.extend((0..length).map(|_| self.next().to_le_bytes()[3]));
        bytes
    }
}

/// Sends `first`, then `again` over and over, until the other end has had enough. Returns the bytes it took.
pub(crate) fn pour(address: SocketAddr, first: &str, again: &str) -> Result<(usize, Ends)> {
    let mut client = Client::connect_with_limit(address, LIMIT).context("connecting")?;
    client.send(first)?;
    let block = again.repeat((64 << 10) / again.len());
    let mut poured = first.len();
    while poured < POUR_BYTES_MAX && client.send(&block).is_ok() {
        poured += block.len();
    }
    let mut ends = Ends::default();
    ends.judge(first.lines().next().unwrap_or_default(), client.read_to_close(), true);
    Ok((poured, ends))
}

/// Many connections that send one byte at a time and never finish a head. Returns how many were still open at the
/// end, and how long the last one lasted.
pub(crate) fn dribble(address: SocketAddr, connections: usize, limit: Duration) -> Result<(usize, Duration)> {
    let head = b"GET /dribbled HTTP/1.1\r\nHost: a\r\nX: ";
    let mut open = Vec::with_capacity(connections);
    for _ in 0..connections {
        let mut stream = TcpStream::connect(address).context("connecting to dribble")?;
        stream.write_all(head)?;
        stream.set_nonblocking(true)?;
        open.push(stream);
    }
    let began = now();
    while !open.is_empty() && began.elapsed() < limit {
        open.retain_mut(is_still_open);
        pause(DRIBBLE_EVERY);
    }
    Ok((open.len(), began.elapsed()))
}

fn is_still_open(stream: &mut TcpStream) -> bool {
    let mut answer = [0; 4096];
    loop {
        match stream.read(&mut answer) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(_) => return false,
        }
    }
    // One byte is written whole or not at all.
    match stream.write_all(b"x") {
        Ok(()) => true,
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}

/// Uploads that end before their end: by a reset, a close, or a half-close. Returns the answers to the last kind.
pub(crate) fn vanish(address: SocketAddr, times: usize) -> Result<Ends> {
    const HEADS: [&str; 2] = ["Content-Length: 100000", "Transfer-Encoding: chunked"];
    let mut ends = Ends::default();
    for time in 0..times {
        let mut client = Client::connect_with_limit(address, LIMIT).context("connecting")?;
        let head = HEADS[time % 2];
        client.send(format!("POST /vanished/{time} HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n"))?;
        let body = "1388\r\n".to_owned() + &"x".repeat(5000);
        drop(client.send(&body));
        match time / 2 % 3 {
            0 => drop(client.reset()),
            1 => drop(client),
            _ => {
                client.half_close()?;
                ends.judge(&format!("upload ended early, {head}"), client.read_to_close(), true);
            }
        }
    }
    Ok(ends)
}

/// Clients that ask for much and read nothing. They stay until the returned streams are dropped.
pub(crate) fn ask_and_not_read(
    address: SocketAddr,
    target: &str,
    connections: u32,
) -> Result<Vec<TcpStream>> {
    let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
    let ask = |_| -> Result<TcpStream> {
        let mut stream = TcpStream::connect(address).context("connecting")?;
        stream.write_all(request.as_bytes())?;
        Ok(stream)
    };
    (0..connections).map(ask).collect()
}

/// What a client gets that sends a whole request and then says that it is done. A half-close cannot be told from
/// leaving, so being cut off is as good as an answer; being left waiting is not.
pub(crate) fn half_close(address: SocketAddr) -> Result<&'static str> {
    let mut client = Client::connect_with_limit(address, LIMIT).context("connecting")?;
    client.send("GET /half-closed HTTP/1.1\r\nHost: a\r\n\r\n")?;
    client.half_close()?;
    Ok(match client.read_to_close() {
        Ok(came) if came.starts_with(b"HTTP/1.1 200 ") => "answered",
        Ok(came) if came.is_empty() => "closed",
        Ok(_) => "refused",
        Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => "left open",
        Err(_) => "reset",
    })
}
