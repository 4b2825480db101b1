//! Every way in which the pooler itself says no, closed: the metric's label, the log's word and the error a client reads.
//!
//! **Mechanism.** A [`Refusal`] knows its SQLSTATE (PostgreSQL, Appendix A) and its text; `pgwire` writes it.

/// Why the pooler refused something, or ended it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Over the limit of clients in total.
    ClientsMax,
    /// Over the limit of clients of the database.
    DatabaseClientsMax,
    /// Over the limit of clients of the user.
    UserClientsMax,
    /// Wrong password, unknown user, wrong certificate: never told apart.
    Authentication,
    /// An HBA rule, or none, refuses this address.
    HbaReject,
    /// No such database.
    UnknownDatabase,
    /// The database was disabled at the console.
    DatabaseDisabled,
    /// Not logged in in time.
    LoginTimeout,
    /// TLS is asked for.
    TlsRequired,
    /// No server connection within the time allowed.
    QueryWait,
    /// A statement ran too long.
    QueryTimeout,
    /// A transaction waited too long for its client.
    IdleInTransaction,
    /// A transaction lasted too long.
    TransactionTimeout,
    /// A client said nothing for too long.
    ClientIdle,
    /// Not the PostgreSQL protocol.
    Protocol,
    /// A startup parameter cannot be honoured.
    StartupParameter,
    /// A switch in the startup parameter `options` that is no setting.
    StartupOption,
    /// The server went away in mid-transaction.
    ServerLost,
    /// A transaction of several statements in statement mode.
    StatementMode,
    /// The connection that listens for this database's notifications was lost.
    HubLost,
    /// Killed at the console.
    Killed,
    /// The server connection that the session holds is to be replaced.
    ServerReplaced,
    /// The process ends.
    ShuttingDown,
    /// More prepared statements than one client may keep.
    StatementsMax,
}

impl Refusal {
    /// All of them, for metrics.
    pub const ALL: [Self; 24] = [
        Self::ClientsMax,
        Self::DatabaseClientsMax,
        Self::UserClientsMax,
        Self::Authentication,
        Self::HbaReject,
        Self::UnknownDatabase,
        Self::DatabaseDisabled,
        Self::LoginTimeout,
        Self::TlsRequired,
        Self::QueryWait,
        Self::QueryTimeout,
        Self::IdleInTransaction,
        Self::TransactionTimeout,
        Self::ClientIdle,
        Self::Protocol,
        Self::StartupParameter,
        Self::StartupOption,
        Self::ServerLost,
        Self::StatementMode,
        Self::HubLost,
        Self::Killed,
        Self::ServerReplaced,
        Self::ShuttingDown,
        Self::StatementsMax,
    ];

    /// The word for logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClientsMax => "clients_max",
            Self::DatabaseClientsMax => "database_clients_max",
            Self::UserClientsMax => "user_clients_max",
            Self::Authentication => "authentication",
            Self::HbaReject => "hba_reject",
            Self::UnknownDatabase => "unknown_database",
            Self::DatabaseDisabled => "database_disabled",
            Self::LoginTimeout => "login_timeout",
            Self::TlsRequired => "tls_required",
            Self::QueryWait => "query_wait",
            Self::QueryTimeout => "query_timeout",
            Self::IdleInTransaction => "idle_in_transaction",
            Self::TransactionTimeout => "transaction_timeout",
            Self::ClientIdle => "client_idle",
            Self::Protocol => "protocol",
            Self::StartupParameter => "startup_parameter",
            Self::StartupOption => "startup_option",
            Self::ServerLost => "server_lost",
            Self::StatementMode => "statement_mode",
            Self::HubLost => "hub_lost",
            Self::Killed => "killed",
            Self::ServerReplaced => "server_replaced",
            Self::ShuttingDown => "shutting_down",
            Self::StatementsMax => "statements_max",
        }
    }

    /// Its SQLSTATE.
    #[must_use]
    pub const fn sqlstate(self) -> &'static str {
        match self {
            Self::ClientsMax | Self::DatabaseClientsMax | Self::UserClientsMax => "53300",
            Self::Authentication => "28P01",
            Self::HbaReject | Self::TlsRequired => "28000",
            Self::UnknownDatabase => "3D000",
            Self::DatabaseDisabled => "57P03",
            Self::LoginTimeout | Self::Protocol => "08P01",
            Self::QueryWait | Self::QueryTimeout => "57014",
            Self::IdleInTransaction => "25P03",
            Self::TransactionTimeout => "25P04",
            Self::ClientIdle => "57P05",
            Self::StartupParameter => "22023",
            Self::StartupOption => "42601",
            Self::ServerLost => "08006",
            Self::StatementMode => "0A000",
            Self::HubLost | Self::Killed | Self::ServerReplaced | Self::ShuttingDown => "57P01",
            Self::StatementsMax => "54000",
        }
    }
}
