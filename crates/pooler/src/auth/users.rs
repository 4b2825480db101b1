//! Who is known: the list, the databases' own users, and what `auth_query` found.
//!
//! **Intuition.** A login needs a user's secret at once or not at all; asking a database for it takes a round trip that
//! no worker may wait for. So answers are kept, good ones for half a minute, bad ones for seconds, and a worker that
//! finds none is told what to have asked.
//!
//! **Mechanism.** [`Users::lookup`] looks in this order: the database's list and its own user; the list for all
//! databases; answers of the `auth_query`. An answer older than [`FRESH`] is used once more while it is asked for again in the background, one
//! older than [`USABLE`] is asked for first. A failed login with a kept answer spoils it ([`Users::failed`]), so
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

pub use super::credential::{Credential, ServerSecret};
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
pub struct Users {
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

impl Users {
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
        let found = |credential: &Arc<Credential>| {
            let credential = Arc::clone(credential);
            Lookup::Found { credential, refresh: None }
        };
        let own = database.and_then(|database| {
            let own = LookupKey { database: Arc::clone(&database.name), user: Arc::clone(&key.user) };
            listed.by_database.get(&own)
        });
        match (own, listed.by_name.get(&key.user)) {
            (Some(own), _) if own.has_secret() => found(own),
            (_, Some(listed)) => found(listed),
            (Some(own), None) if !method.needs_secret() => found(own),
            _ if database.is_some_and(|database| database.auth_query.is_some()) => {
                self.asked().lookup(key, now)
            }
            _ => Lookup::Unknown,
        }
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

