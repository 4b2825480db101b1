//! The codec from outside: tables of what is accepted and refused, properties, and the fuzz corpora.

mod bodies;
mod corpora;
mod generated;
mod hops;
mod limits;
mod requests;
mod responses;
mod smuggling;
mod writing;

#[path = "../../../../fuzz/properties/http1.rs"]
mod properties;
