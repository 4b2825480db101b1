//! What takes more than one setting of PgBouncer: where it listens, who may log in, TLS, its databases and users.

use std::path::Path;

use tenfold_pooler::tls::{self, TlsVersion};

use super::document::{Document, text};
use super::ini::pairs;
use super::pgbouncer::{Settings, Unit, carry};

/// PgBouncer's own, since 1.23.
const AUTH_QUERY: &str = "SELECT rolname, CASE WHEN rolvaliduntil < now() THEN NULL ELSE rolpassword END \
                          FROM pg_authid WHERE rolname=$1 AND rolcanlogin";
/// PgBouncer's own port, and PostgreSQL's.
const PORT: &str = "6432";
const SERVER_PORT: &str = "5432";

/// Where it listens.
pub(super) fn listen(settings: &Settings, document: &mut Document) {
    let port = settings.get("listen_port").unwrap_or(PORT);
    let mut places = Vec::new();
    let addresses = settings.get("listen_addr").unwrap_or_default().split(',').map(str::trim);
    for address in addresses.filter(|address| !address.is_empty()) {
        match address {
            "*" => places.push(format!("[::]:{port}")),
            "localhost" => places.push(format!("127.0.0.1:{port}")),
            address => match address.parse::<std::net::IpAddr>() {
                Ok(std::net::IpAddr::V4(ip)) => places.push(format!("{ip}:{port}")),
                Ok(std::net::IpAddr::V6(ip)) => places.push(format!("[{ip}]:{port}")),
                Err(_) => document.gap(
                    &format!("listen_addr = {address}"),
                    "names are not looked up for listening; write its address into pooler.listen",
                ),
            },
        }
    }
    match settings.is_set("unix_socket_dir") {
        Some("") => {}
        Some(folder) if folder.starts_with('@') => {
            document.gap(&format!("unix_socket_dir = {folder}"), "names in the abstract namespace have no permissions; use a folder");
        }
        Some(folder) => places.push(format!("unix:{folder}:{port}")),
        None => document.gap(
            "unix_socket_dir (not set)",
            "PgBouncer's built-in folder (/tmp, in Debian's package /var/run/postgresql) is not listened on; add \"unix:/tmp\" to pooler.listen if clients use it",
        ),
    }
    // Our `[::]` takes IPv4 too.
    if places.contains(&format!("[::]:{port}")) {
        places.retain(|place| *place != format!("0.0.0.0:{port}"));
    }
    if places.is_empty() {
        document.gap("listen_addr", "nothing is left to listen on, so it is 127.0.0.1");
        places.push(format!("127.0.0.1:{port}"));
    }
    let places: Vec<_> = places.iter().map(|place| text(place)).collect();
    document.set(&["pooler"], "listen", format!("[{}]", places.join(", ")));
}

/// How connections are watched over.
pub(super) fn keepalive(settings: &Settings, document: &mut Document) {
    let section = &["pooler", "tcp"];
    for (name, key, unit) in [
        ("tcp_keepalive", "keepalive", Unit::Flag),
        ("tcp_keepidle", "keepalive_idle", Unit::Seconds),
        ("tcp_keepintvl", "keepalive_interval", Unit::Seconds),
        ("tcp_keepcnt", "keepalive_count", Unit::Count),
        ("tcp_user_timeout", "user_timeout", Unit::Milliseconds),
    ] {
        if let Some(value) = settings.get(name) {
            carry(section, key, unit, name, value, document);
        }
    }
    let logs = ["log_connections", "log_disconnections"].map(|name| settings.get(name) != Some("0"));
    document.set(&["pooler"], "log_connections", logs.contains(&true).to_string());
    if logs[0] != logs[1] {
        document.gap(
            "log_connections, log_disconnections",
            "one key is for both; log_connections = true logs both",
        );
    }
    match settings.get("max_prepared_statements") {
        Some("0") => document.note(
            "max_prepared_statements = 0",
            "prepared statements work in every mode and cannot be switched off",
        ),
        Some(value) => {
            carry(&["pooler"], "statements_max", Unit::Count, "max_prepared_statements", value, document);
        }
        None => {}
    }
}

/// Who may log in, and how.
pub(super) struct Auth {
    user: Option<String>,
    query: Option<String>,
    database: Option<String>,
}

