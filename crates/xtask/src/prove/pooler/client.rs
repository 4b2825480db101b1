//! One client of the fault run: asks for nonces in every way there is, misbehaves now and then, and checks what comes.
//!
//! **Intuition.** A pooler under fault may say "that failed". It may never say something else's answer. So every query
//! carries a text nobody else uses, and the only answers that count as right are that text and an error.
//!
//! **Mechanism.** What to do next is drawn from a seed. Commits are written down with what was said of them: acknowledged,
//! failed for sure, or unknown (the connection was lost between COMMIT and its answer); the ledger table is held against
//! that afterwards.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tenfold_pgwire::write;

use super::session::{Answer, Lost, Session, append_execute};

/// Queries sent in one write.
const SERIES: u64 = 16;
/// Texts of what was wrong that are kept.
const EXAMPLES_MAX: usize = 5;

/// What all clients share.
pub(super) struct Run {
    /// Where good queries go.
    pub(super) pooler: SocketAddr,
    /// The same through a proxy that breaks.
    pub(super) broken: SocketAddr,
    pub(super) answered: AtomicU64,
    pub(super) stop: AtomicBool,
}

/// What one client saw.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) right: u64,
    pub(super) wrong: u64,
    /// Answered by an error.
    pub(super) failed: u64,
    /// Cancels that hit what nobody had cancelled.
    pub(super) strangers_cancelled: u64,
    pub(super) cancelled: u64,
    pub(super) aborted: u64,
    /// Connections to the pooler itself that were closed without a word.
    pub(super) bare_closes: u64,
    pub(super) silent: u64,
    pub(super) acknowledged: Vec<String>,
    pub(super) never_committed: Vec<String>,
    pub(super) unknown: u64,
    pub(super) examples: Vec<String>,
}

impl Seen {
    pub(super) fn add(&mut self, mut other: Self) {
        self.right += other.right;
        self.wrong += other.wrong;
        self.failed += other.failed;
        self.strangers_cancelled += other.strangers_cancelled;
        self.cancelled += other.cancelled;
        self.aborted += other.aborted;
        self.bare_closes += other.bare_closes;
        self.silent += other.silent;
        self.acknowledged.append(&mut other.acknowledged);
        self.never_committed.append(&mut other.never_committed);
        self.unknown += other.unknown;
        self.examples.append(&mut other.examples);
        self.examples.truncate(EXAMPLES_MAX);
    }

    fn example(&mut self, text: String) {
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(text);
        }
    }
}

pub(super) struct Client<'a> {
    run: &'a Run,
    index: u64,
    number: u64,
    random: u64,
    session: Option<Session>,
    /// The connection goes through what breaks.
    is_broken_way: bool,
    seen: Seen,
}

