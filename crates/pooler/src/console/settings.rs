//! The settings by PgBouncer's names: SHOW CONFIG and SET.
//!
//! **Intuition.** Scripts and exporters know `max_client_conn` and `default_pool_size`; our configuration says the same
//! in words of its own.
//!
//! **Mechanism.** One table of names, each with how it is read from and written into a [`Config`]. What belongs to each
//! database here and to all of them there (pool sizes, timeouts) is shown of the database `*`, or of the first; SET
//! changes it in every database where it had that value, and so leaves alone those that were given their own.
//!
//! **Failure.** An unknown name, or a value that cannot be, changes nothing. What SET changed lasts until RELOAD.
//!
//! Source: PgBouncer's manual, `pgbouncer.ini`.

use std::time::Duration;

use super::{
    api::Refused,
    show,
    table::{Table, Type, text},
    tls_settings::{self, Side, TlsKey},
};
use crate::config::{AuthMethod, Config, Mode, PoolSettings};

/// A setting by PgBouncer's name.
struct Setting {
    key: &'static str,
    read: Read,
}

/// Where a setting stands, and what kind of value it is.
enum Read {
    /// Told only.
    Fixed(fn(&Config) -> String),
    /// A count of the whole tier.
    Count(fn(&mut Config) -> &mut usize),
    /// A time of the whole tier, in seconds.
    Time(fn(&mut Config) -> &mut Duration),
    /// 1 or 0, of the whole tier.
    Flag(fn(&mut Config) -> &mut bool),
    /// A count of each pool.
    PoolCount(fn(&mut PoolSettings) -> &mut usize),
    /// 1 or 0, of each pool.
    PoolFlag(fn(&mut PoolSettings) -> &mut bool),
    /// A time of each pool, in seconds.
    PoolTime(fn(&mut PoolSettings) -> &mut Duration),
    /// `pool_mode`.
    PoolMode,
    /// Names, separated by commas.
    Names(fn(&mut Config) -> &mut Vec<String>),
    /// Of TLS.
    Tls(Side, TlsKey),
}

const fn setting(key: &'static str, read: Read) -> Setting {
    Setting { key, read }
}

