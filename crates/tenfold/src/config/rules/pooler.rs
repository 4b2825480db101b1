//! What only the whole of `[pooler]` and `[database.NAME]` can tell: servers that contradict each other, secrets given
//! twice, certificates without a key, nobody who could log in.

use super::super::diagnostic::Diagnostic;
use super::super::pgurl;
use super::super::pooler::{entries, replica_hosts, replicas, urls};
use super::super::suggest;
use super::super::tree::{Node, Table, Value};
use tenfold_pooler::config::{ANY_DATABASE, CONSOLE_DATABASES, Host, Listen, Reads};

/// Adds what is wrong, or worth a warning, to `out`.
pub(super) fn check(root: &Table, out: &mut Vec<Diagnostic>) {
    let Some(pooler) = root.table("pooler") else { return };
    let databases: Vec<_> = entries(root, "database").collect();
    let is_written = root.get("pooler").is_some_and(|node| !node.span.is_empty());
    if databases.is_empty() && is_written && !root.entries.contains_key("database") {
        let span = root.get("pooler").map_or(0..0, |node| node.span.clone());
        let message = "[pooler] without a [database.NAME] does nothing";
        out.push(Diagnostic::warning(span, message, "add the database that clients ask for"));
    }
    check_client_tls(pooler, out);
    check_trust(pooler, out);
    check_secrets(pooler, out);
    check_sources(pooler, root, None, out);
    for (name, table) in databases {
        check_name(name, root, out);
        check_servers(name, table, out);
        check_replicas(name, table, out);
        check_server_tls(table, out);
        check_secrets(table, out);
        check_pool(table, out);
        let urls = urls(table);
        let is_readable = urls.len() == table.list("primary").len();
        let own = urls.into_iter().find_map(|(_, url)| url.user);
        check_sources(table, root, own.as_deref(), out);
        check_somebody(name, root, own.is_some() || !is_readable, out);
    }
    check_pool(pooler, out);
    check_console(pooler, out);
}

/// Who commands at the console logs in as to any database, so it must be a user of all of them.
fn check_console(pooler: &Table, out: &mut Vec<Diagnostic>) {
    if pooler.get("users").is_some() {
        return;
    }
    let listed: Vec<_> = entries(pooler, "user").map(|(name, _)| name).collect();
    for key in ["admin_users", "stats_users"] {
        for node in pooler.list(key) {
            let Some(name) = node.as_text() else { continue };
            if !listed.contains(&name) {
                let message = format!("nobody can log in to the console as \"{}\"", node.shown());
                let label =
                    format!("add [pooler.user.{}] with a password, or users to [pooler]", node.shown());
                out.push(Diagnostic::warning(node.span.clone(), message, label));
            }
        }
    }
}

fn check_name(name: &str, root: &Table, out: &mut Vec<Diagnostic>) {
    if CONSOLE_DATABASES.contains(&name) {
        let span = root.span_of(&format!("database.{name}")).unwrap_or(0..0);
        let message = format!("\"{name}\" is the console's name");
        out.push(Diagnostic::error(span, message, "choose another name for the database"));
    }
}

/// Several servers are copies of one: the same user and database on each.
fn check_servers(name: &str, table: &Table, out: &mut Vec<Diagnostic>) {
    let Some(primary) = table.get("primary") else { return };
    if matches!(&primary.value, Value::List(list) if list.is_empty()) {
        let message = format!("database \"{name}\" has no server");
        out.push(Diagnostic::error(primary.span.clone(), message, "expected at least one"));
    }
    let urls = urls(table);
    let Some((_, first)) = urls.first() else { return };
    for (node, url) in &urls[1..] {
        let differs = [
            ("user", url.user != first.user),
            ("database", url.dbname != first.dbname),
            ("sslmode", url.sslmode != first.sslmode),
        ];
        for (what, _) in differs.into_iter().filter(|(_, differs)| *differs) {
            let message = format!("the servers of database \"{name}\" differ in their {what}");
            let label = "they are one database on several hosts, one of which is the primary";
            out.push(Diagnostic::error(node.span.clone(), message, label));
        }
    }
    if name == ANY_DATABASE && first.dbname.is_some() {
        let message = "every name not given leads to one and the same database";
        let label = "leave the database out of the URL to have the client's name used";
        out.push(Diagnostic::warning(primary.span.clone(), message, label));
    }
}

