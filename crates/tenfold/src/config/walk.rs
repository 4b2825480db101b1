//! A file against the table of keys: every mistake at once, and a typed tree.
//!
//! **Mechanism.** One walk over the parsed TOML. Each value is read as its key's [`Kind`] says; what doesn't fit becomes a
//! [`Diagnostic`] with what was expected and the nearest known name, and the walk goes on. Defaults are read by the same
//! code from the text in the table of keys.
//!
//! **Failure.** A value that came out of the environment is quoted as it stands in the file, never as what the variable
//! holds. The parser bounds the depth of nesting, so the recursion here is bounded too.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::Diagnostic;
use super::keys::{self, Form, Key, Kind};
use super::tree::{Node, Table, Value};
use super::{env, explain, forms, suggest, values};

/// Of words as long as this the nearest is a guess, and those there are had better be said.
const GUESSED_CHARS_MAX: usize = 20;

/// A walk in progress.
pub struct Walk<'a> {
    env: env::Lookup<'a>,
    /// Mistakes so far, in the order of the walk.
    pub diagnostics: Vec<Diagnostic>,
}

/// Whose value is being read.
#[derive(Clone, Copy)]
struct At<'a> {
    /// The key's own name, for messages: `balance`.
    name: &'a str,
    span: &'a Range<usize>,
}

impl<'a> Walk<'a> {
    /// A walk that takes variables from `env`.
    #[must_use]
    pub fn new(env: env::Lookup<'a>) -> Self {
        Self { env, diagnostics: Vec::new() }
    }

    /// Reads a table whose keys are `keys`; `shown` is its name in messages, `span` where it begins.
    pub fn table(
        &mut self,
        keys: &'static [Key],
        shown: &str,
        written: &DeTable<'_>,
        span: &Range<usize>,
    ) -> Table {
        let mut entries = BTreeMap::new();
        for (name, value) in written {
            let Some(key) = keys.iter().find(|key| key.name == name.get_ref().as_ref()) else {
                self.unknown_key(keys, shown, name.get_ref(), name.span());
                continue;
            };
            if matches!(key.kind, Kind::Later) {
                self.later(key, name.span());
                continue;
            }
            let child = if shown.is_empty() { key.name.to_owned() } else { format!("{shown}.{}", key.name) };
            let node =
                self.value(&key.kind, &child, At { name: key.name, span: &value.span() }, value.get_ref());
            entries.insert(key.name.to_owned(), node);
        }
        self.fill_in(keys, shown, &mut entries, span);
        Table { entries }
    }

    fn fill_in(
        &mut self,
        keys: &'static [Key],
        shown: &str,
        entries: &mut BTreeMap<String, Node>,
        span: &Range<usize>,
    ) {
        for key in keys.iter().filter(|key| key.required || key.default.is_some()) {
            if entries.contains_key(key.name) {
                continue;
            }
            let Some(default) = key.default else {
                let label = format!("add {} = {}", key.name, key.example);
                self.error(span, format!("missing key \"{}\" in {}", key.name, header(shown)), label);
                continue;
            };
            let parsed = DeValue::parse(default).expect("a test parses every default");
            let node = self.value(&key.kind, key.name, At { name: key.name, span }, parsed.get_ref());
            entries.insert(key.name.to_owned(), node);
        }
    }

    fn value(&mut self, kind: &'static Kind, shown: &str, at: At<'_>, written: &DeValue<'_>) -> Node {
        let value = match kind {
            Kind::OneOrMany(kind) => match written {
                DeValue::Array(_) => self.list(kind, shown, at, written),
                _ => return self.value(kind, shown, at, written),
            },
            Kind::List(kind) => self.list(kind, shown, at, written),
            Kind::OneOf(kinds) => match kinds.iter().find(|kind| fits(kind, written)) {
                Some(kind) => return self.value(kind, shown, at, written),
                None => self.mismatch(at, &expected_of_any(kinds), written),
            },
            Kind::Table(keys) => match written {
                DeValue::Table(table) => Value::Table(self.table(keys, shown, table, at.span)),
                _ => self.mismatch(at, &expected(kind), written),
            },
            Kind::Named(keys) => self.named(keys, shown, at, written),
            Kind::Each(keys) => self.each(keys, at, written),
            Kind::Fields => self.fields(at, written),
            _ => self.scalar(kind, at, written),
        };
        Node::new(at.span.clone(), value)
    }

