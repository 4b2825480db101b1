//! Where the transactions of databases with replicas went, as OpenMetrics families.
//!
//! **Mechanism.** Read at each scrape from what workers have shown ([`RoutesRow::sum`]): counts by reason, waits for a
//! replica to catch up, how far replicas were behind when they were read from, and the most frequent statements.
//!
//! **Failure.** None. Labels are databases, closed sets, and at most [`TOP_SHOWN_MAX`](crate::report::TOP_SHOWN_MAX)
//! fingerprints per database.

use std::sync::Arc;

use tenfold_service::metrics::{FamilySnapshot, Kind, SeriesSnapshot, Value};

use super::{counter, gauge, histogram_of, number, seconds, series};
use crate::{report::RoutesRow, shared::Database, split::LAG_BOUNDS_US};

/// All of them.
pub(super) fn families(databases: &[Arc<Database>]) -> Vec<FamilySnapshot> {
    let rows: Vec<_> = databases.iter().filter_map(|database| RoutesRow::sum(database)).collect();
    of_rows(&rows)
}

fn of_rows(rows: &[RoutesRow]) -> Vec<FamilySnapshot> {
    let of = |read: fn(&RoutesRow) -> f64| {
        rows.iter().map(move |row| number(&[("database", &row.database)], read(row)))
    };
    vec![
        counter(
            "tenfold_pooler_routes",
            "Transactions, and reads of transactions, by where they went and why.",
            rows.iter().flat_map(by_reason),
        ),
        counter(
            "tenfold_pooler_catch_up_waits",
            "Reads that waited for a replica to catch up.",
            of(|row| row.routes.waits as f64),
        ),
        counter(
            "tenfold_pooler_catch_up_wait_seconds",
            "Time that reads waited for a replica to catch up.",
            of(|row| seconds(row.routes.wait_us)),
        ),
        counter(
            "tenfold_pooler_reruns",
            "Reads that a replica refused or lost before it had told anything, and that the primary answered.",
            of(|row| row.routes.reruns as f64),
        ),
        FamilySnapshot {
            name: "tenfold_pooler_read_lag_seconds",
            help: "How far behind the primary the replica was, each time one was read from.",
            kind: Kind::Histogram,
            series: rows.iter().map(lag).collect(),
        },
        gauge(
            "tenfold_pooler_top_statements",
            "About how often the most frequent statements were routed so. SHOW TOP_STATEMENTS has their texts.",
            rows.iter().flat_map(top),
        ),
    ]
}

fn by_reason(row: &RoutesRow) -> Vec<SeriesSnapshot> {
    let one = |(route, reason, count)| {
        series(&[("database", &*row.database), ("route", route), ("reason", reason)], count)
    };
    row.routes.by_reason().into_iter().map(one).collect()
}

fn lag(row: &RoutesRow) -> SeriesSnapshot {
    let lags = histogram_of(&LAG_BOUNDS_US, &row.routes.lags, row.routes.lag_us);
    SeriesSnapshot { labels: vec![("database", row.database.to_string())], value: Value::Histogram(lags) }
}

fn top(row: &RoutesRow) -> Vec<SeriesSnapshot> {
    let one = |top: &crate::split::TopRow| {
        let (route, reason) = top.route_and_reason();
        let fingerprint = top.fingerprint.to_string();
        let labels = [
            ("database", &*row.database),
            ("fingerprint", &*fingerprint),
            ("route", route),
            ("reason", reason),
        ];
        series(&labels, top.count)
    };
    row.top.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tenfold_service::metrics::Registry;
    use tenfold_sql::Fingerprint;

    use super::*;
    use crate::split::{Routes, TopRow};

    #[test]
    fn routes_lags_waits_and_the_most_frequent_statements_are_told() {
        let mut routes = Routes { waits: 3, reruns: 1, ..Routes::default() };
        routes.waited(Duration::from_millis(250));
        routes.at_replica(3_000);
        routes.at_replica(20_000_000);
        routes.at_primary("writes");
        let row =
            |route, count| TopRow { fingerprint: Fingerprint(15), route, text: "SELECT ?".into(), count };
        let top = vec![row("replica", 16), row("replica_behind", 8)];
        let rows = [RoutesRow { database: "shop".into(), user: "".into(), routes, top }];
        let registry = Registry::new(1);
        registry.families_fn("pooler", move || of_rows(&rows));
        let text = registry.render();
        let statement = "database=\"shop\",fingerprint=\"0000000000000000000000000000000f\"";
        for line in [
            "tenfold_pooler_routes_total{database=\"shop\",route=\"replica\",reason=\"read\"} 2\n",
            "tenfold_pooler_routes_total{database=\"shop\",route=\"primary\",reason=\"writes\"} 1\n",
            "tenfold_pooler_catch_up_waits_total{database=\"shop\"} 3\n",
            "tenfold_pooler_catch_up_wait_seconds_total{database=\"shop\"} 0.25\n",
            "tenfold_pooler_reruns_total{database=\"shop\"} 1\n",
            "tenfold_pooler_read_lag_seconds_bucket{database=\"shop\",le=\"0.0025\"} 0\n",
            "tenfold_pooler_read_lag_seconds_bucket{database=\"shop\",le=\"0.005\"} 1\n",
            "tenfold_pooler_read_lag_seconds_bucket{database=\"shop\",le=\"+Inf\"} 2\n",
            "tenfold_pooler_read_lag_seconds_sum{database=\"shop\"} 20.003\n",
            &format!("tenfold_pooler_top_statements{{{statement},route=\"replica\",reason=\"read\"}} 16\n"),
            &format!("{statement},route=\"primary\",reason=\"replica_behind\"}} 8\n"),
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