/// By name.
const SETTINGS: &[Setting] = &[
    setting("admin_users", Read::Names(|config| &mut config.admin_users)),
    setting("application_name_add_host", Read::Flag(|config| &mut config.application_name_add_host)),
    setting("auth_type", Read::Fixed(|config| auth_type(config.auth).to_owned())),
    setting("cancel_wait_timeout", Read::Time(|config| &mut config.cancel_wait)),
    setting("client_idle_timeout", Read::PoolTime(|pool| &mut pool.client_idle)),
    setting("client_login_timeout", Read::Time(|config| &mut config.login_timeout)),
    setting("client_tls13_ciphers", Read::Tls(Side::Clients, TlsKey::Ciphers13)),
    setting("client_tls_ca_file", Read::Tls(Side::Clients, TlsKey::Ca)),
    setting("client_tls_cert_file", Read::Tls(Side::Clients, TlsKey::Certificate)),
    setting("client_tls_ciphers", Read::Tls(Side::Clients, TlsKey::Ciphers)),
    setting("client_tls_key_file", Read::Tls(Side::Clients, TlsKey::Key)),
    setting("client_tls_protocols", Read::Tls(Side::Clients, TlsKey::Protocols)),
    setting("client_tls_sslmode", Read::Tls(Side::Clients, TlsKey::Mode)),
    setting("default_pool_size", Read::PoolCount(|pool| &mut pool.size)),
    setting("dns_max_ttl", Read::Time(|config| &mut config.dns_refresh)),
    setting("idle_transaction_timeout", Read::PoolTime(|pool| &mut pool.idle_in_transaction)),
    setting("ignore_startup_parameters", Read::Names(|config| &mut config.ignore_startup_parameters)),
    setting("log_connections", Read::Flag(|config| &mut config.log_connections)),
    setting("max_client_conn", Read::Count(|config| &mut config.clients_max)),
    setting("max_db_client_connections", Read::PoolCount(|pool| &mut pool.clients_max)),
    setting("max_db_connections", Read::PoolCount(|pool| &mut pool.database_max)),
    setting("max_prepared_statements", Read::Count(|config| &mut config.statements_max)),
    setting("max_user_client_connections", Read::Fixed(|_| "0".to_owned())),
    setting("max_user_connections", Read::Fixed(|_| "0".to_owned())),
    setting("min_pool_size", Read::PoolCount(|pool| &mut pool.min)),
    setting("pool_mode", Read::PoolMode),
    setting("query_timeout", Read::PoolTime(|pool| &mut pool.query_timeout)),
    setting("query_wait_notify", Read::Time(|config| &mut config.query_wait_notify)),
    setting("query_wait_timeout", Read::PoolTime(|pool| &mut pool.query_wait)),
    setting("reserve_pool_size", Read::PoolCount(|pool| &mut pool.reserve)),
    setting("reserve_pool_timeout", Read::PoolTime(|pool| &mut pool.reserve_wait)),
    setting("server_check_delay", Read::PoolTime(|pool| &mut pool.check_after)),
    setting("server_connect_timeout", Read::PoolTime(|pool| &mut pool.connect_timeout)),
    setting("server_fast_close", Read::PoolFlag(|pool| &mut pool.fast_close)),
    setting("server_idle_timeout", Read::PoolTime(|pool| &mut pool.idle)),
    setting("server_lifetime", Read::PoolTime(|pool| &mut pool.lifetime)),
    setting("server_login_retry", Read::PoolTime(|pool| &mut pool.connect_retry)),
    setting("server_tls13_ciphers", Read::Tls(Side::Servers, TlsKey::Ciphers13)),
    setting("server_tls_ca_file", Read::Tls(Side::Servers, TlsKey::Ca)),
    setting("server_tls_cert_file", Read::Tls(Side::Servers, TlsKey::Certificate)),
    setting("server_tls_ciphers", Read::Tls(Side::Servers, TlsKey::Ciphers)),
    setting("server_tls_key_file", Read::Tls(Side::Servers, TlsKey::Key)),
    setting("server_tls_protocols", Read::Tls(Side::Servers, TlsKey::Protocols)),
    setting("server_tls_sslmode", Read::Tls(Side::Servers, TlsKey::Mode)),
    setting("stats_period", Read::Fixed(|_| crate::report::STATS_PERIOD.as_secs().to_string())),
    setting("stats_users", Read::Names(|config| &mut config.stats_users)),
    setting("tcp_keepalive", Read::Flag(|config| &mut config.tcp.keepalive)),
    setting("tcp_keepidle", Read::Time(|config| &mut config.tcp.keepalive_idle)),
    setting("tcp_keepintvl", Read::Time(|config| &mut config.tcp.keepalive_interval)),
    setting("transaction_timeout", Read::PoolTime(|pool| &mut pool.transaction_timeout)),
];

/// What SHOW CONFIG shows.
#[must_use]
pub fn table(config: &Config) -> Table {
    let mut table = Table::new(&[
        ("key", Type::Text),
        ("value", Type::Text),
        ("default", Type::Text),
        ("changeable", Type::Text),
    ]);
    let mut config = config.clone();
    let mut default = Config::default();
    for setting in SETTINGS {
        let changeable = if matches!(setting.read, Read::Fixed(_)) { "no" } else { "yes" };
        let (value, default) = (setting.value(&mut config), setting.value(&mut default));
        table.push(vec![text(setting.key), text(value), text(default), text(changeable)]);
    }
    table
}

