//! The policy from outside: tables of the standards' words, an independent oracle, the fuzz corpora, and the tiers against a
//! real Redis.

mod cases;
mod conformance;
mod corpora;
mod edges;
mod oracle;
#[path = "../../../../fuzz/properties/cache.rs"]
mod properties;
mod site;
