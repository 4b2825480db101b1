//! What is known about one user: the stored secret, and what logins taught us since.
//!
//! **Intuition.** The secret a user proves itself with at the pooler is also what the pooler proves the user with at the
//! server. A stored SCRAM verifier alone can't do that; but a client that logs in by SCRAM shows its ClientKey in
//! passing, and with that key and the verifier's ServerKey we can log in wherever the same verifier is stored. So a
//! login leaves its keys here.
//!
//! **Mechanism.** A [`Credential`] is shared by all logins of its user and lives as long as its secret is unchanged,
//! over reloads and refreshed look-ups. What is learned is written once in a while and read often: `ArcSwapOption`.
//!
//! **Failure.** [`Credential::server_secret`] gives the best that is known, down to nothing; the server then refuses
//! with words of its own.
//!
//! Source: RFC 5802 §3 for the keys.

use std::sync::{Arc, OnceLock};

use super::scram_standin::scram;
use arc_swap::ArcSwapOption;

use super::derivation::{Derivation, SaltedPassword};
use crate::config::Password;

/// Rounds for secrets made from plain passwords: PostgreSQL's default.
const ITERATIONS: u32 = 4_096;
/// Passwords learned from clients that are longer are not kept; PostgreSQL's own limit is 1,024 bytes.
const LEARNED_BYTES_MAX: usize = 1_024;

/// One user's secret and what was learned. See the module.
#[derive(Debug)]
pub struct Credential {
    user: Arc<str>,
    /// As configured or looked up, to tell whether it has changed.
    stored: Option<Password>,
    secret: Secret,
    /// The verifier clients are asked for: parsed from the secret, or made once from a plain password.
    verifier: OnceLock<Arc<scram::Secret>>,
    keys: ArcSwapOption<ScramKeys>,
    learned: ArcSwapOption<Password>,
}

/// The kinds of stored secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Secret {
    /// There is none: for [`AuthMethod::Trust`](crate::config::AuthMethod::Trust) and its like.
    None,
    Plain(Password),
    /// `md5` and 32 hexadecimal digits.
    Md5(Password),
    Scram,
}

/// The keys of a user that the server's verifier can be satisfied with.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramKeys {
    /// What the client's proof is made from.
    pub client_key: [u8; 32],
    /// What the server's signature is checked with.
    pub server_key: [u8; 32],
}

/// With what we log in to a server.
#[derive(Clone, Debug)]
pub enum ServerSecret {
    /// Nothing: the server has to trust us, or know our certificate.
    None,
    /// Any method.
    Password(Password),
    /// `md5…`: the md5 method only.
    Md5(Password),
    /// SCRAM with the verifier these keys belong to.
    Scram(Arc<ScramKeys>),
}

impl Credential {
    /// From a stored secret: plain, `md5…` or `SCRAM-SHA-256$…`; `None` and the empty string are none.
    #[must_use]
    pub fn new(user: Arc<str>, stored: Option<Password>) -> Self {
        let verifier = OnceLock::new();
        let secret = match stored.as_ref().filter(|stored| !stored.expose().is_empty()) {
            None => Secret::None,
            Some(stored) => match scram::Secret::parse(stored.expose()) {
                Ok(parsed) => {
                    verifier.get_or_init(|| Arc::new(parsed));
                    Secret::Scram
                }
                Err(_) if is_md5(stored.expose()) => Secret::Md5(stored.clone()),
                Err(_) => Secret::Plain(stored.clone()),
            },
        };
        let (keys, learned) = (ArcSwapOption::empty(), ArcSwapOption::empty());
        Self { user, stored, secret, verifier, keys, learned }
    }

    /// Whose it is.
    #[must_use]
    pub fn user(&self) -> &Arc<str> {
        &self.user
    }

    /// Whether there is anything a client could prove itself with.
    #[must_use]
    pub fn has_secret(&self) -> bool {
        self.secret != Secret::None
    }

    /// Whether it was made from just this stored secret.
    #[must_use]
    pub fn is_of(&self, stored: Option<&Password>) -> bool {
        self.stored.as_ref() == stored
    }

    /// The best there is for a login at a server in this user's name.
    #[must_use]
    pub fn server_secret(&self) -> ServerSecret {
        match &self.secret {
            Secret::Plain(password) => return ServerSecret::Password(password.clone()),
            Secret::None | Secret::Md5(_) | Secret::Scram => {}
        }
        if let Some(password) = self.learned.load_full() {
            return ServerSecret::Password(Password::clone(&password));
        }
        match (&self.secret, self.keys.load_full()) {
            (_, Some(keys)) => ServerSecret::Scram(keys),
            (Secret::Md5(md5), None) => ServerSecret::Md5(md5.clone()),
            _ => ServerSecret::None,
        }
    }

    pub(crate) fn secret(&self) -> &Secret {
        &self.secret
    }

    /// The verifier for a SCRAM exchange, if it is there already.
    pub(crate) fn verifier(&self) -> Option<&Arc<scram::Secret>> {
        self.verifier.get()
    }

    /// What has to be derived for [`Credential::set_verifier`], for a plain password. The salt depends on nothing but
    /// the user and `salt_seed`, so clients that keep their salted password profit, and nobody can tell such a user
    /// from an unknown one by a salt that changes.
    pub(crate) fn derivation(&self, salt_seed: &[u8; 16]) -> Option<Derivation> {
        let Secret::Plain(password) = &self.secret else { return None };
        Derivation::new(password.clone(), &scram::steady_salt(salt_seed, self.user.as_bytes()), ITERATIONS)
    }

    /// Makes the verifier from what was derived.
    pub(crate) fn set_verifier(&self, salted: &SaltedPassword, salt_seed: &[u8; 16]) -> &Arc<scram::Secret> {
        self.verifier.get_or_init(|| {
            let salt = scram::steady_salt(salt_seed, self.user.as_bytes());
            Arc::new(scram::Secret::from_salted_password(&salted.0, &salt, ITERATIONS))
        })
    }

    /// A client proved to have this key, which fits the stored verifier.
    pub(crate) fn learn_client_key(&self, client_key: [u8; 32]) {
        // Only a stored verifier can be the server's: one of our own making has our salt.
        let (Secret::Scram, Some(verifier)) = (&self.secret, self.verifier.get()) else { return };
        let keys = ScramKeys { client_key, server_key: verifier.server_key };
        if self.keys.load().as_deref() != Some(&keys) {
            self.keys.store(Some(Arc::new(keys)));
        }
    }

    /// A client showed a password, which was right.
    pub(crate) fn learn_password(&self, password: &Password) {
        let known = matches!(&self.secret, Secret::Plain(_)) || self.learned.load().is_some();
        if !known && password.expose().len() <= LEARNED_BYTES_MAX {
            self.learned.store(Some(Arc::new(password.clone())));
        }
    }

    /// The password a client showed before, if one did.
    pub(crate) fn learned(&self) -> Option<Arc<Password>> {
        self.learned.load_full()
    }
}

impl std::fmt::Debug for ScramKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ScramKeys(…)")
    }
}

/// Whether this is PostgreSQL's `md5` and 32 digits, which no plain password may look like either.
fn is_md5(stored: &str) -> bool {
    stored.strip_prefix("md5").is_some_and(|digits| {
        digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
}
