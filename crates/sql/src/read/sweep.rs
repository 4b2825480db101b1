//! The sweep: every name in a statement, wherever it stands, and what it could be.
//!
//! **Intuition.** A full parser would know which names are tables and which are functions. It isn't needed: what is
//! asked is whether anything risky *may* be called or touched, and the risky names are few. So every `name(` counts as
//! a call, every name as a relation, and only where a name is found nowhere does its place decide whether it was
//! certainly a call of something unknown.
//!
//! **Mechanism.** One pass over the tokens with the one before in view. `set_config` is read with its arguments, since
//! what it sets, and for how long, is in them.
//!
//! **Failure.** A mistaken column costs an effect too many, never one too few: the only names passed over are
//! reserved words, and places where a call cannot stand.

use super::Mode;
use super::cursor::{Cursor, is_word};
use super::facts::{Call, Facts, Form, Mention, setting_name};
use super::outline::outline;
use crate::effects::Effects;
use crate::ident::{Ident, literal};
use crate::keyword::{Category, category};
use crate::lex::{Kind, Token};

/// Stands for a name that a function makes at run time, where its statement is read as a template.
pub(crate) const ANY_NAME: &str = "tenfold_any_name";

/// Nested WITH clauses told apart; within deeper ones every doubtful name counts as a call.
const WITHS_MAX: usize = 32;
/// Bytes of names and values of one statement that are searched for a name; about 2 ns each.
const SEARCHED_BYTES_MAX: usize = 64 * 1024;
/// Calls of `set_config` read with their arguments; they may nest, so that each costs its length.
const SET_CONFIGS_MAX: usize = 16;

/// Gathers names and verbs of `cursor` into `facts`.
pub(crate) fn sweep(cursor: Cursor<'_>, mode: Mode, facts: &mut Facts) {
    let mut sweep = Sweep { cursor, mode, facts, at: 0, depth: 0, withs: Vec::new() };
    while sweep.at < cursor.tokens.len() {
        sweep.token();
        sweep.at += 1;
    }
    facts.looked_at(cursor.tokens.len());
    outline(cursor, mode, facts);
}

struct Sweep<'a, 'f> {
    cursor: Cursor<'a>,
    mode: Mode,
    facts: &'f mut Facts,
    at: usize,
    depth: usize,
    /// Nesting of each WITH whose list of queries is under way.
    withs: Vec<usize>,
}

impl Sweep<'_, '_> {
    fn before(&self, back: usize) -> Option<Token> {
        self.cursor.tokens.get(self.at.checked_sub(back)?).copied()
    }

    fn is_before(&self, back: usize, word: &str) -> bool {
        self.before(back).is_some_and(|token| is_word(self.cursor.text, token, word))
    }

    fn kind_after(&self, ahead: usize) -> Option<Kind> {
        self.cursor.kind_at(self.at + ahead)
    }

    fn token(&mut self) {
        let Some(&token) = self.cursor.tokens.get(self.at) else { return };
        match token.kind {
            Kind::Open | Kind::OpenBracket => self.depth += 1,
            Kind::Close | Kind::CloseBracket => {
                self.depth = self.depth.saturating_sub(1);
                while self.withs.last().is_some_and(|with| *with > self.depth) {
                    self.withs.pop();
                }
            }
            Kind::Op => {
                let operator = token.of(self.cursor.text);
                self.operator(if operator == b"!=" { b"<>" } else { operator });
            }
            kind if kind.is_name() => self.name(token),
            _ => {}
        }
    }

    fn operator(&mut self, operator: &[u8]) {
        self.facts.operators.push(Ident::exact(operator));
    }

    /// Operators that the grammar looks for by their signs where others stand: whatever schema has them.
    fn implied_operators(&mut self, word: &[u8]) {
        let implied: &[&str] = match word {
            b"in" => &["=", "<>"],
            b"between" => &[">=", "<=", "<", ">"],
            b"like" => &["~~", "!~~"],
            b"ilike" => &["~~*", "!~~*"],
            b"similar" => &["~", "!~"],
            b"case" | b"distinct" | b"natural" | b"nullif" | b"using" => &["="],
            _ => return,
        };
        implied.iter().for_each(|operator| self.operator(operator.as_bytes()));
    }

    fn name(&mut self, token: Token) {
        let Some(ident) = Ident::of(self.cursor.text, token) else { return };
        if token.kind == Kind::QuotedUnicode {
            // Its escapes may spell any name.
            self.facts.add(Effects::UNKNOWN);
        }
        let is_qualified = self.before(1).is_some_and(|before| before.kind == Kind::Dot);
        let category = if ident.is_plain { category(ident.as_bytes()) } else { None };
        if category.is_some() && !is_qualified {
            self.keyword(&ident);
            self.implied_operators(ident.as_bytes());
        }
        if category == Some(Category::Reserved) && !is_qualified {
            return;
        }
        let name = ident.as_bytes();
        if name == b"pg_temp" || name.starts_with(b"pg_temp_") {
            self.facts.add(Effects::TEMP);
        }
        let schema = self.qualifier(is_qualified);
        let is_type = self.may_be_type(is_qualified);
        self.facts.mentions.push(Mention { name: ident, schema, is_type });
        match self.kind_after(1) {
            Some(Kind::Open) => self.called(ident, category, schema, is_qualified),
            Some(Kind::Dot) => {}
            _ if is_qualified => self.facts.call(ident, Form::Attribute),
            _ => {}
        }
    }

