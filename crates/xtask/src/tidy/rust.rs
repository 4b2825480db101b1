//! Rules for one Rust file: how long, how it begins, what it may not contain.
//!
//! Each rule sees the source twice, as written and with comments and literals blanked (`strip`), and is a line or brace
//! counter rather than a parser: it must be quick to read and hard to fool by accident, not proof against malice.
//! Clippy holds the rest. A one-line match arm does not count towards a function's length: a long table of them is
//! fine.

use std::ops::RangeInclusive;

use super::Finding;
use super::strip::code_only;

const FILE_LINES_MAX: usize = 800;
const FUNCTION_LINES_MAX: usize = 70;
/// Fewer words than this are a label, not a sentence.
const HEADER_WORDS_MIN: usize = 4;

/// Everything wrong with one file. `architecture` is ARCHITECTURE.md, which lists the files that may hold `unsafe`.
pub(crate) fn check(path: &str, source: &str, architecture: &str) -> Vec<Finding> {
    let code = code_only(source);
    let mut findings = Vec::new();
    findings.extend(file_length(path, source));
    findings.extend(header(path, source));
    findings.extend(function_lengths(path, &code));
    findings.extend(forbidden_words(path, &code));
    if !architecture.contains(path) {
        findings.extend(unsafe_code(path, &code));
    }
    findings.extend(unwraps(path, &code));
    findings
}

fn file_length(path: &str, source: &str) -> Option<Finding> {
    let lines = source.lines().count();
    (lines > FILE_LINES_MAX)
        .then(|| Finding::new(path, 1, format!("{lines} lines; at most {FILE_LINES_MAX}: split it by idea")))
}

fn header(path: &str, source: &str) -> Option<Finding> {
    let lines = source.lines().map_while(|line| line.strip_prefix("//!"));
    let text = lines.collect::<Vec<_>>().join(" ");
    let mut sentences = text.split_inclusive(['.', '!', '?', ':', ';']);
    let has_sentence = sentences.any(|sentence| {
        sentence.ends_with(['.', '!', '?', ':', ';'])
            && sentence.split_whitespace().count() >= HEADER_WORDS_MIN
    });
    (!has_sentence)
        .then(|| Finding::new(path, 1, "no `//!` header with a sentence about what the file is for"))
}

fn function_lengths(path: &str, code: &str) -> Vec<Finding> {
    let lines: Vec<&str> = code.lines().collect();
    let mut findings = Vec::new();
    for (line, body) in functions(code) {
        let counted = lines[body.start() - 1..*body.end()].iter().filter(|line| !is_match_arm(line)).count();
        if counted > FUNCTION_LINES_MAX {
            let message = format!("a function of {counted} lines; at most {FUNCTION_LINES_MAX}");
            findings.push(Finding::new(path, line, message));
        }
    }
    findings
}

fn is_match_arm(line: &str) -> bool {
    line.contains("=>") && line.trim_end().ends_with(',')
}

/// The lines of each function with a body: where it starts, and from there to its closing brace.
fn functions(code: &str) -> Vec<(usize, RangeInclusive<usize>)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let is_word =
            code[..at].chars().next_back().is_none_or(|before| !before.is_alphanumeric() && before != '_');
        let rest = &code[at..];
        let Some(open) = rest.find(['{', ';']) else { continue };
        if !is_word || rest.as_bytes()[open] == b';' && !signature_holds_array(&rest[..open]) {
            continue;
        }
        let Some(open) = rest.find('{') else { continue };
        let start = line_of(code, at);
        let end = line_of(code, at + open + block_len(&rest[open..]));
        found.push((start, start..=end));
    }
    found
}

/// `fn f(x: [u8; 4])` has a semicolon before its body.
fn signature_holds_array(signature: &str) -> bool {
    signature.matches('[').count() > signature.matches(']').count()
}

/// The length of a block that starts with `{`, up to and without its closing brace.
fn block_len(block: &str) -> usize {
    let mut depth = 0_usize;
    for (at, c) in block.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth <= 1 => return at,
            '}' => depth -= 1,
            _ => {}
        }
    }
    block.len()
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

fn forbidden_words(path: &str, code: &str) -> Vec<Finding> {
    let words = [
        (concat!("todo", "!"), "finish it or leave it out"),
        (concat!("unimplemented", "!"), "finish it or leave it out"),
        (concat!("#[", "ignore"), "a test that does not run proves nothing"),
    ];
    let mut findings = Vec::new();
    for (word, why) in words {
        let hits = code.match_indices(word);
        findings
            .extend(hits.map(|(at, _)| Finding::new(path, line_of(code, at), format!("`{word}`: {why}"))));
    }
    findings
}

fn unsafe_code(path: &str, code: &str) -> Vec<Finding> {
    let keyword = concat!("un", "safe");
    let mut findings = Vec::new();
    for (index, line) in code.lines().enumerate() {
        let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
        if words.any(|word| word == keyword) {
            let message = format!("`{keyword}` in a file that ARCHITECTURE.md does not list");
            findings.push(Finding::new(path, index + 1, message));
        }
    }
    findings
}

