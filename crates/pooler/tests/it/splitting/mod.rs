//! Reads on replicas: what goes where, what is seen, what happens when a replica refuses or dies.

mod blocks;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tenfold_pgwire::{frontend::Format, write};
use tenfold_pooler::{
    Stat,
    config::{Config, Host, Password, ReplicaHost},
    split::State,
};
use tenfold_sql::Tables;
use tenfold_testkit::{
    postgres::{Cluster, Options},
    wait_for,
};

use crate::{
    direct::{Direct, Rows},
    pooled::{self, Pooled},
};

const TIME_MAX: Duration = Duration::from_secs(20);

/// A primary with two replicas, and a pooler before them.
pub(crate) struct Scene {
    pub(crate) pooled: Pooled,
    pub(crate) cluster: Cluster,
}

impl Scene {
    pub(crate) fn new() -> Self {
        Self::with(2, |_| {})
    }

    pub(crate) fn with(replicas: usize, change: impl FnOnce(&mut Config)) -> Self {
        let cluster = Cluster::start(&Options { replicas, ..Options::default() }).unwrap();
        let mut config = pooled::config();
        let at = |port| Host::Tcp { host: "127.0.0.1".into(), port };
        let database = &mut config.databases[0];
        database.hosts = vec![at(cluster.primary().port())];
        let hosts = cluster.replicas().iter().map(|replica| at(replica.port()));
        database.reads.replicas = hosts.map(|host| ReplicaHost { host, weight: 1 }).collect();
        change(&mut config);
        let pooled = Pooled::start_with(config, 2);
        let scene = Self { pooled, cluster };
        scene.client().query("SELECT 1").unwrap();
        scene.until_up(replicas);
        scene
    }

    pub(crate) fn client(&self) -> Direct {
        Direct::connect_to(self.pooled.port(), &[])
    }

    fn up(&self) -> usize {
        let database = self.pooled.pooler.shared().database("postgres").unwrap();
        database.split.replicas.load().iter().filter(|replica| replica.state() == State::Up).count()
    }

    fn until_up(&self, replicas: usize) {
        wait_for("the replicas to be known", TIME_MAX, || self.up() == replicas);
    }

    /// Transactions and reads of transactions at replicas so far.
    fn at_replicas(&self) -> u64 {
        let database = self.pooled.pooler.shared().database("postgres").unwrap();
        let pools = database.pools();
        let at_replicas: Vec<_> = pools.iter().flat_map(|pool| pool.at_replicas()).collect();
        at_replicas.iter().map(|pool| pool.stats()[Stat::Transactions]).sum()
    }

    /// How many of what a client does go to replicas.
    pub(crate) fn away(&self, act: impl FnOnce()) -> u64 {
        let all = || {
            let database = self.pooled.pooler.shared().database("postgres").unwrap();
            database.pools().iter().map(|pool| pool.stats()[Stat::Transactions]).sum::<u64>()
        };
        // Counts are published once a tick: wait until they stand still.
        let settled = || {
            let last = Mutex::new((u64::MAX, std::collections::VecDeque::new()));
            wait_for("counts to stand still", TIME_MAX, || {
                let mut last = last.lock().unwrap();
                last.1.push_back(all());
                if last.1.len() > 12 {
                    last.1.pop_front();
                }
                last.1.len() == 12 && last.1.iter().all(|count| *count == last.1[0])
            });
        };
        settled();
        let before = self.at_replicas();
        act();
        settled();
        self.at_replicas() - before
    }

    /// Until the replicas have what was written, so that nothing has to wait.
    pub(crate) fn catch_up(&self) {
        for replica in self.cluster.replicas() {
            replica.catch_up(self.cluster.primary()).unwrap();
        }
    }
}

fn value(rows: &Result<Rows, String>) -> String {
    let rows = rows.as_ref().unwrap();
    String::from_utf8(rows[0][0].clone().unwrap()).unwrap()
}

