//! Rust source with everything but code blanked out.
//!
//! The rules look for words and braces, and a brace in a string or a word in a comment must not count. So this lexes
//! just enough Rust to tell code from comments, strings and character literals, and replaces the rest by spaces, keeping
//! every line where it was. It understands nested block comments, raw strings, byte strings, and the difference between
//! a lifetime and a character. On source that does not compile it gives some answer and never panics.

/// The source with comments and the insides of literals blanked; same number of lines.
pub(crate) fn code_only(source: &str) -> String {
    let mut lexer = Lexer { rest: source, out: String::with_capacity(source.len()), previous: ' ' };
    while let Some(next) = lexer.rest.chars().next() {
        lexer.step(next);
    }
    lexer.out
}

struct Lexer<'s> {
    rest: &'s str,
    out: String,
    /// The last character kept, to tell `br"…"` from an identifier ending in r.
    previous: char,
}

impl Lexer<'_> {
    fn step(&mut self, next: char) {
        let rest = self.rest;
        if rest.starts_with("//") {
            return self.blank(rest.find('\n').unwrap_or(rest.len()));
        }
        if rest.starts_with("/*") {
            return self.blank(block_comment_len(rest));
        }
        let starts_word = !is_word(self.previous);
        if starts_word && let Some(len) = raw_string_len(rest) {
            return self.blank(len);
        }
        match next {
            '"' => self.blank(quoted_len(rest)),
            '\'' => match char_literal_len(rest) {
                Some(len) => self.blank(len),
                None => self.keep(next),
            },
            _ => self.keep(next),
        }
    }

    fn keep(&mut self, next: char) {
        self.out.push(next);
        self.previous = next;
        self.rest = &self.rest[next.len_utf8()..];
    }

    fn blank(&mut self, len: usize) {
        let (gone, rest) = self.rest.split_at(len);
        self.out.extend(gone.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        self.previous = ' ';
        self.rest = rest;
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn block_comment_len(rest: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        let here = &rest.as_bytes()[at..];
        if here.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if here.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// `r"…"`, `r#"…"#`, `br"…"`, `cr"…"` at the start of `rest`.
fn raw_string_len(rest: &str) -> Option<usize> {
    let after_r =
        rest.strip_prefix("br").or_else(|| rest.strip_prefix("cr")).or_else(|| rest.strip_prefix('r'))?;
    let hashes = after_r.len() - after_r.trim_start_matches('#').len();
    let body = after_r[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let body_len = body.find(&end).map_or(body.len(), |at| at + end.len());
    Some(rest.len() - body.len() + body_len)
}

fn quoted_len(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// `'x'`, `'\n'`, `'\u{1F600}'`; `None` for a lifetime.
fn char_literal_len(rest: &str) -> Option<usize> {
    let mut chars = rest.char_indices().skip(1);
    let (_, first) = chars.next()?;
    if first == '\\' {
        chars.next()?;
        return chars
            .find(|&(_, c)| c == '\'' || c == '\n')
            .filter(|&(_, c)| c == '\'')
            .map(|(at, _)| at + 1);
    }
    let (at, second) = chars.next()?;
    (second == '\'').then_some(at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(source: &str, code: &str) {
        let stripped = code_only(source);
        assert_eq!(stripped.split_whitespace().collect::<Vec<_>>().join(" "), code, "{source}");
        assert_eq!(stripped.lines().count(), source.lines().count());
    }

    #[test]
    fn comments_are_blanked() {
        check("a // b {\nc", "a c");
        check("a /* { /* } */ } */ b", "a b");
        check("a /* never closed", "a");
    }

    #[test]
    fn literals_are_blanked() {
        check(r#"f("{ \" }", '{', b'}', '\'', '\u{7b}')"#, "f( , , b , , )");
        check(r###"f(r#"{ " } "#, br"\", x)"###, "f( , , x)");
        check("f(\"never closed", "f(");
    }

    #[test]
    fn lifetimes_and_words_ending_in_r_stay() {
        check("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}");
        check("for x in 'outer: loop", "for x in 'outer: loop");
        check("bar(x)", "bar(x)");
    }

    #[test]
    fn a_string_over_lines_keeps_its_lines() {
        check("a(\"one\ntwo {\nthree\");\nb", "a( ); b");
    }
}
