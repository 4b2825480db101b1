//! Fuzzes the SQL lexer and fingerprints: `properties/sql.rs` says what must hold.
#![no_main]

#[path = "../properties/sql.rs"]
mod sql;

libfuzzer_sys::fuzz_target!(|input: &[u8]| sql::lex(input));
