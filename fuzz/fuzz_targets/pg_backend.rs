//! Fuzzes what PostgreSQL servers send: `properties/pgwire.rs` says what must hold.
#![no_main]

#[path = "../properties/pgwire.rs"]
mod pgwire;

libfuzzer_sys::fuzz_target!(|input: &[u8]| pgwire::from_server(input));
