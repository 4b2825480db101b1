//! People at the edges: each writes through one, reads through the other, and carries what it was given.
//!
//! **Intuition.** A person's phone knows what it did. If the next page shows less, somebody on the way has forgotten.
//!
//! **Mechanism.** Each has rows that nobody else writes, so the least that a read may show is what the last answer said.
//! One half carries the token as a cookie, the other as a field. Before the write somebody without a token may have the
//! page stored where it is read afterwards, so that a cache which knew of nothing would show the past. A [`Crowd`] is some
//! people who take turns on one thread, with a moment in between: who writes all the time would hardly ever meet a replica,
//! since a write whose position was not known in time keeps its writer at the primary for seconds.
//!
//! **Failure.** An answer that is none, or no number, is counted as failed, and the next request connects anew.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tenfold_testkit::raw::{Client, Response};

use super::super::super::super::stand::pause;
use super::api::{POSITION, Way};

/// Rows of each person.
pub(super) const ROWS: usize = 8;
/// People who take turns.
pub(super) const TURNS: usize = 60;
/// Between two turns, at most.
const PAUSE_MAX: Duration = Duration::from_millis(40);
/// Of so many people one has an application that names no requests in its writes.
const UNNAMED_OF: usize = 16;
/// Texts of what was wrong that are kept.
const EXAMPLES_MAX: usize = 6;

/// What all share.
pub(super) struct Board {
    pub(super) edges: [SocketAddr; 2],
    /// Reads that were judged.
    pub(super) plain: AtomicU64,
    pub(super) stored: AtomicU64,
    pub(super) stop: AtomicBool,
}

impl Board {
    pub(super) fn new(edges: [SocketAddr; 2]) -> Self {
        Self { edges, plain: AtomicU64::new(0), stored: AtomicU64::new(0), stop: AtomicBool::new(false) }
    }
}

/// What one saw.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) writes: u64,
    pub(super) plain: u64,
    pub(super) stale_plain: u64,
    pub(super) stored: u64,
    pub(super) stale_stored: u64,
    /// Own reads that a cache answered.
    pub(super) hits: u64,
    /// Own reads for which a stored answer was passed over.
    pub(super) passed_over: u64,
    pub(super) failed: u64,
    pub(super) examples: Vec<String>,
}

impl Seen {
    pub(super) fn add(&mut self, mut other: Self) {
        self.writes += other.writes;
        self.plain += other.plain;
        self.stale_plain += other.stale_plain;
        self.stored += other.stored;
        self.stale_stored += other.stale_stored;
        self.hits += other.hits;
        self.passed_over += other.passed_over;
        self.failed += other.failed;
        self.examples.append(&mut other.examples);
        self.examples.truncate(EXAMPLES_MAX);
    }
}

/// What one person knows.
#[derive(Clone, Debug)]
pub(super) struct Person {
    number: usize,
    /// The token, as it came.
    token: Option<String>,
    /// By row: what the last answer said.
    versions: [u64; ROWS],
}

impl Person {
    /// The `number`th of all: owner of the rows from `number * ROWS` on, none of which was written.
    pub(super) fn new(number: usize) -> Self {
        Self { number, token: None, versions: [0; ROWS] }
    }

    fn id(&self, row: usize) -> usize {
        self.number * ROWS + row
    }

    fn is_by_cookie(&self) -> bool {
        self.number.is_multiple_of(2)
    }

    /// Who carries it as a cookie takes it from there, and so does who carries it as a field.
    fn keep(&mut self, written: &Response) {
        let by_cookie = || {
            let mut lines = written.headers("Set-Cookie");
            let pair = |line: &str| {
                line.split(';').next()?.strip_prefix(POSITION)?.strip_prefix('=').map(str::to_owned)
            };
            lines.find_map(pair)
        };
        let token =
            if self.is_by_cookie() { by_cookie() } else { written.header(POSITION).map(str::to_owned) };
        self.token = token.or(self.token.take());
    }

    /// The field that carries the token.
    fn field(&self) -> Option<(&'static str, String)> {
        let token = self.token.as_deref()?;
        Some(if self.is_by_cookie() {
            ("Cookie", format!("theme=dark; {POSITION}={token}"))
        } else {
            (POSITION, token.to_owned())
        })
    }
}

/// People who take turns, on connections that they share.
pub(super) struct Crowd<'a> {
    board: &'a Board,
    people: Vec<Person>,
    random: u64,
    links: [Option<Client>; 2],
    seen: Seen,
}

impl<'a> Crowd<'a> {
    pub(super) fn new(board: &'a Board, index: u64, people: Vec<Person>) -> Self {
        let random = (index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self { board, people, random, links: [None, None], seen: Seen::default() }
    }

    /// Returns what they saw, and what they know.
    pub(super) fn play(mut self) -> (Seen, Vec<Person>) {
        let mut people = std::mem::take(&mut self.people);
        for turn in (0..people.len()).cycle() {
            if self.board.stop.load(Ordering::Relaxed) {
                break;
            }
            if let Err(text) = self.round(&mut people[turn]) {
                self.seen.failed += 1;
                self.example(text);
            }
            let most = u64::try_from(PAUSE_MAX.as_micros()).unwrap_or_default();
            pause(Duration::from_micros(self.draw(most)));
        }
        (self.seen, people)
    }

    /// xorshift64: what is drawn only has to differ from one to the other and be the same in each run.
    fn draw(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 3) % below
    }

