//! The fuzz corpora as tests: what the fuzzer starts from, and what it found, must hold on every run.

use tenfold_testkit::corpus::check;

use crate::properties;

#[test]
fn lexing_laws_hold_on_the_corpus() {
    check("sql_lex", properties::lex);
}

#[test]
fn decision_laws_hold_on_the_corpus() {
    check("sql_classify", properties::classify);
}
