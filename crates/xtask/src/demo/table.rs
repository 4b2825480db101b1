//! Before and after, beside each other.
//!
//! Every figure is measured in this run. What a bar applies to is followed by it, so that the table says by itself
//! whether the demo has shown what it claims.

use tenfold_loadgen::Report;
use tenfold_loadgen::scenario::Class;

use super::capacity::Known;
use super::observe::Waits;
use super::pass::{Crowd, Pass};
use super::reads::{Leg, Legs, Reads};
use super::sale::{self, Sale, Sold};
use super::{OVERLOAD, SLO};

/// Fetches by those of an unlimited cache: at most this.
const FETCH_RATIO_MAX: f64 = 1.10;
/// The primary's statements for an answer of a cacheable route must fall by at least this.
const QUERIES_SAVED_MIN: f64 = 0.70;

/// The crowd's table.
///
/// `is_rough`: too little was played to judge by, so no bar is applied.
pub(crate) fn crowd(crowd: &Crowd, capacity: &Known, alone: &Pass, behind: &Pass, is_rough: bool) -> String {
    let mut lines = vec![["".into(), "shop alone".into(), "behind Tenfold".into()]];
    let mut add = |name: &str, alone: String, behind: String| lines.push([name.into(), alone, behind]);
    let both = |of: &dyn Fn(&Pass) -> String| (of(alone), of(behind));

    let (a, b) = both(&|pass| thousands(pass.report.offered));
    add("requests offered", a, b);
    let (a, b) = both(&|pass| format!("{:.1} ms", pass.report.latency_slo.p50_ms));
    add("response time, half within", a, b);
    let (a, b) = both(&|pass| format!("{:.0} ms", pass.report.latency_slo.p99_ms));
    add("response time, 99 % within", a, b);
    let (a, b) =
        both(&|pass| format!("{} ({:.2} %)", thousands(pass.report.errors), error_percent(&pass.report)));
    add("errors", a, b);
    let (a, b) = both(&|pass| verdict(&pass.report));
    add(&format!("SLO: 99 % ≤ {:.0} ms, errors ≤ {:.1} %", SLO.p99_ms, SLO.error_ratio * 100.0), a, b);
    add("requests reaching the shop", thousands(alone.report.offered), count(behind.spent.exchanges));
    add("of them for what can be cached", thousands(alone.ideal.requests), count(behind.spent.fetches()));
    add("an unlimited cache would fetch", String::new(), fetches(behind, is_rough));
    let (a, b) = (count(alone.spent.queries), change(alone.spent.queries, behind.spent.queries));
    add("statements at the primary", a, b);
    let (before, after) = (alone.spent.public_queries, behind.spent.public_queries);
    add("of them from cacheable routes", count(before), change(before, after));
    add(
        "of them by each such request answered",
        format!("{:.2}", per_answer(alone)),
        per_answers(alone, behind, is_rough),
    );
    let (a, b) = both(&|pass| thousands(pass.connections.shop));
    add("database connections of the shop, most", a, b);
    let (a, b) = both(&|pass| thousands(pass.connections.server));
    add("connections at the primary, most", a, b);
    let (a, b) = both(&|pass| wait(&pass.waits));
    add("wait for one of them, 99 % within", a, b);
    let (a, b) =
        both(&|pass| format!("{:.0} µs", cpu_us(pass, pass.spent.shop_cpu_s + pass.spent.postgres_cpu_s)));
    add("CPU a request, shop + PostgreSQL", a, b);
    add(
        "CPU a request, Tenfold",
        "–".into(),
        format!("{:.0} µs", cpu_us(behind, behind.spent.tenfold_cpu_s)),
    );
    let (a, b) = both(&|pass| format!("{:.1} ms", pass.report.lag.p99_ms));
    add("the load generator's own delay, 99 %", a, b);

    let title = format!(
        "One flash crowd, twice: {:.0} requests/s at its height, {OVERLOAD} × the {:.0} the shop can serve, over {:.0} s",
        OVERLOAD * capacity.rate,
        capacity.rate,
        crowd.length_s()
    );
    format!("{title}\n\n{}", aligned(&lines))
}