pub(crate) fn table(client: &mut Direct, name: &str) {
    client.query(format!("CREATE TABLE {name} (id int PRIMARY KEY, v int NOT NULL)")).unwrap();
    client.query(format!("INSERT INTO {name} SELECT g, 0 FROM generate_series(1, 10) g")).unwrap();
}

/// Until reads of a table do go to replicas: the catalogue has been read, positions are known.
pub(crate) fn until_split(scene: &Scene, client: &mut Direct, sql: &str) {
    wait_for("reads to go to replicas", TIME_MAX, || {
        scene.away(|| {
            client.query(sql).unwrap();
        }) == 1
    });
}

/// A statement by the extended protocol, without Sync.
fn extended(out: &mut Vec<u8>, sql: &str, params: &[&str]) {
    write::parse(out, b"", sql.as_bytes(), []);
    let values = params.iter().map(|param| Some(param.as_bytes()));
    write::bind(out, b"", b"", Format::Text, values, Format::Text);
    write::execute(out, b"", 0);
}

#[test]
fn reads_go_to_replicas_in_every_form_and_writes_do_not() {
    let scene = Scene::new();
    let mut client = scene.client();
    table(&mut client, "t");
    scene.catch_up();
    until_split(&scene, &mut client, "SELECT v FROM t WHERE id = 1");
    let simple = scene.away(|| {
        assert_eq!(value(&client.query("SELECT count(*) FROM t")), "10");
    });
    assert_eq!(simple, 1);
    let extended = scene.away(|| {
        assert_eq!(value(&client.execute("SELECT v FROM t WHERE id = $1", &["2"])), "0");
    });
    assert_eq!(extended, 1);
    let pipelined = scene.away(|| {
        let mut out = Vec::new();
        for id in ["3", "4"] {
            write::parse(&mut out, b"", b"SELECT id FROM t WHERE id = $1", []);
            write::bind(&mut out, b"", b"", Format::Text, [Some(id.as_bytes())], Format::Text);
            write::execute(&mut out, b"", 0);
        }
        write::sync(&mut out);
        assert_eq!(client.send(&out).unwrap().len(), 2);
    });
    assert_eq!(pipelined, 1);
    let named = scene.away(|| {
        let mut out = Vec::new();
        write::parse(&mut out, b"s", b"SELECT id FROM t WHERE id = $1", []);
        write::sync(&mut out);
        client.send(&out).unwrap();
        for id in ["5", "6"] {
            out.clear();
            write::bind(&mut out, b"", b"s", Format::Text, [Some(id.as_bytes())], Format::Text);
            write::execute(&mut out, b"", 0);
            write::sync(&mut out);
            assert_eq!(value(&client.send(&out)), id);
        }
    });
    assert_eq!(named, 3);
    let writing = scene.away(|| {
        client.query("UPDATE t SET v = 1 WHERE id = 1").unwrap();
        client.execute("INSERT INTO t VALUES ($1, 0)", &["11"]).unwrap();
        client.query("SELECT v FROM t WHERE id = 1 FOR UPDATE").unwrap();
        client.query("SELECT nextval(pg_get_serial_sequence('t', 'id'))").unwrap_or_default();
        client.query("SELECT pg_backend_pid()").unwrap();
    });
    assert_eq!(writing, 0);
    // A series with a write goes to the primary whole.
    let mixed = scene.away(|| {
        let mut out = Vec::new();
        for sql in ["SELECT 1 FROM t LIMIT 1", "UPDATE t SET v = 2 WHERE id = 1"] {
            write::parse(&mut out, b"", sql.as_bytes(), []);
            write::bind(&mut out, b"", b"", Format::Text, std::iter::empty(), Format::Text);
            write::execute(&mut out, b"", 0);
        }
        write::sync(&mut out);
        assert_eq!(client.send(&out).unwrap().len(), 1);
    });
    assert_eq!(mixed, 0);
}

