//! BEGIN by the extended protocol, answered and held as one by simple query is, and the COMMIT or ROLLBACK straight after.
//!
//! **Intuition.** Drivers that prepare everything send BEGIN and the transaction's first statement in one batch. If that
//! BEGIN went to a server, all of their reads would go to the primary.
//!
//! **Mechanism.** Where reads are split and the client holds no server, Parse of a BEGIN is answered here; its Bind, too,
//! if Execute of the same portal is there behind it, and with that Execute the BEGIN is held (`docs/adr/0011`). What comes
//! next in the batch is then the first statement of a transaction whose BEGIN is held. COMMIT and ROLLBACK of a BEGIN that
//! still is held are answered likewise.
//!
//! **Failure.** Anything else about them (named portals, parameters, a Bind that nobody executes at once) goes to the
//! server, which says what it has to say.

use std::sync::Arc;

use tenfold_pgwire::{
    frame::{HEADER_BYTES, frontend as tag, frontend_header},
    frontend, write,
};
use tenfold_sql::{Decision, Shape};

use super::{
    Worker,
    slab::Key,
    upstream::{Message, Step},
};
impl Worker {
    /// A message of a client without a server that is about a prepared BEGIN, or its end; `None` if it is not, or not to be
    /// answered here.
    /// What was read of a Parse that is another statement's is in `decision`.
    pub(super) fn begin_prepared(
        &mut self,
        key: Key,
        message: Message,
        data: &[u8],
        decision: &mut Option<Arc<Decision>>,
    ) -> Option<Step> {
        let client = self.clients.get(key)?;
        let seat = client.seat.as_ref()?;
        let is_usual = !seat.session && seat.pool.mode() == crate::config::Mode::Transaction;
        if !is_usual || !message.is_whole() || !self.pools[seat.local].split.is_on() {
            return None;
        }
        let body = message.body(data);
        match message.header.tag {
            tag::PARSE => self.parse_begin(key, body, decision),
            tag::BIND => self.bind_begin(key, body, data.get(message.end..)?),
            tag::DESCRIBE => {
                client.bound.as_ref()?;
                let target = frontend::Describe::parse(body).ok()?.target;
                (target == frontend::Target::Portal(b"")).then(|| self.say(key, write::no_data))
            }
            tag::EXECUTE => self.execute_bound(key),
            _ => None,
        }
    }

    /// Whether a client without a server may be answered this statement here.
    fn is_answered(&self, key: Key, shape: &Shape) -> bool {
        let is_held = self.clients.get(key).is_some_and(|client| client.held.is_some());
        match shape {
            Shape::Begin(_) => !is_held,
            Shape::Commit { chain: false } | Shape::Rollback { chain: false } => is_held,
            _ => false,
        }
    }

    fn execute_bound(&mut self, key: Key) -> Option<Step> {
        let statement = self.clients.get_mut(key)?.bound.take()?;
        let decision = self.decision_of(key, &statement);
        let client = self.clients.get_mut(key)?;
        let tag = match &decision.shape {
            Shape::Begin(begin) => client.hold([statement.text(), &[0]].concat().into(), *begin),
            shape => {
                let tag = client.end_held(shape);
                self.count_transaction(key);
                tag
            }
        };
        Some(self.say(key, |out| write::command_complete(out, tag)))
    }

    fn parse_begin(&mut self, key: Key, body: &[u8], decision: &mut Option<Arc<Decision>>) -> Option<Step> {
        /// No BEGIN is longer.
        const BEGIN_BYTES_MAX: usize = 256;
        let parse = frontend::Parse::parse(body).ok()?;
        if parse.sql.len() > BEGIN_BYTES_MAX || !parse.param_types_raw.is_empty() {
            return None;
        }
        let read = decision.take().unwrap_or_else(|| self.classify(key, parse.sql));
        if !self.is_answered(key, &read.shape) {
            *decision = Some(read);
            return None;
        }
        let is_sql_name = |name: &Arc<str>| name.as_bytes() == parse.name;
        let client = self.clients.get(key)?;
        let is_taken = client.statements.get(parse.name).is_some()
            || client.image.prepared().iter().any(|(name, _)| is_sql_name(name));
        if is_taken && !parse.name.is_empty() {
            *decision = Some(read);
            return None;
        }
        let statement = self.intern(key, None, &parse, &read);
        let client = self.clients.get_mut(key)?;
        if parse.name.is_empty() {
            client.unnamed = Some(statement);
        } else if client.statements.insert(parse.name, statement).is_err() {
            return Some(self.refuse_statements(key));
        }
        Some(self.say(key, write::parse_complete))
    }

    fn bind_begin(&mut self, key: Key, body: &[u8], following: &[u8]) -> Option<Step> {
        let bind = frontend::Bind::parse(body).ok()?;
        if !bind.portal.is_empty() || bind.params_count() > 0 || !executes_at_once(following) {
            return None;
        }
        let statement = self.clients.get(key)?.statement(bind.statement)?;
        let decision = self.decision_of(key, &statement);
        if !self.is_answered(key, &decision.shape) {
            return None;
        }
        self.clients.get_mut(key)?.bound = Some(statement);
        Some(self.say(key, write::bind_complete))
    }

    fn say(&mut self, key: Key, write: impl FnOnce(&mut Vec<u8>)) -> Step {
        let mut out = self.spare();
        write(&mut out);
        self.answer(key, out)
    }
}

/// Whether Execute of the unnamed portal comes next, after Describe of it or not.
fn executes_at_once(mut following: &[u8]) -> bool {
    for _ in 0..2 {
        let Ok(Some(header)) = frontend_header(following) else { return false };
        let Some((message, rest)) = following.split_at_checked(header.len) else { return false };
        let body = message.get(HEADER_BYTES..).unwrap_or_default();
        match header.tag {
            tag::EXECUTE => return frontend::Execute::parse(body).is_ok_and(|it| it.portal.is_empty()),
            tag::DESCRIBE => {
                let describe = frontend::Describe::parse(body);
                if !describe.is_ok_and(|it| it.target == frontend::Target::Portal(b"")) {
                    return false;
                }
                following = rest;
            }
            _ => return false,
        }
    }
    false
}
