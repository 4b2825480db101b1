//! From a statement's facts to its route.
//!
//! **Mechanism.** What kind of statement it is decides first: only a query, alone or explained, copied out or under a
//! cursor, may go to a replica; what is about the transaction follows it. Then everything behind its names is asked for
//! reasons against. Last, nothing may be left in the session: whoever has any effect goes to the primary, so that the
//! two readings of a statement, for what it leaves and for where it runs, have to agree before a replica sees it.

use super::Scope;
use super::cursor::Cursor;
use super::facts::{Facts, Mention, effects_reason};
use crate::catalogue::behind::Behind;
use crate::decision::Shape;
use crate::effects::Effects;
use crate::fingerprint::Reading;
use crate::hot;
use crate::lex::{Hint, Kind as TokenKind};
use crate::route::{Destination, Key, Reason, Route, Tables};

/// What a kind of statement says about where it runs.
enum Kind {
    /// It reads, unless what is behind it says otherwise.
    Query,
    Follows,
    Primary(Reason),
}

/// Kinds of statement of which it does not show what they change.
pub(super) fn may_change_anything(shape: &Shape) -> bool {
    matches!(shape, Shape::PrepareTransaction | Shape::FinishPrepared | Shape::Maintenance)
}

/// Whether a shape is one that may run on a replica.
pub(super) fn is_query(shape: &Shape) -> bool {
    matches!(kind(shape), Kind::Query) && !matches!(shape, Shape::Declare { .. } | Shape::Empty)
}

fn kind(shape: &Shape) -> Kind {
    let reason = match shape {
        Shape::Select { locking: false } | Shape::Values | Shape::Explain | Shape::Multi => {
            return Kind::Query;
        }
        Shape::Declare { hold: false } | Shape::Copy { into_table: false, stdio: true } => {
            return Kind::Query;
        }
        Shape::Empty
        | Shape::Begin(_)
        | Shape::Commit { .. }
        | Shape::Rollback { .. }
        | Shape::Savepoint(_)
        | Shape::RollbackTo(_)
        | Shape::Release(_)
        | Shape::SetTransaction
        | Shape::SetConstraints
        | Shape::Show(_)
        | Shape::Fetch
        | Shape::Move
        | Shape::CloseCursor => return Kind::Follows,
        Shape::Set(set) if set.local => return Kind::Follows,
        Shape::Select { locking: true } | Shape::Lock => Reason::Locks,
        Shape::Insert | Shape::Update | Shape::Delete | Shape::Merge => Reason::Writes,
        Shape::Copy { into_table: true, .. } => Reason::Writes,
        Shape::Copy { .. } => Reason::ServerFile,
        Shape::Do | Shape::Call => Reason::Procedure,
        Shape::Ddl => Reason::Defines,
        Shape::Maintenance => Reason::Maintenance,
        Shape::Listen(_) | Shape::Unlisten(_) | Shape::UnlistenAll | Shape::Notify(_) => Reason::Channel,
        Shape::PrepareTransaction | Shape::FinishPrepared => Reason::TwoPhase,
        Shape::Set(_)
        | Shape::SetSessionCharacteristics
        | Shape::Reset(_)
        | Shape::ResetAll
        | Shape::Discard(_)
        | Shape::Prepare { .. }
        | Shape::Execute(_)
        | Shape::Deallocate(_)
        | Shape::DeallocateAll
        | Shape::Declare { .. } => Reason::Session,
        Shape::Other => Reason::NotUnderstood,
    };
    Kind::Primary(reason)
}