#[test]
fn what_was_written_is_read_whoever_reads_it() {
    let scene = Scene::new();
    let (mut writer, mut reader) = (scene.client(), scene.client());
    table(&mut writer, "t");
    table(&mut writer, "other");
    scene.catch_up();
    until_split(&scene, &mut reader, "SELECT v FROM t WHERE id = 1");
    for replica in scene.cluster.replicas() {
        replica.pause_replay().unwrap();
    }
    for round in 1..=20 {
        writer.query(format!("UPDATE t SET v = {round} WHERE id = 1")).unwrap();
        for client in [&mut writer, &mut reader] {
            assert_eq!(client.value("SELECT v FROM t WHERE id = 1"), Some(round.to_string()));
        }
        // In a transaction, by the extended protocol, in a block that is committed late.
        writer.query("BEGIN").unwrap();
        writer.execute("UPDATE t SET v = v + $1 WHERE id = 2", &["1"]).unwrap();
        writer.query("COMMIT").unwrap();
        assert_eq!(value(&reader.execute("SELECT v FROM t WHERE id = $1", &["2"])), round.to_string());
    }
    // A table that nobody wrote to is read where it was read before, but not by who wrote.
    let others = scene.away(|| {
        reader.query("SELECT v FROM other WHERE id = 1").unwrap();
    });
    // The reader saw the primary's answers: a replica would be behind them.
    assert_eq!(others, 0);
    let mut stranger = scene.client();
    let others = scene.away(|| {
        stranger.query("SELECT v FROM other WHERE id = 1").unwrap();
    });
    assert_eq!(others, 1);
    for replica in scene.cluster.replicas() {
        replica.resume_replay().unwrap();
    }
    scene.catch_up();
    until_split(&scene, &mut reader, "SELECT v FROM t WHERE id = 1");
    assert_eq!(reader.value("SELECT v FROM t WHERE id = 1").as_deref(), Some("20"));
}

#[test]
fn what_a_replica_refuses_the_primary_answers() {
    let scene = Scene::new();
    let mut client = scene.client();
    table(&mut client, "t");
    scene.catch_up();
    until_split(&scene, &mut client, "SELECT v FROM t WHERE id = 1");
    let hinted = "SELECT v + 7 FROM t WHERE id = 2 AND txid_current() > 0 /*tenfold: replica*/";
    assert_eq!(client.value(hinted).as_deref(), Some("7"));
    assert_eq!(value(&client.execute(hinted, &[])), "7");
    // An error that the primary has, too, is the primary's.
    until_split(&scene, &mut client, "SELECT v FROM t WHERE id = 1");
    assert!(client.query("SELECT 1 / v FROM t").unwrap_err().contains("division by zero"));
    let pool = Arc::clone(&scene.pooled.pooler.shared().database("postgres").unwrap().pools()[0]);
    wait_for("reruns to be counted", TIME_MAX, || {
        let routes = pool.routes();
        // Of the statement that changes something only the first was tried there.
        routes.reruns == 2 && routes.primary.iter().any(|(reason, _)| *reason == "refused_before")
    });
}

#[test]
fn reads_go_on_when_replicas_die() {
    let mut scene = Scene::new();
    let mut client = scene.client();
    table(&mut client, "t");
    scene.catch_up();
    until_split(&scene, &mut client, "SELECT v FROM t WHERE id = 1");
    scene.cluster.replicas_mut()[0].kill();
    for _ in 0..200 {
        assert_eq!(client.value("SELECT count(*) FROM t").as_deref(), Some("10"));
    }
    scene.cluster.replicas_mut()[1].kill();
    for _ in 0..200 {
        assert_eq!(client.value("SELECT count(*) FROM t").as_deref(), Some("10"));
    }
    scene.until_up(0);
    scene.cluster.replicas_mut()[0].start().unwrap();
    scene.until_up(1);
    until_split(&scene, &mut client, "SELECT v FROM t WHERE id = 1");
}

