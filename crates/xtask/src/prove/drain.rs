//! Drain and reload: the process ends, and takes other configurations, while clients go on.
//!
//! Scenes: SIGTERM under load, several times over, each time a new process; twenty reloads by turns of SIGHUP and
//! `tenfold reload`, between files that name different nodes; files that are wrong, which change nothing and are
//! answered with the reason; listeners that come and go. The judges are clients that keep their connections
//! ([`super::steady`]).

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tenfold_testkit::process::StopSignal;
use tenfold_testkit::raw::Client;
use tenfold_testkit::{Answer, Origin, raw, try_wait_for};

use super::stand::{Scratch, Tenfold, free_address, now, pause};
use super::steady::{Seen, Steady};
use super::verdict::Verdicts;

const CLIENTS: usize = 32;
const RELOADS: u32 = 20;
const LIMIT: Duration = Duration::from_secs(30);

pub(crate) fn prove(scratch: &Scratch, short: bool) -> Result<Verdicts> {
    let (ends, before, between) = if short { (2, 1000, 100) } else { (10, 3000, 1000) };
    let mut verdicts = Verdicts::new(format!(
        "drain: {CLIENTS} clients on kept connections, each sending at least once a second"
    ));
    let nodes = [node("first")?, node("second")?];
    ended(scratch, &nodes, ends, Duration::from_millis(before), &mut verdicts)?;
    reloaded(scratch, &nodes, Duration::from_millis(between), &mut verdicts)?;
    Ok(verdicts)
}

fn node(name: &'static str) -> Result<Origin> {
    let answer = |name: &str| Answer::ok(vec![b'x'; 2000]).header("X-Node", name).cache_control("no-store");
    Origin::serve(move |_| answer(name)).context("no port for a node")
}

fn toml(node: &Origin, cluster: &str) -> String {
    format!(
        "[cluster.{cluster}]\nnodes = [\"{}\"]\nhealth = {{ path = \"/health\" }}\n\n\
         [[route]]\nname = \"all\"\npath = \"/{{*rest}}\"\nto = \"{cluster}\"\n",
        node.addr()
    )
}

/// SIGTERM, `ends` times.
fn ended(
    scratch: &Scratch,
    nodes: &[Origin; 2],
    ends: u32,
    before: Duration,
    verdicts: &mut Verdicts,
) -> Result<()> {
    let mut total = Seen::default();
    let (mut slowest, mut unclean) = (Duration::ZERO, 0);
    for _ in 0..ends {
        let mut tenfold = Tenfold::start(scratch, &toml(&nodes[0], "api"))?;
        let clients = Steady::start(tenfold.edge, CLIENTS);
        pause(before);
        tenfold.child.signal(StopSignal::Terminate);
        let began = now();
        let status = tenfold.child.wait(LIMIT)?;
        slowest = slowest.max(began.elapsed());
        unclean += u64::from(status.code() != Some(0));
        try_wait_for("the clients to be refused", LIMIT, || clients.all_refused())?;
        total.add(clients.finish()?);
    }
    verdicts.bar(
        &format!("SIGTERM, {ends} times: failed requests"),
        format!("{} of {} {}", total.failed, total.failed + total.answered, total.examples.join("; ")),
        "0",
        total.failed == 0,
    );
    let connections = CLIENTS as u64 * u64::from(ends);
    let told = format!("{} of {connections}", total.told.min(connections));
    verdicts.bar("connections told `Connection: close`", told, "all", total.told >= connections);
    verdicts.none("exit codes other than 0", unclean);
    verdicts.note("connections lost in the closing listener's queue", total.lost_in_queue);
    verdicts.note("connects refused afterwards", total.refused);
    verdicts.note("slowest end, SIGTERM to exit", format!("{:.2} s", slowest.as_secs_f64()));
    Ok(())
}

