//! Fuzzes what is read of the tier that edges share: `properties/cache.rs` says what must hold.
#![no_main]

#[path = "../properties/cache.rs"]
mod cache;

libfuzzer_sys::fuzz_target!(|input: &[u8]| cache::shared_value(input));
