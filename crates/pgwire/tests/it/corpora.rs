//! The fuzz corpora as tests: what the fuzzer starts from, and what it found, must hold on every run.

use tenfold_testkit::corpus::check;

use crate::{properties, scram_properties};

#[test]
fn startup_laws_hold_on_the_corpus() {
    check("pg_startup", properties::startup);
}

#[test]
fn client_message_laws_hold_on_the_corpus() {
    check("pg_frontend", properties::from_client);
}

#[test]
fn server_message_laws_hold_on_the_corpus() {
    check("pg_backend", properties::from_server);
}

#[test]
fn scram_server_laws_hold_on_the_corpus() {
    check("pg_scram_server", scram_properties::server);
}

#[test]
fn scram_client_laws_hold_on_the_corpus() {
    check("pg_scram_client", scram_properties::client);
}
