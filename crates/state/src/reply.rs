//! Taking apart what the server answered, without believing that it has any shape.

use redis::Value;

/// The bytes of a string, whichever way it came.
#[must_use]
pub fn bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.into_bytes()),
        _ => None,
    }
}

/// A whole number.
#[must_use]
pub fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Int(number) => Some(*number),
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok()?.parse().ok(),
        _ => None,
    }
}

/// The members of a list; none of anything else.
#[must_use]
pub fn list(value: Value) -> Vec<Value> {
    match value {
        Value::Array(members) | Value::Set(members) => members,
        _ => Vec::new(),
    }
}

/// Names and values, of a list in which they take turns or of a map.
#[must_use]
pub fn pairs(value: Value) -> Vec<(Vec<u8>, Vec<u8>)> {
    let both = |(name, value)| Some((bytes(name)?, bytes(value)?));
    if let Value::Map(members) = value {
        return members.into_iter().filter_map(both).collect();
    }
    let mut members = list(value).into_iter();
    let mut pairs = Vec::new();
    while let (Some(name), Some(value)) = (members.next(), members.next()) {
        pairs.extend(both((name, value)));
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn shapes_that_were_not_expected_are_nothing() {
        assert_eq!(bytes(Value::Int(1)), None);
        assert_eq!(integer(&text("12")), Some(12));
        assert_eq!(integer(&text("twelve")), None);
        assert_eq!(list(text("a")), []);
        assert_eq!(pairs(Value::Nil), []);
        let odd = Value::Array(vec![text("a"), text("b"), text("c")]);
        assert_eq!(pairs(odd), [(b"a".to_vec(), b"b".to_vec())]);
        let map = Value::Map(vec![(text("a"), text("b")), (text("c"), Value::Nil)]);
        assert_eq!(pairs(map), [(b"a".to_vec(), b"b".to_vec())]);
    }
}
