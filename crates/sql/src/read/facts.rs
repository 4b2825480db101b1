//! What reading a text gathers before anything is looked up: effects of its own words, and the names it mentions.
//!
//! The same reading serves a client's statement, resolved at once against a catalogue, and a function's body, resolved
//! while the catalogue is built. So nothing here knows a catalogue.

use crate::catalogue::behind::Behind;
use crate::decision::Shape;
use crate::effects::Effects;
use crate::ident::Ident;
use crate::route::{Reason, Tables};

/// Settings named by one text; with more, none is known.
const SETTINGS_MAX: usize = 32;

/// Gathered from one text, and the literals in it that are texts themselves.
#[derive(Default)]
pub(crate) struct Facts {
    /// What the words alone say.
    pub(crate) effects: Effects,
    /// Settings that may have changed, lower case.
    pub(crate) settings: Vec<Box<str>>,
    /// Something was read out of a literal.
    pub(crate) needs_text: bool,
    /// Calls of `set_config` seen: their names are in literals that condensing may have dropped.
    pub(crate) set_configs: usize,
    /// A verb that changes rows: relations mentioned may be written.
    pub(crate) writes: bool,
    /// Definitions change: event triggers fire.
    pub(crate) defines: bool,
    /// Definitions that are made put nothing behind a name, but what other effects tell.
    pub(crate) is_plain: bool,
    /// Tables that the client itself drops, which are no definitions that others know of if they are temporary.
    pub(crate) drops: Vec<Mention>,
    /// FOR UPDATE and kin.
    pub(crate) locks: bool,
    /// SELECT INTO a new table.
    pub(crate) into: bool,
    /// A relation whose name is made at run time.
    pub(crate) any_relation: bool,
    pub(crate) calls: Vec<Call>,
    /// Names that may be relations or domains.
    pub(crate) mentions: Vec<Mention>,
    pub(crate) operators: Vec<Ident>,
    /// Relations that its verbs change.
    pub(crate) targets: Vec<Target>,
    /// A verb that changes rows of something not named where such a verb names it.
    pub(crate) any_target: bool,
    /// Relations read, as their place shows.
    pub(crate) sources: Vec<Mention>,
    /// The text was cut in the middle of statements: places show nothing, and every name may be read.
    pub(crate) is_cut: bool,
    /// Names of WITH queries, which are no relations.
    pub(crate) with_names: Vec<Ident>,
    /// Brackets that don't match, clauses out of order: the server would refuse it.
    pub(crate) is_broken: bool,
    /// A cursor may be left open in the transaction, for a FETCH to come.
    pub(crate) keeps_cursor: bool,
    /// Several statements of which one at least is no query.
    pub(crate) is_mixed: bool,
    /// A statement of a function's body that is neither a query nor a verb that changes rows.
    pub(crate) is_utility: bool,
    /// Something belongs to the transaction, like `now()`.
    pub(crate) binds: bool,
    /// Calls of `current_setting` seen, as with `set_configs`.
    pub(crate) setting_reads: usize,
    /// Tokens looked at.
    pub(crate) work: u32,
    /// A setting asked for that may differ from server to server; empty: its name is not in the text.
    pub(crate) server_setting: Option<Box<str>>,
}

/// A name that may be a relation's, with what stands before its dot.
#[derive(Clone, Copy)]
pub(crate) struct Mention {
    pub(crate) name: Ident,
    pub(crate) schema: Option<Ident>,
    /// It stands where a type may: a value of it may be made.
    pub(crate) is_type: bool,
}

/// A relation that a verb changes.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    pub(crate) mention: Mention,
    pub(crate) change: Change,
}

/// What is done to a relation's rows: what follows from each, by foreign keys, is more than from the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Change {
    Insert,
    Update,
    Delete,
}

/// What may be a call.
#[derive(Clone, Copy)]
pub(crate) struct Call {
    pub(crate) name: Ident,
    pub(crate) schema: Option<Ident>,
    pub(crate) form: Form,
}

/// How sure it is that a name is called.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// `name(` where only a call can stand: a name found nowhere is unknown.
    Certain,
    /// `name(` that may be something else (an alias with columns, a type's length, a keyword).
    Perhaps,
    /// `.name`, which calls a function of one composite argument if there is no such column.
    Attribute,
}

impl Facts {
    pub(crate) fn add(&mut self, effects: Effects) {
        self.effects |= effects;
    }

    /// Whether rows may be made of a type that no cast names: by a function that takes one for a model, by variables.
    pub(crate) fn makes_rows(&self) -> bool {
        const POPULATING: [&[u8]; 5] = [
            b"json_populate_record",
            b"json_populate_recordset",
            b"jsonb_populate_record",
            b"jsonb_populate_recordset",
            b"populate_record",
        ];
        self.is_cut
            || self.calls.iter().any(|call| POPULATING.contains(&call.name.as_bytes()))
            || self.operators.iter().any(|operator| operator.as_bytes() == b"#=")
    }

    /// Counts tokens that were looked at.
    pub(crate) fn looked_at(&mut self, tokens: usize) {
        self.work = self.work.saturating_add(u32::try_from(tokens).unwrap_or(u32::MAX));
    }

    /// A setting changes; `None`: it can't be known which.
    pub(crate) fn setting(&mut self, name: Option<Box<str>>) {
        let Some(name) = name else { return self.add(Effects::SETTINGS_UNKNOWN) };
        match &*name {
            // These last as long as the transaction, whoever sets them.
            "transaction_isolation" | "transaction_read_only" | "transaction_deferrable" => return,
            "seed" => return self.add(Effects::SEED),
            // A change of session user sets the role back to none.
            "session_authorization" => self.note("role".into()),
            _ => {}
        }
        self.add(Effects::SETTINGS);
        self.note(name);
    }

