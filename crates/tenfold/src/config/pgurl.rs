//! Where a PostgreSQL server is, and where a pooler listens: libpq's URLs without a password, folders of Unix sockets.
//!
//! **Mechanism.** `postgres://user@host:port,host:port/database?sslmode=…` as in libpq's documentation (34.1.1.2,
//! Connection URIs), percent-decoded. A host that begins with a slash is the folder of a Unix socket; a path alone is
//! the same in short.
//!
//! **Failure.** What is wrong is said without quoting the text, because people put passwords in such URLs; a password is
//! itself a mistake here, with the key it belongs in.

use std::net::IpAddr;

use tenfold_pooler::config::{Host, Listen};

use super::forms;

/// PostgreSQL's own.
const PORT_DEFAULT: u16 = 5432;
/// The port in the name of a pooler's Unix socket, unless said otherwise; as PgBouncer's.
const POOLER_PORT: u16 = 6432;
/// Hosts that may be asked which of them is the primary.
const HOSTS_MAX: usize = 16;

/// A server, or several of which one is the primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PgUrl {
    /// At least one.
    pub hosts: Vec<Host>,
    /// Who logs in.
    pub user: Option<String>,
    /// The database's name at the server.
    pub dbname: Option<String>,
    /// One of libpq's words.
    pub sslmode: Option<String>,
}

/// Reads a URL or a folder.
///
/// # Errors
/// What is wrong, without quoting any of it.
pub fn parse(text: &str) -> Result<PgUrl, String> {
    if text.starts_with('/') {
        let hosts = vec![host(text, None)?];
        return Ok(PgUrl { hosts, user: None, dbname: None, sslmode: None });
    }
    let rest = text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://"));
    let rest = rest.ok_or_else(|| format!("expected {}", forms::expected(super::keys::Form::PgUrl)))?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, dbname) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, places) = authority.rsplit_once('@').unwrap_or(("", authority));
    if user.contains(':') {
        return Err("a password does not belong in the URL; use the key `password` or `password_file`".into());
    }
    let mut read = Query { user: decoded(user)?, dbname: decoded(dbname)?, ..Query::default() };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or("expected name=value after the question mark")?;
        read.set(name, decoded(value)?)?;
    }
    let hosts = hosts(places, &read)?;
    let some = |text: String| (!text.is_empty()).then_some(text);
    Ok(PgUrl { hosts, user: some(read.user), dbname: some(read.dbname), sslmode: some(read.sslmode) })
}

/// Reads where a replica is: `host:port`, or a URL or folder of one host.
///
/// # Errors
/// What is wrong, without quoting any of it.
pub fn replica(text: &str) -> Result<PgUrl, String> {
    let is_short = !text.is_empty() && !text.contains(['/', '@', '?', ',', '%']);
    let url = if is_short { parse(&format!("postgres://{text}"))? } else { parse(text)? };
    if url.hosts.len() > 1 {
        return Err("expected one host; list each replica by itself".into());
    }
    Ok(url)
}

/// Reads where a pooler listens.
///
/// # Errors
/// What was expected.
pub fn listen(text: &str) -> Result<Listen, String> {
    let Some(folder) = text.strip_prefix("unix:") else {
        let address =
            text.parse().map_err(|_| format!("expected {}", forms::expected(super::keys::Form::Listen)))?;
        return Ok(Listen::Tcp(address));
    };
    if folder.starts_with('@') {
        return Err("names in the abstract namespace have no permissions; use a folder".into());
    }
    let (folder, port) = match folder.rsplit_once(':') {
        Some((folder, digits)) => (folder, port(digits)?),
        None => (folder, POOLER_PORT),
    };
    if !folder.starts_with('/') || folder.contains('\0') {
        return Err("expected an absolute folder, such as \"unix:/run/tenfold\"".into());
    }
    Ok(Listen::Unix { folder: folder.into(), port })
}

/// What may also, or only, stand behind the question mark.
#[derive(Default)]
struct Query {
    user: String,
    dbname: String,
    sslmode: String,
    host: String,
    port: String,
}

impl Query {
    fn set(&mut self, name: &str, value: String) -> Result<(), String> {
        let place = match name {
            "user" => &mut self.user,
            "dbname" => &mut self.dbname,
            "host" | "hostaddr" => &mut self.host,
            "port" => &mut self.port,
            "sslmode" => {
                const MODES: [&str; 6] =
                    ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];
                if !MODES.contains(&value.as_str()) {
                    return Err(format!("expected sslmode to be one of {}", MODES.join(", ")));
                }
                &mut self.sslmode
            }
            "password" => {
                return Err("a password does not belong in the URL; use the key `password`".into());
            }
            "sslrootcert" | "sslcert" | "sslkey" => {
                return Err("certificates are not set in the URL; use the key `tls`".into());
            }
            _ => {
                return Err(
                    "expected only user, host, port, dbname and sslmode after the question mark".into()
                );
            }
        };
        *place = value;
        Ok(())
    }
}

fn hosts(places: &str, query: &Query) -> Result<Vec<Host>, String> {
    let mut hosts = Vec::new();
    if !query.host.is_empty() {
        let ports: Vec<_> = query.port.split(',').collect();
        for (index, name) in query.host.split(',').enumerate() {
            let digits = ports.get(index).or(ports.last()).copied().unwrap_or_default();
            hosts.push(host(name, Some(digits).filter(|digits| !digits.is_empty()))?);
        }
    } else {
        let given = Some(query.port.as_str()).filter(|port| !port.is_empty());
        for place in places.split(',') {
            let (name, digits) = split_port(place)?;
            hosts.push(host(&decoded(name)?, digits.or(given))?);
        }
    }
    if hosts.len() > HOSTS_MAX {
        return Err(format!("expected at most {HOSTS_MAX} hosts"));
    }
    Ok(hosts)
}

