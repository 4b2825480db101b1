//! The policy from outside: tables of the standards' words, an independent oracle, and the fuzz corpora.

mod cases;
mod corpora;
mod oracle;
#[path = "../../../../fuzz/properties/cache.rs"]
mod properties;
