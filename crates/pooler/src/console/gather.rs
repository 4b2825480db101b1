//! The tier at this moment, gathered for a [`Report`].
//!
//! **Mechanism.** Every worker is asked for its rows at once and answers between two turns of its loop; what is known
//! without them (databases, totals, users) is read here.
//!
//! **Failure.** A worker that does not answer within [`ANSWER_MAX`] is left out.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::sync::oneshot;

use crate::{
    config::{Host, UserSettings},
    hot::HotRows,
    image::Image,
    mailbox::Order,
    report::{DatabaseRow, HostRow, MemoryRow, PoolRow, ReplicaRow, Report, RoutesRow, StatsRow, UserRow},
    shared::{Database, Endpoint, Shared},
    statements::Statement,
    worker::Stat,
};

/// Workers answer within a turn of their loop.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// Everything there is now.
pub(super) async fn report(shared: &Shared) -> Report {
    let mut report = Report {
        totals: totals(shared),
        pause: shared.desk.pause(),
        consoles: shared.desk.sessions(),
        memory: memory(shared),
        ..Report::default()
    };
    ask_workers(shared, &mut report).await;
    for database in shared.databases() {
        report.pools.extend(database.pools().iter().map(|pool| PoolRow {
            database: Arc::clone(&database.name),
            user: Arc::clone(&pool.user),
            mode: pool.mode(),
            has_hosts: database.spec.load().hosts.len() > 1,
        }));
        add_hosts(&mut report.hosts, shared, &database);
        report.replicas.extend(ReplicaRow::all(&database));
        report.databases.push(database_row(&database));
    }
    report.users = users(shared, &report);
    report
}

/// Where the transactions of databases with replicas went. Not part of [`report`], which is also asked for in loops.
pub(super) fn routes(shared: &Shared) -> Vec<RoutesRow> {
    shared.databases().iter().flat_map(|database| RoutesRow::all(database)).collect()
}

/// Asks all workers, then waits for all of them.
async fn ask_workers(shared: &Shared, report: &mut Report) {
    let workers = shared.mailboxes.get().map_or(0, |mailboxes| mailboxes.len());
    let answers: Vec<_> = (0..workers)
        .map(|worker| {
            let (reply, answer) = oneshot::channel();
            shared.tell(worker, Order::Report { reply });
            answer
        })
        .collect();
    for answer in answers {
        if let Ok(Ok(rows)) = tokio::time::timeout(ANSWER_MAX, answer).await {
            report.clients.extend(rows.clients);
            report.servers.extend(rows.servers);
            report.cancels += rows.cancels;
            report.unanswered += rows.unanswered;
        }
    }
}

/// Totals since the start, of the databases that have a pool.
pub(crate) fn totals(shared: &Shared) -> Vec<StatsRow> {
    let of_database = |database: Arc<Database>| {
        let pools = database.pools();
        let mut row = StatsRow { database: Arc::clone(&database.name), ..StatsRow::default() };
        for stats in pools.iter().map(|pool| pool.stats()) {
            row.add(&StatsRow {
                database: Arc::clone(&database.name),
                transactions: stats[Stat::Transactions],
                queries: stats[Stat::Queries],
                assignments: stats[Stat::Assignments],
                bytes_received: stats[Stat::BytesReceived],
                bytes_sent: stats[Stat::BytesSent],
                transaction_us: stats[Stat::TransactionUs],
                query_us: stats[Stat::QueryUs],
                wait_us: stats[Stat::WaitUs],
                client_parses: stats[Stat::PreparedHits].wrapping_add(stats[Stat::PreparedMisses]),
                server_parses: stats[Stat::PreparedMisses],
                binds: stats[Stat::Binds],
            });
        }
        (!pools.is_empty()).then_some(row)
    };
    shared.databases().into_iter().filter_map(of_database).collect()
}

fn database_row(database: &Database) -> DatabaseRow {
    let spec = database.spec.load();
    let (mut hosts, mut port) = (Vec::new(), None);
    for host in &spec.hosts {
        let (name, of) = match host {
            Host::Tcp { host, port } => (host.clone(), port),
            Host::Unix { folder, port } => (folder.display().to_string(), port),
        };
        hosts.push(name);
        port.get_or_insert(*of);
    }
    DatabaseRow {
        name: Arc::clone(&database.name),
        host: hosts.join(","),
        port: port.unwrap_or(0),
        dbname: spec.dbname.clone().unwrap_or_else(|| database.name.to_string()),
        user: spec.user.clone(),
        size: spec.pool.size,
        min: spec.pool.min,
        reserve: spec.pool.reserve,
        mode: spec.pool.mode,
        lifetime: spec.pool.lifetime,
        servers_max: spec.pool.database_max,
        servers: database.servers(),
        clients_max: spec.pool.clients_max,
        clients: database.clients.load(Ordering::Relaxed),
        is_paused: database.paused.load(Ordering::Relaxed),
        is_disabled: database.disabled.load(Ordering::Relaxed),
    }
}

/// The addresses that host names of this database stand for now.
fn add_hosts(hosts: &mut Vec<HostRow>, shared: &Shared, database: &Database) {
    let fresh_for = shared.config.load().dns_refresh;
    for address in &database.target.load().addresses {
        let Endpoint::Tcp(at) = &address.at else { continue };
        if address.name.parse::<std::net::IpAddr>().is_ok() {
            continue;
        }
        let known = hosts.iter().position(|host| *host.name == *address.name);
        let place = known.unwrap_or_else(|| {
            hosts.push(HostRow { name: address.name.to_string(), fresh_for, addresses: Vec::new() });
            hosts.len() - 1
        });
        if !hosts[place].addresses.contains(&at.ip()) {
            hosts[place].addresses.push(at.ip());
        }
    }
}

/// Those that are listed, those with settings of their own, and those that are here.
fn users(shared: &Shared, report: &Report) -> Vec<UserRow> {
    let config = shared.config.load();
    let mut rows: BTreeMap<Arc<str>, UserRow> = BTreeMap::new();
    let row = |name: &Arc<str>| {
        let own = config.user_settings.iter().find(|(other, _)| other == name);
        let settings = own.map_or_else(UserSettings::default, |(_, settings)| settings.clone());
        UserRow { name: Arc::clone(name), settings, servers: 0, clients: 0 }
    };
    let listed = config.users.list.iter().map(|(name, _)| name);
    for name in listed.chain(config.user_settings.iter().map(|(name, _)| name)) {
        rows.entry(Arc::clone(name)).or_insert_with(|| row(name));
    }
    for client in report.clients.iter().filter(|client| !client.user.is_empty()) {
        rows.entry(Arc::clone(&client.user)).or_insert_with(|| row(&client.user)).clients += 1;
    }
    for server in &report.servers {
        rows.entry(Arc::clone(&server.user)).or_insert_with(|| row(&server.user)).servers += 1;
    }
    rows.into_values().collect()
}

fn memory(shared: &Shared) -> Vec<MemoryRow> {
    let row = |name, size, used| MemoryRow { name, size, used, free: 0 };
    vec![
        row("image_cache", size_of::<Image>(), shared.images.len()),
        row("statement_cache", size_of::<Statement>(), shared.statements.len()),
        row("hot_row_cache", size_of::<HotRows>(), shared.hot.len()),
    ]
}
