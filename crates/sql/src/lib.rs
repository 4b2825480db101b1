//! What an SQL statement does to the session it runs in.
//!
//! A pooler that lends one server connection to many clients must know, before it lends, whether a statement leaves
//! anything behind: a setting, a lock, a temporary table. This crate reads statements the way PostgreSQL's own lexer
//! does ([`lex`]), boils texts that differ only in literals down to one [`Fingerprint`], and decides once per
//! fingerprint what the statement is and does ([`Classifier`], [`Decision`]). What functions, triggers, views and
//! defaults hide is looked up in a [`Catalogue`] made of rows of the server's own catalogue.
//!
//! Everything here is sans-io: no sockets, clocks, threads or randomness. Every text is hostile: reading is linear in
//! its length and bounded, and whatever is not recognised is [`Effects::UNKNOWN`], never a guess.

pub mod catalogue;
pub mod classifier;
pub mod decision;
pub mod effects;
pub mod fingerprint;
pub mod hot;
mod ident;
mod keyword;
pub mod lex;
pub mod path;
pub mod quote;
mod read;
pub mod route;
mod shown;
mod template;

pub use catalogue::{Catalogue, CatalogueBuilder, RoleSetting};
pub use classifier::Classifier;
pub use decision::{Begin, Decision, Discard, Isolation, Name, Set, SetValue, Shape};
pub use effects::Effects;
pub use fingerprint::{Fingerprint, Reading, Seed, fingerprint};
pub use hot::{HotKey, KeyText, hot_hash, key_text};
pub use lex::{Dialect, Hint};
pub use path::SearchPath;
pub use read::statements;
pub use route::{Destination, Key, Reason, Route, TableId, Tables};
pub use shown::shown;

/// What can be wrong with what is given to this crate, other than SQL texts, which never fail.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A catalogue query's index, or the number of columns of its row, is not one of ours.
    #[error("catalogue query {query}: a row of {columns} columns is not expected")]
    CatalogueRow {
        /// Index into `Catalogue::QUERIES`.
        query: usize,
        /// How many columns came.
        columns: usize,
    },
    /// A column that must have a value is NULL.
    #[error("catalogue query {query}: column {column} is NULL")]
    CatalogueNull {
        /// Index into `Catalogue::QUERIES`.
        query: usize,
        /// Counted from 0.
        column: usize,
    },
    /// The database defines more than this program will remember.
    #[error("the catalogue holds more than {max} {what}")]
    CatalogueTooLarge {
        /// Of what.
        what: &'static str,
        /// The limit.
        max: usize,
    },
}
