//! Which route a request takes.
//!
//! The most specific route wins, whatever the order of the file: its host first (exact, then the longest wildcard, then
//! any), then its path's literals from left to right, then its methods, then its fields. A route whose methods or fields
//! don't fit gives way to the next. Two routes that no request could tell apart are an error when the configuration is
//! built, never a matter of luck.
//!
//! A tree of path segments per host; matching walks it with backtracking, which cannot take longer than there are nodes
//! in the tree. Names come from the configuration alone, so hostile input can't grow or unbalance anything.

use std::collections::HashMap;

use tenfold_http1::Field;

use crate::config::{BuildError, RouteConfig};

/// A route's place in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteIndex(pub usize);

/// All routes, ready to be matched.
#[derive(Debug, Default)]
pub struct Router {
    exact: HashMap<Box<str>, Segments, foldhash::fast::FixedState>,
    /// `.example.com` for `*.example.com`, the longest first.
    wildcards: Vec<(Box<str>, Segments)>,
    any: Segments,
}

#[derive(Debug, Default)]
struct Segments {
    literals: HashMap<Box<str>, Segments, foldhash::fast::FixedState>,
    /// What follows a `{name}`.
    parameter: Option<Box<Segments>>,
    /// Routes that end here, the most specific first.
    here: Vec<Candidate>,
    /// Routes that end in `{*rest}`.
    rest: Vec<Candidate>,
}

#[derive(Debug)]
struct Candidate {
    route: RouteIndex,
    methods: Box<[Box<str>]>,
    fields: Box<[(Box<str>, Box<str>)]>,
}

/// Why a route has no place.
enum Misfit {
    Path(String),
    Host(String),
    /// No request could tell it from that one.
    Tie(RouteIndex),
}

/// What to do about a tie.
pub const TELL_APART: &str = "tell them apart by host, path, methods or headers";

/// Whether a path pattern can be read.
///
/// # Errors
/// What is wrong with it, and what to write.
pub fn check_pattern(pattern: &str) -> Result<(), String> {
    parse_pattern(pattern).map(drop)
}

/// Routes that no request could tell from an earlier one: which, and from which. Those that can't be read are passed over.
#[must_use]
pub fn ties(routes: &[RouteConfig]) -> Vec<(RouteIndex, RouteIndex)> {
    let tie = |(index, misfit)| if let Misfit::Tie(other) = misfit { Some((index, other)) } else { None };
    Router::fit(routes).1.into_iter().filter_map(tie).collect()
}

#[derive(Debug, PartialEq, Eq)]
enum Segment<'p> {
    Literal(&'p str),
    Parameter,
    Rest,
}

impl Router {
    /// Reads every route; answers with all that is wrong with any.
    ///
    /// # Errors
    /// A malformed pattern or host, or a tie, each with its configuration path.
    pub fn build(routes: &[RouteConfig]) -> Result<Self, Vec<BuildError>> {
        let (router, misfits) = Self::fit(routes);
        let error = |(RouteIndex(at), misfit)| match misfit {
            Misfit::Path(message) => BuildError { path: format!("route[{at}].path"), message },
            Misfit::Host(message) => BuildError { path: format!("route[{at}].host"), message },
            Misfit::Tie(RouteIndex(other)) => BuildError {
                path: format!("route[{at}].path"),
                message: format!(
                    "matches the same requests as route \"{}\"; {TELL_APART}",
                    routes[other].name
                ),
            },
        };
        if misfits.is_empty() { Ok(router) } else { Err(misfits.into_iter().map(error).collect()) }
    }

    fn fit(routes: &[RouteConfig]) -> (Self, Vec<(RouteIndex, Misfit)>) {
        let mut router = Self::default();
        let mut misfits = Vec::new();
        for (index, route) in routes.iter().enumerate() {
            let index = RouteIndex(index);
            misfits.extend(router.insert(index, route).err().map(|misfit| (index, misfit)));
        }
        router.wildcards.sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
        (router, misfits)
    }

    fn insert(&mut self, index: RouteIndex, route: &RouteConfig) -> Result<(), Misfit> {
        let segments = parse_pattern(&route.path).map_err(Misfit::Path)?;
        let host = self.host_mut(route.host.as_deref()).map_err(Misfit::Host)?;
        host.place(&segments).admit(Candidate::new(index, route)).map_err(Misfit::Tie)
    }

