//! Who may ask the admin server for what.
//!
//! **Intuition.** Three callers look alike on loopback: the CLI, a page in the user's browser, and a page of a stranger
//! who pointed a DNS name at 127.0.0.1. The CLI alone may change anything.
//!
//! **Mechanism.** The token where one is configured, compared in constant time. Without a token: the Host must be an IP
//! address or `localhost`, which no rebound name is. A change must come as JSON, which no HTML form can send across
//! sites, and never from a foreign Origin.
//!
//! **Failure.** Problem JSON that says which rule was broken; nothing about the token but that it is needed or wrong.

use std::net::IpAddr;

use super::{Request, Response};

/// Which of the two listeners a request came in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// `admin.listen`.
    Admin,
    /// `admin.probe_listen`.
    Probe,
}

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Whether the process lives.
    Health,
    /// Whether it takes requests.
    Ready,
    /// OpenMetrics.
    Metrics,
    /// What it is doing.
    Status,
    /// What it was told, secrets masked.
    Config,
    /// Apply the changed file.
    Reload,
    /// Take responses out of the cache.
    Purge,
    /// What the cache has for a request.
    Explain,
}

impl Endpoint {
    fn of(path: &str) -> Option<Self> {
        Some(match path {
            "/healthz" => Self::Health,
            "/readyz" => Self::Ready,
            "/metrics" => Self::Metrics,
            "/api/v1/status" => Self::Status,
            "/api/v1/config" => Self::Config,
            "/api/v1/reload" => Self::Reload,
            "/api/v1/purge" => Self::Purge,
            "/api/v1/cache/explain" => Self::Explain,
            _ => return None,
        })
    }

    /// Takes an order or a question in its body. A question changes nothing, but what it is answered with is nobody's
    /// page's to read.
    fn is_posted(self) -> bool {
        matches!(self, Self::Reload | Self::Purge | Self::Explain)
    }

    fn is_probe(self) -> bool {
        matches!(self, Self::Health | Self::Ready | Self::Metrics)
    }

    /// What must answer even to those who know nothing.
    fn is_open(self) -> bool {
        matches!(self, Self::Health | Self::Ready)
    }
}

/// The endpoint that may answer, or the refusal.
pub fn admit(request: &Request, listener: Listener, token: Option<&str>) -> Result<Endpoint, Response> {
    let known =
        Endpoint::of(&request.path).filter(|endpoint| listener == Listener::Admin || endpoint.is_probe());
    let endpoint =
        known.ok_or_else(|| Response::problem(404, "not_found", "there is nothing at this path"))?;
    match (listener, token) {
        (Listener::Probe, _) => {}
        (Listener::Admin, Some(token)) if !endpoint.is_open() => check_token(request, token)?,
        (Listener::Admin, Some(_)) => {}
        (Listener::Admin, None) => check_host(request)?,
    }
    check_method(request, endpoint)?;
    if endpoint.is_posted() {
        check_origin(request)?;
    }
    Ok(endpoint)
}

fn check_token(request: &Request, token: &str) -> Result<(), Response> {
    let Some(header) = &request.authorization else {
        return Err(Response::problem(401, "no_token", "send the admin token: Authorization: Bearer TOKEN"));
    };
    let sent = header.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let fits = sent.is_some_and(|(_, sent)| is_same(sent.trim().as_bytes(), token.as_bytes()));
    if fits { Ok(()) } else { Err(Response::problem(401, "wrong_token", "this is not the admin token")) }
}

/// Takes as long for a near miss as for a wild guess. The length is not a secret.
fn is_same(a: &[u8], b: &[u8]) -> bool {
    let differing = a.iter().zip(b).fold(0_u8, |bits, (x, y)| std::hint::black_box(bits | (x ^ y)));
    a.len() == b.len() && differing == 0
}

fn check_host(request: &Request) -> Result<(), Response> {
    let host = host_without_port(&request.host);
    let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
    if literal || host.eq_ignore_ascii_case("localhost") {
        return Ok(());
    }
    Err(Response::problem(421, "foreign_host", "without a token, ask by IP address or as localhost"))
}

fn host_without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !host.ends_with(']') => name,
        _ => host,
    }
}

fn check_method(request: &Request, endpoint: Endpoint) -> Result<(), Response> {
    let (fits, allow) = if endpoint.is_posted() {
        (request.method == "POST", "POST")
    } else {
        (matches!(request.method.as_str(), "GET" | "HEAD"), "GET, HEAD")
    };
    if fits {
        return Ok(());
    }
    let refusal = Response::problem(405, "method_not_allowed", &format!("use {allow}"));
    Err(Response { allow: Some(allow), ..refusal })
}

