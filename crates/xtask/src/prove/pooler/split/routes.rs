//! Where statements really run: the table of routes, through the real pooler to real servers.
//!
//! **Intuition.** That a statement is called safe says nothing about where it ends up: the protocol, a transaction around
//! it and what was sent before it all have a say. So each statement of the table is sent in each form, and the servers are
//! asked which of them saw it.
//!
//! **Mechanism.** Each statement gets a comment of its own behind it, and both servers log every statement
//! (`log_statement`), those they refuse included. Each is sent on a connection of its own, so that none is where it is
//! because of the one before. Safe ones come first, those that define things last, since nothing is put back between them.
//!
//! **Failure.** What the table sends to the primary and a replica has seen is unsafe, whatever the replica answered.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tenfold_pgwire::frontend::{Format, Target};
use tenfold_pgwire::write as wire;
use tenfold_testkit::postgres::{Cluster, Options as ClusterOptions, Server};
use tenfold_testkit::try_wait_for;

use super::super::super::stand::Scratch;
use super::super::super::verdict::Verdicts;
use super::super::session::{Lost, Session};
use super::super::stand::{self, Pooler};

const SAFE_ON_REPLICAS_PERCENT_MIN: usize = 98;
const WARM_TIME_MAX: Duration = Duration::from_secs(30);
const LOG_TIME_MAX: Duration = Duration::from_secs(20);
/// Statements named where a bar was missed.
const EXAMPLES_MAX: usize = 12;

/// How a statement is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Form {
    Simple,
    Extended,
    /// Behind another read, before that is answered.
    Pipelined,
    /// Simple `BEGIN`, simple statement: psycopg2, SQLAlchemy on it.
    SimpleInBegin,
    /// Simple `BEGIN`, extended statement: psycopg 3, SQLAlchemy on it.
    ExtendedInBegin,
    /// `BEGIN`, a read and the statement in one batch: psycopg's pipeline mode.
    PipelinedInBegin,
}

impl Form {
    const ALL: [Self; 6] = [
        Self::Simple,
        Self::Extended,
        Self::Pipelined,
        Self::SimpleInBegin,
        Self::ExtendedInBegin,
        Self::PipelinedInBegin,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::Extended => "extended",
            Self::Pipelined => "pipelined",
            Self::SimpleInBegin => "BEGIN, simple",
            Self::ExtendedInBegin => "BEGIN, extended",
            Self::PipelinedInBegin => "BEGIN, pipelined",
        }
    }

    fn is_in_begin(self) -> bool {
        matches!(self, Self::SimpleInBegin | Self::ExtendedInBegin | Self::PipelinedInBegin)
    }
}

/// What the table says of a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Replica,
    /// Could run on a replica and does not have to.
    Either,
    Primary,
    /// To the primary, and nothing after it is as before.
    Defines,
}

struct Line {
    place: Place,
    sql: String,
}

/// Lines of the table, but those that follow the transaction they are in.
fn lines(root: &Path) -> Result<Vec<Line>> {
    let path = root.join("crates/sql/tests/routes/table.txt");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut lines = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (head, sql) = line.split_once(" | ").with_context(|| format!("not a line: {line}"))?;
        let place = match head.split_whitespace().next().unwrap_or_default() {
            "replica" => Place::Replica,
            "follows" => continue,
            "defines" | "maintenance" => Place::Defines,
            reason if reason.starts_with('~') => Place::Either,
            _ => Place::Primary,
        };
        lines.push(Line { place, sql: sql.to_owned() });
    }
    lines.sort_by_key(|line| line.place);
    Ok(lines)
}

