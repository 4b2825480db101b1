//! SCRAM-SHA-256: proving a password without showing it, both sides.
//!
//! **Intuition.** The server stores what can check a proof but not make one. Client and server each sign the whole
//! conversation, so that neither a listener nor a stolen verifier is enough, and with channel binding the signed text
//! names the TLS certificate, so that nobody can sit in between.
//!
//! **Mechanism.** A password and salt are hashed thousands of times into a [`SaltedPassword`]; [`Keys`] follow from it
//! at once, and a [`Verifier`] from those. [`Server`] and [`Client`] are state machines over messages: each step takes
//! the other's message and consumes the state, so no step can be taken twice. The costly hashing stands apart from the
//! exchange: a caller keeps salted passwords, or keeps the [`Keys`] that a client's own login reveals and logs in to the
//! server with them ("passthrough", as PgBouncer does). Nonces and salts are arguments.
//!
//! **Failure.** Messages outside the grammar are refused with PostgreSQL's details. A user who does not exist is given
//! a [`Verifier::mock`] with a salt that stays the same for that name, so that the exchange tells nothing.
//!
//! Source: RFC 5802 (SCRAM), RFC 7677 (SHA-256), RFC 5929 (`tls-server-end-point`), PostgreSQL's `auth-scram.c`,
//! `fe-auth-scram.c` and documentation, "SASL Authentication".

mod attributes;
mod client;
mod end_point;
mod server;

pub use client::{Challenge, Client, ClientBinding, Response};
pub use end_point::end_point_hash;
pub use server::{Accepted, Server, ServerBinding};

use std::fmt;
use std::num::NonZeroU32;

use aws_lc_rs::{digest, hmac, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use subtle::ConstantTimeEq as _;

use crate::Error;

/// The mechanism without channel binding.
pub const SHA_256: &str = "SCRAM-SHA-256";
/// The mechanism with channel binding.
pub const SHA_256_PLUS: &str = "SCRAM-SHA-256-PLUS";
/// Random bytes in a nonce of ours: PostgreSQL's `SCRAM_RAW_NONCE_LEN`.
pub const NONCE_BYTES: usize = 18;
/// Random bytes in a salt of ours: PostgreSQL's `SCRAM_DEFAULT_SALT_LEN`.
pub const SALT_BYTES: usize = 16;
/// Iterations of a verifier of ours: PostgreSQL's `SCRAM_SHA_256_DEFAULT_ITERATIONS`.
pub const ITERATIONS_DEFAULT: u32 = 4096;
/// More iterations than this a server cannot make us do: 244 times the default, 0.11 s of a core that has SHA
/// instructions (`examples/wire_speed.rs`), half a second of one that has not.
pub const ITERATIONS_MAX: u32 = 1_000_000;
/// The longest message taken from a client: PostgreSQL's `PG_MAX_SASL_MESSAGE_LENGTH`.
pub const CLIENT_MESSAGE_BYTES_MAX: usize = 1024;
/// The longest message taken from a server; PostgreSQL's have about 100 bytes.
pub const SERVER_MESSAGE_BYTES_MAX: usize = 4096;

/// Bytes of SHA-256's output, and of every key here.
const KEY_BYTES: usize = 32;
/// The type of channel binding in a client's first message.
const END_POINT_FLAG: &str = "p=tls-server-end-point,,";

type Key = [u8; KEY_BYTES];

/// A password after the costly hashing: for one salt and one number of iterations. As secret as the password.
#[derive(Clone)]
pub struct SaltedPassword(Key);

impl SaltedPassword {
    /// Hashes a password `iterations` times: 0.11 µs each on a core that has SHA instructions, so 0.46 ms for 4,096. Zero
    /// counts as one.
    ///
    /// The password is prepared by SASLprep; one that isn't UTF-8, or that SASLprep refuses, is taken as it is, as
    /// PostgreSQL does.
    #[must_use]
    pub fn derive(password: &[u8], salt: &[u8], iterations: u32) -> Self {
        let prepared = std::str::from_utf8(password).ok().and_then(|text| stringprep::saslprep(text).ok());
        let password = match &prepared {
            Some(prepared) if !prepared.is_empty() => prepared.as_bytes(),
            _ => password,
        };
        let mut key = [0; KEY_BYTES];
        let iterations = NonZeroU32::new(iterations).unwrap_or(NonZeroU32::MIN);
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, password, &mut key);
        Self(key)
    }

    /// The keys that follow from it.
    #[must_use]
    pub fn keys(&self) -> Keys {
        Keys { client_key: hmac(&self.0, b"Client Key"), server_key: hmac(&self.0, b"Server Key") }
    }
}

