//! The outline of a statement: its clauses, what it reads from, and what its verbs change.
//!
//! **Intuition.** Which names are tables shows in where they stand: after FROM, JOIN, INTO, UPDATE. And a text whose
//! clauses are out of order, or whose brackets don't match, is none that this reader may claim to have understood.
//!
//! **Mechanism.** One pass with a stack of bracket levels. A level that has a verb has clauses in the grammar's order;
//! FROM in a level without one (`extract(year FROM …)`) is none. Names at the places of relations become sources, those
//! of INSERT INTO, UPDATE, DELETE FROM, MERGE INTO and TRUNCATE become targets.
//!
//! **Failure.** A verb without a name after it changes anything (`any_target`). Deeper than [`LEVELS_MAX`], or outside
//! the order of clauses, the statement is broken; the server would refuse it too, or it is newer than this program.

use super::Mode;
use super::cursor::{Cursor, is_word};
use super::facts::{Change, Facts, Mention, Target};
use crate::ident::Ident;
use crate::keyword::{Category, category};
use crate::lex::{Kind, Token};

/// Brackets within brackets that are told apart.
const LEVELS_MAX: usize = 128;
/// Lists of columns looked past for the AS of a WITH query: each costs its length.
const WITH_COLUMNS_MAX: usize = 16;
/// Queries of WITH in one text: every relation is looked for among them.
const WITH_NAMES_MAX: usize = 64;
/// Relations read by one text; with more, any may be.
const SOURCES_MAX: usize = 256;

/// What one level of brackets has seen.
#[derive(Clone, Copy, Default)]
struct Level {
    /// What opened it.
    opener: Option<Kind>,
    /// Rank of the clause under way; 0: none, this level is no statement.
    clause: u8,
    /// Between FROM and the next clause.
    in_from: bool,
    /// A relation may stand next.
    expects_source: bool,
    /// A verb that changes rows: USING names relations, and clauses come in other orders.
    is_changing: bool,
    /// `OPERATOR(…)`, which ends with one.
    is_operator: bool,
}

const NO_CLAUSE: u8 = 0;
const VERB: u8 = 1;
const FROM: u8 = 2;
const WHERE: u8 = 3;
const GROUP: u8 = 4;
const HAVING: u8 = 5;
const WINDOW: u8 = 6;
const ORDER: u8 = 7;
const LIMIT: u8 = 8;

struct Outline<'a, 'f> {
    cursor: Cursor<'a>,
    mode: Mode,
    facts: &'f mut Facts,
    at: usize,
    level: Level,
    outer: Vec<Level>,
    /// Brackets opened beyond what is told apart.
    deeper: usize,
    /// Lists of columns looked past.
    lists: usize,
    /// Where `OPERATOR(…)` last ended, behind which an operand follows.
    operator_end: Option<usize>,
}

/// Gathers sources, targets and names of WITH queries of `cursor` into `facts`.
pub(crate) fn outline(cursor: Cursor<'_>, mode: Mode, facts: &mut Facts) {
    let level = Level::default();
    let mut outline = Outline {
        cursor,
        mode,
        facts,
        at: 0,
        level,
        outer: Vec::new(),
        deeper: 0,
        lists: 0,
        operator_end: None,
    };
    while outline.at < cursor.tokens.len() {
        outline.token();
        outline.at += 1;
    }
    outline.facts.looked_at(cursor.tokens.len());
    let is_closed = outline.outer.is_empty() && outline.deeper == 0;
    outline.facts.is_broken |= !is_closed || outline.ends_open();
}

impl Outline<'_, '_> {
    fn kind(&self, ahead: usize) -> Option<Kind> {
        self.cursor.kind_at(self.at + ahead)
    }

    fn is(&self, ahead: usize, word: &str) -> bool {
        self.cursor.is_at(self.at + ahead, word)
    }

    fn is_any(&self, ahead: usize, words: &[&str]) -> bool {
        words.iter().any(|word| self.is(ahead, word))
    }

    fn before(&self, back: usize) -> Option<Token> {
        self.cursor.tokens.get(self.at.checked_sub(back)?).copied()
    }

