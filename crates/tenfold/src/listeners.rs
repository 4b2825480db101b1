//! The sockets of both tiers: bound before anything runs, and changed by a reload.
//!
//! **Intuition.** A listener is where a tier's clients arrive, and each of them can be taken away or added while the
//! process runs. Both tiers' are kept in one place, because one may need the port that another gives up.
//!
//! **Mechanism.** [`Listeners::bind_added`] binds what a new configuration adds, without accepting; when everything else
//! is settled, [`Listeners::take_over`] hands those to the acceptor and closes what is no longer wanted. A new listener
//! that needs the port of one that leaves (`127.0.0.1:8080` becomes `0.0.0.0:8080`) has it leave first.
//!
//! **Failure.** What cannot be bound is said for each, and those that made way come back.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use tenfold_pooler::config::Listen;
use tenfold_service::Error;
use tenfold_service::acceptor::{AcceptorHandle, Address, Listener, Service};

use crate::config::settings::Settings;

/// Whose clients arrive there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// HTTP.
    Edge,
    /// PostgreSQL.
    Pooler,
}

impl Tier {
    /// The key that says where it listens.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::Edge => "edge.listen",
            Self::Pooler => "pooler.listen",
        }
    }
}

/// A configured place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Whose.
    pub tier: Tier,
    /// Port 0 stands for a free one.
    pub at: Address,
}

/// The places a configuration wants.
#[must_use]
pub fn wanted(settings: &Settings) -> Vec<Place> {
    let edge = settings.edge.listen.iter().map(|at| Place { tier: Tier::Edge, at: Address::Tcp(*at) });
    let pooler = settings.pooler.iter().flat_map(|pooler| &pooler.listen);
    let pooler = pooler.map(|listen| {
        let at = match (listen, listen.path()) {
            (Listen::Tcp(at), _) => Address::Tcp(*at),
            (Listen::Unix { .. }, path) => Address::Unix(path.unwrap_or_default()),
        };
        Place { tier: Tier::Pooler, at }
    });
    edge.chain(pooler).collect()
}

/// Binds a place; connections queue from here on.
///
/// # Errors
/// Why not, and what to do.
pub fn bind(at: &Address) -> Result<Listener, Error> {
    match at {
        Address::Tcp(at) => Listener::bind(*at),
        Address::Unix(path) => Listener::bind_path(path),
    }
}

/// What a listener's tier does with connections.
pub type ServiceOf<'a> = &'a dyn Fn(Tier) -> Option<Service>;

/// A place that could not be bound, or taken back.
#[derive(Debug)]
pub struct Unbound {
    /// Which key.
    pub tier: Tier,
    /// What went wrong.
    pub message: String,
}

/// Listeners that a reload adds, and those that made way for them.
#[derive(Debug)]
pub struct Added(Vec<(Place, Listener)>);

/// What the process listens on.
pub struct Listeners {
    acceptor: AcceptorHandle,
    /// Configured places and what they became.
    bound: RefCell<BTreeMap<Place, Address>>,
}

impl Listeners {
    /// Those the acceptor was started with.
    #[must_use]
    pub fn new(acceptor: AcceptorHandle, bound: BTreeMap<Place, Address>) -> Self {
        Self { acceptor, bound: RefCell::new(bound) }
    }

    /// Where a tier listens now.
    #[must_use]
    pub fn of(&self, tier: Tier) -> Vec<String> {
        let bound = self.bound.borrow();
        bound.iter().filter(|(place, _)| place.tier == tier).map(|(_, local)| local.to_string()).collect()
    }

