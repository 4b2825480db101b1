//! How sessions begin: what a set of startup parameters means, and the words a client is greeted with.
//!
//! **Mechanism.** A server is asked once per set and pool what the parameters lead to; later clients with the same set
//! share the [`Started`]. So do they the bytes of their ParameterStatus messages, until the pool's servers report
//! something else at login.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use tenfold_pgwire::write;
use tenfold_sql::Dialect;

use crate::{image::Image, shared::Startup};

/// Names and values, as ParameterStatus carries them.
pub type Reports = Vec<(String, String)>;

/// What a set of startup parameters means in one pool.
#[derive(Debug)]
pub struct Started {
    /// The session they make.
    pub image: Arc<Image>,
    /// What the server reports with them.
    pub reports: Reports,
    /// The parameters themselves.
    pub raw: Arc<Startup>,
    greeting: ArcSwapOption<Greeting>,
}

/// What clients of one kind are told when they are in.
#[derive(Debug)]
pub(crate) struct Greeting {
    /// What a fresh server connection reports; by this it is known whether the greeting still holds.
    fresh: Option<Arc<Reports>>,
    /// Whose session it is, where it is not the server connection's own.
    user: Option<Arc<str>>,
    /// ParameterStatus messages, ready to be sent.
    pub(crate) parameters: Vec<u8>,
    /// How the session's texts are lexed.
    pub(crate) dialect: Dialect,
}

impl Started {
    /// A session that these parameters made.
    #[must_use]
    pub fn new(image: Arc<Image>, reports: Reports, raw: Arc<Startup>) -> Arc<Self> {
        Arc::new(Self { image, reports, raw, greeting: ArcSwapOption::empty() })
    }

    /// A session without parameters.
    #[must_use]
    pub fn plain(reports: Reports) -> Arc<Self> {
        Self::new(Image::empty(), reports, Arc::default())
    }

    /// What to tell a client of this kind, on servers that report `fresh` at login.
    pub(crate) fn greeting(&self, fresh: Option<Arc<Reports>>, user: Option<Arc<str>>) -> Arc<Greeting> {
        let kept = self.greeting.load_full();
        if let Some(kept) = kept.filter(|kept| kept.holds_for(fresh.as_ref(), user.as_ref())) {
            return kept;
        }
        let greeting = Arc::new(self.greet(fresh, user));
        self.greeting.store(Some(Arc::clone(&greeting)));
        greeting
    }

    fn greet(&self, fresh: Option<Arc<Reports>>, user: Option<Arc<str>>) -> Greeting {
        let mut parameters = Vec::new();
        let of_server = fresh.as_deref().map(Vec::as_slice).unwrap_or_default();
        for (name, value) in of_server {
            let own = self.reports.iter().rev().find(|(other, _)| other == name);
            let value = match &user {
                Some(user) if name == "session_authorization" => user,
                _ => own.map_or(value.as_str(), |(_, value)| value),
            };
            write::parameter_status(&mut parameters, name.as_bytes(), value.as_bytes());
        }
        for (name, value) in &self.reports {
            if !of_server.iter().any(|(other, _)| other == name) {
                write::parameter_status(&mut parameters, name.as_bytes(), value.as_bytes());
            }
        }
        let dialect = dialect_of(&self.image, of_server);
        Greeting { fresh, user, parameters, dialect }
    }
}

impl Greeting {
    fn holds_for(&self, fresh: Option<&Arc<Reports>>, user: Option<&Arc<str>>) -> bool {
        let is_same = match (&self.fresh, fresh) {
            (Some(ours), Some(theirs)) => Arc::ptr_eq(ours, theirs),
            (None, None) => true,
            _ => false,
        };
        is_same && self.user.as_ref() == user
    }
}

/// How a session's texts are lexed.
pub(crate) fn dialect_of(image: &Image, fresh: &[(String, String)]) -> Dialect {
    let value = |name: &str, default: &'static str| -> String {
        let fresh = fresh.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str());
        image.setting(name).or(fresh).unwrap_or(default).to_owned()
    };
    let strings = value("standard_conforming_strings", "on");
    let encoding = value("client_encoding", "UTF8");
    Dialect::of(strings.as_bytes(), encoding.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reports(of: &[(&str, &str)]) -> Reports {
        of.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn status(of: &[(&str, &str)]) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, value) in of {
            write::parameter_status(&mut out, name.as_bytes(), value.as_bytes());
        }
        out
    }

    #[test]
    fn a_greeting_is_the_servers_with_the_clients_own() {
        let started = Started::plain(reports(&[("DateStyle", "German"), ("extra", "x")]));
        let fresh = Arc::new(reports(&[("DateStyle", "ISO"), ("session_authorization", "pool")]));
        let greeting = started.greeting(Some(Arc::clone(&fresh)), Some("ann".into()));
        let expected = [("DateStyle", "German"), ("session_authorization", "ann"), ("extra", "x")];
        assert_eq!(greeting.parameters, status(&expected));
        let forced = started.greeting(Some(fresh), None);
        assert_eq!(
            forced.parameters,
            status(&[("DateStyle", "German"), ("session_authorization", "pool"), ("extra", "x")])
        );
    }

    #[test]
    fn a_greeting_is_kept_until_servers_report_something_else() {
        let started = Started::plain(Vec::new());
        let fresh = Arc::new(reports(&[("standard_conforming_strings", "on")]));
        let first = started.greeting(Some(Arc::clone(&fresh)), None);
        assert!(Arc::ptr_eq(&first, &started.greeting(Some(fresh), None)));
        assert!(first.dialect.standard_conforming_strings);
        let other = Arc::new(reports(&[("standard_conforming_strings", "off")]));
        let second = started.greeting(Some(other), None);
        assert!(!second.dialect.standard_conforming_strings);
        assert_eq!(second.parameters, status(&[("standard_conforming_strings", "off")]));
    }
}
