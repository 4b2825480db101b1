//! Tags: names by which stored responses can be purged together.
//!
//! **Intuition.** When product 7 changes, its page, its JSON and the list it is in have to go. If each was stored with the
//! tag `product:7`, one purge names them all. Tags come from the route (`tags = ["product:{id}"]`) and from the origin
//! (`Surrogate-Key`, `Cache-Tag`).
//!
//! **Mechanism.** A template is text with places in braces: `{id}` is the segment of the path that the route's pattern
//! calls so, `{query.page}` a parameter of the query, `{header.x-shop}` a field of the response. A template of which any
//! place is empty makes no tag. Values are taken as they stand in the URL, without decoding.
//!
//! **Failure.** At most `TAGS_MAX` tags of at most `TAG_BYTES_MAX` bytes are kept of one response. One that is left
//! out can't be purged by that name, so a response with more is not stored.

use crate::Field;
use crate::key::UrlParts;
use crate::policy::fields;

/// Tags kept of one response.
pub(crate) const TAGS_MAX: usize = 64;
/// The longest tag.
pub(crate) const TAG_BYTES_MAX: usize = 1024;

/// How a tag is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagTemplate {
    pieces: Box<[Piece]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Box<[u8]>),
    /// A segment of the path, counted from its front.
    Segment(usize),
    /// All segments from this one on.
    Rest(usize),
    /// A parameter's value.
    Query(Box<[u8]>),
    /// A response field's value, in lower case.
    Header(Box<[u8]>),
}

impl TagTemplate {
    /// Reads a template for a route whose path pattern is given (`/products/{id}`, `/static/{*rest}`).
    ///
    /// # Errors
    /// What is wrong with it, for a person.
    pub fn parse(template: &str, pattern: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = template;
        while let Some(at) = rest.find(['{', '}']) {
            let (text, behind) = rest.split_at(at);
            let Some((place, behind)) = behind.strip_prefix('{').and_then(|behind| behind.split_once('}'))
            else {
                return Err("a brace without its other half".into());
            };
            if !text.is_empty() {
                pieces.push(Piece::Text(text.as_bytes().into()));
            }
            pieces.push(Piece::read(place, pattern)?);
            rest = behind;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.as_bytes().into()));
        }
        if pieces.is_empty() || template.len() > TAG_BYTES_MAX {
            return Err(format!("a tag has between 1 and {TAG_BYTES_MAX} bytes"));
        }
        Ok(Self { pieces: pieces.into() })
    }

    /// The tag of one response, unless a place of it is empty.
    fn fill(&self, url: &UrlParts<'_>, response_fields: &[Field<'_>]) -> Option<Vec<u8>> {
        let mut tag = Vec::new();
        for piece in &self.pieces {
            let value = piece.value(url, response_fields);
            if value.is_empty() {
                return None;
            }
            tag.extend_from_slice(value);
        }
        Some(tag)
    }
}

impl Piece {
    fn read(place: &str, pattern: &str) -> Result<Self, String> {
        if let Some(name) = place.strip_prefix("query.").filter(|name| !name.is_empty()) {
            return Ok(Self::Query(name.as_bytes().into()));
        }
        if let Some(name) = place.strip_prefix("header.").filter(|name| !name.is_empty()) {
            return Ok(Self::Header(name.to_ascii_lowercase().into_bytes().into()));
        }
        let named =
            |segment: &str| segment.strip_prefix('{').and_then(|s| s.strip_suffix('}')).map(str::to_owned);
        let segments = pattern.split('/').skip(1);
        for (at, segment) in segments.enumerate() {
            match named(segment) {
                Some(name) if name == place => return Ok(Self::Segment(at)),
                Some(name) if name.strip_prefix('*') == Some(place) => return Ok(Self::Rest(at)),
                _ => {}
            }
        }
        Err(format!("{{{place}}} is no part of the path {pattern:?}, nor query.NAME, nor header.NAME"))
    }

    fn value<'v>(&'v self, url: &UrlParts<'v>, response_fields: &'v [Field<'v>]) -> &'v [u8] {
        match self {
            Self::Text(text) => text,
            Self::Segment(at) => {
                segments_from(url.path, *at).split(|&byte| byte == b'/').next().unwrap_or_default()
            }
            Self::Rest(at) => segments_from(url.path, *at),
            Self::Query(name) => parameter(url.query.unwrap_or_default(), name),
            Self::Header(name) => fields::lines(response_fields, name).next().unwrap_or_default(),
        }
    }
}

/// What follows the first `at` segments of a path.
fn segments_from(path: &[u8], at: usize) -> &[u8] {
    let mut slashes = memchr::memchr_iter(b'/', path);
    slashes.nth(at).map_or(&[], |slash| &path[slash + 1..])
}

/// The first parameter of this name.
fn parameter<'q>(query: &'q [u8], name: &[u8]) -> &'q [u8] {
    let value = |pair: &'q [u8]| pair.strip_prefix(name)?.strip_prefix(b"=");
    query.split(|&byte| byte == b'&').find_map(value).unwrap_or_default()
}

