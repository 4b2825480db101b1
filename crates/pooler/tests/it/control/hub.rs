//! One connection that listens for many, on a real server.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use tenfold_pgwire::backend::NotificationResponse;
use tenfold_pooler::control::{
    Address, Endpoint, Error, Event, Hub, HubAsk, Outlet, Target, Watched, watched::Change,
};
use tenfold_testkit::{fault::Proxy, wait_for};
use tokio::sync::mpsc;

use super::{Board, LIMIT, Running, salter, spec, superuser};
use crate::direct::{Direct, cluster};

/// The worker, the channel, and the message.
type Told = (usize, String, Vec<u8>);

/// Writes down what workers are told.
#[derive(Default)]
struct Workers {
    listening: Mutex<Vec<(usize, u32)>>,
    refused: Mutex<Vec<(usize, u32, String)>>,
    notified: Mutex<Vec<Told>>,
    lost: Mutex<Vec<usize>>,
}

impl Outlet<u32> for Workers {
    fn listening(&self, worker: usize, client: u32) {
        self.listening.lock().unwrap().push((worker, client));
    }

    fn refused(&self, worker: usize, client: u32, error: &Error) {
        self.refused.lock().unwrap().push((worker, client, error.to_string()));
    }

    fn notify(&self, worker: usize, channel: &Arc<str>, message: &Arc<[u8]>) {
        self.notified.lock().unwrap().push((worker, channel.to_string(), message.to_vec()));
    }

    fn lost(&self, worker: usize) {
        self.lost.lock().unwrap().push(worker);
    }
}

struct Set {
    board: Arc<Board>,
    workers: Arc<Workers>,
    asks: mpsc::Sender<HubAsk<u32>>,
    _running: Running,
}

impl Set {
    /// A hub of the shared server, by way of this port.
    fn new(port: u16) -> Self {
        let board = Board::new(spec(&[cluster().primary()]), superuser());
        let at = Endpoint::Tcp(format!("127.0.0.1:{port}").parse().unwrap());
        let addresses = vec![Address { host: 0, name: "localhost".into(), at }];
        board.set_target(Target { generation: 1, addresses }, Change::Addresses);
        let workers = Arc::new(Workers::default());
        let (asks, asked) = mpsc::channel(100);
        let (watched, outlet) = (Arc::clone(&board), Arc::clone(&workers));
        let running = Running::start(move || Hub::new(watched, salter(), outlet).run(asked));
        Self { board, workers, asks, _running: running }
    }

    fn listen(&self, worker: usize, client: u32, channels: &[&str]) {
        let channels = channels.iter().map(|&channel| channel.into()).collect();
        self.asks.blocking_send(HubAsk::Listen { worker, client, channels }).unwrap();
    }

    fn is_listening(&self, worker: usize, client: u32) {
        let told = || self.workers.listening.lock().unwrap().contains(&(worker, client));
        wait_for("the acknowledgement", LIMIT, told);
    }

    /// How often each worker was told of each channel, once there are this many.
    fn notified(&self, count: usize) -> HashMap<(usize, String), usize> {
        wait_for("notifications", LIMIT, || self.workers.notified.lock().unwrap().len() >= count);
        let mut counts = HashMap::new();
        for (worker, channel, message) in self.workers.notified.lock().unwrap().iter() {
            let parsed = NotificationResponse::parse(&message[5..]).unwrap();
            assert_eq!(parsed.channel, channel.as_bytes());
            *counts.entry((*worker, channel.clone())).or_default() += 1;
        }
        counts
    }
}

/// This worker, told of this channel so often.
fn told(worker: usize, channel: &str, times: usize) -> ((usize, String), usize) {
    ((worker, channel.to_owned()), times)
}

fn listeners() -> String {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tenfold' AND query LIKE '%LISTEN \"hub_many%'";
    cluster().psql(sql).unwrap()
}