    fn example(&mut self, text: String) {
        if self.seen.examples.len() < EXAMPLES_MAX {
            self.seen.examples.push(text);
        }
    }

    /// A write here, and reads there.
    fn round(&mut self, person: &mut Person) -> Result<(), String> {
        let here = usize::from(self.draw(2) == 1);
        let there = 1 - here;
        let row = self.draw_index(ROWS);
        let is_sum = self.draw(3) == 0;
        let what = if is_sum { format!("sum/{}", person.number) } else { format!("row/{}", person.id(row)) };
        if self.draw(2) == 0 {
            // Nothing is promised to somebody without a token.
            self.ask(there, "GET", &format!("/stored/{what}"), None)?;
        }
        self.write(here, person, row)?;
        let least = if is_sum { person.versions.iter().sum() } else { person.versions[row] };
        let value = self.read(there, &format!("/plain/{what}"), person)?.0;
        self.seen.plain += 1;
        self.board.plain.fetch_add(1, Ordering::Relaxed);
        if value < least {
            self.seen.stale_plain += 1;
            self.example(format!("/plain/{what}: {value}, written {least}"));
        }
        for _ in 0..=self.draw(2) {
            self.read_stored(there, &what, person, least)?;
        }
        Ok(())
    }

    fn write(&mut self, here: usize, person: &mut Person, row: usize) -> Result<(), String> {
        let way = if person.number % UNNAMED_OF == 5 {
            Way::Unnamed
        } else {
            Way::NAMED[self.draw_index(Way::NAMED.len())]
        };
        let target = format!("/write/{}/{}", way.word(), person.id(row));
        let written = self.ask(here, "POST", &target, person.field().as_ref())?;
        person.versions[row] = number(&written)?;
        person.keep(&written);
        self.seen.writes += 1;
        Ok(())
    }

    fn read_stored(&mut self, there: usize, what: &str, person: &Person, least: u64) -> Result<(), String> {
        let (value, status) = self.read(there, &format!("/stored/{what}"), person)?;
        self.seen.stored += 1;
        self.board.stored.fetch_add(1, Ordering::Relaxed);
        self.seen.hits += u64::from(status.contains("; hit"));
        self.seen.passed_over += u64::from(status.contains("own_write"));
        if value < least {
            self.seen.stale_stored += 1;
            self.example(format!("/stored/{what}: {value}, written {least} ({status})"));
        }
        Ok(())
    }

    fn draw_index(&mut self, below: usize) -> usize {
        usize::try_from(self.draw(below as u64)).unwrap_or_default()
    }

    /// The number, and what the cache says of it.
    fn read(&mut self, there: usize, target: &str, person: &Person) -> Result<(u64, String), String> {
        let read = self.ask(there, "GET", target, person.field().as_ref())?;
        Ok((number(&read)?, read.header("Cache-Status").unwrap_or_default().to_owned()))
    }

    fn ask(
        &mut self,
        at: usize,
        method: &str,
        target: &str,
        field: Option<&(&str, String)>,
    ) -> Result<Response, String> {
        let fields: Vec<(&str, &str)> = field.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let told = |what: String| format!("{method} {target}: {what}");
        let mut link = match self.links[at].take() {
            Some(link) => link,
            None => Client::connect(self.board.edges[at]).map_err(|error| told(error.to_string()))?,
        };
        let answer = link.request(method, target, &fields).map_err(|error| told(error.to_string()))?;
        if !answer.closes {
            self.links[at] = Some(link);
        }
        if answer.status == 200 {
            return Ok(answer);
        }
        Err(told(format!("{} {}", answer.status, answer.text())))
    }
}

fn number(response: &Response) -> Result<u64, String> {
    response.text().parse().map_err(|_| format!("no number: {}", response.text()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(fields: &[(&str, &str)]) -> Response {
        let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Response {
            status: 200,
            reason: String::new(),
            fields,
            body: Vec::new(),
            interim: Vec::new(),
            raw: Vec::new(),
            closes: false,
        }
    }

    #[test]
    fn a_token_is_carried_the_way_it_came() {
        let written = answer(&[
            ("Set-Cookie", "theme=light; Path=/"),
            ("Set-Cookie", "Tenfold-Position=1.7; Path=/; HttpOnly"),
            ("Tenfold-Position", "1.8"),
        ]);
        let (mut by_cookie, mut by_field) = (Person::new(2), Person::new(3));
        assert_eq!(by_cookie.field(), None);
        for person in [&mut by_cookie, &mut by_field] {
            person.keep(&written);
            // One without a token takes none away.
            person.keep(&answer(&[]));
        }
        assert_eq!(by_cookie.field(), Some(("Cookie", "theme=dark; Tenfold-Position=1.7".to_owned())));
        assert_eq!(by_field.field(), Some((POSITION, "1.8".to_owned())));
    }
}
