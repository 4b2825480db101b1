//! How many connections may be open, in total and per client address, and how many descriptors we may use.
//!
//! **Intuition.** Connections are the first thing that runs out. Each accepted socket holds a [`Permit`]; when there is
//! none to be had, the socket is refused with its reason instead of starving the others. Whole carriers sit behind one
//! IPv4 address, so the limit per address is off unless asked for.
//!
//! **Mechanism.** The total is one atomic. The counts per address are exact, in a map of `SHARDS` locks, each held for
//! a few instructions; an entry goes away when its count falls to zero, so the map never holds more entries than there
//! are connections. IPv4 counts whole addresses (also when mapped into IPv6), IPv6 the /64 that one customer gets.
//!
//! **Failure.** A limit switched on or changed by a reload applies to connections accepted from then on; those accepted
//! while it was off were not counted per address and never will be.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::{Error, drain::TaskGuard};

/// Limits on open connections, shared by all listeners and workers.
#[derive(Debug)]
pub struct ConnectionLimits {
    total: AtomicUsize,
    total_max: AtomicUsize,
    /// Zero: off.
    per_ip_max: AtomicUsize,
    shards: [Mutex<HashMap<IpKey, usize, foldhash::fast::RandomState>>; SHARDS],
    hasher: foldhash::fast::RandomState,
}

/// The right to hold one connection open. Dropping it gives it back: keep it as long as the socket.
#[derive(Debug)]
pub struct Permit {
    limits: Arc<ConnectionLimits>,
    /// `None` where addresses were not limited when this was granted.
    key: Option<IpKey>,
    /// The open connections of the worker that has this one, once it has been handed over.
    worker: Option<Arc<AtomicUsize>>,
    /// The connection keeps a drain waiting.
    _drain: Option<TaskGuard>,
}

/// Why a connection was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refused {
    /// `total_max` connections are open.
    Total,
    /// `per_ip_max` connections of this address (IPv6: of its /64) are open.
    PerIp,
    /// The worker's queue of new tasks is full, or the worker has ended.
    Worker,
}

/// What one client counts as: an IPv4 address, or the upper 64 bits of an IPv6 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum IpKey {
    V4(u32),
    V6(u64),
}

/// Enough that the acceptor and the workers' closing connections seldom meet on a lock.
const SHARDS: usize = 64;

impl ConnectionLimits {
    /// Limits in total and, if asked for, per address. A limit of zero connections in total refuses everyone.
    #[must_use]
    pub fn new(total_max: usize, per_ip_max: Option<usize>) -> Arc<Self> {
        let limits = Self {
            total: AtomicUsize::new(0),
            total_max: AtomicUsize::new(0),
            per_ip_max: AtomicUsize::new(0),
            shards: std::array::from_fn(|_| Mutex::default()),
            hasher: foldhash::fast::RandomState::default(),
        };
        limits.set(total_max, per_ip_max);
        Arc::new(limits)
    }

    /// Changes the limits, for connections to come. `Some(0)` per address is taken as off.
    pub fn set(&self, total_max: usize, per_ip_max: Option<usize>) {
        self.total_max.store(total_max, Ordering::Relaxed);
        self.per_ip_max.store(per_ip_max.unwrap_or(0), Ordering::Relaxed);
    }

    /// Connections open now.
    #[must_use]
    pub fn open(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// The limit in total.
    #[must_use]
    pub fn total_max(&self) -> usize {
        self.total_max.load(Ordering::Relaxed)
    }

    /// Asks for the right to hold one connection from this machine's own processes, which have no address to count by.
    pub fn try_acquire_local(self: &Arc<Self>) -> Result<Permit, Refused> {
        let total_max = self.total_max();
        self.total
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |open| (open < total_max).then_some(open + 1))
            .map_err(|_| Refused::Total)?;
        // From here on the permit's drop gives the total back.
        Ok(Permit { limits: Arc::clone(self), key: None, worker: None, _drain: None })
    }

    /// Asks for the right to hold one connection from `ip`.
    pub fn try_acquire(self: &Arc<Self>, ip: IpAddr) -> Result<Permit, Refused> {
        let mut permit = self.try_acquire_local()?;
        let per_ip_max = self.per_ip_max.load(Ordering::Relaxed);
        if per_ip_max > 0 {
            let key = IpKey::of(ip);
            self.count(key, per_ip_max)?;
            permit.key = Some(key);
        }
        Ok(permit)
    }

    /// The right to hold a connection that is open already, whatever the limits.
    pub(crate) fn acquire_anyway(self: &Arc<Self>, ip: Option<IpAddr>) -> Permit {
        self.total.fetch_add(1, Ordering::Relaxed);
        let is_counted = self.per_ip_max.load(Ordering::Relaxed) > 0;
        let key = ip.filter(|_| is_counted).map(IpKey::of);
        if let Some(key) = key {
            *self.shard(key).lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_insert(0) += 1;
        }
        Permit { limits: Arc::clone(self), key, worker: None, _drain: None }
    }

    fn count(&self, key: IpKey, per_ip_max: usize) -> Result<(), Refused> {
        let mut shard = self.shard(key).lock().unwrap_or_else(PoisonError::into_inner);
        let open = shard.entry(key).or_insert(0);
        if *open >= per_ip_max {
            return Err(Refused::PerIp);
        }
        *open += 1;
        Ok(())
    }

    fn uncount(&self, key: IpKey) {
        let mut shard = self.shard(key).lock().unwrap_or_else(PoisonError::into_inner);
        let Entry::Occupied(mut open) = shard.entry(key) else {
            debug_assert!(false, "a counted address has an entry");
            return;
        };
        *open.get_mut() -= 1;
        if *open.get() == 0 {
            open.remove();
        }
    }

