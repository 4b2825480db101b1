//! The pooler in the real binary, between `psql` and a real PostgreSQL: served, shown, reloaded, paused, drained.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::thread;

use tenfold_testkit::postgres::{Auth, Cluster, Install, Options, Tls};
use tenfold_testkit::tls::Authority;
use tenfold_testkit::{Answer, Origin, wait_for};

use crate::process::{Folder, LIMIT, Process, stderr, stdout};

const PASSWORD: &str = "correcthorse";

fn cluster() -> Cluster {
    let auth = Auth::Scram { password: PASSWORD.to_owned() };
    Cluster::start(&Options { auth, ..Options::default() }).expect("PostgreSQL")
}

/// A file for a cluster; `rest` stands below `[database.shop]`.
fn file(cluster: &Cluster, rest: &str) -> String {
    format!(
        "admin.listen = \"127.0.0.1:0\"\npooler.listen = \"127.0.0.1:0\"\n[database.shop]\n\
         primary = \"postgres://postgres@127.0.0.1:{}/postgres\"\npassword = \"{PASSWORD}\"\n{rest}\n",
        cluster.primary().port(),
    )
}

pub(crate) fn psql(connection: &str) -> Command {
    let mut psql = Command::new(Install::find().expect("PostgreSQL").bin.join("psql"));
    psql.args(["-X", "-A", "-t", "-q", connection])
        .env("PGPASSWORD", PASSWORD)
        .env("PGCONNECT_TIMEOUT", "20");
    psql
}

/// What `psql` says to a statement, both of its outputs.
pub(crate) fn ask(connection: &str, sql: &str) -> String {
    let output = psql(connection).args(["-c", sql]).output().expect("psql runs");
    (stdout(&output) + &stderr(&output)).trim_end().to_owned()
}

impl Process {
    /// A connection string for `psql`.
    fn shop(&self) -> String {
        self.database("shop")
    }

    pub(crate) fn database(&self, name: &str) -> String {
        let address: SocketAddr = self.pooler[0].parse().expect("a TCP address first");
        format!("host={} port={} user=postgres dbname={name}", address.ip(), address.port())
    }
}

#[test]
fn clients_are_served_by_tcp_and_by_a_path_and_status_shows_their_pool() {
    let cluster = cluster();
    let folder = Folder::with("");
    let path = folder.path().display().to_string();
    let listen = format!("pooler.listen = [\"127.0.0.1:0\", \"unix:{path}:6432\"]");
    folder.write(&file(&cluster, "").replace("pooler.listen = \"127.0.0.1:0\"", &listen));
    let process = folder.run();
    assert_eq!(ask(&process.shop(), "SELECT current_database()"), "postgres");
    let by_path = format!("host={path} port=6432 user=postgres dbname=shop");
    assert_eq!(ask(&by_path, "SELECT 6 * 7"), "42");
    let wrong = psql(&process.shop()).env("PGPASSWORD", "wrong").args(["-c", "SELECT 1"]).output();
    let wrong = stderr(&wrong.expect("psql runs"));
    assert!(wrong.contains("password authentication failed for user \"postgres\""), "{wrong}");

    let shown = stdout(&process.command(&folder, &["status"]));
    let pool = shown.lines().find(|line| line.starts_with("shop ")).unwrap_or_default();
    let columns: Vec<_> = pool.split_whitespace().collect();
    assert_eq!(columns[..3], ["shop", "postgres", "transaction"], "{shown}");
    assert_eq!(columns[7..], ["20+5", "0s", "open"], "{shown}");
    assert!(!shown.contains("ROUTE"), "{shown}");

    let (code, log) = process.terminate();
    assert_eq!(code, Some(0), "{log}");
    assert!(!folder.path().join(".s.PGSQL.6432").exists());
}

