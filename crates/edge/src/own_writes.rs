//! Clients see what they did, cached answers included: on routes with `own_writes`.
//!
//! **Intuition.** The answer to a POST is where a client learns that something is done. So that answer brings a
//! [token](crate::position) along, and the client's next requests bring it back: to the cache, which passes over what may
//! be older, and to the application, which hands it to the pooler with each statement.
//!
//! **Mechanism.** [`Brought::of`] takes the token out of a request, from the cookie or from the field, so that neither
//! routes, keys, `Vary` nor the node see what a client claims; the node is sent what was believed. [`tell`] runs before the
//! head of an unsafe request's answer goes out: it asks where the database is after that request, by its trace id, and adds
//! the token. Who answers is given to the edge as a function ([`crate::Edge::set_positions`]).
//!
//! **Failure.** If nobody can say where the database is, the token says that only the primary may answer for a while. A token
//! that is not believed counts for nothing.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tenfold_cache::Scheme;
use tenfold_http1::{Field, Fields};

use crate::forward::{parse_traceparent, told_scheme};
use crate::local::Local;
use crate::metrics::PositionOutcome;
use crate::position::{NAME, Seal, Token};
use crate::reason::Reason;
use crate::task::Task;

/// Tokens in one request that are looked at.
const TOKENS_MAX: usize = 4;

/// Where a database is after what a request did to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// The request did nothing of which its client could see too little.
    Nothing,
    /// A server that has come so far shows it.
    At {
        /// The cluster's system identifier.
        system: u64,
        /// The timeline.
        timeline: u32,
        /// The position in the log.
        lsn: u64,
    },
    /// Nobody can say.
    Unknown,
}

/// What [`Positions`] comes to.
pub type Answering = Pin<Box<dyn Future<Output = After> + Send>>;

/// Says where the database is after the request with this trace id (W3C Trace Context), which has been answered. It must
/// take no longer than an answer may be held up.
pub type Positions = Arc<dyn Fn([u8; 16]) -> Answering + Send + Sync>;

/// What a request brings along.
#[derive(Debug, Default)]
pub(crate) struct Brought {
    /// What its client has to see.
    pub(crate) token: Option<Token>,
    /// The cookies of each `Cookie` line without ours; empty where there was none of ours.
    cookies: Vec<Vec<u8>>,
    /// Something called itself a token and was not believed.
    pub(crate) refused: bool,
}

impl Brought {
    /// Of a request as it came.
    pub(crate) fn of(fields: &[Field<'_>], seal: &Seal, now_ms: u64) -> Self {
        let mut brought = Self::default();
        let mut seen = 0;
        let is_cookie = |name: &[u8]| name.eq_ignore_ascii_case(b"cookie");
        let has_ours = |(name, value): &Field<'_>| {
            is_cookie(name) && memchr::memmem::find(value, NAME.as_bytes()).is_some()
        };
        let rewrites = fields.iter().any(has_ours);
        for (name, value) in fields {
            if name.eq_ignore_ascii_case(NAME.as_bytes()) {
                brought.take(value, seal, now_ms, &mut seen);
            } else if rewrites && is_cookie(name) {
                let rest = brought.without_ours(value, seal, now_ms, &mut seen);
                brought.cookies.push(rest);
            }
        }
        brought
    }

    fn take(&mut self, text: &[u8], seal: &Seal, now_ms: u64, seen: &mut usize) {
        *seen += 1;
        if *seen > TOKENS_MAX {
            return;
        }
        match seal.read(text, now_ms) {
            Some(token) => {
                self.token = Some(self.token.map_or(token, |other| seal.both(other, token, now_ms)));
            }
            None => self.refused = true,
        }
    }

    /// The other cookies of a line.
    fn without_ours(&mut self, line: &[u8], seal: &Seal, now_ms: u64, seen: &mut usize) -> Vec<u8> {
        let mut rest = Vec::with_capacity(line.len());
        for pair in line.split(|byte| *byte == b';').map(<[u8]>::trim_ascii) {
            let value = pair.strip_prefix(NAME.as_bytes()).and_then(|rest| rest.strip_prefix(b"="));
            if let Some(value) = value {
                self.take(value, seal, now_ms, seen);
                continue;
            }
            if !rest.is_empty() {
                rest.extend_from_slice(b"; ");
            }
            rest.extend_from_slice(pair);
        }
        rest
    }

    /// Whether the request's fields are to be [read anew](Self::fields).
    pub(crate) fn rewrites(&self) -> bool {
        !self.cookies.is_empty()
    }

    /// The request's fields without our cookie: to nobody behind this it tells clients apart.
    pub(crate) fn fields<'f>(&'f self, fields: &[Field<'f>]) -> Fields<'f> {
        let mut cookies = self.cookies.iter();
        let stays = |&(name, value): &Field<'f>| {
            if !name.eq_ignore_ascii_case(b"cookie") {
                return Some((name, value));
            }
            cookies.next().filter(|rest| !rest.is_empty()).map(|rest| (name, rest.as_slice()))
        };
        fields.iter().filter_map(stays).collect()
    }
}

