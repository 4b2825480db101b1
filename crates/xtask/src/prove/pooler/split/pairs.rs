//! One client of the proof: writes, reads what it wrote, and judges what comes.
//!
//! **Intuition.** A read may fail, and then says so. It may never answer with less than was acknowledged before it was
//! sent, nor with less than its client has seen before.
//!
//! **Mechanism.** The client alone raises its gauges ([`super::gauges`]), so the acknowledged version of each is known to
//! everybody through the [`Board`], which is read before a read is sent. After each pair it also reads a gauge of somebody
//! else, whose writes are under way at that moment: nobody's acknowledged commit may be missed, and time may not run
//! backwards. How each statement is sent is drawn from a seed.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tenfold_pgwire::frontend::Format;
use tenfold_pgwire::write as wire;

use super::super::session::{Answer, Lost, Session};
use super::gauges::{self, COPY, Gauge, Write};

/// Texts of what was wrong that are kept.
const EXAMPLES_MAX: usize = 6;

/// Who reads what a client wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    /// The connection that wrote.
    Same,
    /// Another connection, both with one identity.
    Identity,
    /// Another connection, and nobody says who is who.
    Stranger,
}

impl Reader {
    pub(crate) const ALL: [Self; 3] = [Self::Same, Self::Identity, Self::Stranger];

    /// How it is chosen on the command line.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Identity => "identity",
            Self::Stranger => "stranger",
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Same => "the same connection",
            Self::Identity => "another of the same identity",
            Self::Stranger => "another without identity",
        }
    }
}

/// What all clients share.
pub(super) struct Board {
    pub(super) writes_at: SocketAddr,
    pub(super) reads_at: SocketAddr,
    pub(super) reader: Reader,
    /// By client and gauge: what was acknowledged.
    acknowledged: Vec<[AtomicU64; Gauge::ALL.len()]>,
    pub(super) pairs: AtomicU64,
    pub(super) stop: AtomicBool,
}

impl Board {
    pub(super) fn new(writes_at: SocketAddr, reads_at: SocketAddr, reader: Reader, clients: u64) -> Self {
        let acknowledged = (0..clients).map(|_| Default::default()).collect();
        let (pairs, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        Self { writes_at, reads_at, reader, acknowledged, pairs, stop }
    }

    fn of(&self, client: u64, gauge: Gauge) -> &AtomicU64 {
        &self.acknowledged[usize::try_from(client).unwrap_or_default()][gauge as usize]
    }

    fn clients(&self) -> u64 {
        self.acknowledged.len() as u64
    }
}

/// What one client saw.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) pairs: u64,
    /// Own reads that missed an own write.
    pub(super) stale: u64,
    /// Reads of others' gauges that missed an acknowledged write.
    pub(super) stale_of_others: u64,
    pub(super) reads_of_others: u64,
    /// Reads that showed less than one before.
    pub(super) backwards: u64,
    /// Answered by an error, or not at all.
    pub(super) failed: u64,
    pub(super) examples: Vec<String>,
    pub(super) failures: Vec<String>,
}

impl Seen {
    pub(super) fn add(&mut self, mut other: Self) {
        self.pairs += other.pairs;
        self.stale += other.stale;
        self.stale_of_others += other.stale_of_others;
        self.reads_of_others += other.reads_of_others;
        self.backwards += other.backwards;
        self.failed += other.failed;
        self.examples.append(&mut other.examples);
        self.examples.truncate(EXAMPLES_MAX);
        self.failures.append(&mut other.failures);
        self.failures.truncate(EXAMPLES_MAX);
    }
}

pub(super) struct Client<'a> {
    board: &'a Board,
    index: u64,
    random: u64,
    /// The last version written, over all gauges; never one twice.
    version: u64,
    writer: Option<Link>,
    reader: Option<Link>,
    /// The greatest version seen, by client and gauge.
    seen_versions: Vec<[u64; Gauge::ALL.len()]>,
    seen: Seen,
}

/// A connection, and what was prepared on it.
struct Link {
    session: Session,
    prepared: Vec<String>,
    /// Put behind every statement.
    comment: String,
}

type Outcome<T> = Result<T, Lost>;

