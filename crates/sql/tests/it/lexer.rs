//! The lexer beside PostgreSQL's own: where tokens begin and end, what is a constant, what is a keyword.

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use tenfold_sql::Dialect;
use tenfold_sql::lex::{Kind, Lexer};

use crate::server::Database;

fn kinds(text: &str, standard_conforming_strings: bool) -> Vec<(Kind, &str)> {
    let dialect = Dialect { standard_conforming_strings, ascii_safe: true };
    Lexer::new(text.as_bytes(), dialect).map(|token| (token.kind, &text[token.start..token.end])).collect()
}

fn check(text: &str, expected: &[&str]) {
    let found: Vec<&str> = kinds(text, true).into_iter().map(|(_, text)| text).collect();
    assert_eq!(found, expected, "{text}");
}

#[test]
fn tokens_end_where_postgresql_ends_them() {
    check("a+b", &["a", "+", "b"]);
    check("a<-1", &["a", "<", "-", "1"]);
    check("a@-1", &["a", "@-", "1"]);
    check("a*-b", &["a", "*", "-", "b"]);
    check("1--2\n+3", &["1", "+", "3"]);
    check("1/*2*/+3", &["1", "+", "3"]);
    check("a</*x*/b", &["a", "<", "b"]);
    check("a+-+-b", &["a", "+", "-", "+", "-", "b"]);
    check("1.5.3", &["1.5", ".3"]);
    check("1..2", &["1", "..", "2"]);
    check("1e5 1e+5 1e 1.e1 .5", &["1e5", "1e+5", "1", "e", "1.e1", ".5"]);
    check("0x1F 0o17 0b01 1_000 0xg", &["0x1F", "0o17", "0b01", "1_000", "0", "xg"]);
    check("$1 $$a$$ $b$c$$d$b$", &["$1", "$$a$$", "$b$c$$d$b$"]);
    check("a$b$c 'x'", &["a$b$c", "'x'"]);
    check("'a' 'b'", &["'a'", "'b'"]);
    check("'a'\n'b'", &["'a'\n'b'"]);
    check("'a' -- x\n 'b'", &["'a' -- x\n 'b'"]);
    check("'a' /* x\n */ 'b'", &["'a'", "'b'"]);
    check("E'a'\n'\\'b'", &["E'a'\n'\\'b'"]);
    check("a::b:=c:d=>e", &["a", "::", "b", ":=", "c", ":", "d", "=>", "e"]);
    check(
        "B'01' x'1F' N'a' U&'\\0041' U&\"a\" u&b",
        &["B'01'", "x'1F'", "N'a'", "U&'\\0041'", "U&\"a\"", "u", "&", "b"],
    );
    check("\"a\"\"b\"\"\"", &["\"a\"\"b\"\"\""]);
    check("b'1''2' u&'a''b'", &["b'1'", "'2'", "u&'a''b'"]);
    check("/* /* */ */ a", &["a"]);
    check("äö_1", &["äö_1"]);
    assert_eq!(kinds("'a\\' b'", false), [(Kind::LiteralEscapes, "'a\\' b'")]);
    assert_eq!(kinds("/* /* */", true)[0].0, Kind::Unterminated);
}

/// Made-up texts, the same on every run.
fn texts(pieces: &'static [&'static str], count: usize) -> Vec<String> {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let strategy = proptest::collection::vec(proptest::sample::select(pieces), 1..9);
    let text = |runner: &mut TestRunner| strategy.new_tree(runner).expect("a text").current().concat();
    (0..count).map(|_| text(&mut runner)).collect()
}

/// A tag that no made-up text holds.
fn quoted(text: &str) -> String {
    format!("$tenfold_text${text}$tenfold_text$")
}

/// Runs a text and tells the error's message.
const TRY: &str = "CREATE FUNCTION try(text) RETURNS text LANGUAGE plpgsql AS $$
    BEGIN EXECUTE 'SELECT 1 WHERE ' || $1; RETURN ''; EXCEPTION WHEN OTHERS THEN RETURN SQLERRM; END $$";

const PIECES: &[&str] = &[
    "a", "B", "'", "'x'", "''", "\"", "\"q\"", "$", "$$", "$t$", "$1", "1", "2.5", ".", "..", "e", "E'",
    "U&'", "b'1'", "x'f'", "N'n'", "--", "/*", "*/", "\n", " ", "+", "-", "*", "<", ">", "=", "@", "!", "::",
    ":", ":=", ",", "(", ")", "[", "]", "\\", "\\'", "_9", "0x1", "ä", "~", "|", "#", "%",
];