#[test]
fn a_replica_that_was_promoted_is_none() {
    let scene = Scene::with(1, |_| {});
    let mut client = scene.client();
    table(&mut client, "t");
    scene.catch_up();
    until_split(&scene, &mut client, "SELECT v FROM t WHERE id = 1");
    scene.cluster.replicas()[0].promote().unwrap();
    scene.cluster.replicas()[0].psql("UPDATE t SET v = 99").unwrap();
    wait_for("the replica to be left", TIME_MAX, || scene.up() == 0);
    for _ in 0..50 {
        assert_eq!(client.value("SELECT v FROM t WHERE id = 1").as_deref(), Some("0"));
    }
}

#[test]
fn readers_of_other_rows_need_not_wait_for_a_row_that_was_written() {
    let scene = Scene::new();
    let (mut writer, mut reader) = (scene.client(), scene.client());
    table(&mut writer, "t");
    scene.catch_up();
    until_split(&scene, &mut reader, "SELECT v FROM t WHERE id = 1");
    for replica in scene.cluster.replicas() {
        replica.pause_replay().unwrap();
    }
    writer.query("UPDATE t SET v = 1 WHERE id = 1").unwrap();
    let others = scene.away(|| {
        for sql in ["SELECT v FROM t WHERE id = 2", "SELECT v FROM t WHERE id = '03'"] {
            assert_eq!(reader.value(sql).as_deref(), Some("0"));
        }
        assert_eq!(value(&reader.execute("SELECT v FROM t WHERE id = $1", &["4"])), "0");
    });
    assert_eq!(others, 3);
    let same = scene.away(|| {
        for sql in ["SELECT v FROM t WHERE id = 1", "SELECT v FROM t WHERE id = '001'"] {
            assert_eq!(reader.value(sql).as_deref(), Some("1"));
        }
        assert_eq!(value(&reader.execute("SELECT v FROM t WHERE id = $1", &["1"])), "1");
        assert_eq!(value(&reader.query("SELECT sum(v) FROM t")), "1");
        assert_eq!(value(&reader.query("SELECT v FROM t WHERE v = 1")), "1");
    });
    assert_eq!(same, 0);
}

#[test]
fn who_is_behind_a_connection_sees_what_they_wrote_on_another() {
    let scene = Scene::new();
    let (mut first, mut second, mut third) = (scene.client(), scene.client(), scene.client());
    table(&mut first, "t");
    table(&mut first, "other");
    scene.catch_up();
    until_split(&scene, &mut second, "SELECT v FROM t WHERE id = 1");
    for replica in scene.cluster.replicas() {
        replica.pause_replay().unwrap();
    }
    first.query("SET tenfold.identity = 'ann'").unwrap();
    second.query("SET tenfold.identity = 'ann'").unwrap();
    first.query("UPDATE t SET v = 1 WHERE id = 1").unwrap();
    // Whatever she reads: time does not run backwards for her.
    let hers = scene.away(|| {
        second.query("SELECT v FROM other WHERE id = 1").unwrap();
        third.query("SELECT v FROM other WHERE id = 1 /*tenfold='ann'*/").unwrap();
    });
    assert_eq!(hers, 0);
    second.query("RESET tenfold.identity").unwrap();
    let theirs = scene.away(|| {
        let mut stranger = scene.client();
        stranger.query("SELECT v FROM other WHERE id = 1 /*tenfold='bob'*/").unwrap();
    });
    assert_eq!(theirs, 1);
}

