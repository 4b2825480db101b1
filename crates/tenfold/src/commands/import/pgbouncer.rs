//! What each setting of PgBouncer becomes.
//!
//! **Mechanism.** One table names every setting of PgBouncer 1.18 to 1.25 with its fate: a key of ours, nothing because
//! none is needed, or a gap with the reason and what to do. Settings that PgBouncer has by default and we have not are
//! written out, so that the printed file means what the old one meant.
//!
//! **Failure.** A setting that the table does not know is a gap by name; a value that cannot be read is one, too.

use super::document::{Document, text};
use super::ini::{Entry, pairs};
use super::targets::{self, Auth, Tls};

/// What becomes of a setting.
#[derive(Clone, Copy)]
enum Fate {
    /// A key of `[pooler]`.
    Pooler(&'static str, Unit),
    /// A key of `[pooler.pool]`.
    Pool(&'static str, Unit),
    /// Looked at together with others.
    Together,
    /// Nothing is needed in its place.
    Needless(&'static str),
    /// Not carried, unless it has this value.
    Gap { harmless: &'static [&'static str], why: &'static str },
}

/// How a value is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// A whole number.
    Count,
    /// Seconds, with decimals.
    Seconds,
    /// Milliseconds.
    Milliseconds,
    /// 0 or 1.
    Flag,
    /// Words between commas.
    Words,
    /// One of our words.
    Word,
}

use Fate::{Gap, Needless, Pool, Pooler, Together};
use Unit::{Count, Flag, Milliseconds, Seconds, Word, Words};

const fn gap(why: &'static str) -> Fate {
    Gap { harmless: &[], why }
}

const LOGS: &str = "the log goes to stderr; let systemd or the container's runtime keep it";
const ONE_PROCESS: &str = "one process uses all cores, so there are no peers on one port to tell of";
const KEY_EXCHANGE: &str = "keys are exchanged over today's curves, the post-quantum one first; remove it";

const SETTINGS: &[(&str, Fate)] = &[
    ("admin_users", Pooler("admin_users", Words)),
    ("application_name_add_host", Pooler("application_name_add_host", Flag)),
    ("auth_dbname", Together),
    ("auth_file", Together),
    ("auth_hba_file", Together),
    (
        "auth_ident_file",
        gap("ident maps are not in this release; let system and database users have the same name"),
    ),
    ("auth_ldap_options", gap("LDAP is not in this release; use auth_query or a users file")),
    ("auth_query", Together),
    ("auth_type", Together),
    ("auth_user", Together),
    ("autodb_idle_timeout", Needless("databases made by * hold nothing once their connections are closed")),
    ("cancel_wait_timeout", Pooler("cancel_wait", Seconds)),
    ("client_idle_timeout", Pool("client_idle", Seconds)),
    ("client_login_timeout", Pooler("login_timeout", Seconds)),
    ("client_tls13_ciphers", Together),
    ("client_tls_ca_file", Together),
    ("client_tls_cert_file", Together),
    ("client_tls_ciphers", Together),
    ("client_tls_dheparams", Gap { harmless: &["auto", "none", "legacy"], why: KEY_EXCHANGE }),
    ("client_tls_ecdhcurve", Gap { harmless: &["auto", "none"], why: KEY_EXCHANGE }),
    ("client_tls_key_file", Together),
    ("client_tls_protocols", Together),
    ("client_tls_sslmode", Together),
    ("conffile", Needless("the file is named on the command line")),
    ("default_pool_size", Pool("size", Count)),
    ("disable_pqexec", Gap { harmless: &["0"], why: "the simple query protocol cannot be switched off" }),
    ("dns_max_ttl", Pooler("dns_refresh", Seconds)),
    ("dns_nxdomain_ttl", Needless("names that do not resolve are tried again at dns_refresh")),
    ("dns_zone_check_period", Needless("names are looked up again at dns_refresh")),
    ("idle_transaction_timeout", Pool("idle_in_transaction", Seconds)),
    ("ignore_startup_parameters", Pooler("ignore_startup_parameters", Words)),
    ("job_name", Needless("the log's lines carry the process's own name")),
    ("listen_addr", Together),
    ("listen_backlog", Needless("the backlog is 4096, or net.core.somaxconn")),
    ("listen_port", Together),
    ("log_connections", Together),
    ("log_disconnections", Together),
    ("log_pooler_errors", Gap { harmless: &["1"], why: "errors sent to clients are always logged" }),
    ("log_stats", Needless("/metrics on the admin listener has them at any time")),
    ("logfile", Needless(LOGS)),
    ("max_client_conn", Pooler("clients_max", Count)),
    ("max_db_client_connections", Pool("clients_max", Count)),
    ("max_db_connections", Pool("database_max", Count)),
    ("max_packet_size", Gap { harmless: &["2147483647"], why: "messages are streamed, whatever their size" }),
    ("max_prepared_statements", Together),
    (
        "max_user_client_connections",
        Gap {
            harmless: &["0"],
            why: "there is no limit for every user; write clients_max into [pooler.user.NAME] of those it concerns",
        },
    ),
    (
        "max_user_connections",
        Gap {
            harmless: &["0"],
            why: "there is no limit for every user; write servers_max into [pooler.user.NAME] of those it concerns",
        },
    ),
    ("min_pool_size", Pool("min", Count)),
    ("peer_id", Gap { harmless: &["0"], why: ONE_PROCESS }),
    (
        "pidfile",
        Needless(
            "it stays in the foreground; `tenfold reload` and `tenfold status` find it by its admin listener",
        ),
    ),
    ("pkt_buf", Needless("buffers fit themselves to the traffic")),
    ("pool_mode", Pool("mode", Word)),
    ("query_timeout", Pool("query_timeout", Seconds)),
    ("query_wait_notify", Pooler("query_wait_notify", Seconds)),
    ("query_wait_timeout", Pool("query_wait", Seconds)),
    ("reserve_pool_size", Pool("reserve", Count)),
    ("reserve_pool_timeout", Pool("reserve_wait", Seconds)),
    ("resolv_conf", Gap { harmless: &[""], why: "names are resolved as the operating system does" }),
    ("sbuf_loopcnt", Needless("clients take turns by themselves")),
    (
        "scram_iterations",
        Gap {
            harmless: &["4096"],
            why: "plain passwords are proved with 4096 iterations; store SCRAM verifiers for more",
        },
    ),
    ("server_check_delay", Pool("check_after", Seconds)),
    (
        "server_check_query",
        Gap {
            harmless: &["", "<empty>", ";", "select 1", "select 1;"],
            why: "an idle connection is only asked whether it lives; no statement of one's own is run",
        },
    ),
    ("server_connect_timeout", Pool("connect_timeout", Seconds)),
    ("server_fast_close", Pool("fast_close", Flag)),
    ("server_idle_timeout", Pool("idle", Seconds)),
    ("server_lifetime", Pool("lifetime", Seconds)),
    ("server_login_retry", Pool("connect_retry", Seconds)),
    (
        "server_reset_query",
        Gap {
            harmless: &["discard all", "discard all;", ""],
            why: "what a session leaves behind is found out and taken back, by DISCARD ALL at most; no statement of one's own is run",
        },
    ),
    (
        "server_reset_query_always",
        Needless("settings follow their client in every mode, and never reach the next one"),
    ),
    (
        "server_round_robin",
        Gap {
            harmless: &["0"],
            why: "the connection used last is used first, so that spare ones can be closed",
        },
    ),
    ("server_tls13_ciphers", Together),
    ("server_tls_ca_file", Together),
    ("server_tls_cert_file", Together),
    ("server_tls_ciphers", Together),
    ("server_tls_key_file", Together),
    ("server_tls_protocols", Together),
    ("server_tls_sslmode", Together),
    ("service_name", Needless("the log's lines carry the process's own name")),
    ("so_reuseport", Gap { harmless: &["0"], why: ONE_PROCESS }),
    ("stats_period", Gap { harmless: &["60"], why: "averages at the console are those of a minute" }),
    ("stats_users", Pooler("stats_users", Words)),
    (
        "suspend_timeout",
        Gap {
            harmless: &["10"],
            why: "`tenfold run --take-over` hands over each client when it comes to rest",
        },
    ),
    ("syslog", Gap { harmless: &["0"], why: LOGS }),
    ("syslog_facility", Needless(LOGS)),
    ("syslog_ident", Needless(LOGS)),
    ("tcp_defer_accept", Needless("clients that connect and say nothing end at login_timeout")),
    ("tcp_keepalive", Together),
    ("tcp_keepcnt", Together),
    ("tcp_keepidle", Together),
    ("tcp_keepintvl", Together),
    ("tcp_socket_buffer", Gap { harmless: &["0"], why: "socket buffers are the kernel's to size" }),
    ("tcp_user_timeout", Together),
    ("track_extra_parameters", Needless("every setting follows its client")),
    ("transaction_timeout", Pool("transaction_timeout", Seconds)),
    ("unix_socket_dir", Together),
    (
        "unix_socket_group",
        Gap { harmless: &[""], why: "give the socket's folder a group and a mode instead" },
    ),
    (
        "unix_socket_mode",
        Gap { harmless: &["0777", "777"], why: "sockets have mode 0777; give their folder a mode instead" },
    ),
    ("user", Needless("let systemd or the container start it as that user")),
    ("verbose", Needless("there is one level of logging")),
];

/// What PgBouncer does by default and we do not.
const DEFAULTS: &[(&str, &str)] = &[
    ("max_client_conn", "100"),
    ("pool_mode", "session"),
    ("reserve_pool_size", "0"),
    ("reserve_pool_timeout", "5"),
    ("query_wait_timeout", "120"),
    ("server_connect_timeout", "15"),
];

/// The file that means what these entries meant.
#[must_use]
pub fn translate(entries: &[Entry]) -> Document {
    let mut document = Document::default();
    let in_section = |section: &'static str| entries.iter().filter(move |entry| entry.section == section);
    let settings = Settings::of(in_section("pgbouncer"));
    targets::listen(&settings, &mut document);
    for (name, value) in &settings.all {
        setting(name, value, &mut document);
    }
    targets::keepalive(&settings, &mut document);
    let auth = Auth::of(&settings, &mut document);
    let tls = Tls::of(&settings, &mut document);
    for entry in in_section("users") {
        targets::user(&entry.name, &entry.value, &mut document);
    }
    for entry in in_section("databases") {
        match pairs(&entry.value) {
            Ok(pairs) => targets::database(&entry.name, &pairs, &auth, &tls, &settings, &mut document),
            Err(why) => document
                .gap(&format!("database {}", entry.name), &format!("its line is not understood: {why}")),
        }
    }
    for entry in in_section("peers") {
        document.gap(&format!("peer {}", entry.name), ONE_PROCESS);
    }
    let known = ["pgbouncer", "databases", "users", "peers"];
    for entry in entries.iter().filter(|entry| !known.contains(&entry.section.as_str())) {
        document.gap(
            &format!("[{}] {}", entry.section, entry.name),
            "PgBouncer knows no such section; see whether it is misspelt",
        );
    }
    if !document.relative.is_empty() {
        let files = document.relative.join(", ");
        let why = "relative to where PgBouncer was started, and now to the configuration's folder; see that each is found";
        document.gap(&files, why);
    }
    document
}

/// The settings of `[pgbouncer]`: of two, the last.
#[derive(Debug, Default)]
pub(super) struct Settings {
    all: Vec<(String, String)>,
}

impl Settings {
    fn of<'e>(entries: impl Iterator<Item = &'e Entry>) -> Self {
        let default = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
        let mut all: Vec<_> = DEFAULTS.iter().map(default).collect();
        for entry in entries {
            let name = entry.name.to_ascii_lowercase();
            match all.iter_mut().find(|(known, _)| *known == name) {
                Some((_, value)) => value.clone_from(&entry.value),
                None => all.push((name, entry.value.clone())),
            }
        }
        Self { all }
    }

    /// A setting, if it is there and not empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.is_set(name).filter(|value| !value.is_empty())
    }

