//! The tables that SHOW makes.
//!
//! **Intuition.** Columns stand in the order and under the names of PgBouncer 1.18, for those who read by position;
//! those that versions up to 1.25 brought follow, for those who read by name.
//!
//! **Mechanism.** One function per table, each a pure function of a [`Report`].
//!
//! **Failure.** What we do not have (peers, zones, descriptors to hand over) is an empty table.
//!
//! Source: PgBouncer's manual, "Show commands".

mod replicas;
mod sockets;
mod stats;

use super::table::{Cell, Table, Type, flag, number, text};
use crate::{
    config::Mode,
    report::{DatabaseRow, Pause, PoolRow, PoolTally, Report, StatsRow},
};

use Type::{Bytea, Int4, Int8, Text};

/// The names under which the console is reached; the first is the one it shows itself by.
const CONSOLE: &str = "pgbouncer";

/// What SHOW makes of these words, for one row only where a name is given; `None` if it is none of its words.
#[must_use]
pub fn table(what: &str, only: Option<&str>, report: &Report, averages: &[StatsRow]) -> Option<Table> {
    let (mut table, key) = match what {
        "version" => (version(), "version"),
        "databases" => (databases(report), "name"),
        "pools" => (pools(report), "database"),
        "clients" => (sockets::clients(report), "id"),
        "servers" => (sockets::servers(report), "id"),
        "sockets" => (sockets::sockets(report, false), "id"),
        "active_sockets" => (sockets::sockets(report, true), "id"),
        "lists" => (lists(report), "list"),
        "users" => (users(report), "name"),
        "stats" => (stats::stats(&report.totals, averages), "database"),
        "stats_totals" => (stats::counts(&report.totals), "database"),
        "stats_averages" => (stats::counts(averages), "database"),
        "totals" => (stats::sums(&report.totals, averages), "name"),
        "mem" => (memory(report), "name"),
        "fds" => (Table::new(&FDS), "fd"),
        "dns_hosts" => (hosts(report), "hostname"),
        "dns_zones" => (Table::new(&[("zonename", Text), ("serial", Int8), ("count", Int4)]), "zonename"),
        "peers" => (Table::new(&PEERS), "peer_id"),
        "peer_pools" => (Table::new(&PEER_POOLS), "peer_id"),
        "state" => (state(report), "key"),
        "replicas" => (replicas::replicas(report), "database"),
        "routes" => (replicas::routes(report), "database"),
        "top_statements" => (replicas::top_statements(report), "database"),
        _ => return None,
    };
    table.keep(key, only);
    Some(table)
}

/// Whether SHOW makes a table of this word.
#[must_use]
pub fn is_known(what: &str) -> bool {
    table(what, None, &Report::default(), &[]).is_some()
}

/// What SHOW HELP says.
pub const HELP: &str = "
\tSHOW HELP|CONFIG|DATABASES|POOLS|CLIENTS|SERVERS|USERS|VERSION
\tSHOW PEERS|PEER_POOLS
\tSHOW FDS|SOCKETS|ACTIVE_SOCKETS|LISTS|MEM|STATE
\tSHOW DNS_HOSTS|DNS_ZONES
\tSHOW REPLICAS|ROUTES|TOP_STATEMENTS
\tSHOW STATS|STATS_TOTALS|STATS_AVERAGES|TOTALS
\tSET key = arg
\tRELOAD
\tPAUSE [<db>]
\tRESUME [<db>]
\tDISABLE <db>
\tENABLE <db>
\tRECONNECT [<db>]
\tKILL [<db>]
\tKILL_CLIENT <client_id>
\tSUSPEND
\tSHUTDOWN
\tSHUTDOWN WAIT_FOR_SERVERS|WAIT_FOR_CLIENTS
\tWAIT_CLOSE [<db>]";

/// Settings that drivers ask for or set before they do anything else, and what they are told.
const DRIVERS_SETTINGS: [(&str, &str); 7] = [
    ("client_encoding", "UTF-8"),
    ("default_transaction_isolation", "read committed"),
    ("standard_conforming_strings", "on"),
    ("datestyle", "ISO"),
    ("timezone", "GMT"),
    ("extra_float_digits", "2"),
    ("application_name", ""),
];