    fn shard(&self, key: IpKey) -> &Mutex<HashMap<IpKey, usize, foldhash::fast::RandomState>> {
        use std::hash::BuildHasher;
        let index = self.hasher.hash_one(key) % SHARDS as u64;
        &self.shards[usize::try_from(index).expect("below the number of shards")]
    }
}

impl Permit {
    /// Counts the connection as one of its worker's, from now to the permit's end.
    pub fn count_on(&mut self, worker_open: Arc<AtomicUsize>) {
        worker_open.fetch_add(1, Ordering::Relaxed);
        self.worker = Some(worker_open);
    }

    /// Has the drain wait for the connection.
    pub(crate) fn hold_drain(&mut self, drain: TaskGuard) {
        self._drain = Some(drain);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(worker_open) = &self.worker {
            worker_open.fetch_sub(1, Ordering::Relaxed);
        }
        if let Some(key) = self.key {
            self.limits.uncount(key);
        }
        self.limits.total.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Refused {
    /// Stable name: the metric's label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::PerIp => "per_ip",
            Self::Worker => "worker",
        }
    }
}

impl IpKey {
    fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(v4) => Self::V4(v4.to_bits()),
            IpAddr::V6(v6) => {
                let network = v6.to_bits() >> 64;
                Self::V6(u64::try_from(network).expect("64 bits remain"))
            }
        }
    }
}

/// Raises this process's limit on open descriptors from the soft to the hard one; says what it is now.
pub fn raise_nofile() -> Result<u64, Error> {
    let as_error = |errno: nix::Error| Error::OpenFiles(errno.into());
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(as_error)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_err(as_error)?;
    }
    Ok(hard)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entries(limits: &ConnectionLimits) -> usize {
        limits.shards.iter().map(|shard| shard.lock().unwrap().len()).sum()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_total_is_exact_and_given_back() {
        let limits = ConnectionLimits::new(2, None);
        let first = limits.try_acquire(ip("10.0.0.1")).unwrap();
        let _second = limits.try_acquire(ip("10.0.0.2")).unwrap();
        assert_eq!(limits.try_acquire(ip("10.0.0.3")).unwrap_err(), Refused::Total);
        drop(first);
        assert_eq!(limits.open(), 1);
        assert!(limits.try_acquire(ip("10.0.0.3")).is_ok());
    }

    #[test]
    fn a_refusal_per_address_gives_the_total_back() {
        let limits = ConnectionLimits::new(10, Some(1));
        let _held = limits.try_acquire(ip("10.0.0.1")).unwrap();
        assert_eq!(limits.try_acquire(ip("10.0.0.1")).unwrap_err(), Refused::PerIp);
        assert_eq!(limits.open(), 1);
        assert!(limits.try_acquire(ip("10.0.0.2")).is_ok());
    }

    #[test]
    fn addresses_that_are_one_client_count_as_one() {
        fn check(first: &str, second: &str, same: bool) {
            assert_eq!(IpKey::of(ip(first)) == IpKey::of(ip(second)), same, "{first} {second}");
        }
        check("10.0.0.1", "10.0.0.1", true);
        check("10.0.0.1", "10.0.0.2", false);
        check("10.0.0.1", "::ffff:10.0.0.1", true);
        check("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", true);
        check("2001:db8:1:2::1", "2001:db8:1:3::1", false);
        check("::1", "0.0.0.1", false);
    }

    #[test]
    fn permits_granted_while_addresses_were_not_limited_are_not_counted_later() {
        let limits = ConnectionLimits::new(10, None);
        let before = limits.try_acquire(ip("10.0.0.1")).unwrap();
        limits.set(10, Some(1));
        let after = limits.try_acquire(ip("10.0.0.1")).unwrap();
        drop(before);
        assert_eq!(limits.try_acquire(ip("10.0.0.1")).unwrap_err(), Refused::PerIp);
        limits.set(10, None);
        drop(after);
        assert_eq!((limits.open(), entries(&limits)), (0, 0));
    }

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let raised = raise_nofile().unwrap();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (raised, raised));
        assert_eq!(raise_nofile().unwrap(), raised);
    }

    proptest! {
        /// Clients come and go in any order: limits hold at every step, and nothing is left at the end.
        #[test]
        fn counts_are_exact(steps in prop::collection::vec((0..6_u32, any::<bool>()), 1..200)) {
            let limits = ConnectionLimits::new(8, Some(3));
            let mut held: Vec<(u32, Permit)> = Vec::new();
            for (client, arrives) in steps {
                let of_client = held.iter().filter(|(holder, _)| *holder == client).count();
                if arrives {
                    let expected = match (held.len(), of_client) {
                        (8.., _) => Err(Refused::Total),
                        (_, 3..) => Err(Refused::PerIp),
                        _ => Ok(()),
                    };
                    let permit = limits.try_acquire(IpAddr::V4(client.into()));
                    prop_assert_eq!(permit.as_ref().map(|_| ()).map_err(|refused| *refused), expected);
                    held.extend(permit.map(|permit| (client, permit)));
                } else if let Some(position) = held.iter().position(|(holder, _)| *holder == client) {
                    held.remove(position);
                }
                prop_assert_eq!(limits.open(), held.len());
                let clients: std::collections::HashSet<_> = held.iter().map(|(holder, _)| *holder).collect();
                prop_assert_eq!(entries(&limits), clients.len());
            }
            drop(held);
            prop_assert_eq!((limits.open(), entries(&limits)), (0, 0));
        }
    }
}
