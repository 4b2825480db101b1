//! Reading the fields of a message body: integers, strings that end in NUL, counted bytes.
//!
//! **Intuition.** Every message is a row of such fields. Each read here checks that the bytes are there, so the views
//! built on it cannot run past the end of a message, whatever lengths it claims.
//!
//! **Mechanism.** [`Fields`] is what of the body is still unread. Reads shorten it.
//!
//! **Failure.** The errors are the three of PostgreSQL's `pqformat.c`: too few bytes, no NUL, bytes left over.

use crate::Error;

/// The unread part of a message body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    #[inline]
    pub(crate) fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    #[inline]
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (array, rest) = self.rest.split_first_chunk::<N>().ok_or(Error::InsufficientData)?;
        self.rest = rest;
        Ok(*array)
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Result<u8, Error> {
        self.array::<1>().map(|[byte]| byte)
    }

    #[inline]
    pub(crate) fn u16(&mut self) -> Result<u16, Error> {
        self.array().map(u16::from_be_bytes)
    }

    #[inline]
    pub(crate) fn i16(&mut self) -> Result<i16, Error> {
        self.array().map(i16::from_be_bytes)
    }

    #[inline]
    pub(crate) fn u32(&mut self) -> Result<u32, Error> {
        self.array().map(u32::from_be_bytes)
    }

    #[inline]
    pub(crate) fn i32(&mut self) -> Result<i32, Error> {
        self.array().map(i32::from_be_bytes)
    }

    #[inline]
    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8], Error> {
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or(Error::InsufficientData)?;
        self.rest = rest;
        Ok(bytes)
    }

    /// A string, without the NUL that ends it.
    #[inline]
    pub(crate) fn string(&mut self) -> Result<&'a [u8], Error> {
        let len = memchr::memchr(0, self.rest).ok_or(Error::InvalidString)?;
        let (string, rest) = self.rest.split_at(len);
        self.rest = rest.get(1..).unwrap_or_default();
        Ok(string)
    }

    /// A value behind its length: `None` for the length -1, which means NULL.
    #[inline]
    pub(crate) fn value(&mut self) -> Result<Option<&'a [u8]>, Error> {
        match self.i32()? {
            -1 => Ok(None),
            len => {
                let len = usize::try_from(len).map_err(|_| Error::InsufficientData)?;
                self.bytes(len).map(Some)
            }
        }
    }

    /// `count` items of `width` bytes each.
    #[inline]
    pub(crate) fn array_of(&mut self, count: u16, width: usize) -> Result<&'a [u8], Error> {
        self.bytes(usize::from(count) * width)
    }

    /// Nothing may be left.
    #[inline]
    pub(crate) fn end(&self) -> Result<(), Error> {
        if self.rest.is_empty() { Ok(()) } else { Err(Error::MessageFormat) }
    }
}

/// Big-endian 16-bit integers in validated bytes.
#[inline]
pub(crate) fn i16s(raw: &[u8]) -> impl ExactSizeIterator<Item = i16> + Clone + '_ {
    raw.chunks_exact(2).map(|pair| i16::from_be_bytes([pair[0], pair[1]]))
}

/// Big-endian 32-bit integers in validated bytes.
#[inline]
pub(crate) fn u32s(raw: &[u8]) -> impl ExactSizeIterator<Item = u32> + Clone + '_ {
    raw.chunks_exact(4).map(|word| u32::from_be_bytes([word[0], word[1], word[2], word[3]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_stop_at_the_end() {
        let mut fields = Fields::new(b"\0\x01ab\0rest");
        assert_eq!(fields.u16(), Ok(1));
        assert_eq!(fields.string(), Ok(&b"ab"[..]));
        assert_eq!(fields.string(), Err(Error::InvalidString));
        assert_eq!(fields.end(), Err(Error::MessageFormat));
        assert_eq!(fields.bytes(5), Err(Error::InsufficientData));
        assert_eq!(fields.u32(), Ok(u32::from_be_bytes(*b"rest")));
        assert_eq!((fields.u8(), fields.end()), (Err(Error::InsufficientData), Ok(())));
    }

    #[test]
    fn values_are_null_present_or_refused() {
        let check = |bytes: &[u8], expected| assert_eq!(Fields::new(bytes).value(), expected, "{bytes:?}");
        check(b"\xff\xff\xff\xff", Ok(None));
        check(b"\0\0\0\0", Ok(Some(&b""[..])));
        check(b"\0\0\0\x02ab", Ok(Some(&b"ab"[..])));
        check(b"\0\0\0\x03ab", Err(Error::InsufficientData));
        check(b"\xff\xff\xff\xfeab", Err(Error::InsufficientData));
        check(b"\x80\0\0\0ab", Err(Error::InsufficientData));
        check(b"\x7f\xff\xff\xffab", Err(Error::InsufficientData));
        check(b"\0\0\0", Err(Error::InsufficientData));
    }
}
