//! Making a server connection hold what its next client's session holds.
//!
//! **Intuition.** Say the difference, in one statement, in the order in which it is allowed: rights are given up before
//! anything else is set, and taken on again last.
//!
//! **Mechanism.** One `SELECT pg_catalog.set_config(name, value, false), …` sets and, with a null value, resets: that
//! is what RESET does, for names that RESET's grammar cannot say too. Statements are deallocated and prepared, channels
//! listened to, only for a client whose next statement could tell ([`Needs`]); each PREPARE is a query of its own, since
//! the server keeps the string that a statement came in, to be seen in `pg_prepared_statements`. If all that differs may travel in the
//! same write as the client's message, [`Replay::confirm`] is false; see [`Class`] for which that is. Timeouts that a
//! client left on the server may cut our statement short, so under them only what is harmless travels along.
//!
//! **Failure.** If the server answers an error, nobody knows what it holds and the caller closes it: what was not
//! confirmed first guards no data. `session_authorization` and `role` are re-established when
//! anything guarding is set between, since the client's own rights may not suffice to set it.
//!
//! Source: `set_config_by_name` in `src/backend/utils/misc/guc.c` (`guc_funcs.c` from version 16); SQL standard and
//! `src/backend/commands/variable.c` for SET SESSION AUTHORIZATION implying SET ROLE NONE.

use std::sync::Arc;

use tenfold_pgwire::write;
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
    /// Whole Query messages, to be sent in one write. Their answers are ours.
    pub messages: Vec<u8>,
    /// How many of them, and so of ReadyForQuery, there are: at least one.
    pub queries: usize,
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
            .with(Effects::DOUBT);
        let channels = Effects::LISTEN.with(Effects::LISTEN_READ).with(Effects::DOUBT);
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
    let mut said = Said::default();
    let mut confirm = prepared || channels;
    if settings {
        let difference = compare(&server.settings, &client.settings);
        confirm |= must_confirm(server, &difference);
        said.query(&settings_text(server, client, &difference));
    }
    if channels {
        said.query(&channels_text(&compare(&server.channels, &client.channels)));
    }
    if prepared {
        say_prepared(&mut said, &server.prepared, &client.prepared);
    }
    let held = |visible: bool| if visible { client } else { server };
    let after =
        images.image(&client.settings, &held(needs.prepared).prepared, &held(needs.channels).channels);
    Some(Replay { messages: said.messages, queries: said.queries, confirm, after })
}

#[derive(Default)]
struct Said {
    messages: Vec<u8>,
    queries: usize,
}