#[test]
fn critical_tables_are_read_at_the_primary_and_all_routes_are_counted() {
    let critical = vec!["accounts".to_owned(), "public.limits".to_owned()];
    let scene = Scene::with(1, |config| {
        config.databases[0].reads.primary_tables = critical;
        config.admin_users = vec!["postgres".into()];
        config.users.list.push(("postgres".into(), Password::new("unused")));
    });
    let mut client = scene.client();
    for name in ["t", "accounts", "limits"] {
        table(&mut client, name);
    }
    client.query("CREATE VIEW richest AS SELECT id FROM accounts ORDER BY v").unwrap();
    scene.catch_up();
    until_split(&scene, &mut client, "SELECT v FROM t WHERE id = 1");
    let critical = scene.away(|| {
        client.query("SELECT v FROM accounts WHERE id = 1").unwrap();
        client.execute("SELECT t.v FROM t JOIN limits USING (id)", &[]).unwrap();
        client.query("SELECT id FROM richest").unwrap();
    });
    assert_eq!(critical, 0);
    for _ in 0..100 {
        client.query("SELECT v FROM accounts WHERE id = 7").unwrap();
    }
    let pool = Arc::clone(&scene.pooled.pooler.shared().database("postgres").unwrap().pools()[0]);
    wait_for("routes to be counted", TIME_MAX, || {
        let routes = pool.routes();
        routes.primary.iter().any(|(reason, count)| *reason == "primary_table" && *count == 103)
            && routes.primary.iter().any(|(reason, _)| *reason == "defines")
            && routes.replica > 0
            && routes.lags.iter().sum::<u64>() == routes.replica
    });
    let top = pool.top(10);
    let row = top.iter().find(|row| row.route == "primary_table").unwrap();
    assert_eq!(row.text, "SELECT v FROM accounts WHERE id = ?");
    let told = scene.pooled.pooler.shared().registry.render();
    let reason =
        "tenfold_pooler_routes_total{database=\"postgres\",route=\"primary\",reason=\"primary_table\"} 103\n";
    assert!(told.contains(reason), "{told}");
    let statement = format!("database=\"postgres\",fingerprint=\"{}\",route=\"primary\"", row.fingerprint);
    assert!(told.contains(&statement), "{told}");
    let console = |command| {
        let mut psql = scene.pooled.psql_command();
        pooled::told(psql.args(["-d", "pgbouncer", "-c", command]).output().unwrap()).unwrap()
    };
    let shown = console("SHOW ROUTES postgres");
    assert!(shown.contains("postgres|postgres|primary|primary_table|103|"), "{shown}");
    let shown = console("SHOW TOP_STATEMENTS");
    assert!(shown.contains(&format!("|{}|SELECT v FROM accounts WHERE id = ?", row.fingerprint)), "{shown}");
}

#[test]
fn names_mean_what_they_mean_to_the_session() {
    let scene = Scene::with(1, |_| {});
    let mut client = scene.client();
    client.query("CREATE SCHEMA one; CREATE SCHEMA two").unwrap();
    for name in ["one.t", "two.t"] {
        table(&mut client, name);
    }
    scene.catch_up();
    client.query("SET search_path = one").unwrap();
    until_split(&scene, &mut client, "SELECT v FROM t WHERE id = 1");
    // Another table of that name, written in another schema, is nobody's business here.
    let mut other = scene.client();
    other.query("SET search_path = two, pg_catalog").unwrap();
    scene.cluster.replicas()[0].pause_replay().unwrap();
    other.query("UPDATE t SET v = 1").unwrap();
    let others = scene.away(|| {
        assert_eq!(client.value("SELECT sum(v) FROM t").as_deref(), Some("0"));
    });
    assert_eq!(others, 1);
    let own = scene.away(|| {
        assert_eq!(other.value("SELECT sum(v) FROM t").as_deref(), Some("10"));
        assert_eq!(client.value("SELECT sum(v) FROM two.t").as_deref(), Some("10"));
    });
    assert_eq!(own, 0);
}

#[test]
fn a_replica_that_would_answer_otherwise_gets_no_reads() {
    let scene = Scene::with(1, |_| {});
    let mut client = scene.client();
    table(&mut client, "t");
    scene.catch_up();
    until_split(&scene, &mut client, "SELECT v FROM t WHERE id = 1");
    scene.cluster.replicas()[0].set("TimeZone", "Asia/Tokyo").unwrap();
    scene.pooled.pooler.shared().database("postgres").unwrap().reconnect();
    let mut newcomer = scene.client();
    let zone = scene.cluster.primary().psql("SHOW TimeZone").unwrap();
    wait_for("the replica to be left alone", TIME_MAX, || {
        newcomer.query("SELECT v FROM t WHERE id = 1").unwrap();
        let log = scene.pooled.log.lock().unwrap();
        log.iter().any(|line| line.contains("TimeZone = \"Asia/Tokyo\"") && line.contains(zone.trim()))
    });
    let away = scene.away(|| {
        for _ in 0..20 {
            newcomer.query("SELECT v FROM t WHERE id = 1").unwrap();
        }
    });
    assert_eq!(away, 0);
}

