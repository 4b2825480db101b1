//! The reader: from a text's condensed tokens to what each statement is and does.
//!
//! **Intuition.** Most of PostgreSQL's grammar doesn't matter here. What a statement is shows in its first words; the
//! statements about the session are small and read exactly; everything else is swept for names.
//!
//! **Mechanism.** Tokens are parted at semicolons. Each statement goes by its first word to a small reader that gives
//! its [`Shape`] and adds to the [`Facts`]; the facts are then resolved against the catalogue. Function bodies go the
//! same way, parted where their language begins statements (`body`).
//!
//! **Failure.** A statement that no reader recognises to its last word is [`Shape::Other`] and [`Effects::UNKNOWN`].
//! Nothing recurses but EXPLAIN, PREPARE, COPY and texts within texts, each by one level up to [`LEVELS_MAX`].

pub(crate) mod body;
pub(crate) mod cursor;
pub(crate) mod facts;
mod outline;
mod routing;
mod session;
pub(crate) mod sweep;
mod transaction;

use std::sync::Arc;

use crate::catalogue::Catalogue;
use crate::decision::{Decision, Shape};
use crate::effects::Effects;
use crate::fingerprint::{Fingerprint, Reading, Seed, Sink, condense};
use crate::hot::{HotKey, find};
use crate::ident::literal;
use crate::lex::{Dialect, Kind, Lexer, Token};
use crate::path::SearchPath;
use crate::route::{Destination, Reason, Route};
use cursor::{Cursor, is_word};
use facts::{Change, Facts, Mention, Target};
use sweep::sweep;

/// What kind of text is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// A client's query string.
    Query,
    /// The body of a function in SQL, or an expression of the catalogue.
    Sql,
    /// The body of a function in PL/pgSQL.
    Plpgsql,
}

/// Condensed tokens of one text that are read; more and it is unknown. 16 KiB of ordinary SQL has about as many.
const TOKENS_MAX: usize = 4_096;
/// Longer texts go to the primary: what reads that much text hardly ever only reads.
pub(crate) const ROUTED_BYTES_MAX: usize = 16 * 1024;
/// Texts within texts: a DO whose body executes a string that prepares a statement, and so on.
const LEVELS_MAX: usize = 4;

/// Tokens of the condensed text, with the ordinal of each value outside lists.
#[derive(Default)]
pub(crate) struct Tokens {
    pub(crate) tokens: Vec<Token>,
    pub(crate) ordinals: Vec<Option<u32>>,
    overflowed: bool,
}

impl Sink for Tokens {
    fn push(&mut self, token: Token, ordinal: Option<u32>) {
        if self.tokens.len() == TOKENS_MAX {
            self.overflowed = true;
            return;
        }
        self.tokens.push(token);
        self.ordinals.push(ordinal);
    }

    fn len(&self) -> usize {
        self.tokens.len()
    }

    fn truncate(&mut self, len: usize) {
        self.tokens.truncate(len);
        self.ordinals.truncate(len);
    }

    fn is_full(&self) -> bool {
        self.overflowed
    }
}

/// Condenses a text for reading. `None`: it does not lex, or is too long.
pub(crate) fn tokens(text: &[u8], dialect: Dialect, seed: &Seed) -> Option<(Reading, Tokens)> {
    let mut tokens = Tokens::default();
    let reading = condense(text, dialect, seed, &mut tokens)?;
    (!tokens.overflowed).then_some((reading, tokens))
}

/// What a client's query string is read with.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'c> {
    pub(crate) dialect: Dialect,
    pub(crate) catalogue: &'c Catalogue,
    pub(crate) path: Option<&'c SearchPath>,
}

/// Whether what CREATE makes hides nothing but what its own words call. A table made after another has its triggers.
fn is_plain(mut cursor: Cursor<'_>) -> bool {
    let _ = cursor.eat("unique");
    if !cursor.is_any(&["table", "index", "sequence", "materialized"]) {
        return false;
    }
    // LIKE stands within the brackets.
    while !cursor.is_done() {
        if cursor.is_any(&["like", "inherits", "partition", "of"]) {
            return false;
        }
        cursor.bump();
    }
    true
}

/// TABLE, IF EXISTS, and names to the end; `None` if it is anything else.
fn dropped_tables(mut cursor: Cursor<'_>) -> Option<Vec<Mention>> {
    if !cursor.eat("table") {
        return None;
    }
    let _ = cursor.eat_all(&["if", "exists"]);
    let mut tables = Vec::new();
    loop {
        let first = cursor.name()?;
        let is_qualified = cursor.eat_kind(Kind::Dot);
        let (schema, name) = if is_qualified { (Some(first), cursor.name()?) } else { (None, first) };
        tables.push(Mention { name, schema, is_type: false });
        if !cursor.eat_kind(Kind::Comma) {
            break;
        }
    }
    // What depends on a temporary table is gone with its session in any case.
    let _ = cursor.eat("restrict") || cursor.eat("cascade");
    cursor.is_done().then_some(tables)
}

