//! Transactions: reads before the first write, read-only ones, what fails in them, how they end.

use tenfold_pgwire::{frontend::Format, write};

use tenfold_testkit::wait_for;

use super::{Scene, TIME_MAX, extended, table, until_split, value};

#[test]
fn reads_before_the_first_write_of_a_transaction_go_to_a_replica() {
    let scene = Scene::new();
    let mut client = scene.client();
    table(&mut client, "t");
    scene.catch_up();
    until_split(&scene, &mut client, "SELECT v FROM t WHERE id = 1");
    let reading = scene.away(|| {
        client.query("BEGIN").unwrap();
        client.query("SELECT v FROM t WHERE id = 1").unwrap();
        client.execute("SELECT v FROM t WHERE id = $1", &["2"]).unwrap();
        client.query("COMMIT").unwrap();
    });
    assert_eq!(reading, 2);
    let writing = scene.away(|| {
        client.query("BEGIN").unwrap();
        client.query("SELECT v FROM t WHERE id = 1").unwrap();
        client.query("UPDATE t SET v = 5 WHERE id = 1").unwrap();
        assert_eq!(client.value("SELECT v FROM t WHERE id = 1").as_deref(), Some("5"));
        client.query("ROLLBACK").unwrap();
    });
    assert_eq!(writing, 1);
    assert_eq!(client.value("SELECT v FROM t WHERE id = 1").as_deref(), Some("0"));
    scene.catch_up();
    let levels = scene.away(|| {
        for level in ["ISOLATION LEVEL REPEATABLE READ", "ISOLATION LEVEL SERIALIZABLE"] {
            client.query(format!("BEGIN {level}")).unwrap();
            client.query("SELECT v FROM t WHERE id = 1").unwrap();
            client.query("COMMIT").unwrap();
        }
    });
    assert_eq!(levels, 0);
    let times = scene.away(|| {
        client.query("BEGIN").unwrap();
        let first = client.value("SELECT now() FROM t LIMIT 1");
        assert_eq!(client.value("SELECT now() FROM t LIMIT 1"), first);
        client.query("COMMIT").unwrap();
    });
    assert_eq!(times, 0);
}

#[test]
fn a_read_only_transaction_runs_on_one_replica_whole() {
    let scene = Scene::new();
    let mut client = scene.client();
    table(&mut client, "t");
    scene.catch_up();
    until_split(&scene, &mut client, "SELECT v FROM t WHERE id = 1");
    let away = scene.away(|| {
        client.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").unwrap();
        let first = client.value("SELECT now() FROM t LIMIT 1");
        client.query("SAVEPOINT s").unwrap();
        assert_eq!(client.value("SELECT now() FROM t LIMIT 1"), first);
        assert!(client.query("UPDATE t SET v = 1").unwrap_err().contains("read-only transaction"));
        client.query("ROLLBACK TO s").unwrap();
        assert_eq!(client.value("SELECT count(*) FROM t").as_deref(), Some("10"));
        client.query("COMMIT").unwrap();
    });
    assert_eq!(away, 1);
}

#[test]
fn an_error_fails_the_transaction_as_postgresql_does() {
    let scene = Scene::new();
    let mut client = scene.client();
    table(&mut client, "t");
    scene.catch_up();
    until_split(&scene, &mut client, "SELECT v FROM t WHERE id = 1");
    client.query("BEGIN").unwrap();
    client.query("SELECT v FROM t WHERE id = 1").unwrap();
    assert!(client.query("SELECT 1 / v FROM t WHERE id = 1").unwrap_err().contains("division by zero"));
    assert!(client.query("SELECT v FROM t").unwrap_err().contains("current transaction is aborted"));
    client.query("ROLLBACK").unwrap();
    // After a row was told there is no way back: the transaction has failed on the replica.
    client.query("BEGIN").unwrap();
    let late = "SELECT 1 / (100000 - g) FROM t, generate_series(1, 100000) g WHERE id = 1";
    assert!(client.query(late).unwrap_err().contains("division by zero"));
    assert!(client.query("SELECT v FROM t").unwrap_err().contains("current transaction is aborted"));
    assert!(client.execute("SELECT v FROM t WHERE id = $1", &["1"]).unwrap_err().contains("aborted"));
    client.query("COMMIT").unwrap();
    client.query("BEGIN").unwrap();
    assert!(client.query(late).is_err());
    client.query("ROLLBACK").unwrap();
    assert_eq!(client.value("SELECT v FROM t WHERE id = 1").as_deref(), Some("0"));
}

