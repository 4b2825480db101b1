//! What one client leaves in its session, no other ever sees; and its owner keeps it.
//!
//! **Intuition.** The pooler's first promise, tried on every kind of session state and every way of making it. The judge
//! is PostgreSQL: a direct connection that was sent the same says what the owner must see, and a fresh one says what
//! everybody else must.
//!
//! **Mechanism.** For each [`Kind`], by simple and by extended queries: *apart*, one server connection, the owner leaves
//! (with a goodbye, without one, in mid-query) and a stranger takes it over; *beside*, two server connections, a stranger
//! works between the owner's transactions and pushes it from one to the other. All failures are told at once.

mod ends;
mod kinds;
mod startups;

use tenfold_pgwire::write;
use tenfold_testkit::wait_for;

use crate::{
    direct::{Direct, Rows, cluster},
    pooled::{Pooled, config},
};
use kinds::{GROUND, Kind, OBJECTS, SETTINGS};
use startups::STARTUPS;

/// How often the owner reads what it set.
const READS: usize = 3;
const TIME_MAX: std::time::Duration = std::time::Duration::from_secs(20);

/// How statements are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Simple,
    Extended,
}

/// How the owner goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Goodbye,
    Abrupt,
    InMidQuery,
}

type Answer = Result<Rows, String>;

#[test]
fn settings_stay_with_their_owner() {
    check(SETTINGS);
}

#[test]
fn what_a_session_began_with_comes_back_by_reset() {
    check(STARTUPS);
}

#[test]
fn objects_of_a_session_stay_with_their_owner() {
    check(OBJECTS);
}

/// Makes what the kinds need, once.
fn ground() {
    static GROUND_IS_LAID: std::sync::Once = std::sync::Once::new();
    GROUND_IS_LAID.call_once(|| {
        // Apart, since a cast of it hides in every statement of its database.
        Direct::connect().query("CREATE DATABASE leaks").unwrap();
        judge(&[]).query(GROUND).unwrap();
    });
}

/// A connection to PostgreSQL itself.
fn judge(startup: &[(&str, &str)]) -> Direct {
    Direct::open(cluster().primary().port(), "leaks", startup)
}

/// A pooler with so many server connections.
fn pooled(size: usize) -> Pooled {
    let mut config = config();
    config.databases[0].dbname = Some("leaks".into());
    config.databases[0].pool.size = size;
    Pooled::start(config)
}

