//! One connection that listens for all clients of a database.
//!
//! **Intuition.** `LISTEN` belongs to a session, and in transaction mode no client has one of its own. So one connection
//! listens to every channel that anybody wants, and each notification is handed to the workers whose clients want it.
//!
//! **Mechanism.** [`Hub::run`] takes asks in batches, so that ten thousand clients that start at once cost a few round
//! trips: what nobody listened to before is listened to, what nobody wants any longer is dropped, and a client is told
//! only once the server has answered for all its channels. [`Members`] knows who wants what. A connection without
//! channels is closed after [`QUIET`]; one that is silent is asked for a sign of life every [`PING`], since a listener
//! on a dead connection would wait for ever.
//!
//! **Failure.** A lost connection loses notifications, and nothing can tell which: every worker with listeners is told,
//! and closes them, so that they come back and look for what they missed. The next ask connects anew.
//!
//! Source: PostgreSQL documentation, `LISTEN`: "takes effect at transaction commit".

mod members;

use std::{hash::Hash, sync::Arc, time::Duration};

use tenfold_sql::quote::quote_ident;
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

pub use members::Members;

use super::{
    client::{Client, Entrance, channel_of},
    error::Error,
    secrets::Salter,
    watched::{Event, Watched},
};

/// Asks taken at once.
const BATCH_MAX: usize = 1_000;
/// Channels in one query.
const QUERY_CHANNELS_MAX: usize = 200;
/// Silence after which the server is asked for a sign of life.
pub const PING: Duration = Duration::from_secs(15);
/// How long it has to give one, or to answer anything else.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// A connection without channels is closed after this.
pub const QUIET: Duration = Duration::from_secs(60);
/// Attempts to connect, for one batch of asks.
const ATTEMPTS_MAX: u32 = 3;
/// From one attempt to the next.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(150);

/// What workers ask of a hub. `K` names a client to its worker.
#[derive(Clone, Debug)]
pub enum HubAsk<K> {
    /// This client listens to just these channels now; [`Outlet::listening`] when they are.
    Listen {
        /// The client's worker.
        worker: usize,
        /// Which client.
        client: K,
        /// All its channels, as the server names them.
        channels: Vec<Arc<str>>,
    },
    /// This client listens to nothing any longer.
    Unlisten {
        /// The client's worker.
        worker: usize,
        /// Which client.
        client: K,
    },
    /// An empty notification is to be sent.
    Notify {
        /// To whom.
        channel: Arc<str>,
    },
}

/// Where a hub's answers go.
pub trait Outlet<K>: Send + Sync + 'static {
    /// All channels of the client's last [`HubAsk::Listen`] are listened to.
    fn listening(&self, worker: usize, client: K);
    /// They are not, and the client listens to nothing.
    fn refused(&self, worker: usize, client: K, error: &Error);
    /// A whole NotificationResponse, for the clients of this worker that listen to its channel.
    fn notify(&self, worker: usize, channel: &Arc<str>, message: &Arc<[u8]>);
    /// The connection is lost: no client of this worker listens to anything.
    fn lost(&self, worker: usize);
}

/// The hub of one database.
pub struct Hub<K> {
    watched: Arc<dyn Watched>,
    salter: Salter,
    outlet: Arc<dyn Outlet<K>>,
    members: Members<K>,
    client: Option<Client>,
}

/// What woke the hub.
enum Woken<K> {
    Asks(Vec<HubAsk<K>>),
    Message(Result<Vec<u8>, Error>),
    Silence,
    Over,
}