/// `.unwrap()` outside tests: say why it can't fail (`expect`), or handle it.
fn unwraps(path: &str, code: &str) -> Vec<Finding> {
    if path.contains("/tests/") || path.ends_with("/tests.rs") || path.starts_with("fuzz/") {
        return Vec::new();
    }
    let tests = test_blocks(code);
    let lines = code.match_indices(".unwrap()").map(|(at, _)| line_of(code, at));
    lines
        .filter(|line| !tests.iter().any(|block| block.contains(line)))
        .map(|line| {
            Finding::new(
                path,
                line,
                "`.unwrap()` outside tests: handle it, or `expect(\"why it can't fail\")`",
            )
        })
        .collect()
}

fn test_blocks(code: &str) -> Vec<RangeInclusive<usize>> {
    let mut blocks = Vec::new();
    for (at, _) in code.match_indices("#[cfg(test)]") {
        let rest = &code[at..];
        let Some(open) = rest.find(['{', ';']) else { continue };
        let end = if rest.as_bytes()[open] == b'{' { open + block_len(&rest[open..]) } else { open };
        blocks.push(line_of(code, at)..=line_of(code, at + end));
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "//! Says what this file is for.\n";

    /// Checks `source` below a good header; compares the findings' lines and a word of each.
    fn check_below_header(source: &str, expected: &[(usize, &str)]) {
        let findings = check("crates/x/src/x.rs", &format!("{HEADER}{source}"), "");
        assert_eq!(findings.len(), expected.len(), "{findings:?}");
        for (finding, (line, word)) in findings.iter().zip(expected) {
            assert!(finding.line == *line && finding.message.contains(word), "{finding}");
        }
    }

    #[test]
    fn a_good_file_has_no_findings() {
        check_below_header("fn f() -> u32 {\n    1\n}\n", &[]);
    }

    #[test]
    fn a_file_is_not_too_long() {
        check_below_header(&"\n".repeat(FILE_LINES_MAX - 1), &[]);
        check_below_header(&"\n".repeat(FILE_LINES_MAX), &[(1, "801 lines")]);
    }

    #[test]
    fn a_function_is_not_too_long() {
        let function = |lines| format!("fn f(x: [u8; 4]) {{\n{}}}\n", "    g();\n".repeat(lines));
        check_below_header(&function(68), &[]);
        check_below_header(&function(69), &[(2, "71 lines")]);
        check_below_header(&format!("impl X {{\n    async {}}}", function(69)), &[(3, "71 lines")]);
    }

    #[test]
    fn one_line_arms_and_braces_in_text_do_not_count() {
        let arms = "        1 => \"{\",\n".repeat(100);
        check_below_header(&format!("fn f() {{\n    match x {{\n{arms}    }}\n}}\n"), &[]);
    }

    #[test]
    fn a_trait_method_without_body_is_not_a_function() {
        let rest = "    // nothing\n".repeat(100);
        check_below_header(&format!("trait T {{\n    fn f(&self) -> u32;\n{rest}}}\n"), &[]);
    }

    #[test]
    fn a_file_says_what_it_is_for() {
        for bad in ["fn f() {}\n", "//! .\n", "//! tidy\nfn f() {}\n", "\n//! Says what this file is for.\n"]
        {
            let findings = check("a.rs", bad, "");
            assert!(findings.iter().any(|finding| finding.message.contains("header")), "{bad}");
        }
    }

    #[test]
    fn unfinished_work_is_found() {
        check_below_header(concat!("fn f() { to", "do!() }\n"), &[(2, "finish it")]);
        check_below_header(concat!("#[igno", "re]\nfn f() {}\n"), &[(2, "proves nothing")]);
        check_below_header(concat!("// a comment on to", "do!()\n"), &[]);
    }

    #[test]
    fn unsafe_code_is_listed() {
        let planted = concat!("fn f() { uns", "afe { g() } }\n");
        check_below_header(planted, &[(2, "ARCHITECTURE")]);
        let listed =
            check("crates/x/src/x.rs", &format!("{HEADER}{planted}"), "- `crates/x/src/x.rs`: proof");
        assert_eq!(listed, []);
        check_below_header(concat!("#![deny(uns", "afe_code)]\n"), &[]);
    }

    #[test]
    fn unwrap_belongs_in_tests() {
        check_below_header("fn f() { g().unwrap() }\n", &[(2, "unwrap")]);
        let in_tests = "fn f() {}\n#[cfg(test)]\nmod tests {\n    fn g() { h().unwrap() }\n}\n";
        check_below_header(in_tests, &[]);
        check_below_header(&format!("{in_tests}fn k() {{ h().unwrap() }}\n"), &[(7, "unwrap")]);
    }
}
