//! Who is known: the list, the databases' own users, and what `auth_query` found.
//!
//! **Intuition.** A login needs a user's secret at once or not at all; asking a database for it takes a round trip that
//! no worker may wait for. So answers are kept, good ones for half a minute, bad ones for seconds, and a worker that
//! finds none is told what to have asked.
//!
//! **Mechanism.** [`UserDirectory::lookup`] looks in this order: the list; the database's own user; answers of the
//! `auth_query`. An answer older than [`FRESH`] is used once more while it is asked for again in the background, one
//! older than [`USABLE`] is asked for first. A failed login with a kept answer spoils it ([`UserDirectory::failed`]), so
//! that a password changed in the database is known at the next try.
//!
//! A [`Credential`] survives reloads and refreshes as long as its secret does, and with it what logins taught.
//!
//! **Failure.** An `auth_query` that fails counts as "unknown" for [`AFTER_ERROR`], unless an older answer is still
//! usable. Both maps are bounded; a flood of invented names empties the map of unknown names, not the other.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;

use super::credential::{Credential, ServerSecret};
use crate::config::{AuthMethod, Config, Database, Password};

/// An answer is used without asking for this long.
pub const FRESH: Duration = Duration::from_secs(30);
/// An answer is used at all for this long.
pub const USABLE: Duration = Duration::from_secs(60);
/// "No such user" is believed for this long.
pub const NEGATIVE: Duration = Duration::from_secs(5);
/// After an `auth_query` that failed, its user counts as unknown for this long.
pub const AFTER_ERROR: Duration = Duration::from_secs(1);
/// A spoilt answer is asked for again only when it is this old, so that guessing passwords costs the guesser one query
/// a second and no more.
const SPOILABLE_AFTER: Duration = Duration::from_secs(1);
/// A refresh in the background that brought no answer is tried again after this.
const REFRESH_AGAIN: Duration = Duration::from_secs(5);
/// Users found by `auth_query` that are kept.
const FOUND_ENTRIES_MAX: usize = 20_000;
/// Names not found that are kept.
const UNKNOWN_ENTRIES_MAX: usize = 10_000;

/// All users of the process. Shared by all workers and the control side.
#[derive(Debug)]
pub struct UserDirectory {
    listed: ArcSwap<Listed>,
    asked: Mutex<Asked>,
}

/// What to look up: a user, for a database.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LookupKey {
    /// The database the client asked for.
    pub database: Arc<str>,
    /// The user it claims to be.
    pub user: Arc<str>,
}

/// What is known of a user.
#[derive(Clone, Debug)]
pub enum Lookup {
    /// This.
    Found {
        /// The user's secret.
        credential: Arc<Credential>,
        /// Have this asked in the background; the login need not wait.
        refresh: Option<LookupKey>,
    },
    /// Nothing. The login goes on all the same, and fails as a wrong password would.
    Unknown,
    /// Have this asked first, and look again then: whatever is not [`Lookup::Found`] then is unknown.
    Ask(LookupKey),
}

#[derive(Debug, Default)]
struct Listed {
    by_name: HashMap<Arc<str>, Arc<Credential>>,
    /// Databases' own users and the users that ask, by database and name.
    by_database: HashMap<LookupKey, Arc<Credential>>,
}

#[derive(Debug, Default)]
struct Asked {
    found: HashMap<LookupKey, Found>,
    /// Until when each name counts as unknown.
    unknown: HashMap<LookupKey, Instant>,
}

#[derive(Debug)]
struct Found {
    credential: Arc<Credential>,
    answered: Instant,
    /// When a refresh was last given out.
    refreshed: Option<Instant>,
    spoilt: bool,
}