/// The sale's table: alone, uncapped, capped.
pub(crate) fn sale(sale: &Sale, sold: [&Sold; 3]) -> String {
    let head = ["", "shop alone", "pooled, no cap on hot rows", "pooled, with the cap"].map(str::to_owned);
    let mut lines = vec![head];
    let mut add = |name: &str, of: &dyn Fn(&Sold) -> String| {
        let [alone, uncapped, capped] = sold.map(of);
        lines.push([name.into(), alone, uncapped, capped]);
    };
    add("others' requests", &|sold| thousands(sold.others.offered));
    add("response time, half within", &|sold| format!("{:.1} ms", sold.others.latency.p50_ms));
    add("response time, 99 % within", &|sold| format!("{:.0} ms", sold.others.latency.p99_ms));
    add("failed", &|sold| thousands(sold.others.errors));
    add("buyers", &|sold| thousands(sold.buyers.offered));
    add("response time, half within", &|sold| format!("{:.0} ms", sold.buyers.latency.p50_ms));
    add("failed", &|sold| thousands(sold.buyers.errors));
    add("told that it is sold out", &|sold| thousands(sale::sold_out(&sold.buyers)));
    add("sold, by the database's order items", &|sold| thousands(sold.ledger));
    add("oversold", &|sold| thousands(sold.ledger.saturating_sub(sold.pieces)));
    add("database connections of the shop, most", &|sold| thousands(sold.connections.shop));
    add("connections at the primary, most", &|sold| thousands(sold.connections.server));
    add("wait for one of them, 99 % within", &|sold| wait(&sold.waits));
    format!("A flash sale, three times: {}\n\n{}", sale.describe(), aligned(&lines))
}

/// The reads' table: all at the primary, split without floors, split with them.
pub(crate) fn reads(reads: &Reads, legs: &Legs) -> String {
    let Legs { primary, eventual, own_writes } = legs;
    let head = ["", "all at the primary", "split, ignoring floors", "split, with floors"].map(str::to_owned);
    let mut lines = vec![head];
    let mut add = |name: &str, of: &dyn Fn(&Leg) -> String| {
        let [primary, eventual, own_writes] = [primary, eventual, own_writes].map(of);
        lines.push([name.into(), primary, eventual, own_writes]);
    };
    add("requests", &|leg| thousands(leg.load.offered));
    add("response time, half within", &|leg| format!("{:.1} ms", leg.load.latency.p50_ms));
    add("response time, 99 % within", &|leg| format!("{:.0} ms", leg.load.latency.p99_ms));
    add("failed", &|leg| thousands(leg.load.errors + leg.own.failed));
    add("primary load, statements", &|leg| less(primary.primary.shop, leg.primary.shop));
    add("primary load, CPU", &|leg| format!("{:.0} %", 100.0 * leg.primary_cpu_s / leg.load.played_s));
    add("the pooler's own questions there", &|leg| thousands(leg.primary.pooler));
    add("statements at the replica", &|leg| thousands(leg.replica.shop));
    add("own reads after a write", &|leg| thousands(leg.own.read));
    lines.push([
        "stale own reads".into(),
        none(primary.own.stale),
        thousands(eventual.own.stale),
        none(own_writes.own.stale),
    ]);
    format!("Reads from a replica, three times: {}\n\n{}", reads.describe(), aligned(&lines))
}

/// A count, and what it changed from, where it did.
#[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
fn less(before: u64, after: u64) -> String {
    if before == after { thousands(after) } else { change(before as f64, after as f64) }
}

/// A count that must be nought.
fn none(count: u64) -> String {
    format!("{}{}", thousands(count), bar(false, count == 0, "0"))
}

/// What the pooler's histogram can say; the shop's own pools do not tell.
fn wait(waits: &Waits) -> String {
    match waits.p99_s() {
        None => "–".into(),
        Some(bound) if bound < 1.0 => format!("≤ {} ms", bound * 1000.0),
        Some(bound) if bound.is_finite() => format!("≤ {bound} s"),
        Some(_) => "more than 10 s".into(),
    }
}

