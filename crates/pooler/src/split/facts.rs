//! What a new server connection is asked where reads are split: which server it leads to, and where its sessions begin.
//!
//! **Mechanism.** One query at login. The primary's connections say what BEGIN means and which schemas names are looked
//! for in ([`Begins`]); a replica's must begin in the same way in everything that an answer can show, or two servers
//! would give two answers to one question ([`Begins::differs`]).
//!
//! **Failure.** Facts that cannot be read are none, and the connection is not used.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tenfold_sql::Isolation;

/// Settings that an answer can show, as a session begins with them; the first is the search path.
const DEFAULTS: [&str; 18] = [
    "search_path",
    "TimeZone",
    "DateStyle",
    "IntervalStyle",
    "lc_monetary",
    "lc_numeric",
    "lc_time",
    "bytea_output",
    "extra_float_digits",
    "xmloption",
    "xmlbinary",
    "default_text_search_config",
    "timezone_abbreviations",
    "standard_conforming_strings",
    "array_nulls",
    "quote_all_identifiers",
    "transform_null_equals",
    "row_security",
];
/// Stands between them.
const SEPARATOR: char = '\u{1f}';

/// What a server says of itself and of where its sessions begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// It is a standby.
    pub is_standby: bool,
    /// Another number for each start of each server; never 0.
    pub instance: u64,
    /// Where its sessions begin.
    pub begins: Begins,
}

/// Where sessions begin that have changed nothing.
#[derive(Clone, Debug)]
pub struct Begins {
    /// Another number for each time it was told.
    pub serial: u64,
    /// `default_transaction_isolation`.
    pub isolation: Isolation,
    /// `default_transaction_read_only`.
    pub is_read_only: bool,
    /// What [`DEFAULTS`] are.
    defaults: Arc<str>,
    /// Connections told different things: nobody knows what a session's path is.
    is_unsteady: bool,
}

/// One row of seven texts: [`Facts::read`]. The start is a number of microseconds: as a date it would look another way
/// in each session's TimeZone and DateStyle.
#[must_use]
pub fn facts_query() -> String {
    let defaults = DEFAULTS.map(|name| format!("pg_catalog.current_setting('{name}')")).join(", ");
    format!(
        "SELECT pg_catalog.pg_is_in_recovery()::pg_catalog.text, \
         (pg_catalog.date_part('epoch', pg_catalog.pg_postmaster_start_time()) \
          OPERATOR(pg_catalog.*) 1000000)::pg_catalog.int8::pg_catalog.text, \
         pg_catalog.inet_server_addr()::pg_catalog.text, pg_catalog.inet_server_port()::pg_catalog.text, \
         pg_catalog.current_setting('default_transaction_isolation'), \
         pg_catalog.current_setting('default_transaction_read_only'), \
         pg_catalog.concat_ws(pg_catalog.chr({}), {defaults})",
        u32::from(SEPARATOR)
    )
}

impl Facts {
    /// From the row that [`facts_query`] gives; `None` if it is none. `name`: what the server is called here.
    #[must_use]
    pub fn read(name: &str, columns: [Option<&str>; 7]) -> Option<Self> {
        let [is_standby, started, address, port, isolation, is_read_only, defaults] = columns;
        let begins = Begins {
            serial: next_serial(),
            isolation: isolation_of(isolation?)?,
            is_read_only: is_read_only? == "on",
            defaults: defaults?.into(),
            is_unsteady: false,
        };
        let instance = instance_of(name, started?, address, port);
        Some(Self { is_standby: is_standby? == "true", instance, begins })
    }
}

impl Begins {
    /// The search path, where all connections begin with the same.
    #[must_use]
    pub fn search_path(&self) -> Option<&str> {
        self.defaults.split(SEPARATOR).next().filter(|_| !self.is_unsteady)
    }

    /// The first setting with which sessions begin another way there, and its two values.
    #[must_use]
    pub fn differs<'a>(&'a self, other: &'a Self) -> Option<(&'static str, &'a str, &'a str)> {
        let pairs = self.defaults.split(SEPARATOR).zip(other.defaults.split(SEPARATOR));
        let mut named = DEFAULTS.into_iter().zip(pairs);
        named.find(|(_, (own, others))| own != others).map(|(name, (own, others))| (name, own, others))
    }

    /// This, after another connection of the pool has begun otherwise: what they have in common.
    #[must_use]
    pub fn after(mut self, before: &Self) -> Self {
        self.is_unsteady = before.is_unsteady || self.search_path() != before.search_path();
        self
    }
}

impl PartialEq for Begins {
    fn eq(&self, other: &Self) -> bool {
        (self.isolation, self.is_read_only, &self.defaults)
            == (other.isolation, other.is_read_only, &other.defaults)
    }
}

impl Eq for Begins {}

fn next_serial() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Which start of which server: never 0, and the same for whoever asks it in this process.
#[must_use]
pub fn instance_of(name: &str, started: &str, address: Option<&str>, port: Option<&str>) -> u64 {
    let mut hasher = DefaultHasher::new();
    (name, started, address, port).hash(&mut hasher);
    hasher.finish().max(1)
}

/// An isolation level as settings name it.
#[must_use]
pub fn isolation_of(value: &str) -> Option<Isolation> {
    let levels = [
        ("read uncommitted", Isolation::ReadUncommitted),
        ("read committed", Isolation::ReadCommitted),
        ("repeatable read", Isolation::RepeatableRead),
        ("serializable", Isolation::Serializable),
    ];
    levels.into_iter().find(|(name, _)| value.eq_ignore_ascii_case(name)).map(|(_, level)| level)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(defaults: &str) -> Option<Facts> {
        let row = [Some("true"), Some("7"), None, None, Some("read committed"), Some("off"), Some(defaults)];
        Facts::read("r", row)
    }

    #[test]
    fn facts_are_read_whole_or_not_at_all() {
        let facts = read("public\u{1f}UTC").expect("facts");
        assert!(facts.is_standby && !facts.begins.is_read_only);
        assert_eq!(facts.begins.isolation, Isolation::ReadCommitted);
        assert_eq!(facts.begins.search_path(), Some("public"));
        assert_eq!(facts.instance, instance_of("r", "7", None, None));
        assert_ne!(facts.instance, instance_of("r", "8", None, None));
        let chaos = [Some("true"), Some("7"), None, None, Some("chaos"), Some("off"), Some("")];
        assert_eq!(Facts::read("r", chaos), None);
        assert_eq!(Facts::read("r", [None; 7]), None);
    }

    #[test]
    fn servers_that_would_answer_otherwise_are_told_apart() {
        let (one, other) = (read("public\u{1f}UTC").expect("facts"), read("public\u{1f}CET").expect("facts"));
        assert_eq!(one.begins.differs(&other.begins), Some(("TimeZone", "UTC", "CET")));
        assert_eq!(one.begins.differs(&one.begins), None);
        assert_eq!(other.begins.clone().after(&one.begins).search_path(), Some("public"));
        let moved = read("app\u{1f}UTC").expect("facts").begins.after(&one.begins);
        assert_eq!(moved.search_path(), None);
        assert_eq!(one.begins.after(&moved).search_path(), None, "some connections still begin elsewhere");
    }
}
