//! The client's side: logs in to a server, and makes it prove itself too.
//!
//! **Intuition.** The server says how it salted the password; with the keys that follow we sign, and check that it can
//! sign as well. Where the keys come from is the caller's affair: hashed now, kept from last time, or seen when a
//! client of ours logged in.
//!
//! **Mechanism.** [`Client::choose`] picks mechanism and channel binding; its message goes out. [`Client::challenge`]
//! reads the answer into a [`Challenge`], which says salt and iterations. [`Challenge::respond`] signs with [`Keys`];
//! [`Response::finish`] checks the server's signature.
//!
//! **Failure.** More than [`ITERATIONS_MAX`] iterations are refused before any hashing, so no server can make us burn a
//! core. A wrong signature ([`Error::ScramSignature`]) means that the server does not know the password: close.
//!
//! Source: RFC 5802 §5; libpq's `fe-auth-scram.c`.

use base64::Engine as _;
use subtle::ConstantTimeEq as _;

use super::attributes::{Attributes, check_nonce};
use super::{
    BASE64, END_POINT_FLAG, ITERATIONS_MAX, Key, Keys, NONCE_BYTES, SERVER_MESSAGE_BYTES_MAX, SHA_256,
    SHA_256_PLUS, decode_key, hmac, sha256, xor,
};
use crate::Error;
use crate::backend::SaslMechanisms;

/// What we know of the channel to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientBinding<'a> {
    /// Not encrypted, or no hash is defined for its certificate: we cannot bind.
    Unsupported,
    /// We could bind, but the server did not offer to. It will refuse if it did and someone hid that.
    NotOffered,
    /// Bound to this [`super::end_point_hash`] of the server's certificate.
    EndPoint(&'a [u8]),
}

/// An exchange that waits for the server's first message.
#[derive(Clone, PartialEq, Eq)]
pub struct Client {
    mechanism: &'static str,
    /// The header, and `n=,r=nonce` behind it.
    first: Vec<u8>,
    /// Bytes of the header. Always ≤ `first.len()`.
    header_len: usize,
    /// What `c=` has to say, in base64.
    binding: String,
    nonce: String,
}

impl Client {
    /// Begins with the best mechanism that the server offers and the channel allows. `end_point` is the hash of the
    /// server's certificate on an encrypted channel; `nonce` has to be random and new.
    ///
    /// # Errors
    /// [`Error::SaslUnsupported`] if the server offers no mechanism that we know.
    pub fn choose(
        offered: &SaslMechanisms<'_>,
        end_point: Option<&[u8]>,
        nonce: &[u8; NONCE_BYTES],
    ) -> Result<Self, Error> {
        let binding = match end_point {
            Some(hash) if offered.offers(SHA_256_PLUS) => ClientBinding::EndPoint(hash),
            _ if !offered.offers(SHA_256) => return Err(Error::SaslUnsupported),
            Some(_) => ClientBinding::NotOffered,
            None => ClientBinding::Unsupported,
        };
        Ok(Self::start(binding, nonce))
    }

    /// Begins with this channel binding.
    #[must_use]
    pub fn start(binding: ClientBinding<'_>, nonce: &[u8; NONCE_BYTES]) -> Self {
        Self::start_with(binding, "", BASE64.encode(nonce))
    }

    /// PostgreSQL knows the user from the startup packet, so `user` is empty but in tests.
    fn start_with(binding: ClientBinding<'_>, user: &str, nonce: String) -> Self {
        let (mechanism, header, hash) = match binding {
            ClientBinding::Unsupported => (SHA_256, "n,,", &b""[..]),
            ClientBinding::NotOffered => (SHA_256, "y,,", &b""[..]),
            ClientBinding::EndPoint(hash) => (SHA_256_PLUS, END_POINT_FLAG, hash),
        };
        let first = format!("{header}n={user},r={nonce}").into_bytes();
        let binding = BASE64.encode([header.as_bytes(), hash].concat());
        Self { mechanism, first, header_len: header.len(), binding, nonce }
    }

