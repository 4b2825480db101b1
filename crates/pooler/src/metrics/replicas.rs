//! What is counted of replicas, and of the one who asks the primary for its position.
//!
//! **Mechanism.** Read at each scrape from what workers share ([`Split`](crate::split::Split)); databases without
//! replicas have no series.
//!
//! **Failure.** None. Labels are databases and replicas, as configured.

use std::{collections::HashSet, sync::Arc};

use tenfold_service::metrics::{FamilySnapshot, SeriesSnapshot};

use super::{counter, gauge, number};
use crate::{report::ReplicaRow, shared::Database, split::State};

/// All of them.
pub(super) fn families(databases: &[Arc<Database>]) -> Vec<FamilySnapshot> {
    let split: Vec<_> = databases.iter().filter(|database| database.split.is_on()).collect();
    let rows: Vec<_> = split.iter().flat_map(|database| ReplicaRow::all(database)).collect();
    let mut families = of_rows(&rows);
    let samples = split.iter().map(|database| {
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        let samples = database.split.samples.last().0 as f64;
        number(&[("database", &database.name)], samples)
    });
    families.push(counter(
        "tenfold_pooler_primary_samples",
        "Times the primary was asked for its position.",
        samples,
    ));
    families
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53, or a position, told roughly")]
fn of_rows(rows: &[ReplicaRow]) -> Vec<FamilySnapshot> {
    let mut seen = HashSet::new();
    // Two names may be one to who reads labels; the first is told.
    let rows: Vec<_> = rows.iter().filter(|row| seen.insert((&row.database, &row.name))).collect();
    let series = |read: fn(&ReplicaRow) -> Option<f64>| -> Vec<SeriesSnapshot> {
        let one = |row: &&ReplicaRow| {
            Some(number(&[("database", &row.database), ("replica", &row.name)], read(row)?))
        };
        rows.iter().filter_map(one).collect()
    };
    let states = rows.iter().flat_map(|row| {
        State::ALL.map(|state| {
            let labels = [("database", &*row.database), ("replica", &*row.name), ("state", state.label())];
            number(&labels, f64::from(u8::from(row.state == state)))
        })
    });
    vec![
        gauge("tenfold_pooler_replica_state", "1 for the state that a replica is in.", states),
        gauge(
            "tenfold_pooler_replica_lag_seconds",
            "How far a replica is behind the primary.",
            series(|row| row.lag.map(|lag| lag.as_secs_f64())),
        ),
        gauge(
            "tenfold_pooler_replica_replayed_bytes",
            "The position in the write-ahead log that a replica has replayed.",
            series(|row| Some(row.replayed.0 as f64)),
        ),
        gauge(
            "tenfold_pooler_replica_in_flight",
            "Transactions on a replica.",
            series(|row| Some(row.in_flight as f64)),
        ),
        gauge(
            "tenfold_pooler_replica_servers",
            "Server connections to a replica.",
            series(|row| Some(row.servers as f64)),
        ),
        counter(
            "tenfold_pooler_replica_answers",
            "Times a replica was asked where it is, and answered.",
            series(|row| Some(row.answers as f64)),
        ),
        counter(
            "tenfold_pooler_replica_losses",
            "Times a replica was lost after it had answered.",
            series(|row| Some(row.losses as f64)),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tenfold_service::metrics::Registry;

    use super::*;
    use crate::split::Lsn;

    #[test]
    fn replicas_are_told_by_database_and_name() {
        let row = |name: &str, state, lag| ReplicaRow {
            database: "shop".into(),
            name: name.into(),
            state,
            lag,
            replayed: Lsn(4_096),
            in_flight: 3,
            weight: 1,
            servers: 5,
            answers: 7,
            losses: 2,
        };
        let rows = [
            row("a:5432", State::Up, Some(Duration::from_millis(1_500))),
            row("b:5432", State::Down, None),
            row("b:5432", State::Up, None),
        ];
        let registry = Registry::new(1);
        registry.families_fn("pooler", move || of_rows(&rows));
        let text = registry.render();
        for line in [
            "tenfold_pooler_replica_state{database=\"shop\",replica=\"a:5432\",state=\"up\"} 1\n",
            "tenfold_pooler_replica_state{database=\"shop\",replica=\"b:5432\",state=\"up\"} 0\n",
            "tenfold_pooler_replica_lag_seconds{database=\"shop\",replica=\"a:5432\"} 1.5\n",
            "tenfold_pooler_replica_replayed_bytes{database=\"shop\",replica=\"a:5432\"} 4096\n",
            "tenfold_pooler_replica_in_flight{database=\"shop\",replica=\"a:5432\"} 3\n",
            "tenfold_pooler_replica_servers{database=\"shop\",replica=\"a:5432\"} 5\n",
            "tenfold_pooler_replica_answers_total{database=\"shop\",replica=\"a:5432\"} 7\n",
            "tenfold_pooler_replica_losses_total{database=\"shop\",replica=\"a:5432\"} 2\n",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("lag_seconds{database=\"shop\",replica=\"b:5432\"}"), "{text}");
    }
}
