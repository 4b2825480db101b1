//! The server's side: checks a client's proof, and proves itself.
//!
//! **Intuition.** Two steps. The client's first message brings its nonce and says whether it binds to the TLS channel;
//! we answer with salt and iterations. Its second brings the proof; we answer with our signature.
//!
//! **Mechanism.** [`Server::start`] takes the first message, [`Server::finish`] the second and consumes the state, so a
//! proof can be tried once. What was said is kept as the text that both sign.
//!
//! **Failure.** A malformed message is a protocol error; a wrong proof is [`Error::ScramProof`], which the caller turns
//! into "password authentication failed" with the user's name. A client that claims we offered no channel binding when
//! we did ([`Error::ScramDowngrade`]) was lied to by someone in between.
//!
//! Source: RFC 5802 §5 and §6; PostgreSQL's `auth-scram.c`.

use base64::Engine as _;
use subtle::{Choice, ConstantTimeEq as _};

use super::attributes::{Attributes, check_nonce};
use super::{
    BASE64, CLIENT_MESSAGE_BYTES_MAX, END_POINT_FLAG, Key, Keys, NONCE_BYTES, SHA_256, SHA_256_PLUS,
    Verifier, decode_key, hmac, sha256, xor,
};
use crate::Error;

/// What channel binding we offer on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerBinding<'a> {
    /// None: the connection is not encrypted, or its certificate has no defined hash.
    None,
    /// `tls-server-end-point`: [`super::end_point_hash`] of our own certificate.
    EndPoint(&'a [u8]),
}

impl ServerBinding<'_> {
    /// The mechanisms to offer, in order of preference.
    #[must_use]
    pub fn mechanisms(self) -> &'static [&'static str] {
        match self {
            Self::None => &[SHA_256],
            Self::EndPoint(_) => &[SHA_256_PLUS, SHA_256],
        }
    }
}

/// An exchange that waits for the client's second message.
pub struct Server {
    /// The client's first message without its header, a comma, our first message.
    signed: Vec<u8>,
    /// Where our first message begins in `signed`. Always ≤ its length.
    challenge_at: usize,
    /// The client's nonce and ours, as they stand at the beginning of our message behind `r=`.
    nonce_len: usize,
    /// What the client has to send as `c=`, in base64.
    binding: Vec<u8>,
    stored_key: Key,
    server_key: Key,
    is_mock: bool,
}

/// A client has proved its password.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// Our last message, for AuthenticationSASLFinal: it proves that we know the verifier.
    pub message: Vec<u8>,
    /// What the client's proof revealed: enough to log in with wherever the same verifier is stored.
    pub keys: Keys,
}

impl Server {
    /// Takes the client's first message and the mechanism it chose; [`Server::challenge`] is then the answer.
    ///
    /// `nonce` has to be random and new. A client that sends no first message with its choice
    /// ([`crate::frontend::SaslInitialResponse::initial`] is `None`) is answered by an empty challenge, and sends it
    /// then.
    ///
    /// # Errors
    /// [`Error::SaslMechanism`], [`Error::ScramMalformed`], [`Error::ScramUnsupported`], [`Error::ScramDowngrade`].
    pub fn start(
        verifier: &Verifier,
        offered: ServerBinding<'_>,
        mechanism: &[u8],
        client_first: &[u8],
        nonce: &[u8; NONCE_BYTES],
    ) -> Result<Self, Error> {
        Self::start_with(verifier, offered, mechanism, client_first, &BASE64.encode(nonce))
    }

