//! Watching real servers: a restart, a primary that moves, DDL.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tenfold_pooler::{
    auth::ServerSecret,
    config::{Database, Host},
    control::{Change, Event, Monitor, Poke, Resolver, Tools, Watched},
};
use tenfold_service::clock::Clock;
use tenfold_testkit::{
    postgres::{Cluster, Options},
    wait_for,
};

use super::{Board, LIMIT, Running, salter, spec, superuser};

/// A second is what it takes; three are for a busy machine, and less than the five of a server that refuses us.
const SOON: Duration = Duration::from_secs(3);

fn tools() -> Tools {
    let resolver = Arc::new(Resolver::new(Clock::system()));
    Tools { resolver, salter: salter(), versions: Arc::default() }
}

fn watch(board: &Arc<Board>) -> (Running, Poke) {
    let poke = Poke::default();
    let (watched, own) = (Arc::clone(board), poke.clone());
    let running = Running::start(move || Monitor::new(watched, tools(), own).run());
    (running, poke)
}

fn is_connected(board: &Board) -> bool {
    board.has(|event| matches!(event, Event::Connected { is_standby: false, .. }))
}

#[test]
fn a_server_that_restarts_is_back_within_a_second() {
    let mut cluster = Cluster::start(&Options::default()).unwrap();
    let board = Board::new(spec(&[cluster.primary()]), superuser());
    let (_running, _poke) = watch(&board);
    wait_for("the monitor to connect", LIMIT, || is_connected(&board));
    assert_eq!(board.port(), Some(cluster.primary().port()));
    assert_eq!(board.changes.lock().unwrap()[..], [Change::Addresses]);
    cluster.primary_mut().stop();
    wait_for("the loss to be seen", LIMIT, || board.has(|event| matches!(event, Event::Lost { .. })));
    cluster.primary_mut().start().unwrap();
    wait_for("the way back", SOON, || board.changes.lock().unwrap().last() == Some(&Change::Back));
    assert!(board.has(|event| matches!(event, Event::Restarted)));
    assert_eq!(board.port(), Some(cluster.primary().port()));
}

#[test]
fn the_primary_is_followed_when_it_moves() {
    let mut cluster = Cluster::start(&Options { replicas: 1, ..Options::default() }).unwrap();
    let replica_port = cluster.replica().unwrap().port();
    // The standby is named first, and still not taken.
    let spec = spec(&[cluster.replica().unwrap(), cluster.primary()]);
    let board = Board::new(spec, superuser());
    let (_running, poke) = watch(&board);
    wait_for("the primary", LIMIT, || board.port() == Some(cluster.primary().port()));
    cluster.primary_mut().kill();
    poke.failed();
    wait_for("nobody to be primary", LIMIT, || {
        let no_primary =
            |event: &Event| matches!(event, Event::Lost { error } if error.contains("is a primary"));
        board.has(no_primary)
    });
    assert_ne!(board.port(), Some(replica_port), "a standby is no primary");
    cluster.replica().unwrap().promote().unwrap();
    wait_for("the new primary", SOON, || board.port() == Some(replica_port));
    assert_eq!(board.changes.lock().unwrap().last(), Some(&Change::Primary));
    assert_eq!(board.target().addresses.len(), 1);
}

#[test]
fn a_standby_alone_is_a_target_too() {
    let cluster = Cluster::start(&Options { replicas: 1, ..Options::default() }).unwrap();
    let board = Board::new(spec(&[cluster.replica().unwrap()]), superuser());
    let (_running, _poke) = watch(&board);
    wait_for("the standby", LIMIT, || {
        board.has(|event| matches!(event, Event::Connected { is_standby: true, .. }))
    });
    assert_eq!(board.port(), cluster.replica().map(|replica| replica.port()));
}

#[test]
fn the_catalogue_is_read_and_read_again_after_ddl() {
    let cluster = crate::direct::cluster();
    let board = Board::new(spec(&[cluster.primary()]), superuser());
    let (_running, poke) = watch(&board);
    let first = wait_for("the catalogue", LIMIT, || board.version());
    board.definitions.change(true);
    let change = board.definitions.last_change();
    assert_eq!(board.version(), None, "stale until read again");
    poke.stale();
    wait_for("the next catalogue", LIMIT, || board.definitions.is_read(change));
    assert!(wait_for("no other change", LIMIT, || board.version()) > first);
}

#[test]
fn ddl_by_others_is_noticed() {
    let cluster = Cluster::start(&Options::default()).unwrap();
    let board = Board::new(spec(&[cluster.primary()]), superuser());
    let (_running, _poke) = watch(&board);
    let fresh = || board.version();
    let first = wait_for("the catalogue", LIMIT, fresh);
    for sql in [
        "CREATE FUNCTION touch() RETURNS text LANGUAGE sql AS $$ SELECT set_config('a.b', 'c', false) $$",
        "CREATE OR REPLACE FUNCTION touch() RETURNS text LANGUAGE sql AS $$ SELECT 'x' $$",
        "CREATE TABLE drawn (id serial)",
        "DROP TABLE drawn",
    ] {
        let before = wait_for("no change", LIMIT, fresh);
        cluster.psql(sql).unwrap();
        wait_for(sql, SOON, || fresh() > Some(before));
    }
    assert!(fresh() > Some(first));
    assert!(!board.has(|event| matches!(event, Event::CatalogueFailed { .. })));
}

#[test]
fn without_a_user_only_addresses_are_known() {
    let cluster = crate::direct::cluster();
    let board = Board::new(spec(&[cluster.primary()]), None);
    let (_running, _poke) = watch(&board);
    wait_for("the event", LIMIT, || board.has(|event| *event == Event::NoLogin));
    assert_eq!(board.port(), Some(cluster.primary().port()));
    assert!(!is_connected(&board));
}

#[test]
fn a_refused_login_is_said_once() {
    let cluster = crate::direct::cluster();
    let board = Board::new(spec(&[cluster.primary()]), Some(("nobody", ServerSecret::None)));
    let (_running, poke) = watch(&board);
    let said = || {
        let events = board.events.lock().unwrap();
        events.iter().filter(|event| matches!(event, Event::Lost { .. })).count()
    };
    wait_for("the refusal", LIMIT, || said() == 1);
    poke.failed();
    poke.failed();
    assert_eq!(said(), 1);
    assert_eq!(board.port(), Some(cluster.primary().port()), "clients may have better luck");
}

#[test]
fn a_reload_that_names_another_host_is_followed() {
    let cluster = crate::direct::cluster();
    let nowhere = Host::Tcp { host: "no-such-host.invalid".into(), port: 1 };
    let board = Board::new(Database { hosts: vec![nowhere], ..spec(&[]) }, superuser());
    let (_running, poke) = watch(&board);
    wait_for("the failure", LIMIT, || board.has(|event| matches!(event, Event::Unresolved { .. })));
    assert!(board.target().addresses.is_empty());
    board.set_spec(spec(&[cluster.primary()]));
    poke.failed();
    wait_for("the other host", LIMIT, || is_connected(&board));
    assert_eq!(board.port(), Some(cluster.primary().port()));
    let seen = Mutex::new(board.target().generation);
    board.set_spec(Database { dbname: Some("template1".into()), ..spec(&[cluster.primary()]) });
    poke.failed();
    wait_for("the other database", LIMIT, || {
        let now = board.target().generation;
        now > std::mem::replace(&mut *seen.lock().unwrap(), now)
    });
}
