//! ParameterStatus: what a server says of its settings, and which clients hear it.
//!
//! **Intuition.** A server reports a setting when its client set it, when we did, and when somebody else changed where
//! all sessions begin: a reload of the server's configuration. The first is the client's to hear, the second nobody's,
//! and the third concerns every client of the pool that has not set that setting itself, though only those server
//! connections say it that happen to be used.
//!
//! **Mechanism.** A report in a client's transaction is passed on, and the probe that ends the transaction asks whether
//! the session holds the value ([`Worker::fresh_values`]); a report during our own statements is new where the server
//! connection is to hold nothing of that name, and other than what the connection reported so far. What is new goes to
//! the pool's welcome, so that later clients begin with it, and once to every client of the pool between two of its
//! transactions ([`Worker::tell_untold`]), as PostgreSQL itself reports with the next answer. In session mode a client
//! hears its server itself, and what was reported last before the session was cleaned goes to the welcome.
//!
//! **Failure.** A report that cannot be read closes the server connection. A report of a setting that the welcome does
//! not have (of a later version of PostgreSQL, on some servers only) is told to nobody else.

use std::{collections::HashMap, sync::Arc};

use tenfold_pgwire::{backend, write};
use tenfold_sql::Effects;

use super::{
    Worker,
    downstream::{Fate, image_after},
    server::{Due, Ours, Server, Why},
    slab::Key,
};
use crate::{
    image::Image,
    mailbox::Order,
    pool::Pool,
    probe::{Found, Origin},
};

/// Settings that one transaction's servers may report of themselves; PostgreSQL 18 reports 15.
const REPORTED_MAX: usize = 32;
/// Clients told in one tick.
const TOLD_PER_TICK: usize = 2_048;

/// Who they are and what server they are at follows from the login, and from nothing that a reload changes.
const OF_THE_LOGIN: [&str; 4] = ["in_hot_standby", "is_superuser", "server_version", "session_authorization"];

/// What servers of a pool report since a while ago.
#[derive(Debug)]
pub(crate) struct Report {
    /// Whose clients it concerns.
    pub(crate) pool: Arc<Pool>,
    /// As the server writes it.
    pub(crate) name: String,
    /// Where sessions begin now.
    pub(crate) value: String,
}

/// Clients that have not heard yet. At most one entry per client and setting.
pub(super) type Untold = HashMap<Key, Vec<Arc<Report>>, foldhash::fast::RandomState>;

impl Worker {
    /// ParameterStatus: the client hears of its own; what changed unannounced is looked into.
    pub(super) fn parameter(&mut self, key: Key, body: &[u8]) -> Fate {
        let Some(server) = self.servers.get_mut(key) else { return Fate::Swallow };
        let Ok(status) = backend::ParameterStatus::parse(body) else {
            return Fate::Broken("a malformed ParameterStatus");
        };
        let as_said = String::from_utf8_lossy(status.name);
        let value = String::from_utf8_lossy(status.value);
        let name = as_said.to_ascii_lowercase();
        if matches!(server.due.front(), Some(Due::Ours(Ours { why: Why::Startup, .. }))) {
            note_last(&mut server.reports, &as_said, &value);
        }
        if server.is_session() {
            note_last(&mut server.reports, &as_said, &value);
            return if server.client.is_some() { Fate::Pass } else { Fate::Swallow };
        }
        if let Some(replica) = &server.pool.replica
            && !matches!(server.due.front(), Some(Due::Ours(_)))
            && (name == "in_hot_standby" || !server.runs_block())
        {
            // What it begins with is its own affair, unless that is to be a primary.
            if name == "in_hot_standby" && value == "off" {
                replica.lost(crate::split::State::Foreign);
                server.tainted = true;
            }
            return Fate::Swallow;
        }
        if OF_THE_LOGIN.contains(&&*name) {
            let is_clients = server.client.is_some() && !matches!(server.due.front(), Some(Due::Ours(_)));
            return if is_clients { Fate::Pass } else { Fate::Swallow };
        }
        if matches!(server.due.front(), Some(Due::Ours(_))) {
            if leaves_fresh(server, &name) {
                self.fresh_changed(key, &name, &value);
            }
            return Fate::Swallow;
        }
        if server.client.is_none() {
            return Fate::Swallow;
        }
        if !server.effects.intersects(Effects::SETTINGS_UNKNOWN) {
            server.effects |= Effects::SETTINGS;
            if !server.names.iter().any(|known| **known == *name) {
                server.names.push(name.as_str().into());
                if server.reported.len() < REPORTED_MAX {
                    server.reported.push(name.into());
                }
            }
        }
        Fate::Pass
    }

    /// A session on this server has ended, and nothing of it is left: what was reported last is where the next begins.
    pub(super) fn session_cleaned(&mut self, key: Key) {
        let Some(server) = self.servers.get_mut(key) else { return };
        for (name, value) in std::mem::take(&mut server.reports) {
            self.fresh_changed(key, &name, &value);
        }
    }