    fn list(&mut self, kind: &'static Kind, shown: &str, at: At<'_>, written: &DeValue<'_>) -> Value {
        let DeValue::Array(array) = written else {
            return self.mismatch(at, &format!("a list of {}", expected(kind)), written);
        };
        let element = |value: &Spanned<DeValue<'_>>| {
            self.value(kind, shown, At { name: at.name, span: &value.span() }, value.get_ref())
        };
        Value::List(array.iter().map(element).collect())
    }

    fn named(&mut self, keys: &'static [Key], shown: &str, at: At<'_>, written: &DeValue<'_>) -> Value {
        let DeValue::Table(table) = written else {
            return self.mismatch(at, &format!("tables by name: [{shown}.NAME]"), written);
        };
        let mut entries = BTreeMap::new();
        for (name, value) in table {
            let text = name.get_ref().as_ref();
            if let Err(label) = forms::check(Form::Label, text) {
                self.error(&name.span(), format!("bad name \"{}\"", printable(text)), label);
            }
            let child = format!("{shown}.{text}");
            let span = value.span();
            let DeValue::Table(inner) = value.get_ref() else {
                let at = At { name: &child, span: &span };
                self.mismatch(at, "a table", value.get_ref());
                continue;
            };
            let inner = self.table(keys, &child, inner, &span);
            entries.insert(text.to_owned(), Node::new(span, Value::Table(inner)));
        }
        Value::Table(Table { entries })
    }

    fn each(&mut self, keys: &'static [Key], at: At<'_>, written: &DeValue<'_>) -> Value {
        let DeValue::Array(array) = written else {
            return self.mismatch(at, &format!("tables: [[{}]], with two brackets", at.name), written);
        };
        let mut elements = Vec::new();
        for value in array.iter() {
            let span = value.span();
            let DeValue::Table(table) = value.get_ref() else {
                self.mismatch(At { name: at.name, span: &span }, "a table", value.get_ref());
                continue;
            };
            let table = self.table(keys, &format!("[{}]", at.name), table, &span);
            elements.push(Node::new(span, Value::Table(table)));
        }
        Value::List(elements)
    }

    fn fields(&mut self, at: At<'_>, written: &DeValue<'_>) -> Value {
        let DeValue::Table(table) = written else {
            return self.mismatch(at, &expected(&Kind::Fields), written);
        };
        let mut entries = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for (name, value) in table {
            let field = name.get_ref().to_ascii_lowercase();
            if !forms::is_token(&field) {
                let message = format!("bad header name \"{}\"", printable(&field));
                self.error(&name.span(), message, "expected a field name such as \"x-client\"");
            } else if !seen.insert(field.clone()) {
                self.error(
                    &name.span(),
                    format!("header \"{field}\" is there twice"),
                    "names ignore case; keep one",
                );
            }
            let kind = &Kind::Text(Form::Label);
            let node = self.value(kind, &field, At { name: &field, span: &value.span() }, value.get_ref());
            entries.insert(field, node);
        }
        Value::Table(Table { entries })
    }

    fn scalar(&mut self, kind: &'static Kind, at: At<'_>, written: &DeValue<'_>) -> Value {
        match (kind, written) {
            (Kind::Boolean, DeValue::Boolean(value)) => Value::Boolean(*value),
            (Kind::Integer { min, max }, DeValue::Integer(number)) => {
                let digits = number.as_str();
                let parsed = u64::from_str_radix(digits, number.radix()).ok();
                match parsed.filter(|n| (min..=max).contains(&n)) {
                    Some(n) => Value::Integer(n),
                    None => self.out_of_range(at, digits, &min.to_string(), &max.to_string()),
                }
            }
            (_, DeValue::String(raw)) => self.text(kind, at, raw),
            (Kind::Duration { .. } | Kind::Size { .. } | Kind::Ratio, DeValue::Integer(number)) => {
                self.unit_missing(kind, at, number.as_str())
            }
            _ => self.mismatch(at, &expected(kind), written),
        }
    }

    fn text(&mut self, kind: &'static Kind, at: At<'_>, raw: &str) -> Value {
        let filled = match env::substitute(raw, self.env) {
            Ok(filled) => filled,
            Err(problem) => {
                let (message, label) = problem.texts();
                return self.error(at.span, message, label);
            }
        };
        let bad = |expected: &str| {
            (format!("bad {} \"{}\"", at.name, printable(raw)), format!("expected {expected}"))
        };
        let read = match kind {
            Kind::Duration { min_ms, max_ms } => match values::duration(&filled) {
                Ok(d) if (u128::from(*min_ms)..=u128::from(*max_ms)).contains(&d.as_millis()) => {
                    Ok(Value::Duration(d))
                }
                Ok(_) => {
                    let text = |ms: &u64| values::duration_text(std::time::Duration::from_millis(*ms));
                    return self.out_of_range(at, raw, &text(min_ms), &text(max_ms));
                }
                Err(expected) => Err(bad(expected)),
            },
            Kind::Size { min, max } => match values::size(&filled) {
                Ok(n) if (min..=max).contains(&&n) => Ok(Value::Size(n)),
                Ok(_) => {
                    return self.out_of_range(at, raw, &values::size_text(*min), &values::size_text(*max));
                }
                Err(expected) => Err(bad(expected)),
            },
            Kind::Ratio => values::ratio_ppm(&filled).map(Value::Ratio).map_err(bad),
            Kind::Choice { known, later } => return self.choice(known, later, at, &filled, raw),
            Kind::Text(form @ (Form::Secret | Form::Password | Form::RedisUrl)) => {
                match forms::check(*form, &filled) {
                    Ok(()) => Ok(Value::Secret(filled)),
                    Err(label) => Err((format!("bad {}", at.name), label)),
                }
            }
            Kind::Text(form @ (Form::PgUrl | Form::Replica)) => match forms::check(*form, &filled) {
                Ok(()) => Ok(text_of(filled, raw)),
                // Neither the URL nor what is wrong in it is quoted: it may hold a password.
                Err(label) => Err((format!("bad {}", at.name), label)),
            },
            Kind::ClusterName => Ok(text_of(filled, raw)),
            Kind::Text(form) => match forms::check(*form, &filled) {
                Ok(()) => Ok(text_of(filled, raw)),
                // A particular answer may quote what it is about.
                Err(label) if filled == raw => Err((bad("").0, label)),
                Err(_) => Err(bad(forms::expected(*form))),
            },
            _ => return self.mismatch(at, &expected(kind), &DeValue::String(raw.into())),
        };
        read.unwrap_or_else(|(message, label)| self.error(at.span, message, label))
    }

    fn choice(
        &mut self,
        known: &[&'static str],
        later: &[&str],
        at: At<'_>,
        filled: &str,
        raw: &str,
    ) -> Value {
        if known.contains(&filled) {
            return text_of(filled.to_owned(), raw);
        }
        if later.contains(&filled) {
            let message = format!("{} \"{filled}\" is not in this release yet", at.name);
            return self.error(at.span, message, format!("this release knows {}", quoted_list(known)));
        }
        let label = match suggest::nearest(filled, known.iter().chain(later).copied()) {
            Some(name) if known.iter().all(|word| word.len() < GUESSED_CHARS_MAX) => {
                format!("did you mean \"{name}\"?")
            }
            Some(name) => format!("did you mean \"{name}\"? there are {}", quoted_list(known)),
            None => format!("expected {}", quoted_list(known)),
        };
        self.error(at.span, format!("unknown {} \"{}\"", at.name, printable(raw)), label)
    }

    fn unknown_key(&mut self, keys: &'static [Key], shown: &str, name: &str, span: Range<usize>) {
        let near = suggest::nearest(name, keys.iter().map(|key| key.name));
        let label = match (near, home_of(name, keys::ROOT, "")) {
            (Some(name), _) => format!("did you mean \"{name}\"?"),
            (None, Some(home)) => format!("it belongs in {home}"),
            (None, None) => {
                let known = keys.iter().filter(|key| !matches!(key.kind, Kind::Later)).map(|key| key.name);
                format!("known here: {}", known.collect::<Vec<_>>().join(", "))
            }
        };
        self.error(&span, format!("unknown key \"{}\" in {}", printable(name), header(shown)), label);
    }

    fn later(&mut self, key: &Key, span: Range<usize>) {
        let message = format!("\"{}\" is not in this release yet", key.name);
        self.error(&span, message, format!("remove it: {} will come with a later release", key.doc));
    }

    fn unit_missing(&mut self, kind: &Kind, at: At<'_>, digits: &str) -> Value {
        let (what, meant) = match kind {
            Kind::Duration { .. } => ("a unit", format!("\"{digits}s\"")),
            Kind::Size { .. } => ("a unit", format!("\"{digits}MiB\"")),
            _ => ("a percent sign", format!("\"{digits}%\"")),
        };
        self.error(at.span, format!("{} needs {what}", at.name), format!("did you mean {meant}?"))
    }

    fn out_of_range(&mut self, at: At<'_>, written: &str, min: &str, max: &str) -> Value {
        let message = format!("{} = {} is out of range", at.name, printable(written));
        self.error(at.span, message, format!("expected {min} to {max}"))
    }

    fn mismatch(&mut self, at: At<'_>, expected: &str, written: &DeValue<'_>) -> Value {
        let message = format!("{} cannot be {}", at.name, described(written));
        self.error(at.span, message, format!("expected {expected}"))
    }

    fn error(&mut self, span: &Range<usize>, message: impl Into<String>, label: impl Into<String>) -> Value {
        self.diagnostics.push(Diagnostic::error(span.clone(), message, label));
        Value::Invalid
    }
}