/// Reads a client's query string.
pub(crate) fn read(sql: &[u8], seed: &Seed, scope: Scope<'_>) -> Option<Decision> {
    let (reading, tokens) = tokens(sql, scope.dialect, seed)?;
    let mut reader = Reader {
        mode: Mode::Query,
        catalogue: Some(scope.catalogue),
        path: scope.path,
        dialect: scope.dialect,
        reading,
        facts: Facts::default(),
        level: 0,
    };
    let cursor = Cursor::new(sql, &tokens.tokens);
    let (shape, hot) = reader.text(cursor, &tokens.ordinals);
    let key = routing::key(cursor, &tokens.ordinals, &reader.facts, &shape, scope);
    let mut decision = reader.finish(shape, hot);
    decision.route.key = key;
    if decision.route.destination == Destination::Replica {
        if sql.len() > ROUTED_BYTES_MAX {
            decision.route.destination = Destination::Primary(Reason::TooLong);
        } else if !scope.dialect.standard_conforming_strings {
            // A setting that only old applications turn on: not worth an answer from the wrong server.
            decision.route.destination = Destination::Primary(Reason::Unreadable);
        }
    }
    Some(decision)
}

/// Reads one text.
pub(crate) struct Reader<'c> {
    pub(crate) mode: Mode,
    /// `None` while the catalogue itself is being built: facts stay unresolved.
    pub(crate) catalogue: Option<&'c Catalogue>,
    /// Where names without schema are looked for; `None`: in all schemas.
    pub(crate) path: Option<&'c SearchPath>,
    pub(crate) dialect: Dialect,
    pub(crate) reading: Reading,
    pub(crate) facts: Facts,
    pub(crate) level: usize,
}

