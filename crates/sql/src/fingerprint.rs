//! One number for all texts that differ only in literals, parameters, comments, spacing and the length of lists.

use crate::lex::Dialect;

/// 128 bits that stand for a statement without its literals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub u128);

/// Secret numbers that keep clients from making two statements meet in one fingerprint. One per process, random.
#[derive(Clone, Copy, Debug)]
pub struct Seed(pub [u64; 4]);

/// The fingerprint of a text.
#[must_use]
pub fn fingerprint(sql: &[u8], dialect: Dialect, seed: &Seed) -> Fingerprint {
    let _ = (sql, dialect, seed);
    Fingerprint::default()
}