impl Auth {
    pub(super) fn of(settings: &Settings, document: &mut Document) -> Self {
        let kind = settings.get("auth_type").unwrap_or("md5");
        let pooler = &["pooler"];
        match kind {
            "md5" | "scram-sha-256" | "trust" | "cert" => document.set(pooler, "auth", text(kind)),
            "plain" => document.set(pooler, "auth", text("password")),
            "hba" => {}
            "any" => {
                document.gap("auth_type = any", "every user would be let in; list the users and use trust");
            }
            other => document.gap(
                &format!("auth_type = {other}"),
                "it is not in this release; use scram-sha-256 with a users file or auth_query",
            ),
        }
        match settings.get("auth_hba_file") {
            Some(file) if kind == "hba" => {
                relative("auth_hba_file", file, document);
                document.set(pooler, "hba", text(file));
                document.note(
                    "auth_hba_file",
                    "`tenfold check` reads the file and says which of its rules it does not know",
                );
            }
            None if kind == "hba" => document.gap("auth_type = hba", "there is no auth_hba_file"),
            Some(_) => {
                document.note("auth_hba_file", "auth_type is not hba, so PgBouncer did not read it either");
            }
            None => {}
        }
        let own = |name: &str| settings.get(name).map(str::to_owned);
        let auth = Self { user: own("auth_user"), query: own("auth_query"), database: own("auth_dbname") };
        let file = settings.get("auth_file");
        if let Some(file) = file {
            relative("auth_file", file, document);
        }
        let file = file.map(|file| ("file", file.to_owned()));
        let sources = file.into_iter().chain(auth.query_of(&[])).collect::<Vec<_>>();
        if !sources.is_empty() {
            document.set(pooler, "users", inline(&sources));
        }
        auth
    }

    /// The keys of `users` that ask: a database's own, and where it says nothing everyone's.
    fn query_of(&self, pairs: &[(String, String)]) -> Vec<(&'static str, String)> {
        let own =
            |name: &str, all: &Option<String>| value(pairs, name).map(str::to_owned).or_else(|| all.clone());
        let Some(user) = own("auth_user", &self.user) else { return Vec::new() };
        let query = own("auth_query", &self.query).unwrap_or_else(|| AUTH_QUERY.to_owned());
        let mut keys = vec![("query", query), ("user", user)];
        keys.extend(own("auth_dbname", &self.database).map(|database| ("database", database)));
        keys
    }
}

fn relative(name: &str, file: &str, document: &mut Document) {
    if Path::new(file).is_relative() {
        document.relative.push(format!("{name} = {file}"));
    }
}

