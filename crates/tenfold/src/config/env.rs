//! `${NAME}` and `${NAME:-default}` in strings; `$$` is a dollar, and `$1` is itself: the parameter of an SQL statement.
//!
//! One pass, no nesting: what a variable holds is never looked at again, so a password with a dollar in it is safe. A
//! variable that is set but empty counts as unset for `:-`, as shells have it. Any other dollar is a mistake with the
//! remedy named, because a literal `$HOME` in an address is never what was meant.

/// Where variables come from: the process, or a test's table.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Why a string could not be completed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The variable is not set, and there is no default.
    Unset(String),
    /// A `${` without its `}`, or with something that is no variable's name.
    Malformed,
    /// A dollar that starts nothing.
    BareDollar,
}

impl Problem {
    /// Message and label of a diagnostic.
    #[must_use]
    pub fn texts(&self) -> (String, String) {
        match self {
            Self::Unset(name) => (
                format!("environment variable {name} is not set"),
                format!("set it, or give a default: ${{{name}:-…}}"),
            ),
            Self::Malformed => {
                ("malformed substitution".into(), "expected ${NAME} or ${NAME:-default}".into())
            }
            Self::BareDollar => {
                ("a dollar that starts nothing".into(), "write ${NAME}, or $$ for a dollar".into())
            }
        }
    }
}

/// The text with its variables filled in.
pub fn substitute(text: &str, lookup: Lookup<'_>) -> Result<String, Problem> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        if rest.starts_with(|c: char| c.is_ascii_digit()) {
            out.push('$');
            continue;
        }
        let inner = rest.strip_prefix('{').ok_or(Problem::BareDollar)?;
        let (expression, after) = inner.split_once('}').ok_or(Problem::Malformed)?;
        out.push_str(&value_of(expression, lookup)?);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

fn value_of(expression: &str, lookup: Lookup<'_>) -> Result<String, Problem> {
    let (name, default) = match expression.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (expression, None),
    };
    let letter = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if name.is_empty() || name.as_bytes()[0].is_ascii_digit() || !name.bytes().all(letter) {
        return Err(Problem::Malformed);
    }
    match (lookup(name), default) {
        (Some(value), Some(default)) if value.is_empty() => Ok(default.to_owned()),
        (Some(value), _) => Ok(value),
        (None, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(Problem::Unset(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&str, Problem>) {
        let lookup = |name: &str| match name {
            "HOST" => Some("10.0.0.1".to_owned()),
            "EMPTY" => Some(String::new()),
            "DOLLAR" => Some("a${HOST}$b".to_owned()),
            _ => None,
        };
        assert_eq!(substitute(text, &lookup), expected.map(str::to_owned), "{text}");
    }

    #[test]
    fn variables_are_filled_in_once() {
        check("plain", Ok("plain"));
        check("${HOST}:80", Ok("10.0.0.1:80"));
        check("${HOST}${HOST}", Ok("10.0.0.110.0.0.1"));
        check("${PORT:-80}", Ok("80"));
        check("${EMPTY:-80}", Ok("80"));
        check("${EMPTY}", Ok(""));
        check("${PORT:-}", Ok(""));
        check("$$5 ${DOLLAR}", Ok("$5 a${HOST}$b"));
        check("WHERE usename = $1 OR $1", Ok("WHERE usename = $1 OR $1"));
    }

    #[test]
    fn what_cannot_be_filled_in_is_named() {
        check("${PORT}", Err(Problem::Unset("PORT".into())));
        check("${HOST", Err(Problem::Malformed));
        check("${}", Err(Problem::Malformed));
        check("${1A}", Err(Problem::Malformed));
        check("${A B}", Err(Problem::Malformed));
        check("$HOST", Err(Problem::BareDollar));
        check("cost: $", Err(Problem::BareDollar));
    }
}
