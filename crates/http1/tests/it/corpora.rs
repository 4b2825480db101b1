//! The fuzz corpora as tests: what the fuzzer starts from, and what it found, must hold on every run.

use tenfold_testkit::corpus::check;

use crate::properties;

#[test]
fn request_laws_hold_on_the_corpus() {
    check("http1_request", properties::request);
}

#[test]
fn response_laws_hold_on_the_corpus() {
    check("http1_response", properties::response);
}

#[test]
fn body_laws_hold_on_the_corpus() {
    check("http1_chunked", properties::chunked);
}

#[test]
fn connection_laws_hold_on_the_corpus() {
    check("http1_connection", properties::connection);
}

#[test]
fn writing_laws_hold_on_the_corpus() {
    check("http1_write", properties::write);
}
