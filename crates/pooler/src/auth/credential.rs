//! What is known about one user: the stored secret, and what logins taught us since.
//!
//! **Intuition.** The secret a user proves itself with at the pooler is also what the pooler proves the user with at the
//! server. A stored SCRAM verifier alone can't do that; but a client that logs in by SCRAM shows its keys in passing,
//! and with those we can log in wherever the same verifier is stored. So a login leaves its keys here.
//!
//! **Mechanism.** A [`Credential`] is shared by all logins of its user and lives as long as its secret is unchanged,
//! over reloads and refreshed look-ups. What is learned is written once in a while and read often: `ArcSwapOption`.
//!
//! **Failure.** [`Credential::server_secret`] gives the best that is known, down to nothing; the server then refuses
//! with words of its own. A stored verifier that is damaged lets nobody in, and the log says so.
//!
//! Source: RFC 5802 §3 for the keys.

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use tenfold_pgwire::{
    md5::Md5Secret,
    scram::{ITERATIONS_DEFAULT, Keys, SaltedPassword, Verifier},
    secret,
};

use super::derivation::Derivation;
use crate::{config::Password, handover::HandedCredential};

/// Passwords learned from clients that are longer are not kept; PostgreSQL's own limit is 1,024 bytes.
const LEARNED_BYTES_MAX: usize = 1_024;

/// One user's secret and what was learned. See the module.
#[derive(Debug)]
pub struct Credential {
    user: Arc<str>,
    /// As configured or looked up, to tell whether it has changed.
    stored: Option<Password>,
    secret: Secret,
    /// Made once from a plain password.
    made: OnceLock<Verifier>,
    keys: ArcSwapOption<Keys>,
    learned: ArcSwapOption<Password>,
}

/// The kinds of stored secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Secret {
    /// There is none: for [`AuthMethod::Trust`](crate::config::AuthMethod::Trust) and its like.
    None,
    Plain(Password),
    Md5(Md5Secret),
    Scram(Verifier),
    /// A verifier that was cut off.
    Damaged,
}

/// With what we log in to a server.
#[derive(Clone, Debug)]
pub enum ServerSecret {
    /// Nothing: the server has to trust us, or know our certificate.
    None,
    /// Any method.
    Password(Password),
    /// The md5 method only.
    Md5(Md5Secret),
    /// SCRAM with the verifier these keys belong to.
    Scram(Arc<Keys>),
}

