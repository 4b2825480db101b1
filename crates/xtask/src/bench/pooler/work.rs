//! What the clients of `bench pooler` do, and which rows the table has.
//!
//! **Intuition.** A pooler's cost depends on how much passes through it per transaction and how many clients wait, so
//! the rows go along both: one statement, seven statements, big rows; one client, many, thousands.
//!
//! **Mechanism.** Each kind is a script of pgbench's own or one written to the run's folder, and a witness: a statement
//! that every transaction of the kind runs exactly once, so that the server's own count can be held against pgbench's.

use std::ffi::OsString;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::seats::Seat;

/// pgbench's scale: 100,000 accounts each. 10 keeps the updates of TPC-B from all hitting one branch.
pub(super) const SCALE: u32 = 10;
/// Rows of 1 KiB to choose from.
const SMALL_ROWS: u32 = 1000;
/// Rows of 1 MiB to choose from; few enough to stay in the server's memory.
const BIG_ROWS: u32 = 16;

/// One kind of transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One row by primary key, as one Query message.
    Simple,
    /// The same, in the extended protocol with an unnamed statement.
    Extended,
    /// The same, with a statement prepared once per client.
    Prepared,
    /// Seven statements in a transaction, five of them on tables that are written.
    TpcB,
    /// One row with a text of 1 KiB.
    Row1KiB,
    /// One row with a text of 1 MiB.
    Row1MiB,
}

impl Kind {
    /// The kind's part of a row's name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::Extended => "extended",
            Self::Prepared => "prepared",
            Self::TpcB => "tpcb",
            Self::Row1KiB => "row-1KiB",
            Self::Row1MiB => "row-1MiB",
        }
    }

    /// pgbench's arguments for it; a script is in `folder`.
    pub(super) fn arguments(self, folder: &Path) -> Vec<OsString> {
        let script = |name: &str| vec!["-f".into(), folder.join(name).into_os_string()];
        let mut arguments = match self {
            Self::Simple | Self::Extended | Self::Prepared => vec!["-b".into(), "select-only".into()],
            Self::TpcB => vec!["-b".into(), "tpcb-like".into()],
            Self::Row1KiB => script(SMALL_SCRIPT.0),
            Self::Row1MiB => script(BIG_SCRIPT.0),
        };
        let protocol = match self {
            Self::Extended => "extended",
            Self::Prepared => "prepared",
            _ => "simple",
        };
        arguments.extend(["-M".into(), protocol.into()]);
        arguments
    }

    /// An SQL pattern of the statement that each transaction runs once.
    pub(super) fn witness(self) -> &'static str {
        match self {
            Self::Simple | Self::Extended | Self::Prepared => "SELECT abalance FROM pgbench_accounts%",
            Self::TpcB => "INSERT INTO pgbench_history%",
            Self::Row1KiB => "SELECT body FROM small_rows%",
            Self::Row1MiB => "SELECT body FROM big_rows%",
        }
    }
}

const SMALL_SCRIPT: (&str, &str) = ("small.sql", "SELECT body FROM small_rows WHERE id = :id;\n");
const BIG_SCRIPT: (&str, &str) = ("big.sql", "SELECT body FROM big_rows WHERE id = :id;\n");

/// Writes the scripts that pgbench doesn't have.
pub(super) fn write_scripts(folder: &Path) -> Result<()> {
    for ((name, sql), rows) in [(SMALL_SCRIPT, SMALL_ROWS), (BIG_SCRIPT, BIG_ROWS)] {
        let path = folder.join(name);
        let script = format!("\\set id random(1, {rows})\n{sql}");
        std::fs::write(&path, script).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// The tables of the scripts. The big texts are stored as they are, so that the server spends nothing on unpacking.
pub(super) fn tables_sql() -> String {
    format!(
        "CREATE TABLE small_rows (id int PRIMARY KEY, body text NOT NULL);
         INSERT INTO small_rows SELECT i, repeat('x', 1024) FROM generate_series(1, {SMALL_ROWS}) i;
         CREATE TABLE big_rows (id int PRIMARY KEY, body text NOT NULL);
         ALTER TABLE big_rows ALTER body SET STORAGE EXTERNAL;
         INSERT INTO big_rows SELECT i, repeat('x', 1048576) FROM generate_series(1, {BIG_ROWS}) i;
         VACUUM ANALYZE"
    )
}

/// One row of the comparison: so many clients doing so, through these seats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) kind: Kind,
    pub(super) clients: u32,
    pub(super) seats: &'static [Seat],
}

impl Row {
    /// How it is chosen on the command line: `simple-500`.
    pub(super) fn name(&self) -> String {
        let workers = if self.seats == WORKERS { "-workers" } else { "" };
        format!("{}-{}{workers}", self.kind.name(), self.clients)
    }
}

const ALL: &[Seat] = &[Seat::Tenfold, Seat::Pgbouncer, Seat::Relay, Seat::Direct];
/// 5,000 connections of its own are more than a PostgreSQL is given.
const POOLED: &[Seat] = &[Seat::Tenfold, Seat::Pgbouncer, Seat::Relay];
/// The Debian peer has no prepared statements in transaction mode.
const US_AND_DIRECT: &[Seat] = &[Seat::Tenfold, Seat::Direct];
const WORKERS: &[Seat] = &[Seat::OneWorker, Seat::TwoWorkers];

/// All rows, the one for a first look first.
pub(super) fn rows() -> Vec<Row> {
    let row = |kind, clients, seats| Row { kind, clients, seats };
    vec![
        row(Kind::Simple, 500, ALL),
        row(Kind::Simple, 1, ALL),
        row(Kind::Simple, 32, ALL),
        row(Kind::Simple, 1000, ALL),
        row(Kind::Simple, 5000, POOLED),
        row(Kind::Extended, 32, ALL),
        row(Kind::Extended, 500, ALL),
        row(Kind::Extended, 5000, POOLED),
        row(Kind::Prepared, 32, US_AND_DIRECT),
        row(Kind::Prepared, 500, US_AND_DIRECT),
        row(Kind::TpcB, 32, ALL),
        row(Kind::TpcB, 500, ALL),
        row(Kind::Row1KiB, 32, ALL),
        row(Kind::Row1KiB, 500, ALL),
        row(Kind::Row1MiB, 32, ALL),
        row(Kind::Simple, 32, WORKERS),
        row(Kind::Simple, 500, WORKERS),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_rows_have_one_name() {
        let mut names: Vec<String> = rows().iter().map(Row::name).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
        assert!(names.contains(&"simple-500".to_owned()) && names.contains(&"simple-500-workers".to_owned()));
    }

    #[test]
    fn only_ours_and_direct_are_asked_for_prepared_statements() {
        let prepared = |row: &&Row| row.kind == Kind::Prepared;
        assert!(rows().iter().filter(prepared).all(|row| !row.seats.contains(&Seat::Pgbouncer)));
        assert_eq!(Kind::Prepared.arguments(Path::new("/x"))[2..], ["-M", "prepared"]);
    }
}