fn text_of(filled: String, raw: &str) -> Value {
    if filled == raw { Value::Text(filled) } else { Value::Filled { text: filled, written: raw.to_owned() } }
}

/// The table that a key of exactly this name belongs in, if there is one.
fn home_of(name: &str, keys: &'static [Key], shown: &str) -> Option<String> {
    if keys.iter().any(|key| key.name == name) {
        return Some(header(shown));
    }
    keys.iter().find_map(|key| {
        let child = match key.kind {
            Kind::Each(_) => format!("[{}]", key.name),
            Kind::Named(_) => format!("{}.NAME", key.name),
            _ if shown.is_empty() => key.name.to_owned(),
            _ => format!("{shown}.{}", key.name),
        };
        home_of(name, explain::children(&key.kind), &child)
    })
}

/// Whether this TOML type is the one the kind takes.
fn fits(kind: &Kind, written: &DeValue<'_>) -> bool {
    match kind {
        Kind::Table(_) => matches!(written, DeValue::Table(_)),
        Kind::List(_) => matches!(written, DeValue::Array(_)),
        Kind::Boolean => matches!(written, DeValue::Boolean(_)),
        _ => matches!(written, DeValue::String(_)),
    }
}

/// What a kind takes, as the end of a sentence.
#[must_use]
pub fn expected(kind: &Kind) -> String {
    match kind {
        Kind::Boolean => "true or false".into(),
        Kind::Integer { min, max } => format!("a whole number from {min} to {max}"),
        Kind::Duration { .. } => values::DURATION.into(),
        Kind::Size { .. } => values::SIZE.into(),
        Kind::Ratio => values::RATIO.into(),
        Kind::Text(form) => forms::expected(*form).into(),
        Kind::Choice { known, .. } => quoted_list(known),
        Kind::ClusterName => "the name of a cluster".into(),
        Kind::List(kind) => format!("a list of {}", expected(kind)),
        Kind::OneOrMany(kind) => format!("{}, or a list of them", expected(kind)),
        Kind::Table(keys) => {
            let names = keys.iter().filter(|key| !matches!(key.kind, Kind::Later)).map(|key| key.name);
            format!("a table with {}", names.collect::<Vec<_>>().join(", "))
        }
        Kind::Named(_) => "tables by name".into(),
        Kind::Each(_) => "an array of tables".into(),
        Kind::Fields => "a table such as { x-client = \"ios\" }".into(),
        Kind::OneOf(kinds) => expected_of_any(kinds),
        Kind::Later => "nothing yet".into(),
    }
}

fn expected_of_any(kinds: &[Kind]) -> String {
    kinds.iter().map(expected).collect::<Vec<_>>().join(", or ")
}

fn quoted_list(words: &[&str]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

fn described(written: &DeValue<'_>) -> &'static str {
    match written {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with decimals",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// `[cluster.api]`, `[[route]]`, `[route.cache]`, or the file's top.
fn header(shown: &str) -> String {
    match shown.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        _ if shown.is_empty() => "the file's top level".into(),
        Some((name, "")) => format!("[[{name}]]"),
        Some((name, below)) => format!("[{name}{below}]"),
        None => format!("[{shown}]"),
    }
}

/// What was written, fit for one line of a terminal.
fn printable(text: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 60;
    let mut shown: String = text.chars().take(SHOWN_CHARS_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN_CHARS_MAX).is_some() {
        shown.push('…');
    }
    shown
}
