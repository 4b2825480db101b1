//! SHOW STATS and its relatives.
//!
//! **Mechanism.** Eleven numbers per database: totals since the start, and averages since a minute or two ago.
//!
//! **Failure.** See [`super`].

use super::super::table::{Table, Type, number, text};
use crate::report::StatsRow;

/// PgBouncer's names of [`StatsRow::values`]: in STATS after `total_` and `avg_`, in `STATS_TOTALS`, and in TOTALS.
const NAMES: [Names; 11] = [
    Names::same("total_xact_count", "avg_xact_count", "xact_count"),
    Names::same("total_query_count", "avg_query_count", "query_count"),
    Names::same("total_server_assignment_count", "avg_server_assignment_count", "server_assignment_count"),
    Names {
        total: "total_received",
        average: "avg_recv",
        count: "bytes_received",
        sum: ("total_client_bytes", "avg_client_bytes"),
    },
    Names {
        total: "total_sent",
        average: "avg_sent",
        count: "bytes_sent",
        sum: ("total_server_bytes", "avg_server_bytes"),
    },
    Names::same("total_xact_time", "avg_xact_time", "xact_time"),
    Names::same("total_query_time", "avg_query_time", "query_time"),
    Names::same("total_wait_time", "avg_wait_time", "wait_time"),
    Names::same("total_client_parse_count", "avg_client_parse_count", "client_parse_count"),
    Names::same("total_server_parse_count", "avg_server_parse_count", "server_parse_count"),
    Names::same("total_bind_count", "avg_bind_count", "bind_count"),
];

/// Places in [`NAMES`] that version 1.18 has, in its order; then those that came later.
const OLD: [usize; 7] = [0, 1, 3, 4, 5, 6, 7];
const NEW: [usize; 4] = [2, 8, 9, 10];

struct Names {
    total: &'static str,
    average: &'static str,
    count: &'static str,
    /// In TOTALS, of the total and of the average.
    sum: (&'static str, &'static str),
}

impl Names {
    const fn same(total: &'static str, average: &'static str, count: &'static str) -> Self {
        Self { total, average, count, sum: (total, average) }
    }
}

/// STATS: totals and averages side by side.
pub(super) fn stats(totals: &[StatsRow], averages: &[StatsRow]) -> Table {
    let total = |at: &usize| (NAMES[*at].total, Type::Numeric);
    let average = |at: &usize| (NAMES[*at].average, Type::Numeric);
    let mut columns = vec![("database", Type::Text)];
    columns.extend(OLD.iter().map(total).chain(OLD.iter().map(average)));
    columns.extend(NEW.iter().map(total).chain(NEW.iter().map(average)));
    let mut table = Table::new(&columns);
    for row in totals {
        let average = averages.iter().find(|average| average.database == row.database);
        let (total, average) = (row.values(), average.map(StatsRow::values).unwrap_or_default());
        let mut cells = vec![text(&*row.database)];
        for places in [&OLD[..], &NEW[..]] {
            cells.extend(places.iter().map(|at| number(total[*at])));
            cells.extend(places.iter().map(|at| number(average[*at])));
        }
        table.push(cells);
    }
    table
}

/// `STATS_TOTALS` and `STATS_AVERAGES`: one of the two.
pub(super) fn counts(rows: &[StatsRow]) -> Table {
    let places = || OLD.iter().chain(&NEW);
    let mut columns = vec![("database", Type::Text)];
    columns.extend(places().map(|at| (NAMES[*at].count, Type::Numeric)));
    let mut table = Table::new(&columns);
    for row in rows {
        let values = row.values();
        let mut cells = vec![text(&*row.database)];
        cells.extend(places().map(|at| number(values[*at])));
        table.push(cells);
    }
    table
}

/// TOTALS: a row per number, over all databases.
pub(super) fn sums(totals: &[StatsRow], averages: &[StatsRow]) -> Table {
    let mut table = Table::new(&[("name", Type::Text), ("value", Type::Numeric)]);
    let mut total = StatsRow::default();
    totals.iter().for_each(|row| total.add(row));
    let (total, average) = (total.values(), overall(averages).values());
    for places in [&OLD[..], &NEW[..]] {
        for at in places {
            table.push(vec![text(NAMES[*at].sum.0), number(total[*at])]);
        }
        for at in places {
            table.push(vec![text(NAMES[*at].sum.1), number(average[*at])]);
        }
    }
    table
}

/// Rates add up; times per one are weighted by how many there were.
fn overall(averages: &[StatsRow]) -> StatsRow {
    let mut overall = StatsRow::default();
    averages.iter().for_each(|row| overall.add(row));
    let weighted = |time: fn(&StatsRow) -> u64, count: fn(&StatsRow) -> u64| {
        let sum: u128 = averages.iter().map(|row| u128::from(time(row)) * u128::from(count(row))).sum();
        let counts: u128 = averages.iter().map(|row| u128::from(count(row))).sum();
        u64::try_from(sum.checked_div(counts).unwrap_or(0)).unwrap_or(u64::MAX)
    };
    overall.transaction_us = weighted(|row| row.transaction_us, |row| row.transactions);
    overall.query_us = weighted(|row| row.query_us, |row| row.queries);
    overall.wait_us = weighted(|row| row.wait_us, |row| row.assignments);
    overall
}
