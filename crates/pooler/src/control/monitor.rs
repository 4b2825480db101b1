//! Watching one database's servers: which is the primary, is it up, what do its definitions hide.
//!
//! **Intuition.** Workers find out that a server is gone when a connection breaks, but not which of the others took
//! over, nor when it is back. One connection that asks every second does, and the moment it sees a server again, all
//! that wait go on.
//!
//! **Mechanism.** [`Monitor::run`] resolves the hosts, asks all of them at once whether they are in recovery, keeps the
//! connection to the primary, and asks it once a second: still primary? restarted? definitions changed
//! ([`Catalogue::SIGNATURE_QUERY`])? With one host that host is the target whatever it says; with several the target is
//! the primary, and a standby only while there never was one.
//!
//! **Failure.** A lost connection is made anew every [`RETRY`], so that service is back within a second of the server;
//! a login that is refused is tried again every [`REFUSED_RETRY`]. Without a user to log in as, hosts are still resolved;
//! the rest is said once and left. While definitions have changed and are not yet read, the catalogue is stale, which
//! pins more but breaks nothing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tenfold_sql::{Catalogue, CatalogueBuilder};
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    client::{Client, Entrance},
    error::Error,
    resolver::Resolver,
    secrets::Salter,
    target::{Address, Target},
    watched::{Change, Event, Watched},
};
use crate::config::Database;

/// From one attempt to reach a server that is down to the next.
pub const RETRY: Duration = Duration::from_millis(150);
/// The same for a server that is up and refuses us, and for one that is down and nobody uses.
pub const REFUSED_RETRY: Duration = Duration::from_secs(5);
/// From one question to the next, also while nobody uses the database: its next client's first statement is decided by
/// what was read last.
pub const TICK: Duration = Duration::from_secs(1);
/// Questions without anybody using the database, until the monitor leaves.
const IDLE_TICKS_MAX: u32 = 300;
/// A server that does not answer a question for this long is gone.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// One attempt to reach one server, at most: a host that swallows packets must not hold up the others.
const PROBE_LIMIT: Duration = Duration::from_secs(3);
/// The same for reading the catalogue.
const CATALOGUE_LIMIT: Duration = Duration::from_secs(60);
/// After this many rounds without a primary among several hosts, a standby has to do, if there never was one.
const ROUNDS_WITHOUT_PRIMARY_MAX: u32 = 20;
/// The time until a catalogue that could not be read is tried again, in ticks.
const CATALOGUE_RETRY_TICKS: u32 = 30;

const FACTS_QUERY: &str =
    "SELECT pg_catalog.pg_is_in_recovery()::text, pg_catalog.pg_postmaster_start_time()::text";

/// Tells a monitor to look at once. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Poke {
    inner: Arc<Poked>,
}

#[derive(Debug, Default)]
struct Poked {
    notify: Notify,
    is_stale: AtomicBool,
}

impl Poke {
    /// A worker could not reach the target, or lost a connection to it.
    pub fn failed(&self) {
        self.inner.notify.notify_one();
    }

    /// DDL passed.
    pub fn stale(&self) {
        self.inner.is_stale.store(true, Ordering::Release);
        self.inner.notify.notify_one();
    }

    fn take_stale(&self) {
        self.inner.is_stale.store(false, Ordering::Release);
    }
}

/// What all monitors share. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tools {
    /// Names to addresses.
    pub resolver: Arc<Resolver>,
    /// Salts passwords.
    pub salter: Salter,
    /// The last version given to a catalogue.
    pub versions: Arc<AtomicU64>,
}

/// The monitor of one database.
pub struct Monitor {
    watched: Arc<dyn Watched>,
    tools: Tools,
    poke: Poke,
    /// What was said last, so that a server that is down fills no log.
    last_said: Option<Event>,
    last_started: Option<String>,
    ever_primary: bool,
    rounds_without_primary: u32,
    was_away: bool,
    idle_ticks: u32,
}

