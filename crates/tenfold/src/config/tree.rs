//! A file that has been checked: typed values with their places, defaults filled in.
//!
//! The walker makes it, the build step reads it by key name. Each value remembers that it was read: a test holds that
//! after a build of a file with every key, none is left unread, so that no setting is ever accepted and ignored.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use super::values;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub struct Node {
    /// Bytes of the source; of a default, those of the table it belongs to.
    pub span: Range<usize>,
    /// What was written, or the default.
    pub value: Value,
    read: Cell<bool>,
}

/// A checked value.
#[derive(Clone, Debug)]
pub enum Value {
    /// `true` or `false`.
    Boolean(bool),
    /// Within its key's range.
    Integer(u64),
    /// Within its key's range.
    Duration(Duration),
    /// Bytes, within its key's range.
    Size(u64),
    /// Parts per million.
    Ratio(u32),
    /// Of its key's form.
    Text(String),
    /// The same, where variables were filled in: what they hold is used and never shown.
    Filled {
        /// What is used.
        text: String,
        /// What the file says.
        written: String,
    },
    /// Never printed.
    Secret(String),
    /// Elements in order.
    List(Vec<Node>),
    /// Keys in order of the alphabet.
    Table(Table),
    /// A diagnostic was made of it; nothing is built from this tree.
    Invalid,
}

/// A checked table: every key with a default is there.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// By key.
    pub entries: BTreeMap<String, Node>,
}

impl Node {
    /// A value at a place.
    #[must_use]
    pub fn new(span: Range<usize>, value: Value) -> Self {
        Self { span, value, read: Cell::new(false) }
    }

    /// As text, if it is.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        self.read.set(true);
        match &self.value {
            Value::Text(text) | Value::Filled { text, .. } | Value::Secret(text) => Some(text),
            _ => None,
        }
    }

    /// Text fit for a message: as the file has it, so that what a variable holds is not told.
    #[must_use]
    pub fn shown(&self) -> &str {
        match &self.value {
            Value::Text(text) | Value::Filled { written: text, .. } => text,
            _ => "***",
        }
    }

    /// As a table, if it is.
    #[must_use]
    pub fn as_table(&self) -> Option<&Table> {
        self.read.set(true);
        match &self.value {
            Value::Table(table) => Some(table),
            _ => None,
        }
    }

    /// Its elements; a single value is a list of itself.
    #[must_use]
    pub fn as_list(&self) -> &[Node] {
        self.read.set(true);
        match &self.value {
            Value::List(list) => list,
            _ => std::slice::from_ref(self),
        }
    }

    /// As JSON, secrets masked and variables by name.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Boolean(value) => (*value).into(),
            Value::Integer(value) => (*value).into(),
            Value::Duration(value) => values::duration_text(*value).into(),
            Value::Size(value) => values::size_text(*value).into(),
            Value::Ratio(value) => values::ratio_text(*value).into(),
            Value::Text(value) | Value::Filled { written: value, .. } => value.as_str().into(),
            Value::Secret(_) => "***".into(),
            Value::List(list) => list.iter().map(Node::to_json).collect(),
            Value::Table(table) => table.to_json(),
            Value::Invalid => serde_json::Value::Null,
        }
    }

    /// Paths below this one that nothing has read.
    #[cfg(test)]
    pub fn unread(&self, path: &str, out: &mut Vec<String>) {
        match &self.value {
            Value::Table(table) => table.unread(path, out),
            Value::List(list) => list.iter().for_each(|node| node.unread(path, out)),
            _ if !self.read.get() => out.push(path.to_owned()),
            _ => {}
        }
    }
}

