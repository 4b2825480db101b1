//! The console of a running pooler, and what its commands do to clients.

use std::{
    process::{Child, Stdio},
    time::Duration,
};

use tenfold_pgwire::write;
use tenfold_pooler::{ProcessAsk, config::Password};
use tenfold_testkit::wait_for;

use crate::{
    direct::Direct,
    pooled::{Pooled, config, told},
};

const LONG: Duration = Duration::from_secs(20);

fn start() -> Pooled {
    let mut config = config();
    config.admin_users = vec!["postgres".into()];
    // The console belongs to no database, so its users are the tier's own.
    config.users.list.push(("postgres".into(), Password::new("unused")));
    Pooled::start_with(config, 2)
}

impl Pooled {
    /// Runs a command at the console.
    fn command(&self, command: &str) -> Result<String, String> {
        let mut psql = self.psql_command();
        psql.args(["-d", "pgbouncer", "-c", command]);
        told(psql.output().unwrap())
    }

    /// A session at the console.
    fn console(&self) -> Direct {
        Direct::connect_to_database(self.port(), "pgbouncer")
    }

    /// Begins something that takes its time.
    fn begin(&self, database: &str, sql: &str) -> Child {
        let mut psql = self.psql_command();
        psql.args(["-d", database, "-c", sql]);
        psql.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// The rows of a SHOW that hold this.
    fn rows(&self, show: &str, having: &str) -> Vec<String> {
        let printed = self.command(show).unwrap();
        printed.lines().filter(|row| row.contains(having)).map(str::to_owned).collect()
    }

    fn await_row(&self, show: &str, having: &str) {
        wait_for(&format!("{show}: {having}"), LONG, || !self.rows(show, having).is_empty());
    }
}

/// Keeps statements running until it is opened: an advisory lock, taken at the server itself.
struct Gate {
    holder: Direct,
    key: u32,
}

impl Gate {
    /// Each test has a key of its own, since they share a server.
    fn shut(key: u32) -> Self {
        let mut holder = Direct::connect();
        holder.query(format!("SELECT pg_advisory_lock({key})")).unwrap();
        Self { holder, key }
    }

    /// A column that is there once the gate is open, and keeps nothing once its transaction has ended.
    fn passing(&self) -> String {
        format!("pg_advisory_xact_lock_shared({})", self.key)
    }

