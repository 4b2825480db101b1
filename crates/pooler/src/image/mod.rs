//! What a client's session holds beyond a fresh connection's, so that any server connection can be made to hold it too.
//!
//! **Intuition.** A client says `SET TimeZone = 'UTC'` once and expects it to last. Behind a pooler the server
//! connection that heard it may serve somebody else a moment later. So each client has an [`Image`] of its session, and
//! each server connection the image of what it was last told; lending compares the two and says the difference.
//!
//! **Mechanism.** An image is three parts, settings, statements made by SQL's PREPARE, and channels listened to. Parts
//! and images are interned by [`Images`]: equal content is one `Arc`, so that the usual comparison, of clients that all
//! set the same, is of two pointers. [`replay()`] writes the difference as SQL. Images are made of what a server itself
//! said (see [`crate::probe`]), never of what a client's statement seemed to do.
//!
//! **Failure.** What cannot be carried, for its size or its kind, is an [`Unmovable`]: the client then keeps its server
//! connection. One trace cannot be removed by anything but the connection's end: a custom setting (`app.tenant`) that
//! one client set and the next did not is, after its reset, empty rather than unknown, as it is after `SET LOCAL`.

mod class;
mod intern;
mod quote;
mod replay;

pub use class::{Class, class, is_plan_neutral};
pub(crate) use intern::Interner;
pub(crate) use quote::push_literal;
pub use replay::{Needs, Replay, replay};

use std::{
    collections::BTreeMap,
    fmt,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

/// Settings in one image at most. A SELECT of ours names each twice at worst, and PostgreSQL takes 1,664 columns.
pub const SETTINGS_MAX: usize = 256;
/// SQL-level prepared statements in one image at most; beyond it the client keeps its server connection.
pub const PREPARED_MAX: usize = 256;
/// Channels in one image at most.
pub const CHANNELS_MAX: usize = 1_024;
/// Names and values of one image's part, together, at most: what one client can make us keep.
pub const PART_BYTES_MAX: usize = 64 * 1_024;

/// A name and what it stands for: a setting's value, a prepared statement's text.
pub type Pair = (Arc<str>, Arc<str>);

/// What a session holds beyond a fresh connection's. Immutable; equal images of one [`Images`] are one `Arc`.
#[derive(Debug)]
pub struct Image {
    id: u64,
    settings: Arc<Part>,
    prepared: Arc<Part>,
    channels: Arc<Part>,
}

/// Sorted by name, each name once.
#[derive(Debug, Default)]
pub(super) struct Part {
    pairs: Box<[Pair]>,
    /// Of settings: a hash of those that plans depend on; 0 for none.
    plan_key: u64,
}

/// Why a piece of session state cannot follow its client from server to server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Unmovable {
    /// More of a kind than an image holds.
    #[error("too many settings, prepared statements or channels to carry")]
    TooMany,
    /// Larger than [`PART_BYTES_MAX`].
    #[error("too large to carry")]
    TooLarge,
    /// A name or value that SQL text cannot hold.
    #[error("a name or value that SQL text cannot hold")]
    Malformed,
    /// The text of a PREPARE that means something else when sent on its own: it was one of several statements in a
    /// string, or is not ASCII and so depends on the encoding it was sent in.
    #[error("the text of a PREPARE that cannot be sent again")]
    PrepareText,
}

/// All images of the process. Clones are the same table.
#[derive(Clone)]
pub struct Images {
    tables: Arc<Tables>,
}

struct Tables {
    parts: Interner<Part>,
    images: Interner<Image>,
    next_id: AtomicU64,
    /// Keyed per process: nobody can choose settings whose plan keys collide.
    plan_hasher: RandomState,
}

impl Image {
    /// A fresh connection's: nothing. One for the whole process.
    #[must_use]
    pub fn empty() -> Arc<Self> {
        static EMPTY: OnceLock<Arc<Image>> = OnceLock::new();
        let make = || {
            let nothing = Arc::new(Part::default());
            let (prepared, channels) = (Arc::clone(&nothing), Arc::clone(&nothing));
            Arc::new(Self { id: 0, settings: nothing, prepared, channels })
        };
        Arc::clone(EMPTY.get_or_init(make))
    }