    fn is_before(&self, back: usize, words: &[&str]) -> bool {
        let text = self.cursor.text;
        self.before(back).is_some_and(|token| words.iter().any(|word| is_word(text, token, word)))
    }

    fn broken(&mut self) {
        self.facts.is_broken = true;
    }

    /// Whether the text stops where something must follow. Called behind its last token.
    fn ends_open(&self) -> bool {
        self.is_open_before() && !self.cursor.is_done()
    }

    /// Whether something must follow the token before: an operator, or a word that begins or joins.
    fn is_open_before(&self) -> bool {
        let Some(before) = self.before(1) else { return true };
        match before.kind {
            Kind::Comma | Kind::Dot | Kind::Typecast => true,
            // `ORDER BY a USING <`
            Kind::Op if self.is_before(2, &["using"]) => false,
            Kind::Op => before.of(self.cursor.text) != b"*" || self.is_product(),
            Kind::Word => self.is_open_word(),
            _ => false,
        }
    }

    /// Whether the star before multiplies: all columns follow a comma, a bracket, a dot or a keyword, and a table may
    /// have one behind it.
    fn is_product(&self) -> bool {
        let Some(factor) = self.before(2) else { return false };
        let is_word = |factor: Token| category(&factor.of(self.cursor.text).to_ascii_lowercase()).is_none();
        !self.level.in_from
            && match factor.kind {
                Kind::Word => self.mode == Mode::Query && is_word(factor),
                Kind::CloseBracket | Kind::Quoted => self.mode == Mode::Query,
                kind => kind.is_value(),
            }
    }

    /// Whether the word before is one that something must follow, and not a name behind AS or a dot.
    fn is_open_word(&self) -> bool {
        const OPEN: [&str; 25] = [
            "and",
            "between",
            "case",
            "collate",
            "else",
            "except",
            "from",
            "having",
            "ilike",
            "in",
            "intersect",
            "is",
            "join",
            "like",
            "limit",
            "natural",
            "not",
            "offset",
            "on",
            "or",
            "similar",
            "then",
            "union",
            "when",
            "where",
        ];
        let is_named =
            self.is_before(2, &["as"]) || self.before(2).is_some_and(|before| before.kind == Kind::Dot);
        self.mode == Mode::Query && !is_named && self.is_before(1, &OPEN)
    }

    /// Whether the token before is the end of an expression.
    fn is_ended_before(&self) -> bool {
        let Some(before) = self.before(1) else { return false };
        match before.kind {
            Kind::Close if self.operator_end.is_some_and(|end| end + 1 == self.at) => false,
            Kind::Quoted | Kind::QuotedUnicode | Kind::Close | Kind::CloseBracket => true,
            Kind::Word => {
                let is_named = self.before(2).is_some_and(|before| before.kind == Kind::Dot);
                is_named || category(&before.of(self.cursor.text).to_ascii_lowercase()).is_none()
            }
            kind => kind.is_value(),
        }
    }

    /// Whether a name here, which is no keyword, comes where nothing can have one.
    fn is_stray(&self, token: Token) -> bool {
        let is_keyword =
            token.kind == Kind::Word && category(&token.of(self.cursor.text).to_ascii_lowercase()).is_some();
        self.mode == Mode::Query
            && !is_keyword
            && !self.level.in_from
            && !self.level.is_changing
            && self.level.clause >= WHERE
            && self.is_ended_before()
    }

    /// Whether a bracket here can be the subscript of something, or of ARRAY.
    fn is_subscript(&self) -> bool {
        let Some(before) = self.before(1) else { return false };
        match before.kind {
            Kind::Comma | Kind::OpenBracket => self.level.opener == Some(Kind::OpenBracket),
            Kind::Word => {
                let word = before.of(self.cursor.text).to_ascii_lowercase();
                // In lists these count as values, of which any may have one as far as fingerprints tell.
                let is_value =
                    [&b"array"[..], b"null", b"true", b"false", b"default"].contains(&word.as_slice());
                is_value || category(&word) != Some(Category::Reserved)
            }
            kind => kind.is_name() || kind.is_value() || matches!(kind, Kind::Close | Kind::CloseBracket),
        }
    }