/// The server names the token at which a text went wrong: with our lexer it must be a token, whole.
#[test]
fn a_syntax_error_is_at_one_of_our_tokens() {
    for setting in ["on", "off"] {
        let name = if setting == "on" { "lexer_on" } else { "lexer_off" };
        let database = Database::create(name, TRY);
        let texts = texts(PIECES, 3_000);
        let rows: Vec<String> = texts.iter().map(|text| format!("({})", quoted(text))).collect();
        let answers = database.run(&format!(
            "SET escape_string_warning = off; SET standard_conforming_strings = {setting};
             SELECT json_agg(try(t)) FROM (VALUES {}) AS v(t)",
            rows.join(",")
        ));
        let answers: Vec<String> = serde_json::from_str(&answers).expect("a list of messages");
        let told =
            texts.iter().zip(&answers).filter(|(text, answer)| told(text, answer, setting == "on")).count();
        assert!(told > 2_000, "only {told} messages told anything");
    }
}

/// Compares; says whether the message was about a token.
fn told(text: &str, answer: &str, standard_conforming_strings: bool) -> bool {
    let tokens = kinds(text, standard_conforming_strings);
    let is_unterminated = tokens.iter().any(|(kind, _)| *kind == Kind::Unterminated);
    if answer.starts_with("unterminated") {
        assert!(is_unterminated, "{text:?}: {answer}, but {tokens:?}");
        return true;
    }
    let Some(near) =
        answer.strip_prefix("syntax error at or near \"").and_then(|rest| rest.strip_suffix('"'))
    else {
        return false;
    };
    let is_token = tokens.iter().any(|(kind, token)| {
        // Of N'…' the server sees the N as a word of its own.
        let rest = token.strip_prefix(['N', 'n']).filter(|rest| rest.starts_with('\''));
        *token == near
            || rest.is_some_and(|rest| rest == near || near.eq_ignore_ascii_case("n") && *kind != Kind::Word)
    });
    assert!(is_token, "{text:?}: {answer}, but {tokens:?}");
    true
}

const CONSTANTS: &[&str] = &[
    "'x'",
    "''",
    "'a''b'",
    "'a\\'",
    "'a'\n'b'",
    "'a' -- '\n 'b'",
    "E'a\\'b'",
    "E'\\\\'",
    "E'a'\n'\\''",
    "$$a'b$$",
    "$t$a$$b$t$",
    "1",
    "2.5",
    ".5",
    "3.",
    "1e5",
    "1.5e-3",
    "b'01'",
    "x'1F'",
    "N'n'",
    "U&'\\0061'",
    "U&'a''b'",
    "/* ' */ 1",
    "-- '\n 2",
    "/* /* ' */ */ 3",
    "'/* '",
    "'-- '",
];

/// pg_stat_statements replaces constants with the server's lexer: what stays must be what stays with ours.
#[test]
fn constants_are_the_servers_constants() {
    let database = Database::create("constants", "CREATE EXTENSION pg_stat_statements");
    for (index, constant) in CONSTANTS.iter().enumerate() {
        for (other, next) in CONSTANTS.iter().enumerate() {
            if (index + other) % 5 != 0 {
                continue;
            }
            let sql = format!("SELECT {constant} AS c{index}_{other}, {next}\n AS d, 1 AS e{index}");
            // Statements that differ only in names and constants count as one there, under the first one's text.
            let answer = database.run(&format!(
                "SELECT pg_stat_statements_reset(); {sql};
                 SELECT query FROM pg_stat_statements WHERE query LIKE '% AS e{index}'"
            ));
            // Of N'…' the server replaces what follows the N.
            let answer = answer.replace("N$", "$");
            let normal = answer.rfind("SELECT ").map_or("", |at| &answer[at..]);
            let ours: Vec<&str> = kinds(&sql, true)
                .into_iter()
                .map(|(kind, text)| if kind.is_value() { "$" } else { text })
                .collect();
            let theirs: Vec<&str> = kinds(normal, true)
                .into_iter()
                .map(|(kind, text)| if kind == Kind::Param { "$" } else { text })
                .collect();
            assert_eq!(ours, theirs, "{sql:?} / {normal:?}");
        }
    }
}

#[test]
fn keywords_are_the_servers_keywords() {
    let database = Database::create("keywords", "");
    // Reserved words can't be columns without quotes; all others can: asked of the server, word by word.
    let words = database.run("SELECT string_agg(word || catcode::text, ' ') FROM pg_get_keywords()");
    for word in words.split(' ') {
        let (word, category) = word.split_at(word.len() - 1);
        let sql = format!("SELECT {word}(1)");
        let effects = crate::support::classify(&sql, &tenfold_sql::CatalogueBuilder::new().build(1)).effects;
        // Of a name that no catalogue has, only what can be a function's name alone is a call.
        let is_call = effects.contains(tenfold_sql::Effects::UNSURE);
        assert_eq!(is_call, category == "T", "{word} {category}");
    }
}