/// The answer to a driver that asks for a setting of a session.
#[must_use]
pub fn session_setting(name: &str) -> Option<Table> {
    let (name, value) = DRIVERS_SETTINGS.iter().find(|(known, _)| name.eq_ignore_ascii_case(known))?;
    Some(Table { columns: vec![(*name, Text)], rows: vec![vec![text(*value)]] })
}

const FDS: [(&str, Type); 15] = [
    ("fd", Int4),
    ("task", Text),
    ("user", Text),
    ("database", Text),
    ("addr", Text),
    ("port", Int4),
    ("cancel", Int8),
    ("link", Int4),
    ("client_encoding", Text),
    ("std_strings", Text),
    ("datestyle", Text),
    ("timezone", Text),
    ("password", Text),
    ("scram_client_key", Bytea),
    ("scram_server_key", Bytea),
];

const PEERS: [(&str, Type); 4] = [("peer_id", Int4), ("host", Text), ("port", Int4), ("pool_size", Int4)];

const PEER_POOLS: [(&str, Type); 5] = [
    ("peer_id", Int4),
    ("cl_active_cancel_req", Int4),
    ("cl_waiting_cancel_req", Int4),
    ("sv_active_cancel", Int4),
    ("sv_login", Int4),
];

fn version() -> Table {
    let version = concat!("Tenfold ", env!("CARGO_PKG_VERSION"));
    Table { columns: vec![("version", Text)], rows: vec![vec![text(version)]] }
}

const DATABASES: [(&str, Type); 18] = [
    ("name", Text),
    ("host", Text),
    ("port", Int4),
    ("database", Text),
    ("force_user", Text),
    ("pool_size", Int4),
    ("min_pool_size", Int4),
    ("reserve_pool", Int4),
    ("pool_mode", Text),
    ("max_connections", Int4),
    ("current_connections", Int4),
    ("paused", Int4),
    ("disabled", Int4),
    ("reserve_pool_size", Int4),
    ("server_lifetime", Int4),
    ("load_balance_hosts", Text),
    ("max_client_connections", Int4),
    ("current_client_connections", Int4),
];

fn databases(report: &Report) -> Table {
    let mut table = Table::new(&DATABASES);
    let port = report.listeners.iter().find_map(sockets::listening_port);
    let mut own = vec![text(CONSOLE), None, number(port.unwrap_or(0)), text(CONSOLE), text(CONSOLE)];
    own.extend([number(2_u64), number(0_u64), number(0_u64), text("statement"), number(0_u64)]);
    own.extend([number(0_u64), flag(false), flag(false), number(0_u64), number(0_u64), None]);
    own.extend([number(0_u64), number(report.consoles)]);
    table.push(own);
    for database in &report.databases {
        table.push(database_row(database));
    }
    table
}

fn database_row(database: &DatabaseRow) -> Vec<Cell> {
    vec![
        text(&*database.name),
        text(&*database.host),
        number(database.port),
        text(&*database.dbname),
        database.user.clone(),
        number(database.size),
        number(database.min),
        number(database.reserve),
        text(mode(database.mode)),
        number(database.servers_max),
        number(database.servers),
        flag(database.is_paused),
        flag(database.is_disabled),
        number(database.reserve),
        number(database.lifetime.as_secs()),
        hosts_policy(database.host.contains(',')),
        number(database.clients_max),
        number(database.clients),
    ]
}

/// Of several hosts the one that is primary is used, tried in their order.
fn hosts_policy(has_hosts: bool) -> Cell {
    has_hosts.then(|| "disable".to_owned())
}

/// PgBouncer's word for a mode.
pub(super) const fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Session => "session",
        Mode::Transaction => "transaction",
        Mode::Statement => "statement",
    }
}

const POOLS: [(&str, Type); 17] = [
    ("database", Text),
    ("user", Text),
    ("cl_active", Int4),
    ("cl_waiting", Int4),
    ("cl_active_cancel_req", Int4),
    ("cl_waiting_cancel_req", Int4),
    ("sv_active", Int4),
    ("sv_active_cancel", Int4),
    ("sv_being_canceled", Int4),
    ("sv_idle", Int4),
    ("sv_used", Int4),
    ("sv_tested", Int4),
    ("sv_login", Int4),
    ("maxwait", Int4),
    ("maxwait_us", Int4),
    ("pool_mode", Text),
    ("load_balance_hosts", Text),
];