fn verdict(report: &Report) -> String {
    if SLO.judge(report).held { "holds".into() } else { "MISSED".into() }
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
fn error_percent(report: &Report) -> f64 {
    100.0 * report.errors as f64 / report.offered.max(1) as f64
}

/// How near the real cache came to the unlimited one.
#[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
fn fetches(behind: &Pass, is_rough: bool) -> String {
    let ideal = behind.ideal.fetches;
    let ratio = behind.spent.fetches() / ideal.max(1) as f64;
    format!(
        "{}; ours ÷ that {ratio:.3}{}",
        thousands(ideal),
        bar(is_rough, ratio <= FETCH_RATIO_MAX, "≤ 1.10")
    )
}

/// Statements at the primary for each cacheable request that was answered. An overloaded shop drops requests and so
/// spares its database; by answers, the two passes can be compared.
#[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
fn per_answer(pass: &Pass) -> f64 {
    let cacheable = pass.report.classes.iter().filter(|class| class.class == Class::Cacheable);
    let answered: u64 = cacheable.map(|class| class.ok).sum();
    pass.spent.public_queries / answered.max(1) as f64
}

fn per_answers(alone: &Pass, behind: &Pass, is_rough: bool) -> String {
    let (before, after) = (per_answer(alone), per_answer(behind));
    let saved = 1.0 - after / before.max(f64::MIN_POSITIVE);
    let bar = bar(is_rough, saved >= QUERIES_SAVED_MIN, "−70 % or better");
    format!("{after:.2}, −{:.0} %{bar}", saved * 100.0)
}

fn bar(is_rough: bool, is_met: bool, bar: &str) -> String {
    match (is_rough, is_met) {
        (true, _) => String::new(),
        (false, true) => format!(" ({bar}: met)"),
        (false, false) => format!(" ({bar}: NOT MET)"),
    }
}

fn change(before: f64, after: f64) -> String {
    format!("{}, {:+.0} %", count(after), 100.0 * (after / before.max(1.0) - 1.0)).replace('-', "−")
}

/// CPU seconds by requests offered, in microseconds.
#[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
fn cpu_us(pass: &Pass, seconds: f64) -> f64 {
    seconds * 1e6 / pass.report.offered.max(1) as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count, never negative")]
fn count(value: f64) -> String {
    thousands(value.max(0.0).round() as u64)
}

fn thousands(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Columns as wide as their widest cell, all but the first and the last to the right, the header underlined.
fn aligned<const COLUMNS: usize>(lines: &[[String; COLUMNS]]) -> String {
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; COLUMNS] = std::array::from_fn(width);
    let mut out = String::new();
    for (index, line) in lines.iter().enumerate() {
        let cells = line.iter().zip(widths).enumerate().map(|(column, (cell, width))| {
            let is_outer = column == 0 || column == COLUMNS - 1;
            if is_outer { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        out.push_str(cells.collect::<Vec<_>>().join("   ").trim_end());
        out.push('\n');
        if index == 0 {
            out.push_str(&"─".repeat(widths.iter().sum::<usize>() + 3 * (COLUMNS - 1)));
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_readable() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(61_000), "61,000");
        assert_eq!(count(1_234_567.4), "1,234,567");
    }

    #[test]
    fn a_change_is_signed() {
        assert_eq!(change(1000.0, 250.0), "250, −75 %");
        assert_eq!(change(100.0, 150.0), "150, +50 %");
    }

    #[test]
    fn a_count_that_must_be_nought_says_whether_it_is() {
        assert_eq!(none(0), "0 (0: met)");
        assert_eq!(none(2), "2 (0: NOT MET)");
        assert_eq!([less(862, 862), less(862, 172)], ["862", "172, −80 %"]);
    }

    #[test]
    fn columns_line_up() {
        let line = |cells: [&str; 3]| cells.map(str::to_owned);
        let table =
            aligned(&[line(["", "alone", "behind"]), line(["ä", "1", "2"]), line(["bcd", "100", "3"])]);
        assert_eq!(table, "      alone   behind\n────────────────────\nä         1   2\nbcd     100   3\n");
    }
}
