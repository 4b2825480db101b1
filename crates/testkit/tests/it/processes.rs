//! Children: their output, their end, and what becomes of them when their parent is killed.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tenfold_testkit::process::{self, Child, Guard, StopSignal};
use tenfold_testkit::{Error, wait_for};

use crate::{SHORT, SOON};

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

#[test]
fn a_child_runs_with_its_own_id_and_its_output_is_kept() {
    let mut command = shell("echo id $$; echo \"$GREETING\" >&2; exit 3");
    command.env("GREETING", "hello");
    let mut child = Child::spawn(&command).unwrap();
    child.wait_for_output("hello", SOON).unwrap();
    assert_eq!(child.wait(SOON).unwrap().code(), Some(3));
    assert!(child.log().contains(&format!("id {}\n", child.pid())), "{}", child.log());
}

#[test]
fn output_is_bounded_to_its_end() {
    let script = "i=0; while [ $i -lt 40000 ]; do echo 0123456789; i=$((i+1)); done; echo the end";
    let output = Child::run("printing", &shell(script), &Guard::default(), SOON).unwrap();
    assert_eq!(output.len(), process::LOG_BYTES_MAX);
    assert!(output.ends_with("the end\n"));
}

#[test]
fn a_missing_program_is_named() {
    let error = Child::spawn(&Command::new("no-such-program")).unwrap_err();
    assert!(matches!(error, Error::NotInstalled { program, .. } if program == "no-such-program"));
}

#[test]
fn a_failing_program_shows_what_it_printed() {
    let error = Child::run("trying", &shell("echo why; exit 9"), &Guard::default(), SOON).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("trying failed") && text.contains("status: 9") && text.contains("why"), "{text}");
}

#[test]
fn a_child_that_exits_early_does_not_make_us_wait() {
    let mut child = Child::spawn(&shell("echo something else")).unwrap();
    assert!(matches!(child.wait_for_output("ready", SOON), Err(Error::Failed { .. })));
}

#[test]
fn a_child_that_ignores_its_signal_is_killed() {
    let mut child = Child::spawn(&shell("trap '' TERM; echo up; while :; do sleep 1; done")).unwrap();
    child.wait_for_output("up", SOON).unwrap();
    let status = child.stop(StopSignal::Terminate, SHORT);
    assert!(!status.success());
    assert!(!lives(child.pid()));
}

#[test]
fn dropping_a_child_kills_it_and_its_children() {
    let mut child = Child::spawn(&shell("sleep 1000 & echo child $!.; wait")).unwrap();
    child.wait_for_output(".", SOON).unwrap();
    let log = child.log();
    let grandchild: u32 = log["child ".len()..].trim_end_matches(".\n").parse().unwrap();
    let pid = child.pid();
    assert!(lives(grandchild));
    drop(child);
    wait_for("both to be gone", SOON, || !lives(pid) && !lives(grandchild));
}

/// The parent here is a shell that starts the guard as we do, with its stdin a pipe that only the parent holds.
/// Killed outright, it cannot clean up; the watcher must.
#[test]
fn a_child_does_not_survive_its_parents_kill() {
    let folder = tempfile::tempdir().unwrap();
    let doomed = folder.path().join("home/data");
    std::fs::create_dir_all(&doomed).unwrap();
    let test = std::env::current_exe().unwrap();
    let mut command = Command::new(test);
    command.args(["--exact", "processes::parent_that_is_killed", "--nocapture"]).env("DOOMED", &doomed);
    let mut parent = Child::spawn(&command).unwrap();
    parent.wait_for_output("grandchild ", SOON).unwrap();
    let pid = wait_for("the id", SOON, || {
        let log = parent.log();
        let after = log.split_once("grandchild ")?.1;
        after.split_once('\n')?.0.parse::<u32>().ok()
    });
    assert!(lives(pid) && doomed.exists());
    parent.kill();
    wait_for("the grandchild to be gone", SOON, || !lives(pid));
    wait_for("its folder to be gone", SOON, || !doomed.exists() && !folder.path().join("home").exists());
}

/// Not a test by itself: the parent of the one above, which runs it in a process of its own.
#[test]
fn parent_that_is_killed() {
    let Some(doomed) = std::env::var_os("DOOMED") else { return };
    let guard =
        Guard { stop_signal: Some(StopSignal::Terminate), remove: Some(doomed.into()), ..Guard::default() };
    let mut child = Child::spawn_guarded(&shell("sleep 1000"), &guard).unwrap();
    println!("grandchild {}", child.pid());
    let _ = child.wait(SOON);
}

#[test]
fn processor_time_is_counted_with_descendants() {
    let script =
        "sh -c 'i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done'; echo done; read -r never </dev/zero";
    let mut child = Child::spawn(&shell(script)).unwrap();
    child.wait_for_output("done", SOON).unwrap();
    assert!(child.cpu_seconds() > 0.02, "{}", child.cpu_seconds());
}

#[test]
fn a_free_port_can_be_listened_on() {
    let port = process::free_port().unwrap();
    std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
}

#[test]
fn a_program_that_does_not_end_is_a_time_out() {
    let error = Child::run("sleeping", &shell("sleep 1000"), &Guard::default(), Duration::from_millis(20));
    assert!(matches!(error, Err(Error::TimedOut { .. })));
}

fn lives(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")) else {
        return false;
    };
    // A zombie is dead; whoever adopted it has not looked yet.
    !stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('Z'))
}