    fn open(mut self) {
        self.holder.query(format!("SELECT pg_advisory_unlock({})", self.key)).unwrap();
    }
}

fn ended(child: Child) -> Result<String, String> {
    told(child.wait_with_output().unwrap())
}

#[test]
fn a_client_and_its_server_are_shown_while_it_works() {
    let pooled = start();
    let gate = Gate::shut(1);
    let busy = pooled.begin("postgres", &format!("SELECT {}", gate.passing()));
    pooled.await_row("SHOW CLIENTS", "C|postgres|postgres|active|127.0.0.1|");
    pooled.await_row("SHOW SERVERS", "S|postgres|postgres|active|127.0.0.1|");
    pooled.await_row("SHOW POOLS", "postgres|postgres|1|0|0|0|1|");
    gate.open();
    assert_eq!(ended(busy), Ok(String::new()));
    pooled.await_row("SHOW SERVERS", "S|postgres|postgres|idle|127.0.0.1|");
    pooled.await_row("SHOW STATS_TOTALS", "postgres|1|1|");
    assert_eq!(pooled.rows("SHOW CONFIG", "default_pool_size"), ["default_pool_size|4|20|yes"]);
    assert!(!pooled.rows("SHOW DATABASES", "postgres|127.0.0.1|").is_empty());
    // The console itself.
    pooled.await_row("SHOW LISTS", "used_clients|1");
}

#[test]
fn pause_waits_for_what_runs_and_holds_what_would_begin() {
    let pooled = start();
    let gate = Gate::shut(2);
    let running = pooled.begin("postgres", &format!("SELECT {}, 'ran'", gate.passing()));
    pooled.await_row("SHOW SERVERS", "|active|");
    let mut pausing = pooled.begin("pgbouncer", "PAUSE");
    pooled.await_row("SHOW STATE", "paused|yes");
    assert!(pausing.try_wait().unwrap().is_none(), "a statement is still running");
    gate.open();
    assert_eq!(ended(pausing), Ok(String::new()));
    assert_eq!(pooled.rows("SHOW SERVERS", "S|"), [""; 0], "what ran has ended before PAUSE came true");
    assert_eq!(ended(running), Ok("|ran".into()));
    assert!(pooled.command("PAUSE").unwrap_err().contains("already suspended/paused"));
    let held = pooled.begin("postgres", "SELECT 'went on'");
    pooled.await_row("SHOW CLIENTS", "|waiting|");
    assert_eq!(pooled.rows("SHOW STATE", "paused"), ["paused|yes"]);
    assert_eq!(pooled.command("RESUME"), Ok(String::new()));
    assert_eq!(ended(held), Ok("went on".into()));
    assert!(pooled.command("RESUME").unwrap_err().contains("not paused"));
}

#[test]
fn one_database_is_paused_and_resumed_by_name() {
    let pooled = start();
    pooled.psql("SELECT 1").unwrap();
    assert_eq!(pooled.command("PAUSE postgres"), Ok(String::new()));
    let held = pooled.begin("postgres", "SELECT 1");
    pooled.await_row("SHOW CLIENTS", "|waiting|");
    assert_eq!(pooled.command("RESUME postgres"), Ok(String::new()));
    assert_eq!(ended(held), Ok("1".into()));
    assert!(pooled.command("PAUSE nodb").unwrap_err().contains("no such database: nodb"));
}

#[test]
fn reconnect_replaces_servers_without_an_error_to_anyone() {
    let pooled = start();
    let backend = "SELECT pg_backend_pid()";
    let before = pooled.psql(backend).unwrap();
    let gate = Gate::shut(3);
    let running = pooled.begin("postgres", &format!("SELECT {}, 'ran'", gate.passing()));
    pooled.await_row("SHOW SERVERS", "|active|");
    assert_eq!(pooled.command("RECONNECT"), Ok(String::new()));
    let mut closing = pooled.begin("pgbouncer", "WAIT_CLOSE");
    pooled.await_row("SHOW CLIENTS", "C|postgres|postgres|active|");
    assert!(closing.try_wait().unwrap().is_none(), "a statement is still running");
    gate.open();
    assert_eq!(ended(closing), Ok(String::new()));
    assert_eq!(ended(running), Ok("|ran".into()));
    assert_ne!(pooled.psql(backend).unwrap(), before);
}

#[test]
fn disable_refuses_new_clients_until_enable() {
    let pooled = start();
    assert_eq!(pooled.command("DISABLE postgres"), Ok(String::new()));
    assert!(pooled.psql("SELECT 1").is_err());
    assert_eq!(pooled.command("SET max_client_conn = 50"), Ok(String::new()));
    assert!(pooled.psql("SELECT 1").is_err(), "a setting does not enable it");
    assert_eq!(pooled.command("ENABLE postgres"), Ok(String::new()));
    assert_eq!(pooled.psql("SELECT 1"), Ok("1".into()));
    assert_eq!(
        pooled.rows("SHOW CONFIG", "max_client_conn"),
        ["max_client_conn|50|100|yes".replace("100", &default("max_client_conn"))]
    );
}

fn default(key: &str) -> String {
    let table = tenfold_pooler::console::settings::table(&tenfold_pooler::config::Config::default());
    table.rows.into_iter().find(|row| row[0].as_deref() == Some(key)).unwrap()[2].clone().unwrap()
}

#[test]
fn kill_ends_clients_at_once_and_kill_client_only_one() {
    let pooled = start();
    let sleeps = ["SELECT pg_sleep(60), 'first'", "SELECT pg_sleep(60), 'second'"];
    let sleeping = sleeps.map(|sql| pooled.begin("postgres", sql));
    wait_for("two clients", LONG, || pooled.rows("SHOW CLIENTS", "|active|").len() == 2);
    let row = pooled.rows("SHOW CLIENTS", "|active|").remove(0);
    let id = row.split('|').nth_back(1).unwrap().to_owned();
    assert_eq!(pooled.command(&format!("KILL_CLIENT {id}")), Ok(String::new()));
    wait_for("one client", LONG, || pooled.rows("SHOW CLIENTS", "|active|").len() == 1);
    assert!(pooled.command(&format!("KILL_CLIENT {id}")).unwrap_err().contains("client not found"));
    assert_eq!(pooled.command("KILL postgres"), Ok(String::new()));
    for client in sleeping {
        let error = ended(client).unwrap_err();
        assert!(error.contains("terminated"), "{error}");
    }
    assert_eq!(pooled.command("RESUME postgres"), Ok(String::new()), "KILL leaves it paused");
    assert_eq!(pooled.psql("SELECT 1"), Ok("1".into()));
}

#[test]
fn reload_and_shutdown_are_asked_of_the_process() {
    let mut pooled = start();
    let mut asks = pooled.asks.take().unwrap();
    let reloading = pooled.begin("pgbouncer", "RELOAD");
    let asked = wait_for("RELOAD", LONG, || asks.try_recv().ok());
    let ProcessAsk::Reload { reply } = asked else { panic!("another one") };
    reply.send(Err("line 3: no".into())).unwrap();
    assert!(ended(reloading).unwrap_err().contains("RELOAD failed: line 3: no"));
    let ending = pooled.begin("pgbouncer", "SHUTDOWN");
    let asked = wait_for("SHUTDOWN", LONG, || asks.try_recv().ok());
    assert!(matches!(asked, ProcessAsk::Shutdown { at_once: true }));
    assert_eq!(ended(ending), Ok(String::new()));
    drop(asks);
    assert!(pooled.command("RELOAD").unwrap_err().contains("does not take this command"), "nobody is there");
}

#[test]
fn a_shutdown_that_waits_takes_nobody_new_and_comes_when_all_have_left() {
    let mut pooled = start();
    let mut asks = pooled.asks.take().unwrap();
    let staying = Direct::connect_to(pooled.port(), &[]);
    let mut console = pooled.console();
    console.query("SHUTDOWN WAIT_FOR_CLIENTS").unwrap();
    assert!(pooled.psql("SELECT 1").unwrap_err().contains("the pooler is shutting down"));
    assert_eq!(console.query("RESUME").unwrap_err(), "pooler is shutting down");
    assert_eq!(console.query("SHUTDOWN WAIT_FOR_CLIENTS").unwrap_err(), "already shutting down");
    assert!(asks.try_recv().is_err(), "a client is still here");
    staying.terminate();
    let asked = wait_for("the end", LONG, || asks.try_recv().ok());
    assert!(matches!(asked, ProcessAsk::Shutdown { at_once: false }));
}

#[test]
fn a_shutdown_that_waits_for_servers_begins_nothing_and_lets_out_who_waits() {
    let mut pooled = start();
    let mut asks = pooled.asks.take().unwrap();
    let mut console = pooled.console();
    let mut staying = Direct::connect_to(pooled.port(), &[]);
    let mut waiting = Direct::connect_to(pooled.port(), &[]);
    staying.query("BEGIN; SELECT 1").unwrap();
    console.query("SHUTDOWN WAIT_FOR_SERVERS").unwrap();
    let held = std::thread::spawn(move || waiting.query("SELECT 'began'"));
    wait_for("one that waits", LONG, || {
        let rows = console.query("SHOW CLIENTS").unwrap();
        rows.iter().any(|row| row[3].as_deref() == Some(b"waiting"))
    });
    assert!(asks.try_recv().is_err(), "a transaction is still open");
    assert!(staying.query("COMMIT").is_ok());
    let asked = wait_for("the end", LONG, || asks.try_recv().ok());
    assert!(matches!(asked, ProcessAsk::Shutdown { at_once: false }));
    pooled.pooler.drain();
    let told = held.join().unwrap().unwrap_err();
    assert!(told.contains("the pooler is shutting down"), "{told}");
}

#[test]
fn a_suspended_pooler_answers_what_was_asked_and_reads_nothing_until_resume() {
    let pooled = start();
    let mut console = pooled.console();
    let mut open = Direct::connect_to(pooled.port(), &[]);
    open.query("BEGIN; SELECT 1").unwrap();
    let mut running = Direct::connect_to(pooled.port(), &[]);
    let gate = Gate::shut(4);
    let mut out = Vec::new();
    write::query(&mut out, format!("SELECT {}", gate.passing()).as_bytes());
    running.tell(&out);
    wait_for("two that are served", LONG, || {
        let rows = console.query("SHOW CLIENTS").unwrap();
        rows.iter().filter(|row| row[3].as_deref() == Some(b"active")).count() == 2
    });
    let mut suspend = Vec::new();
    write::query(&mut suspend, b"SUSPEND");
    console.tell(&suspend);
    pooled.await_row("SHOW STATE", "suspended|yes");
    gate.open();
    console.send(&[]).unwrap();
    running.stream().set_nonblocking(true).unwrap();
    let mut answer = [0; 64];
    assert!(running.stream().peek(&mut answer).unwrap() > 0, "answered before SUSPEND came true");
    assert!(console.query("SUSPEND").unwrap_err().contains("already suspended/paused"));
    let held = std::thread::spawn(move || {
        let answer = open.value("SELECT 'read'");
        open.query("COMMIT").map(|_| answer)
    });
    let later = pooled.begin("postgres", "SELECT 'later'");
    pooled.await_row("SHOW CLIENTS", "|idle|");
    assert!(!held.is_finished(), "within a transaction, too");
    // By another console than the one that suspended it.
    assert_eq!(pooled.command("RESUME"), Ok(String::new()));
    assert_eq!(held.join().unwrap().unwrap().as_deref(), Some("read"));
    assert_eq!(ended(later), Ok("later".into()));
}

#[test]
fn a_users_own_limit_is_no_reason_to_wait_for_ever() {
    let mut config = config();
    let mut other = config.databases[0].clone();
    other.name = "other".into();
    other.dbname = Some("template1".into());
    config.databases.push(other);
    for database in &mut config.databases {
        database.pool.user_max = 1;
    }
    let pooled = Pooled::start(config);
    let mut first = Direct::connect_to(pooled.port(), &[]);
    let mut second = Direct::connect_to_database(pooled.port(), "other");
    for _ in 0..3 {
        assert_eq!(first.value("SELECT current_database()").as_deref(), Some("postgres"));
        assert_eq!(second.value("SELECT current_database()").as_deref(), Some("template1"));
    }
}

#[test]
fn our_own_ends_are_shown_and_binds_are_counted() {
    let pooled = start();
    let mut client = Direct::connect_to(pooled.port(), &[]);
    for _ in 0..3 {
        client.execute("SELECT $1::int", &["1"]).unwrap();
    }
    let mut console = pooled.console();
    let port = pooled.port().to_string();
    let clients = console.query("SHOW CLIENTS").unwrap();
    assert_eq!(clients[0][6].as_deref(), Some(&b"127.0.0.1"[..]));
    assert_eq!(clients[0][7].as_deref(), Some(port.as_bytes()));
    let servers = console.query("SHOW SERVERS").unwrap();
    assert_eq!(servers[0][6].as_deref(), Some(&b"127.0.0.1"[..]));
    assert_ne!(servers[0][7].as_deref(), Some(&b"0"[..]));
    pooled.await_row("SHOW TOTALS", "total_bind_count|3");
    pooled.await_row("SHOW TOTALS", "total_server_assignment_count|3");
}

#[test]
fn strangers_do_not_reach_the_console() {
    let pooled = start();
    let mut psql = pooled.psql_command();
    psql.args(["-d", "pgbouncer", "-U", "nobody", "-c", "SHOW POOLS"]);
    assert!(told(psql.output().unwrap()).is_err());
}

#[test]
fn counts_are_metrics() {
    let pooled = start();
    pooled.psql("SELECT 1").unwrap();
    wait_for("the count", LONG, || {
        let text = pooled.pooler.shared().registry.render();
        text.contains("tenfold_pooler_transactions_total{database=\"postgres\"} 1\n")
            && text.contains("tenfold_pooler_logins_total 1\n")
            && text.contains("tenfold_pooler_servers{database=\"postgres\",state=\"idle\"} 1\n")
    });
}