fn check_origin(request: &Request) -> Result<(), Response> {
    let own = |origin: &str| {
        let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        authority.is_some_and(|authority| authority.eq_ignore_ascii_case(&request.host))
    };
    let foreign_origin = request.origin.as_deref().is_some_and(|origin| !own(origin));
    let foreign_site =
        request.fetch_site.as_deref().is_some_and(|site| !matches!(site, "same-origin" | "none"));
    if foreign_origin || foreign_site {
        return Err(Response::problem(
            403,
            "foreign_origin",
            "a page of another origin may not change anything here",
        ));
    }
    let content_type = request.content_type.as_deref().unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        return Err(Response::problem(415, "not_json", "send Content-Type: application/json"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "correct-horse-battery";

    fn request(method: &str, path: &str) -> Request {
        Request {
            method: method.into(),
            path: path.into(),
            host: "127.0.0.1:9900".into(),
            ..Request::default()
        }
    }

    fn post(path: &str) -> Request {
        Request { content_type: Some("application/json; charset=utf-8".into()), ..request("POST", path) }
    }

    #[track_caller]
    fn check(request: &Request, listener: Listener, token: Option<&str>, expected: Result<Endpoint, u16>) {
        let admitted = admit(request, listener, token).map_err(|refusal| refusal.status);
        assert_eq!(admitted, expected, "{request:?}");
    }

    #[test]
    fn paths_and_methods() {
        use Endpoint::*;
        for (path, endpoint) in [
            ("/healthz", Health),
            ("/readyz", Ready),
            ("/metrics", Metrics),
            ("/api/v1/status", Status),
            ("/api/v1/config", Config),
        ] {
            check(&request("GET", path), Listener::Admin, None, Ok(endpoint));
            check(&request("HEAD", path), Listener::Admin, None, Ok(endpoint));
            check(&post(path), Listener::Admin, None, Err(405));
        }
        for (path, endpoint) in
            [("/api/v1/reload", Reload), ("/api/v1/purge", Purge), ("/api/v1/cache/explain", Explain)]
        {
            check(&post(path), Listener::Admin, None, Ok(endpoint));
            check(&request("GET", path), Listener::Admin, None, Err(405));
        }
        check(&request("GET", "/"), Listener::Admin, None, Err(404));
        check(&request("GET", "/healthz/"), Listener::Admin, None, Err(404));
    }

    #[test]
    fn the_probe_listener_serves_probes_alone() {
        check(&request("GET", "/metrics"), Listener::Probe, Some(TOKEN), Ok(Endpoint::Metrics));
        check(
            &Request { host: "pod-7.example".into(), ..request("GET", "/readyz") },
            Listener::Probe,
            None,
            Ok(Endpoint::Ready),
        );
        check(&request("GET", "/api/v1/status"), Listener::Probe, None, Err(404));
        check(&post("/api/v1/purge"), Listener::Probe, None, Err(404));
    }

    #[test]
    fn a_token_is_asked_for_where_there_is_one() {
        let with = |authorization: &str| Request {
            authorization: Some(authorization.into()),
            ..request("GET", "/metrics")
        };
        check(&request("GET", "/metrics"), Listener::Admin, Some(TOKEN), Err(401));
        check(&request("GET", "/healthz"), Listener::Admin, Some(TOKEN), Ok(Endpoint::Health));
        check(&with("Bearer correct-horse-battery"), Listener::Admin, Some(TOKEN), Ok(Endpoint::Metrics));
        check(&with("bearer correct-horse-battery"), Listener::Admin, Some(TOKEN), Ok(Endpoint::Metrics));
        for wrong in [
            "Bearer correct-horse-batterx",
            "Bearer correct-horse-batter",
            "Bearer ",
            "correct-horse-battery",
            "Basic correct-horse-battery",
            "Bearer correct-horse-battery, Bearer x",
        ] {
            check(&with(wrong), Listener::Admin, Some(TOKEN), Err(401));
        }
        check(
            &Request { authorization: None, ..post("/api/v1/reload") },
            Listener::Admin,
            Some(TOKEN),
            Err(401),
        );
    }

    #[test]
    fn a_rebound_name_is_refused() {
        let with = |host: &str| Request { host: host.into(), ..request("GET", "/api/v1/status") };
        for host in ["127.0.0.1", "localhost:9900", "[::1]:9900", "[::1]", "LOCALHOST"] {
            check(&with(host), Listener::Admin, None, Ok(Endpoint::Status));
        }
        for host in
            ["evil.example", "evil.example:9900", "127.0.0.1.evil.example", "", "localhost.evil.example"]
        {
            check(&with(host), Listener::Admin, None, Err(421));
        }
    }

    #[test]
    fn another_sites_page_changes_nothing() {
        let from = |origin: &str| Request { origin: Some(origin.into()), ..post("/api/v1/purge") };
        check(&from("http://127.0.0.1:9900"), Listener::Admin, None, Ok(Endpoint::Purge));
        for origin in [
            "http://evil.example",
            "null",
            "http://127.0.0.1:3000",
            "",
            "http://127.0.0.1:9900, http://evil.example",
        ] {
            check(&from(origin), Listener::Admin, None, Err(403));
        }
        let site = Request { fetch_site: Some("cross-site".into()), ..post("/api/v1/purge") };
        check(&site, Listener::Admin, None, Err(403));
        for content_type in [
            None,
            Some("text/plain"),
            Some("application/x-www-form-urlencoded"),
            Some("text/plain;application/json"),
        ] {
            let request = Request { content_type: content_type.map(str::to_owned), ..post("/api/v1/purge") };
            check(&request, Listener::Admin, None, Err(415));
        }
    }
}
