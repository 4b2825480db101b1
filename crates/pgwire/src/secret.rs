//! Stored secrets: what a users file or `pg_authid` holds for a user.
//!
//! **Intuition.** Three forms are about: a SCRAM verifier, an MD5 hash, a plain password. Which ways of proving a
//! password are possible depends on the form.
//!
//! **Mechanism.** [`Secret::parse`] tells them apart as PostgreSQL does.
//!
//! **Failure.** A text that begins like a verifier and isn't one is an error rather than a plain password: someone's
//! copy was cut off. Nothing here shows a secret in `Debug`.
//!
//! Source: `get_password_type` in PostgreSQL's `crypt.c`.

use std::fmt;

use crate::Error;
use crate::md5::Md5Secret;
use crate::scram::{SHA_256, Verifier};

/// What is stored for a user.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// The password itself. Serves every method; an empty one serves none, as in PostgreSQL: refuse it.
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
}
