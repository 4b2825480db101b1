//! SHOW CLIENTS, SERVERS and SOCKETS: one row per connection.
//!
//! **Mechanism.** `ptr` and `link` are ids in hexadecimal, so that a client's link is its server's `ptr` and the other
//! way round.
//!
//! **Failure.** See [`super`]. What we do not keep per connection (buffer positions) is 0.

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use tenfold_service::acceptor::{Address, Peer};

use super::super::table::{Cell, Table, Type, flag, number, text};
use crate::{
    report::{ClientRow, ClientState, Report, ServerRow, ServerState},
    worker::Pin,
};

use Type::{Int4, Text};

const COLUMNS: [(&str, Type); 18] = [
    ("type", Text),
    ("user", Text),
    ("database", Text),
    ("state", Text),
    ("addr", Text),
    ("port", Int4),
    ("local_addr", Text),
    ("local_port", Int4),
    ("connect_time", Text),
    ("request_time", Text),
    ("wait", Int4),
    ("wait_us", Int4),
    ("close_needed", Int4),
    ("ptr", Text),
    ("link", Text),
    ("remote_pid", Int4),
    ("tls", Text),
    ("application_name", Text),
];

/// Of SOCKETS alone.
const BUFFERS: [(&str, Type); 7] = [
    ("recv_pos", Int4),
    ("pkt_pos", Int4),
    ("pkt_remain", Int4),
    ("send_pos", Int4),
    ("send_remain", Int4),
    ("pkt_avail", Int4),
    ("send_avail", Int4),
];

/// What later versions brought, and what keeps a connection with its client.
const LATER: [(&str, Type); 4] =
    [("replication", Text), ("prepared_statements", Int4), ("id", Int4), ("pins", Text)];

pub(super) fn clients(report: &Report) -> Table {
    let mut table = Table::new(&[&COLUMNS[..], &LATER].concat());
    for client in report.clients.iter().filter(|client| client.state != ClientState::Login) {
        let (cells, later) = client_cells(client, client_state(client.state));
        table.push([cells, later].concat());
    }
    table
}

pub(super) fn servers(report: &Report) -> Table {
    let names = Names::of_clients(report);
    let mut table = Table::new(&[&COLUMNS[..], &LATER].concat());
    for server in &report.servers {
        let (cells, later) = server_cells(server, names.of(server), server_state(server.state));
        table.push([cells, later].concat());
    }
    table
}

/// All connections, or those that serve somebody right now.
pub(super) fn sockets(report: &Report, only_active: bool) -> Table {
    let mut table = Table::new(&[&COLUMNS[..], &BUFFERS, &LATER].concat());
    let names = Names::of_clients(report);
    let buffers = || vec![number(0_u64); BUFFERS.len()];
    let mut push = |(cells, later)| table.push([cells, buffers(), later].concat());
    for client in &report.clients {
        if !only_active || client.state == ClientState::Active {
            let state = match client.state {
                ClientState::Login => "cl_login",
                ClientState::Waiting | ClientState::Parked => "cl_waiting",
                ClientState::Idle | ClientState::Active => "cl_active",
            };
            push(client_cells(client, state));
        }
    }
    for server in &report.servers {
        if !only_active || server.state == ServerState::Active {
            let state = match server.state {
                ServerState::Login => "sv_login",
                ServerState::Idle => "sv_idle",
                ServerState::Active => "sv_active",
                ServerState::Tested | ServerState::Cleaned => "sv_tested",
                ServerState::BeingCanceled => "sv_being_canceled",
            };
            push(server_cells(server, names.of(server), state));
        }
    }
    table
}

/// Applications by their clients' ids: a server connection shows the name of the application it serves.
struct Names<'a>(HashMap<u64, &'a str>);

impl<'a> Names<'a> {
    fn of_clients(report: &'a Report) -> Self {
        Self(report.clients.iter().map(|client| (client.id, &*client.application_name)).collect())
    }

    fn of(&self, server: &ServerRow) -> &'a str {
        server.client.and_then(|client| self.0.get(&client).copied()).unwrap_or_default()
    }
}

/// Clients that log in.
pub(super) fn logins(report: &Report) -> usize {
    report.clients.iter().filter(|client| client.state == ClientState::Login).count()
}

/// The port of a listening address, as far as it has one.
pub(super) fn listening_port(address: &Address) -> Option<u16> {
    match address {
        Address::Tcp(address) => Some(address.port()),
        Address::Unix(_) => None,
    }
}

const fn client_state(state: ClientState) -> &'static str {
    match state {
        ClientState::Login => "login",
        ClientState::Idle => "idle",
        ClientState::Active => "active",
        ClientState::Waiting | ClientState::Parked => "waiting",
    }
}

