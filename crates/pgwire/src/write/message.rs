//! The pieces of a message: tag, length, fields.
//!
//! **Intuition.** A length word stands before what it counts. So either the caller knows the length, or the word is
//! kept free and filled in when the body is there.
//!
//! **Mechanism.** [`header`] for known lengths; [`build`] runs a closure that appends the body and then fills the
//! length in.
//!
//! **Failure.** A body above what a length word can say panics; see [`crate::write`].

/// Appends tag and length word of a message whose body has `body_len` bytes.
#[inline]
pub fn header(out: &mut Vec<u8>, tag: u8, body_len: usize) {
    let [a, b, c, d] = length_word(body_len + 4);
    out.extend_from_slice(&[tag, a, b, c, d]);
}

/// Appends a message whose body `fill` appends.
#[inline]
pub fn build(out: &mut Vec<u8>, tag: u8, fill: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    counted(out, fill);
}

/// Appends a length word that counts itself, and what `fill` appends: a startup packet, or a message behind its tag.
#[inline]
pub(crate) fn counted(out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    fill(out);
    let word = length_word(out.len() - at);
    out[at..at + 4].copy_from_slice(&word);
}

#[inline]
fn length_word(len: usize) -> [u8; 4] {
    i32::try_from(len).expect("messages are made from parts of at most 1 GiB").to_be_bytes()
}

/// What of `string` goes out: all, or what stands before its first NUL.
#[inline]
fn until_nul(string: &[u8]) -> &[u8] {
    memchr::memchr(0, string).and_then(|at| string.get(..at)).unwrap_or(string)
}

/// Appends a string and its NUL.
#[inline]
pub fn string(out: &mut Vec<u8>, string: &[u8]) {
    out.extend_from_slice(until_nul(string));
    out.push(0);
}

/// Bytes that [`string`] appends.
#[must_use]
#[inline]
pub fn string_len(string: &[u8]) -> usize {
    until_nul(string).len() + 1
}

/// Appends a value behind its length; `None` is NULL.
#[inline]
pub fn value(out: &mut Vec<u8>, value: Option<&[u8]>) {
    let Some(bytes) = value else {
        out.extend_from_slice(&(-1_i32).to_be_bytes());
        return;
    };
    out.extend_from_slice(&length_word(bytes.len()));
    out.extend_from_slice(bytes);
}

/// Appends a count of 16 bits and then each item by `append`. Items beyond 65,535 are not taken, since the count could
/// not name them.
#[inline]
pub(crate) fn list<T>(
    out: &mut Vec<u8>,
    items: impl IntoIterator<Item = T>,
    mut append: impl FnMut(&mut Vec<u8>, T),
) {
    let at = out.len();
    out.extend_from_slice(&[0; 2]);
    let mut count = 0_u16;
    for item in items.into_iter().take(usize::from(u16::MAX)) {
        append(out, item);
        count += 1;
    }
    out[at..at + 2].copy_from_slice(&count.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_ends_at_its_first_nul() {
        let mut out = Vec::new();
        string(&mut out, b"ab\0cd");
        string(&mut out, b"");
        assert_eq!(out, b"ab\0\0");
        assert_eq!((string_len(b"ab\0cd"), string_len(b"")), (3, 1));
    }

    #[test]
    fn lengths_are_filled_in_behind_what_is_there() {
        let mut out = b"before".to_vec();
        build(&mut out, b'Q', |out| string(out, b"x"));
        header(&mut out, b'S', 0);
        assert_eq!(out, b"beforeQ\0\0\0\x06x\0S\0\0\0\x04");
    }

    #[test]
    fn a_list_has_no_more_items_than_its_count_can_name() {
        let mut out = Vec::new();
        list(&mut out, 0..70_000, |out, _| out.push(b'.'));
        assert_eq!((&out[..2], out.len()), (&b"\xff\xff"[..], 2 + 65_535));
    }
}
