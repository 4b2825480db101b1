//! The pooler's part of the table of keys: `[pooler]` and `[database.NAME]`.
//!
//! What a pool has stands twice in a file: below `pooler.pool` with its defaults, for all databases, and below
//! `database.NAME.pool` without, for one; likewise what a user may have of its own. Here each is written once, and the
//! second table is made from the first.

use tenfold_pooler::tls;

use super::{DAY, Form, HOUR, Key, Kind, MINUTE, YEAR, duration, key};

const SSL_MODES: &[&str] = &["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];
const MODES: &[&str] = &["transaction", "session", "statement"];
const CONNECTIONS_MAX: u64 = tenfold_pooler::config::CONNECTIONS_MAX as u64;

const fn connections(min: u64) -> Kind {
    Kind::Integer { min, max: CONNECTIONS_MAX }
}

const FOREVER: u64 = YEAR;

pub(super) const POOLER: &[Key] = &[
    key("listen", Kind::OneOrMany(&Kind::Text(Form::Listen)), "Where PostgreSQL clients connect, for all databases: addresses, and folders of Unix sockets (`unix:/run/tenfold`, `unix:/run/tenfold:5432` for another port in the socket's name).", "[\"0.0.0.0:6432\", \"unix:/run/tenfold\"]").or("\"127.0.0.1:6432\""),
    key("tls", Kind::Table(CLIENT_TLS), "TLS towards clients; without it none is offered.", "{ certificate = \"server.crt\", key = \"server.key\" }"),
    key("auth", Kind::Choice { known: &["scram-sha-256", "md5", "password", "trust", "cert", "peer"], later: &["ldap", "pam"] }, "How clients prove who they are. `md5` asks users whose secret is a SCRAM verifier for SCRAM; `trust` lets every listed user in; `cert` takes the common name of the client's certificate; `peer` the operating system's user at a Unix socket.", "\"md5\"").or("\"scram-sha-256\""),
    key("hba", Kind::Text(Form::File), "A file in the form of pg_hba.conf; its first matching line decides instead of `auth`.", "\"pg_hba.conf\""),
    key("users", Kind::Table(USERS), "Who may log in, to any database: a list in PgBouncer's form, or a query.", "{ file = \"userlist.txt\" }"),
    key("user", Kind::Named(&POOLER_USER), "What differs for single users, over all databases; with a password it also lists them.", "{ reporting = { size = 2, priority = \"background\" } }"),
    key("admin_users", Kind::List(&Kind::Text(Form::Label)), "Users who may command at the console (`psql -d tenfold`, or `-d pgbouncer`).", "[\"admin\"]").or("[]"),
    key("stats_users", Kind::List(&Kind::Text(Form::Label)), "Users who may only look (`SHOW …`) at the console.", "[\"metrics\"]").or("[]"),
    key("clients_max", connections(1), "Clients at most, over all databases.", "16384").or("16384"),
    key("logins_max", Kind::Integer { min: 1, max: 100_000 }, "Logins worked on at once; others wait their turn. One that waits for its client takes none.", "256").or("256"),
    key("login_timeout", duration(100, HOUR), "From accept to the end of the login.", "\"60s\"").or("\"60s\""),
    key("cancel_wait", duration(0, HOUR), "How long a cancel request may wait for a connection of its own to the server; 0s is for ever.", "\"10s\"").or("\"10s\""),
    key("query_wait_notify", duration(0, HOUR), "A client that waits this long for a server connection is told so by a NOTICE; 0s is never.", "\"5s\"").or("\"5s\""),
    key("ignore_startup_parameters", Kind::List(&Kind::Text(Form::Label)), "Startup parameters that are dropped unread; `options` for all of its settings.", "[\"extra_float_digits\"]").or("[]"),
    key("application_name_add_host", Kind::Boolean, "Appends the client's address to its application_name at the server.", "true").or("false"),
    key("log_connections", Kind::Boolean, "Logs each login and each end of a connection, not only failures.", "true").or("false"),
    key("statements_max", Kind::Integer { min: 1, max: 100_000 }, "Prepared statements kept on each server connection before the least used is closed there.", "200").or("200"),
    key("dns_refresh", duration(1_000, DAY), "How long the addresses of a host's name are believed.", "\"15s\"").or("\"15s\""),
    key("tcp", Kind::Table(TCP), "How TCP connections are watched over, on both sides; 0 leaves a value to the kernel.", "{ keepalive_idle = \"60s\", user_timeout = \"30s\" }").or("{}"),
    key("pool", Kind::Table(&POOL_OF_ALL), "What every pool has unless its database says otherwise. A pool is the server connections of one user in one database.", "{ size = 20, reserve = 5 }").or("{}"),
];

const CLIENT_TLS: &[Key] = &[
    key("certificate", Kind::Text(Form::File), "The certificate with its chain, in PEM.", "\"server.crt\"").required(),
    key("key", Kind::Text(Form::File), "Its private key, in PEM.", "\"server.key\"").required(),
    key("ca", Kind::Text(Form::File), "The authorities whose client certificates are believed, in PEM.", "\"clients-ca.crt\""),
    key("mode", Kind::Choice { known: SSL_MODES, later: &[] }, "What is asked of clients: `prefer` takes both, `require` only TLS, `verify-ca` and `verify-full` also a certificate of `ca`.", "\"require\"").or("\"prefer\""),
    CIPHERS,
    TLS13_CIPHERS,
    VERSION_MIN,
];

const CIPHERS: Key = key(
    "ciphers",
    Kind::List(&Kind::Choice { known: &tls::TLS12_NAMES, later: &[] }),
    "The cipher suites of TLS 1.2 that may be used, those preferred first, by OpenSSL's names or IANA's; all if it is left out.",
    "[\"ECDHE-ECDSA-AES256-GCM-SHA384\", \"ECDHE-RSA-AES256-GCM-SHA384\"]",
);

const TLS13_CIPHERS: Key = key(
    "tls13_ciphers",
    Kind::List(&Kind::Choice { known: &tls::TLS13_NAMES, later: &[] }),
    "The same of TLS 1.3.",
    "[\"TLS_AES_256_GCM_SHA384\"]",
);

const VERSION_MIN: Key = key(
    "version_min",
    Kind::Choice { known: &["1.2", "1.3"], later: &[] },
    "The least version of TLS that is spoken.",
    "\"1.3\"",
)
.or("\"1.2\"");

const USERS: &[Key] = &[
    key(
        "file",
        Kind::Text(Form::File),
        "A file of lines `\"user\" \"secret\"`; the secret is a password, `md5…` or `SCRAM-SHA-256$…`.",
        "\"userlist.txt\"",
    ),
    key(
        "query",
        Kind::Text(Form::Sql),
        "Asks the database for users that are not listed: `$1` is the name; it yields name and secret.",
        "\"SELECT usename, passwd FROM pg_shadow WHERE usename = $1\"",
    ),
    key("user", Kind::Text(Form::Label), "Who asks; by default the user of `primary`.", "\"pooler\""),
    key(
        "password",
        Kind::Text(Form::Password),
        "The password of `user`, if it is not listed.",
        "\"${AUTH_PASSWORD:-secret}\"",
    ),
    key("password_file", Kind::Text(Form::File), "The same, from a file.", "\"/run/secrets/pooler\""),
    key(
        "database",
        Kind::Text(Form::Label),
        "Which of the databases is asked, by its name here; by default the client's.",
        "\"auth\"",
    ),
];

const TCP: &[Key] = &[
    key("keepalive", Kind::Boolean, "Whether quiet connections are probed.", "true").or("true"),
    key("keepalive_idle", duration(0, DAY), "Quiet for this long: the first probe.", "\"60s\"").or("\"0s\""),
    key("keepalive_interval", duration(0, DAY), "Between two probes.", "\"10s\"").or("\"0s\""),
    key(
        "keepalive_count",
        Kind::Integer { min: 0, max: 100 },
        "Probes without an answer that end a connection.",
        "3",
    )
    .or("0"),
    key(
        "user_timeout",
        duration(0, DAY),
        "Sent bytes that stay unacknowledged this long end a connection (TCP_USER_TIMEOUT).",
        "\"30s\"",
    )
    .or("\"0s\""),
];

pub(super) const DATABASE: &[Key] = &[
    key("primary", Kind::OneOrMany(&Kind::Text(Form::PgUrl)), "Where its server is: a URL, several (whichever of them is the primary is used), or the folder of a Unix socket. With a user in it, that user logs in to the server whoever the client is; without, each client's own name is used.", "\"postgres://app@127.0.0.1:5432/shop\"").required(),
    key("replicas", Kind::OneOrMany(&Kind::OneOf(&[Kind::Text(Form::Replica), Kind::Table(REPLICA)])), "Streaming replicas of the primary, each by itself; what only reads may go there. User, database and TLS are as for the primary.", "[\"10.0.0.2:5432\", { host = \"10.0.0.3:5432\", weight = 2 }]"),
    key("reads", Kind::Table(READS), "Which reads go to `replicas`.", "{ consistency = \"own_writes\", lag_max = \"10s\" }"),
    key("password", Kind::Text(Form::Password), "The password at the server, of the user of `primary` or, if it names none, of every user. Not inside the URL, where an @ would break it.", "\"${DB_PASSWORD:-secret}\""),
    key("password_file", Kind::Text(Form::File), "The same, from a file.", "\"/run/secrets/shop\""),
    key("sslmode", Kind::Choice { known: SSL_MODES, later: &[] }, "TLS towards the server, as libpq has it; by default that of the URL (`?sslmode=`), else `prefer`. Unix sockets never use TLS.", "\"verify-full\""),
    key("tls", Kind::Table(SERVER_TLS), "Files for TLS towards the server.", "{ ca = \"system\" }"),
    key("users", Kind::Table(USERS), "Who may log in to this database, besides `pooler.users`. With neither, the user of `primary`, with the same password.", "{ file = \"userlist.txt\" }"),
    key("user", Kind::Named(&USER), "What differs for single users in this database.", "{ reporting = { mode = \"session\", size = 2 } }"),
    key("connect_query", Kind::Text(Form::Sql), "Runs once on each new server connection.", "\"SELECT pg_backend_pid()\""),
    key("pool", Kind::Table(&POOL), "What its pools have of their own; the rest is as in `pooler.pool`.", "{ mode = \"transaction\", size = 20, reserve = 5, clients_max = 10000, query_wait = \"30s\" }").or("{}"),
];

const REPLICA: &[Key] = &[
    key("host", Kind::Text(Form::Replica), "Where it is.", "\"10.0.0.3:5432\"").required(),
    key("weight", Kind::Integer { min: 1, max: 1_000 }, "Its share of the reads beside the others'.", "2")
        .or("1"),
];

const READS: &[Key] = &[
    key("consistency", Kind::Choice { known: &["own_writes", "eventual", "primary"], later: &[] }, "What a reader may count on: with `own_writes` whatever was committed through this pooler before it asked, and no going back in time; with `eventual` a state that is no older than `lag_max`; `primary` sends nothing to replicas.", "\"eventual\"").or("\"own_writes\""),
    key(
        "catch_up",
        duration(0, MINUTE),
        "How long a read waits for a replica to have replayed what it needs, before it goes to the primary; 0s is not at all.",
        "\"20ms\"",
    )
    .or("\"20ms\""),
    key("lag_max", duration(1, DAY), "A replica that is further behind gets no reads.", "\"10s\"")
        .or("\"10s\""),
    key(
        "size",
        connections(1),
        "Server connections to each replica at most, for each user; by default as many as `pool.size`.",
        "20",
    ),
    key(
        "primary_tables",
        Kind::List(&Kind::Text(Form::Label)),
        "Tables that are read at the primary only, with or without their schema.",
        "[\"accounts\", \"billing.invoices\"]",
    )
    .or("[]"),
];

const SERVER_TLS: &[Key] = &[
    key(
        "ca",
        Kind::Text(Form::File),
        "The authorities whose server certificates are believed: a PEM file, or `\"system\"`.",
        "\"system\"",
    ),
    key("certificate", Kind::Text(Form::File), "Our own certificate, in PEM.", "\"client.crt\""),
    key("key", Kind::Text(Form::File), "Its private key, in PEM.", "\"client.key\""),
    CIPHERS,
    TLS13_CIPHERS,
    VERSION_MIN,
];

// What a pool has, and a user may have of its own.

const MODE: Key = key(
    "mode",
    Kind::Choice { known: MODES, later: &[] },
    "When a server connection goes back: at the end of each `transaction`, of the `session`, or of each `statement` (BEGIN is refused then).",
    "\"session\"",
);

const SIZE: Key = key("size", connections(1), "Server connections at most.", "20");

const RESERVE: Key =
    key("reserve", connections(0), "More of them, once a client has waited `reserve_wait`.", "5");

const QUERY_TIMEOUT: Key =
    key("query_timeout", duration(0, FOREVER), "A statement may run this long; 0s is for ever.", "\"30s\"");

const IDLE_IN_TRANSACTION: Key = key(
    "idle_in_transaction",
    duration(0, FOREVER),
    "An open transaction may wait for its client this long; 0s is for ever.",
    "\"60s\"",
);

const TRANSACTION_TIMEOUT: Key = key(
    "transaction_timeout",
    duration(0, FOREVER),
    "A transaction may last this long; 0s is for ever.",
    "\"5m\"",
);

const CLIENT_IDLE: Key = key(
    "client_idle",
    duration(0, FOREVER),
    "A client outside a transaction may say nothing for this long; 0s is for ever.",
    "\"1h\"",
);

/// What a pool has: below `pooler.pool`, for all databases, each with its default.
const POOL_OF_ALL: [Key; 20] = [
    MODE.or("\"transaction\""),
    SIZE.or("20"),
    RESERVE.or("5"),
    key("reserve_wait", duration(0, HOUR), "See `reserve`.", "\"3s\"")
    .or("\"3s\""),
    key("min", connections(0), "Server connections kept open even when unused.", "2")
    .or("0"),
    key(
        "database_max",
        connections(0),
        "Server connections of the database at most, over all its users; 0 is no limit.",
        "50",
    )
    .or("0"),
    key("clients_max", connections(0), "Clients of the database at most; 0 is no limit.", "10000")
    .or("0"),
    key(
        "query_wait",
        duration(0, FOREVER),
        "How long a client may wait for a server connection; 0s is for ever.",
        "\"30s\"",
    )
    .or("\"30s\""),
    key(
        "idle",
        duration(0, FOREVER),
        "Server connections unused for this long are closed; 0s is never.",
        "\"10m\"",
    )
    .or("\"10m\""),
    key(
        "lifetime",
        duration(0, FOREVER),
        "Server connections this old are closed once free; 0s is never.",
        "\"1h\"",
    )
    .or("\"1h\""),
    key(
        "fast_close",
        Kind::Boolean,
        "Whether a session whose server connection is to be replaced (RECONNECT, another host, TLS or password) ends with its transaction rather than by itself; only matters where a client keeps its connection.",
        "true",
    )
    .or("false"),
    QUERY_TIMEOUT.or("\"0s\""),
    IDLE_IN_TRANSACTION.or("\"0s\""),
    TRANSACTION_TIMEOUT.or("\"0s\""),
    CLIENT_IDLE.or("\"0s\""),
    key("connect_timeout", duration(10, HOUR), "For a connection to a server, its login included; and for the answer to what the pooler itself asks on one.", "\"5s\"")
    .or("\"5s\""),
    key(
        "connect_retry",
        duration(1, HOUR),
        "After a failed connection to a server, this long until the next try.",
        "\"250ms\"",
    )
    .or("\"250ms\""),
    key(
        "check_after",
        duration(0, DAY),
        "A server connection idle for longer is asked whether it lives before it is used.",
        "\"30s\"",
    )
    .or("\"30s\""),
    key(
        "hot_rows",
        Kind::Ratio,
        "Which part of a pool the statements on one and the same row may hold, so that one lock cannot take all of it; 100% is all.",
        "\"50%\"",
    )
    .or("\"50%\""),
    key(
        "sequences",
        Kind::Choice { known: &["adaptive", "pin", "free"], later: &[] },
        "Whether `nextval()` keeps a client on its server connection, so that `currval()` works in a later transaction: until others need the connection, always, or never.",
        "\"pin\"",
    )
    .or("\"adaptive\""),
];

/// The same below `database.NAME.pool`, for one: what is left out there is as it is for all.
const POOL: [Key; POOL_OF_ALL.len()] = without_defaults(POOL_OF_ALL);

const fn without_defaults<const N: usize>(mut keys: [Key; N]) -> [Key; N] {
    let mut at = 0;
    while at < N {
        keys[at].default = None;
        at += 1;
    }
    keys
}

/// What a user may have of its own: in one database.
const USER: [Key; 10] = [
    MODE,
    SIZE,
    RESERVE,
    key("clients_max", connections(1), "Clients of this user at most.", "100"),
    key("servers_max", connections(1), "Server connections of this user at most.", "10"),
    key(
        "priority",
        Kind::Choice { known: &["critical", "normal", "background"], later: &[] },
        "Whose turn it is when clients wait for a server connection.",
        "\"background\"",
    )
    .or("\"normal\""),
    QUERY_TIMEOUT,
    IDLE_IN_TRANSACTION,
    TRANSACTION_TIMEOUT,
    CLIENT_IDLE,
];

/// What lists a user, over all databases.
const LISTED: [Key; 2] = [
    key(
        "password",
        Kind::Text(Form::Password),
        "Lists the user with this secret: a password, `md5…` or `SCRAM-SHA-256$…`.",
        "\"${REPORTING_PASSWORD:-secret}\"",
    ),
    key("password_file", Kind::Text(Form::File), "The same, from a file.", "\"/run/secrets/reporting\""),
];

/// A user of all databases: what lists it, and what it may have of its own.
const POOLER_USER: [Key; LISTED.len() + USER.len()] = {
    let mut keys = [LISTED[0]; LISTED.len() + USER.len()];
    let mut at = 1;
    while at < keys.len() {
        keys[at] = if at < LISTED.len() { LISTED[at] } else { USER[at - LISTED.len()] };
        at += 1;
    }
    keys
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_for_all_pools_has_defaults_and_what_is_one_databases_own_has_none() {
        assert!(POOL_OF_ALL.iter().all(|key| key.default.is_some()));
        assert!(POOL.iter().all(|key| key.default.is_none()));
    }

    #[test]
    fn a_user_of_all_databases_has_what_lists_it_and_what_a_user_of_one_has() {
        let names = |keys: &[Key]| keys.iter().map(|key| key.name).collect::<Vec<_>>();
        assert_eq!(names(&POOLER_USER), [names(&LISTED), names(&USER)].concat());
    }
}
