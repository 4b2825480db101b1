//! What the demo runs: PostgreSQL with a replica, two nodes of the shop, and Tenfold.
//!
//! All of it are guarded children (`testkit`): they end when their handles are dropped, in the order below, and when
//! this process ends in any other way. Ports are the usual ones where they are free, so that the addresses are easy to
//! read, and any others where they are not.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tenfold_testkit::postgres::{self, Cluster};
use tenfold_testkit::process::{Child, Guard, StopSignal, cpu_seconds, find_program, free_port};
use tenfold_testkit::{raw, try_wait_for};

use super::Options;
use super::steps::Steps;
use crate::interrupt::Interrupt;

const DATABASE: &str = "shop";
const SEED_TIME_MAX: Duration = Duration::from_secs(120);
const START_TIME_MAX: Duration = Duration::from_secs(20);
const IDLE_TIME_MAX: Duration = Duration::from_secs(60);
/// The shop is idle when so many readings in a row, 20 ms and more apart, find no new statement.
const SAME_COUNTS_WHEN_IDLE: u32 = 8;
const STOP_TIME_MAX: Duration = Duration::from_secs(5);
/// Both nodes must be able to read each other's tokens. Not a secret: it is gone with the demo.
const JWT_SECRET: &str = "the demo's own, of no use to anybody";
const SHOP_PORTS: [u16; 2] = [3001, 3002];
const TENFOLD_PORT: u16 = 8080;
const ADMIN_PORT: u16 = 9900;
const TENFOLD_TOML: &str = include_str!("tenfold.toml");

/// The shop as it is without Tenfold.
pub(crate) struct Stack {
    // Dropped in this order: the nodes leave before their database.
    nodes: Vec<Node>,
    cluster: Cluster,
}

struct Node {
    child: Child,
    port: u16,
}

impl Stack {
    /// Starts PostgreSQL, fills the shop's database, starts its nodes.
    pub(crate) fn start(
        shop: &Path,
        run: &Path,
        options: Options,
        interrupt: &Interrupt,
        steps: &mut Steps,
    ) -> Result<Self> {
        let node =
            find_program("node").context("node is not installed (Debian, Ubuntu: apt-get install nodejs)")?;
        let cluster = Cluster::start(&postgres::Options {
            dir: Some(run.to_path_buf()),
            fsync: !options.quick,
            replica: true,
            ..postgres::Options::default()
        })?;
        steps.done("PostgreSQL runs: a primary and a replica");
        interrupt.check()?;
        cluster.psql(&format!("CREATE DATABASE {DATABASE}"))?;
        let mut seed = Command::new(&node);
        seed.arg("scripts/setup-db.js")
            .current_dir(shop)
            .env("DATABASE_URL", cluster.primary().url_of(DATABASE));
        Child::run("filling the shop's database", &seed, &Guard::default(), SEED_TIME_MAX)?;
        let products = cluster.primary().psql_in(DATABASE, "SELECT count(*) FROM products")?;
        steps.done(&format!("the shop's database is filled: {products} products"));
        interrupt.check()?;
        let mut stack = Self { nodes: Vec::new(), cluster };
        for port in SHOP_PORTS {
            stack.nodes.push(Node::start(&node, shop, usual_port(port, steps)?, &stack.cluster)?);
        }
        steps.done(&format!("two nodes of the shop run: {}", stack.urls().join(" and ")));
        Ok(stack)
    }