/// The configuration with one setting changed.
///
/// # Errors
/// [`Refused::Value`]: no such setting, one that is not changed while running, or no value for it.
pub fn set(config: &Config, key: &str, value: &str) -> Result<Config, Refused> {
    let unknown = || Refused::Value(format!("unknown parameter: {key}"));
    let setting = SETTINGS.iter().find(|setting| setting.key == key).ok_or_else(unknown)?;
    let mut changed = config.clone();
    if let Read::Tls(side, key_of_tls) = setting.read {
        let wrong = |why| Refused::Value(format!("invalid value \"{value}\" for parameter {key}: {why}"));
        tls_settings::change(&mut changed, side, key_of_tls, value.trim()).map_err(wrong)?;
        return Ok(changed);
    }
    let done = setting.change(&mut changed, value.trim());
    let fixed = matches!(setting.read, Read::Fixed(_));
    let why = || match fixed {
        true => Refused::Value(format!("parameter {key} cannot be changed online")),
        false => Refused::Value(format!("invalid value \"{value}\" for parameter {key}")),
    };
    done.ok_or_else(why)?;
    Ok(changed)
}

impl Setting {
    /// As text. The configuration is the reader's own copy and stays as it was.
    fn value(&self, config: &mut Config) -> String {
        let mut pool = shown_pool(config);
        match self.read {
            Read::Fixed(read) => read(config),
            Read::Count(at) => at(config).to_string(),
            Read::Time(at) => seconds(*at(config)),
            Read::Flag(at) => u8::from(*at(config)).to_string(),
            Read::PoolCount(at) => at(&mut pool).to_string(),
            Read::PoolFlag(at) => u8::from(*at(&mut pool)).to_string(),
            Read::PoolTime(at) => seconds(*at(&mut pool)),
            Read::PoolMode => show::mode(pool.mode).to_owned(),
            Read::Names(at) => at(config).join(", "),
            Read::Tls(side, key) => tls_settings::read(config, side, key),
        }
    }

    /// `None`: the value cannot be.
    fn change(&self, config: &mut Config, value: &str) -> Option<()> {
        match self.read {
            Read::Fixed(_) | Read::Tls(..) => return None,
            Read::Count(at) => *at(config) = value.parse().ok()?,
            Read::Time(at) => *at(config) = parse_seconds(value)?,
            Read::Flag(at) => *at(config) = parse_flag(value)?,
            Read::PoolCount(at) => change_pools(config, at, &value.parse().ok()?),
            Read::PoolFlag(at) => change_pools(config, at, &parse_flag(value)?),
            Read::PoolTime(at) => change_pools(config, at, &parse_seconds(value)?),
            Read::PoolMode => change_pools(config, |pool| &mut pool.mode, &parse_mode(value)?),
            Read::Names(at) => *at(config) = parse_names(value),
        }
        Some(())
    }
}

/// The pool whose settings are shown as everybody's.
fn shown_pool(config: &Config) -> PoolSettings {
    let any = config.databases.iter().find(|database| &*database.name == crate::config::ANY_DATABASE);
    any.or(config.databases.first()).map(|database| database.pool.clone()).unwrap_or_default()
}

fn change_pools<T: PartialEq + Clone>(
    config: &mut Config,
    at: impl Fn(&mut PoolSettings) -> &mut T,
    value: &T,
) {
    let shown = at(&mut shown_pool(config)).clone();
    for database in &mut config.databases {
        let held = at(&mut database.pool);
        if *held == shown {
            *held = value.clone();
        }
    }
}

/// Whole seconds without a fraction, as PgBouncer shows them.
fn seconds(duration: Duration) -> String {
    match duration.subsec_nanos() {
        0 => duration.as_secs().to_string(),
        _ => duration.as_secs_f64().to_string(),
    }
}

fn parse_seconds(value: &str) -> Option<Duration> {
    let seconds: f64 = value.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok().filter(|duration| *duration <= TIME_MAX)
}

