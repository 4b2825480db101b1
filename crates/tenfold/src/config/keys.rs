//! The table of keys: what `tenfold.toml` may say, declared once.
//!
//! **Intuition.** A key that is parsed in one place, documented in a second and completed by an editor from a third
//! will drift. Here each key is one value: its name, what it takes, its default, a sentence and an example.
//!
//! **Mechanism.** [`ROOT`] is a tree of [`Key`]s. The walker (`config::walk`) checks a file against it, fills defaults
//! in and collects every mistake; `config::schema` prints it as JSON Schema; `config::explain` prints it for a person;
//! tests hold that each default and example is accepted by its own key and that the guide names every key.
//!
//! **Failure.** A key that a later release will know is declared as [`Kind::Later`]: it is recognised and refused, since
//! a setting that is quietly ignored is worse than one that is missing.

mod pooler;

/// One key of a table.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// As written in the file.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// The default as TOML; absent where leaving the key out means "none".
    pub default: Option<&'static str>,
    /// Whether leaving it out is a mistake.
    pub required: bool,
    /// One sentence or two for `config explain`, the schema and the guide.
    pub doc: &'static str,
    /// A value as TOML.
    pub example: &'static str,
}

/// What a key takes.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// `true` or `false`.
    Boolean,
    /// A whole number in this range.
    Integer {
        /// Least value accepted.
        min: u64,
        /// Greatest value accepted.
        max: u64,
    },
    /// `"250ms"`, `"10s"`, `"5m"`, `"1h30m"`, `"1d"`.
    Duration {
        /// Least value accepted, in milliseconds.
        min_ms: u64,
        /// Greatest value accepted, in milliseconds.
        max_ms: u64,
    },
    /// `"64KiB"`, `"2GiB"`.
    Size {
        /// Least value accepted, in bytes.
        min: u64,
        /// Greatest value accepted, in bytes.
        max: u64,
    },
    /// `"20%"`, from 0 to 100 %.
    Ratio,
    /// A string of a certain form.
    Text(Form),
    /// One of these words.
    Choice {
        /// Words this release knows.
        known: &'static [&'static str],
        /// Words a later release will know.
        later: &'static [&'static str],
    },
    /// The name of a `[cluster.NAME]`.
    ClusterName,
    /// A list.
    List(&'static Kind),
    /// One value, or a list of them.
    OneOrMany(&'static Kind),
    /// A table with these keys.
    Table(&'static [Key]),
    /// A table of tables by name: `[cluster.NAME]`.
    Named(&'static [Key]),
    /// An array of tables: `[[route]]`.
    Each(&'static [Key]),
    /// A table from free names to text: `headers = { x-client = "ios" }`.
    Fields,
    /// Whichever of these fits the TOML type that was written.
    OneOf(&'static [Kind]),
    /// A later release will know it; the text says what it is for.
    Later,
}

/// What a string must look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// An address to listen on: `127.0.0.1:8080`, `[::1]:8080`.
    Socket,
    /// A network: `10.0.0.0/8`, or a single address.
    Network,
    /// A node: `host:port`.
    Node,
    /// A path that starts with `/`, without patterns.
    Path,
    /// A route's path: `/api/products/{id}`, `/static/{*rest}`.
    Pattern,
    /// A host name, `*.example.com` for its subdomains.
    Host,
    /// An authority to send as Host: `shop.example`, `shop.example:8080`.
    Authority,
    /// A method, in upper case.
    Method,
    /// `header:NAME` or `cookie:NAME`.
    KeyPart,
    /// A query parameter's name, or how it begins and a `*`.
    Parameter,
    /// A tag, with places in braces.
    Tag,
    /// Any words without control characters.
    Label,
    /// A secret: never printed.
    Secret,
    /// An address to listen on, or `unix:/folder`, `unix:/folder:port`.
    Listen,
    /// Where a PostgreSQL server is, without a password: never printed, in case there is one all the same.
    PgUrl,
    /// A replica: `host:port`, or as [`Form::PgUrl`] with one host. Never printed either.
    Replica,
    /// A file's path; relative ones start at the folder of the configuration.
    File,
    /// Where a Redis server is: never printed, in case it holds a password.
    RedisUrl,
    /// SQL: any text but the empty one.
    Sql,
    /// A password of any length: never printed.
    Password,
}

pub(super) const fn key(name: &'static str, kind: Kind, doc: &'static str, example: &'static str) -> Key {
    Key { name, kind, default: None, required: false, doc, example }
}

pub(super) const fn later(name: &'static str, doc: &'static str) -> Key {
    Key { name, kind: Kind::Later, default: None, required: false, doc, example: "" }
}

impl Key {
    pub(super) const fn or(mut self, default: &'static str) -> Self {
        self.default = Some(default);
        self
    }

    pub(super) const fn required(mut self) -> Self {
        self.required = true;
        self
    }
}

pub(super) const fn duration(min_ms: u64, max_ms: u64) -> Kind {
    Kind::Duration { min_ms, max_ms }
}

const SECOND: u64 = 1_000;
pub(super) const MINUTE: u64 = 60 * SECOND;
pub(super) const HOUR: u64 = 60 * MINUTE;
pub(super) const DAY: u64 = 24 * HOUR;
pub(super) const YEAR: u64 = 365 * DAY;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// Everything a file may say.
pub const ROOT: &[Key] = &[
    key(
        "workers",
        Kind::Integer { min: 0, max: 1024 },
        "Worker threads; 0 is one per core. Needs a restart to change.",
        "4",
    )
    .or("0"),
    key(
        "admin",
        Kind::Table(ADMIN),
        "The admin server: metrics, readiness, and the API behind the CLI.",
        "{ listen = \"127.0.0.1:9900\" }",
    )
    .or("{}"),
    key("log", Kind::Table(LOG), "What is logged, and how.", "{ format = \"json\" }").or("{}"),
    key("drain", Kind::Table(DRAIN), "How the process stops.", "{ deadline = \"30s\" }").or("{}"),
    key(
        "edge",
        Kind::Table(EDGE),
        "Where the edge listens and what one client may cost.",
        "{ listen = \"0.0.0.0:8080\" }",
    )
    .or("{}"),
    key(
        "cache",
        Kind::Table(CACHE),
        "The cache, shared by all routes, and what edges share of it.",
        "{ memory = \"512MiB\" }",
    )
    .or("{}"),
    key(
        "cluster",
        Kind::Named(CLUSTER),
        "Groups of nodes that serve the same thing, by name.",
        "{ api = { nodes = [\"127.0.0.1:3000\"] } }",
    ),
    key(
        "route",
        Kind::Each(ROUTE),
        "Which requests go where. Host first, then the path's literals from left to right, then methods, then headers; a tie is an error.",
        "[{ path = \"/{*rest}\", to = \"api\" }]",
    ),
    later("secrets", "signs tickets and tokens"),
    key(
        "redis",
        Kind::Named(REDIS),
        "Redis or Valkey servers, by name. `cache.redis` says which one the edges share.",
        "{ cache = { url = \"redis://127.0.0.1:6379\" } }",
    ),
    later("auth", "who may come in"),
    later("rate", "rate limits"),
    later("waiting_room", "a queue before the shop"),
    key(
        "pooler",
        Kind::Table(pooler::POOLER),
        "Where PostgreSQL clients connect, and what holds for all databases.",
        "{ listen = \"127.0.0.1:6432\" }",
    )
    .or("{}"),
    key(
        "database",
        Kind::Named(pooler::DATABASE),
        "PostgreSQL databases by the name clients ask for; `\"*\"` stands for all names not given.",
        "{ shop = { primary = \"postgres://app@127.0.0.1:5432/shop\" } }",
    ),
];

const ADMIN: &[Key] = &[
    key(
        "listen",
        Kind::Text(Form::Socket),
        "JSON API for the CLI, and /metrics. Off loopback it needs `token`. Needs a restart to change.",
        "\"127.0.0.1:9900\"",
    )
    .or("\"127.0.0.1:9900\""),
    key(
        "probe_listen",
        Kind::Text(Form::Socket),
        "A second address that serves only /healthz, /readyz and /metrics, without a token. Needs a restart to change.",
        "\"0.0.0.0:9901\"",
    ),
    key(
        "token",
        Kind::Text(Form::Secret),
        "What callers of the admin server must send as `Authorization: Bearer`, at least 16 characters. Needs a restart to change.",
        "\"${TENFOLD_ADMIN_TOKEN:-}\"",
    ),
    key(
        "handover",
        Kind::Text(Form::Path),
        "The Unix socket by which `tenfold run --take-over` finds this process, for this user alone. By itself it is in RUNTIME_DIRECTORY, XDG_RUNTIME_DIR or a folder of this user's. Needs a restart to change.",
        "\"/run/tenfold/handover.sock\"",
    ),
];

const LOG: &[Key] = &[
    key(
        "format",
        Kind::Choice { known: &["text", "json"], later: &[] },
        "How log lines are written. Needs a restart to change.",
        "\"json\"",
    )
    .or("\"text\""),
    key(
        "access",
        Kind::Ratio,
        "Share of ordinary requests in the access log; errors and refusals are always in it.",
        "\"100%\"",
    )
    .or("\"1%\""),
];

const DRAIN: &[Key] = &[
    key(
        "deadline",
        duration(0, DAY),
        "How long open requests may finish in after SIGTERM or SIGINT; a second signal ends at once.",
        "\"30s\"",
    )
    .or("\"30s\""),
    key(
        "handover",
        duration(0, 30 * DAY),
        "How long the old process of an online restart goes on serving those that the new one cannot take over.",
        "\"10m\"",
    )
    .or("\"1h\""),
];

const EDGE: &[Key] = &[
    key(
        "listen",
        Kind::OneOrMany(&Kind::Text(Form::Socket)),
        "Where clients connect; `[::]:8080` takes IPv4 too.",
        "[\"10.0.0.5:8080\", \"[::1]:8080\"]",
    )
    .or("\"127.0.0.1:8080\""),
    later("tls", "HTTPS"),
    key(
        "trusted_proxies",
        Kind::List(&Kind::Text(Form::Network)),
        "Networks whose X-Forwarded-For, Forwarded (of the client's address) and X-Forwarded-Proto are believed.",
        "[\"10.0.0.0/8\"]",
    )
    .or("[]"),
    key(
        "connections_max",
        Kind::Integer { min: 1, max: 10_000_000 },
        "Open client connections in all.",
        "16384",
    )
    .or("16384"),
    key(
        "connections_per_ip_max",
        Kind::Integer { min: 1, max: 10_000_000 },
        "Open connections of one address (IPv6: of one /64); none by default, since a whole carrier may sit behind one address.",
        "256",
    ),
    key(
        "requests_per_connection_max",
        Kind::Integer { min: 1, max: u64::MAX >> 1 },
        "Requests served on one connection before it is closed in an orderly way.",
        "100000",
    )
    .or("100000"),
    key(
        "head_max",
        Kind::Size { min: KIB, max: MIB },
        "The request head with its request line.",
        "\"32KiB\"",
    )
    .or("\"32KiB\""),
    key("field_line_max", Kind::Size { min: 256, max: MIB }, "One field line of a request head.", "\"8KiB\"")
        .or("\"8KiB\""),
    key("target_max", Kind::Size { min: 64, max: MIB }, "The request target: path and query.", "\"8KiB\"")
        .or("\"8KiB\""),
    key("fields_max", Kind::Integer { min: 4, max: 1000 }, "Fields in a request head.", "100").or("100"),
    key("body_max", Kind::Size { min: 0, max: TIB }, "The body of a request.", "\"100MiB\"").or("\"1GiB\""),
    key("head_read", duration(100, HOUR), "From the first byte of a request head to its last.", "\"10s\"")
        .or("\"10s\""),
    key(
        "keep_alive",
        duration(100, DAY),
        "How long a kept-alive connection may stay quiet between requests.",
        "\"60s\"",
    )
    .or("\"60s\""),
    key(
        "body_idle",
        duration(100, DAY),
        "How long a body may stand still on the client's side, in either direction.",
        "\"30s\"",
    )
    .or("\"30s\""),
    key(
        "send_rate_min",
        Kind::Size { min: 0, max: GIB },
        "Bytes a second below which, over `body_idle`, a client that takes a response or, until it is answered, sends a body too slowly is cut.",
        "\"512B\"",
    )
    .or("\"512B\""),
    key(
        "own_writes",
        Kind::Table(OWN_WRITES),
        "What clients of routes with `own_writes` carry from one request to the next.",
        "{ ttl = \"1h\" }",
    )
    .or("{}"),
];

const OWN_WRITES: &[Key] = &[
    key(
        "key",
        Kind::Text(Form::Secret),
        "Seals it, at least 16 characters; edges that share clients have the same one. Without it the process makes one up, which no other edge believes and which a restart forgets.",
        "\"${TENFOLD_POSITION_KEY:-}\"",
    ),
    key(
        "ttl",
        duration(10 * SECOND, 30 * DAY),
        "How long it counts. Stored answers that were fetched before a write may be as old as their lifetime, so this should be no shorter.",
        "\"1h\"",
    )
    .or("\"1h\""),
    key(
        "lag_max",
        duration(1, HOUR),
        "How far behind a replica that is used can be. For so long, and two seconds more, only the primary answers who wrote something at an unknown position. The largest `reads.lag_max` of the databases here by default, `\"10s\"` without any.",
        "\"10s\"",
    ),
];

const CACHE: &[Key] = &[
    key("memory", Kind::Size { min: 0, max: 16 * TIB }, "What stored responses may weigh in RAM, with their heads, keys and bookkeeping; fetches under way may hold a quarter more. Needs a restart to change.", "\"512MiB\"").or("\"256MiB\""),
    key("redis", Kind::Text(Form::Label), "The `[redis.NAME]` through which edges share what they fetched and hear of each other's purges. Needs a restart to change.", "\"cache\""),
    key("shared", Kind::Table(CACHE_SHARED), "What the shared tier may cost. Needs a restart to change.", "{ budget = \"5ms\" }").or("{}"),
    key("object_max", Kind::Size { min: KIB, max: 4 * GIB }, "The largest response that is stored; larger ones stream past. Needs a restart to change.", "\"4MiB\"").or("\"4MiB\""),
    key("variants_max", Kind::Integer { min: 1, max: 1000 }, "Variants kept of one URL whose responses have `Vary`. Needs a restart to change.", "16").or("16"),
    key("files_max", Kind::Integer { min: 0, max: 1_000_000 }, "Large bodies that lie in files of memory, from where the kernel sends them without copying; a descriptor each, and never more than a quarter of those the process may have. `0` keeps all in the process's own memory. Needs a restart to change.", "4096").or("4096"),
    key("fills_max", Kind::Integer { min: 1, max: 1_000_000 }, "Fetches for the cache that run at once; requests beyond it go to the nodes by themselves. Needs a restart to change.", "4096").or("4096"),
    key("purge_blind_max", duration(2 * SECOND, YEAR), "How long an edge that can't hear of the others' purges calls what it has fresh; for ever by default, which a metric shows. Needs a restart to change.", "\"5m\""),
    key("refills_max", Kind::Integer { min: 1, max: 1_000_000 }, "Fetches at once, for each cluster, that renew what became suspect when purges may have been missed, as after a restart of Redis. Without it: a tenth of the most requests that the cluster was seen to have in flight in the last hour or two, at most 32. Needs a restart to change.", "32"),
];

const CACHE_SHARED: &[Key] = &[
    key(
        "budget",
        duration(1, MINUTE),
        "How long a miss may wait for the shared tier before it goes to the nodes.",
        "\"5ms\"",
    )
    .or("\"5ms\""),
    key(
        "shield_budget",
        duration(1, MINUTE),
        "How long a miss may wait for the shared tier on routes with `shield`, where an answer saves the nodes more than `budget` allows for elsewhere. Waiting for another edge's fetch does not count.",
        "\"200ms\"",
    )
    .or("\"200ms\""),
    key(
        "life_max",
        duration(MINUTE, 30 * DAY),
        "The longest that a response stays in the shared tier, however long it is fresh.",
        "\"1h\"",
    )
    .or("\"1h\""),
    key(
        "object_max",
        Kind::Size { min: KIB, max: 64 * MIB },
        "The largest response that is shared.",
        "\"1MiB\"",
    )
    .or("\"1MiB\""),
    key(
        "prefix",
        Kind::Text(Form::Label),
        "Before the names of all keys in Redis; edges that share have the same one.",
        "\"tenfold\"",
    )
    .or("\"tenfold\""),
];

const REDIS: &[Key] = &[
    key("url", Kind::Text(Form::RedisUrl), "Where it is: `redis://`, `rediss://` for TLS, or `redis+sentinel://HOST:PORT,HOST:PORT/NAME` (`rediss+sentinel://` for TLS). Needs a restart to change.", "\"redis://127.0.0.1:6379\"").required(),
    key("ca", Kind::Text(Form::File), "With TLS: the authorities that vouch for the server, in PEM; without it those that the system trusts. Needs a restart to change.", "\"redis-ca.crt\""),
    key("user", Kind::Text(Form::Label), "The user of its access control list. Needs a restart to change.", "\"tenfold\""),
    key("password", Kind::Text(Form::Password), "Not inside the URL, where an @ would break it. Needs a restart to change.", "\"${REDIS_PASSWORD:-secret}\""),
    key("connect", duration(10, MINUTE), "How long making a connection may take, with TLS and authentication. Needs a restart to change.", "\"1s\"").or("\"1s\""),
    key("probe", duration(1, MINUTE), "A server that doesn't answer a probe within this is not asked. Needs a restart to change.", "\"50ms\"").or("\"50ms\""),
    key("in_flight_max", Kind::Integer { min: 1, max: 100_000 }, "Calls under way at once; what is beyond does without. Needs a restart to change.", "512").or("512"),
];

const CLUSTER: &[Key] = &[
    key("nodes", Kind::List(&Kind::OneOf(&[Kind::Text(Form::Node), Kind::Table(NODE)])), "The nodes: addresses, or tables with a weight.", "[\"127.0.0.1:3000\", { address = \"127.0.0.1:3001\", weight = 2 }]").required(),
    later("dns", "nodes from DNS"),
    key("balance", Kind::Choice { known: &["least_connections", "round_robin"], later: &["power_of_two", "ip_hash", "hash"] }, "How a node is picked.", "\"round_robin\"").or("\"least_connections\""),
    key("health", Kind::Table(HEALTH), "Asks each node for a path; without it only failing requests tell.", "{ path = \"/health\", every = \"2s\" }"),
    key("retries", Kind::Table(RETRIES), "When a request may be sent again: if it is safe to, before the first byte of an answer, to another node.", "{ per_request = 1, budget = \"20%\" }").or("{}"),
    later("concurrency", "limits on requests in flight"),
    key("timeout", Kind::Table(TIMEOUT), "What each wait on a node may take.", "{ connect = \"1s\", response = \"10s\", idle = \"60s\" }").or("{}"),
    later("database", "the pressure of a database"),
];

const NODE: &[Key] = &[
    key(
        "address",
        Kind::Text(Form::Node),
        "`host:port`; a name is resolved again every half minute.",
        "\"api-2.internal:3000\"",
    )
    .required(),
    key("weight", Kind::Integer { min: 1, max: 256 }, "Share of the work beside its siblings.", "2").or("1"),
    key(
        "host",
        Kind::Text(Form::Authority),
        "What to send as Host instead of the client's.",
        "\"api.example\"",
    ),
];

const HEALTH: &[Key] = &[
    key("path", Kind::Text(Form::Path), "What to ask for; a status from 200 to 399 passes.", "\"/health\"")
        .required(),
    key("every", duration(100, HOUR), "Between two checks of a node.", "\"2s\"").or("\"2s\""),
    key("timeout", duration(10, HOUR), "How long a node may take to answer a check.", "\"1s\"").or("\"1s\""),
    key(
        "fail_after",
        Kind::Integer { min: 1, max: 100 },
        "Failed checks in a row that take a node out.",
        "3",
    )
    .or("3"),
    key("pass_after", Kind::Integer { min: 1, max: 100 }, "Passed checks in a row that bring it back.", "2")
        .or("2"),
];

const RETRIES: &[Key] = &[
    key("per_request", Kind::Integer { min: 0, max: 3 }, "How often one request may be sent again.", "1")
        .or("1"),
    key(
        "budget",
        Kind::Ratio,
        "Retries as a share of the cluster's requests, so that retries never become the load.",
        "\"20%\"",
    )
    .or("\"20%\""),
];

const TIMEOUT: &[Key] = &[
    key("connect", duration(1, HOUR), "For the TCP connection.", "\"1s\"").or("\"1s\""),
    key(
        "response",
        duration(1, DAY),
        "From the end of the request's body to the response's head.",
        "\"10s\"",
    )
    .or("\"10s\""),
    key(
        "idle",
        duration(1, DAY),
        "How long a body may stand still on the node's side, in either direction.",
        "\"60s\"",
    )
    .or("\"60s\""),
];

const ROUTE: &[Key] = &[
    key("name", Kind::Text(Form::Label), "For metrics and logs; the path where absent.", "\"product\""),
    key("path", Kind::Text(Form::Pattern), "`{name}` is one segment, a last `{*rest}` the remainder.", "\"/api/products/{id}\"").required(),
    key("host", Kind::Text(Form::Host), "An exact host, or `*.example.com` for its subdomains; any if absent.", "\"api.shop.example\""),
    key("methods", Kind::List(&Kind::Text(Form::Method)), "Any method if absent.", "[\"GET\", \"HEAD\"]").or("[]"),
    key("headers", Kind::Fields, "Request headers that must have exactly this value.", "{ x-client = \"ios\" }"),
    key("to", Kind::ClusterName, "The cluster that answers.", "\"api\"").required(),
    later("priority", "shedding by priority"),
    key("cache", Kind::OneOf(&[Kind::Choice { known: &["respect", "off"], later: &[] }, Kind::Table(ROUTE_CACHE)]), "`\"respect\"` follows the response's own headers (RFC 9111, explicit freshness only), `\"off\"` stores nothing, a table overrides.", "{ ttl = \"30s\", stale_while_revalidate = \"10m\" }").or("\"respect\""),
    later("auth", "who may come in"),
    later("rate", "rate limits"),
    later("waiting_room", "a queue before the shop"),
    key("own_writes", Kind::Boolean, "Clients see their own writes, in answers from the cache too: the answer to an unsafe request brings a sealed token (`Tenfold-Position`, a cookie and a field) that says where the database is by then; the next requests bring it back, stored answers that may be older are passed over for this client, and the nodes are sent it for their statements' comments.", "true").or("false"),
];

const ROUTE_CACHE: &[Key] = &[
    key("ttl", duration(0, YEAR), "How long a response is fresh, whatever lifetime it names itself; for status 200, 203, 204, 300, 301 and 308, others follow their own headers. A response marked `private` or `no-store` is not stored, unless `shared` is true. Does not apply to a request with Authorization or Cookie, unless `shared` is true or all of that header is in `key`. Without it the response's own headers say.", "\"30s\""),
    key("negative_ttl", duration(0, DAY), "How long a response is fresh whose status is 404, 405, 410, 414, 451 or 500 to 504 and that has no lifetime of its own. Stale, it answers nothing.", "\"5s\""),
    key("heuristic", Kind::Boolean, "A response that names no lifetime is fresh for a tenth of the time since its Last-Modified, at most a day (RFC 9111 §4.2.2). Not for a request with Authorization or Cookie, unless `shared` is true or all of that header is in `key`, nor for a response with Set-Cookie; what says `public` is for all of them.", "true").or("false"),
    key("stale_while_revalidate", duration(0, YEAR), "How long after the end of its lifetime a stale copy answers while a fresh one is fetched.", "\"10m\"").or("\"0s\""),
    key("stale_if_error", duration(0, YEAR), "How long after the end of its lifetime a stale copy answers when the nodes fail; counted from there, not from the end of `stale_while_revalidate`.", "\"1d\"").or("\"0s\""),
    key("key", Kind::List(&Kind::Text(Form::KeyPart)), "Request headers and cookies that tell copies apart.", "[\"header:accept-language\", \"cookie:currency\"]").or("[]"),
    key("query", Kind::Table(ROUTE_CACHE_QUERY), "What of a GET's query counts, for the cache and for the nodes.", "{ sort = true, drop = [\"utm_*\"] }").or("{}"),
    key("tags", Kind::List(&Kind::Text(Form::Tag)), "Names by which stored responses can be purged together; `{id}` is a part of the path, `{query.NAME}` a parameter, `{header.NAME}` a field of the response. `Surrogate-Key` and `Cache-Tag` of the response count in any case.", "[\"product:{id}\"]").or("[]"),
    key("shared", Kind::Boolean, "The answer is the same for everyone, also for requests with Authorization or Cookie.", "true").or("false"),
    key("store_set_cookie", Kind::Boolean, "A response that its own headers let be stored is stored also with Set-Cookie, cookie and all, for everyone. Else it has to say `public` or `s-maxage`.", "true").or("false"),
    key("ignore_client_revalidation", Kind::Boolean, "A request's own `no-cache`, `no-store`, `max-age`, `min-fresh` and `Pragma` ask nothing of the nodes.", "true").or("false"),
    key("show_key", Kind::Boolean, "Cache-Status names the key: authority, path and query.", "true").or("false"),
    key("shield", Kind::Boolean, "Of the edges that share a Redis, one fetches and the others wait for it, no longer than fetching takes.", "true").or("false"),
    key("early_refresh", Kind::Boolean, "What is asked for often is renewed in the last twenty-fourth of its lifetime, behind an answer, so that nobody waits when it ends.", "false").or("true"),
    key("compress", Kind::OneOf(&[Kind::Boolean, Kind::Table(ROUTE_CACHE_COMPRESS)]), "Stored text of a kilobyte and more is compressed once and sent so to who accepts it (`Accept-Encoding`); the nodes are asked for it uncompressed. Not what is marked `no-transform`, sets a cookie or came compressed. A table says how.", "{ encodings = [\"br\", \"gzip\"], size_min = \"2KiB\" }").or("false"),
];

const ROUTE_CACHE_COMPRESS: &[Key] = &[
    key(
        "encodings",
        Kind::List(&Kind::Choice { known: &["br", "zstd", "gzip"], later: &[] }),
        "What is offered; of what a client likes alike, the first.",
        "[\"zstd\", \"gzip\"]",
    )
    .or("[\"br\", \"zstd\", \"gzip\"]"),
    key("size_min", Kind::Size { min: 0, max: GIB }, "Shorter bodies go out as they came.", "\"2KiB\"")
        .or("\"1KiB\""),
    key(
        "set_cookie",
        Kind::Boolean,
        "Also what sets a cookie. Where a secret and what an attacker chose stand in one page, its compressed length tells the secret (BREACH).",
        "true",
    )
    .or("false"),
];

const ROUTE_CACHE_QUERY: &[Key] = &[
    key("sort", Kind::Boolean, "Sort parameters by name; those of one name keep their order.", "true")
        .or("false"),
    key(
        "keep",
        Kind::List(&Kind::Text(Form::Parameter)),
        "Only these parameters, if there are any here; `utm_*` is all that begin so.",
        "[\"id\", \"page\"]",
    )
    .or("[]"),
    key("drop", Kind::List(&Kind::Text(Form::Parameter)), "Never these parameters.", "[\"utm_*\"]").or("[]"),
];