    fn start_with(
        verifier: &Verifier,
        offered: ServerBinding<'_>,
        mechanism: &[u8],
        client_first: &[u8],
        nonce: &str,
    ) -> Result<Self, Error> {
        let mut attributes = Attributes::new(client_first, CLIENT_MESSAGE_BYTES_MAX)?;
        let binding = read_header(&mut attributes, offered, mechanism)?;
        let bare = attributes.rest();
        let client_nonce = read_bare(attributes)?;

        let mut signed = Vec::with_capacity(2 * bare.len() + 128);
        signed.extend_from_slice(bare);
        signed.push(b',');
        let challenge_at = signed.len();
        signed.extend_from_slice(b"r=");
        signed.extend_from_slice(client_nonce);
        signed.extend_from_slice(nonce.as_bytes());
        signed.extend_from_slice(b",s=");
        signed.extend_from_slice(BASE64.encode(&verifier.salt).as_bytes());
        signed.extend_from_slice(b",i=");
        signed.extend_from_slice(verifier.iterations.to_string().as_bytes());
        Ok(Self {
            signed,
            challenge_at,
            nonce_len: client_nonce.len() + nonce.len(),
            binding,
            stored_key: verifier.stored_key,
            server_key: verifier.server_key,
            is_mock: verifier.is_mock,
        })
    }

    /// Our first message, for AuthenticationSASLContinue.
    #[must_use]
    pub fn challenge(&self) -> &[u8] {
        self.signed.get(self.challenge_at..).unwrap_or_default()
    }

    fn nonce(&self) -> &[u8] {
        self.challenge().get(2..2 + self.nonce_len).unwrap_or_default()
    }

    /// Takes the client's second message. Costs two HMACs and a hash, whatever the iterations.
    ///
    /// # Errors
    /// [`Error::ScramMalformed`], [`Error::ScramNonce`], [`Error::ScramBinding`], [`Error::ScramProof`].
    pub fn finish(mut self, client_final: &[u8]) -> Result<Accepted, Error> {
        let mut attributes = Attributes::new(client_final, CLIENT_MESSAGE_BYTES_MAX)?;
        let binding = attributes.value(b'c')?;
        if !bool::from(binding.ct_eq(&self.binding)) {
            return Err(Error::ScramBinding);
        }
        if attributes.value(b'r')? != self.nonce() {
            return Err(Error::ScramNonce);
        }
        let (proof, without_proof) = read_proof(attributes, client_final)?;

        self.signed.push(b',');
        self.signed.extend_from_slice(without_proof);
        let client_key = xor(&proof, &hmac(&self.stored_key, &self.signed));
        let is_right = sha256(&client_key).ct_eq(&self.stored_key) & Choice::from(u8::from(!self.is_mock));
        if !bool::from(is_right) {
            return Err(Error::ScramProof);
        }
        let mut message = b"v=".to_vec();
        message.extend_from_slice(BASE64.encode(hmac(&self.server_key, &self.signed)).as_bytes());
        Ok(Accepted { message, keys: Keys { client_key, server_key: self.server_key } })
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("scram::Server(…)")
    }
}

/// Reads `gs2-header`: the channel binding flag and an authorization identity, which has to be absent. Returns what
/// the client has to repeat as `c=`.
fn read_header(
    attributes: &mut Attributes<'_>,
    offered: ServerBinding<'_>,
    mechanism: &[u8],
) -> Result<Vec<u8>, Error> {
    let hash = match offered {
        ServerBinding::EndPoint(hash) if mechanism == SHA_256_PLUS.as_bytes() => Some(hash),
        _ if mechanism == SHA_256.as_bytes() => None,
        _ => return Err(Error::SaslMechanism),
    };
    let flag = attributes.rest().first();
    match (flag, hash) {
        (Some(b'n'), None) => {}
        (Some(b'y'), None) if offered == ServerBinding::None => {}
        (Some(b'y'), None) => return Err(Error::ScramDowngrade),
        (Some(b'p'), Some(_)) => {}
        (Some(b'n' | b'y'), Some(_)) => {
            return Err(Error::ScramMalformed(
                "The client selected SCRAM-SHA-256-PLUS, but the SCRAM message does not include channel binding data.",
            ));
        }
        (Some(b'p'), None) => {
            return Err(Error::ScramMalformed(
                "The client selected SCRAM-SHA-256 without channel binding, but the SCRAM message includes channel \
                 binding data.",
            ));
        }
        _ => return Err(Error::ScramMalformed("Unexpected channel-binding flag.")),
    }
    let taken = match hash {
        None => attributes.take(b"n,") || attributes.take(b"y,"),
        Some(_) if attributes.take(b"p=tls-server-end-point,") => true,
        Some(_) if attributes.rest().starts_with(b"p=") => {
            return Err(Error::ScramUnsupported("unsupported SCRAM channel-binding type"));
        }
        Some(_) => false,
    };
    if attributes.rest().starts_with(b"a=") {
        return Err(Error::ScramUnsupported("client uses authorization identity, but it is not supported"));
    }
    if !taken || !attributes.take(b",") {
        return Err(Error::ScramMalformed("Unexpected attribute in client-first-message."));
    }
    Ok(match hash {
        Some(hash) => BASE64.encode([END_POINT_FLAG.as_bytes(), hash].concat()),
        None if flag == Some(&b'y') => BASE64.encode("y,,"),
        None => BASE64.encode("n,,"),
    }
    .into_bytes())
}

