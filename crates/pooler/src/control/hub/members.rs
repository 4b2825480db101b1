//! Who listens to what.
//!
//! **Mechanism.** Two maps that always agree: a client's channels, and for each channel the clients of each worker that
//! want it. Channels whose last client left wait in a list until somebody takes it.
//!
//! **Failure.** Bounded by 10,000 channels for each client; the rest of a longer list is cut off, which
//! PostgreSQL's own limit on the notification queue would not survive either.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    sync::Arc,
};

/// Channels of one client.
pub(super) const CLIENT_CHANNELS_MAX: usize = 10_000;

/// The listeners of one database.
#[derive(Debug)]
pub struct Members<K> {
    clients: HashMap<(usize, K), HashSet<Arc<str>>>,
    /// For each channel the workers whose clients want it, and which; none of the sets is empty.
    channels: HashMap<Arc<str>, HashMap<usize, HashSet<K>>>,
    unwanted: HashSet<Arc<str>>,
}

impl<K> Default for Members<K> {
    fn default() -> Self {
        Self { clients: HashMap::new(), channels: HashMap::new(), unwanted: HashSet::new() }
    }
}

impl<K: Copy + Eq + Hash> Members<K> {
    /// The client listens to just these now. Gives those that nobody listened to before.
    pub fn set(&mut self, worker: usize, client: K, channels: Vec<Arc<str>>) -> Vec<Arc<str>> {
        let wanted: HashSet<_> = channels.into_iter().take(CLIENT_CHANNELS_MAX).collect();
        let before = self.clients.remove(&(worker, client)).unwrap_or_default();
        let mut new = Vec::new();
        for channel in wanted.difference(&before) {
            // Still listened to, if it was only just given up.
            let left = self.unwanted.remove(channel);
            let workers = self.channels.entry(Arc::clone(channel)).or_default();
            if workers.is_empty() && !left {
                new.push(Arc::clone(channel));
            }
            workers.entry(worker).or_default().insert(client);
        }
        for channel in before.difference(&wanted) {
            self.leave(worker, client, channel);
        }
        if !wanted.is_empty() {
            self.clients.insert((worker, client), wanted);
        }
        new
    }

    /// The client listens to nothing any longer.
    pub fn remove(&mut self, worker: usize, client: K) {
        for channel in self.clients.remove(&(worker, client)).unwrap_or_default() {
            self.leave(worker, client, &channel);
        }
    }

    fn leave(&mut self, worker: usize, client: K, channel: &Arc<str>) {
        let Some(workers) = self.channels.get_mut(channel) else { return };
        if let Some(clients) = workers.get_mut(&worker) {
            clients.remove(&client);
            if clients.is_empty() {
                workers.remove(&worker);
            }
        }
        if workers.is_empty() {
            self.channels.remove(channel);
            self.unwanted.insert(Arc::clone(channel));
        }
    }

    /// Channels that nobody wants any longer, each once.
    pub fn take_unwanted(&mut self) -> Vec<Arc<str>> {
        self.unwanted.drain().collect()
    }

    /// Whether anybody wants this channel.
    #[must_use]
    pub fn is_wanted(&self, channel: &str) -> bool {
        self.channels.contains_key(channel)
    }

    /// Whether this client listens to anything.
    #[must_use]
    pub fn contains(&self, worker: usize, client: K) -> bool {
        self.clients.contains_key(&(worker, client))
    }

    /// Whether this client listens to any of these.
    #[must_use]
    pub fn listens_to_any(&self, worker: usize, client: K, channels: &[Arc<str>]) -> bool {
        let own = self.clients.get(&(worker, client));
        own.is_some_and(|own| channels.iter().any(|channel| own.contains(channel)))
    }

    /// The workers that have clients of this channel, and the channel.
    pub fn workers(&self, channel: &str) -> Option<(&Arc<str>, impl Iterator<Item = usize> + '_)> {
        let (channel, workers) = self.channels.get_key_value(channel)?;
        Some((channel, workers.keys().copied()))
    }

    /// Whether nobody listens to anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// Forgets everybody; gives the workers that had listeners.
    pub fn clear(&mut self) -> HashSet<usize> {
        let workers = self.clients.keys().map(|&(worker, _)| worker).collect();
        *self = Self::default();
        workers
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn channels(names: &str) -> Vec<Arc<str>> {
        names.chars().map(|name| name.to_string().into()).collect()
    }

    fn sorted(channels: &[Arc<str>]) -> String {
        let mut names: Vec<_> = channels.iter().map(|channel| channel.to_string()).collect();
        names.sort();
        names.concat()
    }

    #[test]
    fn only_first_and_last_listeners_count() {
        let mut members = Members::default();
        assert_eq!(sorted(&members.set(0, 1, channels("ab"))), "ab");
        assert_eq!(sorted(&members.set(1, 1, channels("bc"))), "c");
        assert_eq!(sorted(&members.set(0, 2, channels("b"))), "");
        let workers = |members: &Members<i32>, channel: &str| {
            let workers = members.workers(channel).map(|(_, workers)| workers.collect());
            let mut workers: Vec<_> = workers.unwrap_or_default();
            workers.sort_unstable();
            workers
        };
        assert_eq!((workers(&members, "a"), workers(&members, "b")), (vec![0], vec![0, 1]));
        assert!(workers(&members, "x").is_empty());
        members.remove(0, 1);
        assert_eq!(sorted(&members.take_unwanted()), "a");
        assert_eq!(workers(&members, "b"), [0, 1]);
        assert_eq!(sorted(&members.set(1, 1, channels("d"))), "d");
        assert_eq!(sorted(&members.take_unwanted()), "c");
        assert_eq!(members.clear(), HashSet::from([0, 1]));
        assert!(members.is_empty() && members.take_unwanted().is_empty());
    }

    #[test]
    fn what_is_given_up_and_wanted_again_at_once_is_left_alone() {
        let mut members = Members::default();
        members.set(0, 1, channels("a"));
        members.remove(0, 1);
        assert!(members.set(0, 2, channels("a")).is_empty());
        assert!(members.take_unwanted().is_empty());
        assert!(members.is_wanted("a"));
    }

    proptest! {
        #[test]
        fn the_server_listens_to_what_anybody_wants(
            steps in prop::collection::vec((0..2_usize, 0..4_u8, "[a-e]{0,4}", any::<bool>()), 0..60),
        ) {
            let mut members = Members::default();
            let mut model: HashMap<(usize, u8), HashSet<Arc<str>>> = HashMap::new();
            let mut server: HashSet<Arc<str>> = HashSet::new();
            for (worker, client, names, applied) in steps {
                let new = members.set(worker, client, channels(&names));
                model.insert((worker, client), channels(&names).into_iter().collect());
                server.extend(new);
                if applied {
                    for channel in members.take_unwanted() {
                        prop_assert!(server.remove(&channel), "listened to before");
                    }
                    let wanted: HashSet<_> = model.values().flatten().cloned().collect();
                    prop_assert_eq!(&server, &wanted);
                }
            }
        }
    }
}
