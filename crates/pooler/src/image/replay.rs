//! Making a server connection hold what its next client's session holds.
//!
//! **Intuition.** Say the difference, in one statement, in the order in which it is allowed: rights are given up before
//! anything else is set, and taken on again last.
//!
//! **Mechanism.** One `SELECT pg_catalog.set_config(name, value, false), …` sets and, with a null value, resets: that
//! is what RESET does, for names that RESET's grammar cannot say too. Statements are deallocated and prepared, channels
//! listened to, only for a client whose next statement could tell ([`Needs`]). If all that differs may travel in the
//! same write as the client's message, [`Replay::confirm`] is false; see [`Class`] for which that is. Timeouts that a
//! client left on the server may cut our statement short, so under them only what is harmless travels along.
//!
//! **Failure.** If the server answers an error, it holds none of it (one string is one transaction) and the caller
//! closes it: what was not confirmed first guards no data. `session_authorization` and `role` are re-established when
//! anything guarding is set between, since the client's own rights may not suffice to set it.
//!
//! Source: `set_config_by_name` in `src/backend/utils/misc/guc.c` (`guc_funcs.c` from version 16); SQL standard and
//! `src/backend/commands/variable.c` for SET SESSION AUTHORIZATION implying SET ROLE NONE.

use std::sync::Arc;

use tenfold_sql::Effects;

use super::{
    Image, Images, Part,
    class::{Class, STATEMENT_TIMEOUTS, class},
    quote::{push_identifier, push_literal},
};

/// Which parts the coming statements can see, beside settings, which all can.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// SQL-level prepared statements.
    pub prepared: bool,
    /// Channels listened to.
    pub channels: bool,
}

/// What to say to a server connection before a client's message.
#[derive(Clone, Debug)]
pub struct Replay {
    /// Text of one simple query. It has any number of results, which are ours.
    pub sql: Vec<u8>,
    /// Its answer must be seen before the client's message is sent; else both go in one write.
    pub confirm: bool,
    /// What the server connection holds afterwards.
    pub after: Arc<Image>,
}

const ROLE: &str = "role";
const SESSION_AUTHORIZATION: &str = "session_authorization";

impl Needs {
    /// What statements with these effects can see.
    #[must_use]
    pub fn from_effects(effects: Effects) -> Self {
        let prepared = Effects::SQL_PREPARE
            .with(Effects::SQL_EXECUTE)
            .with(Effects::DISCARD_ALL)
            .with(Effects::DEALLOCATE_ALL)
            .with(Effects::UNKNOWN);
        let channels = Effects::LISTEN.with(Effects::LISTEN_READ).with(Effects::UNKNOWN);
        Self { prepared: effects.intersects(prepared), channels: effects.intersects(channels) }
    }
}

/// The difference between what a server connection holds and what a client's session does. `None`: nothing to do.
#[must_use]
#[inline]
pub fn replay(server: &Arc<Image>, client: &Arc<Image>, needs: Needs, images: &Images) -> Option<Replay> {
    if Arc::ptr_eq(server, client) {
        return None;
    }
    difference(server, client, needs, images)
}

fn difference(server: &Arc<Image>, client: &Arc<Image>, needs: Needs, images: &Images) -> Option<Replay> {
    let settings = !Arc::ptr_eq(&server.settings, &client.settings);
    let prepared = needs.prepared && !Arc::ptr_eq(&server.prepared, &client.prepared);
    let channels = needs.channels && !Arc::ptr_eq(&server.channels, &client.channels);
    if !(settings || prepared || channels) {
        return None;
    }
    let mut sql = Vec::with_capacity(256);
    let mut confirm = false;
    if settings {
        let difference = compare(&server.settings, &client.settings);
        confirm = must_confirm(server, &difference);
        write_settings(&mut sql, server, client, &difference);
    }
    if prepared {
        confirm = true;
        write_prepared(&mut sql, &server.prepared, &client.prepared);
    }
    if channels {
        confirm = true;
        write_channels(&mut sql, &compare(&server.channels, &client.channels));
    }
    let held = |visible: bool| if visible { client } else { server };
    let after =
        images.image(&client.settings, &held(needs.prepared).prepared, &held(needs.channels).channels);
    Some(Replay { sql, confirm, after })
}

