//! Where Redis is, and what it may cost.
//!
//! The URL is kept as it was given; what is wrong with it is said by [`Config::validate`], without repeating it. Neither it
//! nor the password appears in `Debug`.

use std::fmt;
use std::time::Duration;

use crate::Error;
use crate::endpoint::Endpoint;

/// One Redis.
#[derive(Clone, PartialEq, Eq)]
pub struct Config {
    /// `redis://host:port/db`, `rediss://…` over TLS, or `redis+sentinel://host:port,host:port/NAME/db`, where the
    /// sentinels say which server is called NAME and is not a replica; `rediss+sentinel://…` is the same over TLS.
    pub url: String,
    /// With TLS: the certificates in PEM of who may vouch for the server; `None` for those that the system trusts.
    pub ca: Option<Vec<u8>>,
    /// For ACLs; `None` is the default user.
    pub username: Option<String>,
    /// Instead of one in the URL.
    pub password: Option<String>,
    /// For a connection, with TLS and authentication.
    pub connect: Duration,
    /// Within this a probe has to be answered for the server to be asked (again).
    pub probe: Duration,
    /// Calls under way at once.
    pub in_flight_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            url: "redis://127.0.0.1:6379".into(),
            ca: None,
            username: None,
            password: None,
            connect: Duration::from_secs(1),
            probe: Duration::from_millis(50),
            in_flight_max: 512,
        }
    }
}

impl Config {
    /// Whether it can be understood. Opens nothing.
    ///
    /// # Errors
    /// [`Error::Url`].
    pub fn validate(&self) -> Result<(), Error> {
        Endpoint::new(self).map(drop)
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("url", &"***")
            .field("connect", &self.connect)
            .field("probe", &self.probe)
            .field("in_flight_max", &self.in_flight_max)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_valid(url: &str) -> bool {
        Config { url: url.into(), ..Config::default() }.validate().is_ok()
    }

    #[test]
    fn urls_name_a_server_or_sentinels() {
        for url in [
            "redis://127.0.0.1:6379",
            "redis://cache.internal",
            "redis://[::1]:6379/2",
            "rediss://cache.example:6380",
            "redis+sentinel://10.0.0.1:26379,10.0.0.2:26379/shop",
            "redis+sentinel://10.0.0.1/shop/3",
            "redis+sentinel://[::1]:26379/shop",
            "redis+sentinel://:p%40ss@10.0.0.1,10.0.0.2/shop",
            "rediss+sentinel://10.0.0.1/shop",
        ] {
            assert!(is_valid(url), "{url}");
        }
        for url in [
            "",
            "127.0.0.1:6379",
            "http://127.0.0.1",
            "redis://",
            "redis+sentinel://10.0.0.1:26379",
            "redis+sentinel:///shop",
            "redis+sentinel://10.0.0.1:x/shop",
            "redis+sentinel://10.0.0.1/shop/x",
            "redis+sentinel://hunter2@10.0.0.1/shop",
            "redis+sentinel://:%zz@10.0.0.1/shop",
        ] {
            assert!(!is_valid(url), "{url}");
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let config = Config {
            url: "redis://u:hunter2@h".into(),
            password: Some("hunter2".into()),
            ..Config::default()
        };
        assert!(!format!("{config:?}").contains("hunter2"));
        let wrong = Config { url: "redos://u:hunter2@h".into(), ..Config::default() };
        assert!(!wrong.validate().unwrap_err().to_string().contains("hunter2"));
    }
}
