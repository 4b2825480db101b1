//! SCRAM as nobody means it: exchanges that begin well and end in noise, false proofs and proofs that were somebody's.
//!
//! **Intuition.** The password exchange is the last thing a stranger reaches. Whatever comes there must end in a
//! refusal, soon, at no cost to others; and nothing but the right proof may ever be let in.
//!
//! **Mechanism.** Each exchange is a right one up to a step drawn by lot, which is then cut, mutated, repeated from an
//! earlier exchange, or made with a wrong password. Whether AuthenticationOk came back is what counts.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use tenfold_pgwire::backend::Authentication;
use tenfold_pgwire::frame::Frames;
use tenfold_pgwire::scram::{Challenge, Client, ClientBinding, NONCE_BYTES, SaltedPassword};
use tenfold_pgwire::startup::append_startup;
use tenfold_pgwire::write;

use super::hostile::Noise;

const MECHANISM: &str = "SCRAM-SHA-256";

/// One thread's noise at the password exchange.
pub(super) struct ScramNoise {
    /// A right answer to another challenge.
    replayed: Vec<u8>,
}

impl ScramNoise {
    pub(super) fn new() -> Self {
        Self { replayed: Vec::new() }
    }

    /// One exchange. True if it was let in. `password` is the right one: its proof is sent where it proves nothing.
    pub(super) fn exchange(&mut self, stream: &mut TcpStream, noise: &mut Noise, password: &[u8]) -> bool {
        let mut out = Vec::new();
        append_startup(&mut out, 0, [(&b"user"[..], &b"postgres"[..]), (b"database", b"postgres")]);
        let nonce: [u8; NONCE_BYTES] = std::array::from_fn(|_| noise.byte());
        let client = Client::start(ClientBinding::Unsupported, &nonce);
        let first = client.message().to_vec();
        match noise.draw(8) {
            0 => write::sasl_initial_response(&mut out, "SCRAM-SHA-256-PLUS", Some(&noise.bytes())),
            1 => write::sasl_initial_response(&mut out, MECHANISM, Some(&mutated(&first, noise))),
            2 => write::message::build(&mut out, b'p', |out| out.extend(noise.bytes())),
            // A response longer than its message, of no length, and of a negative one.
            3 => {
                let lengths = [[0x7f, 0xff, 0xff, 0xff], [0, 0, 0, 0], [0xff, 0xff, 0xff, 0xf0]];
                let length = lengths[usize::from(noise.byte()) % lengths.len()];
                write::message::build(&mut out, b'p', |out| {
                    write::message::string(out, MECHANISM.as_bytes());
                    out.extend_from_slice(&length);
                    out.extend_from_slice(&first);
                });
            }
            _ => {
                write::sasl_initial_response(&mut out, MECHANISM, Some(&first));
                let _ = stream.write_all(&out);
                let Some(challenge) = challenged(stream, client) else { return false };
                out = self.answer(challenge, noise, password);
            }
        }
        let _ = stream.write_all(&out);
        is_let_in(stream)
    }

    /// An answer to a challenge that must not be believed.
    fn answer(&mut self, challenge: Challenge, noise: &mut Noise, password: &[u8]) -> Vec<u8> {
        let salt = challenge.salt().to_vec();
        let keys_of =
            |password: &[u8], iterations| SaltedPassword::derive(password, &salt, iterations).keys();
        let mut out = Vec::new();
        let kind = noise.draw(4);
        // Of a wrong password one turn of hashing makes keys as wrong as all of them.
        let iterations = if kind == 3 { challenge.iterations() } else { 1 };
        let password = if kind == 3 { password } else { b"wrong" };
        let right = challenge.respond(&keys_of(password, iterations)).message().to_vec();
        match kind {
            0 => write::sasl_response(&mut out, &right),
            1 => write::sasl_response(&mut out, &mutated(&right, noise)),
            2 => write::sasl_response(&mut out, &noise.bytes()),
            // The right answer to the challenge before this one, whose nonce was another.
            _ => {
                write::sasl_response(&mut out, &self.replayed);
                self.replayed = right;
            }
        }
        out
    }
}

/// What the server asks, where it goes on.
fn challenged(stream: &mut TcpStream, client: Client) -> Option<Challenge> {
    let read = read_some(stream, |read| Frames::new(read).flatten().count() >= 2);
    let mut frames = Frames::new(&read).flatten().filter(|frame| frame.tag == b'R');
    let first = frames.find_map(|frame| match Authentication::parse(frame.body()) {
        Ok(Authentication::SaslContinue(first)) => Some(first.to_vec()),
        _ => None,
    })?;
    client.challenge(&first).ok()
}

fn is_let_in(stream: &mut TcpStream) -> bool {
    let is_ok = |read: &[u8]| {
        Frames::new(read).flatten().any(|frame| {
            frame.tag == b'R' && matches!(Authentication::parse(frame.body()), Ok(Authentication::Ok))
        })
    };
    let read = read_some(stream, |read| is_ok(read) || read.first() == Some(&b'E'));
    is_ok(&read)
}

/// Reads until it is enough, or the other side has closed, or says nothing for as long as the stream is read.
fn read_some(stream: &mut TcpStream, is_enough: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    const BYTES_MAX: usize = 64 << 10;
    let mut read = Vec::new();
    let mut piece = [0; 2_048];
    while read.len() < BYTES_MAX && !is_enough(&read) {
        match stream.read(&mut piece) {
            Ok(count) if count > 0 => read.extend_from_slice(piece.get(..count).unwrap_or_default()),
            _ => break,
        }
    }
    read
}

/// The same with a few bytes changed, cut off or put in.
fn mutated(message: &[u8], noise: &mut Noise) -> Vec<u8> {
    let mut message = message.to_vec();
    for _ in 0..=noise.draw(4) {
        let at = usize::try_from(noise.draw(message.len() as u64 + 1)).unwrap_or_default();
        match noise.draw(3) {
            0 => message.truncate(at),
            1 => message.insert(at, noise.byte()),
            _ => {
                // Never the byte that stood there.
                let flip = noise.byte() | 1;
                message.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= flip);
            }
        }
    }
    message
}