/// `host`, `host:port`, `[::1]:port`.
fn split_port(place: &str) -> Result<(&str, Option<&str>), String> {
    if let Some(rest) = place.strip_prefix('[') {
        let (address, after) = rest.split_once(']').ok_or("expected a ] behind the IPv6 address")?;
        return match after.strip_prefix(':') {
            Some(digits) => Ok((address, Some(digits))),
            None if after.is_empty() => Ok((address, None)),
            None => Err("expected a port behind the IPv6 address".into()),
        };
    }
    Ok(place.split_once(':').map_or((place, None), |(name, digits)| (name, Some(digits))))
}

fn host(name: &str, digits: Option<&str>) -> Result<Host, String> {
    let port = digits.map_or(Ok(PORT_DEFAULT), port)?;
    if name.starts_with('/') {
        return Ok(Host::Unix { folder: name.into(), port });
    }
    if name.is_empty() {
        return Err("expected a host: a name, an address, or a folder as ?host=/run/postgresql".into());
    }
    if name.parse::<IpAddr>().is_err() && !forms::is_host(name) {
        return Err("expected a host's name or address".into());
    }
    Ok(Host::Tcp { host: name.to_owned(), port })
}

fn port(digits: &str) -> Result<u16, String> {
    let number = digits.parse().ok().filter(|port| *port != 0 && !digits.starts_with('+'));
    number.ok_or_else(|| "expected a port from 1 to 65535".to_owned())
}

/// Undoes percent-encoding.
fn decoded(text: &str) -> Result<String, String> {
    const WRONG: &str = "expected two hexadecimal digits behind each %, and UTF-8";
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|b| char::from(b).to_digit(16)).ok_or(WRONG);
        let value = digit()? * 16 + digit()?;
        match u8::try_from(value) {
            Ok(0) | Err(_) => return Err(WRONG.into()),
            Ok(byte) => out.push(byte),
        }
    }
    String::from_utf8(out).map_err(|_| WRONG.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Host {
        Host::Tcp { host: host.into(), port }
    }

    fn unix(folder: &str, port: u16) -> Host {
        Host::Unix { folder: folder.into(), port }
    }

    #[track_caller]
    fn good(text: &str, hosts: &[Host], user: Option<&str>, dbname: Option<&str>) {
        let url = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(
            (&url.hosts[..], url.user.as_deref(), url.dbname.as_deref()),
            (hosts, user, dbname),
            "{text}"
        );
    }

    #[test]
    fn urls_are_read_as_libpq_reads_them() {
        good("postgres://app@127.0.0.1:5432/shop", &[tcp("127.0.0.1", 5432)], Some("app"), Some("shop"));
        good("postgresql://db.internal", &[tcp("db.internal", 5432)], None, None);
        good("postgres://a,b:5433/x", &[tcp("a", 5432), tcp("b", 5433)], None, Some("x"));
        good("postgres://[::1]:6000/x", &[tcp("::1", 6000)], None, Some("x"));
        good("postgres:///shop?host=/run/pg&port=5433", &[unix("/run/pg", 5433)], None, Some("shop"));
        good("postgres://%2Frun%2Fpg/shop", &[unix("/run/pg", 5432)], None, Some("shop"));
        good("postgres://h/?user=o%27neil&dbname=a%20b", &[tcp("h", 5432)], Some("o'neil"), Some("a b"));
        good("/run/postgresql", &[unix("/run/postgresql", 5432)], None, None);
        assert_eq!(
            parse("postgres://h/d?sslmode=verify-full").unwrap().sslmode.as_deref(),
            Some("verify-full")
        );
    }

    #[test]
    fn what_is_wrong_is_said_without_the_secret() {
        fn check(text: &str, expected: &str) {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected) && !error.contains("hunter2"), "{text}: {error}");
        }
        check("postgres://app:hunter2@h/d", "use the key `password`");
        check("postgres://app:hunter2@x@h/d", "use the key `password`");
        check("postgres://h/d?password=hunter2", "use the key `password`");
        check("postgres://h/d?sslrootcert=x", "use the key `tls`");
        check("postgres://h/d?connect_timeout=3", "expected only");
        check("postgres://h/d?sslmode=hunter2", "expected sslmode");
        check("postgres://h:0/d", "a port from");
        check("postgres://h:99999/d", "a port from");
        check("postgres:///d", "expected a host");
        check("postgres://h%00/d", "hexadecimal");
        check("postgres://h%f/d", "hexadecimal");
        check("postgres://a b/d", "a host's name");
        check("mysql://hunter2", "expected a URL");
        check("", "expected a URL");
        check(&format!("postgres://{}/d", vec!["h"; 17].join(",")), "at most 16");
    }

    #[test]
    fn listening_is_an_address_or_a_folder() {
        assert_eq!(listen("127.0.0.1:6432").unwrap().to_string(), "127.0.0.1:6432");
        assert_eq!(
            listen("unix:/run/tenfold"),
            Ok(Listen::Unix { folder: "/run/tenfold".into(), port: 6432 })
        );
        assert_eq!(listen("unix:/run/x:5432"), Ok(Listen::Unix { folder: "/run/x".into(), port: 5432 }));
        for bad in ["6432", "unix:", "unix:run", "unix:@x", "unix:/run:0", "localhost:6432", ""] {
            assert!(listen(bad).is_err(), "{bad}");
        }
    }
}
