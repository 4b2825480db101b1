//! A token that says what its bearer has to see: made by an edge, believed by every edge with the same key.
//!
//! **Intuition.** A phone comes back over any connection, to any edge, and its request may be answered by any API node
//! through any pooler. What all of them need to know about its last write is small enough for the phone to carry.
//!
//! **Mechanism.** A [`Token`] holds a position in the log of the database: the cluster's system identifier, the timeline,
//! the position. For a write whose position nobody could tell it holds a moment instead: until then the primary answers,
//! and by then every replica in use has the write. As text it is `1.SYSTEM.TIMELINE.LSN.UNTIL.ISSUED.SEAL`: numbers in
//! hexadecimal, moments in milliseconds since 1970, the seal the first half of HMAC-SHA256 over what stands before it. The
//! application passes it on to the pooler as it is, which reads it and leaves the seal to edges.
//!
//! **Failure.** A token that is too long, malformed, sealed by another key or too old counts for nothing: so nobody can
//! make one up to send reads to the primary or past the cache.

use std::sync::OnceLock;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use tenfold_cache::{Floor, Timestamp};

use crate::config::{BuildError, OwnWrites};

/// What a token is called: as a field of requests and responses, and as a cookie.
pub(crate) const NAME: &str = "Tenfold-Position";
/// A longer text is no token: seven parts, of which the numbers have sixteen digits at most.
const TOKEN_BYTES_MAX: usize = 160;
const NUMBERS: usize = 5;
const SEAL_BYTES: usize = 16;
/// Before what is sealed, so that a seal of this key means nothing elsewhere.
const SEALED_AS: &[u8] = b"tenfold-position\0";
const VERSION: &str = "1";
/// How late a pooler notices that a replica lags too far, and how far clocks may be apart.
const LATE: Duration = Duration::from_secs(2);

/// What its bearer has to see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Token {
    /// Which line of history `lsn` is on.
    pub(crate) system: u64,
    pub(crate) timeline: u32,
    /// 0 for none.
    pub(crate) lsn: u64,
    /// Until when only the primary answers, in milliseconds since 1970; 0 for never.
    pub(crate) until_ms: u64,
    /// When it was made, in milliseconds since 1970.
    pub(crate) issued_ms: u64,
}

/// Makes tokens and believes its own.
#[derive(Debug)]
pub(crate) struct Seal {
    key: hmac::Key,
    ttl_ms: u64,
    /// By then, every replica in use has what was written.
    settled_ms: u64,
}

impl Seal {
    /// As configured. Without a key it is a random one, the same for as long as the process lives.
    pub(crate) fn new(config: &OwnWrites) -> Result<Self, BuildError> {
        static RANDOM: OnceLock<hmac::Key> = OnceLock::new();
        let key = match &config.key {
            Some(key) => hmac::Key::new(hmac::HMAC_SHA256, key.bytes()),
            None => {
                let made = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
                let made = made.map_err(|_| BuildError {
                    path: "edge.own_writes.key".into(),
                    message: "the system gives no random key; set one".into(),
                })?;
                RANDOM.get_or_init(|| made).clone()
            }
        };
        Ok(Self { key, ttl_ms: milliseconds(config.ttl), settled_ms: milliseconds(config.lag_max + LATE) })
    }

    /// As text.
    pub(crate) fn write(&self, token: &Token) -> String {
        let Token { system, timeline, lsn, until_ms, issued_ms } = token;
        let mut text = format!("{VERSION}.{system:x}.{timeline:x}.{lsn:x}.{until_ms:x}.{issued_ms:x}");
        let seal = self.seal(text.as_bytes());
        text.push('.');
        for byte in seal {
            for digit in [byte >> 4, byte & 15] {
                text.push(char::from_digit(digit.into(), 16).unwrap_or('0'));
            }
        }
        text
    }

    /// Reads a token and believes it, or not.
    pub(crate) fn read(&self, text: &[u8], now_ms: u64) -> Option<Token> {
        if text.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let text = std::str::from_utf8(text).ok()?;
        let (sealed, seal) = text.rsplit_once('.')?;
        let token = read_numbers(sealed)?;
        verify_slices_are_equal(&self.seal(sealed.as_bytes()), &read_seal(seal)?).ok()?;
        let is_young = now_ms.saturating_sub(token.issued_ms) < self.ttl_ms;
        is_young.then(|| self.as_of(token, now_ms))
    }

    /// One from a clock ahead of ours was made by now all the same: it holds its client to the primary for no longer than
    /// one of ours, and the next one that it becomes part of is young by our clock.
    fn as_of(&self, token: Token, now_ms: u64) -> Token {
        let latest_ms = now_ms.saturating_add(milliseconds(LATE));
        Token {
            issued_ms: token.issued_ms.min(latest_ms),
            until_ms: token.until_ms.min(latest_ms.saturating_add(self.settled_ms)),
            ..token
        }
    }

