//! How long classifying takes: pgbench's statements, remembered; a first reading; long and hostile texts.
//!
//! `cargo run --release -p tenfold-sql --example classify_speed`
#![allow(clippy::print_stdout, clippy::disallowed_methods)] // it prints times

use std::hint::black_box;
use std::time::{Duration, Instant};

use tenfold_sql::{CatalogueBuilder, Classifier, Dialect, Seed};

const PGBENCH: [&str; 5] = [
    "UPDATE pgbench_accounts SET abalance = abalance + -1934 WHERE aid = 12345;",
    "SELECT abalance FROM pgbench_accounts WHERE aid = 12345;",
    "UPDATE pgbench_tellers SET tbalance = tbalance + -1934 WHERE tid = 7;",
    "UPDATE pgbench_branches SET bbalance = bbalance + -1934 WHERE bid = 1;",
    "INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (7, 1, 12345, -1934, CURRENT_TIMESTAMP);",
];

fn main() {
    let seed =
        Seed([0x1234_5678_9abc_def1, 0xfedc_ba98_7654_3211, 0x9e37_79b9_7f4a_7c15, 0xc2b2_ae3d_27d4_eb4f]);
    let catalogue = CatalogueBuilder::new().build(1);
    let dialect = Dialect::default();
    let mut classifier = Classifier::new(seed);
    for sql in PGBENCH {
        let time = nanoseconds(1_000_000, || {
            drop(black_box(classifier.classify(black_box(sql.as_bytes()), dialect, &catalogue)));
        });
        println!("{time:8.1} ns  remembered, {} bytes: {}", sql.len(), &sql[..40]);
    }
    for sql in ["SET statement_timeout = '5s'", "BEGIN", PGBENCH[1], PGBENCH[4]] {
        let time = nanoseconds(100_000, || {
            let mut fresh = Classifier::new(seed);
            drop(black_box(fresh.classify(black_box(sql.as_bytes()), dialect, &catalogue)));
        });
        println!("{time:8.1} ns  read afresh: {sql:.40}");
    }
    let long = |head: &str, unit: &str, bytes: usize| format!("{head}{}", unit.repeat(bytes / unit.len()));
    for (what, sql) in [
        ("IN list, 8 kB", long("SELECT 1 WHERE a IN (1", ", 12345", 8_000) + ")"),
        ("rows, 64 kB", long("INSERT INTO t VALUES (1, 'x')", ", (12345, 'some text')", 65_536)),
        ("rows, 256 kB", long("INSERT INTO t VALUES (1, 'x')", ", (12345, 'some text')", 262_144)),
        ("rows, 10 MB", long("INSERT INTO t VALUES (1, 'x')", ", (12345, 'some text')", 10_000_000)),
        ("one literal, 10 MB", long("SELECT '", "x", 10_000_000) + "'"),
        ("signs, 10 MB", long("SELECT ", "+", 10_000_000)),
        ("brackets, 10 MB", long("SELECT ", "(", 10_000_000)),
        ("spaces, 10 MB", long("SELECT ", " ", 10_000_000)),
        ("comment, 10 MB", long("SELECT /*", "x", 10_000_000)),
        ("nested comment, 10 MB", long("SELECT ", "/*", 10_000_000)),
        ("words, 64 kB", long("SELECT ", "word, ", 65_536)),
        ("names called, 40 kB", long("SELECT ", "f(a), ", 40_000)),
        ("set_config nested, 40 kB", long("SELECT ", "set_config(", 40_000)),
        ("terms, 40 kB", long("UPDATE t SET a = 1 WHERE ", "id = 1 AND ", 40_000)),
    ] {
        let time = nanoseconds(20, || {
            let mut fresh = Classifier::new(seed);
            drop(black_box(fresh.classify(black_box(sql.as_bytes()), dialect, &catalogue)));
        });
        println!("{:8.1} µs  {what}", time / 1_000.0);
    }
}

/// The best of many short runs: on a busy machine most are interrupted, but not all.
fn nanoseconds(rounds: u32, mut run: impl FnMut()) -> f64 {
    let batch = (rounds / 1_000).max(1);
    let mut best = Duration::MAX;
    for _ in 0..rounds / batch {
        let start = Instant::now();
        (0..batch).for_each(|_| run());
        best = best.min(start.elapsed());
    }
    best.as_secs_f64() * 1e9 / f64::from(batch)
}
