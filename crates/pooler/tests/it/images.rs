//! Sessions carried from one real server connection to another.

use std::sync::Arc;

use tenfold_pgwire::frame::Frames;
use tenfold_pooler::image::{Image, Images, Needs, Unmovable, replay};

use crate::{direct::Direct, probes::probe};

const ALL: Needs = Needs { prepared: true, channels: true };

/// The image of a session, as the pooler learns it.
fn image_of(direct: &mut Direct, images: &Images, settings: &[&str]) -> Result<Arc<Image>, Unmovable> {
    let found = probe(direct, settings);
    let image = images.with_settings(&Image::empty(), &found.settings)?;
    let image = images.with_prepared(&image, &found.prepared)?;
    images.with_channels(&image, &found.channels)
}

/// Makes a server connection hold `client`; returns what it holds then.
fn carry(server: &mut Direct, holds: &Arc<Image>, client: &Arc<Image>, images: &Images) -> Arc<Image> {
    let Some(replay) = replay(holds, client, ALL, images) else {
        assert!(Arc::ptr_eq(holds, client));
        return Arc::clone(holds);
    };
    for message in Frames::new(&replay.messages) {
        let text = message.unwrap().body().split_last().unwrap().1;
        assert!(text.is_ascii(), "read in whatever encoding the server is in");
        let text = String::from_utf8_lossy(text);
        server.query(&*text).unwrap_or_else(|error| panic!("{error}: {text}"));
    }
    assert_eq!(Frames::new(&replay.messages).count(), replay.queries);
    assert!(Arc::ptr_eq(&replay.after, client));
    replay.after
}

fn hostile_texts() -> Vec<String> {
    let mut texts: Vec<String> = [
        "",
        " ",
        "it's",
        "\\",
        "\\'; DROP TABLE there_is_none; --",
        "'\\'",
        "$$a$$",
        "line\nbreak\r\ttab\u{1}\u{7f}",
        "Zürich 東京 😀 \u{202e}",
        "/* -- */ ;",
        "\u{ffff}\u{10ffff}",
    ]
    .map(str::to_owned)
    .to_vec();
    texts.push("'\\é\n".repeat(1_638));
    texts
}

#[test]
fn any_value_arrives_as_it_was() {
    let images = Images::new();
    for value in hostile_texts() {
        let (mut first, mut second) = (Direct::connect(), Direct::connect());
        first.set("app.hostile", &value);
        let client = image_of(&mut first, &images, &["app.hostile"]).unwrap();
        assert_eq!(client.setting("app.hostile"), Some(&*value));
        carry(&mut second, &Image::empty(), &client, &images);
        let there = image_of(&mut second, &images, &["app.hostile"]).unwrap();
        assert!(Arc::ptr_eq(&there, &client), "{value:?}");
    }
}

#[test]
fn every_setting_arrives_whatever_the_server_held_before() {
    let roles = "DO $$ BEGIN CREATE ROLE carried; EXCEPTION WHEN duplicate_object THEN NULL; END $$";
    Direct::connect().query(roles).unwrap();
    let settings = [
        ("timezone", "<-08:30>+08:30"),
        ("datestyle", "German, DMY"),
        ("intervalstyle", "iso_8601"),
        ("client_encoding", "LATIN1"),
        ("standard_conforming_strings", "off"),
        ("search_path", "\"$user\", \"Ünder \"\"the\"\" sea\", pg_temp"),
        ("application_name", "it's \\ me"),
        ("app.tenant", "o'brien \\ é"),
        ("app.zone_2", "x"),
        ("work_mem", "12345kB"),
        ("random_page_cost", "1.5"),
        ("enable_seqscan", "off"),
        ("statement_timeout", "90min"),
        ("default_transaction_isolation", "serializable"),
        ("default_transaction_read_only", "on"),
        ("row_security", "off"),
        ("log_parser_stats", "on"),
        ("session_replication_role", "replica"),
        ("extra_float_digits", "-3"),
        ("bytea_output", "escape"),
        ("backslash_quote", "off"),
        ("escape_string_warning", "off"),
        ("temp_tablespaces", "pg_default"),
        ("role", "carried"),
    ];
    let names: Vec<_> = settings.iter().map(|(name, _)| *name).collect();
    let fresh = image_of(&mut Direct::connect(), &Images::new(), &names).unwrap();
    let images = Images::new();
    // Sessions that hold every other, every third, … and the last all of them.
    let clients: Vec<_> = [2, 3, 5, 7, 1]
        .map(|step| {
            let mut direct = Direct::connect();
            let held: Vec<_> = settings.iter().step_by(step).collect();
            held.iter().for_each(|(name, value)| direct.set(name, value));
            let held: Vec<_> = held.iter().map(|(name, _)| *name).collect();
            image_of(&mut direct, &images, &held).unwrap()
        })
        .into();
    let mut server = Direct::connect();
    let mut holds = Image::empty();
    for step in 0..25 {
        let client = if step % 6 == 5 { Image::empty() } else { Arc::clone(&clients[step * 3 % 5]) };
        holds = carry(&mut server, &holds, &client, &images);
        let there = image_of(&mut server, &images, &names).unwrap();
        for name in &names {
            // A custom setting that was reset is empty.
            let expected = client.setting(name).or(fresh.setting(name)).unwrap_or_default();
            assert_eq!(there.setting(name).unwrap_or_default(), expected, "{name} at step {step}");
        }
    }
}