pub(crate) fn prove(scratch: &Scratch, root: &Path) -> Result<Verdicts> {
    let lines = lines(root)?;
    let mut verdicts =
        Verdicts::new(format!("split-routes: {} statements in {} forms", lines.len(), Form::ALL.len()));
    let cluster = start(root)?;
    let reads = "catch_up = \"5s\", lag_max = \"1h\"";
    let replica = cluster.replica().context("there is one")?;
    let database = stand::database(cluster.primary().port(), "size = 20, query_wait = \"30s\"");
    let config = format!("{database}replicas = [\"127.0.0.1:{}\"]\nreads = {{ {reads} }}\n", replica.port());
    let mut pooler = Pooler::start_with(scratch, &config)?;
    let logs = Logs::of(&cluster)?;
    warm(&pooler, &logs)?;
    let mut failed = Vec::new();
    for place in [Place::Replica, Place::Either, Place::Primary, Place::Defines] {
        for form in Form::ALL {
            for (number, line) in lines.iter().enumerate().filter(|(_, line)| line.place == place) {
                if let Err(lost) = send(pooler.addr, line, form, &tag(number, form)) {
                    failed.push(format!("{} ({}): {lost:?}", line.sql, form.name()));
                }
            }
        }
    }
    logs.settle(&cluster)?;
    let (primary, replica) = (logs.tags(&logs.primary)?, logs.tags(&logs.replica)?);
    for form in Form::ALL {
        judge(&lines, form, &primary, &replica, &mut verdicts);
    }
    let lost = format!("{} {}", failed.len(), shown(&failed));
    verdicts.bar("connections lost", lost, "0", failed.is_empty());
    let ended = pooler.child.try_wait();
    verdicts.bar("the pooler", ended.map_or("runs".into(), |s| s.to_string()), "runs", ended.is_none());
    Ok(verdicts)
}

fn start(root: &Path) -> Result<Cluster> {
    let settings = [
        ("synchronous_commit", "on"),
        ("logging_collector", "on"),
        ("log_directory", "log"),
        ("log_filename", LOG),
        ("log_statement", "all"),
        ("log_rotation_age", "0"),
        ("log_rotation_size", "0"),
    ];
    let cluster = Cluster::start(&ClusterOptions {
        replicas: 1,
        settings: settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        ..ClusterOptions::default()
    })?;
    let path = root.join("crates/sql/tests/routes/database.sql");
    let sql = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    cluster.psql(&sql)?;
    for replica in cluster.replicas() {
        Server::catch_up(replica, cluster.primary())?;
    }
    Ok(cluster)
}

const LOG: &str = "statements.log";

/// The servers' logs of statements.
struct Logs {
    primary: PathBuf,
    replica: PathBuf,
}

impl Logs {
    fn of(cluster: &Cluster) -> Result<Self> {
        let log = |server: &Server| -> Result<PathBuf> {
            Ok(PathBuf::from(server.psql("SHOW data_directory")?).join("log").join(LOG))
        };
        let replica = cluster.replica().context("there is one")?;
        Ok(Self { primary: log(cluster.primary())?, replica: log(replica)? })
    }

    fn has(&self, log: &Path, text: &str) -> bool {
        std::fs::read(log).is_ok_and(|log| String::from_utf8_lossy(&log).contains(text))
    }

    /// Until all that was logged by now is in the files.
    fn settle(&self, cluster: &Cluster) -> Result<()> {
        let replica = cluster.replica().context("there is one")?;
        for (server, log) in [(cluster.primary(), &self.primary), (replica, &self.replica)] {
            server.psql("SELECT 'the end of the proof'")?;
            try_wait_for("the log", LOG_TIME_MAX, || self.has(log, "the end of the proof").then_some(()))?;
        }
        Ok(())
    }

    /// All tags in a log.
    fn tags(&self, log: &Path) -> Result<BTreeSet<String>> {
        let text = std::fs::read(log).with_context(|| format!("cannot read {}", log.display()))?;
        let text = String::from_utf8_lossy(&text).into_owned();
        let ends = text.split("/*proof:").skip(1);
        Ok(ends.filter_map(|rest| rest.split_once("*/").map(|(tag, _)| tag.to_owned())).collect())
    }
}

fn tag(number: usize, form: Form) -> String {
    format!("{number}:{}", form as usize)
}

/// Until a read arrives at the replica: the catalogue is read, the replica known.
fn warm(pooler: &Pooler, logs: &Logs) -> Result<()> {
    let mut turn = 0;
    let warmed = try_wait_for("reads on the replica", WARM_TIME_MAX, || {
        turn += 1;
        let asked = Session::connect(pooler.addr).ok()?.query(&format!("SELECT 'warm {turn}' FROM users"));
        (asked.is_ok() && logs.has(&logs.replica, "'warm ")).then_some(())
    });
    if warmed.is_err() {
        bail!("no read ever arrived at the replica:\n{}", pooler.child.log());
    }
    Ok(())
}

