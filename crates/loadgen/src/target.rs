//! Where load may go: this machine, unless the user says that the host is theirs.
//!
//! A target is `http://host:port` with nothing behind it. It is resolved once, before the run, so that a name server's
//! mood is no part of the measurement; every address it resolves to must be a loopback address, or the plan must say
//! `own_host`. The addresses are then used as found: nothing is resolved again that could point elsewhere.

use std::net::{SocketAddr, ToSocketAddrs};

use crate::error::Error;

/// The most targets of one plan.
pub(crate) const TARGETS_MAX: usize = 64;

/// A resolved base URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// The Host field's value.
    pub(crate) authority: String,
    pub(crate) address: SocketAddr,
}

impl Target {
    /// All targets of a plan.
    pub(crate) fn resolve_all(urls: &[String], own_host: bool) -> Result<Vec<Self>, Error> {
        if urls.is_empty() || urls.len() > TARGETS_MAX {
            let why = format!("{} targets; 1 to {TARGETS_MAX} are possible", urls.len());
            return Err(Error::Target { url: urls.first().cloned().unwrap_or_default(), why });
        }
        urls.iter().map(|url| Self::resolve(url, own_host)).collect()
    }

    fn resolve(url: &str, own_host: bool) -> Result<Self, Error> {
        let refuse = |why: String| Error::Target { url: url.to_owned(), why };
        let authority = authority(url).map_err(&refuse)?;
        let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
        let resolvable = if has_port { authority.to_owned() } else { format!("{authority}:80") };
        let addresses: Vec<SocketAddr> =
            resolvable.to_socket_addrs().map_err(|error| refuse(error.to_string()))?.collect();
        let elsewhere = addresses.iter().find(|address| !address.ip().to_canonical().is_loopback());
        if let Some(&address) = elsewhere.filter(|_| !own_host) {
            return Err(Error::NotLoopback { url: url.to_owned(), address });
        }
        // IPv4 first: `localhost` is both, and most development servers listen on 127.0.0.1 alone.
        let address = addresses.iter().min_by_key(|address| address.is_ipv6());
        let address = *address.ok_or_else(|| refuse("resolves to no address".into()))?;
        Ok(Self { authority: authority.to_owned(), address })
    }
}

/// The `host:port` of a base URL.
fn authority(url: &str) -> Result<&str, String> {
    if url.starts_with("https://") {
        return Err("https is not spoken here yet; give the http:// address".into());
    }
    let rest = url.strip_prefix("http://").ok_or("a target begins with http://")?;
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    let is_host_byte = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
    if authority.is_empty() || !authority.bytes().all(is_host_byte) {
        return Err("a target is http://host:port, with nothing before or behind".into());
    }
    Ok(authority)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, own_host: bool, expected: Option<&str>) {
        let resolved = Target::resolve(url, own_host);
        assert_eq!(resolved.ok().map(|t| t.address.to_string()).as_deref(), expected, "{url} {own_host}");
    }

    #[test]
    fn loopback_is_welcome_everywhere_else_needs_a_word() {
        check("http://127.0.0.1:8080", false, Some("127.0.0.1:8080"));
        check("http://127.8.9.1", false, Some("127.8.9.1:80"));
        check("http://[::1]:81/", false, Some("[::1]:81"));
        check("http://[::1]", false, Some("[::1]:80"));
        check("http://192.0.2.1:80", false, None);
        check("http://192.0.2.1:80", true, Some("192.0.2.1:80"));
        check("http://0.0.0.0:80", false, None);
        check("http://[::ffff:192.0.2.1]:80", false, None);
        let error = Target::resolve("http://192.0.2.1", false).unwrap_err().to_string();
        assert!(error.contains("--i-own-this-host"), "{error}");
    }

    #[test]
    fn what_is_no_base_url_is_refused() {
        for url in [
            "",
            "127.0.0.1:80",
            "https://127.0.0.1",
            "http://",
            "http://127.0.0.1/a",
            "http://u@127.0.0.1",
            "http://a b",
        ] {
            check(url, true, None);
        }
        assert!(Target::resolve_all(&[], true).is_err());
    }
}
