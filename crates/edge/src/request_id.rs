//! A name for each request, the same in the answer, the logs and the node's own traces.
//!
//! An id is 32 hexadecimal digits, so that it can be the trace id of a `traceparent` (W3C Trace Context) when the client
//! brought none: one search finds the request everywhere. A proxy we trust may name the request itself.
//!
//! Ids need to be unique, not secret: a small generator from a random seed for each worker.

use tenfold_service::rng::Rng;

/// Ids of a trusted proxy are kept up to this length.
const LENGTH_MAX: usize = 64;
const HEX: &[u8; 16] = b"0123456789abcdef";

/// Visible ASCII without quotes, at most 64 bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct RequestId {
    bytes: [u8; LENGTH_MAX],
    /// Always ≤ `LENGTH_MAX`.
    length: u8,
}

impl RequestId {
    /// Takes over an id that another proxy gave, if it is harmless: 8 to 64 letters, digits and `-_.:`.
    #[must_use]
    pub(crate) fn adopt(text: &[u8]) -> Option<Self> {
        let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-_.:".contains(b);
        if !(8..=LENGTH_MAX).contains(&text.len()) || !text.iter().all(plain) {
            return None;
        }
        let mut bytes = [0; LENGTH_MAX];
        bytes[..text.len()].copy_from_slice(text);
        Some(Self { bytes, length: u8::try_from(text.len()).ok()? })
    }

    /// As it is written.
    #[must_use]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    /// As it is written.
    #[must_use]
    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }
}

impl std::fmt::Debug for RequestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Makes ids; one for each worker, each with its own seed.
#[derive(Clone, Debug)]
pub(crate) struct RequestIds {
    rng: Rng,
}

impl RequestIds {
    /// `seed` should be random, or two processes make the same ids.
    #[must_use]
    pub(crate) fn new(seed: u64) -> Self {
        Self { rng: Rng::new(seed) }
    }

    /// The next id.
    pub(crate) fn make(&mut self) -> RequestId {
        let mut bytes = [0; LENGTH_MAX];
        write_hex(self.rng.next_u64(), &mut bytes[..16]);
        write_hex(self.rng.next_u64(), &mut bytes[16..32]);
        RequestId { bytes, length: 32 }
    }

    /// Sixteen hexadecimal digits, never all zero: a span's id.
    pub(crate) fn make_span(&mut self) -> [u8; 16] {
        let mut digits = [0; 16];
        write_hex(self.rng.next_u64() | 1, &mut digits);
        digits
    }

    /// Any number, a new one each time, for what is decided by lot.
    pub(crate) fn draw(&mut self) -> u64 {
        self.rng.next_u64()
    }
}

fn write_hex(value: u64, out: &mut [u8]) {
    for (pair, byte) in out.chunks_exact_mut(2).zip(value.to_be_bytes()) {
        pair[0] = HEX[usize::from(byte >> 4)];
        pair[1] = HEX[usize::from(byte & 15)];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_and_fit_a_trace() {
        let mut ids = RequestIds::new(1);
        let (first, second) = (ids.make(), ids.make());
        assert_ne!(first, second);
        assert_eq!(first.as_str().len(), 32);
        assert!(first.as_str().bytes().all(|b| HEX.contains(&b)));
        assert_ne!(RequestIds::new(2).make(), first);
    }

    #[test]
    fn only_harmless_ids_are_adopted() {
        for good in ["12345678", "a-b_c.d:e", &"x".repeat(64)] {
            assert_eq!(
                RequestId::adopt(good.as_bytes()).map(|id| id.as_str().to_owned()),
                Some(good.to_owned())
            );
        }
        for bad in ["", "short", "with space", "quote\"quote", "line\r\nline", &"x".repeat(65)] {
            assert_eq!(RequestId::adopt(bad.as_bytes()), None, "{bad}");
        }
    }
}