impl<'a> Client<'a> {
    /// `first`: greater than every version written before.
    pub(super) fn new(board: &'a Board, index: u64, first: u64) -> Self {
        let seen_versions = vec![[0; Gauge::ALL.len()]; board.acknowledged.len()];
        Self {
            board,
            index,
            random: (index + 1 + first).wrapping_mul(0x9e37_79b9_7f4a_7c15),
            version: first,
            writer: None,
            reader: None,
            seen_versions,
            seen: Seen::default(),
        }
    }

    /// Returns what it saw and the last version it wrote.
    pub(super) fn play(mut self) -> (Seen, u64) {
        while !self.board.stop.load(Ordering::Relaxed) {
            match self.pair() {
                Ok(()) => {}
                Err(lost) => {
                    self.fail(format!("connection lost: {lost:?}"));
                    // Where everything fails, not as fast as can be.
                    super::super::super::stand::pause(std::time::Duration::from_millis(5));
                }
            }
        }
        (self.seen, self.version)
    }

    /// xorshift64: what is drawn only has to differ from client to client and be the same in each run.
    fn draw(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random >> 3
    }

    fn fail(&mut self, text: String) {
        self.seen.failed += 1;
        if self.seen.failures.len() < EXAMPLES_MAX {
            self.seen.failures.push(text);
        }
    }

    fn connect(&self, to: SocketAddr) -> Outcome<Link> {
        let session = Session::connect(to)?;
        let mut link = Link { session, prepared: Vec::new(), comment: String::new() };
        if self.board.reader == Reader::Identity {
            let identity = format!("client-{}", self.index);
            if self.index.is_multiple_of(2) {
                link.session.query(&format!("SET tenfold.identity = '{identity}'"))?;
            } else {
                link.comment = format!(" /*tenfold='{identity}'*/");
            }
        }
        if self.index % 8 == 3 {
            // Acknowledged before it is written anywhere but in memory.
            link.session.query("SET synchronous_commit = off")?;
        }
        Ok(link)
    }

    /// Takes its connections out, so that they are gone if anything is lost on them.
    fn pair(&mut self) -> Outcome<()> {
        let mut writer = match self.writer.take() {
            Some(link) => link,
            None => self.connect(self.board.writes_at)?,
        };
        let random = self.draw();
        self.version += 1;
        let way = gauges::write(self.index, random, self.version);
        if self.board.reader == Reader::Same {
            let raised = if self.draw().is_multiple_of(8) && way.statements.len() == 1 && !is_copy(&way) {
                self.write_and_read_at_once(&mut writer, &way)?
            } else {
                self.write(&mut writer, &way)?
            };
            if raised {
                self.read_own(&mut writer, &way)?;
            }
            self.read_other(&mut writer)?;
            self.writer = Some(writer);
            return Ok(());
        }
        let raised = self.write(&mut writer, &way)?;
        self.writer = Some(writer);
        let mut reader = match self.reader.take() {
            Some(link) => link,
            None => self.connect(self.board.reads_at)?,
        };
        if raised {
            self.read_own(&mut reader, &way)?;
        }
        self.read_other(&mut reader)?;
        self.reader = Some(reader);
        Ok(())
    }

    /// Whether it was acknowledged.
    fn write(&mut self, link: &mut Link, way: &Write) -> Outcome<bool> {
        let version = self.version.to_string();
        let statements: Vec<String> =
            way.statements.iter().map(|sql| format!("{sql}{}", link.comment)).collect();
        let literal: Vec<String> = statements.iter().map(|sql| sql.replace("$1", &version)).collect();
        let many = statements.len() > 1;
        let answers = match (self.draw() % 5, way.is_literal) {
            _ if is_copy(way) => vec![link.copy(&literal[0], &version)?],
            (0, _) if !many => vec![link.session.query(&literal[0])?],
            (1, false) if !many => vec![link.batch(&statements, &version, false)?],
            (2, false) => vec![link.batch(&statements, &version, true)?],
            (3, _) => vec![link.session.query(&format!("BEGIN; {}; COMMIT", literal.join("; ")))?],
            _ => link.transaction(&literal)?,
        };
        if let Some(error) = answers.iter().find_map(|answer| answer.error.as_ref()) {
            self.fail(format!("{}: {} {}", literal.join("; "), error.code, error.message));
            if answers.last().is_some_and(|answer| answer.status != b'I') {
                link.session.query("ROLLBACK")?;
            }
            return Ok(false);
        }
        self.acknowledge(way);
        Ok(true)
    }

