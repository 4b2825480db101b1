//! What comes before the first message: requests for encryption, cancel requests, the startup packet.
//!
//! **Intuition.** A connection opens with a packet that has no tag, only a length and a number that says what it is.
//! Anyone may send it, so it is held to PostgreSQL's 10,000 bytes and to its layout before anything is believed.
//!
//! **Mechanism.** [`Initial::parse`] tells the packets apart and says how many bytes the packet took; what stands behind
//! an SSLRequest in the same read was sent in clear by someone and has to be refused by the caller. [`Startup`] holds
//! the parameters in place; [`Startup::negotiation`] says what to answer a client that wants more than protocol 3.2;
//! [`options::settings`] takes apart the `options` parameter.
//!
//! **Failure.** Errors with PostgreSQL's words; a connection that fails here is closed.
//!
//! Source: `ProcessStartupPacket` in `backend_startup.c`, `pqcomm.h`; documentation, "Message Formats".

pub mod options;

use crate::Error;
use crate::fields::Fields;
use crate::write::message::{counted, string};

/// The protocol's major version.
pub const VERSION_MAJOR: u16 = 3;
/// The newest minor version that we speak (PostgreSQL 18).
pub const VERSION_MINOR_LATEST: u16 = 2;
/// The largest packet, length word included: PostgreSQL's `MAX_STARTUP_PACKET_LENGTH` and four.
pub const PACKET_BYTES_MAX: usize = 10_004;
/// The shortest cancel key: what protocol 3.0 has.
pub const CANCEL_KEY_BYTES_MIN: usize = 4;
/// The longest cancel key, from protocol 3.2.
pub const CANCEL_KEY_BYTES_MAX: usize = 256;
/// Parameters with this prefix ask for extensions of the protocol.
pub const PROTOCOL_OPTION_PREFIX: &[u8] = b"_pq_.";

/// A length word and a number.
const PACKET_BYTES_MIN: usize = 8;
/// First byte of a TLS record that carries a handshake.
const TLS_HANDSHAKE: u8 = 0x16;
/// A major version that says "no version": its minor versions are requests.
const REQUEST_MAJOR: u16 = 1234;
const CANCEL_REQUEST: u16 = 5678;
const SSL_REQUEST: u16 = 5679;
const GSSENC_REQUEST: u16 = 5680;

/// What a connection opens with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Initial<'a> {
    /// A TLS ClientHello without an SSLRequest before it (PostgreSQL 17's `sslnegotiation=direct`). No byte is taken.
    TlsHello,
    /// May we encrypt? To be answered by one byte, `S` or `N`.
    SslRequest,
    /// May we encrypt by GSSAPI? To be answered by one byte, `G` or `N`.
    GssEncRequest,
    /// Cancel what a session of another connection runs.
    Cancel(Cancel<'a>),
    /// A session shall begin.
    Startup(Startup<'a>),
}

impl<'a> Initial<'a> {
    /// Reads the packet at the beginning of `buf`, and says how many bytes it took; `None` while it isn't whole. Needs
    /// a buffer of [`PACKET_BYTES_MAX`] at most.
    ///
    /// # Errors
    /// [`Error::StartupLength`], [`Error::CancelLength`], [`Error::ProtocolVersion`], [`Error::StartupLayout`],
    /// [`Error::NoUser`], [`Error::Replication`].
    pub fn parse(buf: &'a [u8]) -> Result<Option<(Self, usize)>, Error> {
        if buf.first() == Some(&TLS_HANDSHAKE) {
            return Ok(Some((Self::TlsHello, 0)));
        }
        let Some(word) = buf.first_chunk::<4>() else { return Ok(None) };
        let len = usize::try_from(u32::from_be_bytes(*word)).map_err(|_| Error::StartupLength)?;
        if !(PACKET_BYTES_MIN..=PACKET_BYTES_MAX).contains(&len) {
            return Err(Error::StartupLength);
        }
        let Some(packet) = buf.get(..len) else { return Ok(None) };
        let mut fields = Fields::new(packet);
        fields.u32()?;
        let (major, minor) = (fields.u16()?, fields.u16()?);
        let rest = fields.rest();
        let initial = match (major, minor) {
            (REQUEST_MAJOR, SSL_REQUEST) if rest.is_empty() => Self::SslRequest,
            (REQUEST_MAJOR, GSSENC_REQUEST) if rest.is_empty() => Self::GssEncRequest,
            (REQUEST_MAJOR, SSL_REQUEST | GSSENC_REQUEST) => return Err(Error::StartupLength),
            (REQUEST_MAJOR, CANCEL_REQUEST) => Cancel::parse(rest).map(Self::Cancel)?,
            (VERSION_MAJOR, minor) => Startup::parse(minor, rest).map(Self::Startup)?,
            (major, minor) => return Err(Error::ProtocolVersion { major, minor }),
        };
        Ok(Some((initial, len)))
    }
}

/// A cancel request: which session, and the key that proves the right to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Cancel<'a> {
    /// The session's process, from its BackendKeyData.
    pub process_id: u32,
    /// Its key: 4 to 256 bytes. To be compared in constant time.
    pub key: &'a [u8],
}

