//! Asking a server what its session holds, instead of guessing it from what was said to it.
//!
//! **Intuition.** Was that SET rolled back? Did the function create its temporary table? Whether a savepoint, an
//! exception block or a trigger came in between, the server knows, and one small query makes it tell.
//!
//! **Mechanism.** [`Wanted`] is gathered from the effects of a transaction's statements; [`Wanted::sql`] is one simple
//! query with one result of three text columns, kind, name and value, which [`Reader`] turns into [`Found`]. Names
//! resolve the same whatever `search_path` holds: functions, relations and operators are all `pg_catalog`'s. Names and
//! values come as hexadecimal UTF-8, so that no `client_encoding` bends them. It is sent when no transaction is open, so
//! transaction-level locks, plain cursors and SET LOCAL are gone.
//!
//! **Failure.** A row that is not of ours is a [`ProbeError`]; so is, from the server, a setting that its role may not
//! see. Whoever cannot be told what a connection holds keeps it from others. Versions 12 to 18.
//!
//! Source: `src/backend/catalog/namespace.c` (`RemoveTempRelations`: what depends on a session's temporary schema is
//! what its end drops); views `pg_prepared_statements`, `pg_cursors`, `pg_locks`.

use std::sync::Arc;

use tenfold_sql::Effects;

use crate::image::push_literal;

/// Settings asked for in one probe at most; who touched more keeps its server connection.
pub const WANTED_SETTINGS_MAX: usize = 64;

/// Rows that one answer may have: as many as images can hold of each kind, and then some to notice that.
const ROWS_MAX: usize = 4_096;
/// Bytes of names and values in one answer.
const ANSWER_BYTES_MAX: usize = 1_024 * 1_024;

const SESSION_AUTHORIZATION: &str = "session_authorization";
const ROLE: &str = "role";

/// What to ask. Cheap to make, and empty unless something happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Names of settings, lower case, each once.
    settings: Vec<Arc<str>>,
    /// Whether these settings were set in the session, or are what it began with.
    pub origins: bool,
    /// SQL-level prepared statements.
    pub prepared: bool,
    /// Channels listened to.
    pub channels: bool,
    /// Whether temporary objects exist.
    pub temp: bool,
    /// Whether session-level advisory locks are held.
    pub advisory: bool,
    /// Whether cursors WITH HOLD are open.
    pub held: bool,
}

/// What a session holds, as far as was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// By lower-case name: its value; `None` for a name without one, and for a `session_authorization` that is who
    /// logged in. Fits [`crate::image::Images::with_settings`].
    pub settings: Vec<(Arc<str>, Option<String>)>,
    /// Of the settings that `pg_settings` shows, if [`Wanted::origins`]: whether each was set in the session.
    pub origins: Vec<(Arc<str>, Origin)>,
    /// SQL-level prepared statements: name, and the string that made it.
    pub prepared: Vec<(String, String)>,
    /// Channels listened to.
    pub channels: Vec<String>,
    /// Temporary objects exist.
    pub temp: bool,
    /// Session-level advisory locks are held.
    pub advisory: bool,
    /// Cursors WITH HOLD are open.
    pub held: bool,
}

/// Where the value of a setting comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The connection began with it.
    Start,
    /// It was set in the session.
    Session,
}

/// Gathers the rows of an answer.
#[derive(Debug, Default)]
pub struct Reader {
    found: Found,
    rows: usize,
    bytes: usize,
}

/// An answer that is not one to our question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// A kind we do not know, a name that is missing, a value that is not hexadecimal UTF-8.
    #[error("a row that was not asked for")]
    Malformed,
    /// More than a session can reasonably hold.
    #[error("more rows or bytes than are read")]
    TooLarge,
}

