//! The fuzz corpora as tests: what the fuzzer starts from, and what it found, must hold on every run.

use tenfold_testkit::corpus::check;

use crate::properties;

#[test]
fn cache_control_laws_hold_on_the_corpus() {
    check("cache_control", properties::cache_control);
}

#[test]
fn header_laws_hold_on_the_corpus() {
    check("cache_headers", properties::headers);
}

#[test]
fn range_laws_hold_on_the_corpus() {
    check("cache_ranges", properties::ranges);
}

#[test]
fn key_laws_hold_on_the_corpus() {
    check("cache_vary", properties::vary);
}

#[test]
fn coding_laws_hold_on_the_corpus() {
    check("cache_encoding", properties::encoding);
}

#[test]
fn laws_of_shared_values_hold_on_the_corpus() {
    check("cache_shared_value", properties::shared_value);
}
