//! The codec from outside: tables of what is accepted and refused, properties, and the fuzz corpora.

mod corpora;

#[path = "../../../../fuzz/properties/http1.rs"]
mod properties;