impl Wanted {
    /// What to ask after statements with these effects, which touched these settings. `None` if it cannot be asked:
    /// settings changed that nobody can name, or too many.
    #[must_use]
    pub fn from_effects<'a>(effects: Effects, settings: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let mut wanted = Self {
            origins: effects.intersects(Effects::RESETS | Effects::RESETS_ALL),
            prepared: effects.intersects(Effects::SQL_PREPARE),
            channels: effects.intersects(Effects::LISTEN),
            temp: effects.intersects(Effects::TEMP | Effects::TEMP_DROP),
            advisory: effects.intersects(Effects::ADVISORY | Effects::ADVISORY_UNLOCK),
            held: effects.intersects(Effects::HOLD | Effects::CURSOR_CLOSE),
            ..Self::default()
        };
        let known = !effects.intersects(Effects::SETTINGS_UNKNOWN);
        (known && settings.into_iter().all(|name| wanted.add_setting(name))).then_some(wanted)
    }

    /// Asks for a setting, too. False if too many are asked for.
    #[must_use]
    pub fn add_setting(&mut self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        // Setting the session's user sets its role to none.
        if name == SESSION_AUTHORIZATION && !self.add_setting(ROLE) {
            return false;
        }
        if self.settings.iter().any(|wanted| **wanted == *name) {
            return true;
        }
        let fits = self.settings.len() < WANTED_SETTINGS_MAX;
        if fits {
            self.settings.push(name.into());
        }
        fits
    }

    /// Asks for what `other` asks for, too. False if too many settings are asked for.
    #[must_use]
    pub fn merge(&mut self, other: &Self) -> bool {
        self.origins |= other.origins;
        self.prepared |= other.prepared;
        self.channels |= other.channels;
        self.temp |= other.temp;
        self.advisory |= other.advisory;
        self.held |= other.held;
        other.settings.iter().all(|name| self.add_setting(name))
    }

    /// Names of settings asked for, lower case.
    #[must_use]
    pub fn settings(&self) -> &[Arc<str>] {
        &self.settings
    }

    /// Whether there is nothing to ask.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        // Of no setting there is no origin.
        *self == Self { origins: self.origins, ..Self::default() }
    }

    /// The text of one simple query with one result.
    #[must_use]
    pub fn sql(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        let assumed = self.settings.iter().find(|name| ***name == *SESSION_AUTHORIZATION);
        if assumed.is_some() {
            start_select(&mut out);
            write_assumed_user(&mut out);
        }
        let plain: Vec<_> = self.settings.iter().filter(|name| ***name != *SESSION_AUTHORIZATION).collect();
        if !plain.is_empty() {
            start_select(&mut out);
            write_settings(&mut out, &plain);
        }
        if self.origins && !plain.is_empty() {
            start_select(&mut out);
            write_origins(&mut out, &plain);
        }
        let parts = [
            (self.prepared, PREPARED),
            (self.channels, CHANNELS),
            (self.temp, TEMP),
            (self.advisory, ADVISORY),
            (self.held, HELD),
        ];
        for (_, text) in parts.iter().filter(|(wanted, _)| *wanted) {
            start_select(&mut out);
            out.extend_from_slice(text.as_bytes());
        }
        out
    }
}

fn start_select(out: &mut Vec<u8>) {
    out.extend_from_slice(if out.is_empty() { b"SELECT " } else { b" UNION ALL SELECT " });
}

const HEX_OPEN: &[u8] = b"pg_catalog.encode(pg_catalog.convert_to(";
const HEX_CLOSE: &[u8] = b", 'UTF8'), 'hex')";

/// One scan of a list of names: planned in a third of the time that a UNION of as many queries takes.
fn write_settings(out: &mut Vec<u8>, names: &[&Arc<str>]) {
    out.extend_from_slice(b"'s'::pg_catalog.text, h, ");
    out.extend_from_slice(HEX_OPEN);
    out.extend_from_slice(b"pg_catalog.current_setting(n, true)");
    out.extend_from_slice(HEX_CLOSE);
    out.extend_from_slice(b" FROM ");
    write_names(out, names);
}

/// `pg_settings` knows nothing of roles and custom settings; `source` is as in `guc_tables.c`.
fn write_origins(out: &mut Vec<u8>, names: &[&Arc<str>]) {
    out.extend_from_slice(
        b"CASE WHEN s.source OPERATOR(pg_catalog.=) 'session'::pg_catalog.text THEN 'e' ELSE 'd' END, \
          v.h, NULL FROM pg_catalog.pg_show_all_settings() AS s JOIN ",
    );
    write_names(out, names);
    out.extend_from_slice(b" ON pg_catalog.lower(s.name) OPERATOR(pg_catalog.=) v.n");
}

