//! How a response is written down for other edges, and read again without trust.
//!
//! **Intuition.** What comes out of the shared tier was written by another process, perhaps of another version, perhaps by
//! nobody we know. So a value says what it is, carries a checksum and its whole key, and is read like a response
//! from the network: whatever is odd about it makes it a miss.
//!
//! **Mechanism.** A header of [`HEADER_BYTES`] (magic, version and kind, packing, checksum over all that follows, the
//! history and the position of the purges, the length unpacked), then the content, packed by zstd where that saves an
//! eighth. Numbers are little-endian. Two kinds: a response, and the names of the `Vary` of a key whose responses differ,
//! which have keys of their own.
//!
//! ```text
//! response:  status u16, personal u8, received u64, age u64, fetch u32, key, count u16 × (name, value or none), head, body to the end
//! names:     key, count u16 × name
//! ```
//!
//! **Failure.** `read` answers `None`. Lengths are checked before anything is allocated, and what is unpacked is no
//! longer than the caller allows.

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

/// The part before the content. Its first 16 bytes tell values of one key apart.
pub const HEADER_BYTES: usize = 36;
/// What tells two values of one key apart: magic, kind and checksum.
pub(crate) const SEEN_BYTES: usize = 16;
/// Names of one `Vary`, as many as the policy takes.
const NAMES_MAX: usize = 16;
const MAGIC: &[u8; 4] = b"TFC2";
const KIND_RESPONSE: u8 = 1;
const KIND_NAMES: u8 = 2;
const PLAIN: u8 = 0;
const ZSTD: u8 = 1;
/// zstd's fastest ordinary level: it saves most of what there is to save in text.
const ZSTD_LEVEL: i32 = 1;
/// Shorter contents gain less than the packing costs.
const PACKED_BYTES_MIN: usize = 512;
/// Longer ones would hold up the thread that packs.
const PACKED_BYTES_MAX: usize = 4 << 20;
const ABSENT: u32 = u32::MAX;

/// A value, read or to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// Names the history in which `began` has a meaning.
    pub epoch: u64,
    /// The purges' position when the fetch began.
    pub began: u64,
    /// What it holds.
    pub content: Content,
}

/// What a value holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A response.
    Response(Response),
    /// The names by which the responses of a key differ, in the order of the variants' keys.
    Names {
        /// The key, whole.
        key: Vec<u8>,
        /// In lower case.
        names: Vec<Vec<u8>>,
    },
}

/// A response and what it answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// Its status.
    pub status: u16,
    /// It answered a request with credentials that the key does not hold.
    pub personal: bool,
    /// When it was received, in milliseconds since 1970.
    pub received_ms: u64,
    /// Its age at that moment.
    pub initial_age_ms: u64,
    /// How long its fetch took, in milliseconds; 0 if that is not known.
    pub fetch_ms: u32,
    /// The key, whole.
    pub key: Vec<u8>,
    /// The request's headers by which it was selected, with their values.
    pub selecting: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// `name: value` lines.
    pub head: Bytes,
    /// The body.
    pub body: Bytes,
}

impl Value {
    /// As it is kept. May take milliseconds for a large body.
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        let (kind, content) = match &self.content {
            Content::Response(response) => (KIND_RESPONSE, response.write()),
            Content::Names { key, names } => {
                let mut out = Vec::new();
                push(&mut out, key);
                push_count(&mut out, names.len());
                names.iter().for_each(|name| push(&mut out, name));
                (KIND_NAMES, out)
            }
        };
        let packed = pack(&content);
        let mut out = Vec::with_capacity(HEADER_BYTES + packed.as_ref().unwrap_or(&content).len());
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&[kind, if packed.is_some() { ZSTD } else { PLAIN }, 0, 0]);
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(&self.epoch.to_le_bytes());
        out.extend_from_slice(&self.began.to_le_bytes());
        out.extend_from_slice(&u32::try_from(content.len()).unwrap_or(ABSENT).to_le_bytes());
        out.extend_from_slice(packed.as_ref().unwrap_or(&content));
        seal(&mut out);
        out
    }

    /// Reads a value whose content, unpacked, has at most `bytes_max` bytes. `None` if it is anything but one.
    #[must_use]
    pub fn read(value: &[u8], bytes_max: usize) -> Option<Self> {
        let mut header = Cursor(value);
        let magic = header.take(4)?;
        let [kind, packing, 0, 0] = *header.array::<4>()? else { return None };
        let checksum = header.u64()?;
        if magic != MAGIC || checksum != xxh3_64(value.get(SEEN_BYTES..)?) {
            return None;
        }
        let (epoch, began) = (header.u64()?, header.u64()?);
        let length = usize::try_from(header.u32()?).ok().filter(|&length| length <= bytes_max)?;
        let content = match packing {
            PLAIN => header.0.to_vec(),
            ZSTD => zstd::bulk::decompress(header.0, length).ok()?,
            _ => return None,
        };
        if content.len() != length {
            return None;
        }
        let content = match kind {
            KIND_RESPONSE => Content::Response(Response::read(content)?),
            KIND_NAMES => read_names(&content)?,
            _ => return None,
        };
        Some(Self { epoch, began, content })
    }
}