    /// Unique within the process; 0 for the empty one.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The value of a setting, by its lower-case name; `None` where a fresh connection's holds.
    #[must_use]
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.get(name)
    }

    /// Settings, sorted by their lower-case names.
    #[must_use]
    pub fn settings(&self) -> &[Pair] {
        &self.settings.pairs
    }

    /// Statements made by SQL's PREPARE: name and the whole text that made it. Sorted by name.
    #[must_use]
    pub fn prepared(&self) -> &[Pair] {
        &self.prepared.pairs
    }

    /// Channels listened to, sorted.
    pub fn channels(&self) -> impl ExactSizeIterator<Item = &Arc<str>> {
        self.channels.pairs.iter().map(|(channel, _)| channel)
    }

    /// Tells apart sessions in which one prepared statement may mean different things: a hash of all settings but those
    /// of [`is_plan_neutral`]. 0 for none.
    #[must_use]
    pub fn plan_key(&self) -> u64 {
        self.settings.plan_key
    }

    /// Whether this is a fresh connection's.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.settings.pairs.is_empty() && self.prepared.pairs.is_empty() && self.channels.pairs.is_empty()
    }
}

impl Part {
    fn get(&self, name: &str) -> Option<&str> {
        let at = self.pairs.binary_search_by(|(other, _)| (**other).cmp(name)).ok()?;
        Some(&self.pairs[at].1)
    }
}

impl fmt::Debug for Images {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Images").field("len", &self.len()).finish()
    }
}

impl Default for Images {
    fn default() -> Self {
        Self::new()
    }
}

impl Images {
    /// A table without images.
    #[must_use]
    pub fn new() -> Self {
        let tables = Tables {
            parts: Interner::new(),
            images: Interner::new(),
            next_id: AtomicU64::new(1),
            plan_hasher: RandomState::new(),
        };
        Self { tables: Arc::new(tables) }
    }

