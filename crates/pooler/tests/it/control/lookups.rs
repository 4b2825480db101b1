//! `auth_query` on a real server.

use std::sync::Arc;

use tenfold_pooler::{
    auth::{Lookup, LookupKey, Users},
    config::{AuthMethod, AuthQuery, Config, Database},
    control::{Event, Lookups, Resolver, Tools, Watched},
};
use tenfold_service::clock::Clock;

use super::{Board, block, salter, spec, superuser};
use crate::direct::cluster;

struct Set {
    users: Arc<Users>,
    clock: Clock,
    lookups: Arc<Lookups>,
    board: Arc<Board>,
    watched: Arc<dyn Watched>,
}

const QUERY: &str = "SELECT rolname, rolpassword FROM pg_authid WHERE rolname = $1";

fn asking(query: &str, user: &str, database: Option<&str>) -> Database {
    let asks = AuthQuery {
        query: query.into(),
        user: user.into(),
        password: None,
        database: database.map(Into::into),
    };
    Database { auth_query: Some(asks), ..spec(&[cluster().primary()]) }
}

impl Set {
    fn new(spec: Database, others: Vec<Arc<dyn Watched>>) -> Self {
        let config = Config { databases: vec![spec.clone()], ..Config::default() };
        let (users, clock) = (Arc::new(Users::new(&config)), Clock::manual());
        let board = Board::new(spec, superuser());
        aim(&board);
        let resolver = Arc::new(Resolver::new(clock.clone()));
        let tools = Tools { resolver, salter: salter(), versions: Arc::default() };
        let directory = move |name: &str| others.iter().find(|other| &**other.name() == name).cloned();
        let lookups = Lookups::new(Arc::clone(&users), clock.clone(), tools, Box::new(directory));
        let watched: Arc<dyn Watched> = Arc::clone(&board) as _;
        Self { users, clock, lookups: Arc::new(lookups), board, watched }
    }

    fn ask(&self, user: &str) -> Lookup {
        block(self.lookups.ask(&self.watched, &key(user)));
        self.known(user)
    }

    fn known(&self, user: &str) -> Lookup {
        let spec = self.board.spec();
        self.users.lookup(Some(&spec), &key(user), AuthMethod::ScramSha256, self.clock.now())
    }

    fn failure(&self) -> String {
        let events = self.board.events.lock().unwrap();
        match events.last() {
            Some(Event::LookupFailed { error, .. }) => error.clone(),
            other => panic!("{other:?}"),
        }
    }
}

/// Gives the board the address of the shared server.
fn aim(board: &Board) {
    let at = format!("127.0.0.1:{}", cluster().primary().port()).parse().unwrap();
    let address = tenfold_pooler::control::Address {
        host: 0,
        name: "localhost".into(),
        at: tenfold_pooler::control::Endpoint::Tcp(at),
    };
    let target = tenfold_pooler::control::Target { generation: 1, addresses: vec![address] };
    board.set_target(target, tenfold_pooler::control::Change::Addresses);
}

fn key(user: &str) -> LookupKey {
    LookupKey { database: "shop".into(), user: user.into() }
}

fn role(name: &str) {
    cluster().psql(&format!("CREATE ROLE \"{name}\" LOGIN PASSWORD 'pencil'")).unwrap();
}

#[test]
fn users_are_found_and_not_found() {
    role("looked_up");
    let set = Set::new(asking(QUERY, "postgres", None), vec![]);
    assert!(matches!(set.known("looked_up"), Lookup::Ask(_)));
    assert!(matches!(set.ask("looked_up"), Lookup::Found { .. }));
    assert!(matches!(set.ask("nobody at all"), Lookup::Unknown));
    // A changed password is another credential; an unchanged one stays.
    let found = |lookup| match lookup {
        Lookup::Found { credential, .. } => credential,
        other => panic!("{other:?}"),
    };
    let first = found(set.ask("looked_up"));
    assert!(Arc::ptr_eq(&first, &found(set.ask("looked_up"))));
    cluster().psql("ALTER ROLE looked_up PASSWORD 'changed'").unwrap();
    assert!(!Arc::ptr_eq(&first, &found(set.ask("looked_up"))));
}

#[test]
fn the_name_is_bound_and_not_pasted() {
    let hostile = "x' OR true --";
    role(hostile);
    let set = Set::new(asking(QUERY, "postgres", None), vec![]);
    assert!(matches!(set.ask(hostile), Lookup::Found { .. }));
    assert!(matches!(set.ask("y' OR true --"), Lookup::Unknown));
}