#[test]
fn what_is_acknowledged_is_heard_by_those_who_want_it() {
    let set = Set::new(cluster().primary().port());
    set.listen(0, 1, &["hub_a", "Hub \"B\""]);
    set.listen(1, 1, &["hub_a"]);
    set.listen(1, 2, &["hub_a"]);
    for (worker, client) in [(0, 1), (1, 1), (1, 2)] {
        set.is_listening(worker, client);
    }
    let mut direct = Direct::connect();
    direct.query("NOTIFY hub_a, 'x'; NOTIFY \"Hub \"\"B\"\"\", 'y'; NOTIFY hub_c, 'z'").unwrap();
    direct.query("NOTIFY hub_a, 'last'").unwrap();
    let counts = set.notified(5);
    let expected = [told(0, "hub_a", 2), told(1, "hub_a", 2), told(0, "Hub \"B\"", 1)];
    assert_eq!(counts, HashMap::from(expected));
    let notified = set.workers.notified.lock().unwrap();
    assert!(notified.iter().any(|(_, _, message)| message[0] == b'A' && message.ends_with(b"hub_a\0x\0")));
}

#[test]
fn nobody_left_is_nothing_listened_to() {
    let set = Set::new(cluster().primary().port());
    set.listen(0, 1, &["gone", "kept"]);
    set.listen(0, 2, &["kept"]);
    set.is_listening(0, 2);
    set.listen(0, 1, &["kept"]);
    set.asks.blocking_send(HubAsk::Unlisten { worker: 0, client: 2 }).unwrap();
    set.listen(0, 3, &["kept"]);
    set.is_listening(0, 3);
    let mut direct = Direct::connect();
    direct.query("NOTIFY gone; NOTIFY kept").unwrap();
    assert_eq!(set.notified(1), HashMap::from([told(0, "kept", 1)]));
    // The server itself was told, so its queue does not wait for us.
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'UNLISTEN \"gone\"%'";
    wait_for("UNLISTEN", LIMIT, || cluster().psql(sql).unwrap() != "0");
}

#[test]
fn a_lost_connection_is_told_to_all_listeners_and_made_anew() {
    let at = format!("127.0.0.1:{}", cluster().primary().port()).parse().unwrap();
    let proxy = Proxy::start(at).unwrap();
    let set = Set::new(proxy.addr().port());
    set.listen(0, 1, &["again"]);
    set.listen(3, 1, &["again"]);
    set.is_listening(0, 1);
    set.is_listening(3, 1);
    proxy.sever();
    wait_for("the loss", LIMIT, || set.workers.lost.lock().unwrap().len() == 2);
    let mut lost = set.workers.lost.lock().unwrap().clone();
    lost.sort_unstable();
    assert_eq!(lost, [0, 3]);
    assert!(set.board.has(|event| matches!(event, Event::HubLost { .. })));
    set.workers.listening.lock().unwrap().clear();
    set.listen(0, 1, &["again"]);
    set.is_listening(0, 1);
    Direct::connect().query("NOTIFY again").unwrap();
    assert_eq!(set.notified(1), HashMap::from([told(0, "again", 1)]));
}

#[test]
fn a_server_that_can_not_be_reached_refuses_its_listeners() {
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let set = Set::new(port);
    set.listen(0, 1, &["never"]);
    wait_for("the refusal", LIMIT, || !set.workers.refused.lock().unwrap().is_empty());
    assert!(set.workers.listening.lock().unwrap().is_empty());
}

#[test]
fn a_thousand_clients_cost_one_connection() {
    let set = Set::new(cluster().primary().port());
    for client in 0..1_000 {
        set.listen(0, client, &[&format!("hub_many_{}", client % 300)]);
    }
    wait_for("all of them", LIMIT, || set.workers.listening.lock().unwrap().len() == 1_000);
    assert!(set.workers.refused.lock().unwrap().is_empty());
    assert_eq!(listeners(), "1");
    Direct::connect().query("NOTIFY hub_many_7").unwrap();
    assert_eq!(set.notified(1), HashMap::from([told(0, "hub_many_7", 1)]));
}
