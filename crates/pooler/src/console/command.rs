//! Reading what is typed at the console.
//!
//! **Intuition.** A word that says what to do, perhaps a second that says to what, perhaps `key = value`.
//!
//! **Mechanism.** [`statements`] cuts a query string at semicolons outside quotes and comments into statements of
//! [`Token`]s; [`Command::read`] is a table of words.
//!
//! **Failure.** What is no command is `None`; a quote or comment without end ends with the string.

use super::api::Shutdown;

/// One command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// SHOW: of what, and perhaps of which one only.
    Show(String, Option<String>),
    /// SET key = value.
    Set(String, String),
    /// RELOAD.
    Reload,
    /// PAUSE, of one database or all.
    Pause(Option<String>),
    /// RESUME.
    Resume(Option<String>),
    /// SUSPEND.
    Suspend,
    /// RECONNECT.
    Reconnect(Option<String>),
    /// `WAIT_CLOSE`.
    WaitClose(Option<String>),
    /// ENABLE or, if false, DISABLE; without a name it is an error.
    Enable(bool, Option<String>),
    /// KILL.
    Kill(Option<String>),
    /// `KILL_CLIENT`: an id, as typed.
    KillClient(Option<String>),
    /// SHUTDOWN.
    Shutdown(Shutdown),
}

/// One statement of a query string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Its words and signs.
    pub tokens: Vec<Token>,
    /// As typed, without what surrounds it.
    pub text: String,
}

/// A word or sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// A word, as typed.
    Word(String),
    /// Something in double or single quotes, without them.
    Quoted(String),
    /// `=`.
    Equals,
}

impl Command {
    /// What a statement commands.
    #[must_use]
    pub fn read(tokens: &[Token]) -> Option<Self> {
        let (Token::Word(word), rest) = tokens.split_first()? else { return None };
        let word = word.to_ascii_lowercase();
        if word == "set" {
            return read_set(rest);
        }
        let mut names = rest.iter().map(Token::text);
        let (first, second) = (names.next(), names.next());
        if rest.len() > 2 || rest.contains(&Token::Equals) || (rest.len() == 2 && word != "show") {
            return None;
        }
        let one = first.map(str::to_owned);
        let command = match word.as_str() {
            "show" | "select" => Self::Show(first?.to_ascii_lowercase(), second.map(str::to_owned)),
            "reload" if first.is_none() => Self::Reload,
            "suspend" if first.is_none() => Self::Suspend,
            "pause" => Self::Pause(one),
            "resume" => Self::Resume(one),
            "reconnect" => Self::Reconnect(one),
            "wait_close" => Self::WaitClose(one),
            "enable" => Self::Enable(true, one),
            "disable" => Self::Enable(false, one),
            "kill" => Self::Kill(one),
            "kill_client" => Self::KillClient(one),
            "shutdown" => Self::Shutdown(read_shutdown(first)?),
            _ => return None,
        };
        Some(command)
    }

    /// The tag of its CommandComplete.
    #[must_use]
    pub fn tag(&self) -> String {
        let tag = match self {
            Self::Show(..) => "SHOW",
            Self::Set(key, value) => return format!("SET {key}={value}"),
            Self::Reload => "RELOAD",
            Self::Pause(_) => "PAUSE",
            Self::Resume(_) => "RESUME",
            Self::Suspend => "SUSPEND",
            Self::Reconnect(_) => "RECONNECT",
            Self::WaitClose(_) => "WAIT_CLOSE",
            Self::Enable(true, _) => "ENABLE",
            Self::Enable(false, _) => "DISABLE",
            Self::Kill(_) => "KILL",
            Self::KillClient(_) => "KILL_CLIENT",
            Self::Shutdown(_) => "SHUTDOWN",
        };
        tag.to_owned()
    }
}

impl Token {
    fn text(&self) -> &str {
        match self {
            Self::Word(text) | Self::Quoted(text) => text,
            Self::Equals => "=",
        }
    }
}

/// `key = value` or `key TO value`; several words are one value, as numbers with units are.
fn read_set(tokens: &[Token]) -> Option<Command> {
    let [Token::Word(key) | Token::Quoted(key), sign, values @ ..] = tokens else { return None };
    let is_sign = match sign {
        Token::Equals => true,
        Token::Word(word) => word.eq_ignore_ascii_case("to"),
        Token::Quoted(_) => false,
    };
    let [Token::Word(value) | Token::Quoted(value)] = values else { return None };
    is_sign.then(|| Command::Set(key.to_ascii_lowercase(), value.clone()))
}

fn read_shutdown(mode: Option<&str>) -> Option<Shutdown> {
    match mode.map(str::to_ascii_lowercase).as_deref() {
        None => Some(Shutdown::Now),
        Some("wait_for_servers") => Some(Shutdown::WaitForServers),
        Some("wait_for_clients") => Some(Shutdown::WaitForClients),
        Some(_) => None,
    }
}

/// The statements of a query string; empty ones are left out.
#[must_use]
pub fn statements(text: &str) -> Vec<Statement> {
    let mut statements = Vec::new();
    let mut tokens = Vec::new();
    let mut rest = text;
    let mut start = text;
    loop {
        rest = skip_blanks(rest);
        let ended = rest.is_empty() || rest.starts_with(';');
        if ended && !tokens.is_empty() {
            let typed = &start[..start.len() - rest.len()];
            statements.push(Statement { tokens: std::mem::take(&mut tokens), text: typed.trim().to_owned() });
        }
        if rest.is_empty() {
            return statements;
        }
        if ended {
            rest = &rest[1..];
            start = rest;
            continue;
        }
        let (token, after) = token(rest);
        tokens.push(token);
        rest = after;
    }
}