impl<K: Copy + Eq + Hash + Send + Sync + 'static> Hub<K> {
    /// A hub that is not connected yet.
    #[must_use]
    pub fn new(watched: Arc<dyn Watched>, salter: Salter, outlet: Arc<dyn Outlet<K>>) -> Self {
        Self { watched, salter, outlet, members: Members::default(), client: None }
    }

    /// Serves until `asks` is closed.
    pub async fn run(mut self, mut asks: mpsc::Receiver<HubAsk<K>>) {
        loop {
            match self.wait(&mut asks).await {
                Woken::Over => return,
                Woken::Asks(batch) => self.serve(batch).await,
                Woken::Message(Ok(message)) => self.dispatch(&message),
                Woken::Message(Err(error)) => self.lose(&error),
                Woken::Silence => self.ping().await,
            }
        }
    }

    async fn wait(&mut self, asks: &mut mpsc::Receiver<HubAsk<K>>) -> Woken<K> {
        let mut batch = Vec::new();
        let Some(client) = &mut self.client else {
            return match asks.recv_many(&mut batch, BATCH_MAX).await {
                0 => Woken::Over,
                _ => Woken::Asks(batch),
            };
        };
        let silence = if self.members.is_empty() { QUIET } else { PING };
        // All three branches are cancellation safe.
        tokio::select! {
            message = client.notification() => Woken::Message(message),
            taken = asks.recv_many(&mut batch, BATCH_MAX) => {
                if taken == 0 { Woken::Over } else { Woken::Asks(batch) }
            }
            () = sleep(silence) => Woken::Silence,
        }
    }

    async fn serve(&mut self, batch: Vec<HubAsk<K>>) {
        let (mut joined, mut wanted, mut to_notify) = (Vec::new(), Vec::new(), Vec::new());
        for ask in batch {
            match ask {
                HubAsk::Listen { worker, client, channels } => {
                    wanted.extend(self.members.set(worker, client, channels));
                    joined.push((worker, client));
                }
                HubAsk::Unlisten { worker, client } => self.members.remove(worker, client),
                HubAsk::Notify { channel } => to_notify.push(channel),
            }
        }
        let unwanted = self.members.take_unwanted();
        // What came and went within the batch was never listened to.
        wanted.retain(|channel| self.members.is_wanted(channel));
        match self.apply(&wanted, &unwanted, &to_notify).await {
            Ok(()) => {
                for (worker, client) in joined {
                    if self.members.contains(worker, client) {
                        self.outlet.listening(worker, client);
                    }
                }
            }
            Err(error) if error.is_of_statement() => self.part(&joined, &wanted, &error),
            Err(error) => {
                self.part(&joined, &wanted, &error);
                self.lose(&error);
            }
        }
    }

    /// The clients that asked for what the server refused leave again.
    fn part(&mut self, joined: &[(usize, K)], wanted: &[Arc<str>], error: &Error) {
        for &(worker, client) in joined {
            if !self.members.listens_to_any(worker, client, wanted) && error.is_of_statement() {
                self.outlet.listening(worker, client);
                continue;
            }
            self.members.remove(worker, client);
            self.outlet.refused(worker, client, error);
        }
        let _ = self.members.take_unwanted();
    }

    /// Brings the connection to what is wanted, making one if there is none.
    async fn apply(
        &mut self,
        wanted: &[Arc<str>],
        unwanted: &[Arc<str>],
        to_notify: &[Arc<str>],
    ) -> Result<(), Error> {
        if wanted.is_empty() && to_notify.is_empty() && (unwanted.is_empty() || self.client.is_none()) {
            return Ok(());
        }
        let client = match &mut self.client {
            Some(client) => client,
            none => none.insert(connect(&*self.watched, &self.salter).await?),
        };
        for (verb, channels) in [("LISTEN ", wanted), ("UNLISTEN ", unwanted), ("NOTIFY ", to_notify)] {
            for some in channels.chunks(QUERY_CHANNELS_MAX) {
                let sql = statements(verb, some);
                let limited = timeout(ANSWER_LIMIT, client.rows(&sql)).await;
                limited.unwrap_or(Err(Error::TimedOut("waiting for LISTEN")))?;
            }
        }
        Ok(())
    }

    fn dispatch(&self, message: &[u8]) {
        let Some(channel) = channel_of(message) else { return };
        let Some((channel, workers)) = self.members.workers(channel) else { return };
        let message: Arc<[u8]> = message.into();
        for worker in workers {
            self.outlet.notify(worker, channel, &message);
        }
    }

    /// Asks for a sign of life, or closes a connection nobody needs.
    async fn ping(&mut self) {
        if self.members.is_empty() {
            self.client = None;
            return;
        }
        let Some(client) = &mut self.client else { return };
        let answer = timeout(ANSWER_LIMIT, client.rows("")).await;
        if let Err(error) = answer.unwrap_or(Err(Error::TimedOut("waiting for a sign of life"))) {
            self.lose(&error);
        }
    }

    fn lose(&mut self, error: &Error) {
        self.client = None;
        self.watched.told(Event::HubLost { error: error.to_string() });
        for worker in self.members.clear() {
            self.outlet.lost(worker);
        }
    }
}

/// Connects to the first address of the target that lets us in.
async fn connect(watched: &dyn Watched, salter: &Salter) -> Result<Client, Error> {
    let mut last = Error::Unresolved("not yet".into());
    for attempt in 0..ATTEMPTS_MAX {
        if attempt > 0 {
            sleep(ATTEMPT_PAUSE).await;
        }
        let spec = watched.spec();
        let Some((user, secret)) = watched.login() else { return Err(Error::NoLogin) };
        let entrance = Entrance {
            user,
            dbname: spec.dbname.clone().unwrap_or_else(|| watched.name().to_string()),
            secret,
            tls: spec.server_tls.clone(),
            limit: spec.pool.connect_timeout,
        };
        for address in &watched.target().addresses {
            match Client::connect(address, &entrance, salter).await {
                Ok(client) => return Ok(client),
                Err(error) => last = error,
            }
        }
        if last.is_refusal() {
            break;
        }
    }
    Err(last)
}

/// `LISTEN "a";LISTEN "b"`.
fn statements(verb: &str, channels: &[Arc<str>]) -> String {
    let mut sql = Vec::new();
    for channel in channels {
        sql.extend_from_slice(verb.as_bytes());
        quote_ident(channel.as_bytes(), &mut sql);
        sql.push(b';');
    }
    String::from_utf8_lossy(&sql).into_owned()
}