#[test]
fn a_statement_whose_table_has_changed_is_prepared_anew_or_refused_as_ever() {
    let scene = Scene::with(1, |_| {});
    let mut client = scene.client();
    table(&mut client, "t");
    scene.catch_up();
    until_split(&scene, &mut client, "SELECT v FROM t WHERE id = 1");
    let mut out = Vec::new();
    write::parse(&mut out, b"s", b"SELECT v FROM t WHERE id = 1", []);
    write::describe(&mut out, tenfold_pgwire::frontend::Target::Statement(b"s"));
    write::sync(&mut out);
    client.send(&out).unwrap();
    let mut run = || {
        let mut out = Vec::new();
        write::bind(&mut out, b"", b"s", Format::Text, std::iter::empty(), Format::Text);
        write::execute(&mut out, b"", 0);
        write::sync(&mut out);
        client.send(&out)
    };
    assert_eq!(run().unwrap().len(), 1);
    let mut other = scene.client();
    other.query("ALTER TABLE t RENAME v TO w").unwrap();
    wait_for("the statement to fail", TIME_MAX, || run().is_err());
    assert!(run().unwrap_err().contains("does not exist"));
    other.query("ALTER TABLE t RENAME w TO v").unwrap();
    wait_for("the statement to work again", TIME_MAX, || run().is_ok());
}

#[test]
fn what_was_written_before_the_replicas_came_is_seen() {
    let scene = Scene::with(1, |_| {});
    let mut client = scene.client();
    table(&mut client, "t");
    scene.catch_up();
    until_split(&scene, &mut client, "SELECT v FROM t WHERE id = 1");
    let database = scene.pooled.pooler.shared().database("postgres").unwrap();
    let hosts: Vec<_> = database.split.replicas.load().iter().map(|replica| replica.host.clone()).collect();
    scene.cluster.replicas()[0].pause_replay().unwrap();
    let (mut writer, mut reader) = (scene.client(), scene.client());
    database.split.set_replicas(&[]);
    writer.query("UPDATE t SET v = 1 WHERE id = 1").unwrap();
    writer.query("BEGIN; UPDATE t SET v = 1 WHERE id = 2").unwrap();
    database.split.set_replicas(&hosts);
    scene.until_up(1);
    assert_eq!(reader.value("SELECT v FROM t WHERE id = 1").as_deref(), Some("1"));
    assert_eq!(reader.value("SELECT v FROM t WHERE id = 2").as_deref(), Some("0"));
    writer.query("COMMIT").unwrap();
    assert_eq!(reader.value("SELECT v FROM t WHERE id = 2").as_deref(), Some("1"));
}

#[test]
fn a_name_that_was_given_stays_given_when_a_replica_refuses_it() {
    let scene = Scene::with(1, |_| {});
    let mut client = scene.client();
    table(&mut client, "t");
    scene.catch_up();
    until_split(&scene, &mut client, "SELECT v FROM t WHERE id = 1");
    let prepare = |client: &mut Direct, sql: &str| {
        let mut out = Vec::new();
        write::parse(&mut out, b"s", sql.as_bytes(), []);
        write::sync(&mut out);
        client.send(&out)
    };
    prepare(&mut client, "SELECT 7").unwrap();
    assert!(prepare(&mut client, "SELECT 8").unwrap_err().contains("already exists"));
    let mut out = Vec::new();
    write::bind(&mut out, b"", b"s", Format::Text, std::iter::empty(), Format::Text);
    write::execute(&mut out, b"", 0);
    write::bind(&mut out, b"", b"nobody", Format::Text, std::iter::empty(), Format::Text);
    write::execute(&mut out, b"", 0);
    write::sync(&mut out);
    assert!(client.send(&out).unwrap_err().contains("\"nobody\" does not exist"));
    out.clear();
    write::bind(&mut out, b"", b"s", Format::Text, std::iter::empty(), Format::Text);
    write::execute(&mut out, b"", 0);
    write::sync(&mut out);
    assert_eq!(value(&client.send(&out)), "7");
}

