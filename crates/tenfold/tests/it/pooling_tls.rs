//! TLS of the pooler in the real binary, as `psql`, `openssl s_client` and PostgreSQL see it: suites and versions, what
//! RELOAD and SET change, and the console.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use tenfold_testkit::postgres::{Cluster, Options, Tls};
use tenfold_testkit::tls::{Authority, Identity};
use tenfold_testkit::wait_for;

use crate::pooling::{ask, psql};
use crate::process::{Folder, LIMIT, Process, stderr, stdout};

const PASSWORD: &str = "battery-staple";
const CHACHA: &str = "ECDHE-ECDSA-CHACHA20-POLY1305";
const AES: &str = "ECDHE-ECDSA-AES128-GCM-SHA256";

/// A pooler with TLS in front of a server with TLS.
struct Tested {
    cluster: Cluster,
    authority: Authority,
    folder: Folder,
}

impl Tested {
    fn new() -> Self {
        let authority = Authority::new("an authority");
        let tls = Tls { identity: authority.server(&["localhost"]), client_ca: None };
        let cluster = Cluster::start(&Options { tls: Some(tls), ..Options::default() }).expect("PostgreSQL");
        let folder = Folder::with("");
        let tested = Self { cluster, authority, folder };
        tested.write("ca.crt", tested.authority.certificate());
        tested.write("root.crt", tested.authority.certificate());
        tested.identity("server", &tested.authority.server(&["localhost"]));
        tested.identity("client", &tested.authority.client("postgres"));
        tested
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).expect("a file");
        // libpq reads no key that others may.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("our own file");
    }

    fn identity(&self, name: &str, identity: &Identity) {
        self.write(&format!("{name}.crt"), &identity.certificate);
        self.write(&format!("{name}.key"), &identity.key);
    }

    /// The file of a pooler with these in its two tables `tls`.
    fn file(&self, auth: &str, clients: &str, servers: &str) {
        self.folder.write(&format!(
            "admin.listen = \"127.0.0.1:0\"\n[pooler]\nlisten = \"127.0.0.1:0\"\nauth = \"{auth}\"\n\
             admin_users = [\"postgres\"]\nuser.postgres.password = \"{PASSWORD}\"\n\
             tls = {{ certificate = \"server.crt\", key = \"server.key\", ca = \"ca.crt\"{clients} }}\n\
             [database.shop]\nprimary = \"postgres://postgres@localhost:{}/postgres\"\npassword = \"{PASSWORD}\"\n\
             sslmode = \"verify-full\"\ntls = {{ ca = \"ca.crt\"{servers} }}\n",
            self.cluster.primary().port(),
        ));
    }

    /// How `psql` connects by TLS to a database, with these parameters.
    fn by_tls(&self, process: &Process, database: &str, more: &str) -> String {
        let ca = self.folder.path().join("root.crt");
        let place = process.database(database).replace("host=127.0.0.1", "host=localhost hostaddr=127.0.0.1");
        format!("{place} password={PASSWORD} sslmode=verify-full sslrootcert={} {more}", ca.display())
    }

    fn command(&self, process: &Process, command: &str) -> String {
        ask(&self.by_tls(process, "pgbouncer", ""), command)
    }

    /// The suite that a client of this version at most comes to, or what it says of its failure.
    fn suite(&self, process: &Process, version: &str) -> String {
        let connection = self.by_tls(process, "shop", &format!("ssl_max_protocol_version={version}"));
        let said = ask(&connection, "\\conninfo");
        let suite = said.split("cipher: ").nth(1).and_then(|rest| rest.split(',').next());
        suite.map_or(said.clone(), str::to_owned)
    }
}

/// What OpenSSL's own client says of a handshake.
fn s_client(process: &Process, more: &[&str]) -> String {
    let mut openssl = Command::new("openssl");
    openssl.args(["s_client", "-starttls", "postgres", "-connect", &process.pooler[0]]).args(more);
    let output = openssl.stdin(Stdio::null()).output().expect("openssl runs");
    stdout(&output) + &stderr(&output)
}

