//! A statement as people may see it: without its values.
//!
//! **Mechanism.** Literals and numbers become `?`, comments go, what lies between tokens becomes one space at most.
//!
//! **Failure.** A text that does not lex ends where it stops to; none gets longer than asked for.

use crate::lex::{Dialect, Kind, Lexer};

/// The text without its values, cut at `max` bytes.
#[must_use]
pub fn shown(sql: &[u8], dialect: Dialect, max: usize) -> String {
    let mut out = String::new();
    let mut end = 0;
    for token in Lexer::new(sql, dialect) {
        let raw = token.of(sql);
        if token.start > end && !out.is_empty() {
            out.push(' ');
        }
        end = token.start + raw.len();
        match token.kind {
            Kind::Literal
            | Kind::LiteralEscapes
            | Kind::LiteralBits
            | Kind::LiteralUnicode
            | Kind::LiteralDollar
            | Kind::Number => out.push('?'),
            _ => out.push_str(&String::from_utf8_lossy(raw)),
        }
        if out.len() > max {
            let cut = (0..=max).rev().find(|at| out.is_char_boundary(*at)).unwrap_or(0);
            out.truncate(cut);
            out.push('…');
            break;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_comments_are_not_shown() {
        let check = |sql: &str, expected: &str| {
            assert_eq!(shown(sql.as_bytes(), Dialect::default(), 40), expected);
        };
        check("SELECT  *\n FROM t /* x='secret' */ WHERE a=7 -- 9", "SELECT * FROM t WHERE a=?");
        check("INSERT INTO t VALUES ('secret', $1, $$x$$)", "INSERT INTO t VALUES (?, $1, ?)");
        let long = shown("ä ".repeat(60).as_bytes(), Dialect::default(), 40);
        assert!(long.len() <= 40 + '…'.len_utf8() && long.ends_with('…'), "{long}");
        check("", "");
    }
}