/// Replicas are copies of the primary: the same user and database on each, and each a server of its own.
fn check_replicas(name: &str, table: &Table, out: &mut Vec<Diagnostic>) {
    let urls = urls(table);
    let Some((_, primary)) = urls.first() else { return };
    let is_primary = |host: &Host| urls.iter().any(|(_, url)| url.hosts.contains(host));
    for (node, url, _) in replicas(table) {
        let differs = [
            ("user", url.user.is_some() && url.user != primary.user),
            ("database", url.dbname.is_some() && url.dbname != primary.dbname),
            ("sslmode", url.sslmode.is_some() && url.sslmode != primary.sslmode),
        ];
        for (what, _) in differs.into_iter().filter(|(_, differs)| *differs) {
            let message = format!("a replica of database \"{name}\" differs from its primary in its {what}");
            let label = "it is a copy of the primary; host and port are enough";
            out.push(Diagnostic::error(node.span.clone(), message, label));
        }
        if url.hosts.iter().any(is_primary) {
            let message = format!("a replica of database \"{name}\" is one of its primaries, too");
            let label = "reads that no replica can answer go to the primary anyway";
            out.push(Diagnostic::error(node.span.clone(), message, label));
        }
    }
    let hosts = Reads { replicas: replica_hosts(table), ..Reads::default() };
    for (key, message) in hosts.mistakes() {
        let span = table.get(key.trim_start_matches('.')).map_or(0..0, |node| node.span.clone());
        out.push(Diagnostic::error(span, format!("bad replicas of database \"{name}\""), message));
    }
    if let (Some(reads), true) = (table.get("reads"), table.list("replicas").is_empty()) {
        let message = format!("database \"{name}\" has reads, but no replicas");
        out.push(Diagnostic::warning(reads.span.clone(), message, "add replicas = [\"host:port\"]"));
    }
}

fn check_client_tls(pooler: &Table, out: &mut Vec<Diagnostic>) {
    let tls = pooler.table("tls");
    let mode = tls.and_then(|tls| tls.get("mode"));
    let verifies = mode.and_then(Node::as_text).is_some_and(|mode| mode.starts_with("verify"));
    if let (Some(tls), Some(mode), true) = (tls, mode, verifies)
        && tls.get("ca").is_none()
    {
        let label = "add ca, the authorities of the clients' certificates";
        out.push(Diagnostic::error(mode.span.clone(), "nothing to verify certificates against", label));
    }
    let Some(auth) = pooler.get("auth").filter(|auth| auth.as_text() == Some("cert")) else { return };
    if !verifies {
        let label = "add tls with a ca and mode = \"verify-full\"";
        out.push(Diagnostic::error(
            auth.span.clone(),
            "auth = \"cert\" without verified certificates",
            label,
        ));
    }
}

fn check_trust(pooler: &Table, out: &mut Vec<Diagnostic>) {
    let Some(auth) = pooler.get("auth").filter(|auth| auth.as_text() == Some("trust")) else { return };
    let listens = pooler.list("listen").iter().filter_map(|node| pgurl::listen(node.as_text()?).ok());
    let off_loopback = |listen: Listen| matches!(listen, Listen::Tcp(address) if !address.ip().is_loopback());
    if pooler.get("hba").is_none() && listens.into_iter().any(off_loopback) {
        let message = "auth = \"trust\" off loopback: whoever reaches the port may log in";
        out.push(Diagnostic::warning(
            auth.span.clone(),
            message,
            "use \"scram-sha-256\", or listen on 127.0.0.1",
        ));
    }
}

fn check_server_tls(table: &Table, out: &mut Vec<Diagnostic>) {
    let tls = table.table("tls");
    let from_url = urls(table).into_iter().find_map(|(node, url)| Some((node, url.sslmode?)));
    let mode = match table.get("sslmode") {
        Some(node) => node.as_text().map(|mode| (node, mode.to_owned())),
        None => from_url,
    };
    if let Some((node, mode)) = mode
        && mode.starts_with("verify")
        && tls.is_none_or(|tls| tls.get("ca").is_none())
    {
        let message = format!("sslmode {mode} has nothing to verify certificates against");
        out.push(Diagnostic::error(node.span.clone(), message, "add tls = { ca = \"system\" }, or a file"));
    }
    let Some(tls) = tls else { return };
    for (one, other) in [("certificate", "key"), ("key", "certificate")] {
        if let (Some(node), None) = (tls.get(one), tls.get(other)) {
            out.push(Diagnostic::error(
                node.span.clone(),
                format!("{one} without {other}"),
                format!("add {other}"),
            ));
        }
    }
}

