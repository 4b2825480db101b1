//! What a new server connection is asked where reads are split: which server it leads to, and what BEGIN means there.

use std::hash::{DefaultHasher, Hash, Hasher};

use tenfold_sql::Isolation;

/// One row of six texts: [`Facts::read`]. The start is a number of microseconds: as a date it would look another way in
/// each session's TimeZone and DateStyle.
pub const FACTS_QUERY: &str = "SELECT pg_catalog.pg_is_in_recovery()::text, \
     (pg_catalog.date_part('epoch', pg_catalog.pg_postmaster_start_time()) \
      OPERATOR(pg_catalog.*) 1000000)::pg_catalog.int8::text, \
     pg_catalog.inet_server_addr()::text, pg_catalog.inet_server_port()::text, \
     pg_catalog.current_setting('default_transaction_isolation'), \
     pg_catalog.current_setting('default_transaction_read_only')";

/// What a server says of itself and of where its sessions begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// It is a standby.
    pub is_standby: bool,
    /// Another number for each start of each server; never 0.
    pub instance: u64,
    /// What BEGIN means without modes.
    pub begins: Begins,
}

/// What BEGIN means without modes, to a session that has changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begins {
    /// `default_transaction_isolation`.
    pub isolation: Isolation,
    /// `default_transaction_read_only`.
    pub is_read_only: bool,
}

impl Facts {
    /// From the row that [`FACTS_QUERY`] gives; `None` if it is none. `name`: what the server is called here.
    #[must_use]
    pub fn read(name: &str, columns: [Option<&str>; 6]) -> Option<Self> {
        let [is_standby, started, address, port, isolation, is_read_only] = columns;
        let isolation = isolation_of(isolation?)?;
        Some(Self {
            is_standby: is_standby? == "true",
            instance: instance_of(name, started?, address, port),
            begins: Begins { isolation, is_read_only: is_read_only? == "on" },
        })
    }
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

    #[test]
    fn facts_are_read_whole_or_not_at_all() {
        let row = [Some("true"), Some("now"), None, None, Some("read committed"), Some("off")];
        let facts = Facts::read("r", row).expect("facts");
        assert!(facts.is_standby && !facts.begins.is_read_only);
        assert_eq!(facts.begins.isolation, Isolation::ReadCommitted);
        assert_eq!(facts.instance, instance_of("r", "now", None, None));
        assert_ne!(facts.instance, instance_of("r", "later", None, None));
        assert_eq!(
            Facts::read("r", [Some("true"), Some("now"), None, None, Some("chaos"), Some("off")]),
            None
        );
        assert_eq!(Facts::read("r", [None; 6]), None);
    }
}