#[test]
fn failures_are_told_with_the_servers_words() {
    for (query, user, expected) in [
        ("SELECT nonsense FROM nowhere WHERE a = $1", "postgres", "relation \"nowhere\" does not exist"),
        (QUERY, "no_such_role", "role \"no_such_role\" does not exist"),
        ("SELECT $1::text", "postgres", "not a name and a secret"),
        ("SELECT $1, 'x' UNION ALL SELECT $1, 'y'", "postgres", "more than one user"),
        ("SELECT 1", "postgres", "bind message supplies 1 parameters"),
    ] {
        let set = Set::new(asking(query, user, None), vec![]);
        assert!(matches!(set.ask("ann"), Lookup::Unknown), "{query}");
        assert!(set.failure().contains(expected), "{query}: {}", set.failure());
        // And it is not asked again at once.
        assert!(matches!(set.known("ann"), Lookup::Unknown));
    }
}

#[test]
fn another_database_may_be_asked() {
    role("elsewhere");
    let other = Board::new(Database { name: "users".into(), ..spec(&[cluster().primary()]) }, superuser());
    aim(&other);
    let set = Set::new(asking(QUERY, "postgres", Some("users")), vec![other as _]);
    assert!(matches!(set.ask("elsewhere"), Lookup::Found { .. }));
    let set = Set::new(asking(QUERY, "postgres", Some("missing")), vec![]);
    assert!(matches!(set.ask("elsewhere"), Lookup::Unknown));
    assert!(set.failure().contains("no database \"missing\""), "{}", set.failure());
}

#[test]
fn a_thousand_clients_of_one_name_cost_one_query() {
    role("popular");
    let query = format!("{QUERY} AND 'popular' = 'popular'");
    let set = Set::new(asking(&query, "postgres", None), vec![]);
    block(async {
        let mut all = tokio::task::JoinSet::new();
        for _ in 0..1_000 {
            let (lookups, watched) = (Arc::clone(&set.lookups), Arc::clone(&set.watched));
            all.spawn(async move { lookups.ask(&watched, &key("popular")).await });
        }
        all.join_all().await;
    });
    assert!(matches!(set.known("popular"), Lookup::Found { .. }));
    let count = cluster().query_count_where("query LIKE '%$2 = $3%' AND query LIKE '%rolpassword%'").unwrap();
    assert_eq!(count, 1);
}

#[test]
fn a_database_nobody_watches_yet_can_be_asked() {
    role("first_of_all");
    let set = Set::new(asking(QUERY, "postgres", None), vec![]);
    let nowhere = tenfold_pooler::control::Target::default();
    set.board.set_target(nowhere, tenfold_pooler::control::Change::Addresses);
    assert!(matches!(set.ask("first_of_all"), Lookup::Found { .. }));
}

#[test]
fn connections_of_yesterdays_configuration_are_not_used() {
    role("moved");
    let set = Set::new(asking(QUERY, "postgres", None), vec![]);
    let missing = || "SELECT $1, 'x' WHERE current_database() <> 'template1'".to_owned();
    let spec = asking(&missing(), "postgres", None);
    set.board.set_spec(spec.clone());
    block(async {
        set.lookups.ask(&set.watched, &key("moved")).await;
        assert!(matches!(set.known("moved"), Lookup::Found { .. }));
        set.board.set_spec(Database { dbname: Some("template1".into()), ..spec });
        set.lookups.ask(&set.watched, &key("moved")).await;
        assert!(matches!(set.known("moved"), Lookup::Unknown), "the other database has no such user");
    });
}

#[test]
fn a_connection_that_went_stale_is_replaced() {
    role("steady");
    let set = Set::new(asking(QUERY, "postgres", None), vec![]);
    let found = block(async {
        set.lookups.ask(&set.watched, &key("steady")).await;
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                   WHERE application_name = 'tenfold' AND query LIKE '%rolpassword%' AND pid <> pg_backend_pid()";
        cluster().psql(sql).unwrap();
        set.lookups.ask(&set.watched, &key("steady")).await;
        set.known("steady")
    });
    assert!(matches!(found, Lookup::Found { .. }));
    assert!(set.board.events.lock().unwrap().is_empty());
}