fn pools(report: &Report) -> Table {
    let mut table = Table::new(&POOLS);
    let mut own = vec![text(CONSOLE), text(CONSOLE), number(report.consoles)];
    own.extend((0..12).map(|_| number(0_u64)));
    own.extend([text("statement"), None]);
    table.push(own);
    let tallies = report.tallies();
    for pool in &report.pools {
        let tally = tallies.get(&(&*pool.database, &*pool.user)).copied().unwrap_or_default();
        table.push(pool_row(pool, &tally));
    }
    table
}

fn pool_row(pool: &PoolRow, tally: &PoolTally) -> Vec<Cell> {
    vec![
        text(&*pool.database),
        text(&*pool.user),
        number(tally.clients_active),
        number(tally.clients_waiting),
        number(0_u64),
        number(0_u64),
        number(tally.servers_active),
        number(0_u64),
        number(tally.servers_being_canceled),
        number(tally.servers_idle),
        number(0_u64),
        number(tally.servers_tested),
        number(tally.servers_login),
        number(tally.wait_max.as_secs()),
        number(tally.wait_max.subsec_micros()),
        text(mode(pool.mode)),
        hosts_policy(pool.has_hosts),
    ]
}

fn lists(report: &Report) -> Table {
    let mut table = Table::new(&[("list", Text), ("items", Int4)]);
    let free = |name| report.memory.iter().find(|row| row.name == name).map_or(0, |row| row.free);
    for (list, items) in [
        ("databases", report.databases.len() + 1),
        ("users", report.users.len()),
        ("pools", report.pools.len() + 1),
        ("free_clients", free("clients")),
        ("used_clients", report.clients.len() + report.consoles),
        ("login_clients", sockets::logins(report)),
        ("free_servers", free("servers")),
        ("used_servers", report.servers.len()),
        ("dns_names", report.hosts.len()),
        ("dns_zones", 0),
        ("dns_queries", 0),
        ("dns_pending", 0),
        ("peers", 0),
        ("peer_pools", 0),
    ] {
        table.push(vec![text(list), number(items)]);
    }
    table
}

fn users(report: &Report) -> Table {
    let mut table = Table::new(&[
        ("name", Text),
        ("pool_mode", Text),
        ("pool_size", Text),
        ("reserve_pool_size", Text),
        ("max_user_connections", Int4),
        ("current_connections", Int4),
        ("max_user_client_connections", Int4),
        ("current_client_connections", Int4),
    ]);
    for user in &report.users {
        let own = &user.settings;
        table.push(vec![
            text(&*user.name),
            own.mode.map(|own| mode(own).to_owned()),
            own.size.map(|size| size.to_string()),
            own.reserve.map(|reserve| reserve.to_string()),
            number(own.servers_max.unwrap_or(0)),
            number(user.servers),
            number(own.clients_max.unwrap_or(0)),
            number(user.clients),
        ]);
    }
    table
}

fn memory(report: &Report) -> Table {
    let mut table =
        Table::new(&[("name", Text), ("size", Int4), ("used", Int4), ("free", Int4), ("memtotal", Int4)]);
    for row in &report.memory {
        let total = row.size * (row.used + row.free);
        table.push(vec![text(row.name), number(row.size), number(row.used), number(row.free), number(total)]);
    }
    table
}

fn hosts(report: &Report) -> Table {
    let mut table = Table::new(&[("hostname", Text), ("ttl", Int8), ("addrs", Text)]);
    for host in &report.hosts {
        let addresses: Vec<_> = host.addresses.iter().map(ToString::to_string).collect();
        table.push(vec![text(&*host.name), number(host.fresh_for.as_secs()), text(addresses.join(","))]);
    }
    table
}

fn state(report: &Report) -> Table {
    let mut table = Table::new(&[("key", Text), ("value", Text)]);
    for (key, state) in
        [("active", Pause::Active), ("paused", Pause::Paused), ("suspended", Pause::Suspended)]
    {
        table.push(vec![text(key), text(if report.pause == state { "yes" } else { "no" })]);
    }
    table
}