fn send(to: SocketAddr, line: &Line, form: Form, tag: &str) -> Result<(), Lost> {
    let mut session = Session::connect(to)?;
    let sql = format!("{}\n/*proof:{tag}*/", line.sql);
    let lower = line.sql.to_ascii_lowercase();
    let wants_rows = lower.starts_with("copy") && lower.contains("stdin");
    let mut out = Vec::new();
    let mut answers = 1;
    match form {
        Form::Simple | Form::SimpleInBegin => {
            if form == Form::SimpleInBegin {
                session.query("BEGIN")?;
            }
            wire::query(&mut out, sql.replace("$1", "1").as_bytes());
            if wants_rows {
                wire::copy_fail(&mut out, b"no rows");
            }
        }
        Form::Extended | Form::ExtendedInBegin | Form::Pipelined | Form::PipelinedInBegin => {
            match form {
                Form::ExtendedInBegin => drop(session.query("BEGIN")?),
                Form::Pipelined => {
                    append(&mut out, "SELECT 1");
                    wire::sync(&mut out);
                    answers = 2;
                }
                Form::PipelinedInBegin => {
                    append(&mut out, "BEGIN");
                    append(&mut out, "SELECT 1");
                }
                _ => {}
            }
            append(&mut out, &sql);
            if wants_rows {
                wire::copy_fail(&mut out, b"no rows");
            }
            wire::sync(&mut out);
        }
    }
    session.send(&out)?;
    for _ in 0..answers {
        session.answer()?;
    }
    if form.is_in_begin() {
        session.query(if line.place == Place::Replica { "COMMIT" } else { "ROLLBACK" })?;
    }
    Ok(())
}

fn append(out: &mut Vec<u8>, sql: &str) {
    wire::parse(out, b"", sql.as_bytes(), []);
    let param = sql.contains("$1").then_some(Some(&b"1"[..]));
    wire::bind(out, b"", b"", Format::Text, param, Format::Text);
    wire::describe(out, Target::Portal(b""));
    wire::execute(out, b"", 0);
}

fn judge(
    lines: &[Line],
    form: Form,
    primary: &BTreeSet<String>,
    replica: &BTreeSet<String>,
    verdicts: &mut Verdicts,
) {
    let mut unsafe_ones = Vec::new();
    let (mut safe, mut there, mut elsewhere) = (0, 0, Vec::new());
    for (number, line) in lines.iter().enumerate() {
        let tag = tag(number, form);
        let seen = (primary.contains(&tag), replica.contains(&tag));
        if line.place >= Place::Primary && seen.1 {
            unsafe_ones.push(line.sql.clone());
        }
        if line.place != Place::Replica || is_excused(&line.sql, form) {
            continue;
        }
        safe += 1;
        match seen {
            (false, true) => there += 1,
            (true, false) => elsewhere.push(line.sql.clone()),
            (true, true) => elsewhere.push(format!("{} (both)", line.sql)),
            (false, false) => elsewhere.push(format!("{} (nobody saw it)", line.sql)),
        }
    }
    verdicts.bar(
        &format!("{}: statements of the primary that a replica saw", form.name()),
        format!("{} {}", unsafe_ones.len(), shown(&unsafe_ones)),
        "0",
        unsafe_ones.is_empty(),
    );
    verdicts.bar(
        &format!("{}: safe reads on the replica", form.name()),
        format!("{there} of {safe}; not: {}", shown(&elsewhere)),
        &format!("≥ {SAFE_ON_REPLICAS_PERCENT_MIN} %"),
        there * 100 >= safe * SAFE_ON_REPLICAS_PERCENT_MIN,
    );
}

/// What is safe, but not in this form: a cursor belongs to its transaction, and is an error without one; a transaction's
/// time must be the same for all of its statements, wherever they run; two statements can't be prepared as one.
fn is_excused(sql: &str, form: Form) -> bool {
    const TIMES: [&str; 6] = ["now()", "transaction_timestamp", "current_", "localtime", "now_of", "timed"];
    let lower = sql.to_ascii_lowercase();
    let is_timed = form.is_in_begin() && TIMES.iter().any(|word| lower.contains(word));
    let is_simple = matches!(form, Form::Simple | Form::SimpleInBegin);
    lower.starts_with("declare") || is_timed || (!is_simple && lower.contains("; select"))
}

fn shown(statements: &[String]) -> String {
    let some: Vec<String> = statements.iter().take(EXAMPLES_MAX).map(|sql| format!("`{sql}`")).collect();
    some.join(", ").replace('|', "\\|")
}