/// All tags of a response; `None` if there are more, or longer ones, than are kept.
pub(crate) fn of_response(
    templates: &[TagTemplate],
    url: &UrlParts<'_>,
    response_fields: &[Field<'_>],
) -> Option<Vec<Vec<u8>>> {
    let mut tags: Vec<Vec<u8>> =
        templates.iter().filter_map(|template| template.fill(url, response_fields)).collect();
    let keys =
        fields::lines(response_fields, b"surrogate-key").flat_map(|line| line.split(u8::is_ascii_whitespace));
    let listed =
        fields::lines(response_fields, b"cache-tag").flat_map(|line| line.split(|&byte| byte == b','));
    for tag in keys.chain(listed.map(<[u8]>::trim_ascii)).filter(|tag| !tag.is_empty()) {
        if tags.len() == TAGS_MAX {
            return None;
        }
        tags.push(tag.to_vec());
    }
    let fits = tags.len() <= TAGS_MAX && tags.iter().all(|tag| tag.len() <= TAG_BYTES_MAX);
    fits.then_some(tags)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(
        templates: &[&str],
        pattern: &str,
        path: &str,
        query: Option<&str>,
        response: &[Field<'_>],
    ) -> Option<Vec<String>> {
        let templates: Vec<_> =
            templates.iter().map(|text| TagTemplate::parse(text, pattern).unwrap()).collect();
        let url = UrlParts { authority: b"h", path: path.as_bytes(), query: query.map(str::as_bytes) };
        let tags = of_response(&templates, &url, response)?;
        Some(tags.into_iter().map(|tag| String::from_utf8(tag).unwrap()).collect())
    }

    #[test]
    fn templates_take_path_query_and_header() {
        let check = |template: &str, path: &str, query: Option<&str>, expected: &[&str]| {
            let response: [Field<'_>; 1] = [(b"X-Shop", b"berlin")];
            let found = tags(&[template], "/shops/{shop}/products/{*rest}", path, query, &response).unwrap();
            assert_eq!(found, expected, "{template} {path} {query:?}");
        };
        check("all", "/shops/1/products/7", None, &["all"]);
        check("shop:{shop}", "/shops/1/products/7", None, &["shop:1"]);
        check("p:{rest}!", "/shops/1/products/7/b", None, &["p:7/b!"]);
        check("{shop}-{query.page}", "/shops/1/products/", Some("x=1&page=2&page=3"), &["1-2"]);
        check("{shop}-{query.page}", "/shops/1/products/", Some("pages=2"), &[]);
        check("{header.x-shop}", "/shops/1/products/", None, &["berlin"]);
        check("{header.x-none}", "/shops/1/products/", None, &[]);
    }

    #[test]
    fn mistakes_are_named() {
        for template in ["", "{id", "id}", "{}", "{other}", "{query.}", "{header.}", "a{{id}}"] {
            assert!(TagTemplate::parse(template, "/products/{id}").is_err(), "{template}");
        }
    }

    #[test]
    fn the_origin_names_tags_in_two_ways() {
        let response: [Field<'_>; 3] =
            [(b"Surrogate-Key", b"a  b"), (b"surrogate-key", b"c"), (b"Cache-Tag", b"d, e f ,,g")];
        assert_eq!(tags(&[], "/", "/", None, &response).unwrap(), ["a", "b", "c", "d", "e f", "g"]);
    }

    #[test]
    fn too_many_or_too_long_are_refused() {
        let many = vec!["t"; TAGS_MAX].join(" ");
        assert_eq!(
            tags(&[], "/", "/", None, &[(b"Surrogate-Key", many.as_bytes())]).unwrap().len(),
            TAGS_MAX
        );
        let more = many + " u";
        assert!(tags(&[], "/", "/", None, &[(b"Surrogate-Key", more.as_bytes())]).is_none());
        let long = "t".repeat(TAG_BYTES_MAX + 1);
        assert!(tags(&[], "/", "/", None, &[(b"Cache-Tag", long.as_bytes())]).is_none());
        assert!(tags(&["{query.q}"], "/", "/", Some(&format!("q={long}")), &[]).is_none());
    }
}
