//! What requests carry: the position that a read needs, and the one that a write leaves behind.

use std::time::Duration;

use tenfold_pooler::split::{After, Lsn, Position};

use crate::splitting::{Scene, table, until_split};

const TIME_MAX: Duration = Duration::from_secs(5);
const READ: &str = "SELECT v FROM t WHERE id = 1";
/// Far in the future: milliseconds since 1970.
const FAR_MS: u64 = 1 << 50;

fn trace(number: u8) -> String {
    format!("traceparent='00-{}-b7ad6b7169203331-01'", format!("{number:02x}").repeat(16))
}

fn after(scene: &Scene, number: u8) -> After {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(scene.pooled.pooler.positions().after([number; 16], TIME_MAX))
}

fn reached(scene: &Scene, number: u8) -> Position {
    match after(scene, number) {
        After::At(position) => position,
        other => panic!("{other:?}"),
    }
}

/// A token as an edge makes it.
fn token(position: Position, until_ms: u64, issued_ms: u64) -> String {
    let Position { history, lsn } = position;
    let (system, timeline, lsn) = (history.system, history.timeline, lsn.0);
    format!("1.{system:x}.{timeline:x}.{lsn:x}.{until_ms:x}.{issued_ms:x}.00ff")
}

fn carrying(token: &str) -> String {
    format!("{READ} /*tenfold_position='{token}'*/")
}

#[test]
fn a_read_goes_where_what_it_brings_along_can_be_seen() {
    let scene = Scene::new();
    let mut client = scene.client();
    table(&mut client, "t");
    client.query(format!("UPDATE t SET v = 0 WHERE id = 1 /*{}*/", trace(1))).unwrap();
    let before = reached(&scene, 1);
    scene.catch_up();
    until_split(&scene, &mut client, READ);
    for replica in scene.cluster.replicas() {
        replica.pause_replay().unwrap();
    }
    // As another pooler would do it: this one knows of nothing.
    scene.cluster.primary().psql("UPDATE t SET v = 1 WHERE id = 1").unwrap();
    let position = scene.cluster.primary().psql("SELECT pg_current_wal_insert_lsn()").unwrap();
    let written = Position { lsn: position.trim().parse().unwrap(), ..before };
    let read = |sql: &str| scene.client().value(sql);
    assert_eq!(read(READ).as_deref(), Some("0"), "nothing tells that there is more to see");
    assert_eq!(read(&carrying(&token(before, 0, FAR_MS))).as_deref(), Some("0"));
    assert_eq!(read(&carrying(&token(written, 0, FAR_MS))).as_deref(), Some("1"));
    assert_eq!(read(&carrying(&token(Position::default(), FAR_MS, FAR_MS))).as_deref(), Some("1"));
    let mut elsewhere = [before; 2];
    elsewhere[0].history.timeline += 1;
    elsewhere[1].history.system += 1;
    for elsewhere in elsewhere {
        assert_eq!(read(&carrying(&token(elsewhere, 0, FAR_MS))).as_deref(), Some("1"));
        // An old one is about what every replica has that is used.
        assert_eq!(read(&carrying(&token(elsewhere, 0, 1))).as_deref(), Some("0"));
    }
    let beyond = Position { lsn: Lsn(u64::MAX), ..before };
    assert_eq!(read(&carrying(&token(beyond, 0, FAR_MS))).as_deref(), Some("1"), "no server is there, ever");
    for nonsense in ["", "1", "1.1.1.1.1.1", "x", &"1.".repeat(200), &token(written, 0, 0)[..20]] {
        assert_eq!(read(&carrying(nonsense)).as_deref(), Some("1"), "{nonsense}");
    }
    // By the extended protocol, and in a transaction whose BEGIN is held.
    let prepared = scene.client().execute(&carrying(&token(written, 0, FAR_MS)), &[]).unwrap();
    assert_eq!(prepared[0][0].as_deref(), Some(&b"1"[..]));
    let mut block = scene.client();
    block.query("BEGIN").unwrap();
    assert_eq!(block.value(&carrying(&token(before, 0, FAR_MS))).as_deref(), Some("0"));
    assert_eq!(block.value(&carrying(&token(written, 0, FAR_MS))).as_deref(), Some("1"));
    block.query("COMMIT").unwrap();
    for replica in scene.cluster.replicas() {
        replica.resume_replay().unwrap();
    }
    scene.catch_up();
    let away = scene.away(|| {
        assert_eq!(read(&carrying(&token(written, 0, FAR_MS))).as_deref(), Some("1"));
    });
    assert_eq!(away, 1);
}

#[test]
fn a_request_that_wrote_leaves_a_position_behind() {
    let scene = Scene::new();
    let mut client = scene.client();
    table(&mut client, "t");
    scene.catch_up();
    until_split(&scene, &mut client, READ);
    assert_eq!(after(&scene, 1), After::Unseen);
    client.query(format!("{READ} /*{}*/", trace(1))).unwrap();
    assert_eq!(after(&scene, 1), After::Nothing, "a replica answered");
    client.query(format!("UPDATE t SET v = 2 WHERE id = 1 /*{}*/", trace(1))).unwrap();
    let position = reached(&scene, 1);
    let now = scene.cluster.primary().psql("SELECT pg_current_wal_insert_lsn()").unwrap();
    assert!(position.lsn <= now.trim().parse().unwrap());
    // The comment of one statement is enough for its transaction, and that of a prepared one for its executions.
    client.query("BEGIN").unwrap();
    client.query(format!("UPDATE t SET v = 3 WHERE id = 1 /*{}*/", trace(2))).unwrap();
    client.query("UPDATE t SET v = 3 WHERE id = 2").unwrap();
    client.query("COMMIT").unwrap();
    assert!(reached(&scene, 2).lsn > position.lsn);
    client.execute(&format!("UPDATE t SET v = $1 WHERE id = 3 /*{}*/", trace(3)), &["4"]).unwrap();
    assert!(reached(&scene, 3).lsn > reached(&scene, 2).lsn);
    // What the primary told somebody must not be unsaid by a replica.
    client.query(format!("SELECT v FROM t WHERE id = 1 FOR UPDATE /*{}*/", trace(4))).unwrap();
    assert!(reached(&scene, 4).lsn >= reached(&scene, 3).lsn);
    // A statement that nobody reads may be anybody's.
    let fourth = reached(&scene, 4);
    client.query(format!("{READ} /*{}*/", trace(5))).unwrap();
    let long = "x".repeat(20_000_000);
    client.query(format!("DO $$ BEGIN PERFORM '{long}'; UPDATE t SET v = 9; END $$")).unwrap();
    assert!(reached(&scene, 5).lsn > fourth.lsn);
    assert_eq!(after(&scene, 6), After::Unseen);
}
