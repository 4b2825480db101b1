//! What the pooler counts, as OpenMetrics families.
//!
//! **Intuition.** Workers count in words of their own that nobody else writes; whoever scrapes adds them up.
//!
//! **Mechanism.** [`register`] gives the registry a source that reads the workers' [`Counters`], each pool's totals and
//! the sizes of the tables at each scrape, and makes the families of that: nothing is counted twice and no database that
//! comes or goes has to be registered.
//!
//! **Failure.** None. Labels are databases, as configured or made from the wildcard up to its limit, closed sets, and a few
//! fingerprints.

mod replicas;
mod routes;

use std::{
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use tenfold_service::metrics::{FamilySnapshot, HistogramSnapshot, Kind, SeriesSnapshot, Value};

use crate::{
    console,
    counters::{Counter, Counters, WAIT_BOUNDS_US},
    refusal::Refusal,
    report::StatsRow,
    shared::{Database, Shared},
    worker::Pin,
};

/// Has the tier's numbers told at each scrape.
pub fn register(shared: &Arc<Shared>) {
    // The registry is shared's own: a strong reference would keep both for ever.
    let weak: Weak<Shared> = Arc::downgrade(shared);
    shared
        .registry
        .families_fn("pooler", move || weak.upgrade().map_or_else(Vec::new, |shared| families(&shared)));
}

fn families(shared: &Shared) -> Vec<FamilySnapshot> {
    let totals = console::totals(shared);
    shared.desk.observe(shared.clock.now(), &totals);
    let databases: Vec<_> =
        shared.databases().iter().map(|database| DatabaseNow::of(shared, database)).collect();
    let mut families = of_counters(&shared.counters);
    families.extend(of_totals(&totals));
    families.extend(of_databases(&databases));
    families.extend(replicas::families(&shared.databases()));
    families.extend(routes::families(&shared.databases()));
    let tables = [
        ("images", shared.images.len()),
        ("statements", shared.statements.len()),
        ("hot_rows", shared.hot.len()),
    ];
    let entries = tables.map(|(table, len)| series(&[("table", table)], len as u64));
    families.push(gauge(
        "tenfold_pooler_table_entries",
        "What the process keeps of sessions, by table.",
        entries,
    ));
    let waiting = [series(&[], shared.hot.waiting() as u64)];
    families.push(gauge("tenfold_pooler_hot_row_waiters", "Clients that wait for a row.", waiting));
    families
}

/// A database at this moment, as far as it is known without asking the workers.
struct DatabaseNow {
    name: Arc<str>,
    clients: usize,
    waiting: usize,
    servers: usize,
    idle: usize,
    size: usize,
    oldest_wait: Duration,
    is_paused: bool,
}

impl DatabaseNow {
    fn of(shared: &Shared, database: &Database) -> Self {
        let pools = database.pools();
        let now_ms = shared.ms(shared.clock.now());
        let oldest_ms = pools.iter().filter_map(|pool| pool.oldest_ms()).min();
        Self {
            name: Arc::clone(&database.name),
            clients: database.clients.load(Ordering::Relaxed),
            waiting: pools.iter().map(|pool| pool.waiting()).sum(),
            servers: pools.iter().map(|pool| pool.open()).sum(),
            idle: pools.iter().map(|pool| pool.idle()).sum(),
            size: pools.iter().map(|pool| pool.settings.load().size).sum(),
            oldest_wait: Duration::from_millis(oldest_ms.map_or(0, |since| now_ms.saturating_sub(since))),
            is_paused: database.paused.load(Ordering::Relaxed)
                || shared.desk.pause() != crate::report::Pause::Active,
        }
    }

    fn with(&self, label: &'static str, value: &str, number: usize) -> SeriesSnapshot {
        series(&[("database", &*self.name), (label, value)], number as u64)
    }
}

fn of_databases(databases: &[DatabaseNow]) -> Vec<FamilySnapshot> {
    let clients = databases.iter().flat_map(|now| {
        let served = now.servers.saturating_sub(now.idle).min(now.clients.saturating_sub(now.waiting));
        [
            now.with("state", "waiting", now.waiting),
            now.with("state", "active", served),
            now.with("state", "idle", now.clients.saturating_sub(now.waiting + served)),
        ]
    });
    let servers = databases.iter().flat_map(|now| {
        [
            now.with("state", "idle", now.idle),
            now.with("state", "active", now.servers.saturating_sub(now.idle)),
        ]
    });
    let of = |read: fn(&DatabaseNow) -> f64| {
        databases.iter().map(move |now| number(&[("database", &now.name)], read(now)))
    };
    vec![
        gauge("tenfold_pooler_clients", "Clients logged in, by what they do.", clients),
        gauge("tenfold_pooler_servers", "Server connections open or being opened.", servers),
        gauge(
            "tenfold_pooler_servers_max",
            "Server connections that the pools of a database may have, without their reserve.",
            of(|now| now.size as f64),
        ),
        gauge(
            "tenfold_pooler_oldest_wait_seconds",
            "How long the client that waits longest has waited.",
            of(|now| now.oldest_wait.as_secs_f64()),
        ),
        gauge(
            "tenfold_pooler_paused",
            "1 while no transaction may begin.",
            of(|now| f64::from(u8::from(now.is_paused))),
        ),
    ]
}

/// Totals by database: name, help, and which number.
type Total = (&'static str, &'static str, fn(&StatsRow) -> f64);

const TOTALS: [Total; 9] = [
    ("tenfold_pooler_transactions", "Transactions ended.", |row| row.transactions as f64),
    ("tenfold_pooler_queries", "Statements ended.", |row| row.queries as f64),
    ("tenfold_pooler_received_bytes", "From clients.", |row| row.bytes_received as f64),
    ("tenfold_pooler_sent_bytes", "To clients.", |row| row.bytes_sent as f64),
    ("tenfold_pooler_transaction_seconds", "Time in transactions.", |row| seconds(row.transaction_us)),
    ("tenfold_pooler_query_seconds", "Time in statements.", |row| seconds(row.query_us)),
    ("tenfold_pooler_client_wait_seconds", "Time clients waited for a server connection.", |row| {
        seconds(row.wait_us)
    }),
    ("tenfold_pooler_prepared_hits", "Prepared statements that the server connection had.", |row| {
        row.client_parses.saturating_sub(row.server_parses) as f64
    }),
    ("tenfold_pooler_prepared_misses", "Prepared statements that had to be prepared there first.", |row| {
        row.server_parses as f64
    }),
];

fn of_totals(totals: &[StatsRow]) -> Vec<FamilySnapshot> {
    let family = |(name, help, read): &Total| {
        let series = totals.iter().map(|row| number(&[("database", &row.database)], read(row)));
        counter(name, help, series)
    };
    TOTALS.iter().map(family).collect()
}

/// Name, help, and what is counted.
const EVENTS: [(&str, &str, Counter); 10] = [
    ("tenfold_pooler_logins", "Clients let in.", Counter::Logins),
    ("tenfold_pooler_servers_opened", "Server connections opened.", Counter::ServersOpened),
    ("tenfold_pooler_connect_failures", "Attempts to open one that failed.", Counter::ConnectFailures),
    ("tenfold_pooler_servers_lost", "Server connections that ended by themselves.", Counter::ServersLost),
    ("tenfold_pooler_cancels", "Cancel requests with a valid key.", Counter::Cancels),
    ("tenfold_pooler_replays", "Sessions brought to another server connection.", Counter::Replays),
    ("tenfold_pooler_hot_row_waits", "Clients that had to wait for a row.", Counter::HotWaits),
    ("tenfold_pooler_lendings", "Server connections lent by one worker to another.", Counter::Lendings),
    (
        "tenfold_pooler_clients_taken_over",
        "Clients that came from this process's predecessor in an online restart.",
        Counter::TakenOver,
    ),
    (
        "tenfold_pooler_clients_handed_over",
        "Clients that went to this process's successor in an online restart.",
        Counter::HandedOver,
    ),
];

fn of_counters(counters: &Counters) -> Vec<FamilySnapshot> {
    let event = |(name, help, event): &(&'static str, &'static str, Counter)| {
        counter(name, help, [series(&[], counters.total(*event))])
    };
    let mut families: Vec<_> = EVENTS.iter().map(event).collect();
    let refusals =
        Refusal::ALL.map(|refusal| series(&[("reason", refusal.as_str())], counters.refusals(refusal)));
    families.push(counter("tenfold_pooler_refusals", "What the pooler itself refused or ended.", refusals));
    let pins = Pin::ALL.map(|pin| series(&[("reason", pin.as_str())], counters.pinned(pin)));
    families.push(gauge(
        "tenfold_pooler_pins",
        "Server connections that stay with a client between transactions, by reason.",
        pins,
    ));
    let (buckets, sum_us) = counters.waits();
    let waits = SeriesSnapshot {
        labels: Vec::new(),
        value: Value::Histogram(histogram_of(&WAIT_BOUNDS_US, &buckets, sum_us)),
    };
    families.push(FamilySnapshot {
        name: "tenfold_pooler_wait_seconds",
        help: "How long a client waited for its server connection, each time it got one.",
        kind: Kind::Histogram,
        series: vec![waits],
    });
    families
}

/// `buckets`: one more than bounds.
fn histogram_of(bounds_us: &[u64], buckets: &[u64], sum_us: u64) -> HistogramSnapshot {
    let bounds = bounds_us.iter().map(|us| *us as f64 / 1e6).chain([f64::INFINITY]);
    let mut accumulated = 0;
    let buckets = bounds
        .zip(buckets)
        .map(|(bound_s, count)| {
            accumulated += count;
            (bound_s, accumulated)
        })
        .collect();
    HistogramSnapshot { buckets, sum_s: seconds(sum_us) }
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

fn counter(
    name: &'static str,
    help: &'static str,
    series: impl IntoIterator<Item = SeriesSnapshot>,
) -> FamilySnapshot {
    FamilySnapshot { name, help, kind: Kind::Counter, series: series.into_iter().collect() }
}

fn gauge(
    name: &'static str,
    help: &'static str,
    series: impl IntoIterator<Item = SeriesSnapshot>,
) -> FamilySnapshot {
    FamilySnapshot { name, help, kind: Kind::Gauge, series: series.into_iter().collect() }
}

fn series(labels: &[(&'static str, &str)], value: u64) -> SeriesSnapshot {
    number(labels, value as f64)
}

fn number(labels: &[(&'static str, &str)], value: f64) -> SeriesSnapshot {
    let labels = labels.iter().map(|(label, value)| (*label, (*value).to_owned())).collect();
    SeriesSnapshot { labels, value: Value::Number(value) }
}

#[cfg(test)]
mod tests {
    use tenfold_service::metrics::Registry;

    use super::*;

    fn render(families: Vec<FamilySnapshot>) -> String {
        let registry = Registry::new(1);
        registry.families_fn("pooler", move || families.clone());
        registry.render()
    }

    #[test]
    fn events_refusals_and_waits_are_told() {
        let counters = Counters::new(2);
        counters.count(0, Counter::Cancels);
        counters.count(1, Counter::Cancels);
        counters.refused(1, Refusal::QueryWait);
        counters.set_pins(1, [0, 2, 0, 0, 0, 0, 0, 0]);
        counters.waited(0, Duration::from_micros(60));
        counters.waited(1, Duration::from_secs(60));
        let text = render(of_counters(&counters));
        for line in [
            "tenfold_pooler_cancels_total 2\n",
            "tenfold_pooler_logins_total 0\n",
            "tenfold_pooler_pins{reason=\"temporary\"} 2\n",
            "tenfold_pooler_refusals_total{reason=\"query_wait\"} 1\n",
            "tenfold_pooler_wait_seconds_bucket{le=\"0.0001\"} 1\n",
            "tenfold_pooler_wait_seconds_bucket{le=\"+Inf\"} 2\n",
            "tenfold_pooler_wait_seconds_sum 60.00006\n",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn databases_are_told_by_name() {
        let now = DatabaseNow {
            name: "shop".into(),
            clients: 10,
            waiting: 3,
            servers: 4,
            idle: 1,
            size: 20,
            oldest_wait: Duration::from_millis(1_500),
            is_paused: true,
        };
        let totals = StatsRow {
            database: "shop".into(),
            transactions: 5,
            wait_us: 2_500_000,
            client_parses: 9,
            server_parses: 2,
            ..StatsRow::default()
        };
        let text = render([of_databases(&[now]), of_totals(&[totals])].concat());
        for line in [
            "tenfold_pooler_clients{database=\"shop\",state=\"waiting\"} 3\n",
            "tenfold_pooler_clients{database=\"shop\",state=\"active\"} 3\n",
            "tenfold_pooler_clients{database=\"shop\",state=\"idle\"} 4\n",
            "tenfold_pooler_servers{database=\"shop\",state=\"active\"} 3\n",
            "tenfold_pooler_servers_max{database=\"shop\"} 20\n",
            "tenfold_pooler_oldest_wait_seconds{database=\"shop\"} 1.5\n",
            "tenfold_pooler_paused{database=\"shop\"} 1\n",
            "tenfold_pooler_transactions_total{database=\"shop\"} 5\n",
            "tenfold_pooler_client_wait_seconds_total{database=\"shop\"} 2.5\n",
            "tenfold_pooler_prepared_hits_total{database=\"shop\"} 7\n",
            "tenfold_pooler_prepared_misses_total{database=\"shop\"} 2\n",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn what_is_counted_has_a_family() {
        assert!(Counter::ALL.iter().all(|(counter, _)| EVENTS.iter().any(|(_, _, told)| told == counter)));
    }
}