/// What changes, by name: to a value, or to a fresh connection's.
type Change<'a> = (&'a str, Option<&'a str>);

/// What turns `from` into `to`: first what goes, then what comes or changes.
fn compare<'a>(from: &'a Part, to: &'a Part) -> Vec<Change<'a>> {
    let gone = from.pairs.iter().filter(|(name, _)| to.get(name).is_none()).map(|(name, _)| (&**name, None));
    let come = to.pairs.iter().filter(|(name, value)| from.get(name) != Some(value));
    gone.chain(come.map(|(name, value)| (&**name, Some(&**value)))).collect()
}

fn must_confirm(server: &Image, difference: &[Change<'_>]) -> bool {
    let under_timeout = STATEMENT_TIMEOUTS.iter().any(|name| server.setting(name).is_some());
    let allowed = if under_timeout { Class::Harmless } else { Class::Format };
    difference.iter().any(|(name, _)| class(name) > allowed)
}

fn write_settings(out: &mut Vec<u8>, server: &Image, client: &Image, difference: &[Change<'_>]) {
    let guarding = difference.iter().any(|(name, _)| class(name) == Class::Guarding);
    let assumed = |name| server.setting(name).is_some() || client.setting(name).is_some();
    let authorization = guarding && assumed(SESSION_AUTHORIZATION);
    // Resetting the session's user resets its role, but not to the one that ALTER ROLE … SET role may ask for.
    let role = guarding && (authorization || assumed(ROLE));
    out.extend_from_slice(b"SELECT ");
    let mut columns = 0;
    let mut write = |out: &mut Vec<u8>, change: Change<'_>| {
        if columns > 0 {
            out.extend_from_slice(b", ");
        }
        write_setting(out, change);
        columns += 1;
    };
    if authorization {
        write(out, (SESSION_AUTHORIZATION, None));
    }
    if role {
        write(out, (ROLE, None));
    }
    for change in difference.iter().filter(|(name, _)| ![ROLE, SESSION_AUTHORIZATION].contains(name)) {
        write(out, *change);
    }
    for name in [SESSION_AUTHORIZATION, ROLE] {
        if let Some(value) = client.setting(name).filter(|_| guarding) {
            write(out, (name, Some(value)));
        }
    }
}

fn write_setting(out: &mut Vec<u8>, (name, value): Change<'_>) {
    out.extend_from_slice(b"pg_catalog.set_config(");
    push_literal(out, name);
    out.extend_from_slice(b", ");
    match value {
        Some(value) => push_literal(out, value),
        None => out.extend_from_slice(b"NULL"),
    }
    out.extend_from_slice(b", false)");
}

/// A text may end in a comment that lasts to the end of its line, so each statement begins on a line of its own.
const NEXT_STATEMENT: &[u8] = b"\n;\n";

fn start_statement(out: &mut Vec<u8>, words: &[u8]) {
    if !out.is_empty() {
        out.extend_from_slice(NEXT_STATEMENT);
    }
    out.extend_from_slice(words);
}

fn write_prepared(out: &mut Vec<u8>, server: &Part, client: &Part) {
    // A name that stands for another text than before must go first, too.
    for (name, _) in server.pairs.iter().filter(|(name, text)| client.get(name) != Some(text)) {
        start_statement(out, b"DEALLOCATE ");
        push_identifier(out, name);
    }
    for (_, text) in client.pairs.iter().filter(|(name, text)| server.get(name) != Some(text)) {
        start_statement(out, text.as_bytes());
    }
}

fn write_channels(out: &mut Vec<u8>, difference: &[Change<'_>]) {
    for (channel, listened) in difference {
        start_statement(out, if listened.is_some() { b"LISTEN " } else { b"UNLISTEN " });
        push_identifier(out, channel);
    }
}