    /// A setting, if it is there.
    pub(super) fn is_set(&self, name: &str) -> Option<&str> {
        self.all.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

fn setting(name: &str, value: &str, document: &mut Document) {
    let what = format!("{name} = {value}");
    let Some((_, fate)) = SETTINGS.iter().find(|(known, _)| *known == name) else {
        return document
            .gap(&what, "PgBouncer 1.18 to 1.25 have no such setting; see whether it is misspelt");
    };
    match *fate {
        Pooler(key, unit) => carry(&["pooler"], key, unit, name, value, document),
        Pool(key, unit) => carry(&["pooler", "pool"], key, unit, name, value, document),
        Together => {}
        Needless(why) => document.note(name, why),
        Gap { harmless, .. } if harmless.contains(&value.to_ascii_lowercase().as_str()) => {}
        Gap { why, .. } => document.gap(&what, why),
    }
}

/// Sets a key, or says why it cannot be.
pub(super) fn carry(
    section: &[&str],
    key: &str,
    unit: Unit,
    name: &str,
    value: &str,
    document: &mut Document,
) {
    let what = format!("{name} = {value}");
    let Some(toml) = written(unit, value) else {
        return document.gap(&what, "the value is not understood");
    };
    // Where zero means "no limit" to PgBouncer and something else, or nothing, to us.
    let least = match key {
        "login_timeout" | "connect_timeout" if toml == "\"0s\"" => {
            Some(("\"1h\"", "zero is no limit; an hour is the longest"))
        }
        "dns_refresh" if toml == "\"0s\"" => Some(("\"1s\"", "a second is the least")),
        "connect_retry" if toml == "\"0s\"" => Some(("\"1ms\"", "a millisecond is the least")),
        "size" if toml == "0" => Some(("1", "a pool has at least one connection")),
        _ => None,
    };
    match least {
        Some((instead, why)) => {
            document.gap(&what, why);
            document.set(section, key, instead.to_owned());
        }
        None => document.set(section, key, toml),
    }
}

fn written(unit: Unit, value: &str) -> Option<String> {
    match unit {
        Count => value.parse::<u32>().ok().map(|count| count.to_string()),
        Seconds => duration(value),
        Milliseconds => value.parse::<u32>().ok().map(|ms| text(&format!("{ms}ms"))),
        Flag => match value.to_ascii_lowercase().as_str() {
            "1" | "on" | "true" | "yes" => Some("true".into()),
            "0" | "off" | "false" | "no" => Some("false".into()),
            _ => None,
        },
        Words => {
            let words = value.split(',').map(str::trim).filter(|word| !word.is_empty());
            Some(format!("[{}]", words.map(text).collect::<Vec<_>>().join(", ")))
        }
        Word => {
            let word = value.to_ascii_lowercase();
            ["session", "transaction", "statement"].contains(&word.as_str()).then(|| text(&word))
        }
    }
}

/// Seconds with decimals, exact to the millisecond, in the shortest unit that fits.
fn duration(value: &str) -> Option<String> {
    let (whole, decimals) = value.split_once('.').unwrap_or((value, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(decimals) {
        return None;
    }
    let thousandths: String = decimals.chars().chain("000".chars()).take(3).collect();
    let ms = whole.parse::<u64>().ok()?.checked_mul(1_000)?.checked_add(thousandths.parse().ok()?)?;
    let longest_ms = 365 * 86_400_000;
    let shown = crate::config::values::duration_text(std::time::Duration::from_millis(ms.min(longest_ms)));
    Some(text(&shown))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_named_once_in_order() {
        assert!(SETTINGS.is_sorted_by(|(one, _), (two, _)| one < two));
        assert!(DEFAULTS.iter().all(|(name, _)| SETTINGS.iter().any(|(known, _)| known == name)));
    }

    #[test]
    fn seconds_become_durations() {
        let check = |value: &str, expected: Option<&str>| {
            assert_eq!(duration(value), expected.map(text), "{value}");
        };
        check("120", Some("2m"));
        check("0.25", Some("250ms"));
        check("1.5", Some("1s500ms"));
        check("0", Some("0s"));
        check("99999999999", Some("365d"));
        check("-1", None);
        check("5s", None);
        check("", None);
    }
}