#[test]
fn both_tiers_run_side_by_side_and_a_reload_changes_both_or_neither() {
    let (cluster, origin) = (cluster(), Origin::serve(|_| Answer::ok("ok")).expect("a node"));
    let edge = format!(
        "\n[edge]\nlisten = \"127.0.0.1:0\"\n[cluster.api]\nnodes = [\"{}\"]\n[[route]]\npath = \"/PATH\"\nto = \"api\"\n",
        origin.addr()
    );
    let before = file(&cluster, &edge).replace("PATH", "old");
    let folder = Folder::with(&before);
    let process = folder.run();
    let status = |path: &str| crate::process::get(process.edge[0], path).status;
    assert_eq!((status("/old"), status("/new")), (200, 404));
    // Its user is only known in its own database: what others there are is not told.
    let refused = ask(&process.database("second"), "SELECT 1");
    assert!(refused.contains("password authentication failed"), "{refused}");

    let second = format!(
        "[database.second]\nprimary = \"postgres://postgres@127.0.0.1:{}/template1\"\npassword = \"{PASSWORD}\"\n",
        cluster.primary().port()
    );
    let after = file(&cluster, &edge).replace("PATH", "new") + &second;
    // A file that the pooler needs and does not have: neither tier changes.
    folder.write(&format!("{after}users = {{ file = \"absent.txt\" }}\n"));
    let reloaded = process.command(&folder, &["reload"]);
    assert!(!reloaded.status.success() && stderr(&reloaded).contains("cannot read"), "{}", stderr(&reloaded));
    assert_eq!((status("/old"), status("/new")), (200, 404));

    folder.write(&after);
    let reloaded = process.command(&folder, &["reload"]);
    assert!(reloaded.status.success(), "{}", stderr(&reloaded));
    assert_eq!((status("/old"), status("/new")), (404, 200));
    assert_eq!(ask(&process.database("second"), "SELECT current_database()"), "template1");
    assert_eq!(ask(&process.shop(), "SELECT 1"), "1");
}

#[test]
fn signals_hold_new_transactions_and_let_them_go() {
    let cluster = cluster();
    let folder = Folder::with(&file(&cluster, ""));
    let process = folder.run();
    assert_eq!(ask(&process.shop(), "SELECT 1"), "1");
    process.kill("-USR1");
    wait_for("the pause", LIMIT, || process.child.log().contains("paused"));
    let shop = process.shop();
    let waiting = thread::spawn(move || ask(&shop, "SELECT 2"));
    wait_for("somebody to wait", LIMIT, || {
        let shown = stdout(&process.command(&folder, &["status"]));
        let pool = shown.lines().find(|line| line.starts_with("shop "));
        pool.is_some_and(|pool| pool.split_whitespace().nth(4) == Some("1") && pool.ends_with("paused"))
    });
    assert!(!waiting.is_finished());
    process.kill("-USR2");
    assert_eq!(waiting.join().expect("psql"), "2");
}

#[test]
fn at_the_end_transactions_finish_and_idle_clients_are_told() {
    let cluster = cluster();
    let folder = Folder::with(&file(&cluster, ""));
    let process = folder.run();
    let mut idle = psql(&process.shop());
    let idle = idle.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut idle = idle.spawn().expect("psql runs");
    let shop = process.shop();
    let sleeping = "SELECT pg_sleep(1.5), 'slept well'";
    let working = thread::spawn(move || ask(&shop, sleeping));
    wait_for("the statement to run and the idle client to be in", LIMIT, || {
        let running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%slept well%' \
                       AND pid <> pg_backend_pid()";
        let clients = process.get("/api/v1/status").body;
        let is_in = String::from_utf8_lossy(&clients)
            .replace(' ', "")
            .contains("\"clients\":{\"max\":16384,\"open\":2}");
        is_in && cluster.psql(running).is_ok_and(|count| count == "1")
    });
    let ended = thread::spawn(move || process.terminate());
    // It may hear of the end before it has said goodbye.
    assert_eq!(working.join().expect("psql").lines().next(), Some("|slept well"));
    let (code, log) = ended.join().expect("it ends");
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("everything was finished"), "{log}");
    let mut input = idle.stdin.take().expect("piped");
    // It may have noticed already.
    let _ = input.write_all(b"SELECT 'served after the end';\n");
    drop(input);
    let output = idle.wait_with_output().expect("psql ends");
    let said = stdout(&output) + &stderr(&output);
    assert!(said.contains("shutting down"), "{said}");
    assert!(!said.contains("served after the end"), "{said}");
}

