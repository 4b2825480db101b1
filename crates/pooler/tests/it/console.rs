//! The console, with psql at the other end and a pooler that only remembers what it was told.

use std::{
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use tenfold_pgwire::{backend::TransactionStatus, frame::Frames, startup::Initial, write};
use tenfold_pooler::{
    Pin,
    config::{Config, Database, Host, Mode, UserSettings},
    console::{ConsoleApi, Refused, Session, Shutdown, serve, settings},
    report::{
        ClientRow, ClientState, DatabaseRow, HostRow, MemoryRow, Pause, PoolRow, ReplicaRow, Report,
        RoutesRow, ServerRow, ServerState, StatsRow, UserRow,
    },
    split::{Lsn, Routes, State},
};
use tenfold_service::acceptor::{Address, Peer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    net::{UnixListener, UnixStream},
    sync::Notify,
    task::JoinHandle,
};

/// A tier of one database.
struct Fake {
    told: Mutex<Vec<String>>,
    config: Mutex<Arc<Config>>,
    /// PAUSE returns when this is notified.
    idle: Notify,
}

impl Fake {
    fn new() -> Self {
        let host = Host::Tcp { host: "db".into(), port: 5_432 };
        let databases = vec![Database::new("shop", vec![host])];
        let config = Config { databases, ..Config::default() };
        Self { told: Mutex::default(), config: Mutex::new(Arc::new(config)), idle: Notify::new() }
    }

    fn tell(&self, what: impl Into<String>, database: Option<&str>) -> Result<(), Refused> {
        if let Some(name) = database.filter(|name| *name != "shop") {
            return Err(Refused::NoDatabase(name.to_owned()));
        }
        self.told.lock().unwrap().push(format!("{} {}", what.into(), database.unwrap_or("*")));
        Ok(())
    }

    fn told(&self) -> Vec<String> {
        std::mem::take(&mut self.told.lock().unwrap())
    }
}

impl ConsoleApi for Fake {
    async fn report(&self) -> Report {
        report()
    }

    fn averages(&self, totals: &[StatsRow]) -> Vec<StatsRow> {
        totals.iter().map(|row| StatsRow { transactions: 7, ..row.clone() }).collect()
    }

    fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.lock().unwrap())
    }

    fn apply(&self, config: Config) -> Result<Option<String>, Refused> {
        *self.config.lock().unwrap() = Arc::new(config);
        Ok(None)
    }

    async fn reload(&self) -> Result<(), Refused> {
        Err(Refused::Config("line 3: expected a value".into()))
    }

    async fn pause(&self, database: Option<&str>) -> Result<(), Refused> {
        self.tell("pause", database)?;
        self.idle.notified().await;
        self.tell("paused", database)
    }

    async fn suspend(&self) -> Result<(), Refused> {
        self.tell("suspend", None)
    }

    fn resume(&self, database: Option<&str>) -> Result<(), Refused> {
        match database {
            None => Err(Refused::State("pooler is not paused/suspended".into())),
            _ => self.tell("resume", database),
        }
    }

    fn reconnect(&self, database: Option<&str>) -> Result<(), Refused> {
        self.tell("reconnect", database)
    }

    async fn wait_close(&self, database: Option<&str>) -> Result<(), Refused> {
        self.tell("wait_close", database)
    }

    fn enable(&self, database: &str, enabled: bool) -> Result<(), Refused> {
        self.tell(if enabled { "enable" } else { "disable" }, Some(database))
    }

    fn kill(&self, database: Option<&str>) -> Result<(), Refused> {
        self.tell("kill", database)
    }

    async fn kill_client(&self, id: u64) -> Result<(), Refused> {
        match id {
            3 => self.tell("kill_client 3", None),
            _ => Err(Refused::Value("client not found".into())),
        }
    }

    fn shutdown(&self, how: Shutdown) -> Result<(), Refused> {
        self.tell(format!("shutdown {how:?}"), None)
    }
}

fn client(id: u64, state: ClientState, server: Option<u64>) -> ClientRow {
    ClientRow {
        local: Some(([127, 0, 0, 1], 6_432).into()),
        id,
        database: "shop".into(),
        user: "ann".into(),
        pool_user: "ann".into(),
        state,
        peer: Some(Peer::Tcp(SocketAddr::from(([10, 0, 0, 7], 40_000)))),
        application_name: "till".into(),
        server,
        connected_unix_ms: 784_111_777_000,
        connected_for: Duration::from_secs(100),
        since: Duration::from_micros(2_000_005),
        prepared: 2,
        pins: vec![],
        tls: Some("TLSv1.3".into()),
        listens: false,
        worker: 0,
        process_id: 9,
    }
}