#[test]
fn only_suites_that_are_named_are_spoken() {
    let tested = Tested::new();
    tested.file(
        "scram-sha-256",
        &format!(", ciphers = [\"{CHACHA}\", \"{AES}\"], tls13_ciphers = [\"TLS_CHACHA20_POLY1305_SHA256\"]"),
        ", ciphers = [\"TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384\"], tls13_ciphers = [\"TLS_AES_128_GCM_SHA256\"]",
    );
    let process = tested.folder.run();
    // Of the client's suites, AES comes first; ours decide.
    assert_eq!(tested.suite(&process, "TLSv1.2"), CHACHA);
    assert_eq!(tested.suite(&process, "TLSv1.3"), "TLS_CHACHA20_POLY1305_SHA256");
    let said = s_client(&process, &["-tls1_2", "-cipher", AES]);
    assert!(said.contains(&format!("Cipher is {AES}")), "{said}");
    let said = s_client(&process, &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"]);
    assert!(said.contains("handshake failure"), "{said}");
    let to_server = "SELECT version, cipher FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let connection = tested.by_tls(&process, "shop", "");
    assert_eq!(ask(&connection, to_server), "TLSv1.3|TLS_AES_128_GCM_SHA256");
}

#[test]
fn a_reload_changes_suites_for_who_comes_after_it_and_nothing_where_nothing_changed() {
    let tested = Tested::new();
    tested.file("scram-sha-256", "", "");
    let process = tested.folder.run();
    let connection = tested.by_tls(&process, "shop", "");
    let own = "SELECT pg_backend_pid()";
    let before = ask(&connection, own);
    let reloaded = || {
        let output = process.command(&tested.folder, &["reload"]);
        assert!(output.status.success(), "{}", stderr(&output));
    };
    reloaded();
    assert_eq!(ask(&connection, own), before, "nothing changed");
    assert_eq!(tested.suite(&process, "TLSv1.3"), "TLS_AES_256_GCM_SHA384");

    tested.file("scram-sha-256", ", version_min = \"1.3\", tls13_ciphers = [\"TLS_AES_128_GCM_SHA256\"]", "");
    reloaded();
    assert_eq!(ask(&connection, own), before, "only clients' TLS changed");
    assert_eq!(tested.suite(&process, "TLSv1.3"), "TLS_AES_128_GCM_SHA256");
    let refused = tested.suite(&process, "TLSv1.2");
    assert!(refused.contains("protocol version"), "{refused}");

    tested.file("scram-sha-256", "", ", tls13_ciphers = [\"TLS_CHACHA20_POLY1305_SHA256\"]");
    process.kill("-HUP");
    let suite = "SELECT cipher FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    wait_for("the server connection to be replaced", LIMIT, || {
        ask(&connection, suite) == "TLS_CHACHA20_POLY1305_SHA256"
    });
    assert_ne!(ask(&connection, own), before);
}

