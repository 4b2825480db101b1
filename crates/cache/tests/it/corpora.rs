//! The fuzz corpora as tests: what the fuzzer starts from, and what it found, must hold on every run.

use std::path::Path;

use crate::properties;

/// Checks every file of one corpus.
fn check(target: &str, law: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let entries = std::fs::read_dir(&folder).expect("the corpus is part of the repository");
    let mut checked = 0;
    for entry in entries {
        let path = entry.expect("a readable folder").path();
        let input = std::fs::read(&path).expect("a readable file");
        // Names the file when a law breaks.
        let outcome = std::panic::catch_unwind(|| law(&input));
        assert!(outcome.is_ok(), "{}", path.display());
        checked += 1;
    }
    assert!(checked >= 5, "{target} has {checked} files");
}

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
fn laws_of_shared_values_hold_on_the_corpus() {
    check("cache_shared_value", properties::shared_value);
}