    /// The mechanism to name in SASLInitialResponse.
    #[must_use]
    pub fn mechanism(&self) -> &'static str {
        self.mechanism
    }

    /// The message to send with it.
    #[must_use]
    pub fn message(&self) -> &[u8] {
        &self.first
    }

    /// Takes the server's first message: the data of AuthenticationSASLContinue.
    ///
    /// # Errors
    /// [`Error::ScramMalformed`], [`Error::ScramNonce`], [`Error::ScramIterations`].
    pub fn challenge(self, server_first: &[u8]) -> Result<Challenge, Error> {
        let mut attributes = Attributes::new(server_first, SERVER_MESSAGE_BYTES_MAX)?;
        let nonce = attributes.value(b'r')?;
        check_nonce(nonce)?;
        // The server has to add something of its own.
        if nonce.len() <= self.nonce.len() || !nonce.starts_with(self.nonce.as_bytes()) {
            return Err(Error::ScramNonce);
        }
        let salt = attributes.value(b's')?;
        let salt = BASE64.decode(salt).ok().filter(|salt| !salt.is_empty());
        let salt = salt.ok_or(Error::ScramMalformed("Malformed salt in server-first-message."))?;
        let iterations = read_iterations(attributes.value(b'i')?)?;
        if !attributes.is_at_end() {
            return Err(Error::ScramMalformed("Garbage found at the end of server-first-message."));
        }

        let mut without_proof = b"c=".to_vec();
        without_proof.extend_from_slice(self.binding.as_bytes());
        without_proof.extend_from_slice(b",r=");
        without_proof.extend_from_slice(nonce);
        let bare = self.first.get(self.header_len..).unwrap_or_default();
        let signed = [bare, b",", server_first, b",", &without_proof].concat();
        Ok(Challenge { salt, iterations, signed, message: without_proof })
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "scram::Client({})", self.mechanism)
    }
}

fn read_iterations(digits: &[u8]) -> Result<u32, Error> {
    let malformed = Error::ScramMalformed("Invalid SCRAM iteration count.");
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(malformed);
    }
    let count: u32 = std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok()).ok_or(malformed)?;
    if (1..=ITERATIONS_MAX).contains(&count) { Ok(count) } else { Err(Error::ScramIterations(count)) }
}

/// The server has said how the password is salted.
#[derive(Clone, PartialEq, Eq)]
pub struct Challenge {
    salt: Vec<u8>,
    /// From 1 to [`ITERATIONS_MAX`].
    iterations: u32,
    /// What both sign.
    signed: Vec<u8>,
    /// Our second message so far.
    message: Vec<u8>,
}

impl Challenge {
    /// The salt; never empty.
    #[must_use]
    pub fn salt(&self) -> &[u8] {
        &self.salt
    }

    /// The iterations, from 1 to [`ITERATIONS_MAX`]: what [`super::SaltedPassword::derive`] will cost.
    #[must_use]
    pub fn iterations(&self) -> u32 {
        self.iterations
    }

    /// Signs with keys from a password salted as this challenge says, or with keys kept for this server.
    #[must_use]
    pub fn respond(self, keys: &Keys) -> Response {
        let Self { signed, mut message, .. } = self;
        let signature = hmac(&sha256(&keys.client_key), &signed);
        message.extend_from_slice(b",p=");
        message.extend_from_slice(BASE64.encode(xor(&keys.client_key, &signature)).as_bytes());
        Response { message, server_signature: hmac(&keys.server_key, &signed) }
    }
}

impl std::fmt::Debug for Challenge {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "scram::Challenge({} iterations)", self.iterations)
    }
}

/// An exchange that waits for the server's signature.
#[derive(Clone, PartialEq, Eq)]
pub struct Response {
    message: Vec<u8>,
    server_signature: Key,
}

impl Response {
    /// Our second message, for SASLResponse.
    #[must_use]
    pub fn message(&self) -> &[u8] {
        &self.message
    }

    /// Takes the server's last message: the data of AuthenticationSASLFinal. Believe no AuthenticationOk before.
    ///
    /// # Errors
    /// [`Error::ScramRefused`], [`Error::ScramMalformed`], [`Error::ScramSignature`].
    pub fn finish(self, server_final: &[u8]) -> Result<(), Error> {
        let mut attributes = Attributes::new(server_final, SERVER_MESSAGE_BYTES_MAX)?;
        if attributes.rest().starts_with(b"e=") {
            return Err(Error::ScramRefused);
        }
        let signature = decode_key(attributes.value(b'v')?)
            .ok_or(Error::ScramMalformed("Malformed server signature in server-final-message."))?;
        if !attributes.is_at_end() {
            return Err(Error::ScramMalformed("Garbage found at the end of server-final-message."));
        }
        if bool::from(signature.ct_eq(&self.server_signature)) { Ok(()) } else { Err(Error::ScramSignature) }
    }
}