    /// Whether the name here may be a type's: after a cast's sign or AS, before a literal, or after a column's name.
    fn may_be_type(&self, is_qualified: bool) -> bool {
        let back = if is_qualified { self.chain_start() } else { 1 };
        let is_before = self.before(back).is_some_and(|before| match before.kind {
            Kind::Typecast | Kind::Quoted | Kind::QuotedUnicode => true,
            Kind::Word => {
                let word = before.of(self.cursor.text).to_ascii_lowercase();
                word == b"as"
                    || !matches!(category(&word), Some(Category::Reserved | Category::TypeOrFunction))
            }
            _ => false,
        });
        is_before || self.kind_after(1).is_some_and(Kind::is_value)
    }

    /// The name before the dot before this one.
    fn qualifier(&self, is_qualified: bool) -> Option<Ident> {
        let before = self.before(2).filter(|token| is_qualified && token.kind.is_name())?;
        Ident::of(self.cursor.text, before)
    }

    /// Words that say what kind of statement this is, or part of it.
    fn keyword(&mut self, ident: &Ident) {
        match ident.as_bytes() {
            b"current_timestamp" | b"current_date" | b"current_time" | b"localtime" | b"localtimestamp" => {
                self.facts.binds = true;
            }
            b"update" if self.is_before(1, "for") || self.is_before(1, "key") => self.facts.locks = true,
            b"share" if self.is_before(1, "for") || self.is_before(1, "key") => self.facts.locks = true,
            // Of a query string it is the first word, or a name.
            b"truncate" if self.mode == Mode::Query && self.at > 0 => {}
            b"insert" | b"update" | b"delete" | b"merge" | b"truncate" => self.facts.writes = true,
            b"into" => self.into(),
            b"with" => self.with(),
            b"select" | b"values" | b"table" => self.end_with(),
            _ => {}
        }
        if matches!(ident.as_bytes(), b"insert" | b"update" | b"delete" | b"merge") {
            self.end_with();
        }
    }

    /// SELECT … INTO makes a table; INSERT INTO and MERGE INTO do not, and in a function's body it sets variables.
    fn into(&mut self) {
        if self.mode == Mode::Plpgsql || self.is_before(1, "insert") || self.is_before(1, "merge") {
            return;
        }
        self.facts.into = true;
        let mut target = self.cursor;
        target.tokens = target.tokens.get(self.at + 1..).unwrap_or_default();
        let _ = target.eat("local") || target.eat("global");
        if target.is_any(&["temp", "temporary"]) {
            self.facts.add(Effects::TEMP);
        }
    }

    /// WITH name AS (…), or WITH name (columns) AS (…): from here to the statement's verb commas part queries.
    fn with(&mut self) {
        let after = self.at + 1 + usize::from(self.cursor.is_at(self.at + 1, "recursive"));
        let is_list = self.cursor.kind_at(after).is_some_and(Kind::is_name)
            && (self.cursor.is_at(after + 1, "as") || self.cursor.kind_at(after + 1) == Some(Kind::Open));
        if is_list && self.withs.len() < WITHS_MAX {
            self.withs.push(self.depth);
        }
    }

    fn end_with(&mut self) {
        if self.withs.last() == Some(&self.depth) {
            self.withs.pop();
        }
    }

    /// A name before an opening bracket.
    fn called(&mut self, name: Ident, category: Option<Category>, schema: Option<Ident>, is_qualified: bool) {
        if category == Some(Category::ColumnName) && !is_qualified {
            return;
        }
        match name.as_bytes() {
            b"set_config" => {
                // One of the user's own may have effects, too.
                self.facts.calls.push(Call { name, schema, form: Form::Attribute });
                return self.set_config();
            }
            b"current_setting" => self.current_setting(),
            b"now" | b"transaction_timestamp" | b"age" => self.facts.binds = true,
            _ => {}
        }
        let back = self.chain_start();
        if self.is_before(back, "into") {
            return;
        }
        // `LEFT JOIN (SELECT …)` calls nothing named join, unless there is one; nor does `NOT ILIKE (…)`.
        let is_joined =
            name.is_word("join") && self.before(1).is_some_and(|before| before.kind == Kind::Word);
        let is_syntax = (is_joined && !self.is_before(1, "select"))
            || (name.is_word("ilike") && self.is_before(1, "not"));
        let is_keyword = (category == Some(Category::Unreserved) || is_syntax) && !is_qualified;
        let is_certain = self.mode == Mode::Query && !is_keyword && self.call_may_follow(back);
        let form = if is_certain { Form::Certain } else { Form::Perhaps };
        self.facts.calls.push(Call { name, schema, form });
    }

