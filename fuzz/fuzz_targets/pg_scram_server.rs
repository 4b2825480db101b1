//! Fuzzes SCRAM as a server: `properties/pg_scram.rs` says what must hold.
#![no_main]

#[path = "../properties/pg_scram.rs"]
mod pg_scram;

libfuzzer_sys::fuzz_target!(|input: &[u8]| pg_scram::server(input));