/// A server that answered.
struct Found {
    client: Client,
    address: Address,
    is_standby: bool,
    started: String,
}

/// Why the monitor stopped asking a server.
enum Left {
    /// Look for the server again.
    Lost,
    /// Nobody uses the database.
    Unused,
}

impl Monitor {
    /// A monitor that has not looked yet.
    #[must_use]
    pub fn new(watched: Arc<dyn Watched>, tools: Tools, poke: Poke) -> Self {
        Self {
            watched,
            tools,
            poke,
            last_said: None,
            last_started: None,
            ever_primary: false,
            rounds_without_primary: 0,
            was_away: false,
            idle_ticks: 0,
        }
    }

    /// Watches until nobody has used the database for minutes. Dropping it closes its connection.
    pub async fn run(mut self) {
        loop {
            let pause = match self.find().await {
                Ok(Some((found, spec))) => match self.keep(found, &spec).await {
                    Left::Unused => break,
                    Left::Lost => RETRY,
                },
                Ok(None) => {
                    self.give_up_reading();
                    REFUSED_RETRY
                }
                Err(error) => {
                    self.give_up_reading();
                    let pause = if error.is_refusal() { REFUSED_RETRY } else { RETRY };
                    self.say(Event::Lost { error: error.to_string() });
                    pause
                }
            };
            self.was_away = true;
            if self.rest(pause).await {
                break;
            }
        }
        // Nobody will notice what changes from here on.
        self.watched.definitions().change(true);
        self.watched.left();
    }

    /// Waits; true if nobody uses the database any longer.
    async fn rest(&mut self, pause: Duration) -> bool {
        let used = self.watched.is_used();
        if used && pause == RETRY {
            // A poke would only make it a storm.
            sleep(pause).await;
        } else {
            let _ = timeout(REFUSED_RETRY, self.poke.inner.notify.notified()).await;
        }
        self.is_idle_for(REFUSED_RETRY)
    }

    /// Counts time without anybody using the database; true once it is enough.
    fn is_idle_for(&mut self, passed: Duration) -> bool {
        let ticks = u32::try_from(passed.as_secs()).unwrap_or(u32::MAX);
        self.idle_ticks = if self.watched.is_used() { 0 } else { self.idle_ticks.saturating_add(ticks) };
        self.idle_ticks > IDLE_TICKS_MAX
    }

    /// Resolves the hosts, and finds the one that counts; `None` if there is nobody to log in as.
    async fn find(&mut self) -> Result<Option<(Found, Arc<Database>)>, Error> {
        let spec = self.watched.spec();
        let (addresses, failures) =
            self.tools.resolver.addresses(&spec.hosts, self.watched.dns_refresh()).await;
        for failure in &failures {
            self.say(Event::Unresolved { failure: failure.clone() });
        }
        if addresses.is_empty() {
            return Err(Error::Unresolved(failures.join("; ")));
        }
        let login = self.watched.login();
        // Workers need not wait for us where there is no choice to be made, or nobody to make it.
        if spec.hosts.len() == 1 || login.is_none() {
            self.publish_addresses(&addresses);
        }
        let Some((user, secret)) = login else {
            // Before its first client nobody can be known, and nothing is amiss.
            if self.watched.is_used() {
                self.say(Event::NoLogin);
            }
            return Ok(None);
        };
        let entrance = Entrance {
            user,
            dbname: spec.dbname.clone().unwrap_or_else(|| self.watched.name().to_string()),
            secret,
            tls: spec.server_tls.clone(),
            limit: spec.pool.connect_timeout.min(PROBE_LIMIT),
        };
        let found = self.choose(probe(&addresses, &entrance, &self.tools.salter).await?, spec.hosts.len())?;
        self.publish(&found, &addresses);
        Ok(Some((found, spec)))
    }

