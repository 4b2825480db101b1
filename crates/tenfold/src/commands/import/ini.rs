//! Reading pgbouncer.ini: sections, names and values, as PgBouncer's own parser takes them.
//!
//! **Mechanism.** A line is a section, `name = value`, `%include file`, a comment (`;` or `#` at its beginning) or
//! empty. Names may be quoted as SQL identifiers are. Values run to the end of the line; nothing in them is a comment.
//! A database's value is a connection string: `name=value` pairs, values quoted with `'` where they hold spaces.
//!
//! **Failure.** The first line that is none of these is an error with its file and number, as it is for PgBouncer.

use std::path::{Path, PathBuf};

/// Files that include each other at most this deep; PgBouncer's own limit.
const INCLUDE_DEPTH_MAX: usize = 10;
/// Lines of all files together.
const ENTRIES_MAX: usize = 100_000;
const FILE_BYTES_MAX: u64 = 16 << 20;

/// A name with its value, in the order of the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// In lower case.
    pub section: String,
    /// As written, without quotes.
    pub name: String,
    /// Trimmed.
    pub value: String,
}

/// Reads a file and all it includes.
///
/// # Errors
/// Which file cannot be read, or which line understood.
pub fn read(path: &Path) -> Result<Vec<Entry>, String> {
    let mut reader = Reader { entries: Vec::new(), section: String::new(), base: path.to_owned() };
    reader.file(path, 0)?;
    Ok(reader.entries)
}

struct Reader {
    entries: Vec<Entry>,
    section: String,
    /// The first file.
    base: PathBuf,
}

impl Reader {
    fn file(&mut self, path: &Path, depth: usize) -> Result<(), String> {
        if depth > INCLUDE_DEPTH_MAX {
            return Err(format!("{}: files include each other too deeply", path.display()));
        }
        let bytes = crate::tls::read(path, FILE_BYTES_MAX)?;
        let text = String::from_utf8(bytes).map_err(|_| format!("{} is not UTF-8", path.display()))?;
        for (number, line) in (1..).zip(text.lines()) {
            self.line(line.trim(), depth).map_err(|why| format!("{}:{number}: {why}", path.display()))?;
        }
        Ok(())
    }

    fn line(&mut self, line: &str, depth: usize) -> Result<(), String> {
        if line.is_empty() || line.starts_with([';', '#']) {
            return Ok(());
        }
        if let Some(rest) = line.strip_prefix("%include") {
            let path = self.included(rest.trim());
            return self.file(&path, depth + 1);
        }
        if let Some(rest) = line.strip_prefix('[') {
            let name = rest.strip_suffix(']').ok_or("a section without its closing bracket")?;
            self.section = name.trim().to_ascii_lowercase();
            return Ok(());
        }
        let (name, rest) = name(line)?;
        let value = rest.trim_start().strip_prefix('=').ok_or("expected name = value")?;
        if self.section.is_empty() {
            return Err("a setting before the first section".into());
        }
        if self.entries.len() == ENTRIES_MAX {
            return Err(format!("more than {ENTRIES_MAX} settings"));
        }
        let value = value.trim().to_owned();
        self.entries.push(Entry { section: self.section.clone(), name, value });
        Ok(())
    }

    /// Relative to where PgBouncer is started, which is not known here; the first file's folder is the second guess.
    fn included(&self, file: &str) -> PathBuf {
        let here = PathBuf::from(file);
        match self.base.parent() {
            Some(folder) if !here.exists() => folder.join(file),
            _ => here,
        }
    }
}

/// The name at a line's beginning, and what follows it.
fn name(line: &str) -> Result<(String, &str), String> {
    let Some(quoted) = line.strip_prefix('"') else {
        let end = line.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(line.len());
        let (name, rest) = line.split_at(end);
        return if name.is_empty() {
            Err("expected name = value".into())
        } else {
            Ok((name.to_owned(), rest))
        };
    };
    unquoted(quoted, '"').ok_or_else(|| "a quoted name without its end".to_owned())
}

/// Up to the closing quote, which is doubled where it is meant; and what follows.
fn unquoted(text: &str, quote: char) -> Option<(String, &str)> {
    let mut out = String::new();
    let mut rest = text;
    loop {
        let (before, after) = rest.split_once(quote)?;
        out.push_str(before);
        match after.strip_prefix(quote) {
            Some(more) => {
                out.push(quote);
                rest = more;
            }
            None => return Some((out, after)),
        }
    }
}

/// The pairs of a connection string.
///
/// # Errors
/// What is not a pair.
pub fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=').ok_or("expected name=value")?;
        let after = after.trim_start();
        let (value, more) = match after.strip_prefix('\'') {
            Some(quoted) => unquoted(quoted, '\'').ok_or("a quoted value without its end")?,
            None => {
                let end = after.find(char::is_whitespace).unwrap_or(after.len());
                (after[..end].to_owned(), &after[end..])
            }
        };
        pairs.push((name.trim().to_ascii_lowercase(), value));
        rest = more.trim_start();
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(section: &str, name: &str, value: &str) -> Entry {
        Entry { section: section.into(), name: name.into(), value: value.into() }
    }

    #[test]
    fn a_file_and_what_it_includes_are_read_in_order() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("a file");
            path
        };
        file("more.ini", "\"Odd \"\"name\" = host=h\n[pgbouncer]\n pool_mode=session \n");
        let main = "; a comment\n[Databases]\n* = host=testserver ; no comment\n%include more.ini\n# another\nlisten_addr =\n";
        let read = read(&file("pgbouncer.ini", main)).expect("readable");
        let expected = [
            entry("databases", "*", "host=testserver ; no comment"),
            entry("databases", "Odd \"name", "host=h"),
            entry("pgbouncer", "pool_mode", "session"),
            entry("pgbouncer", "listen_addr", ""),
        ];
        assert_eq!(read, expected);
    }

    #[test]
    fn a_line_that_is_nothing_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("bad.ini");
        let check = |text: &str, expected: &str| {
            std::fs::write(&path, text).expect("a file");
            let error = read(&path).expect_err("a mistake was planted");
            assert!(error.contains(expected), "{error}");
        };
        check("[pgbouncer]\npool_mode session\n", "bad.ini:2: expected name = value");
        check("a = b\n", "before the first section");
        check("[pgbouncer\n", "closing bracket");
        check("[x]\n= y\n", "expected name = value");
        check("[x]\n\"y = z\n", "without its end");
        check("%include bad.ini\n", "too deeply");
        check("%include absent.ini\n", "cannot read");
    }

    #[test]
    fn connection_strings_are_pairs() {
        let check = |text: &str, expected: Option<&[(&str, &str)]>| {
            let read = pairs(text).ok();
            let read =
                read.as_ref().map(|pairs| pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect());
            assert_eq!(read, expected.map(<[_]>::to_vec), "{text}");
        };
        check("", Some(&[]));
        check("host=a port = 5", Some(&[("host", "a"), ("port", "5")]));
        check(
            "connect_query='SELECT ''x''' dbname=b",
            Some(&[("connect_query", "SELECT 'x'"), ("dbname", "b")]),
        );
        check("password='' user=u", Some(&[("password", ""), ("user", "u")]));
        check("host", None);
        check("password='x", None);
    }
}