/// Puts the checksum of a value right. One that is too short for a header stays as it is.
pub fn seal(value: &mut [u8]) {
    if value.len() >= HEADER_BYTES {
        let checksum = xxh3_64(&value[SEEN_BYTES..]);
        value[8..SEEN_BYTES].copy_from_slice(&checksum.to_le_bytes());
    }
}

/// Packed, if that is worth it.
fn pack(content: &[u8]) -> Option<Vec<u8>> {
    if !(PACKED_BYTES_MIN..=PACKED_BYTES_MAX).contains(&content.len()) {
        return None;
    }
    let packed = zstd::bulk::compress(content, ZSTD_LEVEL).ok()?;
    (packed.len() <= content.len() / 8 * 7).then_some(packed)
}

impl Response {
    fn write(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.head.len() + self.body.len() + self.key.len() + 64);
        out.extend_from_slice(&self.status.to_le_bytes());
        out.push(u8::from(self.personal));
        out.extend_from_slice(&self.received_ms.to_le_bytes());
        out.extend_from_slice(&self.initial_age_ms.to_le_bytes());
        out.extend_from_slice(&self.fetch_ms.to_le_bytes());
        push(&mut out, &self.key);
        push_count(&mut out, self.selecting.len());
        for (name, value) in &self.selecting {
            push(&mut out, name);
            match value {
                Some(value) => push(&mut out, value),
                None => out.extend_from_slice(&ABSENT.to_le_bytes()),
            }
        }
        push(&mut out, &self.head);
        out.extend_from_slice(&self.body);
        out
    }

    fn read(content: Vec<u8>) -> Option<Self> {
        let content = Bytes::from(content);
        let mut cursor = Cursor(&content);
        let status = u16::from_le_bytes(*cursor.array()?);
        let [personal @ (0 | 1)] = *cursor.array()? else { return None };
        let (received_ms, initial_age_ms, fetch_ms) = (cursor.u64()?, cursor.u64()?, cursor.u32()?);
        let key = cursor.part()??.to_vec();
        let mut selecting = Vec::new();
        for _ in 0..cursor.count()? {
            selecting.push((cursor.part()??.to_vec(), cursor.part()?.map(<[u8]>::to_vec)));
        }
        let head = cursor.part()??;
        let (head, body) = (content.slice_ref(head), content.slice_ref(cursor.0));
        if !(200..=599).contains(&status) || !is_head(&head) {
            return None;
        }
        let personal = personal == 1;
        Some(Self { status, personal, received_ms, initial_age_ms, fetch_ms, key, selecting, head, body })
    }
}

fn read_names(content: &[u8]) -> Option<Content> {
    let mut cursor = Cursor(content);
    let key = cursor.part()??.to_vec();
    let mut names = Vec::new();
    for _ in 0..cursor.count()? {
        names.push(cursor.part()??.to_vec());
    }
    cursor.0.is_empty().then_some(Content::Names { key, names })
}

/// Lines `name: value` and nothing else, each name a token and each value without what would end the line.
/// RFC 9110 §5.1, §5.5.
fn is_head(head: &[u8]) -> bool {
    let mut rest = head;
    while !rest.is_empty() {
        let Some(end) = memchr::memmem::find(rest, b"\r\n") else { return false };
        let line = &rest[..end];
        rest = &rest[end + 2..];
        let Some(colon) = memchr::memmem::find(line, b": ") else { return false };
        let (name, value) = (&line[..colon], &line[colon + 2..]);
        let is_token = |&b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if name.is_empty() || !name.iter().all(is_token) || memchr::memchr3(b'\r', b'\n', 0, value).is_some()
        {
            return false;
        }
    }
    true
}

fn push(out: &mut Vec<u8>, part: &[u8]) {
    out.extend_from_slice(&u32::try_from(part.len()).unwrap_or(ABSENT - 1).to_le_bytes());
    out.extend_from_slice(part);
}

fn push_count(out: &mut Vec<u8>, count: usize) {
    out.extend_from_slice(&u16::try_from(count).unwrap_or(u16::MAX).to_le_bytes());
}

