//! The TOML that is printed: sections in order, each a list of keys, beneath what could not be carried.

use std::fmt::Write as _;

/// A file in the making.
#[derive(Debug, Default)]
pub struct Document {
    /// What could not be carried, and why.
    pub gaps: Vec<String>,
    /// What needs nobody's attention.
    pub notes: Vec<String>,
    /// Files named by a relative path.
    pub relative: Vec<String>,
    sections: Vec<(Vec<String>, Keys)>,
}

/// Keys and their TOML text.
type Keys = Vec<(String, String)>;

impl Document {
    /// Sets a key to TOML text. Setting it again replaces it, as the last mention wins in an ini file.
    pub fn set(&mut self, section: &[&str], key: &str, toml: String) {
        let found = self.sections.iter().position(|(name, _)| name.iter().eq(section.iter()));
        let index = found.unwrap_or_else(|| {
            self.sections.push((section.iter().map(|&part| part.to_owned()).collect(), Vec::new()));
            self.sections.len() - 1
        });
        let keys = &mut self.sections[index].1;
        match keys.iter_mut().find(|(name, _)| name == key) {
            Some((_, value)) => *value = toml,
            None => keys.push((key.to_owned(), toml)),
        }
    }

    /// A key's TOML text.
    #[must_use]
    pub fn get(&self, section: &[&str], key: &str) -> Option<&str> {
        let (_, keys) = self.sections.iter().find(|(name, _)| name.iter().eq(section.iter()))?;
        keys.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// Says that something was not carried.
    pub fn gap(&mut self, what: &str, why: &str) {
        self.gaps.push(format!("{what}: {why}"));
    }

    /// Says that something needs no equivalent.
    pub fn note(&mut self, what: &str, why: &str) {
        self.notes.push(format!("{what}: {why}"));
    }

    /// The file.
    #[must_use]
    pub fn render(&self, from: &str) -> String {
        let mut out = format!("# Made from {} by `tenfold import`.\n", one_line(from));
        for (title, lines) in [("Not carried", &self.gaps), ("Needs no equivalent", &self.notes)] {
            if lines.is_empty() {
                continue;
            }
            let _ = writeln!(out, "#\n# {title}:");
            for line in lines {
                let _ = writeln!(out, "# - {}", one_line(line));
            }
        }
        for (name, keys) in &self.sections {
            let name: Vec<_> = name.iter().map(|part| key(part)).collect();
            let _ = writeln!(out, "\n[{}]", name.join("."));
            for (name, value) in keys {
                let _ = writeln!(out, "{name} = {value}");
            }
        }
        out
    }
}

/// A comment is one line whatever a file holds.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A key, quoted where it must be.
fn key(name: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !name.is_empty() && name.chars().all(bare) { name.to_owned() } else { quoted(name) }
}

/// A string as TOML, with dollars that would start a variable doubled. What JSON escapes, TOML escapes alike.
#[must_use]
pub fn text(value: &str) -> String {
    let mut doubled = String::with_capacity(value.len());
    let mut chars = value.chars().peekable();
    while let Some(c) = chars.next() {
        doubled.push(c);
        if c == '$' && !chars.peek().is_some_and(char::is_ascii_digit) {
            doubled.push('$');
        }
    }
    quoted(&doubled)
}

fn quoted(value: &str) -> String {
    // JSON leaves DEL as it is, which TOML forbids.
    serde_json::Value::from(value).to_string().replace('\u{7f}', "\\u007f")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let mut document = Document::default();
        let hostile = "a\"b\\c\n\u{7f}$x ${HOME} $1 $$";
        document.set(&["database", "o'dd \"name"], "connect_query", text(hostile));
        document.set(&["database", "o'dd \"name"], "primary", text("postgres://u@h"));
        document.gap("line\nbreak", "cannot end a comment\r\n[evil]");
        let rendered = document.render("x\ny");
        let loaded = crate::config::parse("import", &rendered, &|_| None);
        let loaded = loaded.unwrap_or_else(|report| panic!("{rendered}{}", report.render(false)));
        let database = &loaded.settings.pooler.expect("there is one").config.databases[0];
        assert_eq!((&*database.name, database.connect_query.as_deref()), ("o'dd \"name", Some(hostile)));
    }
}