    /// The login at the server of a user that the configuration names: with the password given there, else with what
    /// the lists have for it.
    #[must_use]
    pub fn own_login(&self, database: &Database, user: &str) -> (Arc<str>, ServerSecret) {
        let asking = database.auth_query.as_ref().filter(|asks| asks.user == user);
        let applies = database.user.as_deref().is_none_or(|own| own == user);
        let given = asking.and_then(|asks| asks.password.as_ref());
        if let Some(password) = given.or(database.password.as_ref().filter(|_| applies)) {
            return (user.into(), ServerSecret::Password(password.clone()));
        }
        let listed = self.listed.load();
        let key = LookupKey { database: Arc::clone(&database.name), user: user.into() };
        let own = listed.by_database.get(&key).filter(|credential| credential.has_secret());
        let credential = own.or_else(|| listed.by_name.get(user));
        let secret = credential.map_or(ServerSecret::None, |credential| credential.server_secret());
        (key.user, secret)
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
            let asking =
                database.auth_query.as_ref().map(|asks| (asks.user.as_str(), asks.password.as_ref()));
            let own = database.user.as_deref().map(|user| (user, database.password.as_ref()));
            let list = database.users.list.iter().map(|(name, secret)| (&**name, Some(secret)));
            // Later ones win: the database's list, then its own user, then the one that asks.
            for (user, secret) in asking.into_iter().chain(own).chain(list) {
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

#[cfg(test)]
mod tests {
    use tenfold_service::clock::Clock;

    use super::*;
    use crate::config::{AuthQuery, Host, Users as List};

    fn database(name: &str) -> Database {
        Database::new(name, vec![Host::Tcp { host: "127.0.0.1".into(), port: 5432 }])
    }

    fn asking(name: &str) -> Database {
        let (query, user) = ("SELECT $1, ''".to_owned(), "asker".to_owned());
        Database {
            auth_query: Some(AuthQuery { query, user, password: None, database: None }),
            ..database(name)
        }
    }

    fn list(users: &[(&str, &str)]) -> List {
        List { list: users.iter().map(|&(name, secret)| (name.into(), Password::new(secret))).collect() }
    }

    fn config(users: &[(&str, &str)], databases: Vec<Database>) -> Config {
        Config { users: list(users), databases, ..Config::default() }
    }

    fn key(database: &str, user: &str) -> LookupKey {
        LookupKey { database: database.into(), user: user.into() }
    }

    fn found(lookup: Lookup) -> Arc<Credential> {
        match lookup {
            Lookup::Found { credential, refresh: None } => credential,
            other => panic!("{other:?}"),
        }
    }

    fn password(secret: ServerSecret) -> Option<String> {
        match secret {
            ServerSecret::Password(password) => Some(password.expose().to_owned()),
            _ => None,
        }
    }

    const SCRAM: AuthMethod = AuthMethod::ScramSha256;

    #[test]
    fn the_databases_own_list_wins_over_the_list_for_all() {
        let shop = Database { users: list(&[("app", "shop's")]), ..database("shop") };
        let users =
            Users::new(&config(&[("app", "all's"), ("root", "r")], vec![shop.clone(), database("other")]));
        let now = Clock::manual().now();
        let secret = |database: &Database, user: &str| {
            let name = database.name.to_string();
            password(found(users.lookup(Some(database), &key(&name, user), SCRAM, now)).server_secret())
        };
        assert_eq!(secret(&shop, "app").as_deref(), Some("shop's"));
        assert_eq!(secret(&shop, "root").as_deref(), Some("r"));
        assert_eq!(secret(&database("other"), "app").as_deref(), Some("all's"));
        let nobody = users.lookup(Some(&shop), &key("shop", "nobody"), SCRAM, now);
        assert!(matches!(nobody, Lookup::Unknown), "{nobody:?}");
        assert!(matches!(users.lookup(None, &key("gone", "app"), SCRAM, now), Lookup::Found { .. }));
    }

    #[test]
    fn a_user_named_only_in_the_configuration_is_known() {
        let now = Clock::manual().now();
        let own =
            Database { user: Some("app".into()), password: Some(Password::new("p")), ..database("shop") };
        let without = Database { user: Some("app".into()), ..database("bare") };
        let config = config(&[], vec![own.clone(), without.clone(), asking("asks")]);
        let users = Users::new(&config);
        for _ in 0..2 {
            assert!(found(users.lookup(Some(&own), &key("shop", "app"), SCRAM, now)).has_secret());
            let trusted = users.lookup(Some(&without), &key("bare", "app"), AuthMethod::Trust, now);
            assert!(!found(trusted).has_secret());
            let proved = users.lookup(Some(&without), &key("bare", "app"), SCRAM, now);
            assert!(matches!(proved, Lookup::Unknown), "{proved:?}");
            let asker = users.lookup(Some(&asking("asks")), &key("asks", "asker"), AuthMethod::Trust, now);
            assert!(!found(asker).has_secret());
            users.reload(&config);
        }
    }

    #[test]
    fn answers_are_fresh_then_refreshed_then_asked_for_first() {
        let (start, shop) = (Clock::manual().now(), asking("shop"));
        let users = Users::new(&config(&[], vec![shop.clone()]));
        let app = key("shop", "app");
        let at = |after: Duration| users.lookup(Some(&shop), &app, SCRAM, start + after);
        assert!(matches!(at(Duration::ZERO), Lookup::Ask(_)));
        users.answered(app.clone(), Some(Password::new("s")), start);
        let first = found(at(FRESH - Duration::from_millis(1)));
        assert!(matches!(at(FRESH), Lookup::Found { refresh: Some(_), .. }));
        assert!(matches!(at(FRESH), Lookup::Found { refresh: None, .. }), "one refresh at a time");
        assert!(matches!(at(FRESH + REFRESH_AGAIN), Lookup::Found { refresh: Some(_), .. }));
        assert!(matches!(at(USABLE), Lookup::Ask(_)));
        users.answered(app.clone(), Some(Password::new("s")), start + FRESH);
        assert!(Arc::ptr_eq(&first, &found(at(FRESH))), "what was learned stays");
        users.answered(app.clone(), Some(Password::new("changed")), start + FRESH);
        assert!(!Arc::ptr_eq(&first, &found(at(FRESH))));
    }

    #[test]
    fn unknown_names_and_errors_are_believed_for_a_while() {
        let (start, shop) = (Clock::manual().now(), asking("shop"));
        let users = Users::new(&config(&[], vec![shop.clone()]));
        let app = key("shop", "app");
        let at = |after: Duration| users.lookup(Some(&shop), &app, SCRAM, start + after);
        users.answered(app.clone(), None, start);
        assert!(matches!(at(NEGATIVE - Duration::from_millis(1)), Lookup::Unknown));
        assert!(matches!(at(NEGATIVE), Lookup::Ask(_)));
        users.unanswered(app.clone(), start + NEGATIVE);
        assert!(matches!(at(NEGATIVE), Lookup::Unknown));
        assert!(matches!(at(NEGATIVE + AFTER_ERROR), Lookup::Ask(_)));
        users.answered(app.clone(), Some(Password::new("s")), start);
        users.unanswered(app.clone(), start);
        assert!(matches!(at(FRESH / 2), Lookup::Found { .. }), "an answer outlives a failed refresh");
        users.answered(app.clone(), None, start);
        assert!(matches!(at(Duration::ZERO), Lookup::Unknown), "a dropped user is out at once");
    }

    #[test]
    fn a_failed_login_spoils_an_answer_but_not_every_millisecond() {
        let (start, shop) = (Clock::manual().now(), asking("shop"));
        let users = Users::new(&config(&[], vec![shop.clone()]));
        let app = key("shop", "app");
        let at = |after: Duration| users.lookup(Some(&shop), &app, SCRAM, start + after);
        users.answered(app.clone(), Some(Password::new("old")), start);
        users.failed(&app, start + SPOILABLE_AFTER / 2);
        assert!(matches!(at(SPOILABLE_AFTER), Lookup::Found { .. }));
        users.failed(&app, start + SPOILABLE_AFTER);
        assert!(matches!(at(SPOILABLE_AFTER), Lookup::Ask(_)));
    }

    #[test]
    fn reloading_keeps_what_has_not_changed() {
        let now = Clock::manual().now();
        let shop = database("shop");
        let users = Users::new(&config(&[("a", "1"), ("b", "2"), ("c", "3")], vec![shop.clone()]));
        let known = |user: &str| users.lookup(Some(&shop), &key("shop", user), SCRAM, now);
        let (a, b) = (found(known("a")), found(known("b")));
        users.reload(&config(&[("a", "1"), ("b", "changed")], vec![shop.clone()]));
        assert!(Arc::ptr_eq(&a, &found(known("a"))));
        assert!(!Arc::ptr_eq(&b, &found(known("b"))));
        assert!(matches!(known("c"), Lookup::Unknown));
        assert_eq!(users.counts(), (2, 0));
    }

    #[test]
    fn floods_of_names_stay_within_bounds() {
        let (now, shop) = (Clock::manual().now(), asking("shop"));
        let users = Users::new(&config(&[], vec![shop]));
        for n in 0..UNKNOWN_ENTRIES_MAX + 10 {
            users.answered(key("shop", &format!("x{n}")), None, now);
        }
        assert!(users.asked().unknown.len() <= UNKNOWN_ENTRIES_MAX);
        for n in 0..FOUND_ENTRIES_MAX {
            let answered = now + Duration::from_millis(n as u64);
            let found =
                Found { credential: new(&"u".into(), None), answered, refreshed: None, spoilt: false };
            users.asked().found.insert(key("shop", &format!("u{n}")), found);
        }
        users.answered(key("shop", "new"), Some(Password::new("s")), now + Duration::from_secs(60));
        let asked = users.asked();
        assert_eq!(asked.found.len(), FOUND_ENTRIES_MAX);
        assert!(!asked.found.contains_key(&key("shop", "u0")), "the oldest went");
        assert!(asked.found.contains_key(&key("shop", "new")));
    }

    #[test]
    fn server_logins_use_the_databases_password_then_the_clients_secret() {
        let client = Credential::new("app".into(), Some(Password::new("client's")));
        let check = |user: Option<&str>, given: Option<&str>, expected: (&str, Option<&str>)| {
            let shop = Database {
                user: user.map(str::to_owned),
                password: given.map(Password::new),
                ..database("shop")
            };
            let users = Users::new(&config(&[("forced", "listed"), ("app", "client's")], vec![shop.clone()]));
            let (name, secret) = users.server_login(&shop, &client);
            assert_eq!((&*name, password(secret).as_deref()), expected, "{user:?} {given:?}");
        };
        check(None, None, ("app", Some("client's")));
        check(None, Some("db's"), ("app", Some("db's")));
        check(Some("app"), Some("db's"), ("app", Some("db's")));
        check(Some("app"), None, ("app", Some("client's")));
        check(Some("forced"), Some("db's"), ("forced", Some("db's")));
        check(Some("forced"), None, ("forced", Some("listed")));
        check(Some("stranger"), None, ("stranger", None));
    }

    #[test]
    fn we_look_as_the_databases_user_or_as_the_one_that_asks() {
        let name = |database: &Database| {
            let users = Users::new(&config(&[("asker", "a")], vec![database.clone()]));
            users.monitor_login(database).map(|(user, secret)| (user.to_string(), password(secret)))
        };
        assert_eq!(name(&database("shop")), None);
        assert_eq!(name(&asking("shop")), Some(("asker".into(), Some("a".into()))));
        let both =
            Database { user: Some("app".into()), password: Some(Password::new("p")), ..asking("shop") };
        assert_eq!(name(&both), Some(("app".into(), Some("p".into()))));
        let mut own = asking("shop");
        own.auth_query.as_mut().unwrap().password = Some(Password::new("own"));
        assert_eq!(name(&own), Some(("asker".into(), Some("own".into()))));
    }
}