/// A table `v` of names, in hexadecimal and plain.
fn write_names(out: &mut Vec<u8>, names: &[&Arc<str>]) {
    out.extend_from_slice(b"(VALUES ");
    for (at, name) in names.iter().enumerate() {
        out.extend_from_slice(if at == 0 { b"('" } else { b", ('" });
        write_hex(out, name);
        out.extend_from_slice(b"', ");
        push_literal(out, name);
        out.push(b')');
    }
    out.extend_from_slice(b") AS v (h, n)");
}

fn write_assumed_user(out: &mut Vec<u8>) {
    out.extend_from_slice(b"'s'::pg_catalog.text, '");
    write_hex(out, SESSION_AUTHORIZATION);
    out.extend_from_slice(b"', ");
    out.extend_from_slice(HEX_OPEN);
    out.extend_from_slice(ASSUMED_USER.as_bytes());
    out.extend_from_slice(HEX_CLOSE);
}

fn write_hex(out: &mut Vec<u8>, text: &str) {
    for byte in text.bytes() {
        out.extend_from_slice(format!("{byte:02x}").as_bytes());
    }
}

/// The session's user unless it is who logged in: that one is shown by the session's own entry in the list of them.
const ASSUMED_USER: &str = "(SELECT CASE WHEN session_user OPERATOR(pg_catalog.<>) \
    pg_catalog.pg_get_userbyid(s.usesysid) THEN session_user::pg_catalog.text END \
    FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid()) AS s)";

const PREPARED: &str = "'p', pg_catalog.encode(pg_catalog.convert_to(name, 'UTF8'), 'hex'), \
    pg_catalog.encode(pg_catalog.convert_to(statement, 'UTF8'), 'hex') \
    FROM pg_catalog.pg_prepared_statement() WHERE from_sql";

const CHANNELS: &str = "'c', pg_catalog.encode(pg_catalog.convert_to(c, 'UTF8'), 'hex'), NULL \
    FROM pg_catalog.pg_listening_channels() AS c";

/// Everything in a session's temporary schema, whatever its kind, depends on that schema; 2615 is `pg_namespace`.
const TEMP: &str = "'t', NULL, NULL WHERE EXISTS (SELECT FROM pg_catalog.pg_depend \
    WHERE refclassid OPERATOR(pg_catalog.=) 2615::pg_catalog.oid \
    AND refobjid OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema() \
    AND pg_catalog.pg_my_temp_schema() OPERATOR(pg_catalog.<>) 0::pg_catalog.oid)";

const ADVISORY: &str = "'a', NULL, NULL WHERE EXISTS (SELECT FROM pg_catalog.pg_lock_status() \
    WHERE locktype OPERATOR(pg_catalog.=) 'advisory'::pg_catalog.text \
    AND pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid())";

const HELD: &str = "'h', NULL, NULL WHERE EXISTS (SELECT FROM pg_catalog.pg_cursor() WHERE is_holdable)";

impl Found {
    /// Where the value of a setting comes from; `None` if the server did not say.
    #[must_use]
    pub fn origin(&self, name: &str) -> Option<Origin> {
        self.origins.iter().find(|(found, _)| **found == *name).map(|(_, origin)| *origin)
    }
}

impl Reader {
    /// Takes a row's three columns; `None` is NULL.
    ///
    /// # Errors
    /// [`ProbeError`]: the answer is to be thrown away.
    pub fn row(
        &mut self,
        kind: Option<&[u8]>,
        name: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<(), ProbeError> {
        self.rows += 1;
        self.bytes += name.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len);
        if self.rows > ROWS_MAX || self.bytes > 2 * ANSWER_BYTES_MAX {
            return Err(ProbeError::TooLarge);
        }
        match (kind, name, value) {
            (Some(b"s"), Some(name), value) => {
                let value = value.map(text).transpose()?;
                self.found.settings.push((text(name)?.into(), value));
            }
            (Some(b"d"), Some(name), None) => self.found.origins.push((text(name)?.into(), Origin::Start)),
            (Some(b"e"), Some(name), None) => self.found.origins.push((text(name)?.into(), Origin::Session)),
            (Some(b"p"), Some(name), Some(sql)) => self.found.prepared.push((text(name)?, text(sql)?)),
            (Some(b"c"), Some(name), None) => self.found.channels.push(text(name)?),
            (Some(b"t"), None, None) => self.found.temp = true,
            (Some(b"a"), None, None) => self.found.advisory = true,
            (Some(b"h"), None, None) => self.found.held = true,
            _ => return Err(ProbeError::Malformed),
        }
        Ok(())
    }