impl std::fmt::Debug for Response {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("scram::Response(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::super::SaltedPassword;
    use super::*;

    const SERVER_FIRST: &str =
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const SERVER_FINAL: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    fn client() -> Client {
        Client::start_with(ClientBinding::Unsupported, "user", "rOprNGfwEbeRWgbNEkqO".into())
    }

    fn response() -> Response {
        let challenge = client().challenge(SERVER_FIRST.as_bytes()).expect("a good message");
        let salted = SaltedPassword::derive(b"pencil", challenge.salt(), challenge.iterations());
        challenge.respond(&salted.keys())
    }

    #[test]
    fn the_exchange_of_rfc_7677_is_made() {
        assert_eq!(client().message(), b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        assert_eq!(
            response().message(),
            b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
              p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        assert_eq!(response().finish(SERVER_FINAL.as_bytes()), Ok(()));
    }

    #[test]
    fn a_server_has_to_prove_itself() {
        let check = |message: &str, error: Error| {
            assert_eq!(
                response().finish(message.as_bytes()).map_err(|found| std::mem::discriminant(&found)),
                Err(std::mem::discriminant(&error)),
                "{message}"
            );
        };
        let malformed = Error::ScramMalformed("");
        check(&SERVER_FINAL.replace("6rri", "6rrj"), Error::ScramSignature);
        check("e=invalid-proof", Error::ScramRefused);
        check("", malformed);
        check("v=", malformed);
        check("v=AAAA", malformed);
        check("x=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=", malformed);
        check(&format!("{SERVER_FINAL},x=y"), malformed);
        check(&"v=".repeat(2049), malformed);
    }

    #[test]
    fn challenges_are_held_to_reason() {
        let check = |from: &str, to: &str, error: Error| {
            let message = SERVER_FIRST.replacen(from, to, 1);
            let found = client().challenge(message.as_bytes()).expect_err(&message);
            assert_eq!(std::mem::discriminant(&found), std::mem::discriminant(&error), "{message} {found}");
        };
        let malformed = Error::ScramMalformed("");
        check("rOpr", "xOpr", Error::ScramNonce);
        check("%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0", "", Error::ScramNonce);
        check("i=4096", "i=0", Error::ScramIterations(0));
        check("i=4096", "i=1000001", Error::ScramIterations(1_000_001));
        check("i=4096", "i=4294967295", Error::ScramIterations(u32::MAX));
        check("i=4096", "i=4294967296", malformed);
        check("i=4096", "i=+1", malformed);
        check("i=4096", "i=-1", malformed);
        check("i=4096", "i=", malformed);
        check("i=4096", "i=4096,x=y", malformed);
        check("W22", "", malformed);
        check("W22ZaJ0SNY7soEsUEjb6gQ==", "", malformed);
        check("r=", "m=x,r=", malformed);
        check(",i=4096", "", malformed);
        check(SERVER_FIRST, "", malformed);
        assert!(client().challenge(SERVER_FIRST.replace("4096", "1000000").as_bytes()).is_ok());
    }

    #[test]
    fn the_best_common_mechanism_is_chosen() {
        let check = |offered: &[&str], end_point: Option<&[u8]>, expected: Result<(&str, u8), Error>| {
            let mut out = Vec::new();
            crate::write::authentication_sasl(&mut out, offered);
            let Ok(crate::backend::Authentication::Sasl(offered)) =
                crate::backend::Authentication::parse(&out[5..])
            else {
                panic!("{out:?}")
            };
            let found = Client::choose(&offered, end_point, &[1; NONCE_BYTES]);
            assert_eq!(found.map(|client| (client.mechanism(), client.message()[0])), expected);
        };
        check(&[SHA_256], None, Ok((SHA_256, b'n')));
        check(&[SHA_256_PLUS, SHA_256], None, Ok((SHA_256, b'n')));
        check(&[SHA_256], Some(b"hash"), Ok((SHA_256, b'y')));
        check(&[SHA_256_PLUS, SHA_256], Some(b"hash"), Ok((SHA_256_PLUS, b'p')));
        check(&[SHA_256_PLUS], Some(b"hash"), Ok((SHA_256_PLUS, b'p')));
        check(&[SHA_256_PLUS], None, Err(Error::SaslUnsupported));
        check(&["OAUTHBEARER"], Some(b"hash"), Err(Error::SaslUnsupported));
    }
}