    /// How many images are known, those that nobody holds any more but were not swept yet included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tables.images.len()
    }

    /// Whether none but the empty one is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The image of these parts, in any order. Names of settings count in lower case; of equal names the last holds.
    ///
    /// # Errors
    /// [`Unmovable`].
    pub fn intern(
        &self,
        settings: &[(Arc<str>, String)],
        prepared: &[(String, String)],
        channels: &[String],
    ) -> Result<Arc<Image>, Unmovable> {
        let settings: Vec<_> =
            settings.iter().map(|(name, value)| (Arc::clone(name), Some(value.clone()))).collect();
        let image = self.with_settings(&Image::empty(), &settings)?;
        let image = self.with_prepared(&image, prepared)?;
        self.with_channels(&image, channels)
    }

    /// `base` with these settings changed: a value, or `None` for a fresh connection's. Takes what
    /// [`crate::probe::Found`] says. Settings that last for a transaction only are passed over.
    ///
    /// # Errors
    /// [`Unmovable`]; `base` stays what it was.
    pub fn with_settings(
        &self,
        base: &Arc<Image>,
        changes: &[(Arc<str>, Option<String>)],
    ) -> Result<Arc<Image>, Unmovable> {
        let mut pairs: BTreeMap<Arc<str>, Arc<str>> = base.settings().iter().cloned().collect();
        for (name, value) in changes {
            let name = lower_case(name);
            match value {
                _ if !class::is_of_session(&name) => continue,
                Some(value) if pairs.get(&name).is_some_and(|held| **held == **value) => continue,
                Some(value) => pairs.insert(name, value.as_str().into()),
                None => pairs.remove(&name),
            };
        }
        let settings = self.part(pairs, SETTINGS_MAX, true)?;
        Ok(self.image(&settings, &base.prepared, &base.channels))
    }

    /// `base` with these SQL-level prepared statements: names, and the texts that made them.
    ///
    /// # Errors
    /// [`Unmovable`]; `base` stays what it was.
    pub fn with_prepared(
        &self,
        base: &Arc<Image>,
        prepared: &[(String, String)],
    ) -> Result<Arc<Image>, Unmovable> {
        if !prepared.iter().all(|(_, text)| is_one_ascii_statement(text)) {
            return Err(Unmovable::PrepareText);
        }
        let pairs = prepared.iter().map(|(name, text)| (name.as_str().into(), text.as_str().into()));
        let prepared = self.part(pairs.collect(), PREPARED_MAX, false)?;
        Ok(self.image(&base.settings, &prepared, &base.channels))
    }

    /// `base` with these channels listened to.
    ///
    /// # Errors
    /// [`Unmovable`]; `base` stays what it was.
    pub fn with_channels(&self, base: &Arc<Image>, channels: &[String]) -> Result<Arc<Image>, Unmovable> {
        let pairs = channels.iter().map(|channel| (channel.as_str().into(), "".into()));
        let channels = self.part(pairs.collect(), CHANNELS_MAX, false)?;
        Ok(self.image(&base.settings, &base.prepared, &channels))
    }

    fn part(
        &self,
        pairs: BTreeMap<Arc<str>, Arc<str>>,
        pairs_max: usize,
        are_settings: bool,
    ) -> Result<Arc<Part>, Unmovable> {
        if pairs.is_empty() {
            return Ok(Arc::clone(&Image::empty().settings));
        }
        if pairs.len() > pairs_max {
            return Err(Unmovable::TooMany);
        }
        if pairs.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() > PART_BYTES_MAX {
            return Err(Unmovable::TooLarge);
        }
        if pairs.iter().any(|(name, value)| name.is_empty() || name.contains('\0') || value.contains('\0')) {
            return Err(Unmovable::Malformed);
        }
        let pairs: Box<[Pair]> = pairs.into_iter().collect();
        let plan_key = if are_settings { self.plan_key(&pairs) } else { 0 };
        let same = |other: &Part| other.pairs == pairs && other.plan_key == plan_key;
        let made = || Part { pairs: pairs.clone(), plan_key };
        Ok(self.tables.parts.get_or_make(&pairs, same, made))
    }

    fn plan_key(&self, settings: &[Pair]) -> u64 {
        let seen: Vec<_> = settings.iter().filter(|(name, _)| !is_plan_neutral(name)).collect();
        if seen.is_empty() { 0 } else { self.tables.plan_hasher.hash_one(&seen).max(1) }
    }

    fn image(&self, settings: &Arc<Part>, prepared: &Arc<Part>, channels: &Arc<Part>) -> Arc<Image> {
        let holds = |image: &Image| {
            Arc::ptr_eq(&image.settings, settings)
                && Arc::ptr_eq(&image.prepared, prepared)
                && Arc::ptr_eq(&image.channels, channels)
        };
        let empty = Image::empty();
        if holds(&empty) {
            return empty;
        }
        let key = [settings, prepared, channels].map(Arc::as_ptr);
        let id = || self.tables.next_id.fetch_add(1, Ordering::Relaxed);
        let made = || Image {
            id: id(),
            settings: Arc::clone(settings),
            prepared: Arc::clone(prepared),
            channels: Arc::clone(channels),
        };
        self.tables.images.get_or_make(&key, holds, made)
    }
}

/// As PostgreSQL compares names of settings: ASCII letters only (`guc_name_compare`).
fn lower_case(name: &Arc<str>) -> Arc<str> {
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return name.to_ascii_lowercase().into();
    }
    Arc::clone(name)
}