    /// All that was said.
    #[must_use]
    pub fn finish(self) -> Found {
        self.found
    }
}

/// Hexadecimal UTF-8.
fn text(hex: &[u8]) -> Result<String, ProbeError> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = hex.as_chunks::<2>();
    let byte = |pair: &[u8; 2]| Some(digit(pair[0])? << 4 | digit(pair[1])?);
    let bytes: Option<Vec<u8>> = pairs.iter().map(byte).collect();
    let text = bytes.filter(|_| rest.is_empty()).and_then(|bytes| String::from_utf8(bytes).ok());
    text.ok_or(ProbeError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_follows_from_effects() {
        let asked = |effects, names: &[&str]| Wanted::from_effects(effects, names.iter().copied());
        assert!(asked(Effects::WRITES | Effects::DDL, &[]).unwrap().is_empty());
        assert!(asked(Effects::SETTINGS | Effects::SETTINGS_UNKNOWN, &["a"]).is_none());
        let wanted =
            asked(Effects::SETTINGS | Effects::TEMP_DROP, &["TimeZone", "timezone", "role"]).unwrap();
        assert_eq!(wanted.settings(), ["timezone".into(), "role".into()]);
        assert!(wanted.temp && !wanted.advisory && !wanted.is_empty());
        let names: Vec<_> = (0..=WANTED_SETTINGS_MAX).map(|at| format!("a.b{at}")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        assert!(asked(Effects::SETTINGS, &names).is_none());
        assert!(asked(Effects::SETTINGS, &names[1..]).is_some());
    }

    #[test]
    fn two_wishes_are_one() {
        let mut wanted = Wanted { temp: true, ..Wanted::default() };
        assert!(wanted.add_setting("a.b"));
        let mut other = Wanted { held: true, ..Wanted::default() };
        assert!(other.add_setting("A.B") && other.add_setting("session_authorization"));
        assert!(wanted.merge(&other));
        assert!(wanted.temp && wanted.held);
        assert_eq!(wanted.settings(), ["a.b".into(), "role".into(), "session_authorization".into()]);
    }

    #[test]
    fn rows_that_were_not_asked_for_are_refused() {
        type Column = Option<&'static [u8]>;
        fn check(kind: Column, name: Column, value: Column) {
            let error = Reader::default().row(kind, name, value).unwrap_err();
            assert_eq!(error, ProbeError::Malformed, "{kind:?} {name:?} {value:?}");
        }
        check(None, None, None);
        check(Some(b""), Some(b"61"), None);
        check(Some(b"s"), None, Some(b"61"));
        check(Some(b"s"), Some(b"6"), None);
        check(Some(b"s"), Some(b"6g"), None);
        check(Some(b"s"), Some(b"ff"), None);
        check(Some(b"s"), Some(b"61"), Some(b"+1"));
        check(Some(b"p"), Some(b"61"), None);
        check(Some(b"t"), Some(b"61"), None);
    }

    #[test]
    fn an_answer_without_end_is_refused() {
        let mut reader = Reader::default();
        let taken = (0..).take_while(|_| reader.row(Some(b"c"), Some(b"61"), None).is_ok()).count();
        assert_eq!(taken, ROWS_MAX);
        let large = vec![b'6'; 2 * ANSWER_BYTES_MAX + 2];
        let refused = Reader::default().row(Some(b"c"), Some(&large), None);
        assert_eq!(refused, Err(ProbeError::TooLarge));
    }
}
