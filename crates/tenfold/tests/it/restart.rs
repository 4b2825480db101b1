//! A new process takes over from a running one: sockets, PostgreSQL clients with their sessions, cancel keys; and what
//! happens to both if it does not come to that. The long form, under load, is `bench/restart`.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child as Program, Stdio};
use std::sync::mpsc::{Receiver as Lines, channel};
use std::time::Duration;

use tenfold_service::handover::{self, Frame, Reader, Receiver, Sender, Writer};
use tenfold_testkit::postgres::{Auth, Cluster, Options};
use tenfold_testkit::raw::Client as Http;
use tenfold_testkit::tls::Authority;
use tenfold_testkit::{Answer, Origin, wait_for};

use crate::pooling::psql;
use crate::process::{Folder, LIMIT, Process, get};

const TAKE_OVER: &[&str] = &["--take-over"];

/// A folder whose file has a pooler in front of this cluster, and a door; `{folder}` in `rest` is its path.
fn folder(cluster: &Cluster, rest: &str) -> Folder {
    let folder = Folder::with("");
    folder.write(&file(&folder, cluster, rest));
    folder
}

fn file(folder: &Folder, cluster: &Cluster, rest: &str) -> String {
    let path = folder.path().display().to_string();
    let head = "admin = { listen = \"127.0.0.1:0\", handover = \"{folder}/door.sock\" }\n";
    let database = format!(
        "[database.shop]\nprimary = \"postgres://postgres@127.0.0.1:{}/postgres\"\npool = {{ size = 2, reserve = 0 }}\n",
        cluster.primary().port(),
    );
    format!("{head}{rest}{database}").replace("{folder}", &path)
}

const TRUST: &str = "pooler = { listen = [\"127.0.0.1:0\", \"unix:{folder}:6432\"], auth = \"trust\" }\n";

fn door(folder: &Folder) -> PathBuf {
    folder.path().join("door.sock")
}

impl Process {
    /// Waits for its end, which comes once nobody is left.
    fn ended(mut self) -> String {
        let status = self.child.wait(LIMIT).expect("it ends by itself");
        assert_eq!(status.code(), Some(0), "{}", self.child.log());
        self.child.log()
    }

    fn log_has(&self, text: &str) {
        wait_for(text, LIMIT, || self.child.log().contains(text).then_some(()));
    }

    fn metric(&self, name: &str) -> String {
        let text = get(self.admin, "/metrics").text();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.rsplit(' ').next().unwrap_or_default().to_owned()
    }
}

/// A client that says just what it is told to say.
struct Wire {
    stream: TcpStream,
    /// Process id and secret.
    key: Vec<u8>,
}

impl Wire {
    fn connect(process: &Process) -> Self {
        Self::to(process.pooler[0].parse().expect("a TCP address first"), "shop")
    }

    fn to(address: SocketAddr, database: &str) -> Self {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(LIMIT)).expect("a limit");
        let mut wire = Self { stream, key: Vec::new() };
        let start = &b"\0\x03\0\0user\0postgres\0database\0"[..];
        wire.send_bare(&[start, database.as_bytes(), b"\0application_name\0test\0\0"].concat());
        wire.answer();
        wire
    }

    /// One message: tag and body.
    fn message(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 5];
        self.stream.read_exact(&mut head).expect("an answer");
        let len = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        let mut body = vec![0; len as usize - 4];
        self.stream.read_exact(&mut body).expect("an answer");
        (head[0], body)
    }

    /// The next message, which is a notification: channel and payload.
    fn notification(&mut self) -> String {
        let (tag, body) = self.message();
        assert_eq!(tag, b'A', "{body:?}");
        String::from_utf8_lossy(&body[4..]).trim_end_matches('\0').replace('\0', " ")
    }

    fn send_bare(&mut self, body: &[u8]) {
        let len = u32::try_from(body.len() + 4).expect("short").to_be_bytes();
        self.stream.write_all(&[&len[..], body].concat()).expect("sent");
    }

    fn send(&mut self, tag: u8, body: &[u8]) {
        let len = u32::try_from(body.len() + 4).expect("short").to_be_bytes();
        self.stream.write_all(&[&[tag][..], &len, body].concat()).expect("sent");
    }

    /// All messages up to ReadyForQuery: tag and body.
    fn answer(&mut self) -> Vec<(u8, Vec<u8>)> {
        let mut messages = Vec::new();
        loop {
            let (tag, body) = self.message();
            if tag == b'K' {
                self.key.clone_from(&body);
            }
            let is_last = tag == b'Z';
            messages.push((tag, body));
            if is_last {
                return messages;
            }
        }
    }

    /// The first value of the first row, else the error, else what was done.
    fn ask(&mut self, sql: &str) -> String {
        self.send(b'Q', &[sql.as_bytes(), b"\0"].concat());
        value_in(&self.answer())
    }

    /// Executes a statement that was prepared with one parameter.
    fn execute(&mut self, name: &str, parameter: &str) -> String {
        let len = u32::try_from(parameter.len()).expect("short").to_be_bytes();
        let bind = [b"\0", name.as_bytes(), b"\0\0\0\0\x01", &len, parameter.as_bytes(), b"\0\0"].concat();
        self.send(b'B', &bind);
        self.send(b'E', b"\0\0\0\0\0");
        self.send(b'S', b"");
        value_in(&self.answer())
    }

    fn is_closed(&mut self) -> bool {
        matches!(self.stream.read(&mut [0]), Ok(0) | Err(_))
    }
}