fn reloaded(
    scratch: &Scratch,
    nodes: &[Origin; 2],
    between: Duration,
    verdicts: &mut Verdicts,
) -> Result<()> {
    let files = [toml(&nodes[0], "api"), toml(&nodes[1], "other")];
    let mut tenfold = Tenfold::start(scratch, &files[0])?;
    let edge = tenfold.edge;
    let clients = Steady::start(edge, CLIENTS);
    let answered_by =
        |name: &str| raw::get(edge, "/who").is_ok_and(|answer| answer.header("x-node") == Some(name));
    let mut applied = 0;
    for turn in 1..=RELOADS {
        let (file, name) = if turn % 2 == 1 { (&files[1], "second") } else { (&files[0], "first") };
        tenfold.write(&[edge], file)?;
        if turn % 4 < 2 {
            tenfold.hang_up()?;
        } else {
            let output = tenfold.command(&["reload"])?;
            anyhow::ensure!(output.status.success(), "reload: {}", String::from_utf8_lossy(&output.stderr));
        }
        applied += u32::from(try_wait_for("the reload", LIMIT, || answered_by(name)).is_ok());
        pause(between);
    }
    verdicts.bar("reloads that took effect", applied, &RELOADS.to_string(), applied == RELOADS);
    refused(&tenfold, &files[1], nodes[0].addr(), verdicts)?;
    listeners(&tenfold, &files[0], verdicts)?;
    pause(between);
    let seen = clients.finish()?;
    verdicts.bar(
        "reloads under load: failed requests",
        format!(
            "{} of {} {}",
            seen.failed + seen.lost_in_queue + seen.refused,
            seen.failed + seen.answered,
            seen.examples.join("; ")
        ),
        "0",
        seen.failed + seen.lost_in_queue + seen.refused == 0,
    );
    let panics = tenfold.metric("tenfold_service_panics_total")?;
    verdicts.bar("panics", panics, "0", panics == 0.0);
    tenfold.child.stop(StopSignal::Terminate, LIMIT);
    Ok(())
}

/// Files that are wrong in several ways: none may change anything.
fn refused(tenfold: &Tenfold, good: &str, taken: SocketAddr, verdicts: &mut Verdicts) -> Result<()> {
    let cases = [
        ("a cluster that does not exist", good.replace("to = \"other\"", "to = \"othr\""), "othr"),
        ("a key that does not exist", format!("edge.liste = 1\n{good}"), "liste"),
        ("TOML that is none", format!("{good}\n[["), "tenfold.toml:"),
        ("two routes that tie", format!("{good}{}", &good[good.find("[[route]]").unwrap_or(0)..]), "route"),
        ("a listener on somebody else's port", good.to_owned(), "cannot listen on"),
    ];
    let (mut refused, mut unchanged) = (0, 0);
    let count = cases.len();
    let mut shown = String::new();
    for (what, text, said) in cases {
        let listen = if said == "cannot listen on" { &[tenfold.edge, taken][..] } else { &[tenfold.edge] };
        tenfold.write(listen, &text)?;
        let output = tenfold.command(&["reload"])?;
        let reason = String::from_utf8_lossy(&output.stderr).into_owned();
        let is_refused =
            output.status.code() == Some(2) && reason.contains(said) && !reason.trim().is_empty();
        refused += usize::from(is_refused);
        if !is_refused {
            shown.push_str(&format!(" {what}: {} {reason:?}", output.status));
        }
        let answer = raw::get(tenfold.edge, "/who")?;
        unchanged += usize::from(answer.header("x-node") == Some("first"));
    }
    verdicts.bar(
        "bad files refused with the reason, exit code 2",
        format!("{refused} of {count}{shown}"),
        "all",
        refused == count,
    );
    verdicts.bar("… that changed nothing", format!("{unchanged} of {count}"), "all", unchanged == count);
    Ok(())
}

/// A second listener comes and goes; a connection on it outlives it.
fn listeners(tenfold: &Tenfold, file: &str, verdicts: &mut Verdicts) -> Result<()> {
    let second = free_address()?;
    let reload = || -> Result<()> {
        let output = tenfold.command(&["reload"])?;
        anyhow::ensure!(output.status.success(), "reload: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    };
    tenfold.write(&[tenfold.edge, second], file)?;
    reload()?;
    let mut kept = Client::connect(second).context("the new listener does not listen")?;
    let came = kept.get("/who")?.status == 200;
    tenfold.write(&[tenfold.edge], file)?;
    reload()?;
    let gone = try_wait_for("the listener to go", LIMIT, || Client::connect(second).is_err()).is_ok();
    let last = kept.get("/who");
    let goes_on = last.as_ref().is_ok_and(|answer| answer.status == 200);
    verdicts.bar("a listener added by a reload answers", came, "true", came);
    verdicts.bar("… removed, it refuses", gone, "true", gone);
    verdicts.bar("… and its open connection is answered", goes_on, "true", goes_on);
    Ok(())
}
