//! What strings must look like: addresses, paths, names.
//!
//! Each form says yes, or what was expected instead; what a path pattern may be, the edge's router says. Nothing is looked up here: a name that doesn't resolve is
//! `tenfold check`'s to find, since it may resolve tomorrow.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::keys::Form;
use super::pgurl;

/// Longest host name DNS can carry.
const HOST_BYTES_MAX: usize = 253;
/// Names of routes and clusters become metric labels.
const LABEL_BYTES_MAX: usize = 200;
/// Shorter tokens can be guessed.
const SECRET_BYTES_MIN: usize = 16;
/// As PostgreSQL and its clients have it at most, in a password message.
const PASSWORD_BYTES_MAX: usize = 996;

/// What a form looks like, as the end of a sentence.
#[must_use]
pub fn expected(form: Form) -> &'static str {
    match form {
        Form::Socket => "an IP address with a port, such as \"127.0.0.1:8080\" or \"[::]:8080\"",
        Form::Network => "a network such as \"10.0.0.0/8\", or an address",
        Form::Node => "host:port, such as \"127.0.0.1:3000\" or \"api.internal:3000\"",
        Form::Path => "a path such as \"/health\"",
        Form::Pattern => "a path such as \"/api/products/{id}\" or \"/static/{*rest}\"",
        Form::Host => "a host name without a port, such as \"shop.example\" or \"*.shop.example\"",
        Form::Authority => "a host name, such as \"api.example\" or \"api.example:8080\"",
        Form::Method => "a method in upper case, such as \"GET\"",
        Form::KeyPart => "\"header:NAME\" or \"cookie:NAME\"",
        Form::Parameter => "a parameter's name, or how it begins and a * at its end, such as \"utm_*\"",
        Form::Tag => "a tag without blanks, such as \"product:{id}\"",
        Form::Label => "a name without control characters, at most 200 bytes",
        Form::Secret => "at least 16 printable ASCII characters",
        Form::Listen => {
            "an IP address with a port, such as \"127.0.0.1:6432\", or a Unix socket's folder, such as \"unix:/run/tenfold\""
        }
        Form::PgUrl => {
            "a URL such as \"postgres://app@127.0.0.1:5432/shop\", or a socket folder such as \"/run/postgresql\""
        }
        Form::Replica => "host:port, or a URL of one host such as \"postgres://127.0.0.1:5433\"",
        Form::RedisUrl => "a URL such as \"redis://127.0.0.1:6379\"",
        Form::File => "a file's path",
        Form::Sql => "an SQL statement",
        Form::Password => "a password: not empty, without a zero byte",
    }
}

/// Whether `text` has the form; if not, a label that says what was expected.
pub fn check(form: Form, text: &str) -> Result<(), String> {
    let fine = match form {
        Form::Socket => text.parse::<SocketAddr>().is_ok(),
        Form::Network => text.parse::<IpNet>().is_ok() || text.parse::<IpAddr>().is_ok(),
        Form::Node => return node(text),
        Form::Path => text.starts_with('/') && text.bytes().all(|b| b.is_ascii_graphic() && b != b'#'),
        Form::Pattern => return tenfold_edge::router::check_pattern(text),
        Form::Host => is_host(text.strip_prefix("*.").unwrap_or(text)),
        Form::Authority => is_authority(text),
        Form::Method => is_token(text) && !text.bytes().any(|b| b.is_ascii_lowercase()) && text != "CONNECT",
        Form::KeyPart => key_part(text).is_some(),
        Form::Parameter => {
            let name = text.strip_suffix('*').unwrap_or(text);
            !text.is_empty() && name.bytes().all(|b| b.is_ascii_graphic() && !b"&=#*".contains(&b))
        }
        // Which places there are depends on the route's path.
        Form::Tag => !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && b != b','),
        Form::Label => {
            !text.is_empty() && text.len() <= LABEL_BYTES_MAX && !text.chars().any(char::is_control)
        }
        Form::Listen => return pgurl::listen(text).map(drop),
        Form::PgUrl => return pgurl::parse(text).map(drop),
        Form::Replica => return pgurl::replica(text).map(drop),
        Form::RedisUrl => return redis_url(text),
        Form::File => !text.is_empty() && !text.contains('\0'),
        Form::Sql => !text.trim().is_empty() && !text.contains('\0'),
        Form::Password => !text.is_empty() && text.len() <= PASSWORD_BYTES_MAX && !text.contains('\0'),
        Form::Secret => text.len() >= SECRET_BYTES_MIN && text.bytes().all(|b| b.is_ascii_graphic()),
    };
    if fine { Ok(()) } else { Err(format!("expected {}", expected(form))) }
}

/// `header:NAME` or `cookie:NAME`, split.
#[must_use]
pub fn key_part(text: &str) -> Option<(&str, &str)> {
    let (source, name) = text.split_once(':')?;
    (matches!(source, "header" | "cookie") && is_token(name)).then_some((source, name))
}

/// Whether this may be a field's or cookie's name. RFC 9110 §5.6.2.
#[must_use]
pub fn is_token(text: &str) -> bool {
    let letter = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(letter)
}

/// What is wrong never repeats the URL.
fn redis_url(text: &str) -> Result<(), String> {
    let config = tenfold_state::Config { url: text.to_owned(), ..tenfold_state::Config::default() };
    config.validate().map_err(|error| error.to_string())
}