/// Past spaces and comments.
fn skip_blanks(mut text: &str) -> &str {
    loop {
        text = text.trim_start_matches(|character: char| character.is_whitespace() || character == '\0');
        text = match text.get(..2) {
            Some("--") => text.split_once('\n').map_or("", |(_, rest)| rest),
            Some("/*") => skip_comment(&text[2..]),
            _ => return text,
        };
    }
}

/// Past the end of a comment, in which others may nest.
fn skip_comment(text: &str) -> &str {
    let mut depth = 1;
    let mut rest = text;
    while depth > 0 {
        let Some(at) = rest.find(['*', '/']) else { return "" };
        match rest.get(at..at + 2) {
            Some("*/") => depth -= 1,
            Some("/*") => depth += 1,
            _ => {
                rest = &rest[at + 1..];
                continue;
            }
        }
        rest = &rest[at + 2..];
    }
    rest
}

/// The next token of a text that begins with one, and what follows it.
fn token(text: &str) -> (Token, &str) {
    let mut characters = text.chars();
    match characters.next() {
        Some('=') => (Token::Equals, characters.as_str()),
        Some(quote @ ('"' | '\'')) => quoted(characters.as_str(), quote),
        _ => {
            let ends = |character: char| character.is_whitespace() || ";='\"".contains(character);
            let end = text.find(ends).unwrap_or(text.len());
            (Token::Word(text[..end].to_owned()), &text[end..])
        }
    }
}

/// What stands in quotes, a doubled one meaning itself, and what follows.
fn quoted(text: &str, quote: char) -> (Token, &str) {
    let mut value = String::new();
    let mut rest = text;
    loop {
        let Some((before, after)) = rest.split_once(quote) else {
            value.push_str(rest);
            return (Token::Quoted(value), "");
        };
        value.push_str(before);
        let Some(doubled) = after.strip_prefix(quote) else { return (Token::Quoted(value), after) };
        value.push(quote);
        rest = doubled;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Vec<Option<Command>> {
        statements(text).iter().map(|statement| Command::read(&statement.tokens)).collect()
    }

    fn check(text: &str, command: Command) {
        assert_eq!(read(text), [Some(command)], "{text}");
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    fn show(what: &str) -> Command {
        Command::Show(what.to_owned(), None)
    }

    #[test]
    fn commands_are_read_in_any_case_and_spacing() {
        check("SHOW POOLS", show("pools"));
        check("  show\n\tPools ; ", show("pools"));
        check("/* a /* nested */ one */ sHoW pools -- the end", show("pools"));
        check("SHOW STATS shop", Command::Show("stats".into(), some("shop")));
        check("PAUSE", Command::Pause(None));
        check("pause Shop;", Command::Pause(some("Shop")));
        check("PAUSE \"my \"\"db\";", Command::Pause(some("my \"db")));
        check("KILL_CLIENT 17", Command::KillClient(some("17")));
        check("DISABLE", Command::Enable(false, None));
        check("enable a-b.c", Command::Enable(true, some("a-b.c")));
        check("SHUTDOWN", Command::Shutdown(Shutdown::Now));
        check("shutdown WAIT_FOR_clients", Command::Shutdown(Shutdown::WaitForClients));
        check("WAIT_CLOSE", Command::WaitClose(None));
    }

    #[test]
    fn settings_are_set_in_every_spelling() {
        let set = |value: &str| Command::Set("pool_mode".into(), value.into());
        check("SET pool_mode = session", set("session"));
        check("set POOL_MODE='it''s'", set("it's"));
        check("set pool_mode to \"x\"", set("x"));
        check("set \"pool_mode\"=-5", set("-5"));
        check("set pool_mode = ''", set(""));
    }

    #[test]
    fn several_statements_are_several_commands() {
        assert_eq!(read("show a;; show b; "), [Some(show("a")), Some(show("b"))]);
        assert_eq!(
            read("pause ';' ; resume"),
            [Some(Command::Pause(some(";"))), Some(Command::Resume(None))]
        );
        assert!(read(" -- nothing\n ; /* here */").is_empty());
        assert!(read("").is_empty());
        let texts: Vec<_> = statements("show a ; /**/ foo 'b' ").into_iter().map(|one| one.text).collect();
        assert_eq!(texts, ["show a", "/**/ foo 'b'"]);
    }

    #[test]
    fn what_is_no_command_is_none() {
        for text in [
            "foo",
            "show",
            "show a b c",
            "set",
            "set a",
            "set a b",
            "set a = b c",
            "set a = =",
            "pause a b",
            "reload now",
            "suspend x",
            "shutdown later",
            "'show' pools",
            "= show",
            "pause =",
            "12",
        ] {
            assert_eq!(read(text), [None], "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_to_its_end(text in "[-a-z;='\"/* \né]{0,40}") {
            for statement in statements(&text) {
                prop_assert!(!statement.tokens.is_empty());
                prop_assert!(text.contains(&statement.text));
                let _ = Command::read(&statement.tokens);
            }
        }
    }
}
