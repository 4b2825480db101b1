//! The bodies of frames: numbers, byte strings and lists of them, one after the other.
//!
//! **Mechanism.** Integers are big-endian, strings and lists have their length first. There are no names: both sides
//! agree by the version of the conversation.
//!
//! **Failure.** A body that ends early, holds more than was asked for, or a string that is not UTF-8, is [`Malformed`].
//! Lengths are checked against what is there before anything is allocated.

/// A body is not what its kind says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame whose body is not what its kind says")]
pub struct Malformed;

/// Writes a body.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

/// Reads a body.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl Writer {
    /// An empty body.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.bytes.push(value);
        self
    }

    /// Yes or no.
    pub fn flag(&mut self, value: bool) -> &mut Self {
        self.u8(u8::from(value))
    }

    /// Four bytes.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// Eight bytes.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// How many follow. More than a frame could hold is written as too many, which no reader takes.
    pub fn count(&mut self, count: usize) -> &mut Self {
        self.u32(u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// A byte string.
    pub fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.count(value.len());
        self.bytes.extend_from_slice(value);
        self
    }

    /// Text.
    pub fn text(&mut self, value: &str) -> &mut Self {
        self.bytes(value.as_bytes())
    }

    /// A byte string, or none.
    pub fn optional(&mut self, value: Option<&[u8]>) -> &mut Self {
        self.flag(value.is_some());
        if let Some(value) = value {
            self.bytes(value);
        }
        self
    }

    /// What was written.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

impl<'a> Reader<'a> {
    /// Reads from the beginning of a body.
    #[must_use]
    pub fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// Yes or no.
    pub fn flag(&mut self) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed),
        }
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    /// How many follow: never more than there are bytes left, since each takes one.
    pub fn count(&mut self) -> Result<usize, Malformed> {
        let count = usize::try_from(self.u32()?).map_err(|_| Malformed)?;
        if count <= self.rest.len() { Ok(count) } else { Err(Malformed) }
    }

    /// A byte string.
    pub fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.count()?;
        self.take(len)
    }

    /// Text.
    pub fn text(&mut self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed)
    }

    /// A byte string, or none.
    pub fn optional(&mut self) -> Result<Option<&'a [u8]>, Malformed> {
        match self.flag()? {
            true => self.bytes().map(Some),
            false => Ok(None),
        }
    }

    /// So many bytes, without a length.
    pub fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.array()
    }

    /// Nothing is left.
    ///
    /// # Errors
    /// Something is.
    pub fn end(self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let mut writer = Writer::new();
        writer.u8(7).flag(true).u32(1 << 20).u64(1 << 40).text("é").bytes(b"\0").optional(None);
        writer.optional(Some(b"x"));
        let bytes = writer.into_bytes();
        let mut reader = Reader::new(&bytes);
        assert_eq!((reader.u8(), reader.flag()), (Ok(7), Ok(true)));
        assert_eq!((reader.u32(), reader.u64()), (Ok(1 << 20), Ok(1 << 40)));
        assert_eq!((reader.text(), reader.bytes()), (Ok("é"), Ok(&b"\0"[..])));
        assert_eq!((reader.optional(), reader.optional()), (Ok(None), Ok(Some(&b"x"[..]))));
        assert_eq!(reader.end(), Ok(()));
    }

    #[test]
    fn a_body_is_read_to_its_end_and_no_further() {
        let long = Reader::new(&[1, 2]);
        assert_eq!(long.end(), Err(Malformed));
        assert_eq!(Reader::new(&[0, 0, 0, 2, 9]).bytes(), Err(Malformed));
        assert_eq!(Reader::new(&[0xff, 0xff, 0xff, 0xff]).count(), Err(Malformed));
        assert_eq!(Reader::new(&[2]).flag(), Err(Malformed));
        assert_eq!(Reader::new(&[0, 0, 0, 1, 0xff]).text(), Err(Malformed));
    }

    proptest! {
        #[test]
        fn no_body_makes_it_read_beyond_the_end(body in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut reader = Reader::new(&body);
            while reader.optional().is_ok_and(|found| found.is_some()) {}
            let _ = reader.text();
            let _ = reader.u64();
        }
    }
}
