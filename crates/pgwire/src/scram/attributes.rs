//! The text that SCRAM messages are made of: `a=value` separated by commas.
//!
//! **Intuition.** The order of attributes is fixed, so a message is read front to back, and whatever stands in another
//! place is an error.
//!
//! **Mechanism.** [`Attributes`] is what is left of a message. A comma is taken only between attributes, so a message
//! can end neither in a comma nor in the middle.
//!
//! **Failure.** [`Error::ScramMalformed`] with a detail in PostgreSQL's words.
//!
//! Source: RFC 5802 §7 (formal syntax); `read_attr_value` and `read_any_attr` in PostgreSQL's `auth-scram.c`.

use crate::Error;

/// The unread part of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attributes<'a> {
    rest: &'a [u8],
    /// A comma or the end has to come before the next attribute.
    is_behind_value: bool,
}

impl<'a> Attributes<'a> {
    /// # Errors
    /// For a message that is empty, too long, or has a NUL.
    pub(super) fn new(message: &'a [u8], bytes_max: usize) -> Result<Self, Error> {
        if message.is_empty() {
            return Err(Error::ScramMalformed("The message is empty."));
        }
        if message.len() > bytes_max || memchr::memchr(0, message).is_some() {
            return Err(Error::ScramMalformed("Message length does not match input length."));
        }
        Ok(Self { rest: message, is_behind_value: false })
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// Takes exactly these bytes, if they come next.
    pub(super) fn take(&mut self, expected: &[u8]) -> bool {
        match self.rest.strip_prefix(expected) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Takes the attribute of this name, which has to come next, and gives its value.
    pub(super) fn value(&mut self, name: u8) -> Result<&'a [u8], Error> {
        match self.any()? {
            (found, value) if found == name => Ok(value),
            _ => Err(Error::ScramMalformed("Attribute expected, but found another.")),
        }
    }

    /// Takes the next attribute, whatever its name.
    pub(super) fn any(&mut self) -> Result<(u8, &'a [u8]), Error> {
        if self.is_behind_value && !self.take(b",") {
            return Err(Error::ScramMalformed("Attribute expected, but found end of string."));
        }
        let [name, b'=', value @ ..] = self.rest else {
            return Err(Error::ScramMalformed("Expected an attribute and the character \"=\"."));
        };
        if !name.is_ascii_alphabetic() {
            return Err(Error::ScramMalformed("Attribute expected, but found invalid character."));
        }
        let len = memchr::memchr(b',', value).unwrap_or(value.len());
        let (value, rest) = value.split_at(len);
        self.rest = rest;
        self.is_behind_value = true;
        Ok((*name, value))
    }
}

/// What RFC 5802 allows in a nonce: printable ASCII without the comma.
pub(super) fn check_nonce(nonce: &[u8]) -> Result<(), Error> {
    let printable = |byte: &u8| matches!(byte, 0x21..=0x7e) && *byte != b',';
    if nonce.is_empty() || !nonce.iter().all(printable) {
        return Err(Error::ScramMalformed("Non-printable characters in SCRAM nonce."));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(message: &[u8]) -> Result<Vec<(u8, &[u8])>, Error> {
        let mut attributes = Attributes::new(message, 20)?;
        let mut found = vec![attributes.any()?];
        while !attributes.is_at_end() {
            found.push(attributes.any()?);
        }
        Ok(found)
    }

    #[test]
    fn attributes_come_one_behind_the_other() {
        assert_eq!(names(b"r=a"), Ok(vec![(b'r', &b"a"[..])]));
        assert_eq!(names(b"r=,s==,i=4"), Ok(vec![(b'r', &b""[..]), (b's', b"="), (b'i', b"4")]));
    }

    #[test]
    fn anything_else_is_malformed() {
        for message in
            [&b""[..], b",", b"r", b"r=a,", b"r=a,,", b",r=a", b"=a", b"1=a", b"\xc3=a", b"r=a\0", b"r:a"]
        {
            assert!(matches!(names(message), Err(Error::ScramMalformed(_))), "{message:?}");
        }
        assert!(names(b"r=345678901234567890").is_ok());
        assert!(names(b"r=3456789012345678901").is_err());
    }

    #[test]
    fn a_nonce_is_printable() {
        assert_eq!(check_nonce(b"!~09az"), Ok(()));
        for nonce in [&b""[..], b" ", b"a,b", b"a\x7f", b"\xc3\xa4"] {
            assert!(check_nonce(nonce).is_err(), "{nonce:?}");
        }
    }
}
