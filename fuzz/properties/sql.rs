//! What must hold of the SQL reader for any bytes whatever.
//!
//! **Intuition.** For a made-up text nobody knows the right decision. But lexing covers a text without gaps, and does
//! not care for spaces; a decision remembered is the decision read; more statements never have fewer effects; and what
//! is inside a function's body is bounded by what the body is.
//!
//! **Mechanism.** `lex` and `classify` check the laws on one input. The fuzz targets call them with made-up bytes, the
//! crate's tests with the corpora. The first byte picks the dialect.

#![allow(dead_code, reason = "each fuzz target uses one of these")]

use std::sync::{Arc, OnceLock};

use tenfold_sql::lex::{Kind, Lexer, Token};
use tenfold_sql::{
    Catalogue, CatalogueBuilder, Classifier, Decision, Destination, Dialect, Effects, Seed, Shape,
    fingerprint, key_text,
};

/// A corpus entry beyond this tells nothing that a shorter one doesn't.
const INPUT_BYTES_MAX: usize = 16 * 1024;
const SEED: Seed =
    Seed([0x1234_5678_9abc_def1, 0xfedc_ba98_7654_3211, 0x9e37_79b9_7f4a_7c15, 0xc2b2_ae3d_27d4_eb4f]);

fn split(input: &[u8]) -> Option<(Dialect, &[u8])> {
    let (first, text) = input.split_first()?;
    let standard_conforming_strings = first % 4 != 1;
    (text.len() <= INPUT_BYTES_MAX)
        .then_some((Dialect { standard_conforming_strings, ascii_safe: true }, text))
}

/// Laws of the lexer and of fingerprints.
pub(crate) fn lex(input: &[u8]) {
    let Some((dialect, text)) = split(input) else { return };
    let tokens: Vec<Token> = Lexer::new(text, dialect).collect();
    let mut end = 0;
    for (index, token) in tokens.iter().enumerate() {
        assert!(
            token.start >= end && token.end > token.start && token.end <= text.len(),
            "{token:?} after {end}"
        );
        let gap = &text[end..token.start];
        assert!(gap.first().is_none_or(|byte| b" \t\n\r\x0b\x0c-/".contains(byte)), "{gap:?} is no space");
        assert!(token.kind != Kind::Unterminated || index + 1 == tokens.len(), "something after the end");
        end = token.end;
    }
    let is_whole = tokens.iter().all(|token| !matches!(token.kind, Kind::Unterminated | Kind::Junk));
    let found = fingerprint(text, dialect, &SEED);
    assert!(found.is_none() || is_whole, "a fingerprint of what does not lex");
    if !is_whole {
        return;
    }
    let spaced = tokens.iter().map(|token| token.of(text)).collect::<Vec<_>>().join(&b' ');
    let again: Vec<Token> = Lexer::new(&spaced, dialect).collect();
    let told = |tokens: &[Token], text: &[u8]| -> Vec<(Kind, Vec<u8>)> {
        tokens.iter().map(|token| (token.kind, token.of(text).to_vec())).collect()
    };
    assert_eq!(told(&tokens, text), told(&again, &spaced), "spaces between tokens change nothing");
    if found.is_some() {
        let print = |text: &[u8]| fingerprint(text, dialect, &SEED).map(|reading| reading.fingerprint);
        // Comments are gone with the spaces, and what one of them asked for.
        let is_hinted = found.is_some_and(|reading| reading.hint.is_some());
        assert!(is_hinted || print(text) == print(&spaced), "spaces change nothing");
        let in_capitals = print(&text.to_ascii_uppercase()).filter(|_| !has_quotes(&tokens));
        assert!(is_hinted || print(text) == in_capitals.or(print(text)), "case changes nothing");
    }
}

/// Quoted names keep their case; escapes in strings have one.
fn has_quotes(tokens: &[Token]) -> bool {
    tokens
        .iter()
        .any(|token| matches!(token.kind, Kind::Quoted | Kind::QuotedUnicode) || token.kind.is_string())
}

