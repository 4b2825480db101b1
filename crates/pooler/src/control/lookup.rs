//! Asking a database for a user's secret.
//!
//! **Intuition.** `auth_query` makes the database the users' list: each unknown name is one query, by a user that may
//! read the secrets. A thousand clients of one name need one answer.
//!
//! **Mechanism.** [`Lookups::ask`] joins a question that is under way, or asks on one of [`CONNECTIONS_MAX`] connections
//! kept for each asked database, and leaves the answer in [`Users`]. The name is a bound parameter, never part of the
//! text.
//!
//! **Failure.** Whatever goes wrong is told as an [`Event`] with the server's words, and counts as "unknown" for a
//! second; the client reads of a wrong password. A connection that failed is dropped, as is one that was idle for
//! [`IDLE_LIMIT`] or belongs to yesterday's configuration; one that went stale while idle is replaced once. Questions
//! beyond [`WAITING_MAX`] are not asked.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tenfold_service::clock::Clock;
use tokio::{
    sync::{Semaphore, watch},
    time::{sleep, timeout},
};

use super::{
    client::{Client, Entrance, Row},
    error::Error,
    monitor::Tools,
    watched::{Event, Watched},
};
use crate::{
    auth::{LookupKey, ServerSecret, users::Users},
    config::{AuthQuery, Database, Password},
};

/// Connections to each asked database.
pub const CONNECTIONS_MAX: usize = 2;
/// Questions under way or waiting, over all databases.
pub const WAITING_MAX: usize = 10_000;
/// From taking up a question to its answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Connections that nobody used for this long are closed.
pub const IDLE_LIMIT: Duration = Duration::from_secs(30);
/// Databases whose connections are kept.
const DATABASES_MAX: usize = 1_000;

/// Finds a database by the name clients use; the console's and unknown ones are not found.
pub type Directory = dyn Fn(&str) -> Option<Arc<dyn Watched>> + Send + Sync;

/// Look-ups of all databases.
pub struct Lookups {
    users: Arc<Users>,
    clock: Clock,
    tools: Tools,
    directory: Box<Directory>,
    desks: Mutex<HashMap<Arc<str>, Arc<Desk>>>,
    /// Closed when the answer is there.
    under_way: Mutex<HashMap<LookupKey, watch::Receiver<()>>>,
}

/// The connections to one database.
#[derive(Debug)]
struct Desk {
    turns: Semaphore,
    idle: Mutex<Vec<Idle>>,
    /// Uses so far, by which the sweeper sees whether there were any.
    uses: AtomicU64,
    has_sweeper: AtomicBool,
}

/// A connection that waits for a question, and what it was made from.
#[derive(Debug)]
struct Idle {
    client: Client,
    spec: Arc<Database>,
    generation: u64,
}

impl Lookups {
    /// None under way.
    #[must_use]
    pub fn new(users: Arc<Users>, clock: Clock, tools: Tools, directory: Box<Directory>) -> Self {
        Self { users, clock, tools, directory, desks: Mutex::default(), under_way: Mutex::default() }
    }

    /// Has the user of this key looked up, for a client of this database, and returns once [`Users`] knows. Cancellation
    /// safe: others that wait for the same answer then ask themselves.
    pub async fn ask(&self, database: &Arc<dyn Watched>, key: &LookupKey) {
        let mut others = match self.join(key) {
            Joined::First(own) => {
                self.answer(database, key).await;
                lock(&self.under_way).remove(key);
                drop(own);
                return;
            }
            Joined::Waiting(others) => others,
            Joined::Full => {
                self.fail(database, key, &"too many look-ups at once");
                return;
            }
        };
        // Ends with an error when the first one is done.
        while others.changed().await.is_ok() {}
    }

    fn join(&self, key: &LookupKey) -> Joined {
        let mut under_way = lock(&self.under_way);
        if let Some(others) = under_way.get(key).filter(|others| others.has_changed().is_ok()) {
            return Joined::Waiting(others.clone());
        }
        if under_way.len() >= WAITING_MAX {
            under_way.retain(|_, others| others.has_changed().is_ok());
        }
        if under_way.len() >= WAITING_MAX {
            return Joined::Full;
        }
        let (own, others) = watch::channel(());
        under_way.insert(key.clone(), others);
        Joined::First(own)
    }

    async fn answer(&self, database: &Arc<dyn Watched>, key: &LookupKey) {
        let answer = timeout(ANSWER_LIMIT, self.query(database, key)).await;
        let answer = answer.unwrap_or(Err(Error::TimedOut("looking up a user")));
        match answer.and_then(|rows| secret(&rows)) {
            Ok(secret) => self.users.answered(key.clone(), secret, self.clock.now()),
            Err(error) => self.fail(database, key, &error),
        }
    }

    fn fail(&self, database: &Arc<dyn Watched>, key: &LookupKey, error: &dyn std::fmt::Display) {
        database.told(Event::LookupFailed { user: Arc::clone(&key.user), error: error.to_string() });
        self.users.unanswered(key.clone(), self.clock.now());
    }

    async fn query(&self, database: &Arc<dyn Watched>, key: &LookupKey) -> Result<Vec<Row>, Error> {
        let spec = database.spec();
        let Some(asks) = &spec.auth_query else { return Err(Error::NoLogin) };
        let asked = self.asked(database, asks)?;
        let desk = self.desk(asked.name());
        let _turn = desk.turns.acquire().await.map_err(|_| Error::Closed)?;
        let (of_asked, generation) = (asked.spec(), asked.target().generation);
        if let Some(mut idle) = desk.take(&of_asked, generation) {
            match idle.client.bound(&asks.query, &[&key.user]).await {
                Err(error) if !error.is_of_statement() => {}
                answer => {
                    desk.give_back(idle);
                    return answer;
                }
            }
        }
        let mut client = self.connect(&asked, database, asks).await?;
        let answer = client.bound(&asks.query, &[&key.user]).await;
        if answer.as_ref().err().is_none_or(Error::is_of_statement) {
            desk.give_back(Idle { client, spec: of_asked, generation });
        }
        answer
    }

