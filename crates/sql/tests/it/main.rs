//! The crate from outside: tables of statements, properties, a real server's catalogue and lexer, fuzz corpora.

mod corpora;
mod fingerprints;
mod hidden;
mod hostile;
mod lexer;
mod malice;
mod oracle;
mod plans;
mod routes;
mod server;
mod statements;
mod support;

#[path = "../../../../fuzz/properties/sql.rs"]
mod properties;