    fn acknowledge(&self, way: &Write) {
        for gauge in way.raises {
            self.board.of(self.index, *gauge).fetch_max(self.version, Ordering::SeqCst);
        }
    }

    /// The read is sent before the write is answered, as clients do that pipeline: it follows it all the same.
    fn write_and_read_at_once(&mut self, link: &mut Link, way: &Write) -> Outcome<bool> {
        let gauge = way.raises[0];
        let random = self.draw();
        let read = format!("{}{}", gauges::read(self.index, gauge, random, Some(self.version)), link.comment);
        let write = format!("{}{}", way.statements[0], link.comment);
        let write = write.replace("$1", &self.version.to_string());
        let mut out = Vec::new();
        wire::query(&mut out, write.as_bytes());
        wire::query(&mut out, read.as_bytes());
        link.session.send(&out)?;
        let (written, answer) = (link.session.answer()?, link.session.answer()?);
        if let Some(error) = written.error {
            self.fail(format!("{write}: {} {}", error.code, error.message));
            return Ok(false);
        }
        self.acknowledge(way);
        self.judge(self.index, gauge, self.version, &read, "pipelined", &answer);
        Ok(true)
    }

    fn read_own(&mut self, link: &mut Link, way: &Write) -> Outcome<()> {
        let random = self.draw();
        let which = usize::try_from(random >> 20).unwrap_or_default() % way.raises.len();
        let gauge = way.raises[which];
        let least = self.version;
        let (sql, how, answer) = self.read(link, self.index, gauge, Some(least))?;
        self.seen.pairs += 1;
        self.board.pairs.fetch_add(1, Ordering::Relaxed);
        self.judge(self.index, gauge, least, &sql, how, &answer);
        Ok(())
    }

    fn read_other(&mut self, link: &mut Link) -> Outcome<()> {
        let others = self.board.clients() - 1;
        let other = (self.index + 1 + self.draw() % others) % self.board.clients();
        let which = usize::try_from(self.draw()).unwrap_or_default() % Gauge::ALL.len();
        let gauge = Gauge::ALL[which];
        let least = self.board.of(other, gauge).load(Ordering::SeqCst);
        let (sql, how, answer) = self.read(link, other, gauge, None)?;
        self.seen.reads_of_others += 1;
        self.judge(other, gauge, least, &sql, how, &answer);
        Ok(())
    }

    fn read(
        &mut self,
        link: &mut Link,
        client: u64,
        gauge: Gauge,
        version: Option<u64>,
    ) -> Outcome<(String, &'static str, Answer)> {
        let random = self.draw();
        let sql = gauges::read(client, gauge, random, version);
        let commented = format!("{sql}{}", link.comment);
        let (how, answer) = match (random >> 8) % 7 {
            0 | 1 => ("simple", link.session.query(&commented)?),
            2 if client == self.index => ("prepared", link.prepared(&commented)?),
            2 | 3 => ("extended", link.batch(&[commented], "", false)?),
            4 => ("in one batch", link.batch(&[commented], "", true)?),
            5 => ("in a transaction", row_of(link.transaction(&[commented])?)),
            _ => {
                let words = ["BEGIN READ ONLY".to_owned(), commented, "COMMIT".to_owned()];
                ("read only", row_of(link.each(&words)?))
            }
        };
        if answer.status == b'E' {
            link.session.query("ROLLBACK")?;
        }
        Ok((sql, how, answer))
    }