    /// The database to ask: the client's own, or the one that is named.
    fn asked(&self, database: &Arc<dyn Watched>, asks: &AuthQuery) -> Result<Arc<dyn Watched>, Error> {
        match &asks.database {
            None => Ok(Arc::clone(database)),
            Some(name) if *name == *database.name() => Ok(Arc::clone(database)),
            Some(name) => (self.directory)(name).ok_or_else(|| Error::NoSuchDatabase(name.to_string())),
        }
    }

    async fn connect(
        &self,
        asked: &Arc<dyn Watched>,
        database: &Arc<dyn Watched>,
        asks: &AuthQuery,
    ) -> Result<Client, Error> {
        let (spec, of_client) = (asked.spec(), database.spec());
        // The user may have its password with the client's database or with the one that is asked.
        let (user, secret) = match self.users.own_login(&of_client, &asks.user) {
            (_, ServerSecret::None) => self.users.own_login(&spec, &asks.user),
            login => login,
        };
        let entrance = Entrance {
            user,
            dbname: spec.dbname.clone().unwrap_or_else(|| asked.name().to_string()),
            secret,
            tls: spec.server_tls.clone(),
            limit: spec.pool.connect_timeout,
        };
        let mut addresses = asked.target().addresses.clone();
        let mut last = Error::Unresolved("not yet".into());
        if addresses.is_empty() {
            // Its first client: nobody watches it yet.
            let (resolved, failures) = self.tools.resolver.addresses(&spec.hosts, asked.dns_refresh()).await;
            (addresses, last) = (resolved, Error::Unresolved(failures.join("; ")));
        }
        for address in &addresses {
            match Client::connect(address, &entrance, &self.tools.salter).await {
                Ok(client) => return Ok(client),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn desk(&self, name: &Arc<str>) -> Arc<Desk> {
        let mut desks = lock(&self.desks);
        if desks.len() >= DATABASES_MAX && !desks.contains_key(name) {
            // Those that are at work keep theirs until they are done.
            desks.clear();
        }
        Arc::clone(desks.entry(Arc::clone(name)).or_insert_with(|| Arc::new(Desk::new())))
    }
}

impl Desk {
    fn new() -> Self {
        Self {
            turns: Semaphore::new(CONNECTIONS_MAX),
            idle: Mutex::default(),
            uses: AtomicU64::new(0),
            has_sweeper: AtomicBool::new(false),
        }
    }

    /// An idle connection to what is configured now; others are closed.
    fn take(&self, spec: &Arc<Database>, generation: u64) -> Option<Idle> {
        let mut idle = lock(&self.idle);
        idle.retain(|idle| Arc::ptr_eq(&idle.spec, spec) && idle.generation == generation);
        idle.pop()
    }

    /// Keeps a connection for the next question, until there was none for a while.
    fn give_back(self: &Arc<Self>, idle: Idle) {
        lock(&self.idle).push(idle);
        self.uses.fetch_add(1, Ordering::Relaxed);
        if self.has_sweeper.swap(true, Ordering::AcqRel) {
            return;
        }
        let desk = Arc::clone(self);
        tokio::spawn(async move {
            loop {
                let before = desk.uses.load(Ordering::Relaxed);
                sleep(IDLE_LIMIT).await;
                if desk.uses.load(Ordering::Relaxed) == before {
                    break;
                }
            }
            desk.has_sweeper.store(false, Ordering::Release);
            lock(&desk.idle).clear();
        });
    }
}

enum Joined {
    First(watch::Sender<()>),
    Waiting(watch::Receiver<()>),
    Full,
}

/// The secret in an answer: `None` if there is no such user.
fn secret(rows: &[Row]) -> Result<Option<Password>, Error> {
    match rows {
        [] => Ok(None),
        [row] => match row.as_slice() {
            [Some(_), secret, ..] => Ok(Some(Password::new(secret.as_deref().unwrap_or_default()))),
            _ => Err(Error::AuthQuery("its answer is not a name and a secret")),
        },
        _ => Err(Error::AuthQuery("it found more than one user of this name")),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(columns: &[Option<&str>]) -> Row {
        columns.iter().map(|column| column.map(str::to_owned)).collect()
    }

    #[test]
    fn an_answer_is_one_name_and_one_secret() {
        let check = |rows: &[Row], expected: Result<Option<&str>, ()>| {
            let found = secret(rows);
            let found = found.as_ref().map(|secret| secret.as_ref().map(Password::expose)).map_err(drop);
            assert_eq!(found, expected, "{rows:?}");
        };
        check(&[], Ok(None));
        check(&[row(&[Some("ann"), Some("pencil")])], Ok(Some("pencil")));
        check(&[row(&[Some("ann"), Some("pencil"), None])], Ok(Some("pencil")));
        check(&[row(&[Some("ann"), None])], Ok(Some("")));
        check(&[row(&[None, Some("pencil")])], Err(()));
        check(&[row(&[Some("pencil")])], Err(()));
        check(&[row(&[])], Err(()));
        check(&[row(&[Some("ann"), Some("a")]), row(&[Some("ann"), Some("b")])], Err(()));
    }
}
