//! Watching real replicas: positions that follow commits, lag, restarts, promotion, strangers.

use std::sync::{Arc, atomic::Ordering};

use tenfold_pooler::{
    auth::ServerSecret,
    config::{Database, Host, Reads, ReplicaHost},
    control::{Endpoint, Event, Foreign, Monitor, Poke, Replicas, Resolver, Tools, Watched},
    split::{Lsn, Replica, State},
};
use tenfold_service::clock::Clock;
use tenfold_testkit::{
    postgres::{Cluster, Options, Server},
    process::free_port,
    wait_for,
};

use super::{Board, LIMIT, Running, salter, spec, superuser};

fn host(port: u16) -> ReplicaHost {
    ReplicaHost { host: Host::Tcp { host: "127.0.0.1".into(), port }, weight: 1 }
}

fn pair() -> Cluster {
    Cluster::start(&Options { replicas: 1, ..Options::default() }).unwrap()
}

/// The database `postgres` of a primary, with these replicas.
fn split_spec(primary: &Server, ports: &[u16]) -> Database {
    let replicas = ports.iter().map(|port| host(*port)).collect();
    Database { reads: Reads { replicas, ..Reads::default() }, ..spec(&[primary]) }
}

fn watch_as(spec: Database, login: Option<(&str, ServerSecret)>) -> (Arc<Board>, Running) {
    let board = Board::new(spec, login);
    let watched = Arc::clone(&board);
    let running = Running::start(move || async move {
        let resolver = Arc::new(Resolver::new(Clock::system()));
        let tools = Tools { resolver, salter: salter(), versions: Arc::default() };
        let monitor = Monitor::new(Arc::clone(&watched) as Arc<dyn Watched>, tools.clone(), Poke::default());
        tokio::join!(monitor.run(), Replicas::new(watched, tools).run());
    });
    (board, running)
}

fn watch(spec: Database) -> (Arc<Board>, Running) {
    watch_as(spec, superuser())
}

impl Board {
    fn replica(&self) -> Arc<Replica> {
        Arc::clone(&self.split().replicas.load()[0])
    }

    /// Waits for a sample that was begun after now.
    fn sampled(&self) -> Lsn {
        let sample = self.split().samples.next();
        self.split().poke();
        wait_for("a sample", LIMIT, || self.split().samples.lsn(sample))
    }

    fn count(&self, expected: impl Fn(&Event) -> bool) -> usize {
        self.events.lock().unwrap().iter().filter(|event| expected(event)).count()
    }
}

fn is_up(replica: &Replica) -> bool {
    replica.state() == State::Up
}

/// Commits something; the primary's position afterwards.
fn commit(cluster: &Cluster) -> Lsn {
    cluster.psql("CREATE TABLE IF NOT EXISTS written (at int)").unwrap();
    cluster.psql("INSERT INTO written VALUES (1)").unwrap();
    cluster.psql("SELECT pg_current_wal_insert_lsn()").unwrap().parse().unwrap()
}

#[test]
fn positions_follow_commits_and_a_paused_replica_lags() {
    let cluster = pair();
    let port = cluster.replica().unwrap().port();
    let (board, _running) = watch(split_spec(cluster.primary(), &[port]));
    let replica = board.replica();
    wait_for("the replica", LIMIT, || is_up(&replica));
    let Endpoint::Tcp(at) = replica.target.load().addresses[0].at else { panic!("a socket of TCP") };
    assert_eq!(at.port(), port);
    for _ in 0..3 {
        let committed = commit(&cluster);
        let sampled = board.sampled();
        assert!(sampled >= committed.replayed(), "{sampled} settles {committed}");
        wait_for("the replica to replay it", LIMIT, || replica.replayed() >= committed.replayed());
    }
    wait_for("no lag", LIMIT, || replica.lag_us() == 0);
    cluster.replica().unwrap().psql("SELECT pg_wal_replay_pause()").unwrap();
    let before = replica.replayed();
    let committed = commit(&cluster);
    // What the primary has not flushed yet is no lag.
    cluster.psql("CHECKPOINT").unwrap();
    wait_for("lag", LIMIT, || replica.lag_us() > 300_000);
    assert!(is_up(&replica) && replica.replayed() < committed && replica.replayed() >= before);
    cluster.replica().unwrap().psql("SELECT pg_wal_replay_resume()").unwrap();
    wait_for("it to catch up", LIMIT, || replica.replayed() >= committed.replayed() && replica.lag_us() == 0);
    // One that waits has answers told, and often.
    let told = || board.told_positions.load(Ordering::Relaxed);
    assert!(told() >= 1, "when the replica was found");
    let before = told();
    let waiting = board.split().wait();
    wait_for("positions to be told", LIMIT, || told() > before + 50);
    drop(waiting);
}