/// Whether a text holds one statement for certain. The server keeps the whole string a PREPARE came in; sent again, the
/// other statements of that string would run again. A semicolon inside a literal is taken for a second statement, too.
fn is_one_ascii_statement(text: &str) -> bool {
    text.is_ascii() && !text.trim_end_matches([';', ' ', '\t', '\r', '\n']).contains(';')
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    type Settings = Vec<(String, String)>;

    fn image(images: &Images, settings: &[(&str, &str)]) -> Arc<Image> {
        let settings: Vec<_> =
            settings.iter().map(|(name, value)| ((*name).into(), (*value).to_owned())).collect();
        images.intern(&settings, &[], &[]).unwrap()
    }

    fn few() -> impl Strategy<Value = Settings> {
        prop::collection::vec(("[abAB]|TimeZone|application_name", "[xy]"), 0..4)
    }

    proptest! {
        #[test]
        fn equal_content_and_only_that_is_one_image(first in few(), second in few()) {
            let images = Images::new();
            let canonical = |settings: &Settings| -> BTreeMap<String, String> {
                settings.iter().map(|(name, value)| (name.to_lowercase(), value.clone())).collect()
            };
            let made = |settings: &Settings| {
                let pairs: Vec<_> =
                    settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                image(&images, &pairs)
            };
            let (one, two) = (made(&first), made(&second));
            let (first, second) = (canonical(&first), canonical(&second));
            prop_assert_eq!(Arc::ptr_eq(&one, &two), first == second);
            prop_assert_eq!(one.id() == two.id(), first == second);
            let plans = |settings: &BTreeMap<String, String>| {
                let mut seen = settings.clone();
                seen.remove("application_name");
                seen
            };
            prop_assert_eq!(one.plan_key() == two.plan_key(), plans(&first) == plans(&second));
            prop_assert_eq!(one.plan_key() == 0, plans(&first).is_empty());
            for (name, value) in &first {
                prop_assert_eq!(one.setting(name), Some(value.as_str()));
            }
        }
    }

    #[test]
    fn a_change_and_its_undoing_end_where_they_began() {
        let images = Images::new();
        let base = image(&images, &[("a", "1"), ("b", "2")]);
        let some = |value: &str| Some(value.to_owned());
        let changes = [("A".into(), some("9")), ("c".into(), some("3")), ("b".into(), None)];
        let changed = images.with_settings(&base, &changes).unwrap();
        assert!(Arc::ptr_eq(&changed, &image(&images, &[("a", "9"), ("c", "3")])));
        let undone = [("a".into(), some("1")), ("c".into(), None), ("b".into(), some("2"))];
        assert!(Arc::ptr_eq(&base, &images.with_settings(&changed, &undone).unwrap()));
        let all_gone = [("a".into(), None), ("b".into(), None), ("never".into(), None)];
        assert!(Arc::ptr_eq(&Image::empty(), &images.with_settings(&base, &all_gone).unwrap()));
    }

    #[test]
    fn what_lasts_for_a_transaction_only_is_no_part_of_a_session() {
        let images = Images::new();
        let names = ["transaction_isolation", "Transaction_Read_Only", "transaction_deferrable", "seed"];
        let changes = names.map(|name| (name.into(), Some("on".to_owned())));
        assert!(images.with_settings(&Image::empty(), &changes).unwrap().is_empty());
    }

    #[test]
    fn what_one_client_can_make_us_keep_is_bounded() {
        let images = Images::new();
        let many: Vec<_> = (0..=SETTINGS_MAX).map(|at| (format!("a.b{at}").into(), String::new())).collect();
        assert_eq!(images.intern(&many, &[], &[]).unwrap_err(), Unmovable::TooMany);
        assert!(images.intern(&many[1..], &[], &[]).is_ok());
        let large = [("a.b".into(), "x".repeat(PART_BYTES_MAX))];
        assert_eq!(images.intern(&large, &[], &[]).unwrap_err(), Unmovable::TooLarge);
        let nul = [("a.b".into(), "x\0y".to_owned())];
        assert_eq!(images.intern(&nul, &[], &[]).unwrap_err(), Unmovable::Malformed);
    }
}
