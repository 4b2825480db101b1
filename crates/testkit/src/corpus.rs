//! Fuzz corpora as tests: what a fuzzer starts from, and what it found, must hold on every run.
//!
//! **Mechanism.** A corpus is a folder of `fuzz/corpus`, named as its target; a law is the function that the target runs
//! on each input (`fuzz/properties`), which panics where it does not hold.
//!
//! **Failure.** The test fails at the first file that breaks the law, and names it. So does a corpus that has shrunk to
//! next to nothing: a law that holds for no input says nothing.

use std::{panic, path::Path};

/// A corpus of fewer files is one that was lost.
const FILES_MIN: usize = 5;

/// Checks that `law` holds for every file of the corpus of `target`.
///
/// # Panics
/// If it does not, if a file cannot be read, or if there are fewer than five.
pub fn check(target: &str, law: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let entries = std::fs::read_dir(&folder).expect("the corpus is part of the repository");
    let mut checked = 0;
    for entry in entries {
        let path = entry.expect("a readable folder").path();
        let input = std::fs::read(&path).expect("a readable file");
        // The law's own words say what broke; this says in which file.
        let outcome = panic::catch_unwind(|| law(&input));
        assert!(outcome.is_ok(), "{}", path.display());
        checked += 1;
    }
    assert!(checked >= FILES_MIN, "{target} has {checked} files");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_law_that_holds_passes_and_one_that_does_not_fails() {
        check("sql_lex", |_| {});
        let broken = panic::catch_unwind(|| check("sql_lex", |input| assert!(input.is_empty())));
        assert!(broken.is_err());
    }
}