impl Reader<'_> {
    /// All statements of a text, and the hot key of the only one.
    fn text(&mut self, cursor: Cursor<'_>, ordinals: &[Option<u32>]) -> (Shape, Option<HotKey>) {
        let mut shape = Shape::Empty;
        let mut hot = None;
        let mut are_reads = true;
        for statement in parts(cursor) {
            let is_first = shape == Shape::Empty;
            let this = self.statement_or_unknown(statement);
            are_reads &= routing::is_query(&this);
            self.facts.any_target |= routing::may_change_anything(&this);
            hot = if is_first { find(cursor, ordinals, statement, &this) } else { None };
            shape = if is_first { this } else { Shape::Multi };
        }
        self.facts.is_mixed = shape == Shape::Multi && !are_reads;
        (shape, hot)
    }

    /// Looks everything up and gives the decision.
    fn finish(mut self, shape: Shape, hot: Option<HotKey>) -> Decision {
        let mut behind = self.facts.behind(Reason::NotUnderstood);
        if let Some(catalogue) = self.catalogue {
            let named = catalogue.behind(&self.facts, self.path);
            behind.merge(&named);
            behind.lookups = named.lookups;
            catalogue.resolve(&mut self.facts);
        }
        if self.facts.writes || self.facts.locks {
            self.facts.add(Effects::WRITES);
        }
        if self.facts.set_configs > 0 && self.reading.is_condensed {
            self.facts.add(Effects::SETTINGS_UNKNOWN);
        }
        let route = routing::route(&self.facts, &shape, behind, self.reading);
        let hides = self.facts.hide(&shape);
        let Facts { effects, settings, needs_text, .. } = self.facts;
        Decision {
            fingerprint: self.reading.fingerprint,
            shape,
            effects,
            settings,
            hot,
            needs_text,
            hides,
            route,
        }
    }

    pub(crate) fn statement_or_unknown(&mut self, statement: Cursor<'_>) -> Shape {
        if let Some(shape) = self.statement(statement) {
            return shape;
        }
        if self.mode == Mode::Query {
            self.facts.add(Effects::UNKNOWN);
        }
        sweep(statement, self.mode, &mut self.facts);
        Shape::Other
    }

    fn sweep(&mut self, cursor: Cursor<'_>) {
        sweep(cursor, self.mode, &mut self.facts);
    }

    /// One statement. `None` if it is not recognised to its end.
    pub(crate) fn statement(&mut self, statement: Cursor<'_>) -> Option<Shape> {
        let mut cursor = statement;
        if cursor.kind() == Some(Kind::Open) {
            return self.query(statement);
        }
        let word = cursor.name().filter(|name| name.is_plain)?;
        let facts = &mut self.facts;
        // Whether these are statements at all depends on what kind of literal is in them.
        let asks_kind =
            matches!(word.as_bytes(), b"set" | b"do" | b"load" | b"notify" | b"prepare" | b"copy");
        facts.needs_text |= asks_kind || cursor.is("prepared");
        match word.as_bytes() {
            b"select" | b"with" | b"values" | b"table" => self.query(statement),
            b"insert" | b"update" | b"delete" | b"merge" => self.query(statement),
            b"begin" | b"start" | b"commit" | b"end" | b"rollback" | b"abort" | b"savepoint" | b"release" => {
                transaction::statement(std::str::from_utf8(word.as_bytes()).ok()?, cursor)
            }
            b"set" => session::set(cursor, facts),
            b"reset" => session::reset(cursor, facts),
            b"show" => session::show(cursor),
            b"discard" => session::discard(cursor, facts),
            b"deallocate" => session::deallocate(cursor, facts),
            b"listen" => session::listen(cursor, facts),
            b"unlisten" => session::unlisten(cursor, facts),
            b"notify" => session::notify(cursor),
            b"close" => session::close(cursor, facts),
            b"fetch" => Some(Shape::Fetch),
            b"move" => Some(Shape::Move),
            b"lock" => Some(Shape::Lock),
            b"vacuum" | b"analyze" | b"analyse" | b"cluster" | b"reindex" => Some(Shape::Maintenance),
            b"checkpoint" => Some(Shape::Maintenance),
            b"refresh" => {
                facts.any_target = true;
                Some(Shape::Maintenance)
            }
            b"prepare" => self.prepare(cursor),
            b"execute" => self.execute(cursor),
            b"declare" => self.declare(cursor),
            b"explain" => self.explain(cursor),
            b"copy" => self.copy(statement),
            b"call" => {
                self.sweep(statement);
                Some(Shape::Call)
            }
            b"do" => self.inline_code(cursor),
            b"load" => {
                session::first_literal(&cursor)?;
                facts.add(Effects::LOAD);
                Some(Shape::Other)
            }
            b"truncate" => {
                self.sweep(statement);
                Some(Shape::Ddl)
            }
            b"create" | b"alter" | b"drop" | b"import" | b"reassign" => self.definition(statement),
            b"comment" | b"grant" | b"revoke" | b"security" => {
                facts.defines = true;
                Some(Shape::Ddl)
            }
            _ => None,
        }
    }

    /// SELECT and all that may stand after WITH.
    fn query(&mut self, statement: Cursor<'_>) -> Option<Shape> {
        let (into, locks) = (self.facts.into, self.facts.locks);
        (self.facts.into, self.facts.locks) = (false, false);
        self.sweep(statement);
        let (makes_table, locking) = (self.facts.into, self.facts.locks);
        (self.facts.into, self.facts.locks) = (into | makes_table, locks | locking);
        if makes_table {
            self.facts.defines = true;
            self.facts.is_plain = true;
            self.facts.add(Effects::DDL);
            return Some(Shape::Ddl);
        }
        let verb = main_verb(statement);
        if verb.is_none() && statement.is("with") {
            return None;
        }
        Some(match verb {
            Some("insert") => Shape::Insert,
            Some("update") => Shape::Update,
            Some("delete") => Shape::Delete,
            Some("merge") => Shape::Merge,
            Some("values") => Shape::Values,
            _ => Shape::Select { locking },
        })
    }

    /// After PREPARE.
    fn prepare(&mut self, mut cursor: Cursor<'_>) -> Option<Shape> {
        if cursor.is("transaction") && cursor.kind_at(1).is_some_and(Kind::is_string) {
            cursor.bump();
            return transaction::prepare(cursor);
        }
        let name = cursor.name()?;
        cursor.parenthesised();
        if !cursor.eat("as") {
            return None;
        }
        self.facts.needs_text = true;
        self.facts.add(Effects::SQL_PREPARE);
        let Some(catalogue) = self.catalogue else {
            self.statement_or_unknown(cursor);
            return Some(Shape::Other);
        };
        let mut inner = Reader {
            mode: self.mode,
            catalogue: Some(catalogue),
            path: self.path,
            dialect: self.dialect,
            reading: self.reading,
            facts: Facts::default(),
            level: self.level + 1,
        };
        if inner.level > LEVELS_MAX {
            return None;
        }
        let shape = inner.statement_or_unknown(cursor);
        let body = Arc::new(inner.finish(shape, None));
        Some(Shape::Prepare { name: name.to_name(), body })
    }

    /// After EXECUTE.
    fn execute(&mut self, mut cursor: Cursor<'_>) -> Option<Shape> {
        let name = cursor.name()?;
        self.facts.needs_text = true;
        self.facts.add(Effects::SQL_EXECUTE);
        self.sweep(cursor);
        Some(Shape::Execute(name.to_name()))
    }

    fn declare(&mut self, cursor: Cursor<'_>) -> Option<Shape> {
        let (hold, query) = session::declare(cursor, &mut self.facts)?;
        self.query(query)?;
        Some(Shape::Declare { hold })
    }

    /// After EXPLAIN. Planning alone may call functions, so that ANALYZE makes no difference here.
    fn explain(&mut self, mut cursor: Cursor<'_>) -> Option<Shape> {
        let is_query = |word: &&str| cursor.is_at(1, word);
        let is_query = ["select", "with", "values", "table"].iter().any(is_query);
        if !is_query && cursor.kind_at(1) != Some(Kind::Open) {
            cursor.parenthesised();
        }
        while cursor.is_any(&["analyze", "analyse", "verbose"]) {
            cursor.bump();
        }
        // What may be explained is no EXPLAIN itself, so this goes one level deep.
        if cursor.is_done() || cursor.is("explain") {
            return None;
        }
        let explained = self.statement(cursor)?;
        self.facts.is_broken |= !routing::is_query(&explained);
        Some(Shape::Explain)
    }

    fn copy(&mut self, statement: Cursor<'_>) -> Option<Shape> {
        let mut cursor = statement;
        cursor.eat("copy");
        if let Some(query) = cursor.parenthesised() {
            self.query(query)?;
        } else {
            cursor.eat("binary");
            let table = outline::mention(&cursor, outline::last_of_chain(&cursor, 0));
            cursor.until(|cursor| cursor.is_any(&["from", "to"]));
            self.sweep(statement);
            match cursor.is("from") {
                true => {
                    let target = table.map(|mention| Target { mention, change: Change::Insert });
                    self.facts.targets.extend(target);
                }
                false => self.facts.sources.extend(table),
            }
        }
        let into_table = cursor.is("from");
        if !into_table && !cursor.is("to") {
            return None;
        }
        cursor.bump();
        self.facts.writes |= into_table;
        let stdio = cursor.is_any(&["stdin", "stdout"]);
        Some(Shape::Copy { into_table, stdio })
    }

    /// After DO.
    fn inline_code(&mut self, cursor: Cursor<'_>) -> Option<Shape> {
        let code = session::first_literal(&cursor)?;
        self.facts.needs_text = true;
        let language = cursor.tokens.iter().position(|token| is_word(cursor.text, *token, "language"));
        let (code, language) = match language {
            None => (code, None),
            Some(at) => {
                let language = *cursor.tokens.get(at + 1)?;
                let is_body = |token: &&Token| token.kind.is_string() && **token != language;
                (*cursor.tokens.iter().find(is_body)?, Some(language))
            }
        };
        let is_plpgsql = language.is_none_or(|token| {
            let name = token.of(cursor.text);
            name.len() <= "'plpgsql'".len() && sweep::holds(name, "plpgsql")
        });
        match literal(cursor.text, code).filter(|_| is_plpgsql) {
            Some(code) => body::nested(self, &code, Mode::Plpgsql),
            None => self.facts.add(Effects::UNKNOWN),
        }
        Some(Shape::Do)
    }

    /// CREATE, ALTER, DROP and kin.
    fn definition(&mut self, statement: Cursor<'_>) -> Option<Shape> {
        let mut cursor = statement;
        let verb = cursor.name()?;
        self.facts.defines = true;
        let is_drop = verb.is_word("drop");
        let _ = cursor.eat_all(&["or", "replace"]);
        let _ = cursor.eat("global") || cursor.eat("local");
        let is_temp = cursor.eat("temp") || cursor.eat("temporary");
        let may_be_temp = is_temp
            || sweep::name_temp(statement.text, statement.tokens.iter().filter(|token| token.kind.is_name()));
        if may_be_temp && !is_drop {
            self.facts.add(Effects::TEMP);
        }
        if is_drop {
            self.facts.add(Effects::TEMP_DROP);
        }
        let _ = cursor.eat("unlogged");
        const NOT_OF_CATALOGUE: [&str; 9] = [
            "system",
            "role",
            "user",
            "group",
            "database",
            "tablespace",
            "publication",
            "subscription",
            "statistics",
        ];
        // A text made at run time may go on where it is cut, and of a body nobody knows when it runs.
        let is_the_clients = self.level == 0 && self.catalogue.is_some();
        match dropped_tables(cursor).filter(|_| is_drop && is_the_clients) {
            Some(tables) => self.facts.drops.extend(tables),
            None if is_temp || cursor.is_any(&NOT_OF_CATALOGUE) => {}
            None => self.facts.add(Effects::DDL),
        }
        self.facts.is_plain = is_drop || verb.is_word("create") && is_plain(cursor);
        if verb.is_word("create") && (cursor.is("table") || cursor.is("materialized")) {
            self.table_as(cursor);
        } else if cursor.is_any(&["table", "index", "unique", "domain", "sequence", "type"]) && !is_drop {
            self.sweep_definition(cursor);
        }
        Some(Shape::Ddl)
    }

    /// CREATE TABLE, which may run a query: AS SELECT, AS EXECUTE.
    fn table_as(&mut self, mut cursor: Cursor<'_>) {
        let head = cursor.until(|cursor| cursor.is("as"));
        self.sweep_definition(head);
        cursor.bump();
        if cursor.is_done() {
            return;
        }
        if cursor.is("execute") {
            self.facts.add(Effects::SQL_EXECUTE);
        }
        self.sweep(cursor);
    }

    /// Expressions in a definition may be run (on rows that are there), but hardly ever hold an unknown function: what
    /// looks like one is a type with a length.
    fn sweep_definition(&mut self, cursor: Cursor<'_>) {
        let writes = self.facts.writes;
        sweep(cursor, Mode::Sql, &mut self.facts);
        // ON DELETE CASCADE changes nothing now.
        self.facts.writes = writes;
    }
}