    fn seal(&self, text: &[u8]) -> [u8; SEAL_BYTES] {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(SEALED_AS);
        context.update(text);
        let mut seal = [0; SEAL_BYTES];
        for (byte, tag) in seal.iter_mut().zip(context.sign().as_ref()) {
            *byte = *tag;
        }
        seal
    }

    /// For how long a token counts, in seconds.
    pub(crate) fn ttl_s(&self) -> u64 {
        self.ttl_ms / 1000
    }

    /// One of a write whose position nobody knows, by somebody who had to see `before`.
    pub(crate) fn unknown(&self, before: Option<Token>, now_ms: u64) -> Token {
        let until_ms = now_ms.saturating_add(self.settled_ms);
        Token { until_ms, issued_ms: now_ms, ..before.unwrap_or_default() }
    }

    /// One of a write at this position, by somebody who had to see `before`.
    pub(crate) fn known(&self, before: Option<Token>, at: Token, now_ms: u64) -> Token {
        self.both(before.unwrap_or_default(), Token { issued_ms: now_ms, ..at }, now_ms)
    }

    /// What has to be seen by who has two.
    pub(crate) fn both(&self, one: Token, other: Token, now_ms: u64) -> Token {
        let (older, newer) = if one.issued_ms <= other.issued_ms { (one, other) } else { (other, one) };
        let until_ms = older.until_ms.max(newer.until_ms);
        let (older_at, newer_at) = (older.history(), newer.history());
        if older.lsn == 0 || newer.lsn != 0 && older_at == newer_at {
            return Token { lsn: newer.lsn.max(older.lsn), until_ms, ..newer };
        }
        if newer.lsn == 0 {
            return Token { until_ms, issued_ms: newer.issued_ms, ..older };
        }
        // On a later timeline of the same cluster what the older saw is there, or is lost; two clusters have no order.
        if older.system == newer.system && older.timeline < newer.timeline {
            return Token { until_ms, ..newer };
        }
        Token { until_ms: until_ms.max(now_ms.saturating_add(self.settled_ms)), ..newer }
    }

    /// What the cache has to know of it.
    pub(crate) fn floor(&self, token: &Token) -> Floor {
        Floor {
            history: token.history(),
            lsn: token.lsn,
            until: Timestamp(token.until_ms),
            settled: Timestamp(token.issued_ms.saturating_add(self.settled_ms)),
        }
    }
}

impl Token {
    /// Names the line of history.
    fn history(&self) -> u64 {
        // Identifiers of clusters differ in their upper halves: those hold the second of their `initdb`.
        self.system.rotate_left(32) ^ u64::from(self.timeline)
    }
}

fn read_numbers(sealed: &str) -> Option<Token> {
    let mut parts = sealed.split('.');
    if parts.next()? != VERSION || parts.clone().count() != NUMBERS {
        return None;
    }
    let mut number = || hex(parts.next()?);
    let (system, timeline, lsn) = (number()?, number()?, number()?);
    let (until_ms, issued_ms) = (number()?, number()?);
    Some(Token { system, timeline: u32::try_from(timeline).ok()?, lsn, until_ms, issued_ms })
}

fn hex(text: &str) -> Option<u64> {
    let is_hex = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hex { u64::from_str_radix(text, 16).ok() } else { None }
}