impl fmt::Debug for SaltedPassword {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SaltedPassword(…)")
    }
}

/// What a client needs to prove itself and to check the server: enough to log in wherever the same verifier is stored,
/// and nowhere else.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    client_key: Key,
    server_key: Key,
}

impl Keys {
    /// Keys kept from somewhere else.
    #[must_use]
    pub fn new(client_key: [u8; 32], server_key: [u8; 32]) -> Self {
        Self { client_key, server_key }
    }

    /// ClientKey: makes proofs.
    #[must_use]
    pub fn client_key(&self) -> &[u8; 32] {
        &self.client_key
    }

    /// ServerKey: checks the server's signature.
    #[must_use]
    pub fn server_key(&self) -> &[u8; 32] {
        &self.server_key
    }

    /// Whether these keys prove themselves to whoever stores this verifier.
    #[must_use]
    pub fn fit(&self, verifier: &Verifier) -> bool {
        let stored = sha256(&self.client_key).ct_eq(&verifier.stored_key);
        let fits = stored & self.server_key.ct_eq(&verifier.server_key);
        bool::from(fits) && !verifier.is_mock
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Keys(…)")
    }
}

/// What a server stores: checks proofs, cannot make them. `Display` gives the stored form, which is for `pg_authid`
/// and users files, not for logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    /// At least 1.
    iterations: u32,
    /// Never empty.
    salt: Box<[u8]>,
    stored_key: Key,
    server_key: Key,
    /// Made up for a user who does not exist; no proof is right.
    is_mock: bool,
}

impl Verifier {
    /// The verifier of a password: costs the iterations. Zero iterations count as one.
    #[must_use]
    pub fn derive(password: &[u8], salt: &[u8], iterations: u32) -> Self {
        Self::from_salted(&SaltedPassword::derive(password, salt, iterations), salt, iterations)
    }

    /// The verifier of a password that was salted already, with this salt and these iterations: costs three hashes.
    #[must_use]
    pub fn from_salted(salted: &SaltedPassword, salt: &[u8], iterations: u32) -> Self {
        let keys = salted.keys();
        let (iterations, stored_key) = (iterations.max(1), sha256(&keys.client_key));
        Self { iterations, salt: salt.into(), stored_key, server_key: keys.server_key, is_mock: false }
    }

    /// Reads the stored form, `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`, the last three in base64.
    ///
    /// # Errors
    /// [`Error::StoredSecret`].
    pub fn parse(text: &[u8]) -> Result<Self, Error> {
        let text = std::str::from_utf8(text).ok().and_then(|text| text.strip_prefix("SCRAM-SHA-256$"));
        Self::parse_fields(text.ok_or(Error::StoredSecret)?).ok_or(Error::StoredSecret)
    }

    fn parse_fields(text: &str) -> Option<Self> {
        let (how, keys) = text.split_once('$')?;
        let (iterations, salt) = how.split_once(':')?;
        let (stored_key, server_key) = keys.split_once(':')?;
        let digits = iterations.bytes().all(|byte| byte.is_ascii_digit());
        let iterations =
            iterations.parse().ok().filter(|&count| digits && (1..=i32::MAX as u32).contains(&count))?;
        let salt = BASE64.decode(salt).ok().filter(|salt| !salt.is_empty())?.into();
        let (stored_key, server_key) =
            (decode_key(stored_key.as_bytes())?, decode_key(server_key.as_bytes())?);
        Some(Self { iterations, salt, stored_key, server_key, is_mock: false })
    }

    /// A verifier for a user who does not exist: no proof is right, and its salt looks like any other and stays the same
    /// for this name and this secret of ours. Give it the iterations that real users have.
    #[must_use]
    pub fn mock(user: &[u8], secret: &[u8; 32], iterations: u32) -> Self {
        let salt = hmac(secret, user);
        Self {
            iterations: iterations.max(1),
            salt: salt.into_iter().take(SALT_BYTES).collect(),
            stored_key: hmac(secret, &salt),
            server_key: hmac(secret, b"Server Key"),
            is_mock: true,
        }
    }

    /// The salt.
    #[must_use]
    pub fn salt(&self) -> &[u8] {
        &self.salt
    }

    /// The iterations; at least 1.
    #[must_use]
    pub fn iterations(&self) -> u32 {
        self.iterations
    }

    /// Whether this is the password it was made from, salted alike. In constant time.
    #[must_use]
    pub fn check(&self, salted: &SaltedPassword) -> bool {
        salted.keys().fit(self)
    }
}

