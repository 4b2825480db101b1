//! Rules in the form of `pg_hba.conf`: who may come from where, and how they have to prove it.
//!
//! **Intuition.** A list read from the top: the first line that fits the connection decides, and where none fits the
//! answer is no.
//!
//! **Mechanism.** [`Hba::parse`] reads the text once, at start and reload; [`Hba::decide`] walks the rules for each
//! login. IPv4 addresses that arrive in IPv6's clothes (`::ffff:10.0.0.1`) are taken for what they are.
//!
//! **Failure.** A file with mistakes is refused as a whole, with every mistake and its line: half a list of rules would
//! let the wrong people in. What is not supported (groups, host names, `samehost`, ident maps, LDAP…) is a mistake that
//! says so, never a rule that silently fits nobody.
//!
//! Source: PostgreSQL documentation, "The pg_hba.conf File"; `hba.c` for what quotes do.

mod parse;

use std::{fmt, net::IpAddr};

use ipnet::IpNet;

use crate::config::AuthMethod;

/// Rules at most; a file with more is refused.
pub const RULES_MAX: usize = 10_000;

/// The rules, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hba {
    rules: Vec<Rule>,
}

/// What of a connection the rules look at.
#[derive(Clone, Copy, Debug)]
pub struct HbaFacts<'a> {
    /// The database asked for.
    pub database: &'a str,
    /// The user claimed.
    pub user: &'a str,
    /// Where from; `None`: a Unix socket.
    pub address: Option<IpAddr>,
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// Whether it is for physical replication, which `all` and names of databases do not fit.
    pub replication: bool,
}

/// What the rules say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Come in if this works.
    Method {
        /// How to prove it.
        method: AuthMethod,
        /// The rule's line in the file.
        line: u32,
    },
    /// A rule says no.
    Reject {
        /// The rule's line in the file.
        line: u32,
    },
    /// No rule fits, which is a no.
    NoRule,
}

/// A mistake in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HbaError {
    /// The line, counted from one; of a continued line the first.
    pub line: u32,
    /// What is wrong with it.
    pub message: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    line: u32,
    connection: Connection,
    databases: Vec<DatabaseItem>,
    users: Vec<UserItem>,
    /// `None`: any address. Meaningless for [`Connection::Local`].
    network: Option<IpNet>,
    /// `None`: reject.
    method: Option<AuthMethod>,
}

