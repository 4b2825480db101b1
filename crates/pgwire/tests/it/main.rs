//! The codec from outside: tables of what is accepted and refused, properties, the fuzz corpora, and both sides of a
//! login against PostgreSQL's own programs.

mod backends;
mod connection;
mod corpora;
mod frontends;
mod generated;
mod libpq;
mod logins;
mod sessions;

#[path = "../../../../fuzz/properties/pgwire.rs"]
mod properties;

#[path = "../../../../fuzz/properties/pg_scram.rs"]
mod scram_properties;