    fn token(&mut self) {
        let Some(&token) = self.cursor.tokens.get(self.at) else { return };
        match token.kind {
            Kind::Open | Kind::OpenBracket => return self.open(token.kind),
            Kind::Close => return self.close(Kind::Open),
            Kind::CloseBracket => return self.close(Kind::OpenBracket),
            Kind::Comma => {
                self.level.expects_source = self.level.in_from;
                return self.follows_open();
            }
            Kind::Dot => return,
            Kind::DotDot | Kind::Junk => self.broken(),
            Kind::Word if self.is_keyword_place() => return self.word(token),
            kind if kind.is_name() => return self.name(token),
            kind if kind.is_value() && self.before(1).is_some_and(|before| before.kind.is_value()) => {
                self.broken();
            }
            _ => {}
        }
        self.level.expects_source = false;
    }

    /// A comma or closing bracket may not come right after a comma or an operator.
    fn follows_open(&mut self) {
        self.facts.is_broken |= self.is_open_before();
    }

    fn open(&mut self, kind: Kind) {
        if self.outer.len() == LEVELS_MAX {
            self.deeper += 1;
            return self.broken();
        }
        self.facts.is_broken |= kind == Kind::OpenBracket && !self.is_subscript();
        let is_joined = self.level.in_from && self.level.expects_source && kind == Kind::Open;
        self.level.expects_source = false;
        self.outer.push(self.level);
        self.level = Level {
            opener: Some(kind),
            in_from: is_joined,
            expects_source: is_joined,
            is_operator: self.is_before(1, &["operator"]),
            ..Level::default()
        };
    }

    fn close(&mut self, opener: Kind) {
        if self.deeper > 0 {
            self.deeper -= 1;
            return;
        }
        let is_partner = self.level.opener == Some(opener);
        // An array's slice may end open: `a[1:]`.
        let is_empty = self.before(1).is_some_and(|before| before.kind == Kind::Open);
        if opener == Kind::Open && !is_empty && !self.level.is_operator {
            self.follows_open();
        }
        if self.level.is_operator {
            self.operator_end = Some(self.at);
        }
        match self.outer.pop() {
            Some(level) if is_partner => self.level = level,
            _ => self.broken(),
        }
    }

    /// Whether the word here may be a keyword: not a name behind a dot.
    fn is_keyword_place(&self) -> bool {
        self.before(1).is_none_or(|before| before.kind != Kind::Dot)
    }

    /// A word without quotes: a clause, a verb, or a name after all.
    fn word(&mut self, token: Token) {
        let Some(ident) = Ident::of(self.cursor.text, token) else { return };
        let word = ident.as_bytes();
        let is_verb =
            matches!(word, b"select" | b"values" | b"table" | b"insert" | b"update" | b"delete" | b"merge");
        if self.level.clause == VERB && !is_verb && self.is_before(1, &["as"]) {
            // After AS a column may be named like a clause.
            self.level.expects_source = false;
            return;
        }
        match word {
            b"select" | b"values" => self.verb(),
            b"table"
                if self.level.clause == NO_CLAUSE
                    || self.is_before(1, &["union", "all", "except", "intersect"]) =>
            {
                self.verb();
                self.level.in_from = true;
                self.level.expects_source = true;
            }
            b"insert" | b"update" | b"delete" | b"merge" | b"truncate" => self.change(word, token),
            b"from" if self.is_clause_from() => {
                self.clause(FROM);
                self.level.in_from = true;
                self.level.expects_source = true;
            }
            b"join" => self.level.expects_source = self.level.in_from,
            b"using" if self.level.is_changing && self.kind(1) != Some(Kind::Open) => {
                self.level.in_from = true;
                self.level.expects_source = true;
            }
            b"lateral" | b"only" => {}
            b"where" => self.clause(WHERE),
            b"group" if !self.is_before(1, &["within"]) => self.clause(GROUP),
            b"having" => self.clause(HAVING),
            b"window" if self.level.clause != NO_CLAUSE && self.is(2, "as") => self.clause(WINDOW),
            b"order" => self.clause(ORDER),
            b"limit" | b"offset" | b"fetch" => self.clause(LIMIT),
            b"for" if self.level.clause > VERB => self.clause(LIMIT),
            b"union" | b"intersect" | b"except" => self.set_operation(),
            b"returning" => self.end_from(),
            _ if category(word) == Some(Category::Reserved) => self.level.expects_source = false,
            _ => self.name(token),
        }
    }

