//! Fuzzes request heads: `properties/http1.rs` says what must hold.
#![no_main]

#[path = "../properties/http1.rs"]
mod http1;

libfuzzer_sys::fuzz_target!(|input: &[u8]| http1::request(input));