fn check(kinds: &[Kind]) {
    ground();
    let mut failures = Vec::new();
    for kind in kinds {
        for way in [Way::Simple, Way::Extended] {
            if way == Way::Extended && kind.sets.iter().any(|sql| is_compound(sql)) {
                continue;
            }
            let right = Right::of(kind, way);
            apart(kind, way, &right, &mut failures);
            beside(kind, way, &right, &mut failures);
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

/// Whether a string holds two statements, which the extended protocol does not take.
fn is_compound(sql: &str) -> bool {
    !sql.contains("$$") && sql.contains("; ")
}

fn ask(session: &mut Direct, way: Way, sql: &str) -> Answer {
    match way {
        Way::Simple => session.query(sql),
        Way::Extended => session.execute(sql, &[]),
    }
}

/// What PostgreSQL itself answers.
struct Right {
    /// To what is sent.
    sets: Vec<Answer>,
    /// To the owner's reads.
    owner: Vec<Answer>,
    /// To anybody else.
    stranger: Answer,
}

impl Right {
    fn of(kind: &Kind, way: Way) -> Self {
        let mut stranger = judge(&[]);
        let fresh = ask(&mut stranger, way, kind.reads);
        let mut owner = judge(kind.startup);
        let pid = owner.value("SELECT pg_backend_pid()").unwrap();
        let sets = kind.sets.iter().map(|sql| ask(&mut owner, way, sql)).collect();
        let reads = (0..READS + 1).map(|_| ask(&mut owner, way, kind.reads)).collect();
        owner.terminate();
        let gone = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
        wait_for("the judge to be gone", TIME_MAX, || stranger.value(&gone).as_deref() == Some("0"));
        Self { sets, owner: reads, stranger: fresh }
    }

    fn is_owners(&self, kind: &Kind, at: usize, answer: &Answer) -> bool {
        *answer == self.owner[at] || kind.may_be_lost && *answer == self.stranger
    }

    fn is_strangers(&self, kind: &Kind, answer: &Answer) -> bool {
        if kind.is_series { !self.owner.contains(answer) } else { *answer == self.stranger }
    }
}

/// The owner sets, reads once, and goes; a stranger has the server connection next.
fn apart(kind: &Kind, way: Way, right: &Right, failures: &mut Vec<String>) {
    let pooled = pooled(1);
    for end in [End::Goodbye, End::Abrupt, End::InMidQuery] {
        let mut fail = |what: &str, saw: &Answer, expected: &Answer| {
            let place = format!("{} ({way:?}, {end:?}), {:?}", kind.name, kind.sets);
            failures.push(format!("{place}: {what}: {} instead of {}", shown(saw), shown(expected)));
        };
        let mut owner = Direct::connect_to(pooled.port(), kind.startup);
        for (sql, expected) in kind.sets.iter().zip(&right.sets) {
            let answer = ask(&mut owner, way, sql);
            if !is_same_outcome(&answer, expected) {
                fail(sql, &answer, expected);
            }
        }
        let answer = ask(&mut owner, way, kind.reads);
        if !right.is_owners(kind, 0, &answer) {
            fail("the owner, alone, sees", &answer, &right.owner[0]);
        }
        if is_silence(&answer) {
            return;
        }
        match end {
            End::Goodbye => owner.terminate(),
            End::Abrupt => drop(owner),
            End::InMidQuery => {
                let mut out = Vec::new();
                write::query(&mut out, kind.reads.as_bytes());
                write::query(&mut out, b"SELECT pg_sleep(60)");
                owner.tell(&out);
                drop(owner);
            }
        }
        let mut stranger = Direct::connect_to(pooled.port(), &[]);
        let answer = ask(&mut stranger, way, kind.reads);
        if !right.is_strangers(kind, &answer) {
            fail("a stranger sees", &answer, &right.stranger);
        }
        if is_silence(&answer) {
            return;
        }
        stranger.terminate();
    }
}

/// A stranger works on the same two server connections, between and during what the owner does.
fn beside(kind: &Kind, way: Way, right: &Right, failures: &mut Vec<String>) {
    let pooled = pooled(2);
    let mut fail = |what: &str, saw: &Answer, expected: &Answer| {
        let place = format!("{} ({way:?}, beside), {:?}", kind.name, kind.sets);
        failures.push(format!("{place}: {what}: {} instead of {}", shown(saw), shown(expected)));
    };
    let mut owner = Direct::connect_to(pooled.port(), kind.startup);
    let mut stranger = Direct::connect_to(pooled.port(), &[]);
    for sql in kind.sets {
        drop(ask(&mut owner, way, sql));
    }
    for at in 0..READS {
        let answer = ask(&mut stranger, way, kind.reads);
        if !right.is_strangers(kind, &answer) {
            fail("a stranger beside the owner sees", &answer, &right.stranger);
        }
        // The stranger stays where it is, so that the owner has to go elsewhere.
        let begun = stranger.query("BEGIN; SELECT 1");
        if begun.is_err() {
            fail("a stranger gets", &begun, &right.stranger);
            return;
        }
        let answer = ask(&mut owner, way, kind.reads);
        if !right.is_owners(kind, at, &answer) {
            fail("the owner, pushed about, sees", &answer, &right.owner[at]);
        }
        stranger.query("COMMIT").unwrap();
    }
}

/// Whether nobody answered.
fn is_silence(answer: &Answer) -> bool {
    answer.as_ref().is_err_and(|error| error.starts_with("no answer"))
}

/// Whether two answers are of one kind: values drawn from sequences differ from run to run.
fn is_same_outcome(answer: &Answer, expected: &Answer) -> bool {
    match (answer, expected) {
        (Ok(rows), Ok(expected)) => rows.len() == expected.len(),
        (answer, expected) => answer == expected,
    }
}

fn shown(answer: &Answer) -> String {
    let column = |column: &Option<Vec<u8>>| {
        column.as_ref().map_or("NULL".into(), |c| String::from_utf8_lossy(c).into_owned())
    };
    match answer {
        Err(error) => format!("error \"{error}\""),
        Ok(rows) => {
            let rows: Vec<_> =
                rows.iter().map(|row| row.iter().map(column).collect::<Vec<_>>().join("|")).collect();
            format!("[{}]", rows.join(", "))
        }
    }
}