    fn host_mut(&mut self, host: Option<&str>) -> Result<&mut Segments, String> {
        let Some(host) = host else { return Ok(&mut self.any) };
        let (name, wildcard) = match host.strip_prefix('*') {
            Some(suffix) if suffix.starts_with('.') && suffix.len() > 1 => (suffix, true),
            Some(_) => return Err(format!("a wildcard host is written \"*.example.com\", not \"{host}\"")),
            None => (host, false),
        };
        let readable = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._:[]".contains(&b);
        if name.is_empty() || !name.bytes().all(readable) {
            return Err(format!("\"{host}\" is not a host name in lower case"));
        }
        if !wildcard {
            return Ok(self.exact.entry(name.into()).or_default());
        }
        let at = match self.wildcards.iter().position(|(suffix, _)| **suffix == *name) {
            Some(at) => at,
            None => {
                self.wildcards.push((name.into(), Segments::default()));
                self.wildcards.len() - 1
            }
        };
        Ok(&mut self.wildcards[at].1)
    }

    /// The route of a request in normal form (see [`crate::normalise`]).
    #[must_use]
    pub fn find(&self, host: &str, path: &str, method: &str, fields: &[Field<'_>]) -> Option<RouteIndex> {
        let request = Request { method, fields };
        let path = path.strip_prefix('/')?;
        if !self.exact.is_empty()
            && let Some(found) = self.exact.get(host).and_then(|routes| routes.find(path, &request))
        {
            return Some(found);
        }
        let mut wildcards =
            self.wildcards.iter().filter(|(s, _)| host.len() > s.len() && host.ends_with(&**s));
        wildcards
            .find_map(|(_, routes)| routes.find(path, &request))
            .or_else(|| self.any.find(path, &request))
    }
}

struct Request<'r> {
    method: &'r str,
    fields: &'r [Field<'r>],
}

impl Segments {
    fn place(&mut self, segments: &[Segment<'_>]) -> Place<'_> {
        match segments.split_first() {
            None => Place(&mut self.here),
            Some((Segment::Rest, _)) => Place(&mut self.rest),
            Some((Segment::Literal(name), tail)) => {
                self.literals.entry((*name).into()).or_default().place(tail)
            }
            Some((Segment::Parameter, tail)) => self.parameter.get_or_insert_default().place(tail),
        }
    }

    /// `path` is what is left after the last slash taken; a literal is tried before a parameter before the rest.
    fn find(&self, path: &str, request: &Request<'_>) -> Option<RouteIndex> {
        let (segment, tail) = match memchr::memchr(b'/', path.as_bytes()) {
            Some(at) => (&path[..at], Some(&path[at + 1..])),
            None => (path, None),
        };
        let onwards = |next: &Self| match tail {
            Some(tail) => next.find(tail, request),
            None => first_fit(&next.here, request),
        };
        let literal = if self.literals.is_empty() { None } else { self.literals.get(segment) };
        literal
            .and_then(onwards)
            .or_else(|| self.parameter.as_deref().filter(|_| !segment.is_empty()).and_then(onwards))
            .or_else(|| first_fit(&self.rest, request))
    }
}

fn first_fit(candidates: &[Candidate], request: &Request<'_>) -> Option<RouteIndex> {
    candidates.iter().find(|candidate| candidate.fits(request)).map(|candidate| candidate.route)
}

/// Where routes of one pattern stand together.
struct Place<'s>(&'s mut Vec<Candidate>);

impl Place<'_> {
    /// # Errors
    /// A route that can't be told from this one.
    fn admit(self, candidate: Candidate) -> Result<(), RouteIndex> {
        if let Some(twin) = self.0.iter().find(|other| other.ties_with(&candidate)) {
            return Err(twin.route);
        }
        let at = self.0.partition_point(|other| other.rank() >= candidate.rank());
        self.0.insert(at, candidate);
        Ok(())
    }
}

impl Candidate {
    fn new(route: RouteIndex, config: &RouteConfig) -> Self {
        Self {
            route,
            methods: config.methods.iter().map(|method| method.as_str().into()).collect(),
            fields: config.headers.iter().map(|(n, v)| (n.as_str().into(), v.as_str().into())).collect(),
        }
    }

