//! The schemas that a client's names are looked for in, so that statements are judged by what they mean to it.
//!
//! **Mechanism.** A session's own `search_path`, else where its pool's sessions begin; `"$user"` is its role. Parsed once
//! for each pair of the two and remembered.
//!
//! **Failure.** Where the path may be another than is known, within a transaction that may have set something, or where
//! reads are not split, there is none, and all schemas count.

use std::{collections::HashMap, sync::Arc};

use tenfold_sql::{Effects, SearchPath};

use super::{
    Worker,
    client::Client,
    server::{Pin, Server},
    slab::Key,
};

/// Paths remembered; then all are forgotten.
const PATHS_MAX: usize = 4_096;
/// Effects of a transaction that leave its path what it was.
const HARMLESS: Effects =
    Effects::WRITES.with(Effects::SEQUENCE_MAYBE).with(Effects::SEQUENCE_READ).with(Effects::SEQUENCE_SET);

/// By the serial of where sessions begin, and the image of the session.
pub(super) type Paths = HashMap<(u64, u64), Option<Arc<SearchPath>>, foldhash::fast::RandomState>;

impl Worker {
    /// The schemas that a client's next statement looks for names in; `None`: any.
    pub(super) fn path_of(&mut self, key: Key) -> Option<Arc<SearchPath>> {
        let client = self.clients.get(key)?;
        let seat = client.seat.as_ref()?;
        let split = &mut self.pools[seat.local].split;
        if !split.is_on() {
            return None;
        }
        let server = client.server().and_then(|server| self.servers.get(server));
        if server.is_some_and(Server::may_have_moved) {
            return None;
        }
        let begins = split.begins()?;
        let known = (begins.serial, client.image.id());
        if let Some(path) = self.paths.get(&known) {
            return path.clone();
        }
        let value = client.image.setting("search_path").or(begins.search_path());
        let role = role_of(client).unwrap_or(&seat.pool.user);
        let path = value.and_then(|value| self.classifier.path(value, role)).map(Arc::new);
        if self.paths.len() >= PATHS_MAX {
            self.paths.clear();
        }
        self.paths.insert(known, path.clone());
        path
    }
}

/// Whom the session has become, if it is another than who logged in.
fn role_of(client: &Client) -> Option<&str> {
    let role = client.image.setting("role").filter(|role| *role != "none" && !role.is_empty());
    role.or_else(|| client.image.setting("session_authorization"))
}

/// Whether a transaction of these effects may look for names elsewhere afterwards.
pub(super) fn may_move(effects: Effects) -> bool {
    !effects.without(HARMLESS).is_empty()
}

impl Server {
    /// Whether its transaction, or its session, may look for names elsewhere than its image says.
    fn may_have_moved(&self) -> bool {
        may_move(self.effects)
            || !self.names.is_empty()
            || self.pins.has(Pin::Unknown)
            || self.pins.has(Pin::Temporary)
    }
}