const fn server_state(state: ServerState) -> &'static str {
    match state {
        ServerState::Login => "new",
        ServerState::Idle => "idle",
        ServerState::Active => "active",
        ServerState::Tested | ServerState::Cleaned => "tested",
        ServerState::BeingCanceled => "being_canceled",
    }
}

fn client_cells(client: &ClientRow, state: &str) -> (Vec<Cell>, Vec<Cell>) {
    let (address, port, pid) = match client.peer {
        Some(Peer::Tcp(address)) => (address.ip().to_string(), address.port(), 0),
        Some(Peer::Unix { pid, .. }) => ("unix".to_owned(), 0, pid.unwrap_or(0)),
        None => (String::new(), 0, 0),
    };
    let is_waiting = matches!(client.state, ClientState::Waiting | ClientState::Parked);
    let wait = if is_waiting { client.since } else { Duration::ZERO };
    let cells = vec![
        text("C"),
        text(or(&client.user, "(nouser)")),
        text(or(&client.database, "(nodb)")),
        text(state),
        text(address),
        number(port),
        text(local_address(client.local)),
        number(client.local.map_or(0, |local| local.port())),
        text(moment(client.connected_unix_ms)),
        text(moment(last_change(client.connected_unix_ms, client.connected_for, client.since))),
        number(wait.as_secs()),
        number(wait.subsec_micros()),
        flag(false),
        text(pointer(client.id)),
        text(client.server.map(pointer).unwrap_or_default()),
        number(pid),
        text(client.tls.clone().unwrap_or_default()),
        text(&*client.application_name),
    ];
    (cells, later(client.prepared, client.id, &client.pins))
}

fn server_cells(server: &ServerRow, application_name: &str, state: &str) -> (Vec<Cell>, Vec<Cell>) {
    let cells = vec![
        text("S"),
        text(&*server.user),
        text(&*server.database),
        text(state),
        text(&*server.host),
        number(server.port),
        text(local_address(server.local)),
        number(server.local.map_or(0, |local| local.port())),
        text(moment(server.opened_unix_ms)),
        text(moment(last_change(server.opened_unix_ms, server.opened_for, server.since))),
        number(0_u64),
        number(0_u64),
        flag(server.close_needed),
        text(pointer(server.id)),
        text(server.client.map(pointer).unwrap_or_default()),
        number(server.process_id),
        text(server.tls.clone().unwrap_or_default()),
        text(application_name),
    ];
    (cells, later(server.prepared, server.id, &server.pins))
}

fn later(prepared: usize, id: u64, pins: &[Pin]) -> Vec<Cell> {
    let pins: Vec<_> = pins.iter().map(|pin| pin.as_str()).collect();
    vec![text("none"), number(prepared), number(id), text(pins.join(","))]
}

/// PgBouncer's word for our end of a Unix socket is the same as for the other.
fn local_address(local: Option<SocketAddr>) -> String {
    local.map_or_else(|| "unix".to_owned(), |local| local.ip().to_string())
}

fn or<'a>(name: &'a str, otherwise: &'a str) -> &'a str {
    if name.is_empty() { otherwise } else { name }
}

fn pointer(id: u64) -> String {
    format!("{id:#x}")
}

/// When a connection that was made at `made_unix_ms`, `age` ago, came into the state it has been in `since`.
fn last_change(made_unix_ms: u64, age: Duration, since: Duration) -> u64 {
    let after = age.saturating_sub(since);
    made_unix_ms.saturating_add(u64::try_from(after.as_millis()).unwrap_or(u64::MAX))
}

/// `2026-11-22 15:54:07 UTC`.
fn moment(unix_ms: u64) -> String {
    let seconds = unix_ms / 1_000;
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// The Gregorian date so many days after 1970-01-01: years are counted from March, so that the leap day is the last of
/// one, in eras of 400 years.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_told_as_dates() {
        for (unix_ms, expected) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (784_111_777_000, "1994-11-06 08:49:37 UTC"),
            (951_782_400_000, "2000-02-29 00:00:00 UTC"),
            (1_709_251_199_999, "2024-02-29 23:59:59 UTC"),
            (1_709_251_200_000, "2024-03-01 00:00:00 UTC"),
            (4_107_542_400_000, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(moment(unix_ms), expected);
        }
        assert_eq!(last_change(5_000, Duration::from_secs(10), Duration::from_secs(4)), 11_000);
        assert_eq!(last_change(5_000, Duration::from_secs(1), Duration::from_secs(4)), 5_000);
    }
}
