//! An order to purge, read as strictly as a request would be and brought to the form the cache knows it by.

use tenfold_cache::{PREFIX_DEPTH_MAX, Purge};
use tenfold_edge::normalise::{normalise, normalise_host};
use tenfold_http1 as http1;

/// What to take out of the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purging {
    /// One URL, all its variants.
    Url {
        /// In normal form.
        authority: String,
        /// In normal form.
        path: String,
        /// As given.
        query: Option<String>,
        /// Mark stale instead of removing.
        soft: bool,
    },
    /// Everything below a path.
    Prefix {
        /// In normal form.
        authority: String,
        /// In normal form, with `/` at its end.
        path: String,
        /// Mark stale instead of removing.
        soft: bool,
    },
    /// Everything that carries a tag.
    Tag {
        /// As the route or the response has it.
        tag: String,
        /// Mark stale instead of removing.
        soft: bool,
    },
    /// Everything.
    All {
        /// Mark stale instead of removing.
        soft: bool,
    },
}

impl Purging {
    /// `http://host/path?query`. The scheme says nothing here: the cache knows authorities and paths.
    pub fn of_url(url: &str, soft: bool) -> Result<Self, String> {
        let refused = || format!("{url:?} is not a URL such as http://shop.example/api/products/7");
        let rest =
            url.strip_prefix("http://").or_else(|| url.strip_prefix("https://")).ok_or_else(refused)?;
        let (authority, target) = rest.find(['/', '?']).map_or((rest, "/"), |at| rest.split_at(at));
        let slash = if target.starts_with('/') { "" } else { "/" };
        // What the codec refuses in a request can't be the URL of anything that is cached.
        let request = format!("GET {slash}{target} HTTP/1.1\r\nhost: {authority}\r\n\r\n");
        let parsed = http1::parse_request(request.as_bytes(), &mut 0, &http1::Limits::default());
        let Ok(Some((head, consumed))) = parsed else { return Err(refused()) };
        if consumed != request.len() || authority.is_empty() || head.fields.len() != 1 {
            return Err(refused());
        }
        let (mut path, mut host) = (Vec::new(), Vec::new());
        let authority = normalise_host(head.host, &mut host).map_err(|_| refused())?;
        let target = normalise(head.path, head.query, &mut path).map_err(|_| refused())?;
        Ok(Self::Url {
            authority: authority.to_owned(),
            path: target.path.to_owned(),
            query: target.query.map(str::to_owned),
            soft,
        })
    }

    /// `http://host/path/`: all that lies below, with and without a query.
    pub fn of_prefix(url: &str, soft: bool) -> Result<Self, String> {
        match Self::of_url(url, soft)? {
            Self::Url { authority, path, query: None, soft } if path.ends_with('/') => {
                if path.bytes().filter(|&byte| byte == b'/').count() > PREFIX_DEPTH_MAX {
                    return Err(format!("{url:?} is deeper than {PREFIX_DEPTH_MAX} folders"));
                }
                Ok(Self::Prefix { authority, path, soft })
            }
            _ => Err(format!("{url:?} is not a prefix such as http://shop.example/api/: it ends at a /")),
        }
    }

    /// As the cache takes it.
    #[must_use]
    pub fn as_purge(&self) -> (Purge<'_>, bool) {
        match self {
            Self::Url { authority, path, query, soft } => {
                let query = query.as_deref().map(str::as_bytes);
                (Purge::Url { authority: authority.as_bytes(), path: path.as_bytes(), query }, *soft)
            }
            Self::Prefix { authority, path, soft } => {
                (Purge::Prefix { authority: authority.as_bytes(), path: path.as_bytes() }, *soft)
            }
            Self::Tag { tag, soft } => (Purge::Tag(tag.as_bytes()), *soft),
            Self::All { soft } => (Purge::All, *soft),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, expected: Option<(&str, &str, Option<&str>)>) {
        let read = Purging::of_url(url, false).ok();
        let expected = expected.map(|(authority, path, query)| Purging::Url {
            authority: authority.into(),
            path: path.into(),
            query: query.map(str::to_owned),
            soft: false,
        });
        assert_eq!(read, expected, "{url}");
    }

    #[test]
    fn a_url_is_brought_to_the_form_of_requests() {
        check("http://shop.example/a", Some(("shop.example", "/a", None)));
        check("http://Shop.Example:80/%61/../b?x=%61", Some(("shop.example", "/b", Some("x=%61"))));
        check("http://shop.example", Some(("shop.example", "/", None)));
        check("http://shop.example?a", Some(("shop.example", "/", Some("a"))));
        check("http://127.0.0.1:8080/", Some(("127.0.0.1:8080", "/", None)));
    }

    #[test]
    fn a_prefix_ends_at_a_slash() {
        let prefix = |url: &str| Purging::of_prefix(url, true);
        let expected = Purging::Prefix { authority: "shop.example".into(), path: "/a/".into(), soft: true };
        assert_eq!(prefix("http://Shop.Example/x/../a/"), Ok(expected));
        for url in ["http://shop.example/a", "http://shop.example/a/?b", "shop.example/"] {
            assert!(prefix(url).is_err(), "{url}");
        }
        let deep = |depth| format!("http://h{}/", "/d".repeat(depth - 1));
        assert!(prefix(&deep(PREFIX_DEPTH_MAX)).is_ok());
        assert!(prefix(&deep(PREFIX_DEPTH_MAX + 1)).is_err());
    }

    #[test]
    fn what_no_request_could_ask_for_is_refused() {
        for url in [
            "",
            "/a",
            "shop.example/a",
            "ftp://h/",
            "http:///a",
            "http://h/a b",
            "http://h/a#b",
            "http://u@h/",
            "http://h/\r\nhost: x",
            "http://h/../..",
            "http://h\r\nx: y/",
        ] {
            check(url, None);
        }
    }
}
