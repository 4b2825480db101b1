//! Commands that need no running process.

use tenfold_testkit::Origin;

use crate::process::{Folder, stderr, stdout};

const GOOD: &str =
    "[cluster.api]\nnodes = [\"127.0.0.1:3000\"]\n[[route]]\npath = \"/{*rest}\"\nto = \"api\"\n";

#[test]
fn check_names_all_of_ten_mistakes_and_exits_2() {
    let folder = Folder::with(include_str!("ten_mistakes.toml"));
    let checked = folder.tenfold(&["check"]);
    let expected = format!("{}\ntenfold.toml: 10 errors\n", include_str!("ten_mistakes.txt"));
    assert_eq!((checked.status.code(), stderr(&checked)), (Some(2), expected));
    assert!(stdout(&checked).is_empty());
    assert!(!stderr(&checked).contains("s3cret"));
}

#[test]
fn run_says_the_same_and_starts_nothing() {
    let folder = Folder::with(include_str!("ten_mistakes.toml"));
    let ran = folder.tenfold(&["run"]);
    assert_eq!(ran.status.code(), Some(2));
    assert_eq!(stderr(&ran), include_str!("ten_mistakes.txt"));
}

#[test]
fn check_prints_problems_for_programs() {
    let folder = Folder::with(include_str!("ten_mistakes.toml"));
    let checked = folder.tenfold(&["check", "--json"]);
    let value: serde_json::Value = serde_json::from_slice(&checked.stdout).expect("JSON");
    assert_eq!(value["fine"], false);
    assert_eq!(value["problems"].as_array().map(Vec::len), Some(10));
    assert_eq!(value["problems"][7]["line"], 20);
    assert_eq!(value["problems"][7]["label"], "did you mean \"least_connections\"?");
}

#[test]
fn the_demos_file_is_fine() {
    let text = include_str!("../../../xtask/src/demo/tenfold.toml")
        .replace("@EDGE@", "8080")
        .replace("@POOLER@", "6432")
        .replace("@ADMIN@", "9900")
        .replace("@NODES@", "\"127.0.0.1:3001\", \"127.0.0.1:3002\"")
        .replace("@SERVER@", "postgres://shop@127.0.0.1:5432/shop")
        .replace("${DB_PASSWORD}", "${DB_PASSWORD:-secret}");
    let checked = Folder::with(&text).tenfold(&["check", "--offline"]);
    assert_eq!((checked.status.code(), stderr(&checked)), (Some(0), String::new()));
}

#[test]
fn a_file_that_is_not_there_is_a_usage_error() {
    let folder = Folder::with("");
    let checked = folder.tenfold(&["check", "-c", "nowhere.toml"]);
    assert_eq!(checked.status.code(), Some(2));
    assert!(stderr(&checked).starts_with("error: cannot read nowhere.toml: "), "{}", stderr(&checked));
}

#[test]
fn a_node_that_is_down_is_a_warning_and_a_cluster_that_is_down_an_error() {
    let origin = Origin::echo().expect("an origin");
    let up = origin.addr();
    // Bound and not listening would accept on no platform; port 1 needs no luck either.
    let one_of_two = GOOD.replace("\"127.0.0.1:3000\"", &format!("\"{up}\", \"127.0.0.1:1\""));
    let folder = Folder::with(&one_of_two);
    let checked = folder.tenfold(&["check"]);
    assert_eq!(checked.status.code(), Some(0), "{}", stderr(&checked));
    assert!(stderr(&checked).contains("warning: node 127.0.0.1:1 of cluster \"api\" cannot be reached"));
    assert_eq!(stdout(&checked), "tenfold.toml is fine\n");

    folder.write(&GOOD.replace("127.0.0.1:3000", "127.0.0.1:1"));
    let checked = folder.tenfold(&["check"]);
    assert_eq!(checked.status.code(), Some(1));
    assert!(
        stderr(&checked).contains("error: no node of cluster \"api\" can be reached"),
        "{}",
        stderr(&checked)
    );
    assert_eq!(folder.tenfold(&["check", "--offline"]).status.code(), Some(0));
}