/// The verb after the WITH list: the first at the statement's own level that isn't a query's name.
fn main_verb(statement: Cursor<'_>) -> Option<&'static str> {
    const VERBS: [&str; 7] = ["select", "insert", "update", "delete", "merge", "values", "table"];
    let mut cursor = statement;
    cursor.until(|cursor| {
        // A query of the list may be named like a verb: then AS or its columns follow.
        let is_query_name = cursor.is_at(1, "as") || cursor.kind_at(1) == Some(Kind::Open);
        let verb = VERBS.into_iter().find(|verb| cursor.is(verb));
        verb.is_some_and(|verb| !is_query_name || matches!(verb, "select" | "values" | "table"))
    });
    VERBS.into_iter().find(|verb| cursor.is(verb))
}

/// The statements of a text, each without its semicolon: a script read as its parts. A part that does not lex reaches to
/// the text's end.
#[must_use]
pub fn statements(sql: &[u8], dialect: Dialect) -> Vec<&[u8]> {
    let tokens: Vec<Token> = Lexer::new(sql, dialect).collect();
    let part = |statement: Cursor<'_>| {
        let (first, last) = (statement.tokens.first()?, statement.tokens.last()?);
        sql.get(first.start..last.end)
    };
    parts(Cursor::new(sql, &tokens)).filter_map(part).collect()
}

