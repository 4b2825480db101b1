//! What must hold of SCRAM for any bytes whatever.
//!
//! **Intuition.** Nothing panics, and nothing but the right proof gets in. A change of any byte of any message in an
//! honest exchange makes it fail on one side or the other, since both sign all that was said.
//!
//! **Mechanism.** Each side gets made-up messages; then an honest exchange is run with one byte changed, at a place
//! that the input chooses. The fuzz targets call this with made-up bytes, the tests of the crate with the corpora.
//!
//! **Failure.** A broken law is a failed assertion.

#![allow(dead_code, reason = "each fuzz target uses one of these")]

use tenfold_pgwire::md5::Md5Secret;
use tenfold_pgwire::scram::{
    Client, ClientBinding, ITERATIONS_MAX, Keys, NONCE_BYTES, SHA_256, SHA_256_PLUS, SaltedPassword, Server,
    ServerBinding, Verifier, end_point_hash,
};
use tenfold_pgwire::secret::Secret;

/// A corpus entry beyond this tells nothing that a shorter one doesn't.
const INPUT_BYTES_MAX: usize = 16 * 1024;
/// In base64 "YWFhYWFhYWFhYWFhYWFhYWFh", which the corpus and the dictionary know.
const CLIENT_NONCE: [u8; NONCE_BYTES] = [b'a'; NONCE_BYTES];
/// In base64 "YmJiYmJiYmJiYmJiYmJiYmJi".
const SERVER_NONCE: [u8; NONCE_BYTES] = [b'b'; NONCE_BYTES];
const HASH: &[u8] = &[7; 32];
/// Stands between two messages of one input; no SCRAM message has it.
const BETWEEN: u8 = b'\n';

fn keys() -> (Keys, Verifier) {
    (SaltedPassword::derive(b"pencil", b"salt", 1).keys(), Verifier::derive(b"pencil", b"salt", 1))
}

/// Two messages of one input.
fn messages(input: &[u8]) -> (&[u8], &[u8]) {
    let at = input.iter().position(|&byte| byte == BETWEEN).unwrap_or(input.len());
    (&input[..at], input.get(at + 1..).unwrap_or_default())
}

/// Laws of the server's side. The first byte chooses offer and mechanism.
pub(crate) fn server(input: &[u8]) {
    let Some((&choice, rest)) = input[..input.len().min(INPUT_BYTES_MAX)].split_first() else { return };
    let (first, second) = messages(rest);
    let (_, verifier) = keys();
    let offered = if choice & 1 == 0 { ServerBinding::None } else { ServerBinding::EndPoint(HASH) };
    let mechanism = if choice & 2 == 0 { SHA_256 } else { SHA_256_PLUS };
    if let Ok(server) = Server::start(&verifier, offered, mechanism.as_bytes(), first, &SERVER_NONCE) {
        assert!(offered.mechanisms().contains(&mechanism));
        let challenge = server.challenge();
        assert!(
            challenge.starts_with(b"r=") && challenge.ends_with(b"YmJiYmJiYmJiYmJiYmJiYmJi,s=c2FsdA==,i=1")
        );
        assert!(challenge.len() <= first.len() + 64);
        if let Ok(accepted) = server.finish(second) {
            assert!(accepted.keys.fit(&verifier), "only the right proof gets in");
        }
        let mock = Verifier::mock(first, &[1; 32], 1);
        let server = Server::start(&mock, offered, mechanism.as_bytes(), first, &SERVER_NONCE);
        assert!(server.expect("the same message").finish(second).is_err(), "nobody is a user that is none");
    }
    changed_exchange(rest);
    secrets(rest);
}

/// Laws of the client's side.
pub(crate) fn client(input: &[u8]) {
    let input = &input[..input.len().min(INPUT_BYTES_MAX)];
    let (first, second) = messages(input);
    for binding in [ClientBinding::Unsupported, ClientBinding::NotOffered, ClientBinding::EndPoint(HASH)] {
        let Ok(challenge) = Client::start(binding, &CLIENT_NONCE).challenge(first) else { continue };
        assert!((1..=ITERATIONS_MAX).contains(&challenge.iterations()));
        assert!(!challenge.salt().is_empty() && challenge.salt().len() <= first.len());
        let response = challenge.respond(&keys().0);
        assert!(response.message().starts_with(b"c=") && response.message().len() <= first.len() + 256);
        assert!(response.finish(second).is_err(), "nobody guesses a signature");
    }
    changed_exchange(input);
    let _ = end_point_hash(input);
}

/// An honest exchange succeeds; with one byte of one message changed it fails.
fn changed_exchange(input: &[u8]) {
    let [which, at, flip, binding, ..] = *input else { return };
    let change = Change { which: which % 5, at: usize::from(at), flip, happened: false };
    let (client_binding, server_binding) = match binding % 3 {
        0 => (ClientBinding::Unsupported, ServerBinding::None),
        1 => (ClientBinding::NotOffered, ServerBinding::None),
        _ => (ClientBinding::EndPoint(HASH), ServerBinding::EndPoint(HASH)),
    };
    let mut change = change;
    let succeeded = exchange(client_binding, server_binding, &mut change).is_some();
    assert_eq!(succeeded, !change.happened, "{change:?}");
}

/// Which byte of which message is changed, if any.
#[derive(Debug)]
struct Change {
    /// 0 to 3: the message; 4: none.
    which: u8,
    at: usize,
    flip: u8,
    happened: bool,
}

impl Change {
    fn pass(&mut self, which: u8, message: &[u8]) -> Vec<u8> {
        let mut message = message.to_vec();
        if which == self.which && self.flip != 0 {
            let at = self.at % message.len();
            message[at] ^= self.flip;
            self.happened = true;
        }
        message
    }
}

fn exchange(client: ClientBinding<'_>, server: ServerBinding<'_>, change: &mut Change) -> Option<()> {
    let (keys, verifier) = keys();
    let client = Client::start(client, &CLIENT_NONCE);
    let mechanism = client.mechanism().as_bytes();
    let first = change.pass(0, client.message());
    let server = Server::start(&verifier, server, mechanism, &first, &SERVER_NONCE).ok()?;
    let challenge = client.challenge(&change.pass(1, server.challenge())).ok()?;
    let response = challenge.respond(&keys);
    let accepted = server.finish(&change.pass(2, response.message())).ok()?;
    assert!(accepted.keys == keys);
    response.finish(&change.pass(3, &accepted.message)).ok()
}

/// Stored secrets read back as they print.
fn secrets(input: &[u8]) {
    if let Ok(verifier) = Verifier::parse(input) {
        assert_eq!(Verifier::parse(verifier.to_string().as_bytes()), Ok(verifier));
    }
    if let Some(secret) = Md5Secret::parse(input) {
        assert_eq!(secret.to_string().as_bytes(), input);
    }
    if let Ok(Secret::Plain(password)) = Secret::parse(input) {
        assert_eq!(&*password, input);
    }
}
