//! An application's node: HTTP in, SQL out through its pooler, with sqlcommenter's comment behind each statement.
//!
//! **Intuition.** Own reads survive the way through an application only if it hands on what it was handed. This one does
//! so as the guide asks applications to, and nothing else for it.
//!
//! **Mechanism.** `POST /write/WAY/ID` raises one row's version, `GET /plain/WHAT/ID` and `GET /stored/WHAT/ID` read one
//! row or an owner's sum; the latter may be stored. Each request takes another connection, as drivers' pools hand them
//! out. The comment repeats `traceparent` and `Tenfold-Position`.
//!
//! **Failure.** A statement that fails is a 500 with the error's text.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use tenfold_testkit::origin::Received;
use tenfold_testkit::{Answer, Origin};

use super::super::super::session::{self, Lost, Session, append_execute};

/// What a client has to see, in requests and answers.
pub(super) const POSITION: &str = "Tenfold-Position";
/// The fields that statements repeat, and the keys of the comment.
const SAID: [(&str, &str); 2] = [("traceparent", "traceparent"), ("tenfold_position", POSITION)];

/// How a write is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Simple,
    Extended,
    /// BEGIN, the write, COMMIT; only the write says whose it is.
    Block,
    /// No statement says of which request it is, as where nobody has set up the comment.
    Unnamed,
}

impl Way {
    pub(super) const NAMED: [Self; 3] = [Self::Simple, Self::Extended, Self::Block];

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::Extended => "extended",
            Self::Block => "block",
            Self::Unnamed => "unnamed",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        [Self::Simple, Self::Extended, Self::Block, Self::Unnamed].into_iter().find(|way| way.word() == word)
    }
}

/// A node and its connections.
pub(super) struct Api {
    origin: Origin,
}

impl Api {
    /// Its pooler may start later.
    pub(super) fn start(pooler: SocketAddr) -> Result<Self> {
        let idle: Arc<Mutex<VecDeque<Session>>> = Arc::default();
        let origin = Origin::serve(move |request| {
            let taken = idle.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let session = taken.map_or_else(|| Session::connect(pooler), Ok);
            match session.and_then(|mut session| Ok((answer(request, &mut session)?, session))) {
                Ok((answer, session)) => {
                    idle.lock().unwrap_or_else(PoisonError::into_inner).push_back(session);
                    answer
                }
                Err(lost) => failed(&format!("connection lost: {lost:?}")),
            }
        })?;
        Ok(Self { origin })
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.origin.addr()
    }
}

fn failed(text: &str) -> Answer {
    Answer::new(500).body(text)
}

fn answer(request: &Received, session: &mut Session) -> Result<Answer, Lost> {
    let mut words = request.path().split('/').skip(1);
    let (Some(kind), Some(what), Some(id)) = (words.next(), words.next(), words.next()) else {
        return Ok(Answer::new(404));
    };
    let comment = comment(|field| request.header(field));
    let answer = match (kind, Way::from_word(what)) {
        ("write", Some(way)) => write(session, way, id, &comment)?,
        ("plain" | "stored", None) => read(session, what, id, &comment)?,
        _ => return Ok(Answer::new(404)),
    };
    if let Some(error) = answer.error {
        return Ok(failed(&format!("{} {}", error.code, error.message)));
    }
    let value = answer.rows.into_iter().next().unwrap_or_default();
    let stored = if kind == "stored" { "max-age=600" } else { "no-store" };
    Ok(Answer::ok(value).cache_control(stored))
}

/// Nothing but what an edge writes: from elsewhere it could end the comment.
fn comment<'r>(header: impl Fn(&str) -> Option<&'r str>) -> String {
    let is_plain = |value: &&str| value.bytes().all(|byte| byte.is_ascii_hexdigit() || b".-".contains(&byte));
    let pairs = SAID.iter().filter_map(|(key, field)| {
        let value = header(field).filter(is_plain)?;
        Some(format!("{key}='{value}'"))
    });
    let pairs: Vec<String> = pairs.collect();
    if pairs.is_empty() { String::new() } else { format!(" /*{}*/", pairs.join(",")) }
}

fn write(session: &mut Session, way: Way, id: &str, comment: &str) -> Result<session::Answer, Lost> {
    let comment = if way == Way::Unnamed { "" } else { comment };
    let update = |id: &str| format!("UPDATE item SET v = v + 1 WHERE id = {id} RETURNING v{comment}");
    match way {
        Way::Simple | Way::Unnamed => session.query(&update(id)),
        Way::Extended => extended(session, &update("$1"), id),
        Way::Block => {
            session.query("BEGIN")?;
            let written = session.query(&update(id))?;
            let committed = session.query("COMMIT")?;
            Ok(session::Answer { error: written.error.or(committed.error), ..written })
        }
    }
}

fn read(session: &mut Session, what: &str, id: &str, comment: &str) -> Result<session::Answer, Lost> {
    let (column, by) = if what == "sum" { ("sum(v)", "owner") } else { ("v", "id") };
    let select = |id: &str| format!("SELECT {column} FROM item WHERE {by} = {id}{comment}");
    // Both protocols, with no need of a turn kept anywhere.
    if comment.len().is_multiple_of(2) {
        return session.query(&select(id));
    }
    extended(session, &select("$1"), id)
}

fn extended(session: &mut Session, sql: &str, value: &str) -> Result<session::Answer, Lost> {
    let mut out = Vec::new();
    append_execute(&mut out, sql, value);
    session.send(&out)?;
    session.answer()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_repeats_what_an_edge_wrote_and_nothing_else() {
        let said = |trace: &'static str, position: &'static str| {
            comment(move |field| match field {
                "traceparent" => Some(trace),
                POSITION => Some(position),
                _ => None,
            })
        };
        assert_eq!(
            said("00-ab-cd-01", "1.7.1.5"),
            " /*traceparent='00-ab-cd-01',tenfold_position='1.7.1.5'*/"
        );
        assert_eq!(said("00-ab-cd-01", "1'*/; DROP"), " /*traceparent='00-ab-cd-01'*/");
        assert_eq!(comment(|_| None), "");
    }

    #[test]
    fn ways_are_told_by_their_words() {
        for way in [Way::Simple, Way::Extended, Way::Block, Way::Unnamed] {
            assert_eq!(Way::from_word(way.word()), Some(way));
        }
        assert_eq!(Way::from_word("row"), None);
    }
}