fn node(text: &str) -> Result<(), String> {
    if text.starts_with("https://") {
        return Err("expected host:port; nodes over TLS are not in this release yet".into());
    }
    if let Some(rest) = text.strip_prefix("http://") {
        return Err(format!("expected host:port; write \"{}\"", rest.trim_end_matches('/')));
    }
    let port = |port: &str| port.parse::<u16>().is_ok_and(|port| port != 0) && !port.starts_with('+');
    let named = |text: &str| {
        text.rsplit_once(':')
            .is_some_and(|(host, number)| !host.contains(':') && is_host(host) && port(number))
    };
    let fine = text.parse::<SocketAddr>().is_ok_and(|address| address.port() != 0) || named(text);
    if fine { Ok(()) } else { Err(format!("expected {}", expected(Form::Node))) }
}

pub(super) fn is_host(text: &str) -> bool {
    let label = |label: &str| {
        let letters = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        !label.is_empty() && label.len() <= 63 && letters && !label.starts_with('-') && !label.ends_with('-')
    };
    text.len() <= HOST_BYTES_MAX && (text.parse::<IpAddr>().is_ok() || text.split('.').all(label))
}

fn is_authority(text: &str) -> bool {
    let host = match text.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() && !port.starts_with('+') => host,
        _ => text,
    };
    is_host(host) && !host.contains(':') || text.parse::<SocketAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good(form: Form, texts: &[&str]) {
        texts.iter().for_each(|text| assert_eq!(check(form, text), Ok(()), "{text}"));
    }

    fn bad(form: Form, texts: &[&str]) {
        texts.iter().for_each(|text| assert!(check(form, text).is_err(), "{text}"));
    }

    #[test]
    fn addresses() {
        good(Form::Socket, &["127.0.0.1:0", "[::]:8080"]);
        bad(Form::Socket, &["127.0.0.1", "localhost:80", "8080", ":8080", "127.0.0.1:99999", ""]);
        good(Form::Network, &["10.0.0.0/8", "10.1.2.3", "fd00::/8"]);
        bad(Form::Network, &["10.0.0.0/33", "ten", ""]);
        good(Form::Node, &["127.0.0.1:3000", "[::1]:3000", "api.internal:3000", "a_b:1"]);
        bad(
            Form::Node,
            &[
                "api",
                "api:0",
                "api:99999",
                "api:+1",
                ":80",
                "u:p@h:80",
                "http://h:80",
                "https://h",
                "::1:80",
                "",
            ],
        );
        good(Form::Host, &["shop.example", "*.shop.example", "10.0.0.1"]);
        bad(Form::Host, &["shop.example:80", "*", "a..b", "-a", "sh op", "*.*.x", ""]);
        good(Form::Authority, &["api.example", "api.example:8080", "[::1]:80"]);
        bad(Form::Authority, &["api.example:x", "a b", "", "u@h"]);
    }

    #[test]
    fn paths_and_patterns() {
        good(Form::Pattern, &["/", "/a/{id}", "/a/{id}/b/{*rest}", "/{*rest}", "/a/"]);
        bad(
            Form::Pattern,
            &[
                "",
                "a",
                "/a/{id",
                "/a/x{id}",
                "/{*rest}/b",
                "/{a}/{a}",
                "/{}",
                "/{a-b}",
                "/a?b",
                "/é",
                "/*",
                "/a/../b",
                "/%41",
            ],
        );
        good(Form::Path, &["/health", "/health?full=1"]);
        bad(Form::Path, &["health", "/a b", "/a#b", ""]);
    }

    #[test]
    fn names() {
        good(Form::Method, &["GET", "PROPFIND"]);
        bad(Form::Method, &["get", "", "GE T", "CONNECT"]);
        good(Form::KeyPart, &["header:accept-language", "cookie:currency"]);
        bad(Form::KeyPart, &["header", "header:", "query:x", "claim:sub", "header:a b"]);
        good(Form::Parameter, &["id", "utm_*", "*", "a[]"]);
        bad(Form::Parameter, &["", "a=b", "a*b", "a b", "a&b", "ü"]);
        good(Form::Tag, &["all", "product:{id}", "{header.x-tag}"]);
        bad(Form::Tag, &["", "a b", "a,b"]);
        good(Form::Secret, &["0123456789abcdef"]);
        bad(Form::Secret, &["short", "0123456789abcde\n"]);
        bad(Form::Label, &["", "a\nb"]);
        good(Form::Password, &["x", "p@ss wörd"]);
        bad(Form::Password, &["", "a\0b"]);
        good(Form::Sql, &["SELECT 1\n"]);
        bad(Form::Sql, &["", " \n"]);
        good(Form::RedisUrl, &["redis://127.0.0.1", "rediss://u:p@cache.example:6380/2"]);
        bad(Form::RedisUrl, &["", "127.0.0.1:6379", "http://127.0.0.1"]);
        good(Form::Replica, &["10.0.0.2:5433", "replica", "[::1]:5433", "postgres://u@h/d", "/run/pg"]);
        bad(
            Form::Replica,
            &["", "h:0", "h:x", "u:p@h", "h/d", "postgres://a,b/d", "postgres://u:p@h", "a b"],
        );
        good(Form::File, &["userlist.txt", "/etc/tenfold/hba"]);
        bad(Form::File, &["", "a\0"]);
    }
}