fn value_in(messages: &[(u8, Vec<u8>)]) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace('\0', " ").trim().to_owned();
    let of = |tag: u8| messages.iter().find(|(other, _)| *other == tag).map(|(_, body)| &body[..]);
    match (of(b'E'), of(b'D'), of(b'C')) {
        (Some(error), ..) => text(error),
        (_, Some(row), _) => text(&row[6..]),
        (.., Some(done)) => text(done),
        _ => String::new(),
    }
}

#[test]
fn a_session_goes_on_at_the_new_process_as_if_nothing_had_happened() {
    let cluster = Cluster::start(&Options::default()).expect("PostgreSQL");
    let folder = folder(&cluster, TRUST);
    let old = folder.run();
    let mut client = Wire::connect(&old);
    client.ask("SET timezone = 'Asia/Tokyo'");
    client.ask("SET app.tenant = '7'");
    client.ask("PREPARE p AS SELECT 42");
    client.send(b'P', b"s1\0SELECT 7 + $1\0\0\x01\0\0\0\x17");
    client.send(b'S', b"");
    client.answer();
    let mut begun = Wire::connect(&old);
    assert_eq!(begun.ask("BEGIN"), "BEGIN");
    let mut busy = Wire::connect(&old);
    busy.ask("BEGIN");
    assert_eq!(busy.ask("SELECT 1"), "1");

    let new = folder.run_with(TAKE_OVER);
    old.log_has("handed over");
    assert_eq!(client.ask("SHOW timezone"), "Asia/Tokyo");
    assert_eq!(client.ask("SELECT current_setting('app.tenant')"), "7");
    assert_eq!(client.ask("EXECUTE p"), "42");
    assert_eq!(client.execute("s1", "5"), "12");
    assert_eq!(client.ask("SHOW application_name"), "test");
    assert_eq!(begun.ask("SELECT txid_current_if_assigned() IS NULL"), "t");
    assert_eq!(begun.ask("COMMIT"), "COMMIT");
    assert_eq!(new.metric("tenfold_pooler_clients_taken_over_total"), "2");
    // Who was in a transaction follows when it ends, and the old process goes with the last.
    assert_eq!(busy.ask("SELECT 2"), "2");
    assert_eq!(busy.ask("COMMIT"), "COMMIT");
    let log = old.ended();
    assert!(log.contains("everything was finished"), "{log}");
    assert_eq!(busy.ask("SELECT 3"), "3");
    wait_for("all clients", LIMIT, || {
        (new.metric("tenfold_pooler_clients_taken_over_total") == "3").then_some(())
    });
    assert_eq!(Wire::connect(&new).ask("SELECT 'later'"), "later");
    // The socket file is the new one's, and goes with it.
    let by_path = format!("host={} port=6432 user=postgres dbname=shop", folder.path().display());
    let output = psql(&by_path).args(["-c", "SELECT 6 * 7"]).output().expect("psql runs");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "42");
    let (code, log) = new.terminate();
    assert_eq!(code, Some(0), "{log}");
    assert!(!folder.path().join(".s.PGSQL.6432").exists() && !door(&folder).exists());
}