#[test]
fn writes_count_however_they_are_committed() {
    let scene = Scene::with(1, |_| {});
    let (mut writer, mut reader) = (scene.client(), scene.client());
    table(&mut writer, "t");
    scene.catch_up();
    until_split(&scene, &mut reader, "SELECT v FROM t WHERE id = 1");
    scene.cluster.replicas()[0].pause_replay().unwrap();
    // A COMMIT that was bound before the write it commits.
    writer.query("BEGIN").unwrap();
    writer.query("SELECT v FROM t WHERE id = 1 FOR UPDATE").unwrap();
    let mut out = Vec::new();
    write::parse(&mut out, b"", b"COMMIT", []);
    write::bind(&mut out, b"c", b"", Format::Text, std::iter::empty(), Format::Text);
    write::sync(&mut out);
    writer.send(&out).unwrap();
    writer.query("UPDATE t SET v = 1 WHERE id = 1").unwrap();
    out.clear();
    write::execute(&mut out, b"c", 0);
    write::sync(&mut out);
    writer.send(&out).unwrap();
    assert_eq!(reader.value("SELECT v FROM t WHERE id = 1").as_deref(), Some("1"));
    // EXECUTE of a name that means something else than before.
    writer.query("PREPARE s AS SELECT 1").unwrap();
    for sql in
        ["BEGIN", "DEALLOCATE s", "PREPARE s AS UPDATE t SET v = 2 WHERE id = 1", "EXECUTE s", "COMMIT"]
    {
        writer.query(sql).unwrap();
    }
    assert_eq!(reader.value("SELECT v FROM t WHERE id = 1").as_deref(), Some("2"));
    // By a block of code, and by a function that nobody has read.
    writer.query("DO $$ BEGIN UPDATE t SET v = 3 WHERE id = 1; END $$").unwrap();
    assert_eq!(reader.value("SELECT v FROM t WHERE id = 1").as_deref(), Some("3"));
    let function = "CREATE FUNCTION four() RETURNS void LANGUAGE plpgsql AS \
        $$ BEGIN EXECUTE 'UPDATE t SET v = 4 WHERE id = 1'; END $$";
    writer.query(function).unwrap();
    writer.query("SELECT four()").unwrap();
    assert_eq!(reader.value("SELECT v FROM t WHERE id = 1").as_deref(), Some("4"));
    // By COPY.
    writer.query("CREATE TABLE c (id int)").unwrap();
    let mut out = Vec::new();
    write::query(&mut out, b"COPY c FROM STDIN");
    write::copy_data(&mut out, b"1\n2\n");
    write::copy_done(&mut out);
    writer.send(&out).unwrap();
    assert_eq!(reader.value("SELECT count(*) FROM c").as_deref(), Some("2"));
}

#[test]
fn a_series_that_goes_elsewhere_means_what_it_meant() {
    let scene = Scene::with(1, |_| {});
    let mut client = scene.client();
    table(&mut client, "t");
    scene.catch_up();
    until_split(&scene, &mut client, "SELECT v FROM t WHERE id = 1");
    let hinted = "SELECT $1::int FROM t WHERE id = 2 AND txid_current() > 0 /*tenfold: replica*/";
    let mut out = Vec::new();
    write::parse(&mut out, b"", hinted.as_bytes(), []);
    write::sync(&mut out);
    client.send(&out).unwrap();
    out.clear();
    write::bind(&mut out, b"", b"", Format::Text, [Some(&b"1"[..])], Format::Text);
    write::execute(&mut out, b"", 0);
    write::parse(&mut out, b"", b"SELECT 10 + $1", []);
    write::bind(&mut out, b"", b"", Format::Text, [Some(&b"2"[..])], Format::Text);
    write::execute(&mut out, b"", 0);
    write::sync(&mut out);
    let rows = client.send(&out).unwrap();
    let values: Vec<_> = rows.iter().map(|row| row[0].clone().unwrap()).collect();
    assert_eq!(values, [b"1".to_vec(), b"12".to_vec()]);
    let pool = Arc::clone(&scene.pooled.pooler.shared().database("postgres").unwrap().pools()[0]);
    wait_for("the rerun to be counted", TIME_MAX, || pool.routes().reruns == 1);
}