    fn verb(&mut self) {
        self.level.clause = VERB;
        self.end_from();
    }

    fn end_from(&mut self) {
        self.level.in_from = false;
        self.level.expects_source = false;
    }

    /// A clause of the statement at this level; they come in order.
    fn clause(&mut self, clause: u8) {
        if self.level.clause == NO_CLAUSE {
            // Of a window, an aggregate, a function with words for arguments.
            return self.end_from();
        }
        self.facts.is_broken |= self.is_open_before();
        let may_repeat = clause == LIMIT || self.level.is_changing;
        if clause < self.level.clause || (clause == self.level.clause && !may_repeat) {
            self.broken();
        }
        self.level.clause = clause;
        self.end_from();
    }

    /// UNION and kin: another query follows.
    fn set_operation(&mut self) {
        let all = usize::from(self.is_any(1, &["all", "distinct"]));
        let is_query = self.is_any(1 + all, &["select", "values", "table", "with"])
            || self.kind(1 + all) == Some(Kind::Open);
        if !is_query && self.level.clause != NO_CLAUSE {
            self.broken();
        }
        // What comes before may be in brackets, so that this level had no clause yet.
        self.level.clause = if self.kind(1 + all) == Some(Kind::Open) { GROUP } else { NO_CLAUSE };
        self.end_from();
    }

    /// Whether this FROM begins a list of relations.
    fn is_clause_from(&self) -> bool {
        if self.is_before(1, &["distinct"]) && self.is_before(2, &["is", "not"]) {
            return false;
        }
        self.level.clause != NO_CLAUSE && !self.is_before(1, &["rows"])
    }

    /// A name: a relation if one is expected, a query of WITH if AS and a bracket follow.
    fn name(&mut self, token: Token) {
        self.facts.is_broken |= self.is_stray(token);
        self.with_name(token);
        if !self.level.expects_source || self.kind(1) == Some(Kind::Dot) {
            return;
        }
        self.level.expects_source = false;
        if self.kind(1) == Some(Kind::Open) || self.is_rows_from() {
            return;
        }
        let is_dot = |back| self.before(back).is_some_and(|before| before.kind == Kind::Dot);
        if is_dot(1) && is_dot(3) {
            // Of another database, as far as anybody can tell.
            self.broken();
        }
        if self.facts.sources.len() == SOURCES_MAX {
            self.facts.any_relation = true;
            return self.broken();
        }
        if let Some(source) = mention(&self.cursor, self.at) {
            self.facts.sources.push(source);
        }
    }

    /// ROWS FROM (…): functions only.
    fn is_rows_from(&self) -> bool {
        self.is(0, "rows") && self.is(1, "from")
    }

    /// `name AS [NOT MATERIALIZED] (…)` or `name (columns) AS (…)`.
    fn with_name(&mut self, token: Token) {
        let mut after = self.cursor;
        after.tokens = after.tokens.get(self.at + 1..).unwrap_or_default();
        if after.kind() == Some(Kind::Open)
            && (self.is_before(1, &["with", "recursive"]) || self.is_next_with())
        {
            self.lists += 1;
            if self.lists > WITH_COLUMNS_MAX {
                return self.broken();
            }
            self.facts.looked_at(after.tokens.len());
            after.parenthesised();
        }
        if !after.eat("as") {
            return;
        }
        after.eat("not");
        after.eat("materialized");
        if after.kind() != Some(Kind::Open) {
            return;
        }
        if self.facts.with_names.len() == WITH_NAMES_MAX {
            return self.broken();
        }
        if let Some(name) = Ident::of(self.cursor.text, token) {
            self.facts.with_names.push(name);
        }
    }