#[test]
fn a_cancel_finds_its_client_wherever_it_is() {
    let cluster = Cluster::start(&Options::default()).expect("PostgreSQL");
    let folder = folder(&cluster, TRUST);
    let old = folder.run();
    let mut moved = Wire::connect(&old);
    let mut stays = Wire::connect(&old);
    stays.ask("CREATE TEMP TABLE mine (n int)");
    let new = folder.run_with(TAKE_OVER);
    old.log_has("handed over");
    assert_eq!(stays.ask("SELECT count(*) FROM mine"), "0");
    for client in [&mut moved, &mut stays] {
        client.send(b'Q', b"SELECT pg_sleep(60)\0");
        let running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(60)%' AND state = 'active'";
        wait_for("the statement", LIMIT, || {
            (cluster.primary().psql(running).expect("an answer").trim() == "1").then_some(())
        });
        let address: SocketAddr = new.pooler[0].parse().expect("a TCP address first");
        let mut asker = TcpStream::connect(address).expect("a connection");
        asker.write_all(&[b"\0\0\0\x10\x04\xd2\x16\x2e", &client.key[..]].concat()).expect("sent");
        let answer = value_in(&client.answer());
        assert!(answer.contains("canceling statement due to user request"), "{answer}");
    }
    drop(stays);
    old.ended();
}

#[test]
fn whoever_has_only_shown_its_scram_keys_need_not_show_them_again() {
    const PASSWORD: &str = "correcthorse";
    let auth = Auth::Scram { password: PASSWORD.to_owned() };
    let cluster = Cluster::start(&Options { auth, ..Options::default() }).expect("PostgreSQL");
    let verifier = cluster.primary().psql("SELECT rolpassword FROM pg_authid WHERE rolname = 'postgres'");
    let rest =
        "pooler = { listen = \"127.0.0.1:0\", auth = \"scram-sha-256\", users = { file = \"users.txt\" } }\n";
    let folder = folder(&cluster, rest);
    let users = format!("\"postgres\" \"{}\"\n", verifier.expect("a verifier").trim());
    std::fs::write(folder.path().join("users.txt"), users).expect("a file");
    // Without a user of its own the database is entered as the client itself.
    let source = std::fs::read_to_string(folder.file()).expect("a file").replace("postgres@127", "127");
    folder.write(&source);
    let old = folder.run();
    let mut client = Session::start(&old);
    assert_eq!(client.ask("SELECT 1"), "1");
    let new = folder.run_with(TAKE_OVER);
    old.ended();
    assert_eq!(client.ask("SELECT current_user"), "postgres");
    drop(new);
}

#[test]
fn who_speaks_tls_stays_where_it_is() {
    let cluster = Cluster::start(&Options::default()).expect("PostgreSQL");
    let rest = "pooler = { listen = \"127.0.0.1:0\", auth = \"trust\", tls = { certificate = \"server.crt\", key = \"server.key\" } }\n";
    let folder = folder(&cluster, rest);
    let identity = Authority::new("an authority").server(&["localhost"]);
    std::fs::write(folder.path().join("server.crt"), &identity.certificate).expect("a file");
    std::fs::write(folder.path().join("server.key"), &identity.key).expect("a file");
    let old = folder.run();
    let mut client = Session::start(&old);
    client.ask("SET app.tenant = '7'");
    let new = folder.run_with(TAKE_OVER);
    old.log_has("handed over; 1 PostgreSQL clients");
    let mut others: Vec<_> = (0..3).map(|_| Wire::connect(&new)).collect();
    for _ in 0..3 {
        // Two places are shared by two processes.
        assert_eq!(client.ask("SELECT current_setting('app.tenant')"), "7");
        for other in &mut others {
            assert_eq!(other.ask("SELECT 1"), "1");
        }
    }
    wait_for("who is left", LIMIT, || (new.metric("tenfold_predecessor_clients ") == "1").then_some(()));
    drop(client);
    old.ended();
    wait_for("nobody left", LIMIT, || (new.metric("tenfold_predecessor_clients ") == "0").then_some(()));
}