    /// The primary if there is one; a standby where it has to do.
    fn choose(&mut self, found: Found, hosts: usize) -> Result<Found, Error> {
        if !found.is_standby {
            (self.ever_primary, self.rounds_without_primary) = (true, 0);
            return Ok(found);
        }
        self.rounds_without_primary += 1;
        let has_to_do = !self.ever_primary && self.rounds_without_primary > ROUNDS_WITHOUT_PRIMARY_MAX;
        if hosts == 1 || has_to_do {
            return Ok(found);
        }
        Err(Error::NoPrimary)
    }

    fn publish_addresses(&self, addresses: &[Address]) {
        let target = self.watched.target();
        let same = target.addresses.len() == addresses.len()
            && addresses.iter().all(|address| target.addresses.contains(address));
        if !same {
            let generation = target.generation + 1;
            self.watched.set_target(Target { generation, addresses: addresses.to_vec() }, Change::Addresses);
        }
    }

    /// The addresses of the host that was found, the one that answered first.
    fn publish(&mut self, found: &Found, all: &[Address]) {
        let of_host = all.iter().filter(|address| address.host == found.address.host);
        let others = of_host.filter(|address| **address != found.address);
        let addresses: Vec<_> = std::iter::once(&found.address).chain(others).cloned().collect();
        let before = self.watched.target();
        let host_before = before.addresses.first().map(|address| address.host);
        let change = match host_before {
            Some(host) if host != found.address.host => Some(Change::Primary),
            _ if before.addresses != addresses => Some(Change::Addresses),
            _ if self.was_away => Some(Change::Back),
            _ => None,
        };
        if let Some(change) = change {
            self.watched.set_target(Target { generation: before.generation + 1, addresses }, change);
        }
        self.was_away = false;
        if self.last_started.as_ref().is_some_and(|started| *started != found.started) {
            self.say(Event::Restarted);
        }
        self.last_started = Some(found.started.clone());
        self.say(Event::Connected { address: found.address.clone(), is_standby: found.is_standby });
    }

    /// Asks the server once a second until it is lost, is no longer what it was, or nobody needs it.
    async fn keep(&mut self, mut found: Found, spec: &Arc<Database>) -> Left {
        let mut signature: Option<String> = None;
        let mut catalogue_due_ticks = 0_u32;
        loop {
            if catalogue_due_ticks == 0 {
                match self.refresh_catalogue(&mut found.client, &mut signature).await {
                    Ok(()) => {}
                    Err(error) if error.is_of_statement() || matches!(error, Error::Catalogue(_)) => {
                        self.say(Event::CatalogueFailed { error: error.to_string() });
                        self.give_up_reading();
                        catalogue_due_ticks = CATALOGUE_RETRY_TICKS;
                    }
                    Err(error) => return self.lost(&error),
                }
            }
            if self.is_idle_for(TICK) {
                return Left::Unused;
            }
            let poked = timeout(TICK, self.poke.inner.notify.notified()).await.is_ok();
            let told = poked && self.poke.inner.is_stale.load(Ordering::Acquire);
            catalogue_due_ticks = if told { 0 } else { catalogue_due_ticks.saturating_sub(1) };
            let facts = match facts(&mut found.client).await {
                Ok(facts) => facts,
                Err(error) => return self.lost(&error),
            };
            let moved = !Arc::ptr_eq(spec, &self.watched.spec()) || self.has_moved(&found, spec).await;
            if moved || facts != (found.is_standby, found.started.clone()) {
                return Left::Lost;
            }
        }
    }

    /// Whether the host's name now means other addresses.
    async fn has_moved(&self, found: &Found, spec: &Database) -> bool {
        let (addresses, _) = self.tools.resolver.addresses(&spec.hosts, self.watched.dns_refresh()).await;
        !addresses.contains(&found.address)
    }

    fn lost(&mut self, error: &Error) -> Left {
        self.say(Event::Lost { error: error.to_string() });
        self.give_up_reading();
        Left::Lost
    }

    /// Nobody is to wait for definitions that cannot be read now.
    fn give_up_reading(&self) {
        self.watched.definitions().give_up();
        self.watched.definitions_settled();
    }