    fn judge(&mut self, of: u64, gauge: Gauge, least: u64, sql: &str, how: &str, answer: &Answer) {
        let is_own = of == self.index;
        let version = match (&answer.error, answer.rows.last().and_then(|row| row.parse::<u64>().ok())) {
            (None, Some(version)) => version,
            // A table that was there is missing: as stale as can be.
            (Some(error), _) if error.code == "42P01" => 0,
            // So is a row in the place it was moved to.
            (None, None) if gauge == Gauge::Moved => 0,
            (Some(error), _) => return self.fail(format!("{sql} ({how}): {} {}", error.code, error.message)),
            (None, None) => return self.fail(format!("{sql} ({how}): {answer:?}")),
        };
        let before = &mut self.seen_versions[usize::try_from(of).unwrap_or_default()][gauge as usize];
        let (is_stale, is_backwards) = (version < least, version < *before);
        if (is_stale || is_backwards) && self.seen.examples.len() < EXAMPLES_MAX {
            let example = format!(
                "client {} got {version} by {sql} ({how}); acknowledged {least}, seen before {before}",
                self.index
            );
            self.seen.examples.push(example);
        }
        *before = version.max(*before);
        self.seen.stale += u64::from(is_stale && is_own);
        self.seen.stale_of_others += u64::from(is_stale && !is_own);
        self.seen.backwards += u64::from(is_backwards);
    }
}

fn is_copy(way: &Write) -> bool {
    way.statements[0].starts_with(COPY)
}

/// The first answer with a row or an error.
fn row_of(answers: Vec<Answer>) -> Answer {
    let mut answers = answers;
    let at = answers.iter().position(|answer| answer.error.is_some() || !answer.rows.is_empty());
    Answer {
        status: answers.last().map_or(0, |last| last.status),
        ..answers.swap_remove(at.unwrap_or_default())
    }
}

impl Link {
    fn each(&mut self, statements: &[String]) -> Outcome<Vec<Answer>> {
        statements.iter().map(|sql| self.session.query(sql)).collect()
    }

    fn transaction(&mut self, statements: &[String]) -> Outcome<Vec<Answer>> {
        let begin = std::iter::once("BEGIN".to_owned());
        let words: Vec<String> =
            begin.chain(statements.iter().cloned()).chain(["COMMIT".to_owned()]).collect();
        self.each(&words)
    }

    /// Extended, up to one Sync; `version` is the parameter of those that have one.
    fn batch(&mut self, statements: &[String], version: &str, in_transaction: bool) -> Outcome<Answer> {
        let mut out = Vec::new();
        if in_transaction {
            append(&mut out, "BEGIN", "");
        }
        statements.iter().for_each(|sql| append(&mut out, sql, version));
        if in_transaction {
            append(&mut out, "COMMIT", "");
        }
        wire::sync(&mut out);
        self.session.send(&out)?;
        self.session.answer()
    }

    /// Prepared under a name at its first use, then only bound.
    fn prepared(&mut self, sql: &str) -> Outcome<Answer> {
        let mut out = Vec::new();
        let known = self.prepared.iter().position(|known| known == sql);
        let at = known.unwrap_or(self.prepared.len());
        let name = format!("read_{at}");
        if known.is_none() {
            wire::parse(&mut out, name.as_bytes(), sql.as_bytes(), []);
            self.prepared.push(sql.to_owned());
        }
        wire::bind(&mut out, b"", name.as_bytes(), Format::Text, [], Format::Text);
        wire::execute(&mut out, b"", 0);
        wire::sync(&mut out);
        self.session.send(&out)?;
        let answer = self.session.answer()?;
        if answer.error.is_some() && known.is_none() {
            // It may have failed before it was there; a name is never used twice.
            self.prepared[at] = String::new();
        }
        Ok(answer)
    }

    fn copy(&mut self, sql: &str, row: &str) -> Outcome<Answer> {
        let mut out = Vec::new();
        wire::query(&mut out, sql.as_bytes());
        wire::copy_data(&mut out, format!("{row}\n").as_bytes());
        wire::copy_done(&mut out);
        self.session.send(&out)?;
        self.session.answer()
    }
}

fn append(out: &mut Vec<u8>, sql: &str, version: &str) {
    wire::parse(out, b"", sql.as_bytes(), []);
    let param = sql.contains("$1").then_some(Some(version.as_bytes()));
    wire::bind(out, b"", b"", Format::Text, param, Format::Text);
    wire::execute(out, b"", 0);
}
