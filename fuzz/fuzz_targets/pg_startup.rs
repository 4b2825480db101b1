//! Fuzzes the packets a connection to PostgreSQL opens with: `properties/pgwire.rs` says what must hold.
#![no_main]

#[path = "../properties/pgwire.rs"]
mod pgwire;

libfuzzer_sys::fuzz_target!(|input: &[u8]| pgwire::startup(input));