/// Below a table, its users and its `users`.
fn check_secrets(table: &Table, out: &mut Vec<Diagnostic>) {
    let below = entries(table, "user").map(|(_, user)| user).chain(table.table("users"));
    for table in below.chain([table]) {
        if let (Some(_), Some(file)) = (table.get("password"), table.get("password_file")) {
            let message = "password and password_file are both there";
            out.push(Diagnostic::error(file.span.clone(), message, "keep one"));
        }
    }
}

fn check_sources(table: &Table, root: &Table, own: Option<&str>, out: &mut Vec<Diagnostic>) {
    let Some(node) = table.get("users") else { return };
    let Some(users) = node.as_table() else { return };
    let query = users.get("query");
    if users.get("file").is_none() && query.is_none() {
        out.push(Diagnostic::error(node.span.clone(), "users without a file and without a query", "add one"));
    }
    if let Some(query) = query {
        if own.is_none() && users.get("user").is_none() {
            out.push(Diagnostic::error(query.span.clone(), "nobody to ask the query", "add user to users"));
        }
        if query.as_text().is_some_and(|sql| !sql.contains("$1")) {
            let label = "expected $1 where the user's name belongs";
            out.push(Diagnostic::error(query.span.clone(), "the query asks for no user", label));
        }
    } else {
        for key in ["user", "database", "password", "password_file"] {
            let Some(node) = users.get(key) else { continue };
            out.push(Diagnostic::error(
                node.span.clone(),
                format!("{key} without a query"),
                "it is the query's",
            ));
        }
    }
    let Some((asked, name)) = users.get("database").and_then(|node| Some((node, node.as_text()?))) else {
        return;
    };
    let known: Vec<_> = entries(root, "database").map(|(name, _)| name).collect();
    if !known.contains(&name) && !known.contains(&ANY_DATABASE) {
        let label = match suggest::nearest(name, known.iter().copied()) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("add [database.{}]", asked.shown()),
        };
        out.push(Diagnostic::error(
            asked.span.clone(),
            format!("there is no database \"{}\"", asked.shown()),
            label,
        ));
    }
}

fn check_somebody(name: &str, root: &Table, has_user: bool, out: &mut Vec<Diagnostic>) {
    let pooler = root.table("pooler");
    let database = root.table("database").and_then(|named| named.table(name));
    let listed = pooler.into_iter().flat_map(|pooler| entries(pooler, "user"));
    let is_listed = listed
        .into_iter()
        .any(|(_, user)| user.get("password").is_some() || user.get("password_file").is_some());
    let has_users = |table: Option<&Table>| table.is_some_and(|table| table.get("users").is_some());
    if has_user || is_listed || has_users(pooler) || has_users(database) {
        return;
    }
    let span = root.span_of(&format!("database.{name}.primary")).unwrap_or(0..0);
    let message = format!("nobody can log in to database \"{name}\"");
    let label = "name a user in primary, or add users = { file = \"userlist.txt\" }";
    out.push(Diagnostic::error(span, message, label));
}

/// What would otherwise be rounded in silence, or never take effect.
fn check_pool(table: &Table, out: &mut Vec<Diagnostic>) {
    const ONE_PERCENT_PPM: u32 = 10_000;
    let Some(pool) = table.table("pool") else { return };
    if let Some((node, Value::Ratio(ppm))) = pool.get("hot_rows").map(|node| (node, &node.value))
        && (ppm % ONE_PERCENT_PPM != 0 || *ppm == 0)
    {
        let label = "expected 1% to 100%, in whole percents";
        out.push(Diagnostic::error(node.span.clone(), "hot_rows is not a whole percentage", label));
    }
    let number = |key| match pool.get(key).map(|node| &node.value) {
        Some(Value::Integer(number)) => Some(*number),
        _ => None,
    };
    if let (Some(min), Some(size)) = (number("min"), number("size"))
        && min > size
    {
        let span = pool.get("min").map_or(0..0, |node| node.span.clone());
        out.push(Diagnostic::error(
            span,
            "pool.min is above pool.size",
            "a pool never grows beyond its size",
        ));
    }
}

/// The TCP addresses clients of the pooler connect to, for the search for addresses used twice.
pub(super) fn tcp_listens(root: &Table) -> impl Iterator<Item = &Node> {
    let is_used = root.table("database").is_some_and(|named| !named.entries.is_empty());
    let pooler = root.table("pooler").filter(|_| is_used);
    pooler.map(|pooler| pooler.list("listen")).unwrap_or_default().iter()
}