#[test]
fn a_path_that_moves_within_a_string_is_no_path() {
    let scene = Scene::with(1, |_| {});
    let (mut writer, mut reader) = (scene.client(), scene.client());
    writer.query("CREATE SCHEMA app").unwrap();
    for name in ["app.t", "public.t"] {
        table(&mut writer, name);
    }
    scene.catch_up();
    until_split(&scene, &mut reader, "SELECT v FROM app.t WHERE id = 1");
    scene.cluster.replicas()[0].pause_replay().unwrap();
    writer.query("SET search_path = app; UPDATE t SET v = 1 WHERE id = 1").unwrap();
    assert_eq!(reader.value("SELECT v FROM app.t WHERE id = 1").as_deref(), Some("1"));
}

#[test]
fn replicas_that_come_by_reload_get_the_reads_of_those_who_were_there() {
    let cluster = Cluster::start(&Options { replicas: 1, ..Options::default() }).unwrap();
    let mut config = pooled::config();
    let at = |port| Host::Tcp { host: "127.0.0.1".into(), port };
    config.databases[0].hosts = vec![at(cluster.primary().port())];
    let pooled = Pooled::start_with(config.clone(), 2);
    let scene = Scene { pooled, cluster };
    let mut clients: Vec<_> = (0..6).map(|_| scene.client()).collect();
    table(&mut clients[0], "t");
    for client in &mut clients {
        client.query("SELECT v FROM t WHERE id = 1").unwrap();
    }
    let host = at(scene.cluster.replicas()[0].port());
    config.databases[0].reads.replicas = vec![ReplicaHost { host, weight: 1 }];
    scene.pooled.pooler.reload(config).unwrap();
    scene.until_up(1);
    scene.catch_up();
    for client in &mut clients {
        until_split(&scene, client, "SELECT v FROM t WHERE id = 1");
    }
}

#[test]
fn who_waits_for_a_replica_need_not_see_what_is_written_meanwhile() {
    let scene = Scene::with(1, |config| {
        config.databases[0].reads.catch_up = TIME_MAX;
        config.databases[0].reads.lag_max = TIME_MAX;
    });
    let mut writer = scene.client();
    table(&mut writer, "t");
    scene.catch_up();
    // Neither the write nor the read names a key.
    let read = "SELECT sum(v) FROM t";
    until_split(&scene, &mut scene.client(), read);
    let database = scene.pooled.pooler.shared().database("postgres").unwrap();
    let waits = || database.pools().iter().map(|pool| pool.routes().waits).sum::<u64>();
    // Always behind the newest write, by less than the reader has time for.
    scene.cluster.replicas()[0].delay_replay(Duration::from_millis(300)).unwrap();
    let before = waits();
    let away = scene.away(|| {
        let mut reader = scene.client();
        writer.query("UPDATE t SET v = v + 1").unwrap();
        wait_for("the write to be over", TIME_MAX, || !database.split.floors.need(&Tables::All).pending);
        let reading = std::thread::spawn(move || reader.value(read));
        wait_for("the reader to wait", TIME_MAX, || waits() > before);
        wait_for("its answer while others write", TIME_MAX / 2, || {
            writer.query("UPDATE t SET v = v + 1").unwrap();
            reading.is_finished()
        });
        let seen: u64 = reading.join().unwrap().unwrap().parse().unwrap();
        assert!(seen >= 10, "what was written before: {seen}");
    });
    assert_eq!(away, 1);
}
