//! Compressing what is stored, off the path of requests.
//!
//! **Intuition.** Compressing a page takes longer than answering a hundred requests for it. So a request that would like a
//! coding gets what is there and leaves a note; a thread of its own takes the notes, one after the other, and the next
//! request is served what it made.
//!
//! **Mechanism.** [`Cache::want`] notes an entry and a coding, once each; [`Encoder::run`] belongs on a thread that may be
//! busy for long. What it makes takes the entry's place in the store, weighed to the byte. The notes hold no entry alive.
//!
//! **Failure.** With the list of notes full the wish is forgotten and counted; the next request wishes again. What saves
//! less than a sixteenth is not kept. An entry that was replaced or purged meanwhile is left as it is.

use std::io::Write as _;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;

use crate::cache::Cache;
use crate::policy::Coding;
use crate::stats::count;
use crate::{Entry, KeyBuf};

/// Notes that wait. Each is a key and a pointer.
const NOTES_MAX: usize = 1024;
/// What a coding has to save, as a fraction of the body, to be worth its memory and its bytes of head.
const SAVING_DIVISOR: usize = 16;
/// Levels for what is made once and sent often.
const BROTLI_QUALITY: u32 = 5;
const ZSTD_LEVEL: u32 = 7;
const GZIP_LEVEL: u32 = 6;
/// The largest window a decoder of brotli has to have is 2^24; below it the encoder's memory stays at some MiB.
const BROTLI_WINDOW_BITS_MAX: u32 = 22;

/// A wish.
#[derive(Debug)]
struct Note {
    key: Box<[u8]>,
    /// Where the body is, which entries that replace one another share.
    body: (usize, usize),
    coding: Coding,
}

fn place_of(entry: &Entry) -> (usize, usize) {
    entry.body.place()
}

/// The list of wishes.
#[derive(Debug)]
pub(crate) struct Notes {
    sender: SyncSender<Note>,
    /// Until somebody takes it.
    receiver: Mutex<Option<Receiver<Note>>>,
}

/// Who grants them. See [`Cache::encoder`].
#[derive(Debug)]
pub struct Encoder {
    cache: Weak<Cache>,
    notes: Receiver<Note>,
}

impl Notes {
    pub(crate) fn new() -> Self {
        let (sender, receiver) = sync_channel(NOTES_MAX);
        Self { sender, receiver: Mutex::new(Some(receiver)) }
    }
}

impl Cache {
    /// The one that compresses, for a thread of its own. There is one; `None` once it has been taken.
    #[must_use]
    pub fn encoder(self: &Arc<Self>) -> Option<Encoder> {
        let notes = self.notes().receiver.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        Some(Encoder { cache: Arc::downgrade(self), notes })
    }

    /// Wishes for a coding that [`Entry::represent`] said was wanted. Never waits.
    pub fn want_for(&self, key: &KeyBuf, entry: &Arc<Entry>, coding: Coding) {
        self.want(key.as_bytes(), entry, coding);
    }

    pub(crate) fn want(&self, key: &[u8], entry: &Arc<Entry>, coding: Coding) {
        if !entry.begin_encoding(coding) {
            return;
        }
        let note = Note { key: key.into(), body: place_of(entry), coding };
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = self.notes().sender.try_send(note)
        {
            entry.abandon_encoding(coding);
            count(&self.counters().encodings_dropped);
        }
    }

    fn encode(&self, note: &Note) {
        // By now it may have been freshened, or been given another coding.
        let stored = self.all_stored(&note.key);
        let is_wanted = |entry: &&Arc<Entry>| {
            place_of(entry) == note.body && !entry.has_encoding(note.coding) && !self.is_purged(entry)
        };
        let Some(entry) = stored.iter().find(is_wanted) else { return };
        let bytes = entry.body.read().ok();
        let Some(body) = bytes.and_then(|bytes| compress(note.coding, &bytes)) else {
            entry.refuse_encoding(note.coding);
            count(&self.counters().encodings_refused);
            return;
        };
        let amended = |current: &Entry| current.with_encoding(note.coding, body.clone());
        let counter = if self.store().amend(&note.key, entry, amended) {
            &self.counters().encodings
        } else {
            // There is no room for it; or the entry was replaced meanwhile, and the new one is asked for it again.
            entry.refuse_encoding(note.coding);
            &self.counters().encodings_refused
        };
        count(counter);
    }