/// Reading a key that the walker has checked. A wrong name or type here is a mistake in this program, which the test
/// that builds a file with every key finds; hence the panics.
impl Table {
    /// The value of a key, if it was written or has a default.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entries.get(key)
    }

    /// A number.
    #[must_use]
    pub fn integer(&self, key: &str) -> u64 {
        self.optional_integer(key).expect("the walker checked an integer with a default")
    }

    /// A number, if written.
    #[must_use]
    pub fn optional_integer(&self, key: &str) -> Option<u64> {
        self.read(key, |value| if let Value::Integer(n) = value { Some(*n) } else { None })
    }

    /// A duration.
    #[must_use]
    pub fn duration(&self, key: &str) -> Duration {
        self.optional_duration(key).expect("the walker checked a duration with a default")
    }

    /// A duration, if written.
    #[must_use]
    pub fn optional_duration(&self, key: &str) -> Option<Duration> {
        self.read(key, |value| if let Value::Duration(d) = value { Some(*d) } else { None })
    }

    /// Bytes.
    #[must_use]
    pub fn size(&self, key: &str) -> u64 {
        self.read(key, |value| if let Value::Size(n) = value { Some(*n) } else { None })
            .expect("the walker checked a size with a default")
    }

    /// Parts per million.
    #[must_use]
    pub fn ratio_ppm(&self, key: &str) -> u32 {
        self.optional_ratio_ppm(key).expect("the walker checked a ratio with a default")
    }

    /// Parts per million, if written.
    #[must_use]
    pub fn optional_ratio_ppm(&self, key: &str) -> Option<u32> {
        self.read(key, |value| if let Value::Ratio(n) = value { Some(*n) } else { None })
    }

    /// `true` or `false`.
    #[must_use]
    pub fn boolean(&self, key: &str) -> bool {
        self.read(key, |value| if let Value::Boolean(b) = value { Some(*b) } else { None })
            .expect("the walker checked a boolean with a default")
    }

    /// A boolean, if it is there.
    #[must_use]
    pub fn optional_boolean(&self, key: &str) -> Option<bool> {
        self.read(key, |value| if let Value::Boolean(b) = value { Some(*b) } else { None })
    }

    /// Text that was required or has a default.
    #[must_use]
    pub fn text(&self, key: &str) -> &str {
        self.optional_text(key).expect("the walker checked a text with a default")
    }

    /// Text, if written.
    #[must_use]
    pub fn optional_text(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_text()
    }

    /// A table, if written.
    #[must_use]
    pub fn table(&self, key: &str) -> Option<&Self> {
        self.get(key)?.as_table()
    }

    /// A list; empty if absent.
    #[must_use]
    pub fn list(&self, key: &str) -> &[Node] {
        self.get(key).map_or(&[], Node::as_list)
    }

    /// As JSON, secrets masked.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        self.entries
            .iter()
            .map(|(key, node)| (key.clone(), node.to_json()))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }

    /// Where `route[2].cache.ttl` stands, or the nearest part of that path which does.
    #[must_use]
    pub fn span_of(&self, path: &str) -> Option<Range<usize>> {
        let mut found = None;
        let mut table = Some(self);
        for part in path.split('.') {
            let (name, index) = split_index(part);
            let Some(mut node) = table.and_then(|table| table.entries.get(name)) else { break };
            found = Some(node.span.clone());
            if let (Some(index), Value::List(list)) = (index, &node.value) {
                let Some(element) = list.get(index) else { break };
                node = element;
                found = Some(node.span.clone());
            }
            table = if let Value::Table(table) = &node.value { Some(table) } else { None };
        }
        found
    }

    fn read<T>(&self, key: &str, pick: impl Fn(&Value) -> Option<T>) -> Option<T> {
        let node = self.entries.get(key)?;
        node.read.set(true);
        pick(&node.value)
    }

    /// Paths below this one that nothing has read.
    #[cfg(test)]
    pub fn unread(&self, path: &str, out: &mut Vec<String>) {
        for (key, node) in &self.entries {
            node.unread(&format!("{path}.{key}"), out);
        }
    }
}

/// `route[2]` is `route` and 2.
fn split_index(part: &str) -> (&str, Option<usize>) {
    let Some((name, rest)) = part.split_once('[') else { return (part, None) };
    (name, rest.strip_suffix(']').and_then(|digits| digits.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(entries: Vec<(&str, Node)>) -> Value {
        Value::Table(Table {
            entries: entries.into_iter().map(|(key, node)| (key.to_owned(), node)).collect(),
        })
    }

    #[test]
    fn a_path_is_found_as_far_as_it_was_written() {
        let to = Node::new(12..14, Value::Text("api".into()));
        let second = Node::new(10..20, table(vec![("to", to)]));
        let first = Node::new(1..9, table(vec![]));
        let root = table(vec![("route", Node::new(0..30, Value::List(vec![first, second])))]);
        let Value::Table(root) = root else { unreachable!("made above") };
        let check = |path: &str, span: Option<Range<usize>>| assert_eq!(root.span_of(path), span, "{path}");
        check("route[1].to", Some(12..14));
        check("route[1].cache.ttl", Some(10..20));
        check("route[0].to", Some(1..9));
        check("route[7].to", Some(0..30));
        check("cluster.api", None);
        check("", None);
    }
}