impl Credential {
    /// From a stored secret: plain, `md5…` or `SCRAM-SHA-256$…`; `None` and the empty string are none.
    #[must_use]
    pub fn new(user: Arc<str>, stored: Option<Password>) -> Self {
        let secret = match stored.as_ref().filter(|stored| !stored.expose().is_empty()) {
            None => Secret::None,
            Some(stored) => match secret::Secret::parse(stored.expose().as_bytes()) {
                Ok(secret::Secret::Plain(_)) => Secret::Plain(stored.clone()),
                Ok(secret::Secret::Md5(secret)) => Secret::Md5(secret),
                Ok(secret::Secret::Scram(verifier)) => Secret::Scram(verifier),
                Err(_) => Secret::Damaged,
            },
        };
        let (keys, learned) = (ArcSwapOption::empty(), ArcSwapOption::empty());
        Self { user, stored, secret, made: OnceLock::new(), keys, learned }
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
        if let Secret::Plain(password) = &self.secret {
            return ServerSecret::Password(password.clone());
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
    pub(crate) fn verifier(&self) -> Option<&Verifier> {
        match &self.secret {
            Secret::Scram(verifier) => Some(verifier),
            _ => self.made.get(),
        }
    }

    /// What has to be derived for [`Credential::set_verifier`], for a plain password. The salt depends on nothing but
    /// the user and the seed, so clients that keep their salted password profit, and nobody can tell such a user from
    /// an unknown one by its salt.
    pub(crate) fn derivation(&self, salt_seed: &[u8; 16]) -> Option<Derivation> {
        let Secret::Plain(password) = &self.secret else { return None };
        Derivation::new(password.expose().as_bytes(), &self.steady_salt(salt_seed), ITERATIONS_DEFAULT)
    }

    /// Makes the verifier from what was derived.
    pub(crate) fn set_verifier(&self, salted: &SaltedPassword, salt_seed: &[u8; 16]) -> &Verifier {
        self.made
            .get_or_init(|| Verifier::from_salted(salted, &self.steady_salt(salt_seed), ITERATIONS_DEFAULT))
    }

    fn steady_salt(&self, salt_seed: &[u8; 16]) -> Vec<u8> {
        mock(&self.user, salt_seed).salt().to_vec()
    }

    /// A client proved to have these keys.
    pub(crate) fn learn_keys(&self, keys: Keys) {
        // Only a stored verifier can be the server's too: one of our own making has our salt.
        if !matches!(self.secret, Secret::Scram(_)) || self.keys.load().as_deref() == Some(&keys) {
            return;
        }
        self.keys.store(Some(Arc::new(keys)));
    }

    /// A client showed a password, which was right.
    pub(crate) fn learn_password(&self, password: &[u8]) {
        let Ok(password) = std::str::from_utf8(password) else { return };
        let known = matches!(&self.secret, Secret::Plain(_)) || self.learned.load().is_some();
        if !known && password.len() <= LEARNED_BYTES_MAX {
            self.learned.store(Some(Arc::new(Password::new(password))));
        }
    }

    /// All that is known, for a successor of this process.
    pub(crate) fn handed(&self) -> HandedCredential {
        let keys = self.keys.load();
        let exposed = |password: &Password| password.expose().to_owned();
        HandedCredential {
            stored: self.stored.as_ref().map(exposed),
            keys: keys.as_ref().map(|keys| (*keys.client_key(), *keys.server_key())),
            learned: self.learned.load().as_deref().map(exposed),
        }
    }

    /// What this process's predecessor learned.
    pub(crate) fn take_over(&self, handed: &HandedCredential) {
        if let Some((client_key, server_key)) = handed.keys {
            self.learn_keys(Keys::new(client_key, server_key));
        }
        if let Some(learned) = &handed.learned {
            self.learn_password(learned.as_bytes());
        }
    }

    /// The password a client showed before, if one did.
    pub(crate) fn learned(&self) -> Option<Arc<Password>> {
        self.learned.load_full()
    }
}

/// The verifier that nobody satisfies, for a user that is not known.
pub(crate) fn mock(user: &str, salt_seed: &[u8; 16]) -> Verifier {
    let mut secret = [0; 32];
    secret[..16].copy_from_slice(salt_seed);
    Verifier::mock(user.as_bytes(), &secret, ITERATIONS_DEFAULT)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: [u8; 16] = *b"0123456789abcdef";

    fn credential(stored: &str) -> Credential {
        Credential::new("ann".into(), Some(Password::new(stored)))
    }

    fn kind(secret: &ServerSecret) -> &'static str {
        match secret {
            ServerSecret::None => "none",
            ServerSecret::Password(_) => "password",
            ServerSecret::Md5(_) => "md5",
            ServerSecret::Scram(_) => "scram",
        }
    }

    #[test]
    fn each_kind_of_secret_serves_what_it_can() {
        let verifier = Verifier::derive(b"pencil", b"salt", 1);
        let md5 = Md5Secret::derive(b"ann", b"pencil").to_string();
        let check = |stored: &str, before: &str, after_keys: &str, after_password: &str| {
            let credential = credential(stored);
            assert_eq!(kind(&credential.server_secret()), before, "{stored}");
            credential.learn_keys(SaltedPassword::derive(b"pencil", b"salt", 1).keys());
            assert_eq!(kind(&credential.server_secret()), after_keys, "{stored}");
            credential.learn_password(b"pencil");
            assert_eq!(kind(&credential.server_secret()), after_password, "{stored}");
        };
        check("pencil", "password", "password", "password");
        check(&md5, "md5", "md5", "password");
        check(&verifier.to_string(), "none", "scram", "password");
        check("", "none", "none", "password");
        check("SCRAM-SHA-256$4096:cut", "none", "none", "password");
    }

    #[test]
    fn a_successor_knows_what_logins_taught() {
        let verifier = Verifier::derive(b"pencil", b"salt", 1).to_string();
        let before = credential(&verifier);
        before.learn_keys(SaltedPassword::derive(b"pencil", b"salt", 1).keys());
        let after = credential(&verifier);
        after.take_over(&before.handed());
        assert_eq!(kind(&after.server_secret()), "scram");
        before.learn_password(b"pencil");
        after.take_over(&before.handed());
        assert_eq!(kind(&after.server_secret()), "password");
        assert_eq!(after.handed(), before.handed());
    }

    #[test]
    fn a_verifier_is_made_once_with_a_salt_like_an_unknown_users() {
        let credential = credential("pencil");
        assert!(credential.verifier().is_none());
        let derivation = credential.derivation(&SEED).unwrap();
        let salted = derivation.run();
        let verifier = credential.set_verifier(&salted, &SEED).clone();
        assert!(verifier.check(&salted));
        assert_eq!(verifier.salt(), mock("ann", &SEED).salt());
        assert_ne!(verifier.salt(), mock("bob", &SEED).salt());
        assert_eq!(credential.verifier(), Some(&verifier));
    }

    #[test]
    fn secrets_do_not_show() {
        let credential = credential("hunter2");
        credential.learn_password(b"hunter2");
        let shown = format!("{credential:?} {:?}", credential.server_secret());
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