#[test]
fn set_changes_tls_for_who_comes_after_it_and_touches_nobody_who_is_there() {
    let tested = Tested::new();
    tested.file("scram-sha-256", "", "");
    let process = tested.folder.run();
    let mut there = psql(&tested.by_tls(&process, "shop", ""));
    let mut there = there.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("psql runs");
    let mut told = BufReader::new(there.stdout.take().expect("piped")).lines();
    let mut says = |sql: &[u8]| {
        there.stdin.as_mut().expect("piped").write_all(sql).expect("it is there");
        told.next().expect("a line").expect("text")
    };
    assert_eq!(says(b"SELECT 'before';\n"), "before");
    let set = |command: &str| tested.command(&process, command);
    assert_eq!(set(&format!("SET client_tls_ciphers = '{AES}'")), "");
    assert_eq!(set("SET client_tls13_ciphers = 'TLS_CHACHA20_POLY1305_SHA256'"), "");
    assert_eq!(tested.suite(&process, "TLSv1.2"), AES);
    assert_eq!(tested.suite(&process, "TLSv1.3"), "TLS_CHACHA20_POLY1305_SHA256");
    let shown = set("SHOW CONFIG");
    assert!(shown.contains(&format!("client_tls_ciphers|{AES}|default|yes")), "{shown}");
    let refused = set("SET client_tls_ciphers = 'HIGH:!aNULL'");
    assert!(
        refused.contains("no cipher suite \"HIGH\", \"!aNULL\"") && refused.contains(CHACHA),
        "{refused}"
    );

    // Another authority's certificate: between it and its key nothing fits, and nothing changes.
    let other = Authority::new("another authority");
    tested.identity("other", &other.server(&["localhost"]));
    let noticed = set("SET client_tls_cert_file = 'other.crt'");
    assert!(noticed.contains("NOTICE") && noticed.contains("does not fit"), "{noticed}");
    assert_eq!(tested.suite(&process, "TLSv1.2"), AES);
    assert_eq!(set("SET client_tls_key_file = 'other.key'"), "");
    let refused = tested.suite(&process, "TLSv1.2");
    assert!(refused.contains("certificate verify failed"), "{refused}");
    tested.write("root.crt", other.certificate());
    assert_eq!(tested.suite(&process, "TLSv1.2"), AES);

    let suite = "SELECT cipher FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let connection = tested.by_tls(&process, "shop", "");
    assert_eq!(set("SET server_tls13_ciphers = 'TLS_AES_128_GCM_SHA256'"), "");
    assert_eq!(ask(&connection, suite), "TLS_AES_128_GCM_SHA256");
    assert_eq!(says(b"SELECT 'after';\n"), "after");
    drop(there.stdin.take());
    assert!(there.wait().expect("psql ends").success());
}

#[test]
fn the_console_is_reached_by_tls_and_with_a_certificate() {
    let tested = Tested::new();
    tested.file("cert", ", mode = \"verify-full\"", "");
    let process = tested.folder.run();
    let path = |name: &str| tested.folder.path().join(name).display().to_string();
    let known = format!("sslcert={} sslkey={}", path("client.crt"), path("client.key"));
    let console = |more: &str| tested.by_tls(&process, "pgbouncer", more);
    assert!(ask(&console(&known), "SHOW VERSION").contains("Tenfold"), "{}", process.child.log());
    let unknown = ask(&console(""), "SHOW VERSION");
    assert!(unknown.contains("certificate"), "{unknown}");
    // Many statements in one string, more than a read: all are answered, in their order.
    let many = "SHOW CONFIG; ".repeat(200);
    let shown = ask(&console(&known), &many);
    let times = |line: &str| shown.lines().filter(|shown| shown.starts_with(line)).count();
    assert_eq!([times("admin_users|"), times("transaction_timeout|")], [200, 200]);
    // A command that waits ends with its client.
    let mut holder = psql(&tested.by_tls(&process, "shop", &known));
    let holder = holder.args(["-c", "SELECT pg_sleep(60)"]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut holder = holder.spawn().expect("psql runs");
    let held = || ask(&console(&known), "SHOW SERVERS").contains("active");
    wait_for("the statement to run", LIMIT, held);
    let mut pausing = psql(&console(&known));
    let pausing = pausing.args(["-c", "PAUSE"]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut pausing = pausing.spawn().expect("psql runs");
    wait_for("the pause to wait", LIMIT, || process.child.log().contains("PAUSE command issued"));
    for child in [&mut pausing, &mut holder] {
        child.kill().expect("ours");
        child.wait().expect("ours");
    }
    let all_left = || ask(&console(&known), "SHOW LISTS").contains("used_clients|1\n");
    wait_for("nobody else to be there", LIMIT, all_left);
    assert!(ask(&console(&known), "RESUME").is_empty());
}