impl fmt::Display for Verifier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [salt, stored_key, server_key] =
            [&self.salt[..], &self.stored_key, &self.server_key].map(|bytes| BASE64.encode(bytes));
        write!(formatter, "{SHA_256}${}:{salt}${stored_key}:{server_key}", self.iterations)
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Verifier({} iterations, …)", self.iterations)
    }
}

fn hmac(key: &Key, message: &[u8]) -> Key {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message);
    tag.as_ref().try_into().expect("HMAC-SHA-256 has 32 bytes")
}

fn sha256(bytes: &[u8]) -> Key {
    digest::digest(&digest::SHA256, bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

fn xor(left: &Key, right: &Key) -> Key {
    let mut out = *left;
    out.iter_mut().zip(right).for_each(|(out, right)| *out ^= right);
    out
}

/// Base64 of exactly one key.
fn decode_key(text: &[u8]) -> Option<Key> {
    BASE64.decode(text).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The verifier of RFC 7677's example.
    pub(super) fn pencil() -> Verifier {
        Verifier::derive(b"pencil", &BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").expect("base64"), 4096)
    }

    #[test]
    fn a_verifier_prints_as_postgresql_stores_it_and_reads_back() {
        let text = pencil().to_string();
        assert_eq!(
            text,
            "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:\
             wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
        );
        assert_eq!(Verifier::parse(text.as_bytes()), Ok(pencil()));
    }

    #[test]
    fn damaged_verifiers_are_refused() {
        let text = pencil().to_string();
        for (from, to) in [
            ("SCRAM-SHA-256", "SCRAM-SHA-512"),
            ("4096", "0"),
            ("4096", "-1"),
            ("4096", "+1"),
            ("4096", "2147483648"),
            ("4096", ""),
            ("W22ZaJ0SNY7soEsUEjb6gQ==", ""),
            ("W22ZaJ0SNY7soEsUEjb6gQ==", "?"),
            ("qY=", "qY"),
            ("WG5d", ""),
            ("2dU=", "2dU=AAAA"),
            (":w", "$w"),
        ] {
            let damaged = text.replace(from, to);
            assert_ne!(damaged, text);
            assert_eq!(Verifier::parse(damaged.as_bytes()), Err(Error::StoredSecret), "{damaged}");
        }
        for len in 0..text.len() {
            assert_eq!(Verifier::parse(&text.as_bytes()[..len]), Err(Error::StoredSecret), "{len}");
        }
    }

    #[test]
    fn passwords_are_prepared_or_taken_as_they_are() {
        let same = |left: &[u8], right: &[u8]| {
            SaltedPassword::derive(left, b"salt", 1).0 == SaltedPassword::derive(right, b"salt", 1).0
        };
        assert!(same("I\u{ad}X".as_bytes(), b"IX"), "a soft hyphen is nothing");
        assert!(same("\u{2168}".as_bytes(), b"IX"), "a Roman numeral is its letters");
        assert!(same("a\u{a0}b".as_bytes(), b"a b"), "a space is a space");
        assert!(!same("\u{7}".as_bytes(), b""), "what is prohibited is taken as it is");
        assert!(!same(b"\xff", b""), "so is what is no UTF-8");
        assert!(!same("\u{ad}".as_bytes(), b""), "and what would become nothing");
    }

    #[test]
    fn a_mock_is_steady_and_never_right() {
        let secret = [7; 32];
        let mock = Verifier::mock(b"nobody", &secret, 4096);
        assert_eq!(mock, Verifier::mock(b"nobody", &secret, 4096));
        assert_eq!((mock.salt().len(), mock.iterations()), (SALT_BYTES, 4096));
        assert_ne!(mock.salt(), Verifier::mock(b"nobodx", &secret, 4096).salt());
        assert_ne!(mock.salt(), Verifier::mock(b"nobody", &[8; 32], 4096).salt());
        assert!(!mock.check(&SaltedPassword::derive(b"", mock.salt(), 4096)));
        let doomed = Verifier { is_mock: true, ..pencil() };
        let salted = SaltedPassword::derive(b"pencil", doomed.salt(), 4096);
        assert!(pencil().check(&salted) && !doomed.check(&salted));
    }

    #[test]
    fn secrets_do_not_show() {
        let salted = SaltedPassword::derive(b"pencil", b"salt", 1);
        let shown = format!("{:?} {:?} {:?}", salted, salted.keys(), pencil());
        assert_eq!(shown, "SaltedPassword(…) Keys(…) Verifier(4096 iterations, …)");
    }
}