    /// Remembers a name without an effect.
    pub(crate) fn note(&mut self, name: Box<str>) {
        if self.settings.contains(&name) {
            return;
        }
        if self.settings.len() == SETTINGS_MAX {
            return self.add(Effects::SETTINGS_UNKNOWN);
        }
        self.settings.push(name);
    }

    pub(crate) fn call(&mut self, name: Ident, form: Form) {
        self.calls.push(Call { name, schema: None, form });
    }

    /// What the words alone mean for routing; `unknown` is the reason for what could not be read.
    pub(crate) fn behind(&self, unknown: Reason) -> Behind {
        let mut behind = Behind { binds: self.binds, ..Behind::default() };
        let mut add = |holds: bool, reason: Reason, name: &[u8]| {
            if holds {
                behind.add(reason, name);
            }
        };
        add(self.writes || self.any_target, Reason::Writes, b"");
        add(self.locks, Reason::Locks, b"");
        add(self.defines || self.into, Reason::Defines, b"");
        add(self.is_utility, unknown, b"");
        add(self.set_configs > 0, Reason::Session, b"set_config");
        add(self.keeps_cursor, Reason::Session, b"cursor");
        if let Some(name) = &self.server_setting {
            add(true, Reason::ServerState, name.as_bytes());
        }
        if let Some(reason) = effects_reason(self.effects, unknown) {
            add(true, reason, b"");
        }
        let is_unknown = self.effects.intersects(UNKNOWN) || self.is_utility || self.defines;
        if is_unknown {
            behind.anything();
        }
        let any_target = self.any_target || (self.writes && self.targets.is_empty());
        if any_target || (self.any_relation && self.writes) {
            behind.writes = Tables::All;
        }
        if self.any_relation {
            behind.reads = Tables::All;
        }
        behind
    }

    /// Whether definitions change that may put something behind a name.
    pub(crate) fn hide(&self, shape: &Shape) -> bool {
        let is_plain = self.is_plain && *shape == Shape::Ddl && self.effects.without(PLAIN).is_empty();
        self.effects.intersects(Effects::DDL) && !is_plain
    }

    /// Remembers a setting whose value is asked for, unless every server of the session has the same.
    pub(crate) fn read_setting(&mut self, name: Option<&[u8]>) {
        let name = name.and_then(setting_name);
        let is_session = name.as_deref().is_some_and(is_session_setting);
        if !is_session && self.server_setting.is_none() {
            self.server_setting = Some(name.unwrap_or_default());
        }
    }
}

/// What making a plain table may do besides.
const PLAIN: Effects = Effects::DDL
    .with(Effects::WRITES)
    .with(Effects::TEMP)
    .with(Effects::TEMP_DROP)
    .with(Effects::SEQUENCE_MAYBE);

/// Nothing is known of what such statements read and write.
const UNKNOWN: Effects = Effects::DOUBT.with(Effects::SQL_EXECUTE).with(Effects::DDL);

/// Why a statement with such effects needs the primary. `unknown`: what is said of those not recognised.
pub(crate) fn effects_reason(effects: Effects, unknown: Reason) -> Option<Reason> {
    const REASONS: [(Effects, Reason); 7] = [
        (Effects::DDL, Reason::Defines),
        (Effects::SEQUENCE_SET.with(Effects::SEQUENCE_READ).with(Effects::SEQUENCE_MAYBE), Reason::Sequence),
        (Effects::ADVISORY.with(Effects::ADVISORY_UNLOCK), Reason::AdvisoryLock),
        (Effects::TEMP.with(Effects::TEMP_DROP), Reason::Temporary),
        (Effects::LISTEN.with(Effects::LISTEN_READ), Reason::Channel),
        (Effects::WRITES, Reason::Writes),
        (Effects::UNSURE, Reason::UnknownFunction),
    ];
    if effects.is_empty() {
        return None;
    }
    let known =
        REASONS.into_iter().filter(|(bits, _)| effects.intersects(*bits)).map(|(_, reason)| reason).min();
    Some(known.unwrap_or(if effects.intersects(Effects::UNKNOWN) { unknown } else { Reason::Session }))
}

/// Settings whose value goes with the session to whichever server it is lent, or is the same on a primary and its
/// replicas. Custom ones, with a dot in their names, are the session's.
fn is_session_setting(name: &str) -> bool {
    const SESSION: [&str; 26] = [
        "application_name",
        "block_size",
        "bytea_output",
        "client_encoding",
        "client_min_messages",
        "datestyle",
        "default_text_search_config",
        "extra_float_digits",
        "integer_datetimes",
        "intervalstyle",
        "is_superuser",
        "lc_collate",
        "lc_ctype",
        "lock_timeout",
        "max_identifier_length",
        "role",
        "row_security",
        "search_path",
        "server_encoding",
        "server_version",
        "server_version_num",
        "session_authorization",
        "standard_conforming_strings",
        "statement_timeout",
        "timezone",
        "xmloption",
    ];
    name.contains('.') || SESSION.binary_search(&name).is_ok()
}

/// A setting's name as PostgreSQL compares it: ASCII letters without case. `None`: one that no setting has.
pub(crate) fn setting_name(name: &[u8]) -> Option<Box<str>> {
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'$');
    if name.is_empty() || !name.iter().all(is_name) {
        return None;
    }
    let folded = name.to_ascii_lowercase();
    let name = String::from_utf8(folded).ok()?;
    // Old names that PostgreSQL still takes (`map_old_guc_names` in guc.c).
    Some(match name.as_str() {
        "sort_mem" => "work_mem".into(),
        "vacuum_mem" => "maintenance_work_mem".into(),
        _ => name.into_boxed_str(),
    })
}
