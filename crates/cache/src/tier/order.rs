//! A purge as it travels between edges: the fields of one entry of a stream.
//!
//! Fields have names that a person reads, so that `XRANGE` shows what was purged, and any program may publish:
//! `XADD tenfold:purges * kind tag tag product:7`. An entry of no known kind comes from a newer edge, or from nobody:
//! it may have meant anything, and is treated so.

use crate::{PREFIX_DEPTH_MAX, Purge};

/// A purge with what it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Url { authority: Box<[u8]>, path: Box<[u8]>, query: Option<Box<[u8]>>, soft: bool },
    Tag { tag: Box<[u8]>, soft: bool },
    Prefix { authority: Box<[u8]>, path: Box<[u8]>, soft: bool },
    All { soft: bool },
}

/// What an entry of the stream says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// Nothing: time has passed.
    Tick,
    Purge(Order),
    /// Something that can't be understood.
    Unknown,
}

pub(crate) type Fields = Vec<(&'static str, Box<[u8]>)>;

impl Order {
    pub(crate) fn of(purge: &Purge<'_>, soft: bool) -> Self {
        match *purge {
            Purge::Url { authority, path, query } => Self::Url {
                authority: authority.into(),
                path: path.into(),
                query: query.map(Into::into),
                soft,
            },
            Purge::Tag(tag) => Self::Tag { tag: tag.into(), soft },
            Purge::Prefix { authority, path } => {
                Self::Prefix { authority: authority.into(), path: path.into(), soft }
            }
            Purge::All => Self::All { soft },
        }
    }

    pub(crate) fn as_purge(&self) -> (Purge<'_>, bool) {
        match self {
            Self::Url { authority, path, query, soft } => {
                (Purge::Url { authority, path, query: query.as_deref() }, *soft)
            }
            Self::Tag { tag, soft } => (Purge::Tag(tag), *soft),
            Self::Prefix { authority, path, soft } => (Purge::Prefix { authority, path }, *soft),
            Self::All { soft } => (Purge::All, *soft),
        }
    }

    /// As fields of an entry.
    pub(crate) fn fields(&self) -> Fields {
        let kind = |kind: &str| ("kind", Box::from(kind.as_bytes()));
        let (mut fields, soft) = match self {
            Self::Url { authority, path, query, soft } => {
                let mut fields = vec![kind("url"), ("authority", authority.clone()), ("path", path.clone())];
                fields.extend(query.iter().map(|query| ("query", query.clone())));
                (fields, soft)
            }
            Self::Tag { tag, soft } => (vec![kind("tag"), ("tag", tag.clone())], soft),
            Self::Prefix { authority, path, soft } => {
                (vec![kind("prefix"), ("authority", authority.clone()), ("path", path.clone())], soft)
            }
            Self::All { soft } => (vec![kind("all")], soft),
        };
        if *soft {
            fields.push(("soft", Box::from(&b"1"[..])));
        }
        fields
    }
}

/// The fields of a tick.
pub(crate) fn tick() -> Fields {
    vec![("kind", Box::from(&b"tick"[..]))]
}

/// Reads an entry's fields.
pub(crate) fn read(fields: &[(Vec<u8>, Vec<u8>)]) -> Told {
    let field = |name: &[u8]| {
        fields.iter().find(|(other, _)| other == name).map(|(_, value)| Box::<[u8]>::from(value.as_slice()))
    };
    let soft = match field(b"soft").as_deref() {
        None | Some(b"0") => false,
        Some(b"1") => true,
        Some(_) => return Told::Unknown,
    };
    let order = match field(b"kind").as_deref() {
        Some(b"tick") => return Told::Tick,
        Some(b"all") => Some(Order::All { soft }),
        Some(b"tag") => field(b"tag").map(|tag| Order::Tag { tag, soft }),
        Some(b"url") => field(b"authority").zip(field(b"path")).map(|(authority, path)| Order::Url {
            authority,
            path,
            query: field(b"query"),
            soft,
        }),
        Some(b"prefix") => field(b"authority")
            .zip(field(b"path"))
            .filter(|(_, path)| {
                let depth = path.iter().filter(|&&byte| byte == b'/').count();
                path.ends_with(b"/") && depth <= PREFIX_DEPTH_MAX
            })
            .map(|(authority, path)| Order::Prefix { authority, path, soft }),
        _ => None,
    };
    order.map_or(Told::Unknown, Told::Purge)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(fields: &Fields) -> Vec<(Vec<u8>, Vec<u8>)> {
        fields.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.to_vec())).collect()
    }

    #[test]
    fn orders_arrive_as_they_were_given() {
        for soft in [false, true] {
            for purge in [
                Purge::Url { authority: b"h", path: b"/a", query: None },
                Purge::Url { authority: b"h", path: b"/a", query: Some(b"") },
                Purge::Tag(b"product:7"),
                Purge::Prefix { authority: b"h", path: b"/a/" },
                Purge::All,
            ] {
                let order = Order::of(&purge, soft);
                assert_eq!(order.as_purge(), (purge, soft));
                assert_eq!(read(&sent(&order.fields())), Told::Purge(order));
            }
        }
        assert_eq!(read(&sent(&tick())), Told::Tick);
    }

    #[test]
    fn what_is_not_understood_may_have_meant_anything() {
        let unknown = |fields: &[(&str, &str)]| {
            let fields: Vec<_> =
                fields.iter().map(|(n, v)| (n.as_bytes().to_vec(), v.as_bytes().to_vec())).collect();
            assert_eq!(read(&fields), Told::Unknown, "{fields:?}");
        };
        unknown(&[]);
        unknown(&[("kind", "host")]);
        unknown(&[("kind", "tag")]);
        unknown(&[("kind", "url"), ("path", "/")]);
        unknown(&[("kind", "prefix"), ("authority", "h"), ("path", "/a")]);
        unknown(&[("kind", "prefix"), ("authority", "h"), ("path", &"/d/".repeat(20))]);
        unknown(&[("kind", "all"), ("soft", "perhaps")]);
    }
}
