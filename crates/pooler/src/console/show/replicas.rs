//! SHOW REPLICAS, ROUTES and TOP_STATEMENTS: where reads go, and why not all of them go to replicas.
//!
//! **Mechanism.** Ours: PgBouncer has no replicas, so that no columns of its are to be kept.
//!
//! **Failure.** See [`super`].

use super::super::table::{Cell, Table, Type, number, text};
use crate::report::Report;

use Type::{Int4, Int8, Numeric, Text};

const REPLICAS: [(&str, Type); 10] = [
    ("name", Text),
    ("database", Text),
    ("state", Text),
    ("lag_us", Int8),
    ("replayed", Text),
    ("in_flight", Int4),
    ("weight", Int4),
    ("servers", Int4),
    ("answers", Int8),
    ("lost", Int8),
];

/// REPLICAS: each of each database.
pub(super) fn replicas(report: &Report) -> Table {
    let mut table = Table::new(&REPLICAS);
    for replica in &report.replicas {
        table.push(vec![
            text(&*replica.name),
            text(&*replica.database),
            text(replica.state.label()),
            // Behind by a time that nobody knows.
            replica.lag.and_then(|lag| number(lag.as_micros().min(i64::MAX as u128))),
            text(replica.replayed.to_string()),
            number(replica.in_flight),
            number(replica.weight),
            number(replica.servers),
            number(replica.answers),
            number(replica.losses),
        ]);
    }
    table
}

const ROUTES: [(&str, Type); 10] = [
    ("database", Text),
    ("user", Text),
    ("route", Text),
    ("reason", Text),
    ("count", Int8),
    ("percent", Numeric),
    ("avg_lag_us", Int8),
    ("waits", Int8),
    ("wait_us", Int8),
    ("reruns", Int8),
];

/// ROUTES: how many transactions, and reads of transactions, went where, and why. What is known of reads alone stands in
/// the row of the replicas.
pub(super) fn routes(report: &Report) -> Table {
    let mut table = Table::new(&ROUTES);
    for row in &report.routes {
        let routes = &row.routes;
        let all = routes.replica + routes.primary_total();
        let mut of_reads = vec![
            number(routes.lag_us.checked_div(routes.replica).unwrap_or(0)),
            number(routes.waits),
            number(routes.wait_us),
            number(routes.reruns),
        ];
        for (route, reason, count) in routes.by_reason() {
            let mut cells = vec![
                text(&*row.database),
                text(&*row.user),
                text(route),
                text(reason),
                number(count),
                percent(count, all),
            ];
            cells.append(&mut of_reads);
            cells.resize(ROUTES.len(), None);
            table.push(cells);
        }
    }
    table
}

/// With one decimal; nothing of nothing is 0.
fn percent(part: u64, whole: u64) -> Cell {
    let tenths = u128::from(part) * 1_000 / u128::from(whole.max(1));
    text(format!("{}.{}", tenths / 10, tenths % 10))
}

const TOP_STATEMENTS: [(&str, Type); 7] = [
    ("database", Text),
    ("user", Text),
    ("route", Text),
    ("reason", Text),
    ("count", Int8),
    ("fingerprint", Text),
    ("statement", Text),
];

/// TOP_STATEMENTS: the statements that were routed most often, without their values.
pub(super) fn top_statements(report: &Report) -> Table {
    let mut table = Table::new(&TOP_STATEMENTS);
    for row in &report.routes {
        for top in &row.top {
            let (route, reason) = top.route_and_reason();
            table.push(vec![
                text(&*row.database),
                text(&*row.user),
                text(route),
                text(reason),
                number(top.count),
                text(top.fingerprint.to_string()),
                text(&*top.text),
            ]);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use tenfold_sql::Fingerprint;

    use super::*;
    use crate::{
        report::RoutesRow,
        split::{Routes, TopRow},
    };

    fn report() -> Report {
        let mut routes = Routes { waits: 2, wait_us: 900, reruns: 1, ..Routes::default() };
        routes.at_replica(100);
        routes.at_replica(300);
        routes.at_primary("writes");
        let top =
            TopRow { fingerprint: Fingerprint(10), route: "writes", text: "DELETE FROM t".into(), count: 8 };
        let row = RoutesRow { database: "shop".into(), user: "app".into(), routes, top: vec![top] };
        Report { routes: vec![row], ..Report::default() }
    }

    fn lines(table: &Table) -> Vec<String> {
        let cells =
            |row: &Vec<Cell>| row.iter().map(|cell| cell.clone().unwrap_or("-".into())).collect::<Vec<_>>();
        table.rows.iter().map(|row| cells(row).join("|")).collect()
    }

    #[test]
    fn routes_are_told_by_reason_and_reads_with_what_they_waited() {
        assert_eq!(
            lines(&routes(&report())),
            ["shop|app|replica|read|2|66.6|200|2|900|1", "shop|app|primary|writes|1|33.3|-|-|-|-"]
        );
        let idle = Report { routes: vec![RoutesRow::default()], ..Report::default() };
        assert_eq!(lines(&routes(&idle)), ["||replica|read|0|0.0|0|0|0|0"]);
    }

    #[test]
    fn statements_are_told_without_values() {
        assert_eq!(
            lines(&top_statements(&report())),
            ["shop|app|primary|writes|8|0000000000000000000000000000000a|DELETE FROM t"]
        );
    }
}
