//! Stored secrets: what a users file or `pg_authid` holds for a user.
//!
//! **Intuition.** Three forms are about: a SCRAM verifier, an MD5 hash, a plain password. Which ways of proving a
//! password are possible depends on the form.
//!
//! **Mechanism.** [`Secret::parse`] tells them apart as PostgreSQL does; the methods say what each form can serve.
//!
//! **Failure.** A text that begins like a verifier and isn't one is an error rather than a plain password: someone's
//! copy was cut off. Nothing here shows a secret in `Debug`.
//!
//! Source: `get_password_type` in PostgreSQL's `crypt.c`.

use std::fmt;

use subtle::ConstantTimeEq as _;

use crate::Error;
use crate::md5::Md5Secret;
use crate::scram::{SHA_256, SaltedPassword, Verifier};

/// What is stored for a user.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// The password itself. Serves every method.
    Plain(Box<[u8]>),
    /// Serves MD5 and passwords sent in clear.
    Md5(Md5Secret),
    /// Serves SCRAM and passwords sent in clear.
    Scram(Verifier),
}

impl Secret {
    /// Reads what is stored.
    ///
    /// # Errors
    /// [`Error::StoredSecret`] for a verifier that is cut off or damaged.
    pub fn parse(text: &[u8]) -> Result<Self, Error> {
        if let Some(secret) = Md5Secret::parse(text) {
            return Ok(Self::Md5(secret));
        }
        if text.strip_prefix(SHA_256.as_bytes()).is_some_and(|rest| rest.first() == Some(&b'$')) {
            return Verifier::parse(text).map(Self::Scram);
        }
        Ok(Self::Plain(text.into()))
    }

    /// The MD5 secret of this user; `None` for a verifier, from which none can be made.
    #[must_use]
    pub fn to_md5(&self, user: &[u8]) -> Option<Md5Secret> {
        match self {
            Self::Plain(password) => Some(Md5Secret::derive(user, password)),
            Self::Md5(secret) => Some(secret.clone()),
            Self::Scram(_) => None,
        }
    }

    /// The SCRAM verifier; `None` for an MD5 secret, from which none can be made. For a plain password it is derived
    /// with this salt, which costs `iterations` hashes: keep it.
    #[must_use]
    pub fn to_verifier(&self, salt: &[u8], iterations: u32) -> Option<Verifier> {
        match self {
            Self::Plain(password) => Some(Verifier::derive(password, salt, iterations)),
            Self::Md5(_) => None,
            Self::Scram(verifier) => Some(verifier.clone()),
        }
    }

    /// Whether a password that came in clear is right, compared in constant time. Costs the verifier's iterations if
    /// one is stored.
    #[must_use]
    pub fn check_clear(&self, user: &[u8], password: &[u8]) -> bool {
        match self {
            Self::Plain(stored) => stored.ct_eq(password).into(),
            Self::Md5(stored) => stored.matches(&Md5Secret::derive(user, password)),
            Self::Scram(stored) => {
                let salted = SaltedPassword::derive(password, stored.salt(), stored.iterations());
                stored.check(&salted)
            }
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Plain(_) => "Secret::Plain(…)",
            Self::Md5(_) => "Secret::Md5(…)",
            Self::Scram(_) => "Secret::Scram(…)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PENCIL: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

    #[test]
    fn the_form_is_told_by_the_text() {
        let check = |text: &str, form: &str| {
            assert_eq!(
                format!("{:?}", Secret::parse(text.as_bytes())),
                format!("Ok(Secret::{form}(…))"),
                "{text}"
            );
        };
        check("", "Plain");
        check("open sesame", "Plain");
        check("md5", "Plain");
        check("md50123456789abcdef0123456789abcdef", "Md5");
        check("md50123456789abcdef0123456789abcdeX", "Plain");
        check("SCRAM-SHA-256", "Plain");
        check(PENCIL, "Scram");
        assert_eq!(Secret::parse(&PENCIL.as_bytes()[..100]), Err(Error::StoredSecret));
    }

    #[test]
    fn every_form_knows_its_password() {
        let md5 = Md5Secret::derive(b"user", b"pencil").to_string();
        for text in ["pencil", &md5, PENCIL] {
            let secret = Secret::parse(text.as_bytes()).expect("a secret");
            assert!(secret.check_clear(b"user", b"pencil"), "{text}");
            for wrong in [&b"Pencil"[..], b"", b"pencil ", md5.as_bytes(), PENCIL.as_bytes()] {
                assert!(!secret.check_clear(b"user", wrong), "{text}");
            }
        }
    }

    #[test]
    fn a_form_serves_the_methods_it_can() {
        let plain = Secret::parse(b"pencil").expect("plain");
        let md5 = Secret::Md5(Md5Secret::derive(b"user", b"pencil"));
        let scram = Secret::parse(PENCIL.as_bytes()).expect("a verifier");
        assert_eq!(plain.to_md5(b"user"), md5.to_md5(b"user"));
        assert_eq!(scram.to_md5(b"user"), None);
        let salt = scram.to_verifier(b"", 1).expect("stored").salt().to_vec();
        assert_eq!(plain.to_verifier(&salt, 4096), scram.to_verifier(b"", 1));
        assert_eq!(md5.to_verifier(&salt, 4096), None);
    }
}
