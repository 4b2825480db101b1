//! What is known of a client, as one process tells it to the next.
//!
//! **Mechanism.** Everything is by content, since numbers mean nothing in another process: settings by their values,
//! statements by their texts. Where a number only tells apart what differs ([`PlanKey::Other`]), it is kept as one. Each
//! client brings what its pool may need (how its servers greet, the user's SCRAM keys), so that frames need no order.
//!
//! **Failure.** [`Malformed`]. Nothing is allocated that is not there; what is there is bounded by the frame.

use std::net::{IpAddr, SocketAddr};

use tenfold_service::{
    acceptor::Peer,
    handover::{Malformed, Reader, Writer},
};

use crate::shared::{Reports, Startup};

/// Names and values.
pub(crate) type Pairs = Vec<(String, String)>;

/// A client on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Handed {
    pub(crate) peer: Peer,
    pub(crate) database: String,
    pub(crate) user: String,
    /// The startup parameters as sent.
    pub(crate) startup: Startup,
    /// What they were found to mean: settings, and what the server reports with them.
    pub(crate) began: Pairs,
    pub(crate) reports: Reports,
    /// What a fresh server connection of its pool reports.
    pub(crate) welcome: Option<Reports>,
    pub(crate) credential: Option<HandedCredential>,
    /// The parts of its image.
    pub(crate) settings: Pairs,
    pub(crate) prepared: Pairs,
    pub(crate) channels: Vec<String>,
    /// Protocol-level prepared statements, by the client's names.
    pub(crate) statements: Vec<(Vec<u8>, HandedStatement)>,
    pub(crate) unnamed: Option<HandedStatement>,
    /// How rows are hashed there: [`crate::statements::rows_hashed_as`].
    pub(crate) rows_hashed_as: u64,
    /// The body of a BEGIN that was answered and not sent.
    pub(crate) held: Option<Vec<u8>>,
    /// Who it said is behind it.
    pub(crate) identity: Option<Vec<u8>>,
    /// The key that cancels its statements.
    pub(crate) process_id: u32,
    pub(crate) secret: [u8; 4],
    pub(crate) connected_unix_ms: u64,
    /// Of one that listens: the cut its channels are moved at, and how many notifications it has heard since.
    pub(crate) heard: Option<(u64, u64)>,
}

/// A prepared statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HandedStatement {
    pub(crate) text: Vec<u8>,
    pub(crate) types: Vec<u8>,
    pub(crate) plan_key: PlanKey,
    /// The state of the definitions it was prepared in; `None` for the present one.
    pub(crate) definitions: Option<u64>,
    /// A server has taken it.
    pub(crate) is_proven: bool,
    /// A hash of the rows its clients were told it has.
    pub(crate) rows: u64,
}

/// The settings a statement was prepared under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PlanKey {
    /// None.
    Fresh,
    /// The client's own of now.
    Own,
    /// Others, told apart by this.
    Other(u64),
}

/// What proves a user to the server.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct HandedCredential {
    /// As configured or looked up.
    pub(crate) stored: Option<String>,
    /// SCRAM keys that its clients showed: ClientKey and ServerKey.
    pub(crate) keys: Option<([u8; 32], [u8; 32])>,
    /// A password that they did.
    pub(crate) learned: Option<String>,
}

impl std::fmt::Debug for HandedCredential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HandedCredential(…)")
    }
}

impl Handed {
    /// As a frame's body.
    pub(crate) fn encode(&self) -> Writer {
        let mut out = Writer::new();
        write_peer(&mut out, &self.peer);
        out.text(&self.database).text(&self.user);
        write_pairs(&mut out, &self.startup);
        write_pairs(&mut out, &self.began);
        write_pairs(&mut out, &self.reports);
        out.flag(self.welcome.is_some());
        write_pairs(&mut out, self.welcome.as_deref().unwrap_or_default());
        out.flag(self.credential.is_some());
        if let Some(credential) = &self.credential {
            credential.write(&mut out);
        }
        write_pairs(&mut out, &self.settings);
        write_pairs(&mut out, &self.prepared);
        out.count(self.channels.len());
        for channel in &self.channels {
            out.text(channel);
        }
        out.count(self.statements.len());
        for (name, statement) in &self.statements {
            statement.write(out.bytes(name));
        }
        out.flag(self.unnamed.is_some());
        if let Some(statement) = &self.unnamed {
            statement.write(&mut out);
        }
        out.u64(self.rows_hashed_as).optional(self.held.as_deref());
        out.optional(self.identity.as_deref()).u32(self.process_id);
        for byte in self.secret {
            out.u8(byte);
        }
        out.u64(self.connected_unix_ms).flag(self.heard.is_some());
        if let Some((cut, heard)) = self.heard {
            out.u64(cut).u64(heard);
        }
        out
    }