#[test]
fn a_begin_that_is_sent_with_its_first_statement_is_held_too() {
    let scene = Scene::new();
    let mut client = scene.client();
    table(&mut client, "t");
    scene.catch_up();
    until_split(&scene, &mut client, "SELECT v FROM t WHERE id = 1");
    let reading = scene.away(|| {
        for _ in 0..3 {
            let mut out = Vec::new();
            extended(&mut out, "BEGIN", &[]);
            extended(&mut out, "SELECT v FROM t WHERE id = $1", &["1"]);
            write::sync(&mut out);
            assert_eq!(client.send(&out).unwrap().len(), 1);
            out.clear();
            extended(&mut out, "SELECT v FROM t WHERE id = $1", &["2"]);
            write::sync(&mut out);
            assert_eq!(client.send(&out).unwrap().len(), 1);
            out.clear();
            extended(&mut out, "COMMIT", &[]);
            write::sync(&mut out);
            client.send(&out).unwrap();
        }
    });
    assert_eq!(reading, 6);
    // Neither BEGIN nor COMMIT went to the primary.
    let database = scene.pooled.pooler.shared().database("postgres").unwrap();
    wait_for("routes to be counted", TIME_MAX, || {
        let routes = database.pools()[0].routes();
        routes.replica >= 6 && !routes.primary.iter().any(|(reason, _)| *reason == "in_transaction")
    });
    let mut out = Vec::new();
    extended(&mut out, "BEGIN", &[]);
    extended(&mut out, "UPDATE t SET v = 9 WHERE id = 1 RETURNING v", &[]);
    write::sync(&mut out);
    assert_eq!(value(&client.send(&out)), "9");
    out.clear();
    extended(&mut out, "ROLLBACK", &[]);
    write::sync(&mut out);
    client.send(&out).unwrap();
    assert_eq!(client.value("SELECT v FROM t WHERE id = 1").as_deref(), Some("0"));
    // Prepared by name, as drivers do that meet it often, and failing.
    out.clear();
    for (name, sql) in [("b", "BEGIN READ WRITE"), ("r", "ROLLBACK")] {
        write::parse(&mut out, name.as_bytes(), sql.as_bytes(), []);
    }
    write::sync(&mut out);
    client.send(&out).unwrap();
    let run = |out: &mut Vec<u8>, name: &str| {
        write::bind(out, b"", name.as_bytes(), Format::Text, std::iter::empty(), Format::Text);
        write::execute(out, b"", 0);
    };
    for _ in 0..2 {
        out.clear();
        run(&mut out, "b");
        extended(&mut out, "SELECT 1 / v FROM t WHERE id = 1", &[]);
        write::sync(&mut out);
        assert!(client.send(&out).unwrap_err().contains("division by zero"));
        assert!(client.query("SELECT 1").unwrap_err().contains("aborted"));
        out.clear();
        run(&mut out, "r");
        write::sync(&mut out);
        client.send(&out).unwrap();
        assert_eq!(client.value("SELECT v FROM t WHERE id = 1").as_deref(), Some("0"));
    }
}

#[test]
fn each_statement_of_a_read_only_transaction_sees_what_was_committed_before_it() {
    let scene = Scene::with(1, |_| {});
    let (mut writer, mut reader) = (scene.client(), scene.client());
    table(&mut writer, "t");
    scene.catch_up();
    until_split(&scene, &mut reader, "SELECT v FROM t WHERE id = 1");
    scene.cluster.replicas()[0].pause_replay().unwrap();
    writer.query("UPDATE t SET v = 1 WHERE id = 1").unwrap();
    reader.query("BEGIN READ ONLY").unwrap();
    reader.query("SELECT 1").unwrap();
    assert_eq!(reader.value("SELECT v FROM t WHERE id = 1").as_deref(), Some("1"));
    assert!(reader.query("UPDATE t SET v = 3").unwrap_err().contains("read-only transaction"));
    reader.query("ROLLBACK").unwrap();
    // With one snapshot nothing may be missing in it, whatever the first statement is about.
    reader.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").unwrap();
    reader.query("SELECT 1").unwrap();
    assert_eq!(reader.value("SELECT v FROM t WHERE id = 1").as_deref(), Some("1"));
    reader.query("COMMIT").unwrap();
    scene.cluster.replicas()[0].resume_replay().unwrap();
    scene.catch_up();
    until_split(&scene, &mut reader, "SELECT v FROM t WHERE id = 1");
    // A chained transaction begins anew, also in what it must see.
    let away = scene.away(|| {
        reader.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").unwrap();
        assert_eq!(reader.value("SELECT v FROM t WHERE id = 1").as_deref(), Some("1"));
        reader.query("COMMIT AND CHAIN").unwrap();
    });
    assert_eq!(away, 1);
    scene.cluster.replicas()[0].pause_replay().unwrap();
    writer.query("UPDATE t SET v = 2 WHERE id = 1").unwrap();
    assert_eq!(reader.value("SELECT v FROM t WHERE id = 1").as_deref(), Some("2"));
    writer.query("UPDATE t SET v = 3 WHERE id = 1").unwrap();
    assert_eq!(reader.value("SELECT v FROM t WHERE id = 1").as_deref(), Some("2"), "one snapshot");
    assert!(reader.query("UPDATE t SET v = 9").unwrap_err().contains("read-only transaction"));
    reader.query("ROLLBACK").unwrap();
    assert_eq!(reader.value("SELECT v FROM t WHERE id = 1").as_deref(), Some("3"));
}