    /// Where the nodes listen.
    pub(crate) fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(|node| format!("http://127.0.0.1:{}", node.port)).collect()
    }

    pub(crate) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// CPU time of the shop's nodes, in seconds.
    pub(crate) fn shop_cpu_seconds(&self) -> f64 {
        self.nodes.iter().map(|node| node.child.cpu_seconds()).sum()
    }

    /// Runs SQL in the shop's database.
    pub(crate) fn sql(&self, sql: &str) -> Result<String> {
        Ok(self.cluster.primary().psql_in(DATABASE, sql)?)
    }

    /// Waits until the shop has worked off what is left of the last run: users who gave up do not take their requests
    /// back, and the next run must not pay for them.
    pub(crate) fn wait_until_idle(&self) -> Result<()> {
        let (mut last, mut seen) = (None, 0);
        let idle = || {
            let count = self.cluster.query_count().ok();
            seen = if count.is_some() && count == last { seen + 1 } else { 0 };
            last = count;
            seen == SAME_COUNTS_WHEN_IDLE
        };
        Ok(try_wait_for("the shop to finish what it was asked", IDLE_TIME_MAX, idle)?)
    }

    /// An error that says which node has died, if one has.
    pub(crate) fn check_alive(&mut self) -> Result<()> {
        for node in &mut self.nodes {
            if let Some(status) = node.child.try_wait() {
                bail!("a node of the shop ended ({status}):\n{}", node.child.log());
            }
        }
        Ok(())
    }

    /// What is open while the demo waits.
    pub(crate) fn invitation(&self, tenfold: &Tenfold) -> String {
        let [alone, ..] = self.urls().try_into().unwrap_or([const { String::new() }; 2]);
        format!(
            "Open, until Ctrl-C:\n  \
             the shop alone         {alone}/\n  \
             the shop behind Tenfold {}/\n  \
             Tenfold's metrics      http://{}/metrics\n  \
             its configuration      {}",
            tenfold.url(),
            tenfold.admin,
            tenfold.config.display(),
        )
    }
}

impl Node {
    fn start(node: &Path, shop: &Path, port: u16, cluster: &Cluster) -> Result<Self> {
        let mut command = Command::new(node);
        command.arg("server.js").current_dir(shop);
        command.env("NODE_ENV", "production").env("HOST", "127.0.0.1").env("PORT", port.to_string());
        command.env("DATABASE_URL", cluster.primary().url_of(DATABASE)).env("JWT_SECRET", JWT_SECRET);
        let guard = Guard { stop_signal: Some(StopSignal::Terminate), ..Guard::default() };
        let mut child = Child::spawn_guarded(&command, &guard)?;
        child.wait_for_output("listening", START_TIME_MAX)?;
        Ok(Self { child, port })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.child.stop(StopSignal::Terminate, STOP_TIME_MAX);
    }
}

/// The release binary, in front of the shop.
pub(crate) struct Tenfold {
    child: Child,
    port: u16,
    admin: SocketAddr,
    config: PathBuf,
}

impl Tenfold {
    pub(crate) fn start(run: &Path, stack: &Stack, steps: &mut Steps) -> Result<Self> {
        let program = std::env::current_exe()?.with_file_name("tenfold");
        let port = usual_port(TENFOLD_PORT, steps)?;
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, usual_port(ADMIN_PORT, steps)?));
        let nodes: Vec<String> =
            stack.nodes.iter().map(|node| format!("\"127.0.0.1:{}\"", node.port)).collect();
        let text = TENFOLD_TOML
            .replace("@PORT@", &port.to_string())
            .replace("@ADMIN@", &admin.port().to_string())
            .replace("@NODES@", &nodes.join(", "));
        let config = run.join("tenfold.toml");
        std::fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
        let mut command = Command::new(&program);
        command.args(["run", "-c"]).arg(&config);
        let guard = Guard { stop_signal: Some(StopSignal::Terminate), ..Guard::default() };
        let mut child = Child::spawn_guarded(&command, &guard)
            .context("Tenfold is not built (cargo build --release --package tenfold)")?;
        try_wait_for("Tenfold to be ready", START_TIME_MAX, || {
            let ready = raw::get(admin, "/readyz").is_ok_and(|answer| answer.status == 200);
            (ready || child.try_wait().is_some()).then_some(())
        })
        .with_context(|| child.log())?;
        if let Some(status) = child.try_wait() {
            bail!("Tenfold ended at start ({status}):\n{}", child.log());
        }
        Ok(Self { child, port, admin, config })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn cpu_seconds(&self) -> f64 {
        cpu_seconds(self.child.pid())
    }

    /// What `/metrics` says now.
    pub(crate) fn metrics(&self) -> Result<String> {
        let answer =
            raw::get(self.admin, "/metrics").context("Tenfold does not answer on its admin address")?;
        Ok(answer.text())
    }
}

impl Drop for Tenfold {
    fn drop(&mut self) {
        self.child.stop(StopSignal::Terminate, STOP_TIME_MAX);
    }
}

/// This port if nobody has it, else one that is free, and a word about it.
fn usual_port(port: u16, steps: &mut Steps) -> Result<u16> {
    let Err(error) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) else { return Ok(port) };
    let other = free_port().context("no port is free on 127.0.0.1")?;
    steps.say(&format!("port {port} cannot be had ({error}); using {other} in its place"));
    Ok(other)
}