    /// Reads the catalogue if it was never read or definitions have changed since.
    async fn refresh_catalogue(
        &mut self,
        client: &mut Client,
        signature: &mut Option<String>,
    ) -> Result<(), Error> {
        // Who tells of a change has counted it.
        self.poke.take_stale();
        let definitions = self.watched.definitions();
        let rows = limited(ANSWER_LIMIT, client.rows(Catalogue::SIGNATURE_QUERY)).await?;
        let now =
            rows.into_iter().next().and_then(|row| row.into_iter().next()).flatten().unwrap_or_default();
        if !definitions.is_behind() {
            if signature.as_ref() == Some(&now) {
                return Ok(());
            }
            definitions.change(true);
        }
        definitions.reading();
        let version = self.tools.versions.fetch_add(1, Ordering::Relaxed) + 1;
        let catalogue = match limited(CATALOGUE_LIMIT, read_catalogue(client, version)).await {
            Ok(catalogue) => catalogue,
            Err(error) => {
                // In case it failed inside the transaction.
                limited(ANSWER_LIMIT, client.rows("ROLLBACK")).await?;
                return Err(error);
            }
        };
        self.watched.definitions().read(&catalogue);
        self.watched.definitions_settled();
        *signature = Some(now);
        self.watched.told(Event::Catalogue { version });
        Ok(())
    }

    fn say(&mut self, event: Event) {
        if self.last_said.as_ref() != Some(&event) {
            self.watched.told(event.clone());
            self.last_said = Some(event);
        }
    }
}

/// Asks all addresses at once; the first primary, else a standby, else why there is neither.
async fn probe(addresses: &[Address], entrance: &Entrance, salter: &Salter) -> Result<Found, Error> {
    let mut probes = JoinSet::new();
    for address in addresses {
        let (address, entrance, salter) = (address.clone(), entrance.clone(), salter.clone());
        probes.spawn(async move {
            let mut client = Client::connect(&address, &entrance, &salter).await?;
            let (is_standby, started) = facts(&mut client).await?;
            Ok::<_, Error>(Found { client, address, is_standby, started })
        });
    }
    let (mut standby, mut refusal, mut failure) = (None, None, None);
    while let Some(probed) = probes.join_next().await {
        match probed {
            Ok(Ok(found)) if !found.is_standby => return Ok(found),
            Ok(Ok(found)) => standby = Some(found),
            Ok(Err(error)) if error.is_refusal() => refusal = Some(error),
            Ok(Err(error)) => failure = Some(error),
            Err(_) => {}
        }
    }
    // A server that is down may be the one that matters, so its failure is the one to act on.
    standby.ok_or_else(|| failure.or(refusal).unwrap_or(Error::Closed))
}

/// Whether the server is a standby, and when it was started.
async fn facts(client: &mut Client) -> Result<(bool, String), Error> {
    let rows = limited(ANSWER_LIMIT, client.rows(FACTS_QUERY)).await?;
    match rows.into_iter().next().as_deref() {
        Some([Some(in_recovery), Some(started)]) => Ok((in_recovery == "true", started.clone())),
        _ => Err(tenfold_pgwire::Error::MessageFormat.into()),
    }
}

/// Reads all of it in one snapshot and follows it to the end on a thread for blocking work.
async fn read_catalogue(client: &mut Client, version: u64) -> Result<Arc<Catalogue>, Error> {
    let mut builder = CatalogueBuilder::new();
    client.rows("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    for (index, query) in Catalogue::QUERIES.iter().enumerate() {
        client.each_row(query, |columns| Ok(builder.row(index, columns)?)).await?;
    }
    client.rows("COMMIT").await?;
    let building = tokio::task::spawn_blocking(move || builder.build(version));
    building.await.map_err(|_| Error::Closed)
}

async fn limited<T>(limit: Duration, answer: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    timeout(limit, answer).await.unwrap_or(Err(Error::TimedOut("waiting for the server's answer")))
}