    fn fits(&self, request: &Request<'_>) -> bool {
        let has = |(name, value): &(Box<str>, Box<str>)| {
            let mut found = request.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes()));
            found.any(|(_, v)| *v == value.as_bytes())
        };
        (self.methods.is_empty() || self.methods.iter().any(|method| **method == *request.method))
            && self.fields.iter().all(has)
    }

    /// Methods come before fields; more fields before fewer.
    fn rank(&self) -> (bool, usize) {
        (!self.methods.is_empty(), self.fields.len())
    }

    fn ties_with(&self, other: &Self) -> bool {
        let methods_meet =
            self.methods.is_empty() || self.methods.iter().any(|method| other.methods.contains(method));
        let fields_part =
            self.fields.iter().any(|(name, value)| other.fields.iter().any(|(n, v)| n == name && v != value));
        self.rank() == other.rank() && methods_meet && !fields_part
    }
}

fn parse_pattern(pattern: &str) -> Result<Vec<Segment<'_>>, String> {
    let Some(path) = pattern.strip_prefix('/') else {
        return Err(format!("a path begins with \"/\"; write \"/{pattern}\""));
    };
    let segments: Vec<_> = path.split('/').map(parse_segment).collect::<Result<_, _>>()?;
    let rest = segments.iter().position(|segment| *segment == Segment::Rest);
    if rest.is_some_and(|at| at + 1 < segments.len()) {
        return Err("{*rest} takes all that follows, so it must be the last segment".to_owned());
    }
    let mut names = std::collections::BTreeSet::new();
    if let Some(twice) =
        path.split('/').filter(|s| s.starts_with('{')).find(|s| !names.insert(s.replace('*', "")))
    {
        return Err(format!("\"{twice}\": each name once, so that they can be told apart"));
    }
    Ok(segments)
}

fn parse_segment(segment: &str) -> Result<Segment<'_>, String> {
    let name = segment.strip_prefix('{').and_then(|s| s.strip_suffix('}'));
    match name.map(|name| name.strip_prefix('*').map_or((name, false), |name| (name, true))) {
        Some((name, rest)) if is_identifier(name) => {
            Ok(if rest { Segment::Rest } else { Segment::Parameter })
        }
        Some(_) => Err(format!("\"{segment}\" needs a name of letters, digits and \"_\", such as {{id}}")),
        None if segment.contains(['{', '}']) => {
            Err(format!("\"{segment}\": {{name}} stands for a whole segment between two slashes"))
        }
        None if segment == "*" || segment == "**" => {
            Err(format!("\"{segment}\" is a literal here; write {{*rest}} for all that follows"))
        }
        None => {
            let mut scratch = Vec::new();
            let spelled = format!("/{segment}");
            match crate::normalise::normalise(spelled.as_bytes(), None, &mut scratch) {
                _ if !segment.is_ascii() => Err(format!(
                    "\"{segment}\" never matches; requests carry it percent-encoded, so write it so"
                )),
                _ if segment.contains(['?', '#', ' ']) => {
                    Err(format!("\"{segment}\" can't be part of a path"))
                }
                Ok(target) if target.path == spelled => Ok(Segment::Literal(segment)),
                Ok(target) => {
                    Err(format!("\"{segment}\" never matches; its normal form is \"{}\"", &target.path[1..]))
                }
                Err(_) => Err(format!("\"{segment}\" can't be part of a path")),
            }
        }
    }
}