/// The route of a text, `behind` being all that its words and names hide. `facts` are resolved.
pub(super) fn route(facts: &Facts, shape: &Shape, behind: Behind, reading: Reading) -> Route {
    let Behind { hazard, reads, writes, binds, lookups } = behind;
    let work = facts.work.saturating_add(lookups);
    let mut route =
        Route { destination: Destination::Follows, culprit: None, reads, writes, binds, key: None, work };
    let hint = reading.hint;
    match kind(shape) {
        Kind::Follows => {
            route.reads = Tables::NONE;
            route.writes = Tables::NONE;
        }
        Kind::Primary(reason) => {
            route.destination = Destination::Primary(reason);
            if reason == Reason::NotUnderstood {
                (route.reads, route.writes) = (Tables::All, Tables::All);
            }
        }
        Kind::Query => {
            let mut against = hazard.map(|hazard| (hazard.reason, Some(hazard.name)));
            let mut object = |holds: bool, reason: Reason| {
                if holds && against.as_ref().is_none_or(|(other, _)| reason < *other) {
                    against = Some((reason, None));
                }
            };
            object(facts.is_mixed, Reason::Multi);
            object(facts.is_broken, Reason::NotUnderstood);
            object(facts.setting_reads > 0 && reading.is_condensed, Reason::ServerState);
            // That rows are written or locked has told its reason; it counts if nothing else does.
            let left = effects_reason(facts.effects.without(Effects::WRITES), Reason::UnreadableFunction);
            object(left.is_some(), left.unwrap_or(Reason::NotUnderstood));
            if against.is_none() && facts.effects.intersects(Effects::WRITES) {
                against = Some((Reason::Writes, None));
            }
            // What may be left in a session is not a hint's to overrule: it would be left on a replica.
            let hint = hint.filter(|_| facts.effects.is_empty());
            route.query(against, hint);
            route.binds |= matches!(shape, Shape::Declare { .. });
        }
    }
    if facts.effects.intersects(Effects::DOUBT) {
        route.writes = Tables::All;
    }
    if hint == Some(Hint::Primary) && route.destination == Destination::Replica {
        route.destination = Destination::Primary(Reason::Hint);
        route.culprit = None;
    }
    route
}

impl Route {
    /// A query goes to a replica if nothing is against it.
    fn query(&mut self, against: Option<(Reason, Option<Box<str>>)>, hint: Option<Hint>) {
        self.destination = match against {
            None => Destination::Replica,
            Some((reason, _)) if hint == Some(Hint::Replica) && reason.yields_to_hint() => {
                Destination::Replica
            }
            Some((reason, name)) => {
                self.culprit = name.filter(|name| !name.is_empty());
                Destination::Primary(reason)
            }
        };
    }
}

/// Whether a text is one SELECT, UPDATE or DELETE with nothing between its table and its WHERE, so that a condition is
/// about that table's own rows, before anything is made of them.
fn picks_rows_of_one_table(text: Cursor<'_>) -> bool {
    const HEADS: [&str; 8] = ["select", "update", "delete", "insert", "merge", "with", "values", "table"];
    const MORE: [&str; 12] = [
        "join",
        "over",
        "union",
        "intersect",
        "except",
        "case",
        "between",
        "lateral",
        "using",
        "cube",
        "rollup",
        "for",
    ];
    let (mut heads, mut froms) = (0, 0);
    let mut rest = text;
    while !rest.is_done() {
        heads += usize::from(rest.is_any(&HEADS));
        froms += usize::from(rest.is("from"));
        let ends = rest.kind() == Some(TokenKind::Semicolon);
        if rest.is_any(&MORE) {
            return false;
        }
        rest.bump();
        if ends && !rest.is_done() {
            return false;
        }
    }
    let mut clause = text;
    let is_update = clause.is("update");
    if heads != 1 || froms != usize::from(!is_update) {
        return false;
    }
    clause.until(|cursor| cursor.is("from") || cursor.is("update"));
    clause.bump();
    clause.eat("only");
    if clause.name().is_none() {
        return false;
    }
    while clause.eat_kind(TokenKind::Dot) {
        clause.name();
    }
    clause.eat_operator(b"*");
    let ends = |clause: &Cursor<'_>| clause.is(if is_update { "set" } else { "where" });
    if !ends(&clause) {
        clause.eat("as");
        clause.name();
    }
    ends(&clause)
}

/// The value that picks the rows of a statement about one table. `facts` are not resolved yet.
pub(super) fn key(
    text: Cursor<'_>,
    ordinals: &[Option<u32>],
    facts: &Facts,
    shape: &Shape,
    scope: Scope<'_>,
) -> Option<Key> {
    let (table, is_write) = match (shape, &*facts.sources, &*facts.targets) {
        (Shape::Select { .. }, [table], []) => (table, false),
        (Shape::Update | Shape::Delete, [], [target]) => (&target.mention, true),
        _ => return None,
    };
    if !picks_rows_of_one_table(text) {
        return None;
    }
    let (column, value) = hot::named_key(text, ordinals)?;
    if !scope.catalogue.is_keyed(table, &column, is_write, facts, scope.path) {
        return None;
    }
    // A column that is assigned to is named twice.
    let is_column = |mention: &&Mention| mention.name.as_bytes() == column.as_bytes();
    if is_write && facts.mentions.iter().filter(is_column).count() > 1 {
        return None;
    }
    Some(Key { column, value })
}