fn server(id: u64, state: ServerState, client: Option<u64>) -> ServerRow {
    ServerRow {
        local: Some(([10, 0, 0, 1], 50_000).into()),
        id,
        database: "shop".into(),
        user: "ann".into(),
        state,
        host: "db".into(),
        port: 5_432,
        client,
        opened_unix_ms: 784_111_777_000,
        opened_for: Duration::from_secs(60),
        since: Duration::from_secs(30),
        process_id: 4_711,
        close_needed: true,
        prepared: 5,
        pins: vec![Pin::Temporary, Pin::Sequence],
        tls: None,
        worker: 0,
    }
}

fn replica() -> ReplicaRow {
    ReplicaRow {
        database: "shop".into(),
        name: "replica:5432".into(),
        state: State::Up,
        lag: Some(Duration::from_micros(1_500)),
        replayed: Lsn(0x1_0000_0002),
        in_flight: 3,
        weight: 2,
        servers: 5,
        answers: 7,
        losses: 1,
    }
}

fn routes(database: &str) -> RoutesRow {
    let mut routes = Routes::default();
    routes.at_replica(40);
    routes.at_primary("locks");
    RoutesRow { database: database.into(), user: "ann".into(), routes, top: Vec::new() }
}

fn report() -> Report {
    let database = DatabaseRow {
        name: "shop".into(),
        host: "db1,db2".into(),
        port: 5_432,
        dbname: "shop_live".into(),
        user: None,
        size: 20,
        min: 1,
        reserve: 5,
        mode: Mode::Transaction,
        lifetime: Duration::from_secs(3_600),
        servers_max: 50,
        servers: 3,
        clients_max: 0,
        clients: 4,
        is_paused: true,
        is_disabled: false,
    };
    let totals = StatsRow {
        database: "shop".into(),
        transactions: 1,
        queries: 2,
        assignments: 3,
        bytes_received: 4,
        bytes_sent: 5,
        transaction_us: 6,
        query_us: 7,
        wait_us: 8,
        client_parses: 9,
        server_parses: 10,
        binds: u64::MAX,
    };
    let pool =
        PoolRow { database: "shop".into(), user: "ann".into(), mode: Mode::Transaction, has_hosts: true };
    let own = UserSettings { size: Some(3), ..UserSettings::default() };
    Report {
        replicas: vec![replica()],
        routes: vec![routes("shop"), routes("other")],
        unanswered: 0,
        clients: vec![
            client(3, ClientState::Active, Some(8)),
            client(4, ClientState::Idle, None),
            client(5, ClientState::Waiting, None),
            client(6, ClientState::Login, None),
        ],
        servers: vec![
            server(8, ServerState::Active, Some(3)),
            server(9, ServerState::Idle, None),
            server(10, ServerState::Login, None),
        ],
        cancels: 0,
        databases: vec![database],
        pools: vec![pool],
        users: vec![UserRow { name: "ann".into(), settings: own, servers: 3, clients: 4 }],
        totals: vec![totals],
        hosts: vec![HostRow {
            name: "db".into(),
            fresh_for: Duration::from_secs(9),
            addresses: vec![[10, 0, 0, 1].into(), [10, 0, 0, 2].into()],
        }],
        memory: vec![MemoryRow { name: "clients", size: 300, used: 4, free: 12 }],
        listeners: vec![Address::Tcp(SocketAddr::from(([127, 0, 0, 1], 6_432)))],
        pause: Pause::Active,
        consoles: 1,
    }
}

/// Lets a client in without asking anything, as the worker does once it knows who it is.
async fn let_in(stream: &mut UnixStream) -> String {
    let mut packet = Vec::new();
    loop {
        stream.read_buf(&mut packet).await.unwrap();
        match Initial::parse(&packet).unwrap() {
            None => {}
            Some((Initial::Startup(startup), _)) => {
                let user = startup.params().find(|(name, _)| *name == b"user").unwrap().1;
                let user = String::from_utf8(user.to_vec()).unwrap();
                let mut out = Vec::new();
                write::authentication_ok(&mut out);
                write::parameter_status(&mut out, b"server_version", b"15.0");
                write::parameter_status(&mut out, b"client_encoding", b"UTF8");
                write::parameter_status(&mut out, b"standard_conforming_strings", b"on");
                stream.write_all(&out).await.unwrap();
                return user;
            }
            Some(_) => {
                stream.write_all(b"N").await.unwrap();
                packet.clear();
            }
        }
    }
}