#[test]
fn an_assumed_user_and_role_are_given_up_and_taken_on_again() {
    let images = Images::new();
    let names = ["session_authorization", "log_parser_stats"];
    let mut first = Direct::connect();
    first
        .query("DROP ROLE IF EXISTS weak, weaker; CREATE ROLE weak; CREATE ROLE weaker IN ROLE weak")
        .unwrap();
    // The setting needs a superuser's rights, which the assumed user does not have.
    first.query("SET log_parser_stats = on; SET SESSION AUTHORIZATION weaker; SET ROLE weak").unwrap();
    let client = image_of(&mut first, &images, &names).unwrap();
    let mut second = Direct::connect();
    let held = carry(&mut second, &Image::empty(), &client, &images);
    let who = "SELECT session_user || ' ' || current_user || ' ' || current_setting('log_parser_stats')";
    assert_eq!(second.value(who).unwrap(), "weaker weak on");
    let other = images.with_settings(&client, &[("log_parser_stats".into(), Some("off".into()))]).unwrap();
    let held = carry(&mut second, &held, &other, &images);
    assert_eq!(second.value(who).unwrap(), "weaker weak off");
    let mut third = Direct::connect();
    third.query("SET ROLE weaker").unwrap();
    let other = image_of(&mut third, &images, &["role"]).unwrap();
    let held = carry(&mut second, &held, &other, &images);
    assert_eq!(second.value(who).unwrap(), "postgres weaker off");
    carry(&mut second, &held, &Image::empty(), &images);
    assert_eq!(second.value(who).unwrap(), "postgres postgres off");
}

#[test]
fn prepared_statements_and_channels_arrive_and_strangers_leave() {
    let images = Images::new();
    let session = |statements: &[&str]| {
        let mut direct = Direct::connect();
        statements.iter().for_each(|statement| drop(direct.query(statement).unwrap()));
        image_of(&mut direct, &images, &[]).unwrap()
    };
    let first = session(&[
        "PREPARE same AS SELECT 'same'",
        "PREPARE changes AS SELECT 'first'",
        "PREPARE \"a \"\"Quote'\\\" (int) AS SELECT $1 -- the end",
        "PREPARE goes AS SELECT 1;",
        "LISTEN jobs",
        "LISTEN \"a \"\"Quote;\"",
    ]);
    let second =
        session(&["PREPARE same AS SELECT 'same'", "PREPARE changes AS SELECT 'second'", "LISTEN jobs"]);
    let mut server = Direct::connect();
    let mut holds = Image::empty();
    for client in [&first, &second, &first, &Image::empty(), &second] {
        holds = carry(&mut server, &holds, client, &images);
        let there = image_of(&mut server, &images, &[]).unwrap();
        assert!(Arc::ptr_eq(&there, client), "{there:?}");
    }
    assert_eq!(server.value("EXECUTE changes").unwrap(), "second");
}

#[test]
fn what_nobody_can_see_is_left_where_it_is() {
    let images = Images::new();
    let prepared = [("p".to_owned(), "PREPARE p AS SELECT 1".to_owned())];
    let server = images.intern(&[], &prepared, &[]).unwrap();
    let client = images.intern(&[("work_mem".into(), "1MB".into())], &[], &[]).unwrap();
    assert!(replay(&server, &Image::empty(), Needs::default(), &images).is_none());
    let after = replay(&server, &client, Needs::default(), &images).unwrap().after;
    assert_eq!((after.setting("work_mem"), after.prepared().len()), (Some("1MB"), 1));
    let after = replay(&server, &client, Needs { prepared: true, channels: false }, &images).unwrap().after;
    assert!(Arc::ptr_eq(&after, &client));
}

#[test]
fn a_prepare_that_was_one_of_several_statements_stays_where_it_is() {
    let images = Images::new();
    for text in [
        "PREPARE p AS SELECT 1; SELECT 2",
        "SELECT 1; PREPARE p AS SELECT 1",
        "PREPARE p AS SELECT ';'",
        "PREPARE p AS SELECT 'é'",
    ] {
        let mut direct = Direct::connect();
        let _ = direct.query(text);
        let found = probe(&mut direct, &[]);
        assert_eq!(found.prepared.len(), 1, "{text}");
        let prepared = [("p".to_owned(), text.to_owned())];
        assert_eq!(images.with_prepared(&Image::empty(), &prepared).unwrap_err(), Unmovable::PrepareText);
    }
}