    /// Binds what `settings` add, and accepts nothing from it yet.
    ///
    /// # Errors
    /// What could not be bound; all is as before then.
    pub async fn bind_added(&self, wanted: &[Place], service: ServiceOf<'_>) -> Result<Added, Vec<Unbound>> {
        let mut problems = Vec::new();
        let mut added = Vec::new();
        let mut made_way = Vec::new();
        for place in wanted {
            if self.bound.borrow().contains_key(place) {
                continue;
            }
            match self.bind(place, wanted, &mut made_way).await {
                Ok(listener) => added.push((place.clone(), listener)),
                Err(error) => problems.push(Unbound { tier: place.tier, message: error.to_string() }),
            }
        }
        if problems.is_empty() {
            return Ok(Added(added));
        }
        drop(added);
        for (place, local) in made_way {
            if let Err(error) = self.take_back(&place, &local, service).await {
                self.bound.borrow_mut().remove(&place);
                let message = format!("{} made way and could not be taken back: {error}", place.at);
                problems.push(Unbound { tier: place.tier, message });
            }
        }
        Err(problems)
    }

    async fn take_back(&self, place: &Place, local: &Address, service: ServiceOf<'_>) -> Result<(), Error> {
        let Some(service) = service(place.tier) else { return Ok(()) };
        self.acceptor.add(bind(local)?, service).await
    }

    /// Binds a place. If listeners that leave have its port, they make way for it.
    async fn bind(
        &self,
        place: &Place,
        wanted: &[Place],
        made_way: &mut Vec<(Place, Address)>,
    ) -> Result<Listener, Error> {
        let error = match bind(&place.at) {
            Err(error) if is_in_use(&error) => error,
            other => return other,
        };
        let Some(port) = place.at.tcp().map(|at| at.port()) else { return Err(error) };
        let leaving: Vec<_> = self.bound.borrow().clone().into_iter().collect();
        let mut freed = false;
        for (other, local) in leaving {
            let has_port = local.tcp().is_some_and(|at| at.port() == port);
            if has_port && !wanted.contains(&other) && self.acceptor.remove(local.clone()).await {
                made_way.push((other, local));
                freed = true;
            }
        }
        if freed { bind(&place.at) } else { Err(error) }
    }

    /// Accepts from what was added, and closes what is no longer wanted.
    pub async fn take_over(&self, wanted: &[Place], added: Added, service: ServiceOf<'_>) -> Vec<String> {
        let mut problems = Vec::new();
        let leaving = self.bound.borrow().clone();
        for (place, listener) in added.0 {
            let local = listener.local().clone();
            let Some(service) = service(place.tier) else { continue };
            match self.acceptor.add(listener, service).await {
                Ok(()) => drop(self.bound.borrow_mut().insert(place, local)),
                Err(error) => problems.push(error.to_string()),
            }
        }
        for (place, local) in leaving.into_iter().filter(|(place, _)| !wanted.contains(place)) {
            // One that made way is gone already.
            self.acceptor.remove(local).await;
            self.bound.borrow_mut().remove(&place);
        }
        problems
    }

    /// A second descriptor of every listening socket, with its place.
    ///
    /// # Errors
    /// If there is none left.
    pub async fn share(&self) -> io::Result<Vec<(Place, OwnedFd)>> {
        let shared = self.acceptor.share().await?;
        let bound = self.bound.borrow();
        let place_of = |at: &Address| bound.iter().find(|(_, local)| *local == at).map(|(place, _)| place);
        Ok(shared.into_iter().filter_map(|(at, socket)| Some((place_of(&at)?.clone(), socket))).collect())
    }

    /// Accepts nothing, or again.
    pub fn park(&self, on: bool) {
        self.acceptor.park(on);
    }

    /// Closes all of them for good; another process has them.
    pub async fn give_up(&self) {
        self.acceptor.give_up().await;
    }

    /// The files of Unix sockets that another process bound are this one's now.
    pub async fn own_files(&self) {
        self.acceptor.own_files(true).await;
    }

    /// Where HTTP clients arrive.
    #[must_use]
    pub fn edge(&self) -> Vec<SocketAddr> {
        let bound = self.bound.borrow();
        bound.iter().filter(|(place, _)| place.tier == Tier::Edge).filter_map(|(_, at)| at.tcp()).collect()
    }
}

fn is_in_use(error: &Error) -> bool {
    matches!(error, Error::Bind { source, .. } if source.kind() == ErrorKind::AddrInUse)
}