impl<'a> Client<'a> {
    pub(super) fn new(run: &'a Run, index: u64) -> Self {
        let random = (index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self { run, index, number: 0, random, session: None, is_broken_way: false, seen: Seen::default() }
    }

    pub(super) fn play(mut self) -> Seen {
        while !self.run.stop.load(Ordering::Relaxed) {
            let Some(mut session) = self.session.take().or_else(|| self.connect()) else { continue };
            let before = self.seen.right;
            match self.step(&mut session) {
                Ok(true) => self.session = Some(session),
                Ok(false) => self.seen.aborted += 1,
                Err(lost) => self.lost(&lost),
            }
            self.run.answered.fetch_add(self.seen.right - before, Ordering::Relaxed);
        }
        self.seen
    }

    /// xorshift64: what is drawn only has to differ from client to client and be the same in each run.
    fn draw(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    fn nonce(&mut self) -> String {
        self.number += 1;
        format!("{}-{}", self.index, self.number)
    }

    fn connect(&mut self) -> Option<Session> {
        self.is_broken_way = self.draw(4) == 0;
        let to = if self.is_broken_way { self.run.broken } else { self.run.pooler };
        Session::connect(to).inspect_err(|lost| self.lost(lost)).ok()
    }

    fn lost(&mut self, lost: &Lost) {
        if self.is_broken_way {
            return;
        }
        match lost {
            Lost::Closed(Some(_)) => self.seen.failed += 1,
            Lost::Closed(None) => self.seen.bare_closes += 1,
            Lost::Silent => self.seen.silent += 1,
            Lost::Refused => self.seen.example("the pooler refused a connection".into()),
        }
    }

    /// One thing a client does. False if it is done with its connection.
    fn step(&mut self, session: &mut Session) -> Result<bool, Lost> {
        match self.draw(400) {
            0 => self.abort(session, "SELECT n, repeat('x', 1000) FROM generate_series(1, 5000) AS n"),
            1 => {
                self.abort(session, "COPY (SELECT repeat('x', 1000) FROM generate_series(1, 5000)) TO STDOUT")
            }
            2 => self.abort_copy_in(session),
            3 => self.abort(session, "BEGIN; INSERT INTO ledger VALUES ('never')"),
            4..8 => self.cancelled(session),
            8..60 => self.transaction(session).map(|()| true),
            60..150 => self.simple(session).map(|()| true),
            150..260 => self.extended(session).map(|()| true),
            _ => self.series(session).map(|()| true),
        }
    }

    fn simple(&mut self, session: &mut Session) -> Result<(), Lost> {
        let nonce = self.nonce();
        let answer = session.query(&format!("SELECT '{nonce}'"))?;
        self.judge(&nonce, &answer);
        Ok(())
    }

    fn extended(&mut self, session: &mut Session) -> Result<(), Lost> {
        let nonce = self.nonce();
        let mut out = Vec::new();
        append_execute(&mut out, "SELECT $1::text", &nonce);
        session.send(&out)?;
        let answer = session.answer()?;
        self.judge(&nonce, &answer);
        Ok(())
    }

    fn series(&mut self, session: &mut Session) -> Result<(), Lost> {
        let nonces: Vec<String> = (0..SERIES).map(|_| self.nonce()).collect();
        let mut out = Vec::new();
        for nonce in &nonces {
            append_execute(&mut out, "SELECT $1::text", nonce);
        }
        session.send(&out)?;
        for nonce in &nonces {
            let answer = session.answer()?;
            self.judge(nonce, &answer);
        }
        Ok(())
    }

    fn judge(&mut self, nonce: &str, answer: &Answer) {
        match &answer.error {
            Some(error) if error.code == "57014" => {
                self.seen.strangers_cancelled += 1;
                self.seen.example(format!("{nonce} was cancelled by somebody else"));
            }
            Some(_) if answer.rows.is_empty() => self.seen.failed += 1,
            None if answer.rows == [nonce] && answer.status == b'I' => self.seen.right += 1,
            _ => {
                self.seen.wrong += 1;
                self.seen.example(format!("{nonce}: {answer:?}"));
            }
        }
    }

    /// A commit, written down with what was said of it.
    fn transaction(&mut self, session: &mut Session) -> Result<(), Lost> {
        let nonce = self.nonce();
        let insert = format!("INSERT INTO ledger VALUES ('{nonce}') RETURNING nonce");
        let mut is_sure = true;
        for sql in ["BEGIN", &insert] {
            let answer = session.query(sql).inspect_err(|_| self.seen.never_committed.push(nonce.clone()))?;
            is_sure &= answer.error.is_none();
            if let Some(row) = answer.rows.first()
                && *row != nonce
            {
                self.seen.wrong += 1;
                self.seen.example(format!("{nonce}: {answer:?}"));
            }
        }
        let answer = session.query("COMMIT").inspect_err(|_| {
            if is_sure {
                self.seen.unknown += 1;
            } else {
                self.seen.never_committed.push(nonce.clone());
            }
        })?;
        if answer.status != b'I' {
            self.seen.wrong += 1;
            self.seen.example(format!("{nonce}: still in a transaction after {answer:?}"));
        }
        match answer.error {
            None if answer.tag == "COMMIT" && is_sure => {
                self.seen.acknowledged.push(nonce);
                self.seen.right += 1;
            }
            Some(_) if is_sure => self.seen.unknown += 1,
            _ => {
                self.seen.never_committed.push(nonce);
                self.seen.failed += 1;
            }
        }
        Ok(())
    }

    /// Leaves in the middle of an answer.
    fn abort(&mut self, session: &mut Session, sql: &str) -> Result<bool, Lost> {
        let mut out = Vec::new();
        write::query(&mut out, sql.as_bytes());
        session.send(&out)?;
        session.glimpse();
        Ok(false)
    }

    fn abort_copy_in(&mut self, session: &mut Session) -> Result<bool, Lost> {
        let mut out = Vec::new();
        write::query(&mut out, b"COPY ledger FROM STDIN");
        session.send(&out)?;
        session.glimpse();
        let mut rows = Vec::new();
        write::copy_data(&mut rows, b"never\nnev");
        session.send(&rows)?;
        Ok(false)
    }

    /// Cancels its own query; it, and nobody else, may hear of it. A late cancel may hit this client's next one, as it
    /// may without a pooler, so the connection ends with it.
    fn cancelled(&mut self, session: &mut Session) -> Result<bool, Lost> {
        let nonce = self.nonce();
        let mut out = Vec::new();
        write::query(&mut out, format!("SELECT '{nonce}' FROM pg_sleep(0.02)").as_bytes());
        session.send(&out)?;
        session.cancel(self.run.pooler);
        let answer = session.answer()?;
        match &answer.error {
            Some(error) if error.code == "57014" => self.seen.cancelled += 1,
            _ => self.judge(&nonce, &answer),
        }
        Ok(false)
    }
}
