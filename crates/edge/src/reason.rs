//! Why a request was refused: one closed list, said the same way everywhere.
//!
//! A refusal that doesn't explain itself costs its reader an evening. Each reason here is at once the label of
//! `tenfold_edge_refusals_total`, the `Tenfold-Reason` field of the answer and the `reason` of the log line, and the
//! answer's body says in a sentence what to do, as problem JSON (RFC 9457).
//!
//! What the client reads gives away nothing of the backend: no address, no error of the operating system. Those stand in
//! the log.

use tenfold_http1::Error as Malformed;

use crate::request_id::RequestId;

/// Why the edge answered in the origin's place, or cut a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// The bytes are not HTTP/1 as the RFCs have it; which rule was broken.
    Malformed(Malformed),
    /// The target has no normal form: a bad percent-encoding, a NUL, or a path above its root.
    BadTarget,
    /// The host is not a host.
    BadHost,
    /// No route takes this host, path, method and these fields.
    NoRoute,
    /// CONNECT or TRACE, which the edge never passes on.
    MethodRefused,
    /// The request's body is larger than `edge.body_max`.
    BodyTooLarge,
    /// The head did not arrive whole within its time.
    HeadTimeout,
    /// The request's body stood still for too long.
    BodyTimeout,
    /// The client took the answer too slowly; the connection was cut.
    SlowReader,
    /// The client went away before it had its answer.
    ClientGone,
    /// Too many connections are open, in all or from this address.
    TooManyConnections,
    /// Every node is down or refused the connection.
    NoNode,
    /// This machine has no descriptor, port or buffer left for a connection to a node.
    LocalLimit,
    /// A node did not take a connection in time.
    ConnectTimeout,
    /// A node took the request and sent no head in time.
    ResponseTimeout,
    /// A node closed the connection without a whole head.
    NodeClosed,
    /// A node's answer broke the protocol.
    BadResponse,
    /// A node's answer ended before its end.
    ResponseTruncated,
    /// A node's answer stood still for too long.
    ResponseStalled,
    /// `only-if-cached`, and it isn't.
    NotCached,
    /// A defect of the edge itself.
    Internal,
}

/// How a refusal is answered.
#[derive(Clone, Copy, Debug)]
struct Text {
    label: &'static str,
    status: u16,
    detail: &'static str,
}

impl Reason {
    /// Every reason that isn't the codec's, for the metrics to register.
    pub const OWN: [Self; 20] = [
        Self::BadTarget,
        Self::BadHost,
        Self::NoRoute,
        Self::MethodRefused,
        Self::BodyTooLarge,
        Self::HeadTimeout,
        Self::BodyTimeout,
        Self::SlowReader,
        Self::ClientGone,
        Self::TooManyConnections,
        Self::NoNode,
        Self::LocalLimit,
        Self::ConnectTimeout,
        Self::ResponseTimeout,
        Self::NodeClosed,
        Self::BadResponse,
        Self::ResponseTruncated,
        Self::ResponseStalled,
        Self::NotCached,
        Self::Internal,
    ];

    /// The metric's label, the field's value and the log's word: lower case with underscores.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed(error) => error.reason(),
            own => own.text().label,
        }
    }

    /// The status to answer with. For a connection that is only cut, what it would have been.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::Malformed(error) => error.status(),
            own => own.text().status,
        }
    }

    /// One sentence for whoever reads the answer.
    #[must_use]
    pub fn detail(self) -> &'static str {
        self.text().detail
    }

    fn text(self) -> Text {
        let of = |label, status, detail| Text { label, status, detail };
        match self {
            Self::Malformed(_) => of(
                "malformed",
                400,
                "The request breaks a rule of HTTP/1.1 that keeps messages unambiguous; Tenfold-Reason names the rule.",
            ),
            Self::BadTarget => {
                of("bad_target", 400, "The path has a malformed percent-encoding or leaves its root.")
            }
            Self::BadHost => of("bad_host", 400, "The Host field does not hold a host."),
            Self::NoRoute => of("no_route", 404, "No route is configured for this host, path and method."),
            Self::MethodRefused => of("method_refused", 405, "This method is not passed on."),
            Self::BodyTooLarge => {
                of("body_too_large", 413, "The request's body is larger than is accepted here.")
            }
            Self::HeadTimeout => of("head_timeout", 408, "The request's head did not arrive in time."),
            Self::BodyTimeout => of("body_timeout", 408, "The request's body stood still for too long."),
            Self::SlowReader => of("slow_reader", 408, "The answer was taken too slowly."),
            Self::ClientGone => of("client_gone", 499, "The client went away."),
            Self::TooManyConnections => {
                of("too_many_connections", 503, "Too many connections are open; try again in a moment.")
            }
            Self::NoNode => {
                of("no_node", 503, "No server is available for this request; try again in a moment.")
            }
            Self::LocalLimit => {
                of("local_limit", 503, "This server is at a limit of its own; try again in a moment.")
            }
            Self::ConnectTimeout => of("connect_timeout", 504, "The server could not be reached in time."),
            Self::ResponseTimeout => of("response_timeout", 504, "The server did not answer in time."),
            Self::NodeClosed => of("node_closed", 502, "The server closed the connection without an answer."),
            Self::BadResponse => of("bad_response", 502, "The server's answer was not valid HTTP."),
            Self::ResponseTruncated => {
                of("response_truncated", 502, "The server's answer ended before its end.")
            }
            Self::ResponseStalled => {
                of("response_stalled", 504, "The server's answer stood still for too long.")
            }
            Self::NotCached => of(
                "not_cached",
                504,
                "The request asked for a stored answer only, and there is none it may have.",
            ),
            Self::Internal => of("internal", 500, "The edge failed on this request; the log says how."),
        }
    }
}

