//! The crate from outside: tables of statements, properties, a real server's catalogue and lexer, fuzz corpora.

mod fingerprints;
mod hidden;
mod lexer;
mod server;
mod statements;
mod support;