/// Adds the token to the head of an unsafe request's answer, which is the last thing in `out`; says how many bytes that
/// took.
pub(crate) async fn tell(local: &Local, task: &Task, out: &mut Vec<u8>) -> u64 {
    let Some(seal) = seal_of(task) else { return 0 };
    let trace = task.with_head(|_, fields| trace_of(fields)).flatten();
    let after = match (local.shared.positions.get(), trace) {
        (Some(positions), Some(trace)) => positions(trace).await,
        _ => After::Unknown,
    };
    let now_ms = local.timestamp().0;
    let (token, outcome) = match after {
        After::Nothing => (None, PositionOutcome::Nothing),
        After::At { system, timeline, lsn } => {
            let at = Token { system, timeline, lsn, ..Token::default() };
            (Some(seal.known(task.token, at, now_ms)), PositionOutcome::Known)
        }
        After::Unknown => (Some(seal.unknown(task.token, now_ms)), PositionOutcome::Unknown),
    };
    local.shared.metrics.on_position(outcome);
    let Some(token) = token else { return 0 };
    let lines = lines(task, seal, &token);
    // Before the empty line.
    let at = out.len().saturating_sub(2);
    out.splice(at..at, lines.bytes());
    lines.len() as u64
}

/// The lines for an answer of ours to an unsafe request that may have done something all the same.
pub(crate) fn lines_of_failure(local: &Local, task: &Task, reason: Reason) -> Option<String> {
    let may_have_done = matches!(reason, Reason::ResponseTimeout | Reason::NodeClosed | Reason::BadResponse);
    let seal = seal_of(task).filter(|_| may_have_done)?;
    local.shared.metrics.on_position(PositionOutcome::Unknown);
    Some(lines(task, seal, &seal.unknown(task.token, local.timestamp().0)))
}

/// What seals tokens, for a request whose answer may need one.
fn seal_of(task: &Task) -> Option<&Seal> {
    let needs = task.route().own_writes && !task.request.is_safe();
    task.snapshot.seal.as_ref().filter(|_| needs)
}

fn lines(task: &Task, seal: &Seal, token: &Token) -> String {
    let is_secure = task.with_head(|_, fields| told_scheme(fields) == Scheme::Https).unwrap_or(false);
    let (text, ttl_s) = (seal.write(token), seal.ttl_s());
    let secure = if is_secure { "; Secure" } else { "" };
    format!(
        "{NAME}: {text}\r\nSet-Cookie: {NAME}={text}; Path=/; Max-Age={ttl_s}; HttpOnly; SameSite=Lax{secure}\r\n"
    )
}

/// The trace that the node was told of.
fn trace_of(fields: &[Field<'_>]) -> Option<[u8; 16]> {
    let (trace, _) = parse_traceparent(tenfold_http1::find(fields, "traceparent")?)?;
    let mut bytes = [0; 16];
    for (byte, pair) in bytes.iter_mut().zip(trace.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{OwnWrites, SealKey};

    const NOW: u64 = 1_700_000_000_000;

    fn seal() -> Seal {
        let key = Some(SealKey::new(b"a key of sixteen"));
        Seal::new(&OwnWrites { key, ..OwnWrites::default() }).expect("a key")
    }

    fn text(lsn: u64) -> String {
        seal().write(&Token { system: 7, timeline: 1, lsn, until_ms: 0, issued_ms: NOW })
    }

    fn brought<'f>(fields: &[Field<'f>]) -> (Option<u64>, bool, Vec<(String, String)>) {
        let brought = Brought::of(fields, &seal(), NOW);
        let kept = if brought.rewrites() { brought.fields(fields) } else { fields.iter().copied().collect() };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let kept = kept.iter().map(|(name, value)| (text(name), text(value))).collect();
        (brought.token.map(|token| token.lsn), brought.refused, kept)
    }

    fn cookies(line: &str) -> (Option<u64>, bool, Vec<(String, String)>) {
        brought(&[(b"Cookie", line.as_bytes())])
    }

    #[test]
    fn our_cookie_leaves_and_the_others_stay() {
        let token = text(5);
        let cookie = |line: &str| vec![("Cookie".to_owned(), line.to_owned())];
        assert_eq!(cookies(&format!("a=b; {NAME}={token}; c=d")), (Some(5), false, cookie("a=b; c=d")));
        assert_eq!(cookies(&format!("{NAME}={token}")), (Some(5), false, Vec::new()));
        assert_eq!(cookies("a=b"), (None, false, cookie("a=b")));
        assert_eq!(cookies(&format!("My{NAME}=x")), (None, false, cookie(&format!("My{NAME}=x"))));
        let line = format!("{NAME}=forged");
        let fields: [Field<'_>; 3] = [(b"Cookie", b"a=b"), (b"Accept", b"*/*"), (b"cookie", line.as_bytes())];
        let (found, refused, kept) = brought(&fields);
        assert_eq!((found, refused, kept.len()), (None, true, 2));
    }

    #[test]
    fn of_several_tokens_the_highest_counts_and_few_are_looked_at() {
        let (low, high) = (text(5), text(9));
        let both = format!("{NAME}={high}; {NAME}={low}");
        assert_eq!(cookies(&both).0, Some(9));
        let field: [Field<'_>; 2] = [(b"tenfold-position", low.as_bytes()), (b"Cookie", both.as_bytes())];
        assert_eq!(brought(&field).0, Some(9));
        let many = format!("{}{NAME}={high}", format!("{NAME}=x; ").repeat(5_000));
        assert_eq!(cookies(&many).0, None);
    }

    #[test]
    fn the_trace_is_the_one_the_node_was_told() {
        let value = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let trace = trace_of(&[(b"traceparent", value)]).expect("a trace");
        assert_eq!((trace[0], trace[15]), (0x0a, 0x9c));
        assert_eq!(trace_of(&[(b"traceparent", b"00-x")]), None);
    }
}