/// Longer than any process lives; keeps moments computable.
const TIME_MAX: Duration = Duration::from_secs(100 * 365 * 86_400);

fn parse_flag(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "on" | "yes" | "true" => Some(true),
        "0" | "off" | "no" | "false" => Some(false),
        _ => None,
    }
}

fn parse_mode(value: &str) -> Option<Mode> {
    let modes = [Mode::Session, Mode::Transaction, Mode::Statement];
    modes.into_iter().find(|mode| show::mode(*mode).eq_ignore_ascii_case(value))
}

fn parse_names(value: &str) -> Vec<String> {
    value.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

const fn auth_type(method: AuthMethod) -> &'static str {
    match method {
        AuthMethod::Trust => "trust",
        AuthMethod::Password => "plain",
        AuthMethod::Md5 => "md5",
        AuthMethod::ScramSha256 => "scram-sha-256",
        AuthMethod::Cert => "cert",
        AuthMethod::Peer => "peer",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Database, Host};

    fn config(sizes: &[(&str, usize)]) -> Config {
        let database = |(name, size): &(&str, usize)| {
            let host = Host::Tcp { host: "db".into(), port: 5_432 };
            let mut database = Database::new(name, vec![host]);
            database.pool.size = *size;
            database
        };
        Config { databases: sizes.iter().map(database).collect(), ..Config::default() }
    }

    fn value(config: &Config, key: &str) -> String {
        let rows = table(config).rows;
        let row = rows.iter().find(|row| row[0].as_deref() == Some(key)).unwrap();
        row[1].clone().unwrap()
    }

    #[test]
    fn every_setting_that_is_shown_as_changeable_takes_its_own_value() {
        let config = config(&[("shop", 20)]);
        for row in table(&config).rows {
            let [Some(key), Some(value), _, Some(changeable)] = &row[..] else { panic!("{row:?}") };
            assert_eq!(set(&config, key, value).is_ok(), changeable == "yes", "{key} = {value}");
        }
        assert!(SETTINGS.windows(2).all(|pair| pair[0].key < pair[1].key), "by name");
    }

    #[test]
    fn what_is_set_is_shown() {
        for (key, typed, shown) in [
            ("max_client_conn", "77", "77"),
            ("query_wait_timeout", "2.5", "2.5"),
            ("server_lifetime", " 60 ", "60"),
            ("pool_mode", "SESSION", "session"),
            ("admin_users", "a,b , c", "a, b, c"),
            ("log_connections", "on", "1"),
            ("server_fast_close", "yes", "1"),
            ("default_pool_size", "3", "3"),
        ] {
            let changed = set(&config(&[("shop", 20)]), key, typed).unwrap();
            assert_eq!(value(&changed, key), shown, "{key}");
        }
    }

    #[test]
    fn databases_with_a_value_of_their_own_keep_it() {
        let changed = set(&config(&[("a", 20), ("b", 5), ("c", 20)]), "default_pool_size", "9").unwrap();
        let sizes: Vec<_> = changed.databases.iter().map(|database| database.pool.size).collect();
        assert_eq!(sizes, [9, 5, 9]);
        let changed = set(&config(&[("a", 20), ("*", 5)]), "default_pool_size", "9").unwrap();
        let sizes: Vec<_> = changed.databases.iter().map(|database| database.pool.size).collect();
        assert_eq!(sizes, [20, 9]);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (key, value) in [
            ("nothing", "1"),
            ("max_client_conn", "many"),
            ("max_client_conn", "-1"),
            ("query_timeout", "-1"),
            ("query_timeout", "NaN"),
            ("query_timeout", "1e30"),
            ("pool_mode", "sessions"),
            ("log_connections", "perhaps"),
            ("auth_type", "trust"),
            ("stats_period", "30"),
        ] {
            let refused = set(&config(&[("shop", 20)]), key, value);
            assert!(matches!(refused, Err(Refused::Value(_))), "{key} = {value}");
        }
    }
}
