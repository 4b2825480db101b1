//! The users file, in the form PgBouncer reads: a line a user, name and secret in quotes.
//!
//! ```text
//! ; the shop
//! "app" "SCRAM-SHA-256$4096:…$…:…"
//! "say ""hi""" "md5…"
//! ```
//!
//! **Failure.** Every line that is neither empty, a comment nor a user is a [`UserlistError`] with its number: a typing
//! error in this file should not make a user vanish unnoticed. Of two lines for one user the last wins, as in PgBouncer.

use std::sync::Arc;

use crate::config::Password;

/// Bytes of a name: PostgreSQL's `NAMEDATALEN` and room for forks that raised it.
const NAME_BYTES_MAX: usize = 128;
/// Bytes of a secret: PgBouncer's `MAX_PASSWORD`.
const SECRET_BYTES_MAX: usize = 2_048;
/// Users in one file.
pub const USERS_MAX: usize = 1_000_000;

/// A mistake in the file. Never shows the line itself: it may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct UserlistError {
    /// The line, counted from one.
    pub line: u32,
    /// What is wrong with it.
    pub message: &'static str,
}

/// Reads a file's text: names and secrets in the order of their first mention.
///
/// # Errors
/// Every mistake in it; never an empty list.
pub fn parse(text: &str) -> Result<Vec<(Arc<str>, Password)>, Vec<UserlistError>> {
    let mut users: Vec<(Arc<str>, Password)> = Vec::new();
    let mut places = std::collections::HashMap::new();
    let mut mistakes = Vec::new();
    for (number, line) in (1_u32..).zip(text.lines()) {
        let (name, secret) = match user(line) {
            Ok(Some(user)) => user,
            Ok(None) => continue,
            Err(message) => {
                mistakes.push(UserlistError { line: number, message });
                continue;
            }
        };
        let (name, secret): (Arc<str>, _) = (name.into(), Password::new(&secret));
        match places.get(&name) {
            Some(&place) => users[place] = (name, secret),
            None if users.len() == USERS_MAX => {
                mistakes.push(UserlistError { line: number, message: "too many users" });
                break;
            }
            None => {
                places.insert(Arc::clone(&name), users.len());
                users.push((name, secret));
            }
        }
    }
    if mistakes.is_empty() { Ok(users) } else { Err(mistakes) }
}

/// Name and secret of a line; `None` if it is empty or a comment. What follows the secret is not read, as in PgBouncer.
fn user(line: &str) -> Result<Option<(String, String)>, &'static str> {
    let line = line.trim();
    if line.is_empty() || line.starts_with([';', '#']) {
        return Ok(None);
    }
    let (name, rest) = quoted(line).ok_or("a user's name in double quotes is expected")?;
    let (secret, _) =
        quoted(rest.trim_start()).ok_or("a secret in double quotes is expected after the name")?;
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err("the name is empty or longer than 128 bytes");
    }
    if secret.len() > SECRET_BYTES_MAX {
        return Err("the secret is longer than 2048 bytes");
    }
    if name.contains('\0') || secret.contains('\0') {
        return Err("a NUL byte, which no name and no password can hold");
    }
    Ok(Some((name, secret)))
}

/// Reads `"…"` from the beginning, a doubled quote being one; gives the rest.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut rest = text.strip_prefix('"')?;
    let mut content = String::new();
    loop {
        let (before, after) = rest.split_once('"')?;
        content.push_str(before);
        match after.strip_prefix('"') {
            Some(after) => {
                content.push('"');
                rest = after;
            }
            None => return Some((content, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expected: &[(&str, &str)]) {
        let users = parse(text).unwrap();
        let users: Vec<_> = users.iter().map(|(name, secret)| (&**name, secret.expose())).collect();
        assert_eq!(users, expected, "{text}");
    }

    fn check_mistakes(text: &str, expected: &[(u32, &str)]) {
        let mistakes = parse(text).unwrap_err();
        assert_eq!(mistakes.len(), expected.len(), "{mistakes:?}");
        for (mistake, &(line, message)) in mistakes.iter().zip(expected) {
            assert!(mistake.line == line && mistake.message.contains(message), "{mistake:?}");
        }
    }

    #[test]
    fn users_are_read_as_pgbouncer_does() {
        check("", &[]);
        check("\"a\" \"x\"\n; note\n\n  \"b\"\t\"md5f0\" \"ignored\"\n", &[("a", "x"), ("b", "md5f0")]);
        check("\"say \"\"hi\"\"\" \"\"\"\"\r\n", &[("say \"hi\"", "\"")]);
        check("\"a\"\"\" \"\"", &[("a\"", "")]);
        check("\"a\" \"old\"\n\"b\" \"y\"\n\"a\" \"new\"", &[("a", "new"), ("b", "y")]);
    }

    #[test]
    fn mistakes_come_with_their_lines_and_without_secrets() {
        check_mistakes("a x", &[(1, "name in double quotes")]);
        check_mistakes("\"a\" \"x\"\n\"b\"\n\"c\" \"open", &[(2, "secret"), (3, "secret")]);
        check_mistakes("\"\" \"x\"", &[(1, "empty")]);
        check_mistakes(&format!("\"{}\" \"x\"", "n".repeat(129)), &[(1, "longer than 128")]);
        check_mistakes(&format!("\"n\" \"{}\"", "s".repeat(2_049)), &[(1, "longer than 2048")]);
        check_mistakes("\"n\" \"a\0b\"", &[(1, "NUL")]);
        let message = parse("\"a\" hunter2").unwrap_err()[0].to_string();
        assert!(!message.contains("hunter2"), "{message}");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(users in prop::collection::vec(("[a-z\" ;]{1,9}", "[^\0\r\n]{0,20}"), 0..9)) {
            let mut text = String::new();
            let mut expected = std::collections::BTreeMap::new();
            for (name, secret) in &users {
                let quote = |value: &str| value.replace('"', "\"\"");
                text.push_str(&format!("\"{}\" \"{}\"\n", quote(name), quote(secret)));
                expected.insert(name.clone(), secret.clone());
            }
            // `str::lines` splits at nothing but line feeds, so every other character survives.
            let read = parse(&text).unwrap();
            let read: std::collections::BTreeMap<_, _> =
                read.iter().map(|(name, secret)| (name.to_string(), secret.expose().to_owned())).collect();
            prop_assert_eq!(read, expected);
        }
    }
}
