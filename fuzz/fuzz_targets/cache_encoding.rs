//! Fuzzes content codings (Accept-Encoding and what may be compressed): `properties/cache.rs` says what must hold.
#![no_main]

#[path = "../properties/cache.rs"]
mod cache;

libfuzzer_sys::fuzz_target!(|input: &[u8]| cache::encoding(input));