/// The statements of a text, those that are nothing but a semicolon left out.
fn parts(cursor: Cursor<'_>) -> impl Iterator<Item = Cursor<'_>> {
    let mut rest = cursor;
    std::iter::from_fn(move || {
        while rest.eat_kind(Kind::Semicolon) {}
        if rest.is_done() {
            return None;
        }
        Some(next_statement(&mut rest))
    })
}

/// Up to the next semicolon. `CREATE FUNCTION … BEGIN ATOMIC …; … END` is one statement with semicolons inside.
fn next_statement<'a>(rest: &mut Cursor<'a>) -> Cursor<'a> {
    let start = *rest;
    let is_create = rest.is("create");
    let mut depth = 0_usize;
    let mut atomic = 0_usize;
    while let Some(kind) = rest.kind() {
        match kind {
            Kind::Semicolon if depth == 0 && atomic == 0 => break,
            Kind::Open => depth += 1,
            Kind::Close => depth = depth.saturating_sub(1),
            Kind::Word if atomic > 0 && rest.is("case") => atomic += 1,
            Kind::Word if atomic > 0 && rest.is("end") => atomic -= 1,
            Kind::Word if is_create && rest.is("begin") && rest.is_at(1, "atomic") => atomic = 1,
            _ => {}
        }
        rest.bump();
    }
    let taken = start.tokens.len() - rest.tokens.len();
    Cursor::new(start.text, start.tokens.get(..taken).unwrap_or_default())
}

/// A decision for what could not be read.
pub(crate) fn unreadable() -> Decision {
    Decision {
        needs_text: true,
        route: Route::unread(Reason::Unreadable),
        ..Decision::unknown(Fingerprint::default())
    }
}