    /// How far back the token before `a.b.name` is.
    fn chain_start(&self) -> usize {
        let mut back = 1;
        while self.before(back).is_some_and(|token| token.kind == Kind::Dot)
            && self.before(back + 1).is_some_and(|token| token.kind.is_name())
        {
            back += 2;
        }
        back
    }

    /// Whether a call can stand after the token `back` tokens ago.
    fn call_may_follow(&self, back: usize) -> bool {
        let Some(before) = self.before(back) else { return true };
        match before.kind {
            Kind::Word => self.call_may_follow_word(before),
            Kind::Quoted | Kind::QuotedUnicode | Kind::Close | Kind::CloseBracket | Kind::Typecast => false,
            Kind::Comma => {
                // The next query of a WITH list: `), name (columns) AS`.
                let in_with = self.withs.last() == Some(&self.depth);
                !(in_with && self.before(back + 1).is_some_and(|token| token.kind == Kind::Close))
            }
            kind => !kind.is_value(),
        }
    }

    fn call_may_follow_word(&self, before: Token) -> bool {
        const NOT_BEFORE_CALLS: [&str; 7] =
            ["as", "table", "references", "copy", "with", "recursive", "only"];
        let word = before.of(self.cursor.text).to_ascii_lowercase();
        let is_keyword = category(&word).is_some();
        is_keyword && !NOT_BEFORE_CALLS.iter().any(|other| other.as_bytes() == word)
    }

    /// `current_setting(name)`, or with a second argument.
    fn current_setting(&mut self) {
        self.facts.setting_reads += 1;
        self.facts.needs_text = true;
        let argument = self.cursor.tokens.get(self.at + 2).copied();
        // The server prints its type behind it.
        let is_text = self.kind_after(3) == Some(Kind::Typecast) && self.cursor.is_at(self.at + 4, "text");
        let after = self.kind_after(if is_text { 5 } else { 3 });
        let is_alone = matches!(after, Some(Kind::Close | Kind::Comma));
        let name = argument.filter(|_| is_alone).and_then(|token| literal(self.cursor.text, token));
        self.facts.read_setting(name.as_deref());
    }

    /// `set_config(name, value, is_local)`.
    fn set_config(&mut self) {
        self.facts.set_configs += 1;
        self.facts.needs_text = true;
        if self.facts.set_configs > SET_CONFIGS_MAX {
            return self.facts.setting(None);
        }
        let mut cursor = self.cursor;
        cursor.tokens = cursor.tokens.get(self.at + 1..).unwrap_or_default();
        let Some(mut arguments) = cursor.parenthesised() else { return self.facts.setting(None) };
        let text = arguments.text;
        let mut next = || {
            let argument = arguments.until(|cursor| cursor.kind() == Some(Kind::Comma));
            arguments.bump();
            argument
        };
        let (name, value, is_local) = (next(), next(), next());
        self.facts.looked_at(self.cursor.tokens.len() - self.at);
        if is_local.tokens.first().is_some_and(|token| is_local.tokens.len() == 1 && is_true(text, *token)) {
            return;
        }
        let name = match name.tokens {
            [token] => literal(text, *token).filter(|name| !holds(name, ANY_NAME)),
            _ => None,
        };
        let name = name.and_then(|name| setting_name(&name));
        let is_path = name.as_deref() == Some("search_path");
        if is_path && name_temp(text, value.tokens.iter()) {
            self.facts.add(Effects::UNKNOWN);
        }
        self.facts.setting(name);
    }
}

/// TRUE, or a literal that means it.
fn is_true(text: &[u8], token: Token) -> bool {
    if token.kind == Kind::Word {
        return is_word(text, token, "true");
    }
    let value = literal(text, token).map(|value| value.to_ascii_lowercase());
    value.is_some_and(|value| [&b"t"[..], b"true", b"on", b"yes", b"1"].contains(&value.as_slice()))
}

/// Whether `needle`, in lower case, stands anywhere in `hay`, in any case.
pub(crate) fn holds(hay: &[u8], needle: &str) -> bool {
    hay.windows(needle.len()).any(|window| window.eq_ignore_ascii_case(needle.as_bytes()))
}

/// Whether the schema of temporary objects stands in any of these tokens, or may, where they are too long to search.
pub(crate) fn name_temp<'t>(text: &[u8], tokens: impl Iterator<Item = &'t Token>) -> bool {
    let mut left = SEARCHED_BYTES_MAX;
    for token in tokens {
        let token = token.of(text);
        if token.len() > left || holds(token, "pg_temp") {
            return true;
        }
        left -= token.len();
    }
    false
}