impl<'a> Cancel<'a> {
    fn parse(rest: &'a [u8]) -> Result<Self, Error> {
        let mut fields = Fields::new(rest);
        let process_id = fields.u32().map_err(|_| Error::CancelLength)?;
        let key = fields.rest();
        if !(CANCEL_KEY_BYTES_MIN..=CANCEL_KEY_BYTES_MAX).contains(&key.len()) {
            return Err(Error::CancelLength);
        }
        Ok(Self { process_id, key })
    }
}

impl std::fmt::Debug for Cancel<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Cancel({}, …)", self.process_id)
    }
}

/// What kind of session `replication` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replication {
    /// An ordinary one.
    Off,
    /// Physical replication, in no database.
    Physical,
    /// Logical replication, in the database.
    Logical,
}

/// A startup packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Startup<'a> {
    /// The minor version asked for: 0 to 2, or newer.
    pub minor: u16,
    /// Never empty.
    pub user: &'a [u8],
    /// The user's name if none was given; empty for [`Replication::Physical`].
    pub database: &'a [u8],
    /// For [`options::settings`]; empty if none were given.
    pub options: &'a [u8],
    /// What kind of session it shall be.
    pub replication: Replication,
    /// Checked: pairs of strings, then a NUL, then nothing.
    raw: &'a [u8],
}

impl<'a> Startup<'a> {
    fn parse(minor: u16, raw: &'a [u8]) -> Result<Self, Error> {
        check_layout(raw)?;
        let mut startup =
            Self { minor, user: b"", database: b"", options: b"", replication: Replication::Off, raw };
        for (name, value) in startup.params() {
            match name {
                b"user" => startup.user = value,
                b"database" => startup.database = value,
                b"options" => startup.options = value,
                b"replication" => startup.replication = replication(value)?,
                _ => {}
            }
        }
        if startup.user.is_empty() {
            return Err(Error::NoUser);
        }
        if startup.replication == Replication::Physical {
            startup.database = b"";
        } else if startup.database.is_empty() {
            startup.database = startup.user;
        }
        Ok(startup)
    }

    /// All parameters in order, `user` and its like included; of a name given twice the last counts.
    pub fn params(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + 'a {
        let mut fields = Fields::new(self.raw);
        std::iter::from_fn(move || {
            let name = fields.string().ok().filter(|name| !name.is_empty())?;
            Some((name, fields.string().ok()?))
        })
    }

    /// The parameters that are settings of the session: all but those with a field here and those with the prefix
    /// `_pq_.`.
    pub fn settings(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + 'a {
        self.params().filter(|(name, _)| {
            !matches!(*name, b"user" | b"database" | b"options" | b"replication")
                && !name.starts_with(PROTOCOL_OPTION_PREFIX)
        })
    }

    /// The protocol extensions asked for, none of which we know.
    pub fn protocol_options(&self) -> impl Iterator<Item = &'a [u8]> + 'a {
        self.params().map(|(name, _)| name).filter(|name| name.starts_with(PROTOCOL_OPTION_PREFIX))
    }

    /// The minor version to answer by NegotiateProtocolVersion, beside [`Startup::protocol_options`], when the client
    /// asks for a newer one than `minor_latest` or for any extension; `None` if all it asks for is known.
    #[must_use]
    pub fn negotiation(&self, minor_latest: u16) -> Option<u16> {
        let is_needed = self.minor > minor_latest || self.protocol_options().next().is_some();
        is_needed.then(|| self.minor.min(minor_latest))
    }
}

fn check_layout(raw: &[u8]) -> Result<(), Error> {
    let mut fields = Fields::new(raw);
    let layout = |_| Error::StartupLayout;
    while !fields.string().map_err(layout)?.is_empty() {
        fields.string().map_err(layout)?;
    }
    fields.end().map_err(layout)
}

fn replication(value: &[u8]) -> Result<Replication, Error> {
    if value == b"database" {
        return Ok(Replication::Logical);
    }
    let on = boolean(value).ok_or(Error::Replication)?;
    Ok(if on { Replication::Physical } else { Replication::Off })
}