/// What is still to be read.
struct Cursor<'v>(&'v [u8]);

impl<'v> Cursor<'v> {
    fn take(&mut self, count: usize) -> Option<&'v [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<&'v [u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(|bytes| u64::from_le_bytes(*bytes))
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(|bytes| u32::from_le_bytes(*bytes))
    }

    fn count(&mut self) -> Option<usize> {
        let count = usize::from(u16::from_le_bytes(*self.array()?));
        (count <= NAMES_MAX).then_some(count)
    }

    /// A part with its length; the inner `None` is one that is said to be absent.
    fn part(&mut self) -> Option<Option<&'v [u8]>> {
        match self.u32()? {
            ABSENT => Some(None),
            length => self.take(usize::try_from(length).ok()?).map(Some),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAX: usize = 1 << 20;

    fn response(body: &[u8]) -> Value {
        let response = Response {
            status: 200,
            personal: true,
            received_ms: 1_700_000_000_000,
            initial_age_ms: 1500,
            fetch_ms: 20,
            key: b"key".to_vec(),
            selecting: vec![(b"accept".to_vec(), Some(b"text/html".to_vec())), (b"x-tenant".to_vec(), None)],
            head: Bytes::from_static(b"Content-Type: text/html\r\nETag: \"1\"\r\n"),
            body: Bytes::copy_from_slice(body),
        };
        Value { epoch: 7, began: 1 << 40, content: Content::Response(response) }
    }

    fn with_head(head: &'static [u8]) -> Vec<u8> {
        let response = Response { status: 200, head: Bytes::from_static(head), ..Response::default() };
        Value { epoch: 1, began: 1, content: Content::Response(response) }.write()
    }

    #[test]
    fn what_is_written_is_read_again() {
        for body in [&b""[..], b"hello", &b"hello ".repeat(4000)] {
            let value = response(body);
            let written = value.write();
            assert!(written.len() < 700, "{} bytes for {}", written.len(), body.len());
            assert_eq!(Value::read(&written, MAX), Some(value));
        }
        let names = Content::Names { key: b"k".to_vec(), names: vec![b"accept".to_vec()] };
        let names = Value { epoch: 1, began: 2, content: names };
        assert_eq!(Value::read(&names.write(), MAX), Some(names));
    }

    #[test]
    fn what_does_not_get_smaller_is_kept_as_it_is() {
        let mut state = 1_u64;
        let noise = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_be_bytes()[0]
        });
        let noise: Vec<u8> = noise.take(10_000).collect();
        let written = response(&noise).write();
        assert_eq!(written[5], PLAIN);
        assert_eq!(Value::read(&written, MAX), Some(response(&noise)));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_makes_it_a_miss() {
        let written = response(&b"hello ".repeat(200)).write();
        for at in 0..written.len() {
            let mut flipped = written.clone();
            flipped[at] ^= 1;
            assert_eq!(Value::read(&flipped, MAX), None, "byte {at}");
            assert_eq!(Value::read(&written[..at], MAX), None, "cut at {at}");
        }
        assert_eq!(Value::read(&[&written[..], b"x"].concat(), MAX), None);
    }

    #[test]
    fn what_would_unpack_to_more_than_is_allowed_is_not_unpacked() {
        let written = response(&b"hello ".repeat(4000)).write();
        assert_eq!(written[5], ZSTD);
        assert_eq!(Value::read(&written, 10_000), None);
    }

    #[test]
    fn a_head_that_would_split_the_response_is_a_miss() {
        assert!(Value::read(&with_head(b"A: b\r\n"), MAX).is_some());
        for head in [
            &b"A: b"[..],
            b"A: b\r\n\r\n",
            b"A: b\rc\r\n",
            b"A: b\nc: d\r\n",
            b"A b: c\r\n",
            b": c\r\n",
            b"A:b\r\n",
            b"A: \0\r\n",
        ] {
            let written = with_head(head.to_vec().leak());
            assert_eq!(Value::read(&written, MAX), None, "{head:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0_u8..4) {
            let _ = Value::read(&bytes, MAX);
            let mut value = MAGIC.to_vec();
            value.extend([kind, PLAIN, 0, 0]);
            value.extend([0; 8]);
            value.extend([0; 16]);
            value.extend(u32::try_from(bytes.len()).unwrap().to_le_bytes());
            value.extend(&bytes);
            let checksum = xxh3_64(&value[SEEN_BYTES..]);
            value[8..16].copy_from_slice(&checksum.to_le_bytes());
            if let Some(read) = Value::read(&value, MAX) {
                prop_assert_eq!(Value::read(&read.write(), MAX), Some(read));
            }
        }
    }
}
