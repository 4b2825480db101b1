//! Where a database's reads go.

use std::time::Duration;

use super::{CONNECTIONS_MAX, Host, PoolSettings};
use crate::split::REPLICAS_MAX;

/// Reads on replicas; without replicas, nothing is split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reads {
    /// Hosts, each a streaming replica of the database's primary. Nobody but reads goes there.
    pub replicas: Vec<ReplicaHost>,
    /// What a reader may count on.
    pub consistency: Consistency,
    /// How long a read waits for a replica to have replayed what it needs, before it goes to the primary; zero: not at
    /// all.
    pub catch_up: Duration,
    /// A replica further behind is left alone.
    pub lag_max: Duration,
    /// Server connections to each replica at most, for each user; `None`: as many as to the primary.
    pub size: Option<usize>,
    /// Tables that are read at the primary only: names, with or without schema.
    pub primary_tables: Vec<String>,
}

/// One replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaHost {
    /// Where it is.
    pub host: Host,
    /// Its share of the reads beside the others'.
    pub weight: u32,
}

/// What a reader may count on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// Every commit that was acknowledged through this pooler is seen, and time never runs backwards for a client.
    OwnWrites,
    /// Reads may be as old as `lag_max`.
    Eventual,
    /// Nothing goes to replicas.
    Primary,
}

impl Default for Reads {
    fn default() -> Self {
        Self {
            replicas: Vec::new(),
            consistency: Consistency::OwnWrites,
            catch_up: Duration::from_millis(20),
            lag_max: Duration::from_secs(10),
            size: None,
            primary_tables: Vec::new(),
        }
    }
}

impl PoolSettings {
    /// What holds at a replica: limits over databases and users are of the primary's connections.
    #[must_use]
    pub fn at_replica(&self, reads: &Reads) -> Self {
        let size = reads.size.unwrap_or(self.size);
        Self { size, min: 0, database_max: 0, user_max: 0, ..self.clone() }
    }
}

impl Reads {
    /// Whether anything may go to a replica.
    #[must_use]
    pub fn are_split(&self) -> bool {
        !self.replicas.is_empty() && self.consistency != Consistency::Primary
    }

    /// What is wrong: keys below the database's, and why.
    #[must_use]
    pub fn mistakes(&self) -> Vec<(&'static str, String)> {
        let mut wrong = Vec::new();
        if self.replicas.len() > REPLICAS_MAX {
            wrong.push((".replicas", format!("at most {REPLICAS_MAX} replicas")));
        }
        for (index, replica) in self.replicas.iter().enumerate() {
            if self.replicas[..index].iter().any(|other| other.host == replica.host) {
                wrong.push((".replicas", format!("{} is there twice", replica.host)));
            }
            if replica.weight == 0 {
                wrong.push((".replicas", format!("{}: a weight is at least 1", replica.host)));
            }
        }
        if self.size.is_some_and(|size| size == 0 || size > CONNECTIONS_MAX) {
            wrong.push((".reads.size", format!("expected 1 to {CONNECTIONS_MAX} connections")));
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_named_by_their_key() {
        let replica = |port, weight| ReplicaHost { host: Host::Tcp { host: "r".into(), port }, weight };
        let good = Reads { replicas: vec![replica(1, 1), replica(2, 3)], ..Reads::default() };
        assert_eq!((good.mistakes(), good.are_split()), (Vec::new(), true));
        let bad = Reads {
            replicas: vec![replica(1, 1), replica(1, 1), replica(2, 0)],
            size: Some(0),
            ..Reads::default()
        };
        let keys: Vec<_> = bad.mistakes().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, [".replicas", ".replicas", ".reads.size"]);
        assert!(!Reads::default().are_split());
        assert!(!Reads { consistency: Consistency::Primary, ..good }.are_split());
    }
}
