//! HTTP/1.1 as bytes in and facts out: a strict codec for both sides, without I/O.
//!
//! **Intuition.** Most of what has ever gone wrong between HTTP/1 peers came from two of them reading the same bytes
//! differently. So this codec accepts one spelling of each message, refuses the rest with a named reason, and never
//! repairs. Whoever reads a message after us sees what we saw.
//!
//! **Mechanism.** [`parse_request`] and [`parse_response`] look at the bytes received so far and borrow the head from
//! them; [`BodyDecoder`] says which of the bytes that follow are payload; the `write_*` functions append to a buffer
//! and refuse whatever could split a message. The caller owns sockets, buffers and time. Parsing an ordinary head does
//! not allocate.
//!
//! **Failure.** Every refusal is one [`Error`] with the status to answer and a stable label. After an error the
//! position in the stream is unknown by definition: answer if you are the server, then close.
//!
//! ```
//! use tenfold_http1::{BodyDecoder, BodyLength, Limits, Piece, parse_request};
//!
//! let received = b"POST /cart HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 5\r\n\r\nhello";
//! let limits = Limits::default();
//! let mut scanned = 0;
//! let Some((head, consumed)) = parse_request(received, &mut scanned, &limits)? else { panic!("it is all there") };
//! assert_eq!((head.path, head.host, head.body), (&b"/cart"[..], &b"shop.example"[..], BodyLength::Exact(5)));
//!
//! let mut body = BodyDecoder::new(head.body, &limits);
//! assert_eq!(body.decode(&received[consumed..])?, (5, Piece::Data(b"hello")));
//! assert!(body.is_done());
//! # Ok::<(), tenfold_http1::Error>(())
//! ```
//!
//! Sources: RFC 9110 (semantics), RFC 9112 (HTTP/1.1), RFC 3986 (URI).

mod body;
mod bytes;
mod connection;
mod error;
mod fields;
mod framing;
mod limits;
mod method;
mod request;
mod response;
mod scan;
mod target;
mod write;

pub use body::{BodyDecoder, Piece};
pub use connection::{HopByHopNamed, connection_tokens, hop_by_hop_named, is_hop_by_hop};
pub use error::Error;
pub use fields::{Field, Fields, find, find_all, trim_ows};
pub use framing::BodyLength;
pub use limits::Limits;
pub use method::{METHOD_BYTES_MAX, Method, Version};
pub use request::{RequestHead, parse_request};
pub use response::{ResponseHead, parse_response};
pub use target::{Scheme, TargetForm};
pub use write::{
    CHUNK_END, HEAD_END, LAST_CHUNK, canonical_reason, write_chunk, write_chunk_header, write_content_length,
    write_field, write_request_line, write_status_line,
};