impl Said {
    fn query(&mut self, sql: &[u8]) {
        write::query(&mut self.messages, sql);
        self.queries += 1;
    }
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

fn settings_text(server: &Image, client: &Image, difference: &[Change<'_>]) -> Vec<u8> {
    let guarding = difference.iter().any(|(name, _)| class(name) == Class::Guarding);
    let assumed = |name| server.setting(name).is_some() || client.setting(name).is_some();
    let authorization = guarding && assumed(SESSION_AUTHORIZATION);
    // Resetting the session's user resets its role, but not to the one that ALTER ROLE … SET role may ask for.
    let role = guarding && (authorization || assumed(ROLE));
    let mut out = Vec::with_capacity(256);
    let mut write = |change: Change<'_>| {
        out.extend_from_slice(if out.is_empty() { b"SELECT " } else { b", " });
        write_setting(&mut out, change);
    };
    if authorization {
        write((SESSION_AUTHORIZATION, None));
    }
    if role {
        write((ROLE, None));
    }
    for change in difference.iter().filter(|(name, _)| ![ROLE, SESSION_AUTHORIZATION].contains(name)) {
        write(*change);
    }
    for name in [SESSION_AUTHORIZATION, ROLE] {
        if let Some(value) = client.setting(name).filter(|_| guarding) {
            write((name, Some(value)));
        }
    }
    out
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

fn channels_text(difference: &[Change<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for (channel, listened) in difference {
        out.extend_from_slice(if listened.is_some() { b"LISTEN " } else { b"UNLISTEN " });
        push_identifier(&mut out, channel);
        out.extend_from_slice(b"; ");
    }
    out
}

fn say_prepared(said: &mut Said, server: &Part, client: &Part) {
    // A name that stands for another text than before must go first, too.
    let mut gone = Vec::new();
    for (name, _) in server.pairs.iter().filter(|(name, text)| client.get(name) != Some(text)) {
        gone.extend_from_slice(b"DEALLOCATE ");
        push_identifier(&mut gone, name);
        gone.extend_from_slice(b"; ");
    }
    if !gone.is_empty() {
        said.query(&gone);
    }
    for (_, text) in client.pairs.iter().filter(|(name, text)| server.get(name) != Some(text)) {
        said.query(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(images: &Images, settings: &[(&str, &str)]) -> Arc<Image> {
        let settings: Vec<_> =
            settings.iter().map(|(name, value)| ((*name).into(), (*value).to_owned())).collect();
        images.intern(&settings, &[], &[]).unwrap()
    }

    /// The one query that carries a server from the first settings to the second, and whether it is confirmed.
    fn check(server: &[(&str, &str)], client: &[(&str, &str)], expected: &str, confirm: bool) {
        let images = Images::new();
        let (server, client) = (image(&images, server), image(&images, client));
        let replay = replay(&server, &client, Needs::default(), &images).unwrap();
        let mut messages = Vec::new();
        write::query(&mut messages, expected.replace("set(", "pg_catalog.set_config(").as_bytes());
        assert_eq!(String::from_utf8_lossy(&replay.messages), String::from_utf8_lossy(&messages));
        assert_eq!((replay.queries, replay.confirm), (1, confirm));
        assert!(Arc::ptr_eq(&replay.after, &client));
    }

    #[test]
    fn only_the_difference_is_said_and_what_goes_comes_first() {
        check(&[], &[("TimeZone", "UTC")], "SELECT set(E'timezone', E'UTC', false)", false);
        check(&[("timezone", "UTC")], &[], "SELECT set(E'timezone', NULL, false)", false);
        check(
            &[("a.b", "1"), ("jit", "off"), ("z.z", "1")],
            &[("a.a", "1"), ("jit", "off"), ("z.z", "2")],
            "SELECT set(E'a.b', NULL, false), set(E'a.a', E'1', false), set(E'z.z', E'2', false)",
            true,
        );
    }

    #[test]
    fn under_a_timeout_only_what_is_harmless_travels_along() {
        let timeout = ("statement_timeout", "1s");
        let zone = "SELECT set(E'timezone', E'UTC', false)";
        check(&[timeout], &[timeout, ("timezone", "UTC")], zone, true);
        check(&[timeout], &[timeout, ("jit", "off")], "SELECT set(E'jit', E'off', false)", false);
    }

    #[test]
    fn rights_are_given_up_first_and_taken_on_last() {
        check(&[], &[("role", "r")], "SELECT set(E'role', NULL, false), set(E'role', E'r', false)", true);
        check(&[("role", "r")], &[], "SELECT set(E'role', NULL, false)", true);
        check(
            &[("role", "r"), ("session_authorization", "s")],
            &[("role", "r"), ("session_authorization", "s"), ("log_statement", "all")],
            "SELECT set(E'session_authorization', NULL, false), set(E'role', NULL, false), \
             set(E'log_statement', E'all', false), \
             set(E'session_authorization', E's', false), set(E'role', E'r', false)",
            true,
        );
        // What anyone may set needs no change of user.
        let role = ("role", "r");
        check(&[role], &[role, ("jit", "off")], "SELECT set(E'jit', E'off', false)", false);
    }

    #[test]
    fn needs_follow_from_effects() {
        for (effects, prepared, channels) in [
            (Effects::NONE, false, false),
            (Effects::SETTINGS | Effects::TEMP, false, false),
            (Effects::SQL_EXECUTE, true, false),
            (Effects::DEALLOCATE_ALL, true, false),
            (Effects::LISTEN, false, true),
            (Effects::UNKNOWN, true, true),
        ] {
            assert_eq!(Needs::from_effects(effects), Needs { prepared, channels }, "{effects}");
        }
    }
}
