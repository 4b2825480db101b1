//! Own writes, from SQL to the phone: edges, an API with connections to poolers, replicas that lag.
//!
//! Two processes, each an edge and a pooler, with one key between them. A client writes through the one and reads through
//! the other, so that nothing but what it carries can tell the second pooler, or the second edge's cache, what it did.

use std::io::{BufRead, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tenfold_testkit::origin::Received;
use tenfold_testkit::postgres::{Auth, Cluster, Options};
use tenfold_testkit::raw::{Client, Response};
use tenfold_testkit::{Answer, Origin, wait_for};

use crate::pooling::psql;
use crate::process::{Folder, LIMIT, Process};

const PASSWORD: &str = "correcthorse";
const NAME: &str = "Tenfold-Position";
const KEY: &str = "one-key-for-both-edges";
/// Connections of each API node.
const CONNECTIONS: usize = 3;
/// People, each with rows of their own.
const PEOPLE: usize = 8;
/// Writes of which each is read twice: from the cache's route, and from one that nobody stores.
const ROUNDS: usize = 25;

/// A connection as a driver's pool would hold it: one `psql`.
struct Sql {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Sql {
    fn connect(connection: &str) -> Self {
        let mut child =
            psql(connection).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("psql runs");
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, input, output }
    }

    /// The value that a statement returns, or nothing.
    fn value(&mut self, sql: &str) -> String {
        writeln!(self.input, "{sql};\n\\echo done").expect("psql reads");
        let mut value = String::new();
        loop {
            let mut line = String::new();
            assert_ne!(self.output.read_line(&mut line).expect("psql writes"), 0, "psql ended");
            if line.trim_end() == "done" {
                return value;
            }
            line.trim_end().clone_into(&mut value);
        }
    }
}

impl Drop for Sql {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An API node: each statement says of which request it is and what the request's client must see, as `sqlcommenter` does.
struct Api {
    origin: Origin,
    connections: Arc<OnceLock<Vec<Mutex<Sql>>>>,
}

impl Api {
    fn start() -> Self {
        let connections: Arc<OnceLock<Vec<Mutex<Sql>>>> = Arc::default();
        let (turn, known) = (AtomicUsize::new(0), Arc::clone(&connections));
        let origin = Origin::serve(move |request| {
            let all = known.get().expect("connected");
            // Another one each time, as pools hand them out.
            let at = turn.fetch_add(1, Ordering::Relaxed) % all.len();
            answer(request, &mut all[at].lock().expect("no panic"))
        });
        Self { origin: origin.expect("an origin"), connections }
    }

    fn connect(&self, process: &Process) {
        let connection = process.database("shop");
        let all = (0..CONNECTIONS).map(|_| Mutex::new(Sql::connect(&connection))).collect();
        assert!(self.connections.set(all).is_ok());
    }
}

fn answer(request: &Received, sql: &mut Sql) -> Answer {
    let said = [("traceparent", "traceparent"), ("tenfold_position", NAME)];
    let pairs: Vec<_> =
        said.iter().filter_map(|(key, field)| Some(format!("{key}='{}'", request.header(field)?))).collect();
    let comment = format!("/*{}*/", pairs.join(","));
    let id = request.path().rsplit('/').next().unwrap_or_default();
    if request.method == "POST" {
        let update = format!("UPDATE item SET v = v + 1 WHERE id = {id} RETURNING v {comment}");
        return Answer::ok(sql.value(&update));
    }
    let value = sql.value(&format!("SELECT v FROM item WHERE id = {id} {comment}"));
    let stored = if request.path().starts_with("/stored/") { "max-age=600" } else { "no-store" };
    Answer::ok(value).cache_control(stored)
}

/// Two of everything but the database.
struct Scene {
    _folders: [Folder; 2],
    processes: [Process; 2],
    apis: [Api; 2],
    cluster: Cluster,
}

impl Scene {
    fn start(route: &str) -> Self {
        let auth = Auth::Scram { password: PASSWORD.to_owned() };
        let cluster =
            Cluster::start(&Options { auth, replicas: 2, ..Options::default() }).expect("PostgreSQL");
        cluster.psql("CREATE TABLE item (id int PRIMARY KEY, v int NOT NULL)").expect("a table");
        cluster.psql("INSERT INTO item SELECT g, 0 FROM generate_series(1, 1000) g").expect("rows");
        let apis = [Api::start(), Api::start()];
        let folders = [&apis[0], &apis[1]].map(|api| Folder::with(&file(&cluster, api.origin.addr(), route)));
        let processes = [&folders[0], &folders[1]].map(Folder::run);
        for (api, process) in apis.iter().zip(&processes) {
            api.connect(process);
        }
        let scene = Self { _folders: folders, processes, apis, cluster };
        scene.until_split();
        scene
    }

    /// Until both poolers send reads to replicas, which is seen by what they don't show.
    fn until_split(&self) {
        self.catch_up();
        for replica in self.cluster.replicas() {
            replica.pause_replay().expect("paused");
        }
        let before = number(&self.get(0, "/plain/1000", ""));
        self.cluster.psql("UPDATE item SET v = v + 1 WHERE id = 1000").expect("a write past the poolers");
        for at in 0..2 {
            wait_for("reads on replicas", LIMIT, || number(&self.get(at, "/plain/1000", "")) == before);
        }
        for replica in self.cluster.replicas() {
            replica.resume_replay().expect("resumed");
        }
        self.catch_up();
    }

    fn catch_up(&self) {
        for replica in self.cluster.replicas() {
            replica.catch_up(self.cluster.primary()).expect("caught up");
        }
    }

    fn metrics(&self, at: usize) -> String {
        self.processes[at].get("/metrics").text()
    }

    fn metric(&self, at: usize, series: &str) -> u64 {
        let text = self.metrics(at);
        let line = text.lines().find_map(|line| line.strip_prefix(series));
        line.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
    }

    fn edge(&self, at: usize) -> SocketAddr {
        self.processes[at].edge[0]
    }

    fn get(&self, at: usize, path: &str, cookie: &str) -> Response {
        self.ask(at, "GET", path, cookie)
    }

    /// A request on a connection of its own.
    fn ask(&self, at: usize, method: &str, path: &str, cookie: &str) -> Response {
        let fields = [("Cookie", cookie)];
        let fields = if cookie.is_empty() { &[][..] } else { &fields[..] };
        let mut client = Client::connect(self.edge(at)).expect("a connection");
        let response = client.request(method, path, fields).expect("an answer");
        assert_eq!(response.status, 200, "{}", response.text());
        response
    }

    /// What each of many clients reads at the one edge of what it wrote at the other: how often too little, of how many.
    fn stale(&self, rounds: usize) -> (usize, usize) {
        let mut jars = vec![String::new(); PEOPLE];
        let (mut stale, mut all) = (0, 0);
        for round in 0..rounds {
            for (person, jar) in jars.iter_mut().enumerate() {
                let (here, there) = ((round + person) % 2, (round + person + 1) % 2);
                let id = person * 10 + 1;
                // Somebody else has it stored.
                self.get(there, &format!("/stored/{id}"), "");
                let written = self.ask(here, "POST", &format!("/write/{id}"), jar);
                keep(jar, &written);
                for (at, kind) in [(there, "stored"), (there, "plain"), (here, "stored"), (here, "plain")] {
                    let read = self.get(at, &format!("/{kind}/{id}"), jar);
                    all += 1;
                    stale += usize::from(number(&read) < number(&written));
                }
            }
        }
        (stale, all)
    }
}

/// A cookie jar of one cookie.
fn keep(jar: &mut String, response: &Response) {
    for line in response.headers("Set-Cookie") {
        let pair = line.split(';').next().unwrap_or_default();
        if pair.starts_with(NAME) {
            pair.clone_into(jar);
        }
    }
}

fn number(response: &Response) -> u64 {
    response.text().parse().expect("a number")
}

fn file(cluster: &Cluster, node: SocketAddr, route: &str) -> String {
    let replicas: Vec<_> =
        cluster.replicas().iter().map(|replica| format!("\"127.0.0.1:{}\"", replica.port())).collect();
    format!(
        "admin.listen = \"127.0.0.1:0\"\nedge.listen = \"127.0.0.1:0\"\nedge.own_writes.key = \"{KEY}\"\n\
         pooler.listen = \"127.0.0.1:0\"\n[database.shop]\n\
         primary = \"postgres://postgres@127.0.0.1:{}/postgres\"\npassword = \"{PASSWORD}\"\n\
         replicas = [{}]\nreads.catch_up = \"1ms\"\nreads.lag_max = \"5m\"\n[cluster.api]\nnodes = [\"{node}\"]\n\
         [[route]]\npath = \"/{{*rest}}\"\nto = \"api\"\n{route}\n",
        cluster.primary().port(),
        replicas.join(", "),
    )
}

/// Replays late, in each of the ways in which replicas do.
fn with_lag(scene: &Scene, mut act: impl FnMut(&str)) {
    for replica in scene.cluster.replicas() {
        replica.delay_replay(Duration::from_millis(200)).expect("delayed");
    }
    act("delayed");
    for replica in scene.cluster.replicas() {
        replica.delay_replay(Duration::ZERO).expect("no longer delayed");
        replica.pause_replay().expect("paused");
    }
    act("paused");
    for replica in scene.cluster.replicas() {
        replica.resume_replay().expect("resumed");
    }
    scene.until_split();
    act("at once");
}

#[test]
fn who_wrote_reads_it_at_any_edge_and_through_any_pooler() {
    let scene = Scene::start("own_writes = true");
    let mut all_in_all = 0;
    with_lag(&scene, |how| {
        let (stale, all) = scene.stale(ROUNDS);
        assert_eq!(stale, 0, "of {all}, {how}");
        all_in_all += all;
    });
    for at in 0..2 {
        assert!(
            scene.metric(at, "tenfold_edge_positions_total{outcome=\"issued\"}") > 0,
            "{}",
            scene.metrics(at)
        );
        assert!(scene.metric(at, "tenfold_edge_cache_passed_over_total") > 0);
    }
    assert!(all_in_all >= 3 * ROUNDS * PEOPLE * 4);
}

#[test]
fn without_it_the_cache_and_the_other_pooler_know_of_nothing() {
    let scene = Scene::start("own_writes = false");
    for replica in scene.cluster.replicas() {
        replica.pause_replay().expect("paused");
    }
    let (stale, all) = scene.stale(3);
    assert!(stale > all / 4, "{stale} of {all}");
    let answer = scene.ask(0, "POST", "/write/1", "");
    assert_eq!((answer.header(NAME), answer.header("Set-Cookie")), (None, None));
}

#[test]
fn what_is_made_up_counts_for_nothing() {
    let scene = Scene::start("own_writes = true");
    for replica in scene.cluster.replicas() {
        replica.pause_replay().expect("paused");
    }
    let mut jar = String::new();
    let written = scene.ask(0, "POST", "/write/1", "");
    keep(&mut jar, &written);
    assert_eq!(number(&scene.get(1, "/plain/1", &jar)), number(&written));
    let token = jar.split_once('=').expect("a cookie").1.to_owned();
    assert_eq!(written.header(NAME), Some(token.as_str()));
    assert!(scene.get(1, "/stored/1", "").header("Set-Cookie").is_none(), "who reads carries nothing");
    let fetched = scene.apis[1].origin.count("GET", "/stored/1");
    let mut forged = token.clone();
    forged.replace_range(forged.len() - 1.., if token.ends_with('0') { "1" } else { "0" });
    let higher = token.replacen("1.", "1.f", 1);
    let huge = "1.".repeat(3_000);
    for (at, bad) in ["x", &forged, &higher, &huge, &token[..token.len() - 1], ""].into_iter().enumerate() {
        // Neither past the cache, nor on to the pooler.
        let stored = scene.get(1, "/stored/1", &format!("{NAME}={bad}"));
        assert!(stored.header("Cache-Status").expect("ours").contains("hit"), "{at}");
        scene.get(1, "/plain/1", &format!("a=b; {NAME}={bad}"));
        let node = scene.apis[1].origin.last().expect("asked");
        assert_eq!((node.header(NAME), node.header("Cookie")), (None, Some("a=b")), "{at}");
    }
    assert_eq!(scene.apis[1].origin.count("GET", "/stored/1"), fetched);
    let mut client = Client::connect(scene.edge(1)).expect("a connection");
    client.request("GET", "/plain/1", &[(NAME, &forged)]).expect("an answer");
    let node = scene.apis[1].origin.last().expect("asked");
    assert_eq!((node.header(NAME), node.header("Cookie")), (None, None));
    let by_field = client.request("GET", "/plain/1", &[(NAME, &token)]).expect("an answer");
    assert_eq!(number(&by_field), number(&written), "apps may send it as a field");
    assert!(scene.metric(1, "tenfold_edge_positions_total{outcome=\"refused\"}") >= 12);
}
