//! The schemas that a session looks for names in: `search_path` as PostgreSQL reads it.
//!
//! **Intuition.** `orders` is another table for each tenant of a schema of its own. Who knows the session's path knows
//! which; who doesn't takes all tables of that name.
//!
//! **Failure.** A value that is no list of names has no path ([`SearchPath::parse`] gives `None`), and all schemas count.

use crate::decision::Name;
use crate::fingerprint::{Seed, chunk, multiply};
use crate::ident::Ident;
use crate::lex::{Dialect, Kind, Lexer};

/// Schemas in one path; with more, all schemas count.
const SCHEMAS_MAX: usize = 16;

/// A session's schemas in order. `pg_catalog` is always searched and need not be in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchPath {
    schemas: Vec<Name>,
    id: u64,
}

impl SearchPath {
    /// From the setting's value and the session's role, which `"$user"` stands for. `seed` is the process's, so that
    /// nobody can look for two paths that are remembered as one.
    #[must_use]
    pub fn parse(value: &str, role: &str, seed: &Seed) -> Option<Self> {
        let text = value.as_bytes();
        let mut schemas = Vec::new();
        let mut expects_name = true;
        for token in Lexer::new(text, Dialect::default()) {
            match (expects_name, token.kind) {
                (true, Kind::Word | Kind::Quoted) => {
                    let ident = Ident::of(text, token)?;
                    let is_user = ident.as_bytes() == b"$user";
                    schemas.push(if is_user { role.as_bytes().into() } else { ident.to_name() });
                }
                (false, Kind::Comma) => {}
                _ => return None,
            }
            expects_name = !expects_name;
        }
        if schemas.len() > SCHEMAS_MAX || (expects_name && !schemas.is_empty()) {
            return None;
        }
        Some(Self { id: id_of(&schemas, seed), schemas })
    }

    /// The schemas in order.
    #[must_use]
    pub fn schemas(&self) -> &[Name] {
        &self.schemas
    }

    /// What decisions are remembered under: never 0, and another number for other schemas.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }
}

/// A keyed hash, never zero: that stands for every schema.
fn id_of(schemas: &[Name], seed: &Seed) -> u64 {
    let mut id = seed.0[1];
    for name in schemas {
        id = multiply(id ^ name.len() as u64, seed.0[3]);
        for at in (0..name.len()).step_by(8) {
            id = multiply(id ^ chunk(name, at, name.len() - at), seed.0[2]);
        }
    }
    id | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: Seed = Seed([3, 5, 0x9e37_79b9_7f4a_7c15, 0xc2b2_ae3d_27d4_eb4f]);

    fn check(value: &str, schemas: Option<&[&str]>) {
        let path = SearchPath::parse(value, "alice", &SEED);
        let found = path.as_ref().map(|path| {
            path.schemas().iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect::<Vec<_>>()
        });
        let schemas = schemas.map(|names| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!(found, schemas, "{value}");
    }

    #[test]
    fn paths_are_read_as_postgresql_reads_them() {
        check("\"$user\", public", Some(&["alice", "public"]));
        check("App, \"App\"", Some(&["app", "App"]));
        check("", Some(&[]));
        check("\"\"", Some(&[""]));
        check("a,", None);
        check("a b", None);
        check("'a'", None);
        check(&["a"; 17].join(","), None);
    }

    #[test]
    fn paths_are_told_apart() {
        let id = |value| SearchPath::parse(value, "r", &SEED).expect("a path").id();
        assert_ne!(id("a, b"), id("b, a"));
        assert_ne!(id("ab"), id("a, b"));
        assert_eq!(id("a"), id("A"));
    }
}