#[test]
fn who_listens_hears_everything_once_through_restarts() {
    const COUNT: usize = 3_000;
    let cluster = Cluster::start(&Options::default()).expect("PostgreSQL");
    let folder = folder(&cluster, TRUST);
    let mut running = folder.run();
    let mut listeners: Vec<_> = (0..3).map(|_| Wire::connect(&running)).collect();
    for (at, listener) in listeners.iter_mut().enumerate() {
        assert_eq!(listener.ask("LISTEN news"), "LISTEN");
        if at == 1 {
            listener.ask("LISTEN more");
        }
    }
    let notifying = {
        let port = cluster.primary().port();
        std::thread::spawn(move || {
            let mut notifier = Wire::to(SocketAddr::from(([127, 0, 0, 1], port)), "postgres");
            for number in 0..COUNT {
                notifier.ask(&format!("NOTIFY news, '{number}'"));
            }
        })
    };
    for _ in 0..2 {
        let next = folder.run_with(TAKE_OVER);
        // It goes with the last who listens.
        std::mem::replace(&mut running, next).ended();
    }
    notifying.join().expect("all were sent");
    for listener in &mut listeners {
        let heard: Vec<_> = (0..COUNT).map(|_| listener.notification()).collect();
        let expected: Vec<_> = (0..COUNT).map(|number| format!("news {number}")).collect();
        assert!(
            heard == expected,
            "{:?}",
            heard.iter().zip(&expected).find(|(heard, expected)| heard != expected)
        );
        assert_eq!(listener.ask("SELECT 'no more'"), "no more");
    }
}

#[test]
fn http_goes_on_and_listeners_are_those_of_the_new_file() {
    let node = Origin::serve(|_| Answer::ok("ok").cache_control("no-store")).expect("a node");
    let source = |listen: &str, folder: &Folder| {
        format!(
            "admin = {{ listen = \"127.0.0.1:0\", handover = \"{}/door.sock\" }}\nedge.listen = {listen}\n\
             [cluster.a]\nnodes = [\"{}\"]\n[[route]]\npath = \"/{{*rest}}\"\nto = \"a\"\n",
            folder.path().display(),
            node.addr(),
        )
    };
    let folder = Folder::with("");
    folder.write(&source("[\"127.0.0.1:0\", \"127.0.0.2:0\"]", &folder));
    let old = folder.run();
    let mut kept = Http::connect(old.edge[0]).expect("a connection");
    assert_eq!(kept.get("/").expect("an answer").status, 200);
    let (first, second) = (old.edge[0], old.edge[1]);
    folder.write(&source("[\"127.0.0.1:0\", \"127.0.0.3:0\"]", &folder));
    let new = folder.run_with(TAKE_OVER);
    assert!(new.edge.contains(&first) && !new.edge.contains(&second), "{:?}", new.edge);
    assert_eq!(new.edge.len(), 2);
    old.log_has("handed over");
    // What was open gets its answer, and is told.
    let last = kept.get("/").expect("an answer");
    assert_eq!((last.status, last.closes), (200, true));
    old.ended();
    for edge in &new.edge {
        assert_eq!(get(*edge, "/").status, 200);
    }
    assert!(TcpStream::connect(second).is_err());
}

#[test]
fn without_a_running_process_it_starts_as_usual_and_one_after_the_other_takes_over() {
    let cluster = Cluster::start(&Options::default()).expect("PostgreSQL");
    let folder = folder(&cluster, TRUST);
    let mut running = folder.run_with(TAKE_OVER);
    running.log_has("starting as usual");
    let mut client = Wire::connect(&running);
    client.ask("SET app.step = '0'");
    for step in 1..4 {
        let next = folder.run_with(TAKE_OVER);
        std::mem::replace(&mut running, next).ended();
        assert_eq!(client.ask("SELECT current_setting('app.step')"), (step - 1).to_string());
        client.ask(&format!("SET app.step = '{step}'"));
    }
}