    /// What the server reported and no session holds is where all sessions begin now.
    pub(super) fn fresh_values(&mut self, key: Key, found: &Found) {
        let Some(server) = self.servers.get_mut(key) else { return };
        for name in std::mem::take(&mut server.reported) {
            let value = found.settings.iter().find(|(other, _)| *other == name);
            if let Some((_, Some(value))) =
                value.filter(|(name, _)| found.origin(name) == Some(Origin::Start))
            {
                self.fresh_changed(key, &name, value);
            }
        }
    }

    /// Sessions on this server begin with another value than before.
    fn fresh_changed(&mut self, key: Key, name: &str, value: &str) {
        let is_of_login = OF_THE_LOGIN.iter().any(|other| other.eq_ignore_ascii_case(name));
        let Some(server) = self.servers.get_mut(key).filter(|_| !is_of_login) else { return };
        let Some(at) = server.fresh.iter().position(|(other, _)| other.eq_ignore_ascii_case(name)) else {
            return;
        };
        if server.fresh[at].1 == value {
            return;
        }
        let fresh = Arc::make_mut(&mut server.fresh);
        value.clone_into(&mut fresh[at].1);
        let Some(report) = server.pool.reported(&fresh[at].0, value) else { return };
        let report = Arc::new(report);
        self.shared.tell_all(|| Order::Reported { report: Arc::clone(&report) });
    }

    /// Clients of this worker have something to hear.
    pub(super) fn reported(&mut self, report: &Arc<Report>) {
        for key in self.clients.keys() {
            let Some(client) = self.clients.get(key).filter(|client| client.is_logged_in()) else { continue };
            let is_meant = client
                .seat
                .as_ref()
                .is_some_and(|seat| !seat.session && Arc::ptr_eq(&seat.pool, &report.pool));
            if is_meant {
                let due = self.untold.entry(key).or_default();
                due.retain(|other| other.name != report.name);
                due.push(Arc::clone(report));
            }
        }
        self.tick_untold();
    }

    /// Tells those who are between two transactions; the others are told when theirs ends.
    pub(super) fn tick_untold(&mut self) {
        if self.untold.is_empty() {
            return;
        }
        self.untold.retain(|key, _| self.clients.get(*key).is_some());
        let is_between =
            |key: &&Key| self.clients.get(**key).is_some_and(|client| self.is_between_messages(client));
        let keys: Vec<Key> = self.untold.keys().filter(is_between).take(TOLD_PER_TICK).copied().collect();
        for key in keys {
            self.tell_untold(key);
        }
    }

    /// The client's transaction is over: what it should have heard meanwhile.
    pub(super) fn tell_untold(&mut self, key: Key) {
        let Some(reports) = self.untold.remove(&key) else { return };
        let Some(client) = self.clients.get(key) else { return };
        let mut out = Vec::new();
        let reports = reports.iter().filter(|report| client.image.setting(&lower(report)).is_none());
        for report in reports {
            write::parameter_status(&mut out, report.name.as_bytes(), report.value.as_bytes());
        }
        if !out.is_empty() {
            self.send_client(key, &out);
        }
    }
}

/// Keeps the last report of each setting.
fn note_last(reports: &mut Vec<(String, String)>, name: &str, value: &str) {
    if let Some((_, last)) = reports.iter_mut().find(|(other, _)| other == name) {
        value.clone_into(last);
    } else if reports.len() < REPORTED_MAX {
        reports.push((name.to_owned(), value.to_owned()));
    }
}

fn lower(report: &Report) -> String {
    report.name.to_ascii_lowercase()
}

/// Whether, when the statement of ours that runs has ended, the session will hold nothing of this name.
fn leaves_fresh(server: &Server, name: &str) -> bool {
    let after = server.due.iter().find_map(|due| match due {
        Due::Ours(ours) => image_after(ours),
        _ => None,
    });
    let will_hold = |image: &Arc<Image>| image.setting(name).is_some();
    match server.due.front() {
        Some(Due::Ours(Ours { why: Why::Clean, .. })) => true,
        Some(Due::Ours(Ours { why: Why::Probe, .. })) => {
            let is_theirs = server.effects.intersects(Effects::SETTINGS_UNKNOWN | Effects::UNKNOWN)
                || server.names.iter().any(|touched| **touched == *name);
            !is_theirs && !will_hold(&server.image)
        }
        Some(Due::Ours(Ours {
            why: Why::Replay(_) | Why::ReplayAhead(_) | Why::ReplayPart { .. }, ..
        })) => after.is_some_and(|image| !will_hold(image)),
        Some(Due::Ours(Ours { why: Why::Check | Why::Startup, .. })) => !will_hold(&server.image),
        _ => false,
    }
}
