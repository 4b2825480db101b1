//! What reading a text gathers before anything is looked up: effects of its own words, and the names it mentions.
//!
//! The same reading serves a client's statement, resolved at once against a catalogue, and a function's body, resolved
//! while the catalogue is built. So nothing here knows a catalogue.

use crate::effects::Effects;
use crate::ident::Ident;

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
    /// FOR UPDATE and kin.
    pub(crate) locks: bool,
    /// SELECT INTO a new table.
    pub(crate) into: bool,
    /// A relation whose name is made at run time.
    pub(crate) any_relation: bool,
    pub(crate) calls: Vec<Call>,
    /// Names that may be relations or domains.
    pub(crate) mentions: Vec<Ident>,
    pub(crate) operators: Vec<Ident>,
}

/// What may be a call.
#[derive(Clone, Copy)]
pub(crate) struct Call {
    pub(crate) name: Ident,
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
        self.calls.push(Call { name, form });
    }
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