#[test]
fn a_restart_begins_another_life_and_a_promotion_ends_it() {
    let mut cluster = pair();
    let port = cluster.replica().unwrap().port();
    let (board, _running) = watch(split_spec(cluster.primary(), &[port]));
    let replica = board.replica();
    wait_for("the replica", LIMIT, || is_up(&replica));
    let life = replica.life();
    cluster.replica_mut().unwrap().stop();
    wait_for("the loss", LIMIT, || replica.state() == State::Down);
    assert_ne!(replica.life(), life);
    let committed = commit(&cluster);
    cluster.replica_mut().unwrap().start().unwrap();
    wait_for("it to be back", LIMIT, || is_up(&replica) && replica.replayed() >= committed.replayed());
    assert_eq!(replica.target.load().generation, 1, "it is where it was");
    let lost = board.count(|event| matches!(event, Event::ReplicaLost { .. }));
    assert!((1..=replica.losses()).contains(&(lost as u64)), "{lost}: a replica that is down fills no log");
    let life = replica.life();
    cluster.replica().unwrap().promote().unwrap();
    wait_for("it to be a stranger", LIMIT, || replica.state() == State::Foreign);
    assert_ne!(replica.life(), life);
    let foreign = |event: &Event| matches!(event, Event::ReplicaForeign { why: Foreign::Promoted, .. });
    assert_eq!(board.count(foreign), 1);
}

#[test]
fn a_primary_that_was_killed_is_sampled_again() {
    let mut cluster = pair();
    let port = cluster.replica().unwrap().port();
    let (board, _running) = watch(split_spec(cluster.primary(), &[port]));
    let replica = board.replica();
    wait_for("the replica", LIMIT, || is_up(&replica));
    let first = board.split().samples.last();
    cluster.primary_mut().kill();
    let during = board.split().samples.next();
    wait_for("the loss", LIMIT, || board.has(|event| matches!(event, Event::Lost { .. })));
    board.split().poke();
    assert_eq!(board.split().samples.lsn(during), None, "nobody can settle it");
    wait_for("the replica, which has replayed what it has", LIMIT, || is_up(&replica));
    cluster.primary_mut().start().unwrap();
    let committed = commit(&cluster);
    let after = board.sampled();
    assert!(after >= committed.replayed());
    assert!(board.split().samples.lsn(during).is_some() && board.split().samples.last() > first);
    wait_for("the replica to follow", LIMIT, || {
        is_up(&replica) && replica.replayed() >= committed.replayed()
    });
}

#[test]
fn strangers_and_the_unreachable_get_no_reads() {
    let cluster = pair();
    let stranger = pair();
    let (foreign, alone) = (stranger.replica().unwrap().port(), stranger.primary().port());
    let nobody = free_port().unwrap();
    let good = cluster.replica().unwrap().port();
    let (board, _running) = watch(split_spec(cluster.primary(), &[good, foreign, alone, nobody]));
    let replicas = board.split().replicas.load_full();
    wait_for("the one of this primary", LIMIT, || is_up(&replicas[0]));
    for (index, expected) in [(1, State::Foreign), (2, State::Foreign), (3, State::Down)] {
        wait_for("the others to be seen", LIMIT, || replicas[index].state() == expected);
    }
    let of_other = |event: &Event| matches!(event, Event::ReplicaForeign { why: Foreign::System { .. }, .. });
    wait_for("one of another cluster", LIMIT, || board.count(of_other) == 1);
    let is_away =
        |event: &Event| matches!(event, Event::ReplicaLost { replica, .. } if *replica == replicas[3].name);
    wait_for("the one that is not there", LIMIT, || board.count(is_away) == 1);
    assert!(replicas[0].answers() > 0 && replicas[1..].iter().all(|replica| replica.answers() == 0));
}

#[test]
fn a_reload_adds_and_removes_replicas() {
    let cluster = pair();
    let port = cluster.replica().unwrap().port();
    let (board, _running) = watch(spec(&[cluster.primary()]));
    wait_for("the primary", LIMIT, || board.has(|event| matches!(event, Event::Connected { .. })));
    assert_eq!(board.split().samples.next().0, 1, "without replicas nobody is asked");
    board.split().set_replicas(&[host(port)]);
    let replica = board.replica();
    wait_for("the replica", LIMIT, || is_up(&replica));
    board.split().set_replicas(&[]);
    assert_eq!(replica.state(), State::Down);
    let watching = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tenfold'";
    wait_for("its watcher to leave", LIMIT, || {
        cluster.replica().unwrap().psql(watching).is_ok_and(|count| count == "0")
    });
    assert_eq!(replica.state(), State::Down);
    board.split().set_replicas(&[host(port)]);
    wait_for("another one", LIMIT, || is_up(&board.replica()));
    assert_ne!(board.replica().life(), replica.life());
}

#[test]
fn a_login_without_rights_is_enough() {
    let cluster = pair();
    cluster.psql("CREATE ROLE plain LOGIN").unwrap();
    let port = cluster.replica().unwrap().port();
    let (board, _running) =
        watch_as(split_spec(cluster.primary(), &[port]), Some(("plain", ServerSecret::None)));
    wait_for("the replica", LIMIT, || is_up(&board.replica()));
    assert!(!board.has(|event| matches!(event, Event::PositionUnknown { .. })));
}