fn read_seal(text: &str) -> Option<[u8; SEAL_BYTES]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * SEAL_BYTES {
        return None;
    }
    let mut seal = [0; SEAL_BYTES];
    for (byte, pair) in seal.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |at: usize| char::from(*pair.get(at)?).to_digit(16);
        *byte = u8::try_from(digit(0)? << 4 | digit(1)?).ok()?;
    }
    Some(seal)
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SealKey;

    const NOW: u64 = 1_700_000_000_000;

    fn seal_with(key: &str) -> Seal {
        let key = Some(SealKey::new(key.as_bytes()));
        let config = OwnWrites { key, ttl: Duration::from_secs(100), lag_max: Duration::from_secs(10) };
        Seal::new(&config).expect("a key")
    }

    fn seal() -> Seal {
        seal_with("a key of sixteen")
    }

    fn at(system: u64, timeline: u32, lsn: u64) -> Token {
        Token { system, timeline, lsn, until_ms: 0, issued_ms: NOW }
    }

    #[test]
    fn a_token_is_believed_by_who_has_the_key_while_it_is_young() {
        let token = Token { until_ms: NOW + 5, ..at(0x7123_4567_89ab_cdef, 3, 0x16_b374_d848) };
        let text = seal().write(&token);
        assert_eq!(seal().read(text.as_bytes(), NOW), Some(token));
        assert!(text.len() <= TOKEN_BYTES_MAX && text.starts_with("1.7123456789abcdef.3.16b374d848."));
        assert_eq!(seal().read(text.as_bytes(), NOW + 99_999), Some(token));
        assert_eq!(seal().read(text.as_bytes(), NOW + 100_000), None, "expired");
        assert_eq!(seal_with("another key of 20").read(text.as_bytes(), NOW), None);
        let widest = Token {
            system: u64::MAX,
            timeline: u32::MAX,
            lsn: u64::MAX,
            until_ms: u64::MAX,
            issued_ms: u64::MAX,
        };
        assert_eq!(seal().read(seal().write(&widest).as_bytes(), u64::MAX), Some(widest));
    }

    #[test]
    fn a_token_from_the_future_is_one_of_this_moment() {
        let read = |token: Token| seal().read(seal().write(&token).as_bytes(), NOW);
        // As far apart as clocks may be: taken at its word.
        let near = Token { issued_ms: NOW + 2_000, until_ms: NOW + 14_000, ..at(7, 1, 5) };
        assert_eq!(read(near), Some(near));
        let day_ms = 86_400_000;
        let far = Token { issued_ms: NOW + day_ms, until_ms: NOW + day_ms + 12_000, ..at(7, 1, 5) };
        assert_eq!(read(far), Some(near), "what it asks for is no less");
        let endless = Token { issued_ms: u64::MAX, until_ms: u64::MAX, ..at(7, 1, 5) };
        assert_eq!(read(endless), Some(near));
        let next = seal().known(read(endless), at(7, 1, 9), NOW + 10);
        assert_eq!((next.lsn, next.until_ms), (9, NOW + 14_000), "nor is it handed on for ever");
    }

    #[test]
    fn what_was_changed_cut_or_made_up_counts_for_nothing() {
        let text = seal().write(&at(7, 1, 500));
        for at in 0..text.len() {
            assert_eq!(seal().read(&text.as_bytes()[..at], NOW), None, "cut at {at}");
            for other in [b'0', b'9', b'.', b'f', b'+', 0xff] {
                let mut changed = text.clone().into_bytes();
                changed[at] = other;
                if changed != text.as_bytes() {
                    assert_eq!(seal().read(&changed, NOW), None, "{at} {other}");
                }
            }
        }
        for made_up in
            ["", ".", "1", "1.7.1.1f4.0.0.", "2.7.1.1f4.0.0.00", &"1.".repeat(40), &text.repeat(1_000)]
        {
            assert_eq!(seal().read(made_up.as_bytes(), NOW), None);
        }
        assert_eq!(seal().read(text.to_uppercase().as_bytes(), NOW), None);
    }

    #[test]
    fn of_two_the_higher_is_kept() {
        let seal = seal();
        let both = |one, other| seal.both(one, other, NOW);
        assert_eq!(both(at(7, 1, 5), at(7, 1, 9)).lsn, 9);
        assert_eq!(both(at(7, 1, 9), at(7, 1, 5)).lsn, 9);
        assert_eq!(both(Token::default(), at(7, 1, 5)), at(7, 1, 5));
        let unknown = seal.unknown(Some(at(7, 1, 5)), NOW + 1);
        assert_eq!((unknown.lsn, unknown.until_ms), (5, NOW + 1 + 12_000));
        assert_eq!(both(unknown, at(7, 1, 4)), unknown);
        let later = Token { issued_ms: NOW + 1, ..at(7, 2, 3) };
        assert_eq!(both(at(7, 1, 9), later), later);
        let elsewhere = Token { issued_ms: NOW + 1, ..at(8, 1, 3) };
        assert_eq!(both(at(7, 1, 9), elsewhere), Token { until_ms: NOW + 12_000, ..elsewhere });
        assert_eq!(
            seal.known(Some(at(7, 1, 9)), at(7, 1, 4), NOW + 7),
            Token { issued_ms: NOW + 7, ..at(7, 1, 9) }
        );
    }

    #[test]
    fn the_cache_is_told_when_a_write_is_settled() {
        let floor = seal().floor(&at(7, 1, 5));
        assert_eq!((floor.lsn, floor.settled), (5, Timestamp(NOW + 12_000)));
        assert_ne!(floor.history, seal().floor(&at(7, 2, 5)).history);
        assert_ne!(floor.history, seal().floor(&at(8, 1, 5)).history);
    }

    #[test]
    fn without_a_key_the_process_has_one_of_its_own() {
        let config = OwnWrites { key: None, ..OwnWrites::default() };
        let (one, other) = (Seal::new(&config).expect("a key"), Seal::new(&config).expect("a key"));
        let text = one.write(&at(7, 1, 5));
        assert!(other.read(text.as_bytes(), NOW).is_some(), "a reload keeps it");
        assert_eq!(seal().read(text.as_bytes(), NOW), None);
    }
}
