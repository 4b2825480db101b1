//! Building messages of both directions, each appended to the caller's buffer.
//!
//! **Intuition.** Answers that we invent and queries of our own go out in the same write as what is passed through, so
//! everything appends to one `Vec<u8>` and nothing else is allocated.
//!
//! **Mechanism.** One function per message, named after it; [`Report`] builds ErrorResponse and NoticeResponse,
//! [`message`] has the pieces. Where a length is known beforehand it is written first, else it is filled in at the end.
//!
//! **Failure.** A string that holds a NUL ends there, as it would in C, so no argument can add a field to a message. A
//! message above 2 GiB is a mistake of ours and panics; frames that we accept are half as long.

mod backend;
mod frontend;
pub mod message;
mod report;

pub use backend::*;
pub use frontend::*;
pub use report::{Report, Severity};