    #[cfg(test)]
    pub(crate) fn encode_waiting(self: &Arc<Self>) {
        let mut receiver = self.notes().receiver.lock().unwrap();
        let notes: Vec<Note> = receiver.as_mut().unwrap().try_iter().collect();
        notes.iter().for_each(|note| self.encode(note));
    }
}

impl Encoder {
    /// Grants wishes until the cache is gone.
    pub fn run(self) {
        while let Ok(note) = self.notes.recv() {
            let Some(cache) = self.cache.upgrade() else { return };
            cache.encode(&note);
        }
    }
}

/// The level that a stored body is compressed at; for [`compress_at`].
#[must_use]
pub const fn level_of(coding: Coding) -> u32 {
    match coding {
        Coding::Brotli => BROTLI_QUALITY,
        Coding::Zstd => ZSTD_LEVEL,
        Coding::Gzip => GZIP_LEVEL,
    }
}

/// A body in a coding at a level, however much that saves; `None` if it can't be done.
#[must_use]
pub fn compress_at(coding: Coding, level: u32, body: &[u8]) -> Option<Vec<u8>> {
    match coding {
        Coding::Brotli => brotli(body, level),
        Coding::Zstd => zstd::bulk::compress(body, i32::try_from(level).ok()?).ok(),
        Coding::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(level));
            encoder.write_all(body).ok()?;
            encoder.finish().ok()
        }
    }
}

/// A body in a coding, if that saves enough.
fn compress(coding: Coding, body: &[u8]) -> Option<Bytes> {
    let encoded = compress_at(coding, level_of(coding), body)?;
    let saves = encoded.len() + body.len() / SAVING_DIVISOR < body.len();
    saves.then(|| Bytes::from(encoded.into_boxed_slice()))
}

fn brotli(mut body: &[u8], quality: u32) -> Option<Vec<u8>> {
    let bits = usize::BITS - body.len().leading_zeros();
    let params = brotli::enc::BrotliEncoderParams {
        quality: i32::try_from(quality).ok()?,
        lgwin: i32::try_from(bits.clamp(10, BROTLI_WINDOW_BITS_MAX)).expect("at most 22"),
        size_hint: body.len(),
        ..Default::default()
    };
    let mut encoded = Vec::new();
    brotli::BrotliCompress(&mut body, &mut encoded, &params).ok()?;
    Some(encoded)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Read as _;

    use super::*;

    pub(crate) fn decode(coding: Coding, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        match coding {
            Coding::Brotli => drop(brotli::Decompressor::new(body, 4096).read_to_end(&mut out).unwrap()),
            Coding::Zstd => out = zstd::stream::decode_all(body).unwrap(),
            Coding::Gzip => drop(flate2::read::GzDecoder::new(body).read_to_end(&mut out).unwrap()),
        }
        out
    }

    #[test]
    fn what_is_compressed_comes_back_to_the_byte() {
        let text: Vec<u8> =
            (0..100_000_u32).flat_map(|n| format!("line {}\n", n % 977).into_bytes()).collect();
        for length in [64, 1_000, 65_536, text.len()] {
            for coding in Coding::ALL {
                let Some(encoded) = compress(coding, &text[..length]) else {
                    assert!(length == 64, "{coding:?} of {length}");
                    continue;
                };
                assert!(encoded.len() * 2 < length || length <= 1_000, "{coding:?} of {length}");
                assert_eq!(decode(coding, &encoded), &text[..length]);
            }
        }
    }

    #[test]
    fn what_does_not_shrink_is_not_kept() {
        let mut state = 1_u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .take(10_000)
        .collect();
        for coding in Coding::ALL {
            assert!(compress(coding, &noise).is_none(), "{coding:?}");
        }
    }
}