/// The first word of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Connection {
    /// Unix sockets.
    Local,
    /// TCP, encrypted or not.
    Host,
    /// TCP with TLS.
    HostSsl,
    /// TCP without TLS.
    HostNoSsl,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum DatabaseItem {
    All,
    SameUser,
    Replication,
    Name(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum UserItem {
    All,
    Name(String),
}

impl Hba {
    /// Reads a file's text.
    ///
    /// # Errors
    /// Every mistake in it, by line; never an empty list.
    pub fn parse(text: &str) -> Result<Self, Vec<HbaError>> {
        parse::rules(text).map(|rules| Self { rules })
    }

    /// What the first rule that fits says.
    #[must_use]
    pub fn decide(&self, facts: &HbaFacts<'_>) -> Verdict {
        let Some(rule) = self.rules.iter().find(|rule| rule.fits(facts)) else { return Verdict::NoRule };
        match rule.method {
            Some(method) => Verdict::Method { method, line: rule.line },
            None => Verdict::Reject { line: rule.line },
        }
    }
}

impl Rule {
    fn fits(&self, facts: &HbaFacts<'_>) -> bool {
        self.fits_connection(facts)
            && self.databases.iter().any(|item| item.fits(facts))
            && self.users.iter().any(|item| item.fits(facts))
    }

    fn fits_connection(&self, facts: &HbaFacts<'_>) -> bool {
        let Some(address) = facts.address else { return self.connection == Connection::Local };
        let encryption_fits = match self.connection {
            Connection::Local => false,
            Connection::Host => true,
            Connection::HostSsl => facts.tls,
            Connection::HostNoSsl => !facts.tls,
        };
        encryption_fits && self.network.is_none_or(|network| network.contains(&address.to_canonical()))
    }
}

impl DatabaseItem {
    fn fits(&self, facts: &HbaFacts<'_>) -> bool {
        match self {
            Self::Replication => facts.replication,
            _ if facts.replication => false,
            Self::All => true,
            Self::SameUser => facts.database == facts.user,
            Self::Name(name) => name == facts.database,
        }
    }
}

impl UserItem {
    fn fits(&self, facts: &HbaFacts<'_>) -> bool {
        match self {
            Self::All => true,
            Self::Name(name) => name == facts.user,
        }
    }
}

impl fmt::Display for HbaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
# TYPE  DATABASE        USER            ADDRESS                 METHOD
local   all             all                                     peer
hostssl payments        all             0.0.0.0/0               cert
host    payments        all             all                     reject
host    sameuser        all             10.1.0.0/16             md5
host    shop,"all"      app, "report er" 10.0.0.0  255.0.0.0    scram-sha-256
hostnossl all           all             192.168.7.9/32          reject
host    replication     copier          all                     scram-sha-256
host    all \
        guest           127.0.0.1/32    trust
host    all             all             2001:db8::/32           password
"#;

    fn facts<'a>(from: &str, tls: bool, database: &'a str, user: &'a str) -> HbaFacts<'a> {
        let address = (!from.is_empty()).then(|| from.parse().unwrap());
        HbaFacts { database, user, address, tls, replication: false }
    }

    fn check(from: &str, tls: bool, database: &str, user: &str, expected: Verdict) {
        let hba = Hba::parse(FILE).unwrap();
        assert_eq!(hba.decide(&facts(from, tls, database, user)), expected, "{from} {database} {user}");
    }

    fn method(method: AuthMethod, line: u32) -> Verdict {
        Verdict::Method { method, line }
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        check("", false, "shop", "app", method(AuthMethod::Peer, 3));
        check("8.8.8.8", true, "payments", "app", method(AuthMethod::Cert, 4));
        check("8.8.8.8", false, "payments", "app", Verdict::Reject { line: 5 });
        check("10.1.2.3", false, "app", "app", method(AuthMethod::Md5, 6));
        check("10.1.2.3", false, "shop", "app", method(AuthMethod::ScramSha256, 7));
        check("10.9.9.9", false, "all", "report er", method(AuthMethod::ScramSha256, 7));
        check("10.9.9.9", false, "other", "app", Verdict::NoRule);
        check("127.0.0.1", true, "shop", "guest", method(AuthMethod::Trust, 10));
        check("2001:db8::7", true, "shop", "x", method(AuthMethod::Password, 12));
        check("8.8.8.8", true, "shop", "app", Verdict::NoRule);
        // Case matters, as for PostgreSQL.
        check("10.9.9.9", false, "shop", "APP", Verdict::NoRule);
    }

    #[test]
    fn mapped_addresses_are_taken_for_what_they_are() {
        check("::ffff:10.9.9.9", false, "shop", "app", method(AuthMethod::ScramSha256, 7));
        check("::ffff:192.168.7.9", false, "shop", "app", Verdict::Reject { line: 8 });
        check("::ffff:192.168.7.9", true, "shop", "app", Verdict::NoRule);
    }

    #[test]
    fn replication_fits_only_rules_for_it() {
        let hba = Hba::parse(FILE).unwrap();
        let asked = HbaFacts { replication: true, ..facts("127.0.0.1", false, "shop", "copier") };
        assert_eq!(hba.decide(&asked), method(AuthMethod::ScramSha256, 9));
        let asked = HbaFacts { replication: true, ..facts("127.0.0.1", false, "shop", "guest") };
        assert_eq!(hba.decide(&asked), Verdict::NoRule);
        check("10.9.9.9", false, "shop", "copier", Verdict::NoRule);
    }

    #[test]
    fn no_rules_let_nobody_in() {
        assert_eq!(Hba::parse("# nothing\n\n").unwrap().decide(&facts("", false, "a", "b")), Verdict::NoRule);
    }
}