fn inline(keys: &[(&'static str, String)]) -> String {
    let texts: Vec<_> = keys.iter().map(|(key, value)| (*key, text(value))).collect();
    inline_table(&texts)
}

/// A table of values that are TOML already.
fn inline_table(keys: &[(&'static str, String)]) -> String {
    let keys: Vec<_> = keys.iter().map(|(key, value)| format!("{key} = {value}")).collect();
    format!("{{ {} }}", keys.join(", "))
}

/// TLS towards servers, which is each database's own here.
pub(super) struct Tls {
    mode: Option<String>,
    /// The keys of `tls`, their values in TOML.
    keys: Vec<(&'static str, String)>,
}

impl Tls {
    pub(super) fn of(settings: &Settings, document: &mut Document) -> Self {
        let files = |names: [(&'static str, &str); 3], document: &mut Document| {
            let mut found = Vec::new();
            for (key, name) in names {
                let Some(file) = settings.get(name) else { continue };
                relative(name, file, document);
                found.push((key, text(file)));
            }
            found
        };
        let names = [
            ("certificate", "client_tls_cert_file"),
            ("key", "client_tls_key_file"),
            ("ca", "client_tls_ca_file"),
        ];
        let mode = settings.get("client_tls_sslmode").unwrap_or("disable");
        if mode != "disable" {
            let mut keys = files(names, document);
            keys.push(("mode", text(mode)));
            keys.extend(choice(CLIENT_CHOICE, settings, document));
            if keys.iter().filter(|(key, _)| matches!(*key, "certificate" | "key")).count() == 2 {
                document.set(&["pooler"], "tls", inline_table(&keys));
            } else {
                document.gap(
                    &format!("client_tls_sslmode = {mode}"),
                    "there is no certificate with its key, without which TLS cannot be offered",
                );
            }
        }
        let mode = settings.get("server_tls_sslmode").map(str::to_owned);
        let names = [
            ("ca", "server_tls_ca_file"),
            ("certificate", "server_tls_cert_file"),
            ("key", "server_tls_key_file"),
        ];
        let mut keys = Vec::new();
        if mode.as_deref() != Some("disable") {
            keys = files(names, document);
            let verifies = mode.as_ref().is_some_and(|mode| mode.starts_with("verify"));
            if verifies && !keys.iter().any(|(key, _)| *key == "ca") {
                keys.push(("ca", text(crate::tls::SYSTEM)));
            }
            keys.extend(choice(SERVER_CHOICE, settings, document));
        }
        Self { mode, keys }
    }
}

/// How PgBouncer names the suites of TLS 1.2, those of 1.3, and the versions.
const CLIENT_CHOICE: [&str; 3] = ["client_tls_ciphers", "client_tls13_ciphers", "client_tls_protocols"];
const SERVER_CHOICE: [&str; 3] = ["server_tls_ciphers", "server_tls13_ciphers", "server_tls_protocols"];

/// Suites and versions. Of a list, what names suites is carried, and each of the rest is told.
fn choice(
    [tls12, tls13, versions]: [&str; 3],
    settings: &Settings,
    document: &mut Document,
) -> Vec<(&'static str, String)> {
    type Suite = fn(&str) -> Option<rustls::CipherSuite>;
    let mut keys = Vec::new();
    let kinds = [("ciphers", tls12, tls::tls12_suite as Suite), ("tls13_ciphers", tls13, tls::tls13_suite)];
    for (key, name, suite) in kinds {
        let Some(list) = settings.get(name) else { continue };
        if let Err(unknown) = tls::suites(list, suite) {
            let why = format!(
                "no suite here is called {}; `tenfold config explain pooler.tls.{key}` names those there are",
                unknown.join(", ")
            );
            document.gap(&format!("{name} = {list}"), &why);
        }
        let known: Vec<_> =
            list.split([':', ',', ' ']).filter(|name| suite(name).is_some()).map(text).collect();
        if !known.is_empty() {
            keys.push((key, format!("[{}]", known.join(", "))));
        }
    }
    let Some(list) = settings.get(versions) else { return keys };
    match tls::version_min(list) {
        Some(TlsVersion::Tls12) => {}
        Some(TlsVersion::Tls13) => keys.push(("version_min", text("1.3"))),
        None => document.gap(&format!("{versions} = {list}"), "TLS 1.2 and 1.3 are spoken, or 1.3 alone"),
    }
    keys
}

/// A user of `[users]`.
pub(super) fn user(name: &str, line: &str, document: &mut Document) {
    let what = format!("user {name}");
    let section = &["pooler", "user", name];
    let pairs = match pairs(line) {
        Ok(pairs) => pairs,
        Err(why) => return document.gap(&what, &format!("its line is not understood: {why}")),
    };
    for (setting, value) in &pairs {
        let (key, unit) = match setting.as_str() {
            "pool_mode" => ("mode", Unit::Word),
            "pool_size" => ("size", Unit::Count),
            "reserve_pool_size" => ("reserve", Unit::Count),
            // Zero is no limit, which is what leaving it out means.
            "max_user_connections" | "max_user_client_connections" if value == "0" => continue,
            "max_user_connections" => ("servers_max", Unit::Count),
            "max_user_client_connections" => ("clients_max", Unit::Count),
            "query_timeout" => ("query_timeout", Unit::Seconds),
            "idle_transaction_timeout" => ("idle_in_transaction", Unit::Seconds),
            "transaction_timeout" => ("transaction_timeout", Unit::Seconds),
            "client_idle_timeout" => ("client_idle", Unit::Seconds),
            other => {
                document.gap(
                    &format!("{what}: {other} = {value}"),
                    "PgBouncer has no such setting for a user; see whether it is misspelt",
                );
                continue;
            }
        };
        carry(section, key, unit, &format!("{what}: {setting}"), value, document);
    }
}

/// A database of `[databases]`.
pub(super) fn database(
    name: &str,
    pairs: &[(String, String)],
    auth: &Auth,
    tls: &Tls,
    settings: &Settings,
    document: &mut Document,
) {
    let section: &[&str] = &["database", name];
    let what = format!("database {name}");
    if tenfold_pooler::config::CONSOLE_DATABASES.contains(&name) {
        return document.gap(&what, "it is the name of the console; give the database another");
    }
    let host = value(pairs, "host").filter(|host| !host.is_empty());
    if host.is_none() && settings.get("unix_socket_dir").is_none() {
        let why =
            "taken to be PgBouncer's built-in folder /tmp; in Debian's package it is /var/run/postgresql";
        document.gap(&format!("{what}: host (not set)"), why);
    }
    document.set(section, "primary", text(&url(name, host, pairs, settings)));
    if let Some(password) = value(pairs, "password").filter(|password| !password.is_empty()) {
        document.set(section, "password", text(password));
    }
    let is_tcp = host.is_some_and(|host| !host.starts_with('/'));
    if let (true, Some(mode)) = (is_tcp, &tls.mode) {
        document.set(section, "sslmode", text(mode));
    }
    if is_tcp && !tls.keys.is_empty() {
        document.set(section, "tls", inline_table(&tls.keys));
    }
    let own_auth = ["auth_user", "auth_query", "auth_dbname"].iter().any(|key| value(pairs, key).is_some());
    let query = auth.query_of(pairs);
    if own_auth && !query.is_empty() {
        document.set(section, "users", inline(&query));
    }
    for (key, value) in pairs {
        database_key(name, section, key, value, document);
    }
    clamp_minimum(name, section, document);
}

fn database_key(name: &str, section: &[&str], key: &str, value: &str, document: &mut Document) {
    const SESSION: &str = "write it into the server: ALTER DATABASE … SET, or ALTER ROLE … SET";
    let (ours, unit) = match key {
        "host" | "port" | "dbname" | "user" | "password" | "auth_user" | "auth_query" | "auth_dbname" => {
            return;
        }
        "pool_size" => ("size", Unit::Count),
        "min_pool_size" => ("min", Unit::Count),
        "reserve_pool" | "reserve_pool_size" => ("reserve", Unit::Count),
        "max_db_connections" => ("database_max", Unit::Count),
        "max_db_client_connections" => ("clients_max", Unit::Count),
        "server_lifetime" => ("lifetime", Unit::Seconds),
        "pool_mode" => ("mode", Unit::Word),
        "connect_query" => return document.set(section, "connect_query", text(value)),
        other => {
            let why = match other {
                "client_encoding" | "datestyle" | "timezone" | "application_name" => SESSION,
                "load_balance_hosts" => {
                    "each host is asked whether it is the primary, and the primary is used"
                }
                "sslmode" => "PgBouncer does not read it there; write sslmode into this section",
                _ => "PgBouncer has no such setting for a database; see whether it is misspelt",
            };
            return document.gap(&format!("database {name}: {other} = {value}"), why);
        }
    };
    let pool: Vec<_> = section.iter().copied().chain(["pool"]).collect();
    carry(&pool, ours, unit, &format!("database {name}: {key}"), value, document);
}

/// PgBouncer opens no more than the pool's size whatever the minimum says.
fn clamp_minimum(name: &str, section: &[&str], document: &mut Document) {
    let pool: Vec<_> = section.iter().copied().chain(["pool"]).collect();
    let number = |key: &str| {
        let all = document.get(&["pooler", "pool"], key);
        document.get(&pool, key).or(all).and_then(|text| text.parse::<u32>().ok())
    };
    let (min, size) = (number("min").unwrap_or(0), number("size").unwrap_or(20));
    if min > size {
        document.gap(
            &format!("database {name}: min_pool_size = {min}"),
            "it is above the pool's size, which is as many as there are",
        );
        document.set(&pool, "min", size.to_string());
    }
}

fn value<'p>(pairs: &'p [(String, String)], name: &str) -> Option<&'p str> {
    pairs.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// `postgres://user@host:port/dbname`, or with a socket's folder behind the question mark.
fn url(name: &str, host: Option<&str>, pairs: &[(String, String)], settings: &Settings) -> String {
    let user = value(pairs, "user").filter(|user| !user.is_empty());
    let user = user.map(|user| format!("{}@", encoded(user))).unwrap_or_default();
    let dbname = value(pairs, "dbname").filter(|dbname| !dbname.is_empty() && *dbname != name);
    let dbname = dbname.map(|dbname| format!("/{}", encoded(dbname))).unwrap_or_default();
    let ports: Vec<_> = value(pairs, "port").unwrap_or(SERVER_PORT).split(',').map(str::trim).collect();
    let folder = settings.get("unix_socket_dir").filter(|folder| !folder.starts_with('@')).unwrap_or("/tmp");
    let host = host.unwrap_or(folder);
    if host.starts_with('/') {
        let slash = if dbname.is_empty() { "/" } else { "" };
        return format!("postgres://{user}{slash}{dbname}?host={}&port={}", encoded_path(host), ports[0]);
    }
    let port_of = |index: usize| ports.get(index).or(ports.last()).copied().unwrap_or(SERVER_PORT);
    let place = |(index, host): (usize, &str)| match host.trim() {
        host if host.contains(':') => format!("[{host}]:{}", port_of(index)),
        host => format!("{host}:{}", port_of(index)),
    };
    let places: Vec<_> = host.split(',').enumerate().map(place).collect();
    format!("postgres://{user}{}{dbname}", places.join(","))
}

fn encoded(text: &str) -> String {
    percent(text, "")
}

fn encoded_path(text: &str) -> String {
    percent(text, "/")
}

/// Percent-encodes all but letters, digits, a few marks and those in `also`.
fn percent(text: &str, also: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) || also.as_bytes().contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}