/// A boolean as PostgreSQL's `parse_bool` reads it: any clear beginning of true, false, yes, no, on, off, or 1 or 0.
fn boolean(value: &[u8]) -> Option<bool> {
    let begins = |word: &str, least: usize| {
        value.len() >= least
            && word.as_bytes().get(..value.len()).is_some_and(|start| start.eq_ignore_ascii_case(value))
    };
    match value {
        b"1" => Some(true),
        b"0" => Some(false),
        _ if begins("true", 1) || begins("yes", 1) || begins("on", 2) => Some(true),
        _ if begins("false", 1) || begins("no", 1) || begins("off", 2) => Some(false),
        _ => None,
    }
}

/// Appends an SSLRequest.
pub fn append_ssl_request(out: &mut Vec<u8>) {
    append_packet(out, REQUEST_MAJOR, SSL_REQUEST, |_| {});
}

/// Appends a GSSENCRequest.
pub fn append_gssenc_request(out: &mut Vec<u8>) {
    append_packet(out, REQUEST_MAJOR, GSSENC_REQUEST, |_| {});
}

/// Appends a cancel request for the session with this BackendKeyData.
pub fn append_cancel(out: &mut Vec<u8>, process_id: u32, key: &[u8]) {
    append_packet(out, REQUEST_MAJOR, CANCEL_REQUEST, |out| {
        out.extend_from_slice(&process_id.to_be_bytes());
        out.extend_from_slice(key);
    });
}

/// Appends a startup packet with these parameters, `user` among them. One with an empty name is left out, since its
/// name would end the list.
pub fn append_startup<'a>(
    out: &mut Vec<u8>,
    minor: u16,
    params: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
) {
    append_packet(out, VERSION_MAJOR, minor, |out| {
        for (name, value) in params {
            if matches!(name.first(), None | Some(0)) {
                continue;
            }
            string(out, name);
            string(out, value);
        }
        out.push(0);
    });
}