    /// From a frame's body.
    ///
    /// # Errors
    /// If it is none.
    pub(crate) fn decode(body: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let from = &mut reader;
        let handed = Self {
            peer: read_peer(from)?,
            database: from.text()?.to_owned(),
            user: from.text()?.to_owned(),
            startup: read_pairs(from)?,
            began: read_pairs(from)?,
            reports: read_pairs(from)?,
            welcome: {
                let is_known = from.flag()?;
                Some(read_pairs(from)?).filter(|_| is_known)
            },
            credential: from.flag()?.then(|| HandedCredential::read(from)).transpose()?,
            settings: read_pairs(from)?,
            prepared: read_pairs(from)?,
            channels: read_list(from, |from| from.text().map(str::to_owned))?,
            statements: read_list(from, |from| Ok((from.bytes()?.to_vec(), HandedStatement::read(from)?)))?,
            unnamed: from.flag()?.then(|| HandedStatement::read(from)).transpose()?,
            rows_hashed_as: from.u64()?,
            held: from.optional()?.map(<[u8]>::to_vec),
            identity: from.optional()?.map(<[u8]>::to_vec),
            process_id: from.u32()?,
            secret: from.fixed()?,
            connected_unix_ms: from.u64()?,
            heard: from.flag()?.then(|| Ok((from.u64()?, from.u64()?))).transpose()?,
        };
        reader.end()?;
        Ok(handed)
    }
}

impl HandedStatement {
    fn write(&self, out: &mut Writer) {
        out.bytes(&self.text).bytes(&self.types);
        match self.plan_key {
            PlanKey::Fresh => out.u8(0),
            PlanKey::Own => out.u8(1),
            PlanKey::Other(key) => out.u8(2).u64(key),
        };
        out.flag(self.definitions.is_some()).u64(self.definitions.unwrap_or(0));
        out.flag(self.is_proven).u64(self.rows);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            text: from.bytes()?.to_vec(),
            types: from.bytes()?.to_vec(),
            plan_key: match from.u8()? {
                0 => PlanKey::Fresh,
                1 => PlanKey::Own,
                2 => PlanKey::Other(from.u64()?),
                _ => return Err(Malformed),
            },
            definitions: {
                let is_past = from.flag()?;
                Some(from.u64()?).filter(|_| is_past)
            },
            is_proven: from.flag()?,
            rows: from.u64()?,
        })
    }
}

impl HandedCredential {
    fn write(&self, out: &mut Writer) {
        out.optional(self.stored.as_deref().map(str::as_bytes));
        out.optional(self.keys.map(|(client, server)| [client, server].concat()).as_deref());
        out.optional(self.learned.as_deref().map(str::as_bytes));
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let text = |bytes: Option<&[u8]>| {
            bytes.map(|bytes| String::from_utf8(bytes.to_vec()).map_err(|_| Malformed)).transpose()
        };
        let key = |bytes: &[u8]| <[u8; 32]>::try_from(bytes).map_err(|_| Malformed);
        let stored = text(from.optional()?)?;
        let keys = match from.optional()? {
            Some(both) => {
                let (client, server) = both.split_at_checked(32).ok_or(Malformed)?;
                Some((key(client)?, key(server)?))
            }
            None => None,
        };
        Ok(Self { stored, keys, learned: text(from.optional()?)? })
    }
}

fn write_peer(out: &mut Writer, peer: &Peer) {
    match peer {
        Peer::Tcp(address) => match address.ip() {
            IpAddr::V4(ip) => out.u8(4).bytes(&ip.octets()).u32(address.port().into()),
            IpAddr::V6(ip) => out.u8(6).bytes(&ip.octets()).u32(address.port().into()),
        },
        Peer::Unix { uid, gid, pid } => {
            out.u8(0).u32(*uid).u32(*gid).u32(pid.and_then(|pid| pid.try_into().ok()).unwrap_or(0))
        }
    };
}