#[test]
fn a_successor_that_cannot_start_leaves_the_running_process_alone() {
    let cluster = Cluster::start(&Options::default()).expect("PostgreSQL");
    let folder = folder(&cluster, TRUST);
    let old = folder.run();
    let mut client = Wire::connect(&old);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let more = format!("unix:{{folder}}:6432\", \"{}\"", taken.local_addr().expect("an address"));
    let source = TRUST.replace("unix:{folder}:6432\"", &more);
    folder.write(&file(&folder, &cluster, &source));
    let file = folder.file();
    let output = folder.tenfold(&["run", "--take-over", "-c", &file.display().to_string()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("in use"));
    old.log_has("gave up before it was ready");
    assert_eq!(client.ask("SELECT 1"), "1");
    assert_eq!(Wire::connect(&old).ask("SELECT 2"), "2");
    let by_path = format!("host={} port=6432 user=postgres dbname=shop", folder.path().display());
    assert!(psql(&by_path).args(["-c", "SELECT 1"]).output().expect("psql runs").status.success());
}

/// A successor of the test's own making, up to the point where it has the sockets.
fn knock(door: &Path, format: u32) -> (Sender, Receiver, Vec<Frame>) {
    // It is closed for a moment while somebody else is spoken to.
    let stream = wait_for("a door", LIMIT, || handover::connect(door).ok());
    let (mut sender, mut receiver) = handover::split(stream).expect("halves");
    receiver.set_limit(Some(LIMIT)).expect("a limit");
    let mut hello = Writer::new();
    hello.u32(format).text("test").u32(1).flag(true);
    sender.send(&Frame::new(1, hello)).expect("sent");
    let mut frames = Vec::new();
    while let Ok(Some(frame)) = receiver.receive() {
        let kind = frame.kind;
        frames.push(frame);
        // That was all of them, or none.
        if matches!(kind, 3 | 5) {
            break;
        }
    }
    (sender, receiver, frames)
}

#[test]
fn a_successor_that_dies_takes_only_whom_it_had_been_given() {
    let cluster = Cluster::start(&Options::default()).expect("PostgreSQL");
    let folder = folder(&cluster, TRUST);
    let old = folder.run();
    let (mut given, mut busy) = (Wire::connect(&old), Wire::connect(&old));
    busy.ask("BEGIN");
    busy.ask("SELECT 1");
    let (mut sender, mut receiver, sockets) = knock(&door(&folder), 1);
    // A greeting, two listeners of the pooler, the admin server's, and the end of them.
    assert_eq!(sockets.iter().map(|frame| frame.kind).collect::<Vec<_>>(), [2, 4, 4, 4, 5]);
    sender.send(&Frame::new(6, Writer::new())).expect("sent");
    let client = std::iter::from_fn(|| receiver.receive().ok().flatten()).find(|frame| frame.kind == 32);
    let client = client.expect("the client at rest");
    assert!(client.descriptor.is_some());
    // As kill -9 leaves it.
    drop((client, sender, receiver, sockets));
    assert!(given.is_closed());
    old.log_has("this one goes on");
    assert_eq!(busy.ask("SELECT 2"), "2");
    assert_eq!(busy.ask("COMMIT"), "COMMIT");
    // It stays here, and who comes now does, too.
    let mut late: Vec<_> = (0..3).map(|_| Wire::connect(&old)).collect();
    for client in late.iter_mut().chain([&mut busy]) {
        assert_eq!(client.ask("SELECT 3"), "3");
    }
    assert_eq!(get(old.admin, "/readyz").status, 200);
    // The next one finds everything as it was.
    let new = folder.run_with(TAKE_OVER);
    old.ended();
    assert_eq!(busy.ask("SELECT 4"), "4");
    drop(new);
}

#[test]
fn another_version_is_told_so_and_nonsense_ends_the_conversation() {
    let cluster = Cluster::start(&Options::default()).expect("PostgreSQL");
    let folder = folder(&cluster, TRUST);
    let old = folder.run();
    let (_, _, frames) = knock(&door(&folder), 999);
    assert_eq!(frames.len(), 1);
    let why = Reader::new(&frames[0].body).text().expect("text").to_owned();
    assert!(why.contains("hands over in format 1") && why.contains("999"), "{why}");
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[1, 0, 0, 0, 0, 1, 7], &[6, 0, 0, 0, 0, 0]] {
        let mut stream = handover::connect(&door(&folder)).expect("a door");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a limit");
        stream.write_all(bytes).expect("sent");
        stream.shutdown(std::net::Shutdown::Write).expect("an end");
        let _ = stream.read_to_end(&mut Vec::new());
    }
    assert_eq!(Wire::connect(&old).ask("SELECT 1"), "1");
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(door(&folder)).expect("the door").permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
}

/// `psql`, told one statement after the other.
struct Session {
    program: Program,
    lines: Lines<String>,
}

impl Session {
    fn start(process: &Process) -> Self {
        let address: SocketAddr = process.pooler[0].parse().expect("a TCP address first");
        let connection = format!("host={} port={} user=postgres dbname=shop", address.ip(), address.port());
        let mut command = psql(&connection);
        let mut program = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("psql runs");
        let (line, lines) = channel();
        let output = BufReader::new(program.stdout.take().expect("piped"));
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|text| line.send(text)));
        Self { program, lines }
    }

    fn ask(&mut self, sql: &str) -> String {
        let stdin = self.program.stdin.as_mut().expect("piped");
        writeln!(stdin, "{sql};\nSELECT 'end of answer';").expect("sent");
        let mut answer = Vec::new();
        loop {
            let line = self.lines.recv_timeout(LIMIT).expect("an answer");
            if line == "end of answer" {
                return answer.join("\n");
            }
            answer.push(line);
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}
