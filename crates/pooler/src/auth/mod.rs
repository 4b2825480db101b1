//! Who may come in, and how we come in elsewhere: logins of clients at us, and of us at servers.
//!
//! **Intuition.** A client proves itself to the pooler as it would to PostgreSQL, and the pooler then proves itself to
//! the server in the client's name. Both are short conversations with secrets in them, so both are machines without
//! sockets: bytes in, bytes out, a decision at the end.
//!
//! **Mechanism.** [`hba`] says which method a connection has to use; [`users`] finds the user's [`Credential`];
//! [`Login`] holds the conversation with the client; [`ServerLogin`] the one with a server, after
//! [`tls_negotiation`] has agreed on encryption. What costs milliseconds of CPU (PBKDF2) is handed out as a
//! [`Derivation`] for a thread that has them.
//!
//! **Failure.** Every refusal is a [`Denial`]: a plain text for the client, the whole truth for the log. Unknown users
//! go through the same exchange as wrong passwords.

pub mod credential;
pub mod derivation;
pub mod hba;
pub mod login;
pub mod server_login;
pub mod tls_negotiation;
pub mod userlist;
pub mod users;

pub use credential::{Credential, ServerSecret};
pub use derivation::{Derivation, SaltedCache, SaltedPassword};
pub use hba::Hba;
pub use login::{Authenticated, ClientFacts, Denial, Login, LoginSeeds, Step, TlsFacts, UnixPeer};
pub use server_login::{FailureKind, ServerLogin, ServerReady, ServerStep};
pub use tls_negotiation::{TlsNegotiation, TlsStep};
pub use users::{Lookup, LookupKey, Users};