fn read_peer(from: &mut Reader<'_>) -> Result<Peer, Malformed> {
    let kind = from.u8()?;
    if kind == 0 {
        let (uid, gid, pid) = (from.u32()?, from.u32()?, from.u32()?);
        return Ok(Peer::Unix { uid, gid, pid: i32::try_from(pid).ok().filter(|pid| *pid > 0) });
    }
    let ip = from.bytes()?;
    let ip = match kind {
        4 => IpAddr::from(<[u8; 4]>::try_from(ip).map_err(|_| Malformed)?),
        6 => IpAddr::from(<[u8; 16]>::try_from(ip).map_err(|_| Malformed)?),
        _ => return Err(Malformed),
    };
    let port = u16::try_from(from.u32()?).map_err(|_| Malformed)?;
    Ok(Peer::Tcp(SocketAddr::new(ip, port)))
}

fn write_pairs(out: &mut Writer, pairs: &[(String, String)]) {
    out.count(pairs.len());
    for (name, value) in pairs {
        out.text(name).text(value);
    }
}

fn read_pairs(from: &mut Reader<'_>) -> Result<Pairs, Malformed> {
    read_list(from, |from| Ok((from.text()?.to_owned(), from.text()?.to_owned())))
}

fn read_list<'a, T>(
    from: &mut Reader<'a>,
    mut item: impl FnMut(&mut Reader<'a>) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    let count = from.count()?;
    // Not allocated by what is announced: an item is larger here than there.
    let mut items = Vec::new();
    for _ in 0..count {
        items.push(item(from)?);
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pairs(of: &[(&str, &str)]) -> Pairs {
        of.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn full() -> Handed {
        let statement = HandedStatement {
            text: b"SELECT $1".to_vec(),
            types: vec![0, 0, 0, 23],
            plan_key: PlanKey::Other(7),
            definitions: Some(3),
            is_proven: true,
            rows: 9,
        };
        Handed {
            peer: Peer::Tcp("[2001:db8::1]:99".parse().unwrap()),
            database: "shop".into(),
            user: "ann".into(),
            startup: pairs(&[("application_name", "é")]),
            began: pairs(&[("timezone", "UTC")]),
            reports: pairs(&[("TimeZone", "UTC")]),
            welcome: Some(pairs(&[("server_version", "17")])),
            credential: Some(HandedCredential {
                stored: Some("SCRAM-SHA-256$…".into()),
                keys: Some(([1; 32], [2; 32])),
                learned: None,
            }),
            settings: pairs(&[("app.tenant", "7")]),
            prepared: pairs(&[("p", "PREPARE p AS SELECT 1")]),
            channels: vec!["news".into()],
            statements: vec![(b"s1".to_vec(), statement.clone())],
            unnamed: Some(HandedStatement { plan_key: PlanKey::Own, definitions: None, ..statement }),
            rows_hashed_as: 5,
            held: Some(b"BEGIN\0".to_vec()),
            identity: Some(b"7".to_vec()),
            process_id: 16_777_217,
            secret: *b"abcd",
            connected_unix_ms: 1_700_000_000_000,
            heard: Some((1, 2)),
        }
    }

    #[test]
    fn a_client_arrives_as_it_left() {
        let plain = Handed {
            peer: Peer::Unix { uid: 1, gid: 2, pid: Some(3) },
            welcome: None,
            credential: None,
            unnamed: None,
            held: None,
            heard: None,
            ..full()
        };
        for client in [full(), plain] {
            let body = client.encode().into_bytes();
            assert_eq!(Handed::decode(&body), Ok(client));
        }
    }

    #[test]
    fn a_body_that_is_cut_or_goes_on_is_refused() {
        let body = full().encode().into_bytes();
        for len in 0..body.len() {
            assert_eq!(Handed::decode(&body[..len]), Err(Malformed), "{len}");
        }
        assert_eq!(Handed::decode(&[&body[..], b"x"].concat()), Err(Malformed));
    }

    proptest! {
        #[test]
        fn no_body_breaks_the_reader(at in 0..300_usize, byte: u8, tail in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut body = full().encode().into_bytes();
            let at = at % body.len();
            body[at] = byte;
            let _ = Handed::decode(&body);
            body.truncate(at);
            body.extend(tail);
            let _ = Handed::decode(&body);
        }
    }

    #[test]
    fn secrets_do_not_show() {
        assert!(!format!("{:?}", full()).contains("SCRAM"));
    }
}