fn is_identifier(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `[METHOD,METHOD ][host]/path[ name=value]`
    fn route(text: &str) -> RouteConfig {
        let mut words: Vec<&str> = text.split(' ').collect();
        let methods = if words[0].contains('/') { "" } else { words.remove(0) };
        let (host, path) = words[0].split_at(words[0].find('/').expect("a path"));
        RouteConfig {
            name: text.to_owned(),
            host: (!host.is_empty()).then(|| host.to_owned()),
            path: path.to_owned(),
            methods: methods.split(',').filter(|m| !m.is_empty()).map(str::to_owned).collect(),
            headers: words[1..]
                .iter()
                .map(|word| word.split_once('=').expect("name=value"))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            to: String::new(),
            cache: tenfold_cache::Rule::Off,
            own_writes: false,
        }
    }

    fn routes(texts: &[&str]) -> Vec<RouteConfig> {
        texts.iter().map(|text| route(text)).collect()
    }

    fn check(texts: &[&str], request: &str, expected: Option<&str>) {
        let configs = routes(texts);
        let router = Router::build(&configs).expect("routes build");
        let request = route(request);
        let method = request.methods.first().map_or("GET", String::as_str);
        let fields: Vec<Field<'_>> =
            request.headers.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
        let host = request.host.as_deref().unwrap_or("");
        let found = router.find(host, &request.path, method, &fields).map(|RouteIndex(at)| texts[at]);
        assert_eq!(found, expected, "{}", request.name);
    }

    #[test]
    fn literals_beat_parameters_beat_the_rest() {
        let texts =
            &["/{*rest}", "/api/{*rest}", "/api/{kind}/{id}", "/api/products/{id}", "/api/products/top"];
        check(texts, "/api/products/top", Some("/api/products/top"));
        check(texts, "/api/products/7", Some("/api/products/{id}"));
        check(texts, "/api/orders/7", Some("/api/{kind}/{id}"));
        check(texts, "/api/orders/7/lines", Some("/api/{*rest}"));
        check(texts, "/api/", Some("/api/{*rest}"));
        check(texts, "/api", Some("/{*rest}"));
        check(texts, "/", Some("/{*rest}"));
    }

    #[test]
    fn a_literal_to_the_left_counts_more() {
        check(&["/{a}/x/{*rest}", "/a/{b}/{c}"], "/a/x/c", Some("/a/{b}/{c}"));
    }

    #[test]
    fn a_path_is_matched_whole() {
        check(&["/a/{id}"], "/a/", None);
        check(&["/a/{id}"], "/a/b/", None);
        check(&["/a/{id}"], "/a", None);
        check(&["/a"], "/a/", None);
        check(&["/a/"], "/a/", Some("/a/"));
        check(&["/"], "/", Some("/"));
    }

    #[test]
    fn a_dead_end_is_walked_back() {
        check(&["/a/b/c", "/a/{x}/d"], "/a/b/d", Some("/a/{x}/d"));
        check(&["GET /a/b", "/a/{x}"], "POST /a/b", Some("/a/{x}"));
    }

    #[test]
    fn the_host_comes_first() {
        let texts = &["/{*rest}", "*.shop.example/{*rest}", "*.a.shop.example/{*rest}", "shop.example/only"];
        check(texts, "shop.example/only", Some("shop.example/only"));
        check(texts, "shop.example/other", Some("/{*rest}"));
        check(texts, "x.shop.example/", Some("*.shop.example/{*rest}"));
        check(texts, "x.a.shop.example/", Some("*.a.shop.example/{*rest}"));
        check(texts, "notshop.example/only", Some("/{*rest}"));
    }

    #[test]
    fn then_methods_then_fields() {
        let texts = &["/a", "/a x-beta=1", "GET,HEAD /a", "POST /a x-beta=1"];
        check(texts, "GET /a", Some("GET,HEAD /a"));
        check(texts, "PUT /a", Some("/a"));
        check(texts, "PUT /a x-beta=1", Some("/a x-beta=1"));
        check(texts, "POST /a X-Beta=1", Some("POST /a x-beta=1"));
        check(texts, "POST /a X-Beta=2", Some("/a"));
    }

    #[test]
    fn ties_are_errors_that_name_the_other_route() {
        for (first, second) in [
            ("/a/{x}", "/a/{y}"),
            ("GET,POST /a", "POST /a"),
            ("/a x=1", "/a y=1"),
            ("h.example/{*a}", "h.example/{*b}"),
        ] {
            let errors = Router::build(&routes(&[first, second])).expect_err("a tie");
            assert_eq!(errors[0].path, "route[1].path");
            assert!(errors[0].message.contains(first), "{errors:?}");
        }
        for (first, second) in
            [("GET /a", "POST /a"), ("/a x=1", "/a x=2"), ("h.example/a", "/a"), ("/a", "/a/")]
        {
            assert!(Router::build(&routes(&[first, second])).is_ok(), "{first} {second}");
        }
    }

    #[test]
    fn malformed_patterns_are_all_reported() {
        let bad = [
            "/a/{*rest}/b",
            "/a{b}",
            "/{}",
            "/a/*",
            "/a/../b",
            "/%41",
            "*example/",
            "UP.example/",
            "/a?b",
            "/{a}/{*a}",
        ];
        let errors = Router::build(&routes(&bad)).expect_err("all bad");
        assert_eq!(errors.len(), bad.len(), "{errors:#?}");
    }
}
