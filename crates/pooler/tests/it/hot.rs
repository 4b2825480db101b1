//! A row that everybody wants leaves connections for those who want another one, however it is asked for.

use std::{thread, time::Duration};

use tenfold_testkit::wait_for;

use crate::{
    direct::{Direct, Rows, cluster},
    pooled::{Pooled, config},
};

const LONG: Duration = Duration::from_secs(20);
/// More than the four connections of the pool.
const BUYERS: usize = 6;
/// Half of the four: the default.
const CAP: usize = 2;

/// How an update of a row is sent, within an open transaction.
type Update = fn(&mut Direct, table: &str, id: &str) -> Result<Rows, String>;

fn simple(client: &mut Direct, table: &str, id: &str) -> Result<Rows, String> {
    client.query(format!("UPDATE {table} SET n = n + 1 WHERE id = {id}"))
}

/// All in one write, as drivers do that prepare nothing.
fn unnamed(client: &mut Direct, table: &str, id: &str) -> Result<Rows, String> {
    client.execute(&format!("UPDATE {table} SET n = n + $2 WHERE id = $1"), &[id, "1"])
}

fn check(table: &str, update: Update) {
    let ground = format!(
        "CREATE TABLE {table} (id int PRIMARY KEY, n int); INSERT INTO {table} VALUES (1, 0), (2, 0)"
    );
    cluster().psql(&ground).unwrap();
    let pooled = Pooled::start(config());
    let mut holder = Direct::connect();
    holder.query(format!("BEGIN; UPDATE {table} SET n = 0 WHERE id = 1")).unwrap();

    let buy = |id: &'static str| {
        let (port, table) = (pooled.port(), table.to_owned());
        thread::spawn(move || {
            let mut client = Direct::connect_to(port, &[]);
            client.query("BEGIN").unwrap();
            update(&mut client, &table, id).unwrap();
            client.query("COMMIT").unwrap();
        })
    };
    let buyers: Vec<_> = (0..BUYERS).map(|_| buy("1")).collect();
    let hot = &pooled.pooler.shared().hot;
    wait_for("all buyers but those that the cap lets through to wait", LONG, || {
        hot.waiting() == BUYERS - CAP
    });
    buy("2").join().unwrap();

    holder.query("COMMIT").unwrap();
    for buyer in buyers {
        buyer.join().unwrap();
    }
    let sold = cluster().psql(&format!("SELECT n FROM {table} ORDER BY id")).unwrap();
    assert_eq!(sold, format!("{BUYERS}\n1"));
}

#[test]
fn others_pass_while_simple_queries_wait_for_a_row() {
    check("hot_simple", simple);
}

#[test]
fn others_pass_while_unprepared_statements_wait_for_a_row() {
    check("hot_unnamed", unnamed);
}