#[test]
fn the_schema_is_json_and_a_key_is_explained() {
    let folder = Folder::with("");
    let schema = folder.tenfold(&["config", "schema"]);
    let value: serde_json::Value = serde_json::from_slice(&schema.stdout).expect("JSON");
    assert_eq!(value["type"], "object");
    let explained = folder.tenfold(&["config", "explain", "route.cache.ttl"]);
    assert!(stdout(&explained).contains("How long a response is fresh"), "{}", stdout(&explained));
    let unknown = folder.tenfold(&["config", "explain", "route.cahce"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(stderr(&unknown).contains("did you mean \"cache\"?"));
}

#[test]
fn init_writes_a_file_that_check_accepts_and_never_overwrites() {
    let folder = Folder::with(GOOD);
    let again = folder.tenfold(&["init"]);
    assert_eq!(again.status.code(), Some(1));
    assert_eq!(std::fs::read_to_string(folder.file()).expect("still there"), GOOD);
    let fresh = folder.tenfold(&["init", "new.toml", "--node", "api.internal:3000"]);
    assert_eq!(fresh.status.code(), Some(0), "{}", stderr(&fresh));
    let checked = folder.tenfold(&["check", "--offline", "-c", "new.toml"]);
    assert_eq!((checked.status.code(), stderr(&checked).as_str()), (Some(0), ""));
}

#[test]
fn a_wrong_command_line_exits_2_and_an_absent_process_1() {
    let folder = Folder::with(GOOD);
    for wrong in [
        &["frobnicate"][..],
        &["purge"],
        &["purge", "--all", "--url", "http://h/"],
        &["purge", "--prefix", "x", "--all"],
        &["load"],
        &["load", "--url", "http://127.0.0.1/", "--rate", "fast"],
    ] {
        assert_eq!(folder.tenfold(wrong).status.code(), Some(2), "{wrong:?}");
    }
    for absent in [&["status"][..], &["reload"], &["purge", "--all"]] {
        let output = folder.tenfold(&[absent, &["--admin", "127.0.0.1:1"]].concat());
        assert_eq!(output.status.code(), Some(1), "{absent:?}");
        assert!(stderr(&output).contains("no Tenfold answers at 127.0.0.1:1"), "{}", stderr(&output));
    }
}

#[test]
fn load_reports_and_fails_when_an_slo_is_missed() {
    let origin = Origin::echo().expect("an origin");
    let folder = Folder::with("");
    let url = origin.url("/x");
    let load = |slo: &str| {
        folder.tenfold(&[
            "load",
            "--url",
            &url,
            "--rate",
            "200/s",
            "--duration",
            "1s",
            "--json",
            "--slo-p99",
            slo,
        ])
    };
    let held = load("10s");
    let report: serde_json::Value = serde_json::from_slice(&held.stdout).expect("JSON");
    assert_eq!(held.status.code(), Some(0), "{report}");
    assert!(report["ok"].as_u64().is_some_and(|ok| ok > 100), "{report}");
    assert_eq!(origin.requests(), report["offered"].as_u64().unwrap_or(0));
    assert_eq!(load("0s").status.code(), Some(1));
}

#[test]
fn load_refuses_other_peoples_hosts() {
    let folder = Folder::with("");
    let refused = folder.tenfold(&["load", "--url", "http://192.0.2.1/", "--duration", "1s"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("--i-own-this-host"), "{}", stderr(&refused));
}

#[test]
fn statements_are_explained_without_a_server() {
    let folder = Folder::with("");
    let explained = folder.tenfold(&["sql", "explain", "UPDATE orders SET total = 1; SELECT 1"]);
    let told = stdout(&explained);
    let lines: Vec<&str> = told.lines().filter(|line| !line.contains("fingerprint")).collect();
    assert_eq!(
        lines,
        [
            "UPDATE orders SET total = 1",
            "  goes to      the primary: it changes rows",
            "  reads        possibly any table",
            "  writes       possibly any table",
            "  leaves       SEQUENCE_MAYBE|WRITES",
            "  catalogue    unknown: name a database with --database",
            "",
            "SELECT 1",
            "  goes to      a replica",
            "  reads        nothing",
            "  writes       nothing",
            "  catalogue    unknown: name a database with --database",
        ],
        "{told}"
    );
    let again = folder.tenfold(&["sql", "explain", "UPDATE orders SET total = 2; SELECT 5"]);
    let prints = |told: &str| -> Vec<String> {
        told.lines().filter(|line| line.contains("fingerprint")).map(str::to_owned).collect()
    };
    assert_eq!(prints(&told), prints(&stdout(&again)), "values make no difference");
    assert_eq!(prints(&told).len(), 2);
}

#[test]
fn statements_of_a_file_are_explained_to_programs() {
    let folder = Folder::with("");
    std::fs::write(folder.path().join("all.sql"), "SELECT * FROM t;\n-- nothing\nSELECT 'a;b';")
        .expect("written");
    let explained = folder.tenfold(&["sql", "explain", "--file", "all.sql", "--json"]);
    let all: serde_json::Value = serde_json::from_slice(&explained.stdout).expect("JSON");
    assert_eq!(all.as_array().map(Vec::len), Some(2));
    assert_eq!((&all[0]["goes_to"], &all[0]["reason"]), (&"primary".into(), &"catalogue_unknown".into()));
    assert_eq!((&all[1]["goes_to"], &all[1]["statement"]), (&"replica".into(), &"SELECT 'a;b'".into()));
    let nothing = folder.tenfold(&["sql", "explain"]);
    assert_eq!(nothing.status.code(), Some(2));
    let absent = folder.tenfold(&["sql", "explain", "--file", "absent.sql"]);
    assert_eq!(absent.status.code(), Some(2));
    let unknown = folder.tenfold(&["sql", "explain", "--database", "shop", "SELECT 1"]);
    assert_eq!((unknown.status.code(), stdout(&unknown)), (Some(2), String::new()));
}