#[test]
fn a_portal_that_is_read_in_parts_stays_in_its_transaction() {
    let scene = Scene::with(1, |_| {});
    let mut client = scene.client();
    table(&mut client, "t");
    scene.catch_up();
    until_split(&scene, &mut client, "SELECT v FROM t WHERE id = 1");
    let mut out = Vec::new();
    extended(&mut out, "BEGIN", &[]);
    write::parse(&mut out, b"", b"SELECT id FROM t ORDER BY id", []);
    write::bind(&mut out, b"C_1", b"", Format::Text, std::iter::empty(), Format::Text);
    write::execute(&mut out, b"C_1", 4);
    write::sync(&mut out);
    assert_eq!(client.send(&out).unwrap().len(), 4);
    for rows in [4, 2] {
        out.clear();
        write::execute(&mut out, b"C_1", 4);
        write::sync(&mut out);
        assert_eq!(client.send(&out).unwrap().len(), rows);
    }
    client.query("COMMIT").unwrap();
}

#[test]
fn what_a_replica_cannot_do_is_refused_in_a_transaction_that_runs_there() {
    let scene = Scene::with(1, |_| {});
    let mut client = scene.client();
    table(&mut client, "t");
    scene.catch_up();
    until_split(&scene, &mut client, "SELECT v FROM t WHERE id = 1");
    for is_extended in [false, true] {
        client.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").unwrap();
        client.query("SELECT v FROM t WHERE id = 1").unwrap();
        let lock = "SELECT pg_advisory_lock(7)";
        let refused = if is_extended { client.execute(lock, &[]) } else { client.query(lock) };
        assert!(refused.unwrap_err().contains("runs on a replica"));
        assert!(client.query("SELECT 1").unwrap_err().contains("aborted"));
        client.query("ROLLBACK").unwrap();
    }
    client.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").unwrap();
    client.query("SELECT v FROM t WHERE id = 1").unwrap();
    client.query("SET TimeZone = 'Asia/Tokyo'").unwrap();
    assert_eq!(client.reports["TimeZone"], "Asia/Tokyo");
    client.query("COMMIT").unwrap();
    assert_eq!(client.value("SHOW TimeZone").as_deref(), Some("Asia/Tokyo"));
    client.query("INSERT INTO t VALUES (50, 0)").unwrap();
}

#[test]
fn what_stands_behind_the_end_of_a_transaction_is_another_matter() {
    let scene = Scene::with(1, |_| {});
    let mut client = scene.client();
    table(&mut client, "t");
    scene.catch_up();
    until_split(&scene, &mut client, "SELECT v FROM t WHERE id = 1");
    let begin = |client: &mut crate::direct::Direct| {
        scene.catch_up();
        until_split(&scene, client, "SELECT v FROM t WHERE id = 1");
        client.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").unwrap();
        client.query("SELECT v FROM t WHERE id = 1").unwrap();
    };
    begin(&mut client);
    let mut out = Vec::new();
    write::query(&mut out, b"COMMIT");
    write::query(&mut out, b"INSERT INTO t VALUES (60, 0)");
    client.send(&out).unwrap();
    client.send(&[]).unwrap();
    begin(&mut client);
    assert!(client.query("COMMIT; INSERT INTO t VALUES (61, 0)").unwrap_err().contains("runs on a replica"));
    client.query("ROLLBACK").unwrap();
    begin(&mut client);
    out.clear();
    extended(&mut out, "COMMIT", &[]);
    write::sync(&mut out);
    extended(&mut out, "INSERT INTO t VALUES (62, 0)", &[]);
    write::sync(&mut out);
    client.send(&out).unwrap();
    client.send(&[]).unwrap();
    assert_eq!(client.value("SELECT count(*) FROM t WHERE id >= 60").as_deref(), Some("2"));
}
