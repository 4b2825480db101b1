//! The policy from outside: tables of the standards' words, an independent oracle, and the fuzz corpora.

mod corpora;
#[path = "../../../../fuzz/properties/cache.rs"]
mod properties;