    /// After `),` another query of the list may begin.
    fn is_next_with(&self) -> bool {
        let is = |back, kind| self.before(back).is_some_and(|token| token.kind == kind);
        self.level.clause == NO_CLAUSE && is(1, Kind::Comma) && is(2, Kind::Close)
    }

    /// INSERT, UPDATE, DELETE, MERGE or TRUNCATE, unless the word is part of something else.
    fn change(&mut self, word: &[u8], token: Token) {
        // FOR UPDATE, ON DELETE CASCADE, a trigger's events: no verbs.
        let is_part = self.is_before(1, &["for", "key", "on", "or", "before", "after", "of"]);
        let is_called = self.kind(1) == Some(Kind::Open);
        match word {
            _ if is_part => return,
            b"truncate" if is_called || self.mode == Mode::Query && self.at > 0 => return self.name(token),
            b"truncate" => return self.truncated(),
            // Branches of MERGE and ON CONFLICT name no relation.
            b"update" if self.is(1, "set") => return self.updates_too(),
            b"insert" if is_called || self.is_any(1, &["values", "default", "overriding"]) => return,
            b"delete" if self.is_before(1, &["then"]) && !self.is(1, "from") => return,
            _ => {}
        }
        let skipped = usize::from(self.is_any(1, &["into", "from"]));
        let only = usize::from(self.is(1 + skipped, "only"));
        let needs_word = word != b"update";
        match mention(&self.cursor, last_of_chain(&self.cursor, self.at + 1 + skipped + only)) {
            Some(target) if (skipped > 0) == needs_word => {
                let change = match word {
                    b"insert" => Change::Insert,
                    b"update" => Change::Update,
                    _ => Change::Delete,
                };
                self.facts.targets.push(Target { mention: target, change });
                self.verb();
                self.level.is_changing = true;
                // The target itself is no source that has to be known: it is looked up as what is written.
                self.at += skipped + only;
            }
            _ => self.facts.any_target = true,
        }
    }

    /// ON CONFLICT DO UPDATE: what is inserted into is changed, too.
    fn updates_too(&mut self) {
        for target in &mut self.facts.targets {
            target.change = target.change.max(Change::Update);
        }
    }

    /// TRUNCATE [TABLE] [ONLY] name [*] , …
    fn truncated(&mut self) {
        let mut at = self.at + 1 + usize::from(self.is(1, "table"));
        loop {
            at += usize::from(self.cursor.is_at(at, "only"));
            let last = last_of_chain(&self.cursor, at);
            let Some(target) = mention(&self.cursor, last) else {
                self.facts.any_target = true;
                return;
            };
            self.facts.targets.push(Target { mention: target, change: Change::Delete });
            at = last + 1;
            let is_star = self.cursor.tokens.get(at).is_some_and(|token| token.kind == Kind::Op);
            at += usize::from(is_star);
            if self.cursor.kind_at(at) != Some(Kind::Comma) {
                return;
            }
            at += 1;
        }
    }
}

/// The index of the last name of `a.b.c`, which begins at `at`.
pub(crate) fn last_of_chain(cursor: &Cursor<'_>, mut at: usize) -> usize {
    while cursor.kind_at(at + 1) == Some(Kind::Dot) && cursor.kind_at(at + 2).is_some_and(Kind::is_name) {
        at += 2;
    }
    at
}

/// The name at `at` with its qualifier. `None` if there is none: reserved words are no names.
pub(crate) fn mention(cursor: &Cursor<'_>, at: usize) -> Option<Mention> {
    let token = *cursor.tokens.get(at)?;
    let name = Ident::of(cursor.text, token)?;
    let is_behind_dot = at > 0 && cursor.kind_at(at - 1) == Some(Kind::Dot);
    if name.is_plain && !is_behind_dot && category(name.as_bytes()) == Some(Category::Reserved) {
        return None;
    }
    let schema = match is_behind_dot {
        true => cursor.tokens.get(at.checked_sub(2)?).and_then(|token| Ident::of(cursor.text, *token)),
        false => None,
    };
    Some(Mention { name, schema, is_type: false })
}
