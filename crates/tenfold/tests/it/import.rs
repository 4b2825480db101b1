//! `tenfold import`: files in the shape of well-known deployments, what they become, and that `check` accepts it.

use std::path::Path;
use std::process::Command;

use tenfold_testkit::tls::Authority;

use crate::process::BINARY;

/// The files beside this one: what goes in, and what comes out.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/pgbouncer");

/// The files that the configurations name.
fn surroundings(folder: &Path) {
    let (clients, servers) = (Authority::new("clients"), Authority::new("servers"));
    let server = servers.server(&["pooler.example"]);
    for (name, text) in [
        ("userlist.txt", "\"app\" \"secret\"\n\"pgbouncer\" \"other\"\n"),
        ("pg_hba.conf", "hostssl all all 0.0.0.0/0 cert\nlocal all all md5\n"),
        ("clients.crt", clients.certificate()),
        ("servers.crt", servers.certificate()),
        ("server.crt", &server.certificate),
        ("server.key", &server.key),
    ] {
        std::fs::write(folder.join(name), text).expect("a file");
    }
}

/// Imports a file; what was printed on both outputs, after `check` has accepted it.
fn import(name: &str) -> (String, String) {
    let folder = tempfile::tempdir().expect("a folder");
    surroundings(folder.path());
    for file in std::fs::read_dir(FOLDER).expect("the files") {
        let file = file.expect("a file");
        std::fs::copy(file.path(), folder.path().join(file.file_name())).expect("a copy");
    }
    let run = |arguments: &[&str]| {
        let mut command = Command::new(BINARY);
        let output = command.args(arguments).current_dir(folder.path()).output().expect("it starts");
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, toml, gaps) = run(&["import", &format!("{name}.ini")]);
    assert_eq!(code, Some(0), "{gaps}");
    std::fs::write(folder.path().join("tenfold.toml"), &toml).expect("a file");
    let (code, said, complaints) = run(&["check", "--offline"]);
    assert_eq!((code, said.as_str()), (Some(0), "tenfold.toml is fine\n"), "{toml}{complaints}");
    (toml, gaps)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn becomes_what_is_beside_it(name: &str) {
    let (toml, gaps) = import(name);
    let expected = std::fs::read_to_string(format!("{FOLDER}/{name}.toml")).unwrap_or_default();
    assert_eq!(toml, expected, "\n{toml}");
    // Each gap of the file is said on stderr, too, and no other.
    let not_carried = toml.lines().skip_while(|line| *line != "# Not carried:").skip(1);
    let listed: Vec<_> = not_carried.map_while(|line| line.strip_prefix("# - ")).collect();
    let said: Vec<_> = gaps.lines().filter_map(|line| line.strip_prefix("not carried: ")).collect();
    assert_eq!(said, listed);
}

#[test]
fn a_package_of_debian() {
    becomes_what_is_beside_it("debian");
}

#[test]
fn a_container_with_one_database() {
    becomes_what_is_beside_it("docker");
}

#[test]
fn several_databases_and_users_from_a_query() {
    becomes_what_is_beside_it("several");
}

#[test]
fn tls_on_both_sides_and_rules() {
    becomes_what_is_beside_it("tls");
}

#[test]
fn session_mode_with_many_timeouts() {
    becomes_what_is_beside_it("legacy");
}

#[test]
fn a_file_that_is_none_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("pgbouncer.ini");
    std::fs::write(&path, "pool_mode session\n").expect("a file");
    for path in [path, folder.path().join("absent.ini")] {
        let output = Command::new(BINARY).arg("import").arg(&path).output().expect("it starts");
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(2), String::new()));
        assert!(text(&output.stderr).starts_with("error: "));
    }
}
