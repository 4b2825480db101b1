//! Numbered places for connections, reused, with a generation so that a late event never reaches a successor.
//!
//! **Mechanism.** Places are kept in chunks, so growing never moves what is there and costs no more than a chunk. A key
//! is place and generation; the event loop carries it as a [`Token`].
//!
//! **Failure.** A key whose place was given to another is simply not found.

use mio::Token;

const CHUNK: usize = 64;
const GENERATION_BITS: u32 = 28;
const GENERATION_MASK_U32: u32 = (1 << GENERATION_BITS) - 1;
const GENERATION_MASK: u64 = GENERATION_MASK_U32 as u64;

/// What a token belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Client,
    Server,
    Cancel,
    /// The client of a console.
    Console,
    /// The same console's other end.
    Desk,
}

/// A place and its generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) place: u32,
    generation: u32,
}

/// Places of one kind.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    chunks: Vec<Box<[Place<T>]>>,
    free: Vec<u32>,
    len: usize,
}

#[derive(Debug)]
struct Place<T> {
    generation: u32,
    value: Option<T>,
}

impl Key {
    pub(crate) fn token(self, kind: Kind) -> Token {
        let kind = match kind {
            Kind::Client => 1_u64,
            Kind::Server => 2,
            Kind::Cancel => 3,
            Kind::Console => 4,
            Kind::Desk => 5,
        };
        let bits = kind << 60 | (u64::from(self.generation) & GENERATION_MASK) << 32 | u64::from(self.place);
        Token(usize::try_from(bits).expect("the pooler runs on 64-bit systems"))
    }

    /// Of nobody: no place has this generation.
    pub(crate) fn nobody() -> Self {
        Self { place: u32::MAX, generation: u32::MAX }
    }

    /// For other threads, which only give it back.
    pub(crate) fn to_bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.place)
    }

    #[expect(clippy::cast_possible_truncation, reason = "the parts were 32 bits when they went in")]
    pub(crate) fn from_bits(bits: u64) -> Self {
        Self { place: bits as u32, generation: (bits >> 32) as u32 }
    }

    /// `None` for tokens that are not connections.
    #[expect(clippy::cast_possible_truncation, reason = "the parts were 32 bits when they went in")]
    pub(crate) fn from_token(token: Token) -> Option<(Kind, Self)> {
        let bits = token.0 as u64;
        let kind = match bits >> 60 {
            1 => Kind::Client,
            2 => Kind::Server,
            3 => Kind::Cancel,
            4 => Kind::Console,
            5 => Kind::Desk,
            _ => return None,
        };
        Some((kind, Self { place: bits as u32, generation: (bits >> 32 & GENERATION_MASK) as u32 }))
    }
}

impl<T> Slab<T> {
    pub(crate) fn new() -> Self {
        Self { chunks: Vec::new(), free: Vec::new(), len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Puts a value that may need to know its own key.
    pub(crate) fn insert_with(&mut self, make: impl FnOnce(Key) -> T) -> Key {
        if self.free.is_empty() {
            self.grow();
        }
        let place = self.free.pop().expect("a chunk was just added");
        let slot = &mut self.chunks[place as usize / CHUNK][place as usize % CHUNK];
        let key = Key { place, generation: slot.generation };
        slot.value = Some(make(key));
        self.len += 1;
        key
    }

    fn grow(&mut self) {
        let first = u32::try_from(self.chunks.len() * CHUNK).expect("fewer than 2^32 connections");
        self.chunks.push((0..CHUNK).map(|_| Place { generation: 0, value: None }).collect());
        let last = first + u32::try_from(CHUNK).expect("a chunk is small");
        self.free.extend((first..last).rev());
    }

    #[inline]
    fn place(&self, key: Key) -> Option<&Place<T>> {
        let place = self.chunks.get(key.place as usize / CHUNK)?.get(key.place as usize % CHUNK)?;
        (place.generation == key.generation).then_some(place)
    }

    #[inline]
    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        self.place(key)?.value.as_ref()
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let place = self.chunks.get_mut(key.place as usize / CHUNK)?.get_mut(key.place as usize % CHUNK)?;
        if place.generation != key.generation {
            return None;
        }
        place.value.as_mut()
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let place = self.chunks.get_mut(key.place as usize / CHUNK)?.get_mut(key.place as usize % CHUNK)?;
        if place.generation != key.generation {
            return None;
        }
        let value = place.value.take()?;
        place.generation = place.generation.wrapping_add(1) & GENERATION_MASK_U32;
        self.free.push(key.place);
        self.len -= 1;
        Some(value)
    }

    /// The key of whatever is at a place now.
    pub(crate) fn at(&self, place: u32) -> Option<Key> {
        let slot = self.chunks.get(place as usize / CHUNK)?.get(place as usize % CHUNK)?;
        slot.value.as_ref()?;
        Some(Key { place, generation: slot.generation })
    }

    /// All keys in use.
    pub(crate) fn keys(&self) -> Vec<Key> {
        let places = u32::try_from(self.chunks.len() * CHUNK).unwrap_or(u32::MAX);
        (0..places).filter_map(|place| self.at(place)).collect()
    }

    /// Up to `count` keys in use among the places from `place` on.
    pub(crate) fn keys_from(&self, place: usize, count: usize) -> Vec<Key> {
        let end = (place + count).min(self.chunks.len() * CHUNK);
        (place..end).filter_map(|place| self.at(u32::try_from(place).ok()?)).collect()
    }

    /// How many places there are.
    pub(crate) fn places(&self) -> usize {
        self.chunks.len() * CHUNK
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reused_place_has_another_key() {
        let mut slab = Slab::new();
        let first = slab.insert_with(|_| 'a');
        assert_eq!(slab.remove(first), Some('a'));
        let second = slab.insert_with(|_| 'b');
        assert_eq!((first.place, slab.get(first), slab.get(second)), (second.place, None, Some(&'b')));
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.len(), 1);
    }

    #[test]
    fn tokens_keep_kind_place_and_generation() {
        let mut slab = Slab::new();
        let mut key = slab.insert_with(|_| 0);
        for round in 0..1_000 {
            for kind in [Kind::Client, Kind::Server, Kind::Cancel] {
                assert_eq!(Key::from_token(key.token(kind)), Some((kind, key)));
            }
            slab.remove(key);
            key = slab.insert_with(|_| round);
        }
        assert_eq!(Key::from_token(Token(0)), None);
    }

    #[test]
    fn keys_are_those_in_use() {
        let mut slab = Slab::new();
        let keys: Vec<Key> = (0..200).map(|n| slab.insert_with(|_| n)).collect();
        for key in keys.iter().step_by(2) {
            slab.remove(*key);
        }
        assert_eq!(slab.keys().len(), 100);
        assert!(slab.keys().iter().all(|key| slab.get(*key).is_some_and(|n| n % 2 == 1)));
    }
}
