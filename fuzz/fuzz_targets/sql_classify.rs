//! Fuzzes the SQL reader and the catalogue's reading of bodies: `properties/sql.rs` says what must hold.
#![no_main]

#[path = "../properties/sql.rs"]
mod sql;

libfuzzer_sys::fuzz_target!(|input: &[u8]| sql::classify(input));