#[test]
fn tls_is_verified_on_both_sides() {
    let authority = Authority::new("an authority");
    let tls = Tls { identity: authority.server(&["localhost"]), client_ca: None };
    let cluster = Cluster::start(&Options { tls: Some(tls), ..Options::default() }).expect("PostgreSQL");
    let folder = Folder::with("");
    let identity = authority.server(&["localhost"]);
    let client = authority.client("postgres");
    for (name, text) in [
        ("ca.crt", authority.certificate()),
        ("server.crt", &identity.certificate),
        ("server.key", &identity.key),
        ("client.crt", &client.certificate),
        ("client.key", &client.key),
    ] {
        std::fs::write(folder.path().join(name), text).expect("a file");
    }
    let key = folder.path().join("client.key");
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&key, private).expect("our own file");
    folder.write(&format!(
        "admin.listen = \"127.0.0.1:0\"\n[pooler]\nlisten = \"127.0.0.1:0\"\nauth = \"cert\"\n\
         tls = {{ certificate = \"server.crt\", key = \"server.key\", ca = \"ca.crt\", mode = \"verify-full\" }}\n\
         [database.shop]\nprimary = \"postgres://postgres@localhost:{}/postgres?sslmode=verify-full\"\ntls.ca = \"ca.crt\"\n",
        cluster.primary().port(),
    ));
    let process = folder.run();
    let in_folder = |name: &str| folder.path().join(name).display().to_string();
    let verified = format!(
        "{} sslmode=verify-full sslrootcert={}",
        process.shop().replace("host=127.0.0.1", "host=localhost"),
        in_folder("ca.crt"),
    );
    let known = format!("{verified} sslcert={} sslkey={}", in_folder("client.crt"), in_folder("client.key"));
    let is_encrypted = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    assert_eq!(ask(&known, is_encrypted), "t", "{}", process.child.log());
    // Nobody without a certificate, and nobody under another name.
    let unknown = ask(&verified, "SELECT 1");
    assert!(unknown.contains("certificate"), "{unknown}");
    let another = ask(&known.replace("user=postgres", "user=somebody"), "SELECT 1");
    assert!(another.contains("FATAL"), "{another}");
    let plain = ask(&format!("{} sslmode=disable", process.shop()), "SELECT 1");
    assert!(plain.contains("FATAL"), "{plain}");
}

#[test]
fn check_logs_in_and_says_what_the_server_says() {
    let mut cluster = cluster();
    let folder = Folder::with(&file(&cluster, ""));
    let check = || {
        let output = folder.tenfold(&["check"]);
        (output.status.code(), stderr(&output))
    };
    assert_eq!(check(), (Some(0), String::new()));
    folder.write(&file(&cluster, "pool.size = 1000"));
    let (code, said) = check();
    assert!(code == Some(0) && said.contains("max_connections = 200"), "{said}");
    let itself = format!("replicas = [\"localhost:{}\"]", cluster.primary().port());
    folder.write(&file(&cluster, &itself));
    let (code, said) = check();
    assert!(
        code == Some(1) && said.contains("is no replica of database \"shop\": it is not in recovery"),
        "{said}"
    );
    folder.write(&file(&cluster, "replicas = [\"127.0.0.1:1\"]"));
    let (code, said) = check();
    assert!(
        code == Some(0) && said.contains("replica 127.0.0.1:1 of database \"shop\" cannot be used"),
        "{said}"
    );
    folder.write(&file(&cluster, "").replace(PASSWORD, "hunter2"));
    let (code, said) = check();
    assert!(code == Some(1) && said.contains("password authentication failed"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
    folder.write(&file(&cluster, "").replace("/postgres\"", "/nowhere\""));
    let (code, said) = check();
    assert!(code == Some(1) && said.contains("database \"nowhere\" does not exist"), "{said}");
    folder.write(&file(&cluster, ""));
    cluster.primary_mut().stop();
    let (code, said) = check();
    assert!(code == Some(1) && said.contains("no server of database \"shop\" can be reached"), "{said}");
    assert_eq!(folder.tenfold(&["check", "--offline"]).status.code(), Some(0));
}

#[test]
fn statements_are_explained_with_the_catalogue_of_a_database() {
    let cluster = cluster();
    let folder = Folder::with(&file(&cluster, ""));
    cluster
        .psql(
            "CREATE TABLE explained (id serial PRIMARY KEY, a int);
             CREATE SEQUENCE explained_tickets;
             CREATE VIEW explained_view AS SELECT nextval('explained_tickets') AS ticket FROM explained",
        )
        .expect("they are made");
    let explain = |sql: &str| stdout(&folder.tenfold(&["sql", "explain", "--database", "shop", sql]));
    let told = explain("SELECT a FROM explained WHERE id = 5");
    let expected = "SELECT a FROM explained WHERE id = 5\n  goes to      a replica\n  reads        public.explained\n  writes       nothing\n  key          id\n";
    assert!(told.starts_with(expected), "{told}");
    let told = explain("SELECT * FROM explained_view");
    assert!(told.contains("the primary: it uses a sequence (nextval)"), "{told}");
    assert!(!told.contains("catalogue"), "{told}");
    let unknown = folder.tenfold(&["sql", "explain", "--database", "nowhere", "SELECT 1"]);
    assert!(stderr(&unknown).contains("no database \"nowhere\""), "{}", stderr(&unknown));
}
