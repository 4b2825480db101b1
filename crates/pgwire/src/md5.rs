//! MD5 password authentication: what old servers and old users files still speak.
//!
//! **Intuition.** The stored secret is a hash of password and user; the response is a hash of that and four bytes the
//! other side chose. Whoever reads the stored secret can log in with it, which is why SCRAM came.
//!
//! **Mechanism.** [`Md5Secret`] is the stored form, `md5` and 32 hexadecimal digits; [`Md5Secret::response`] is what a
//! client sends, [`Md5Secret::check`] what a server compares, in constant time.
//!
//! **Failure.** A response of another length or form just doesn't match.
//!
//! Source: PostgreSQL documentation, "Message Flow" (AuthenticationMD5Password); `pg_md5_encrypt`.

use std::fmt;

use subtle::ConstantTimeEq as _;

const PREFIX: &[u8] = b"md5";
const HEX_BYTES: usize = 32;
/// `md5` and 32 digits: of a stored secret and of a response alike.
pub const MD5_BYTES: usize = 35;

/// `md5(password ‖ user)`, as `pg_authid` has it.
#[derive(Clone, PartialEq, Eq)]
pub struct Md5Secret {
    /// Lower-case hexadecimal digits.
    hex: [u8; HEX_BYTES],
}

impl Md5Secret {
    /// Hashes a password as `CREATE ROLE` would.
    #[must_use]
    pub fn derive(user: &[u8], password: &[u8]) -> Self {
        Self { hex: hash(password, user) }
    }

    /// Reads the stored form; `None` if the text is none.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let hex: [u8; HEX_BYTES] = text.strip_prefix(PREFIX)?.try_into().ok()?;
        hex.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')).then_some(Self { hex })
    }

    /// What a client answers to a server that sent this salt: the text of its PasswordMessage.
    #[must_use]
    pub fn response(&self, salt: [u8; 4]) -> [u8; MD5_BYTES] {
        framed(hash(&self.hex, &salt))
    }

    /// Whether a client's answer to this salt is right.
    #[must_use]
    pub fn check(&self, salt: [u8; 4], response: &[u8]) -> bool {
        self.response(salt).ct_eq(response).into()
    }

    /// Whether this is the same secret, compared in constant time.
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        self.hex.ct_eq(&other.hex).into()
    }
}

impl fmt::Display for Md5Secret {
    /// The stored form: a secret, so not for logs.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(std::str::from_utf8(&framed(self.hex)).expect("hexadecimal digits"))
    }
}

impl fmt::Debug for Md5Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Md5Secret(…)")
    }
}

fn framed(hex: [u8; HEX_BYTES]) -> [u8; MD5_BYTES] {
    let mut framed = [0; MD5_BYTES];
    let (prefix, digits) = framed.split_at_mut(PREFIX.len());
    prefix.copy_from_slice(PREFIX);
    digits.copy_from_slice(&hex);
    framed
}

/// The hash of both, in hexadecimal.
fn hash(first: &[u8], second: &[u8]) -> [u8; HEX_BYTES] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut context = ::md5::Context::new();
    context.consume(first);
    context.consume(second);
    let digest = context.finalize();
    let mut hex = [0; HEX_BYTES];
    for (pair, byte) in hex.chunks_exact_mut(2).zip(digest.0) {
        pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
    hex
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_those_of_postgresql() {
        // What PostgreSQL 15 stores for CREATE ROLE ann PASSWORD 'open sesame' with password_encryption = md5.
        let secret = Md5Secret::derive(b"ann", b"open sesame");
        assert_eq!(secret.to_string(), "md5cb180cfaecb3f6b626f18953057db826");
        assert_eq!(Md5Secret::parse(secret.to_string().as_bytes()), Some(secret));
    }

    #[test]
    fn a_response_fits_its_salt_and_secret_alone() {
        let secret = Md5Secret::derive(b"ann", b"open sesame");
        let response = secret.response([1, 2, 3, 4]);
        assert!(secret.check([1, 2, 3, 4], &response));
        assert!(!secret.check([1, 2, 3, 5], &response));
        assert!(!secret.check([1, 2, 3, 4], &response[..34]));
        assert!(!secret.check([1, 2, 3, 4], b""));
        assert!(!Md5Secret::derive(b"bob", b"open sesame").check([1, 2, 3, 4], &response));
        assert!(secret.matches(&secret.clone()) && !secret.matches(&Md5Secret::derive(b"ann", b"")));
    }

    #[test]
    fn other_texts_are_no_secrets() {
        for text in ["", "md5", "md50123456789abcdef0123456789abcde", "md50123456789ABCDEF0123456789ABCDEF"] {
            assert_eq!(Md5Secret::parse(text.as_bytes()), None, "{text}");
        }
        assert!(Md5Secret::parse(b"md50123456789abcdef0123456789abcdef").is_some());
    }
}
