//! What a statement's comment says of the request behind it.
//!
//! **Intuition.** A pooler sees connections, and a phone's requests come over any of them. But ORMs can write a comment on
//! each statement (sqlcommenter's form: `/*key='value',…*/`), and what they write there reaches us with every driver.
//!
//! **Mechanism.** [`said_in`] reads the last thing of the text if that is a comment, else the first, and picks three keys:
//! `tenfold` (who is asking, see [`Identities`](super::Identities)), `traceparent` (which request this belongs to, see
//! [`Traces`](super::Traces)) and `tenfold_position` (what its client must see, see [`Carried`](super::Carried)).
//!
//! **Failure.** What has another form says nothing. Values are taken as they stand: those that we read hold no character
//! that sqlcommenter encodes, and an identity is the same text every time.
//!
//! Sources: sqlcommenter's specification; W3C Trace Context, §3.2.

use super::traces::TraceId;

/// A comment is looked at if it is no longer than this.
const COMMENT_BYTES_MAX: usize = 4 * 1_024;
/// Digits of a trace's and of a span's id.
const TRACE_DIGITS: usize = 32;
const SPAN_DIGITS: usize = 16;

/// What a comment says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Said<'a> {
    /// Who is asking, in the application's own words.
    pub identity: Option<&'a [u8]>,
    /// Which request the statement belongs to.
    pub trace: Option<TraceId>,
    /// What its client must see: a token, unread.
    pub position: Option<&'a [u8]>,
}

impl Said<'_> {
    /// Whether it says nothing of this kind.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// What the comment at a statement's end says, or the one at its beginning.
#[must_use]
#[inline]
pub fn said_in(sql: &[u8]) -> Said<'_> {
    let text = sql.trim_ascii_end();
    let text = text.strip_suffix(b";").unwrap_or(text).trim_ascii_end();
    let last = text.strip_suffix(b"*/").and_then(|text| {
        let from = text.len().saturating_sub(COMMENT_BYTES_MAX);
        let tail = text.get(from..)?;
        let at = tail.windows(2).rposition(|pair| pair == b"/*")?;
        Some(of_comment(tail.get(at + 2..)?)).filter(|said| !said.is_nothing())
    });
    let first = || {
        let text = text.trim_ascii_start().strip_prefix(b"/*")?;
        let text = text.get(..text.len().min(COMMENT_BYTES_MAX))?;
        let end = text.windows(2).position(|pair| pair == b"*/")?;
        Some(of_comment(text.get(..end)?))
    };
    last.or_else(first).unwrap_or_default()
}

/// Reads `key='value'` pairs with commas between them, as far as they go.
fn of_comment(comment: &[u8]) -> Said<'_> {
    let mut said = Said::default();
    let mut rest = Some(comment);
    while let Some((key, value, after)) = rest.and_then(pair) {
        match key {
            b"tenfold" => said.identity = Some(value),
            b"tenfold_position" => said.position = Some(value),
            b"traceparent" => said.trace = trace_of(value),
            _ => {}
        }
        rest = after.trim_ascii_start().strip_prefix(b",");
    }
    said
}

/// The first pair, and what stands behind it.
fn pair(text: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (key, value) = split_once(text, b'=')?;
    let value = value.trim_ascii_start().strip_prefix(b"'")?;
    let (value, after) = split_once(value, b'\'')?;
    Some((key.trim_ascii(), value, after))
}

fn split_once(text: &[u8], byte: u8) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|other| *other == byte)?;
    Some((text.get(..at)?, text.get(at + 1..)?))
}

/// The trace of `version-trace-span-flags`; a later version may say more behind that.
fn trace_of(value: &[u8]) -> Option<TraceId> {
    let mut parts = value.split(|byte| *byte == b'-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_whole = version.len() == 2
        && is_hex(version)
        && version != b"ff"
        && trace.len() == TRACE_DIGITS
        && span.len() == SPAN_DIGITS
        && is_hex(span)
        && flags.len() == 2;
    if !is_whole {
        return None;
    }
    TraceId::from_hex(trace)
}

fn is_hex(text: &[u8]) -> bool {
    text.iter().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_comment_is_found_at_either_end() {
        let check = |sql: &str, expected: Option<&str>| {
            let said = said_in(sql.as_bytes());
            let found = said.identity.map(|text| String::from_utf8_lossy(text).into_owned());
            assert_eq!(found.as_deref(), expected, "{sql}");
        };
        check("SELECT 1 /*tenfold='42'*/", Some("42"));
        check("SELECT 1 /*traceparent='00-ab',tenfold='42'*/ ; ", Some("42"));
        check("/*tenfold='a%20b'*/ SELECT 1", Some("a%20b"));
        check("/* tenfold = 'x' , db='y' */SELECT 1 /* other */", Some("x"));
        for none in [
            "SELECT 1",
            "",
            "*/",
            "/*",
            "/**/",
            "/*/",
            "SELECT 1 /*tenfold: primary*/",
            "SELECT 1 /*tenfold='x*/",
            "SELECT 1 /*other='tenfold'*/",
            "SELECT '/*tenfold=''x''*/'",
        ] {
            check(none, None);
        }
    }

    #[test]
    fn all_three_keys_are_read_in_any_order() {
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let sql = format!("SELECT 1 /*a='b',tenfold_position='1.2',traceparent='{trace}',tenfold='ann'*/");
        let said = said_in(sql.as_bytes());
        assert_eq!(said.identity, Some(&b"ann"[..]));
        assert_eq!(said.position, Some(&b"1.2"[..]));
        assert_eq!(said.trace, TraceId::from_hex(b"0af7651916cd43dd8448eb211c80319c"));
        assert!(said.trace.is_some() && said_in(b"SELECT 1 /*route='x'*/").is_nothing());
    }

    #[test]
    fn what_is_no_trace_is_none() {
        let of = |value: &str| said_in(format!("SELECT 1 /*traceparent='{value}'*/").as_bytes()).trace;
        assert!(of("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more").is_some());
        for bad in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333-01",
        ] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}