/// Reads `client-first-message-bare`. Returns the nonce; the user's name is not looked at, since the startup packet
/// said it.
fn read_bare(mut attributes: Attributes<'_>) -> Result<&[u8], Error> {
    if attributes.rest().starts_with(b"m=") {
        return Err(Error::ScramUnsupported("client requires an unsupported SCRAM extension"));
    }
    attributes.value(b'n')?;
    let nonce = attributes.value(b'r')?;
    check_nonce(nonce)?;
    while !attributes.is_at_end() {
        attributes.any()?;
    }
    Ok(nonce)
}

/// Reads extensions and the proof, which has to be the last. Returns it and the message before it.
fn read_proof<'a>(mut attributes: Attributes<'a>, message: &'a [u8]) -> Result<(Key, &'a [u8]), Error> {
    loop {
        let without = message.len() - attributes.rest().len();
        let (name, value) = attributes.any()?;
        if name != b'p' {
            continue;
        }
        let proof =
            decode_key(value).ok_or(Error::ScramMalformed("Malformed proof in client-final-message."))?;
        if !attributes.is_at_end() {
            return Err(Error::ScramMalformed("Garbage found at the end of client-final-message."));
        }
        return Ok((proof, message.get(..without).unwrap_or_default()));
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::pencil;
    use super::*;

    const NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                         p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

    fn start(first: &str) -> Result<Server, Error> {
        Server::start_with(&pencil(), ServerBinding::None, SHA_256.as_bytes(), first.as_bytes(), NONCE)
    }

    /// The refusal of this first message, with channel binding offered, under either mechanism.
    fn refusal(offered: bool, mechanism: &str, first: &str) -> Option<Error> {
        let offered = if offered { ServerBinding::EndPoint(b"hash") } else { ServerBinding::None };
        Server::start_with(&pencil(), offered, mechanism.as_bytes(), first.as_bytes(), NONCE).err()
    }

    #[test]
    fn the_exchange_of_rfc_7677_is_accepted() {
        let server = start(FIRST).expect("a good message");
        assert_eq!(
            server.challenge(),
            b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
        );
        let accepted = server.finish(FINAL.as_bytes()).expect("a good proof");
        assert_eq!(accepted.message, b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        assert!(accepted.keys.fit(&pencil()));
    }

    #[test]
    fn second_messages_are_held_to_the_first() {
        let check = |from: &str, to: &str, error: Option<Error>| {
            let message = FINAL.replacen(from, to, 1);
            let found = start(FIRST).expect("a good message").finish(message.as_bytes()).err();
            assert_eq!(
                found.map(|found| std::mem::discriminant(&found)),
                error.map(|error| std::mem::discriminant(&error)),
                "{message}"
            );
        };
        let malformed = Some(Error::ScramMalformed(""));
        check("", "", None);
        check("biws", "eSws", Some(Error::ScramBinding));
        check("biws", "", Some(Error::ScramBinding));
        check("$k0", "$k1", Some(Error::ScramNonce));
        check("r=rO", "r=O", Some(Error::ScramNonce));
        check("dHzb", "dHzc", Some(Error::ScramProof));
        check(",p=", ",x=ext,p=", Some(Error::ScramProof));
        check("VQ=", "VQ", malformed);
        check("VQ=", "VQ=,x=y", malformed);
        check("VQ=", "VQ=,", malformed);
        check(",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=", "", malformed);
        check("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=", "", malformed);
        check("c=biws,", "", malformed);
        check("c=biws,", "m=x,c=biws,", malformed);
        check(FINAL, "", malformed);
        check(FINAL, &"c=".repeat(600), malformed);
    }

    #[test]
    fn a_mock_refuses_the_right_proof_too() {
        let mock = Verifier { is_mock: true, ..pencil() };
        let server =
            Server::start_with(&mock, ServerBinding::None, SHA_256.as_bytes(), FIRST.as_bytes(), NONCE);
        assert_eq!(server.expect("a good message").finish(FINAL.as_bytes()).err(), Some(Error::ScramProof));
    }

    #[test]
    fn first_messages_are_held_to_their_grammar() {
        assert!(start("n,,n=,r=abc,x=later,y=more").is_ok());
        for first in [
            "",
            "n",
            "n,",
            "n,,",
            "n,,n=",
            "n,,n=u",
            "n,,n=u,",
            "n,,r=abc",
            "n,,r=abc,n=u",
            "n,,n=u,r=",
            "n,n=u,r=abc",
            "n,,n=u,r=a b",
            "n,,n=u,r=a\u{e4}",
            "n,,n=u,r=abc,",
            "n,,n=u,r=abc\0",
            "x,,n=u,r=abc",
            "nn,,n=u,r=abc",
            "y",
            "n=x,,n=u,r=abc",
        ] {
            assert!(matches!(start(first), Err(Error::ScramMalformed(_))), "{first:?}");
        }
        for first in ["n,a=bob,n=u,r=abc", "n,,m=x,n=u,r=abc"] {
            assert!(matches!(start(first), Err(Error::ScramUnsupported(_))), "{first:?}");
        }
        let long = format!("n,,n=,r={}", "a".repeat(CLIENT_MESSAGE_BYTES_MAX - 8));
        assert!(start(&long).is_ok());
        assert!(start(&(long + "a")).is_err());
    }

    #[test]
    fn the_flag_goes_with_the_mechanism_and_the_offer() {
        let (plain, plus) = (SHA_256, SHA_256_PLUS);
        assert_eq!(refusal(false, plain, "n,,n=,r=a"), None);
        assert_eq!(refusal(false, plain, "y,,n=,r=a"), None);
        assert_eq!(refusal(true, plain, "n,,n=,r=a"), None);
        assert_eq!(refusal(true, plain, "y,,n=,r=a"), Some(Error::ScramDowngrade));
        assert_eq!(refusal(true, plus, "p=tls-server-end-point,,n=,r=a"), None);
        assert_eq!(refusal(false, plus, "p=tls-server-end-point,,n=,r=a"), Some(Error::SaslMechanism));
        assert_eq!(refusal(true, "SCRAM-SHA-1", "n,,n=,r=a"), Some(Error::SaslMechanism));
        for (mechanism, first) in [
            (plus, "n,,n=,r=a"),
            (plus, "y,,n=,r=a"),
            (plus, "p,,n=,r=a"),
            (plain, "p=tls-server-end-point,,n=,r=a"),
        ] {
            let found = refusal(true, mechanism, first);
            assert!(matches!(found, Some(Error::ScramMalformed(_))), "{mechanism} {first} {found:?}");
        }
        let unique = refusal(true, plus, "p=tls-unique,,n=,r=a");
        assert!(matches!(unique, Some(Error::ScramUnsupported(_))), "{unique:?}");
    }
}