fn append_packet(out: &mut Vec<u8>, major: u16, minor: u16, fill: impl FnOnce(&mut Vec<u8>)) {
    counted(out, |out| {
        out.extend_from_slice(&major.to_be_bytes());
        out.extend_from_slice(&minor.to_be_bytes());
        fill(out);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A packet of this version and rest, with a right length word.
    fn packet(major: u16, minor: u16, rest: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        append_packet(&mut out, major, minor, |out| out.extend_from_slice(rest));
        out
    }

    fn startup(rest: &[u8]) -> Result<(String, String, Replication), Error> {
        let packet = packet(3, 0, rest);
        match Initial::parse(&packet)? {
            Some((Initial::Startup(startup), taken)) if taken == packet.len() => {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                Ok((text(startup.user), text(startup.database), startup.replication))
            }
            other => panic!("{other:?}"),
        }
    }

    fn check(rest: &[u8], user: &str, database: &str, replication: Replication) {
        assert_eq!(startup(rest), Ok((user.into(), database.into(), replication)));
    }

    #[test]
    fn the_database_defaults_to_the_user() {
        check(b"user\0ann\0\0", "ann", "ann", Replication::Off);
        check(b"user\0ann\0database\0shop\0\0", "ann", "shop", Replication::Off);
        check(b"user\0ann\0database\0\0\0", "ann", "ann", Replication::Off);
        check(b"user\0bob\0user\0ann\0\0", "ann", "ann", Replication::Off);
        check(b"user\0ann\0replication\0TRU\0database\0x\0\0", "ann", "", Replication::Physical);
        check(b"user\0ann\0replication\0database\0database\0x\0\0", "ann", "x", Replication::Logical);
        check(b"user\0ann\0replication\0of\0\0", "ann", "ann", Replication::Off);
    }

    #[test]
    fn bad_layouts_are_refused() {
        for rest in [
            &b""[..],
            b"user",
            b"user\0",
            b"user\0ann",
            b"user\0ann\0",
            b"user\0ann\0\0\0",
            b"user\0ann\0\0x\0",
            b"user\0ann\0application_name\0\0",
        ] {
            assert_eq!(startup(rest), Err(Error::StartupLayout), "{rest:?}");
        }
        assert_eq!(startup(b"\0"), Err(Error::NoUser));
        assert_eq!(startup(b"database\0x\0\0"), Err(Error::NoUser));
        assert_eq!(startup(b"user\0\0\0"), Err(Error::NoUser));
        for value in [&b"o"[..], b"", b"maybe", b"truee", b"2"] {
            let rest = [b"user\0ann\0replication\0", value, b"\0\0"].concat();
            assert_eq!(startup(&rest), Err(Error::Replication), "{value:?}");
        }
    }

    #[test]
    fn packets_are_told_apart() {
        let parse = |bytes: &[u8]| {
            Initial::parse(bytes).map(|found| found.map(|(what, len)| (format!("{what:?}"), len)))
        };
        let check = |bytes: &[u8], what: &str, len: usize| {
            assert_eq!(parse(bytes), Ok(Some((what.into(), len))), "{bytes:?}");
        };
        check(b"\x16\x03\x01", "TlsHello", 0);
        check(b"\0\0\0\x08\x04\xd2\x16\x2f", "SslRequest", 8);
        check(b"\0\0\0\x08\x04\xd2\x16\x2fstuffed", "SslRequest", 8);
        check(b"\0\0\0\x08\x04\xd2\x16\x30", "GssEncRequest", 8);
        check(&packet(1234, 5678, b"\0\0\0\x07abcd"), "Cancel(Cancel(7, …))", 16);
        check(&packet(1234, 5678, &[7; 260]), "Cancel(Cancel(117901063, …))", 268);
    }

    #[test]
    fn packets_of_other_lengths_and_versions_are_refused() {
        let check = |bytes: &[u8], error| assert_eq!(Initial::parse(bytes), Err(error), "{bytes:?}");
        check(b"\0\0\0\x07", Error::StartupLength);
        check(b"\0\0\0\0", Error::StartupLength);
        check(b"\0\0\x27\x15", Error::StartupLength);
        check(b"\xff\xff\xff\xff", Error::StartupLength);
        check(b"GET / HTTP/1.1", Error::StartupLength);
        check(&packet(1234, 5679, b"\0"), Error::StartupLength);
        check(&packet(1234, 5678, b"\0\0\0\x07abc"), Error::CancelLength);
        check(&packet(1234, 5678, b"\0\0\0"), Error::CancelLength);
        check(&packet(1234, 5678, &[7; 261]), Error::CancelLength);
        check(&packet(2, 0, b"x"), Error::ProtocolVersion { major: 2, minor: 0 });
        check(&packet(4, 1, b""), Error::ProtocolVersion { major: 4, minor: 1 });
        check(&packet(1234, 5681, b""), Error::ProtocolVersion { major: 1234, minor: 5681 });
    }

    #[test]
    fn a_packet_is_waited_for() {
        let whole = packet(3, 2, b"user\0ann\0\0");
        for len in 0..whole.len() {
            assert_eq!(Initial::parse(&whole[..len]), Ok(None), "{len}");
        }
        let most =
            packet(3, 0, &[&b"user\0ann\0options\0"[..], &[b'x'; 10_004 - 8 - 17 - 2], b"\0\0"].concat());
        assert!(matches!(Initial::parse(&most), Ok(Some((Initial::Startup(_), PACKET_BYTES_MAX)))));
    }

    #[test]
    fn newer_versions_and_extensions_are_negotiated() {
        let check = |minor: u16, params: &[(&[u8], &[u8])], expected: Option<u16>| {
            let mut out = Vec::new();
            append_startup(&mut out, minor, params.iter().copied());
            let Ok(Some((Initial::Startup(startup), _))) = Initial::parse(&out) else { panic!("{out:?}") };
            assert_eq!(startup.negotiation(VERSION_MINOR_LATEST), expected);
            assert_eq!(startup.params().collect::<Vec<_>>(), params);
            startup.protocol_options().count()
        };
        let user: (&[u8], &[u8]) = (b"user", b"ann");
        for (minor, expected) in [(0, None), (1, None), (2, None), (3, Some(2)), (9999, Some(2))] {
            assert_eq!(check(minor, &[user], expected), 0);
        }
        assert_eq!(check(0, &[user, (b"_pq_.a", b"1"), (b"_pq_.b", b"")], Some(0)), 2);
        assert_eq!(check(0, &[user, (b"_pq_", b"1")], None), 0);
    }

    #[test]
    fn settings_are_what_is_left() {
        let packet = packet(
            3,
            0,
            b"user\0u\0options\0-c a=b\0TimeZone\0UTC\0_pq_.x\0y\0replication\0no\0application_name\0\0\0",
        );
        let Ok(Some((Initial::Startup(startup), _))) = Initial::parse(&packet) else { panic!("{packet:?}") };
        let settings: Vec<_> = startup.settings().collect();
        assert_eq!(settings, [(&b"TimeZone"[..], &b"UTC"[..]), (b"application_name", b"")]);
        assert_eq!(startup.options, b"-c a=b");
    }
}