/// A database with something risky of each kind.
fn catalogue() -> &'static Catalogue {
    static CATALOGUE: OnceLock<Arc<Catalogue>> = OnceLock::new();
    CATALOGUE.get_or_init(|| {
        let mut builder = CatalogueBuilder::new();
        let mut row =
            |query, columns: &[Option<&str>]| builder.row(query, columns).expect("a row of that query");
        row(0, &[Some("lower count now nextval"), Some("nextval"), Some("pg_class pg_locks")]);
        row(
            1,
            &[
                Some("f"),
                Some("plpgsql"),
                Some("v"),
                None,
                Some("BEGIN SET a = 1; END"),
                None,
                None,
                Some("s"),
                Some("false"),
            ],
        );
        row(3, &[Some("@@@"), Some("f")]);
        row(5, &[Some("t"), Some("o"), Some("16400 r p"), Some("s"), None]);
        row(5, &[Some("t"), Some("w"), Some("f()"), Some("s"), None]);
        row(5, &[Some("v"), Some("o"), Some("16401 v p"), Some("s"), None]);
        row(5, &[Some("v"), Some("v"), Some("SELECT f() FROM t"), Some("s"), None]);
        builder.build(1)
    })
}

fn ask(text: &[u8], dialect: Dialect) -> Arc<Decision> {
    Classifier::new(SEED).classify(text, dialect, catalogue())
}

/// Laws of decisions.
pub(crate) fn classify(input: &[u8]) {
    let Some((dialect, text)) = split(input) else { return };
    let mut classifier = Classifier::new(SEED);
    let one = classifier.classify(text, dialect, catalogue());
    assert_eq!(one, classifier.classify(text, dialect, catalogue()), "remembered as read");
    let is_name = |name: &str| !name.is_empty() && name.is_ascii() && name.to_ascii_lowercase() == name;
    assert!(one.settings.iter().all(|name| is_name(name)), "{:?}", one.settings);
    if one.effects.contains(Effects::SETTINGS) {
        assert!(!one.settings.is_empty() || one.effects.contains(Effects::SETTINGS_UNKNOWN));
    }
    if let Some(key) = one.hot {
        assert!(one.effects.contains(Effects::WRITES), "a hot row without a lock");
        let _ = key_text(text, dialect, &key);
    }
    route(text, &one);
    let is_read = fingerprint(text, dialect, &SEED).is_some();
    assert!(is_read || one.effects == Effects::UNKNOWN, "{one:?}");
    // Nothing of a body may make the catalogue fail.
    if let Ok(body) = std::str::from_utf8(text) {
        bodies(body);
    }
    let several = [text, b"\n;", text].concat();
    let both = ask(&several, dialect);
    if is_read && one.shape != Shape::Empty && both.shape == Shape::Multi {
        assert!(both.effects.contains(one.effects.without(Effects::UNKNOWN)), "{one:?} {both:?}");
    }
}

/// Laws of routes: what runs on a replica leaves nothing, changes nothing, and is not long; work is bounded.
fn route(text: &[u8], decision: &Decision) {
    let route = &decision.route;
    assert!(route.work <= 40_000, "{} steps", route.work);
    if route.destination != Destination::Replica {
        return;
    }
    assert!(decision.effects.is_empty(), "a replica is left with {}", decision.effects);
    assert!(text.len() <= 16 * 1024 && route.culprit.is_none());
    let dialect = Dialect::default();
    let is_change = |token: &Token| {
        let word = token.of(text);
        token.kind == Kind::Word
            && [&b"insert"[..], b"delete", b"merge", b"truncate", b"into"]
                .iter()
                .any(|change| word.eq_ignore_ascii_case(change))
    };
    let tokens: Vec<Token> = Lexer::new(text, dialect).collect();
    let changes = tokens.windows(2).any(|pair| pair[0].kind != Kind::Dot && is_change(&pair[1]));
    let is_plain = memchr_quote(text).is_none();
    assert!(!is_plain || !changes, "a change on a replica");
}

/// A quote or backslash, after which another dialect may read other tokens.
fn memchr_quote(text: &[u8]) -> Option<usize> {
    text.iter().position(|byte| matches!(byte, b'\'' | b'\\'))
}

/// A function, a default and a view of this text.
fn bodies(body: &str) {
    let mut builder = CatalogueBuilder::new();
    let mut row = |query, columns: &[Option<&str>]| builder.row(query, columns).expect("a row of that query");
    for language in ["sql", "plpgsql"] {
        row(1, &[Some(language), Some(language), Some("v"), None, Some(body), None, Some(body), None, None]);
    }
    row(5, &[Some("t"), Some("w"), Some(body), None, None]);
    row(5, &[Some("v"), Some("v"), Some(body), None, None]);
    let made = builder.build(2);
    let function = made.function_effects("plpgsql");
    let (read, write) = made.relation_effects("v");
    // What a view's reading may do, its writing may, but for what is drawn from sequences by default.
    let drawn = Effects::SEQUENCE_SET | Effects::SEQUENCE_MAYBE;
    assert!(write.contains(read.without(drawn)), "{read} {write}");
    let _ = function;
}
