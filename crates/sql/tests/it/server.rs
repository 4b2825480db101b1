//! A real PostgreSQL for the tests that need one, started once, with a database for each.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tenfold_sql::{Catalogue, CatalogueBuilder};
use tenfold_testkit::postgres::{Cluster, Options};

/// The server of this test binary. It ends with the process, by the kit's watcher.
fn cluster() -> MutexGuard<'static, Cluster> {
    static CLUSTER: OnceLock<Mutex<Cluster>> = OnceLock::new();
    let cluster = CLUSTER.get_or_init(|| {
        Mutex::new({
            let options = Options { replicas: 1, ..Options::default() };
            Cluster::start(&options).expect("PostgreSQL starts")
        })
    });
    // A test that failed while it held the server did not harm it.
    cluster.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One database of its own.
pub(crate) struct Database {
    name: &'static str,
}

impl Database {
    /// Makes it, and runs `sql` in it.
    pub(crate) fn create(name: &'static str, sql: &str) -> Self {
        cluster().psql(&format!("CREATE DATABASE {name}")).expect("a database");
        let database = Self { name };
        database.run(sql);
        database
    }

    /// Runs statements; the rows they give.
    pub(crate) fn run(&self, sql: &str) -> String {
        self.try_run(sql).expect("these statements run")
    }

    /// Runs statements in a session of their own; the rows they give, or what the server says.
    pub(crate) fn try_run(&self, sql: &str) -> Result<String, tenfold_testkit::Error> {
        cluster().primary().psql_in(self.name, sql)
    }

    /// The same on the replica, once it has replayed all that the primary had written by now.
    pub(crate) fn try_run_on_replica(&self, sql: &str) -> Result<String, tenfold_testkit::Error> {
        let cluster = cluster();
        let written = cluster.psql("SELECT pg_current_wal_insert_lsn()")?;
        let replica = cluster.replica().expect("there is one");
        let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{written}'");
        tenfold_testkit::wait_for("the replica to replay", Duration::from_secs(30), || {
            replica.psql(&replayed).is_ok_and(|answer| answer == "t")
        });
        replica.psql_in(self.name, sql)
    }

    /// Its catalogue as the pooler loads it.
    pub(crate) fn catalogue(&self) -> Arc<Catalogue> {
        let mut builder = CatalogueBuilder::new();
        let queries: Vec<String> = Catalogue::QUERIES
            .iter()
            .enumerate()
            .map(|(query, sql)| {
                format!(
                    "SELECT coalesce(json_agg(to_json(q)), '[]')::jsonb FROM ({sql}) AS q({})",
                    names(query)
                )
            })
            .collect();
        let answers =
            self.run(&format!("BEGIN ISOLATION LEVEL REPEATABLE READ; {}; COMMIT", queries.join(";\n")));
        for (query, rows) in answers.lines().enumerate() {
            let rows: Vec<serde_json::Map<String, serde_json::Value>> =
                serde_json::from_str(rows).expect("rows");
            for row in rows {
                let columns: Vec<Option<String>> =
                    row.values().map(|value| value.as_str().map(str::to_owned)).collect();
                let columns: Vec<Option<&str>> = columns.iter().map(Option::as_deref).collect();
                builder.row(query, &columns).expect("a row of that query");
            }
        }
        builder.build(1)
    }

    pub(crate) fn signature(&self) -> String {
        self.run(Catalogue::SIGNATURE_QUERY)
    }
}

/// Column names for each query, in an order that sorting keeps.
fn names(query: usize) -> String {
    let count = [3, 9, 2, 2, 1, 5, 2, 1, 1, 3][query];
    (0..count).map(|index| format!("c{index}")).collect::<Vec<_>>().join(", ")
}