impl From<Malformed> for Reason {
    fn from(error: Malformed) -> Self {
        Self::Malformed(error)
    }
}

/// What a refusal needs besides its reason.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refusal<'a> {
    /// Why.
    pub(crate) reason: Reason,
    /// Goes into the answer, so that its reader can ask about it.
    pub(crate) request_id: &'a RequestId,
    /// The connection ends with this answer.
    pub(crate) close: bool,
    /// The request was HEAD: no body.
    pub(crate) head_only: bool,
    /// The time as an IMF-fixdate (RFC 9110 §5.6.7).
    pub(crate) date: &'a [u8],
}

/// Appends a whole response.
pub(crate) fn write_refusal(out: &mut Vec<u8>, refusal: &Refusal<'_>) {
    let Refusal { reason, request_id, close, head_only, date } = *refusal;
    let body = write(out, reason, Some((request_id, date)), close);
    if !head_only {
        out.extend_from_slice(body.as_bytes());
    }
}

/// What a connection is told that is refused before it was served. The acceptor has neither the time nor a request to
/// name, so these bytes are the same for all; RFC 9110 §6.6.1 asks no Date of a 503.
pub(crate) fn connection_refusal() -> Vec<u8> {
    let mut out = Vec::new();
    let body = write(&mut out, Reason::TooManyConnections, None, true);
    out.extend_from_slice(body.as_bytes());
    out
}

/// Appends the head, and gives the body that belongs to it.
fn write(out: &mut Vec<u8>, reason: Reason, stamp: Option<(&RequestId, &[u8])>, close: bool) -> String {
    let status = match reason.status() {
        // Never sent: whoever should read it has gone.
        499 => 400,
        status => status,
    };
    let title = tenfold_http1::canonical_reason(status);
    let (detail, word) = (reason.detail(), reason.as_str());
    let id = stamp.map(|(id, _)| id.as_str());
    let id_member = id.map(|id| format!(",\"request_id\":\"{id}\"")).unwrap_or_default();
    let body = format!(
        "{{\"type\":\"about:blank\",\"title\":\"{title}\",\"status\":{status},\"detail\":\"{detail}\",\"reason\":\"{word}\"{id_member}}}\n"
    );
    let retry = if status == 503 { "Retry-After: 1\r\n" } else { "" };
    let allow = if reason == Reason::MethodRefused {
        "Allow: GET, HEAD, OPTIONS, POST, PUT, PATCH, DELETE\r\n"
    } else {
        ""
    };
    let connection = if close { "Connection: close\r\n" } else { "" };
    let id_field = id.map(|id| format!("X-Request-Id: {id}\r\n")).unwrap_or_default();
    out.extend_from_slice(format!("HTTP/1.1 {status} {title}\r\n").as_bytes());
    if let Some((_, date)) = stamp {
        out.extend_from_slice(b"Date: ");
        out.extend_from_slice(date);
        out.extend_from_slice(b"\r\n");
    }
    let fields = format!(
        "Content-Type: application/problem+json\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
         Tenfold-Reason: {word}\r\n{id_field}{retry}{allow}{connection}\r\n",
        body.len(),
    );
    out.extend_from_slice(fields.as_bytes());
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request_id::RequestIds;

    fn refusal(reason: Reason, close: bool, head_only: bool) -> String {
        let request_id = RequestIds::new(7).make();
        let date = b"Sun, 06 Nov 1994 08:49:37 GMT";
        let mut out = Vec::new();
        write_refusal(&mut out, &Refusal { reason, request_id: &request_id, close, head_only, date });
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn labels_are_unique_and_plain() {
        let mut labels: Vec<_> = Reason::OWN.iter().map(|reason| reason.as_str()).collect();
        assert!(labels.iter().all(|label| label.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')));
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), Reason::OWN.len());
    }

    #[test]
    fn an_answer_names_its_reason_and_measures_its_body() {
        let text = refusal(Reason::NoNode, true, false);
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{head}");
        for field in ["Tenfold-Reason: no_node", "Retry-After: 1", "Connection: close"] {
            assert!(head.contains(field), "{field} in {head}");
        }
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
        assert!(body.contains("\"reason\":\"no_node\""), "{body}");
    }

    #[test]
    fn a_refused_connection_is_told_why_and_nothing_made_up() {
        let text = String::from_utf8(connection_refusal()).expect("ASCII");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{head}");
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
        assert!(head.contains("Tenfold-Reason: too_many_connections\r\n"), "{head}");
        assert!(head.ends_with("Connection: close"), "{head}");
        for invented in ["Date:", "1970", "Request-Id", "request_id"] {
            assert!(!text.contains(invented), "{invented} in {text}");
        }
    }

    #[test]
    fn head_gets_no_body() {
        assert!(refusal(Reason::NoRoute, false, true).ends_with("\r\n\r\n"));
        assert!(!refusal(Reason::NoRoute, false, true).contains("Connection: close"));
    }
}
