//! What a client hears when the pooler itself says no.
//!
//! **Mechanism.** An error in the middle of things has to leave the conversation in step: after a simple query an error
//! and ReadyForQuery, within a series an error and silence up to Sync. Errors that end a connection are FATAL.

use tenfold_pgwire::{
    SqlState,
    backend::{Report, TransactionStatus},
    frame::{HEADER_BYTES, frontend as tag, frontend_header},
    write::{self, Severity},
};

use super::{Worker, client::State, slab::Key, upstream::Step};
use crate::refusal::Refusal;

/// What is said of a server that said nothing.
pub(super) const SERVER_LOST: &str = "the server closed the connection unexpectedly";

/// What is said of a server that does not answer what the pooler itself asks of it.
pub(super) const SERVER_HANGS: &str = "the server did not answer in time (connect_timeout)";

/// What BEGIN is told in statement mode.
pub(super) const NO_TRANSACTIONS: &str = "transaction blocks are not allowed in statement mode";

/// Why somebody is not let in.
#[derive(Clone, Debug)]
pub(super) struct Denied {
    pub(super) refusal: Refusal,
    pub(super) text: String,
    pub(super) hint: Option<&'static str>,
}

impl From<(Refusal, String)> for Denied {
    fn from((refusal, text): (Refusal, String)) -> Self {
        Self { refusal, text, hint: None }
    }
}

impl Worker {
    /// A FATAL error, and the end of the client.
    pub(super) fn refuse_and_end(&mut self, key: Key, refusal: Refusal, text: &str) {
        self.deny(key, &Denied { refusal, text: text.into(), hint: None });
    }

    /// The same, with what may help.
    pub(super) fn deny(&mut self, key: Key, denied: &Denied) {
        let Denied { refusal, text, hint } = denied;
        self.shared.counters.refused(self.index, *refusal);
        self.log_refusal(key, *refusal, text);
        let mut out = Vec::new();
        let report = write::Report { hint: *hint, ..write::Report::fatal(sqlstate(*refusal), text) };
        report.append_error(&mut out);
        if self.send_client(key, &out) {
            self.client_gone(key);
        }
    }

    /// An error instead of the exchange that a waiting client has begun; the client stays, unless it was told that its
    /// transaction has begun: it would go on outside of any.
    pub(super) fn refuse_exchange(&mut self, key: Key, error: &[u8]) {
        let Some(client) = self.clients.get_mut(key) else { return };
        if client.held.is_some() {
            self.end_with(key, error);
            return;
        }
        client.state = State::Idle;
        client.since = self.now;
        client.behind = None;
        if let Some(permit) = client.turn.take() {
            self.leave_row(permit);
        }
        let Some(client) = self.clients.get_mut(key) else { return };
        let Ok(Some(header)) = frontend_header(&client.stash) else {
            client.skipping = true;
            return;
        };
        let mut out = Vec::new();
        write_error(&mut out, error, false);
        if matches!(header.tag, tag::QUERY | tag::FUNCTION_CALL) {
            write::ready_for_query(&mut out, TransactionStatus::Idle);
            let there = header.len.min(client.stash.len());
            client.stash.drain(..there);
            client.passing = header.len - there;
        } else {
            client.skipping = true;
        }
        if self.send_client(key, &out) {
            if let Some(client) = self.clients.get_mut(key) {
                client.unread = true;
            }
            self.resume_soon(key);
        }
    }

    /// Everyone who waits for a pool gets the error that keeps it from opening connections.
    pub(super) fn refuse_waiters(&mut self, local: usize, error: &[u8]) {
        let body = error.get(HEADER_BYTES..).unwrap_or_default().to_vec();
        while let Some(waiter) = self.pools[local].waiters.pop() {
            if let Some(permit) = waiter.hot {
                self.leave_row(permit);
            }
            let Some(client) = self.clients.get(waiter.key) else { continue };
            if client.is_logged_in() {
                self.refuse_exchange(waiter.key, &body);
            } else {
                self.end_with(waiter.key, &body);
            }
        }
        self.say_waiting(local);
    }

    /// A server's own error as FATAL, and the end of the client.
    pub(super) fn end_with(&mut self, key: Key, body: &[u8]) {
        let mut out = Vec::new();
        write_error(&mut out, body, true);
        if self.send_client(key, &out) {
            self.client_gone(key);
        }
    }

    /// A transaction of several statements, in statement mode.
    pub(super) fn refuse_transaction(&mut self, key: Key) -> Step {
        self.shared.counters.refused(self.index, Refusal::StatementMode);
        let mut out = Vec::new();
        write_error(&mut out, &error_body(Refusal::StatementMode, NO_TRANSACTIONS), false);
        write::ready_for_query(&mut out, TransactionStatus::Idle);
        if self.send_client(key, &out) { Step::Used } else { Step::Gone }
    }

    /// More prepared statements than one client may keep.
    pub(super) fn refuse_statements(&mut self, key: Key) -> Step {
        let text = "too many prepared statements, or too large ones, for one client; close some";
        self.refuse_and_end(key, Refusal::StatementsMax, text);
        Step::Gone
    }
}

/// The body of an error of ours.
pub(super) fn error_body(refusal: Refusal, text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    write::Report::error(sqlstate(refusal), text).append_error(&mut out);
    out.drain(..HEADER_BYTES);
    out
}

/// Writes an error with another severity: FATAL where it ends the connection, ERROR where it does not.
pub(super) fn write_error(out: &mut Vec<u8>, body: &[u8], is_fatal: bool) {
    let severity = if is_fatal { Severity::Fatal } else { Severity::Error };
    let Ok(report) = Report::parse(body) else {
        let lost = error_body(Refusal::ServerLost, SERVER_LOST);
        write::message::build(out, b'E', |out| out.extend_from_slice(&lost));
        return;
    };
    write::message::build(out, b'E', |out| {
        for (kind, value) in report.fields() {
            out.push(kind);
            let value = if matches!(kind, b'S' | b'V') { severity.as_str().as_bytes() } else { value };
            out.extend_from_slice(value);
            out.push(0);
        }
        out.push(0);
    });
}

/// The text of a whole ErrorResponse, or of its body.
pub(super) fn message_of(error: &[u8]) -> String {
    let body = if error.first() == Some(&b'E') && error.get(1) == Some(&0) {
        error.get(HEADER_BYTES..).unwrap_or_default()
    } else {
        error
    };
    Report::parse(body).map_or_else(
        |_| "the server refused the login".to_owned(),
        |report| String::from_utf8_lossy(report.message()).into_owned(),
    )
}

/// A notice, which ends nothing.
pub(super) fn write_notice(out: &mut Vec<u8>, text: &str) {
    write::Report::new(Severity::Notice, SqlState::parse(b"00000").expect("five digits"), text)
        .append_notice(out);
}

fn sqlstate(refusal: Refusal) -> SqlState {
    SqlState::parse(refusal.sqlstate().as_bytes()).expect("Refusal::sqlstate() are codes")
}