/// A console for psql, on a Unix socket in a folder of its own.
struct Consoles {
    folder: tempfile::TempDir,
    api: Arc<Fake>,
    _accepting: JoinHandle<()>,
}

impl Consoles {
    fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join(".s.PGSQL.6432")).unwrap();
        let api = Arc::new(Fake::new());
        let served = Arc::clone(&api);
        let accepting = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let api = Arc::clone(&served);
                tokio::spawn(async move {
                    let user = let_in(&mut stream).await;
                    let session = Session { is_admin: user == "admin", user: user.into(), id: 1 };
                    let _ = serve(stream, session, &*api).await;
                });
            }
        });
        Self { folder, api, _accepting: accepting }
    }

    /// What psql prints for these commands, each of them a query string; errors with their SQLSTATE.
    async fn psql(&self, user: &str, commands: &[&str]) -> String {
        let psql = psql(self.folder.path(), user, commands);
        let output = tokio::task::spawn_blocking(move || psql.wait_with_output().unwrap()).await.unwrap();
        let (out, err) =
            (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        out + &err
    }
}

fn psql(folder: &Path, user: &str, commands: &[&str]) -> Child {
    let mut psql = Command::new("psql");
    psql.args(["-X", "-A", "-v", "VERBOSITY=verbose", "-p", "6432", "-d", "pgbouncer", "-U", user])
        .arg("-h")
        .arg(folder);
    for command in commands {
        psql.args(["-c", command]);
    }
    psql.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Under `tokio::test` psql blocks a thread of its own, so one thread for the console will do.
async fn check(user: &str, command: &str, expected: &str) {
    assert_eq!(Consoles::open().psql(user, &[command]).await.trim_end(), expected, "{command}");
}

#[tokio::test]
async fn tables_have_the_columns_that_dashboards_read() {
    check(
        "watcher",
        "SHOW DATABASES shop",
        "name|host|port|database|force_user|pool_size|min_pool_size|reserve_pool|pool_mode|max_connections|\
         current_connections|paused|disabled|reserve_pool_size|server_lifetime|load_balance_hosts|\
         max_client_connections|current_client_connections\n\
         shop|db1,db2|5432|shop_live||20|1|5|transaction|50|3|1|0|5|3600|disable|0|4\n(1 row)",
    )
    .await;
    check(
        "watcher",
        "show pools;",
        "database|user|cl_active|cl_waiting|cl_active_cancel_req|cl_waiting_cancel_req|sv_active|sv_active_cancel|\
         sv_being_canceled|sv_idle|sv_used|sv_tested|sv_login|maxwait|maxwait_us|pool_mode|load_balance_hosts\n\
         pgbouncer|pgbouncer|1|0|0|0|0|0|0|0|0|0|0|0|0|statement|\n\
         shop|ann|2|1|0|0|1|0|0|1|0|0|1|2|5|transaction|disable\n(2 rows)",
    )
    .await;
    check(
        "watcher",
        "SHOW STATS",
        "database|total_xact_count|total_query_count|total_received|total_sent|total_xact_time|total_query_time|\
         total_wait_time|avg_xact_count|avg_query_count|avg_recv|avg_sent|avg_xact_time|avg_query_time|\
         avg_wait_time|total_server_assignment_count|total_client_parse_count|total_server_parse_count|\
         total_bind_count|avg_server_assignment_count|avg_client_parse_count|avg_server_parse_count|\
         avg_bind_count\n\
         shop|1|2|4|5|6|7|8|7|2|4|5|6|7|8|3|9|10|18446744073709551615|3|9|10|18446744073709551615\n(1 row)",
    )
    .await;
    check(
        "watcher",
        "SHOW STATS_AVERAGES",
        "database|xact_count|query_count|bytes_received|bytes_sent|xact_time|query_time|wait_time|\
         server_assignment_count|client_parse_count|server_parse_count|bind_count\n\
         shop|7|2|4|5|6|7|8|3|9|10|18446744073709551615\n(1 row)",
    )
    .await;
    check(
        "watcher",
        "SHOW USERS",
        "name|pool_mode|pool_size|reserve_pool_size|max_user_connections|current_connections|\
         max_user_client_connections|current_client_connections\nann||3||0|3|0|4\n(1 row)",
    )
    .await;
    check("watcher", "SHOW MEM", "name|size|used|free|memtotal\nclients|300|4|12|4800\n(1 row)").await;
    check("watcher", "SHOW DNS_HOSTS", "hostname|ttl|addrs\ndb|9|10.0.0.1,10.0.0.2\n(1 row)").await;
    check("watcher", "SHOW STATE", "key|value\nactive|yes\npaused|no\nsuspended|no\n(3 rows)").await;
    check("watcher", "SHOW LISTS used_clients", "list|items\nused_clients|5\n(1 row)").await;
}

#[tokio::test]
async fn clients_and_servers_point_at_each_other() {
    let columns = "type|user|database|state|addr|port|local_addr|local_port|connect_time|request_time|wait|wait_us|\
                   close_needed|ptr|link|remote_pid|tls|application_name|replication|prepared_statements|id|pins";
    check(
        "watcher",
        "SHOW CLIENTS",
        &format!(
            "{columns}\n\
             C|ann|shop|active|10.0.0.7|40000|127.0.0.1|6432|1994-11-06 08:49:37 UTC|1994-11-06 08:51:14 UTC|0|0|0|0x3|0x8|0|\
             TLSv1.3|till|none|2|3|\n\
             C|ann|shop|idle|10.0.0.7|40000|127.0.0.1|6432|1994-11-06 08:49:37 UTC|1994-11-06 08:51:14 UTC|0|0|0|0x4||0|\
             TLSv1.3|till|none|2|4|\n\
             C|ann|shop|waiting|10.0.0.7|40000|127.0.0.1|6432|1994-11-06 08:49:37 UTC|1994-11-06 08:51:14 UTC|2|5|0|0x5||0|\
             TLSv1.3|till|none|2|5|\n(3 rows)"
        ),
    )
    .await;
    check(
        "watcher",
        "SHOW SERVERS 8",
        &format!(
            "{columns}\n\
             S|ann|shop|active|db|5432|10.0.0.1|50000|1994-11-06 08:49:37 UTC|1994-11-06 08:50:07 UTC|0|0|1|0x8|0x3|4711||till|\
             none|5|8|temporary,sequence\n(1 row)"
        ),
    )
    .await;
}

#[tokio::test]
async fn every_word_of_show_is_answered() {
    let consoles = Consoles::open();
    for word in [
        "VERSION",
        "CONFIG",
        "DATABASES",
        "POOLS",
        "CLIENTS",
        "SERVERS",
        "SOCKETS",
        "ACTIVE_SOCKETS",
        "LISTS",
        "USERS",
        "STATS",
        "STATS_TOTALS",
        "STATS_AVERAGES",
        "TOTALS",
        "MEM",
        "FDS",
        "DNS_HOSTS",
        "DNS_ZONES",
        "PEERS",
        "PEER_POOLS",
        "STATE",
        "REPLICAS",
        "ROUTES",
        "TOP_STATEMENTS",
        "client_encoding",
    ] {
        let printed = consoles.psql("admin", &[&format!("SHOW {word}")]).await;
        let (row_count, error) = (printed.contains(" row"), printed.contains("ERROR"));
        assert!(row_count && !error, "{word}: {printed}");
    }
    let help = consoles.psql("watcher", &["SHOW HELP"]).await;
    assert!(
        help.contains("NOTICE:  00000: Console usage") && help.contains("KILL_CLIENT <client_id>"),
        "{help}"
    );
}

#[tokio::test]
async fn replicas_and_routes_are_tables_of_their_own() {
    let consoles = Consoles::open();
    let shown = consoles.psql("watcher", &["SHOW REPLICAS"]).await;
    assert!(shown.contains("replica:5432|shop|up|1500|1/2|3|2|5|7|1"), "{shown}");
    let shown = consoles.psql("watcher", &["SHOW ROUTES shop"]).await;
    assert!(
        shown.contains("shop|ann|replica|read|1|50.0|40|0|0|0\nshop|ann|primary|locks|1|50.0"),
        "{shown}"
    );
    assert!(!shown.contains("other"), "{shown}");
}

#[tokio::test]
async fn commands_reach_the_pooler_and_are_named_in_the_answer() {
    let consoles = Consoles::open();
    for (command, printed, told) in [
        ("SUSPEND", "SUSPEND", "suspend *"),
        ("RESUME shop", "RESUME", "resume shop"),
        ("reconnect;", "RECONNECT", "reconnect *"),
        ("RECONNECT \"shop\"", "RECONNECT", "reconnect shop"),
        ("WAIT_CLOSE shop", "WAIT_CLOSE", "wait_close shop"),
        ("DISABLE shop", "DISABLE", "disable shop"),
        ("ENABLE shop", "ENABLE", "enable shop"),
        ("KILL", "KILL", "kill *"),
        ("KILL_CLIENT 3", "KILL_CLIENT", "kill_client 3 *"),
        ("SHUTDOWN WAIT_FOR_SERVERS", "SHUTDOWN", "shutdown WaitForServers *"),
    ] {
        assert_eq!(consoles.psql("admin", &[command]).await.trim_end(), printed);
        assert_eq!(consoles.api.told(), [told]);
    }
}

#[tokio::test]
async fn mistakes_are_errors_and_the_session_goes_on() {
    let consoles = Consoles::open();
    for (command, error) in [
        ("KILL nodb", "3D000: no such database: nodb"),
        ("RESUME", "55000: pooler is not paused/suspended"),
        ("DISABLE", "22023: a database is required"),
        ("KILL pgbouncer", "55000: cannot do this to the admin database: pgbouncer"),
        ("KILL_CLIENT x", "22023: invalid client pointer supplied"),
        ("KILL_CLIENT 99", "22023: client not found"),
        ("RELOAD", "F0000: RELOAD failed: line 3: expected a value"),
        ("SHOW nothing", "42601: invalid command 'SHOW nothing', use SHOW HELP;"),
        ("SELECT 1", "42601: invalid command 'SELECT 1', use SHOW HELP;"),
        ("SET nothing = 1", "22023: unknown parameter: nothing"),
        ("SET max_client_conn = 'x'", "22023: invalid value \"x\" for parameter max_client_conn"),
    ] {
        let printed = consoles.psql("admin", &[command, "SHOW STATE"]).await;
        assert!(printed.contains(&format!("ERROR:  {error}\n")), "{command}: {printed}");
        assert!(printed.contains("active|yes"), "{command}: {printed}");
    }
    assert_eq!(consoles.api.told(), [""; 0]);
}

#[tokio::test]
async fn who_may_only_look_commands_nothing() {
    let consoles = Consoles::open();
    for command in ["PAUSE", "KILL shop", "SHUTDOWN", "SET max_client_conn = 1", "SHOW FDS", "RELOAD"] {
        let printed = consoles.psql("watcher", &[command]).await;
        assert!(printed.contains("ERROR:  42501: admin access needed"), "{command}: {printed}");
    }
    assert_eq!(consoles.api.told(), [""; 0]);
    let printed = consoles.psql("watcher", &["SET client_encoding = 'UTF8'"]).await;
    assert!(printed.contains("NOTICE:  00000: SET ignored"), "{printed}");
}

#[tokio::test]
async fn what_is_set_is_shown_and_applies() {
    let consoles = Consoles::open();
    let printed =
        consoles.psql("admin", &["SET default_pool_size = 7", "SHOW CONFIG default_pool_size"]).await;
    assert!(
        printed.contains("SET default_pool_size=7") && printed.contains("default_pool_size|7|20|yes"),
        "{printed}"
    );
    assert_eq!(consoles.api.config().databases[0].pool.size, 7);
    assert!(settings::set(&consoles.api.config(), "pool_mode", "session").is_ok());
}

#[tokio::test]
async fn a_string_of_statements_is_run_up_to_its_first_mistake() {
    let consoles = Consoles::open();
    let printed = consoles.psql("admin", &["KILL shop; ENABLE shop; oops; DISABLE shop", "SHOW STATE"]).await;
    assert!(printed.contains("invalid command 'oops'") && printed.contains("active|yes"), "{printed}");
    assert_eq!(consoles.api.told(), ["kill shop", "enable shop"]);
}

#[tokio::test]
async fn a_pause_that_waits_is_given_up_when_its_client_goes() {
    let consoles = Consoles::open();
    let mut waiting = psql(consoles.folder.path(), "admin", &["PAUSE shop"]);
    let told = async |what: &str| {
        let api = &consoles.api;
        let is_told = || api.told.lock().unwrap().iter().any(|told| told == what);
        tenfold_testkit::eventually(what, Duration::from_secs(10), async || is_told()).await;
    };
    told("pause shop").await;
    waiting.kill().unwrap();
    waiting.wait().unwrap();
    // Nobody waits any more, so this permit is there for the next.
    consoles.api.told();
    let patient = consoles.psql("admin", &["PAUSE shop"]);
    let release = async {
        told("pause shop").await;
        consoles.api.idle.notify_one();
        told("paused shop").await;
    };
    let (printed, ()) = tokio::join!(patient, release);
    assert_eq!(printed, "PAUSE\n");
}

/// A session without psql; what it is sent is returned up to the last ReadyForQuery asked for.
async fn converse(messages: &[u8], readies: usize) -> Vec<(u8, Vec<u8>)> {
    let (mut ours, theirs) = tokio::io::duplex(256);
    let session = Session { user: "admin".into(), is_admin: true, id: 1 };
    let serving = tokio::spawn(async move { serve::<DuplexStream, _>(theirs, session, &Fake::new()).await });
    let (mut reader, mut writer) = tokio::io::split(&mut ours);
    let writing = async { writer.write_all(messages).await };
    let mut read = Vec::new();
    let reading = async {
        let ended =
            |read: &[u8]| Frames::new(read).flatten().filter(|frame| frame.tag == b'Z').count() >= readies;
        while !ended(&read) && reader.read_buf(&mut read).await.unwrap() > 0 {}
    };
    let (_, ()) = tokio::join!(writing, reading);
    drop(ours);
    let _ = serving.await.unwrap();
    Frames::new(&read).map(|frame| frame.unwrap()).map(|frame| (frame.tag, frame.body().to_vec())).collect()
}

fn tags(messages: &[(u8, Vec<u8>)]) -> String {
    messages.iter().map(|(tag, _)| char::from(*tag)).collect()
}

#[tokio::test]
async fn the_extended_protocol_is_refused_once_per_series() {
    let mut out = Vec::new();
    for _ in 0..2 {
        write::parse(&mut out, b"", b"SHOW POOLS", []);
        write::describe(&mut out, tenfold_pgwire::frontend::Target::Statement(b""));
        write::execute(&mut out, b"", 0);
        write::sync(&mut out);
    }
    write::query(&mut out, b"SHOW STATE");
    let answers = converse(&out, 4).await;
    assert_eq!(tags(&answers), "ZEZEZTDDDCZ");
    let text = String::from_utf8_lossy(&answers[1].1).into_owned();
    assert!(text.contains("extended query protocol not supported by admin console"), "{text}");
    assert_eq!(answers[2].1, [TransactionStatus::Idle.as_byte()]);
}

#[tokio::test]
async fn empty_strings_and_comments_are_empty_queries() {
    let mut out = Vec::new();
    for text in ["", ";", " -- ping", "/* a */ ;;"] {
        write::query(&mut out, text.as_bytes());
    }
    assert_eq!(tags(&converse(&out, 5).await), "ZIZIZIZIZ");
}

#[tokio::test]
async fn hostile_bytes_end_the_session_with_an_error_at_most() {
    for (bytes, answered) in [
        (&b"\0\0\0\0\0\0"[..], "ZE"),
        (b"Q\0\0\0\x03", "ZE"),
        (b"Q\x7f\xff\xff\xff", "ZE"),
        (b"Q\0\0\0\x09\xff\xfe\xfd;\0", "ZEZ"),
        (b"F\0\0\0\x04", "ZEZ"),
        (b"X\0\0\0\x04", "Z"),
        (b"d\0\0\0\x04c\0\0\0\x04H\0\0\0\x04S\0\0\0\x04", "ZZ"),
    ] {
        assert_eq!(tags(&converse(bytes, 2).await), answered, "{bytes:?}");
    }
}

#[tokio::test]
async fn a_long_string_of_statements_is_answered_in_pieces() {
    let mut out = Vec::new();
    write::query(&mut out, "show clients;".repeat(100).as_bytes());
    let answers = converse(&out, 2).await;
    assert_eq!(answers.iter().filter(|(tag, _)| *tag == b'C').count(), 100);
}