impl UserDirectory {
    /// The users this configuration names.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let listed = Listed::of(config, &Listed::default());
        Self { listed: ArcSwap::from_pointee(listed), asked: Mutex::default() }
    }

    /// Takes a changed configuration. Answers of databases that no longer ask are forgotten.
    pub fn reload(&self, config: &Config) {
        let listed = Listed::of(config, &self.listed.load());
        self.listed.store(Arc::new(listed));
        let asking: HashSet<_> =
            config.databases.iter().filter(|d| d.auth_query.is_some()).map(|d| &*d.name).collect();
        if !asking.contains("*") {
            let mut asked = self.asked();
            asked.found.retain(|key, _| asking.contains(&*key.database));
            asked.unknown.clear();
        }
    }

    /// What is known of `user`, who wants into the database that was asked for as `key.database` and is configured as
    /// `database`. `None`: there is no such database; only the list can know the user then.
    #[must_use]
    pub fn lookup(
        &self,
        database: Option<&Database>,
        key: &LookupKey,
        method: AuthMethod,
        now: Instant,
    ) -> Lookup {
        let listed = self.listed.load();
        let found = |credential: &Arc<Credential>| Lookup::Found {
            credential: Arc::clone(credential),
            refresh: None,
        };
        if let Some(credential) = listed.by_name.get(&key.user) {
            return found(credential);
        }
        let Some(database) = database else { return Lookup::Unknown };
        let own = LookupKey { database: Arc::clone(&database.name), user: Arc::clone(&key.user) };
        match listed.by_database.get(&own) {
            Some(credential) if credential.has_secret() || !method.needs_secret() => {
                return found(credential);
            }
            _ => {}
        }
        if database.auth_query.is_none() {
            return Lookup::Unknown;
        }
        self.asked().lookup(key, now)
    }

    /// The answer to [`Lookup::Ask`] or to a refresh: the secret, or that there is no such user.
    pub fn answered(&self, key: LookupKey, secret: Option<Password>, now: Instant) {
        let mut asked = self.asked();
        let Some(secret) = secret else {
            asked.found.remove(&key);
            asked.keep_unknown(key, now + NEGATIVE);
            return;
        };
        asked.unknown.remove(&key);
        let known = asked.found.get(&key).filter(|found| found.credential.is_of(Some(&secret)));
        let credential = match known {
            Some(found) => Arc::clone(&found.credential),
            None => Arc::new(Credential::new(Arc::clone(&key.user), Some(secret))),
        };
        asked.keep_found(key, Found { credential, answered: now, refreshed: None, spoilt: false });
    }

    /// The question could not be answered; the log has said why.
    pub fn unanswered(&self, key: LookupKey, now: Instant) {
        let mut asked = self.asked();
        let usable = asked.found.get(&key).is_some_and(|found| found.is_usable(now));
        if !usable {
            asked.keep_unknown(key, now + AFTER_ERROR);
        }
    }

    /// A login with this secret failed: if it is an answer of the `auth_query`, it may be out of date.
    pub fn failed(&self, key: &LookupKey, now: Instant) {
        if let Some(found) = self.asked().found.get_mut(key) {
            found.spoilt |= now.saturating_duration_since(found.answered) >= SPOILABLE_AFTER;
        }
    }

    /// As whom, and with what, connections for a client with this credential log in to the server.
    #[must_use]
    pub fn server_login(&self, database: &Database, credential: &Credential) -> (Arc<str>, ServerSecret) {
        match (&database.user, &database.password) {
            (Some(user), _) if **user != **credential.user() => self.own_login(database, user),
            (_, Some(password)) => (Arc::clone(credential.user()), ServerSecret::Password(password.clone())),
            (_, None) => (Arc::clone(credential.user()), credential.server_secret()),
        }
    }

    /// As whom, and with what, we ourselves log in to look at this database: as its own user, else as the one that asks
    /// for secrets. `None`: only its clients can log in.
    #[must_use]
    pub fn monitor_login(&self, database: &Database) -> Option<(Arc<str>, ServerSecret)> {
        let user =
            database.user.as_deref().or(database.auth_query.as_ref().map(|asks| asks.user.as_str()))?;
        Some(self.own_login(database, user))
    }

    /// The login of a user that the configuration names.
    #[must_use]
    pub fn own_login(&self, database: &Database, user: &str) -> (Arc<str>, ServerSecret) {
        let applies = database.user.as_deref().is_none_or(|own| own == user);
        if let (true, Some(password)) = (applies, &database.password) {
            return (user.into(), ServerSecret::Password(password.clone()));
        }
        let secret = self.listed.load().by_name.get(user).map(|credential| credential.server_secret());
        (user.into(), secret.unwrap_or(ServerSecret::None))
    }

    /// How many users are listed, and how many were found by `auth_query`: for the console.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        (self.listed.load().by_name.len(), self.asked().found.len())
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listed {
    fn of(config: &Config, before: &Self) -> Self {
        let mut listed = Self::default();
        for (name, secret) in &config.users.list {
            let known = before.by_name.get(name).filter(|known| known.is_of(Some(secret)));
            let credential = known.cloned().unwrap_or_else(|| new(name, Some(secret)));
            listed.by_name.insert(Arc::clone(name), credential);
        }
        for database in &config.databases {
            let asking = database.auth_query.as_ref().map(|asks| (asks.user.as_str(), None));
            let own = database.user.as_deref().map(|user| (user, database.password.as_ref()));
            // The own user second: where both are the same, its password counts.
            for (user, secret) in asking.into_iter().chain(own) {
                let key = LookupKey { database: Arc::clone(&database.name), user: user.into() };
                let known = before.by_database.get(&key).filter(|known| known.is_of(secret));
                let credential = known.cloned().unwrap_or_else(|| new(&key.user, secret));
                listed.by_database.insert(key, credential);
            }
        }
        listed
    }
}

fn new(name: &Arc<str>, secret: Option<&Password>) -> Arc<Credential> {
    Arc::new(Credential::new(Arc::clone(name), secret.cloned()))
}

impl Asked {
    fn lookup(&mut self, key: &LookupKey, now: Instant) -> Lookup {
        if let Some(found) = self.found.get_mut(key).filter(|found| found.is_usable(now)) {
            let refresh = found.refresh_due(now).then(|| key.clone());
            return Lookup::Found { credential: Arc::clone(&found.credential), refresh };
        }
        match self.unknown.get(key) {
            Some(&until) if now < until => Lookup::Unknown,
            _ => Lookup::Ask(key.clone()),
        }
    }

    fn keep_found(&mut self, key: LookupKey, found: Found) {
        if self.found.len() >= FOUND_ENTRIES_MAX && !self.found.contains_key(&key) {
            let oldest =
                self.found.iter().min_by_key(|(_, found)| found.answered).map(|(key, _)| key.clone());
            oldest.and_then(|oldest| self.found.remove(&oldest));
        }
        self.found.insert(key, found);
    }

    fn keep_unknown(&mut self, key: LookupKey, until: Instant) {
        if self.unknown.len() >= UNKNOWN_ENTRIES_MAX {
            self.unknown.clear();
        }
        self.unknown.insert(key, until);
    }
}

impl Found {
    fn is_usable(&self, now: Instant) -> bool {
        !self.spoilt && now.saturating_duration_since(self.answered) < USABLE
    }

    /// Whether to ask again in the background; says so to one caller at a time.
    fn refresh_due(&mut self, now: Instant) -> bool {
        let asked_lately = self.refreshed.is_some_and(|at| now.saturating_duration_since(at) < REFRESH_AGAIN);
        if asked_lately || now.saturating_duration_since(self.answered) < FRESH {
            return false;
        }
        self.refreshed = Some(now);
        true
    }
}
