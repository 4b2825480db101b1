//! The shop as it runs: PostgreSQL with a replica, and two nodes.
//!
//! All of it are guarded children (`testkit`): they end when their handles are dropped, in the order below, and when
//! this process ends in any other way. Ports are the usual ones where they are free, so that the addresses are easy to
//! read, and any others where they are not. The nodes are started twice, on the same ports: first with the server's
//! address, as such shops run, then with the pooler's and a larger pool of their own, the two settings that change.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tenfold_testkit::postgres::{self, Auth, Cluster, Server};
use tenfold_testkit::process::{Child, Guard, StopSignal, find_program, free_port};
use tenfold_testkit::try_wait_for;

use super::Options;
use super::steps::Steps;
use crate::interrupt::Interrupt;

pub(crate) const DATABASE: &str = "shop";
/// Who the shop is at its database: an ordinary user that owns it.
pub(crate) const ROLE: &str = "shop";
/// Not a secret: it is gone with the demo.
pub(crate) const PASSWORD: &str = "gonewiththedemo";
/// What PostgreSQL has where nobody has changed it.
const CONNECTIONS_MAX: u32 = 100;
const SEED_TIME_MAX: Duration = Duration::from_secs(120);
pub(crate) const START_TIME_MAX: Duration = Duration::from_secs(20);
const IDLE_TIME_MAX: Duration = Duration::from_secs(60);
/// The shop is idle when so many readings in a row, 20 ms and more apart, find no new statement.
const SAME_COUNTS_WHEN_IDLE: u32 = 8;
/// What the pooler asks servers on its own account, as a condition on a statement's text: it names everything by its
/// schema, which the shop never does.
pub(crate) const POOLER_ASKS: &str = r"query ~ '\mpg_catalog\.'";
pub(crate) const STOP_TIME_MAX: Duration = Duration::from_secs(5);
/// Both nodes must be able to read each other's tokens. Not a secret either.
const JWT_SECRET: &str = "the demo's own, of no use to anybody";
const SHOP_PORTS: [u16; 2] = [3001, 3002];
/// Of the node that answers without Tenfold while the demo waits to be looked at.
const ALONE_PORT: u16 = 3003;

/// How a node reaches its database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Database {
    /// The server itself, through the ten connections that the shop's pool has by default.
    Direct,
    /// The pooler on this port, where connections cost little.
    Pooled(u16),
}

/// Connections a node may have to the pooler.
pub(crate) const POOLED_CONNECTIONS_MAX: u32 = 500;

/// The shop as it is without Tenfold.
pub(crate) struct Stack {
    // Dropped in this order: the nodes leave before their database.
    nodes: Vec<Node>,
    cluster: Cluster,
    programs: Programs,
    ports: Vec<u16>,
}

/// What a node is started with.
struct Programs {
    node: PathBuf,
    shop: PathBuf,
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
            replicas: 1,
            connections_max: CONNECTIONS_MAX,
            auth: Auth::Scram { password: PASSWORD.to_owned() },
            // Else nothing would reach the replica for a tenth of a second where nothing is durable.
            settings: vec![("synchronous_commit".into(), "on".into())],
            ..postgres::Options::default()
        })?;
        steps.done("PostgreSQL runs: a primary and a replica");
        interrupt.check()?;
        cluster.psql(&format!("CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}'"))?;
        cluster.psql(&format!("CREATE DATABASE {DATABASE} OWNER {ROLE}"))?;
        let mut ports = Vec::new();
        for port in SHOP_PORTS {
            ports.push(usual_port(port, steps)?);
        }
        let programs = Programs { node, shop: shop.to_path_buf() };
        let mut stack = Self { nodes: Vec::new(), cluster, programs, ports };
        let mut seed = Command::new(&stack.programs.node);
        seed.arg("scripts/setup-db.js")
            .current_dir(shop)
            .env("DATABASE_URL", stack.database_url(Database::Direct));
        Child::run("filling the shop's database", &seed, &Guard::default(), SEED_TIME_MAX)?;
        let products = stack.sql("SELECT count(*) FROM products")?;
        steps.done(&format!("the shop's database is filled: {products} products"));
        interrupt.check()?;
        stack.start_nodes(Database::Direct)?;
        steps.done(&format!("two nodes of the shop run: {}", stack.urls().join(" and ")));
        Ok(stack)
    }

    /// Starts both nodes, in place of those that run.
    pub(crate) fn start_nodes(&mut self, database: Database) -> Result<()> {
        self.nodes.clear();
        for port in &self.ports {
            self.nodes.push(Node::start(&self.programs, *port, database, &self.database_url(database))?);
        }
        Ok(())
    }

    /// One node more, which knows nothing of Tenfold; returns its address.
    pub(crate) fn start_node_alone(&mut self, steps: &mut Steps) -> Result<String> {
        let port = usual_port(ALONE_PORT, steps)?;
        let url = self.database_url(Database::Direct);
        self.nodes.push(Node::start(&self.programs, port, Database::Direct, &url)?);
        Ok(format!("http://127.0.0.1:{port}"))
    }

    fn database_url(&self, database: Database) -> String {
        let port = match database {
            Database::Direct => self.cluster.primary().port(),
            Database::Pooled(port) => port,
        };
        format!("postgresql://{ROLE}:{PASSWORD}@127.0.0.1:{port}/{DATABASE}")
    }

    /// Where the nodes listen.
    pub(crate) fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(|node| format!("http://127.0.0.1:{}", node.port)).collect()
    }

    /// The same without a scheme.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.ports.iter().map(|port| format!("127.0.0.1:{port}")).collect()
    }

    pub(crate) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    pub(crate) fn replica(&self) -> Result<&Server> {
        self.cluster.replica().context("the cluster was started without its replica")
    }

    /// CPU time of the shop's nodes, in seconds.
    pub(crate) fn shop_cpu_seconds(&self) -> f64 {
        self.nodes.iter().map(|node| node.child.cpu_seconds()).sum()
    }

    /// Connections open to the shop's database: the shop's, or the pooler's.
    pub(crate) fn server_connections(&self) -> Result<u64> {
        let count = self.cluster.psql(&format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = '{DATABASE}' AND backend_type = 'client backend'"
        ))?;
        count.parse().with_context(|| format!("PostgreSQL counts {count:?} connections"))
    }

    /// Runs SQL in the shop's database.
    pub(crate) fn sql(&self, sql: &str) -> Result<String> {
        Ok(self.cluster.primary().psql_in(DATABASE, sql)?)
    }

    /// Counts statements from zero, at both servers.
    pub(crate) fn forget_statements(&self) -> Result<()> {
        self.cluster.forget_queries()?;
        Ok(self.replica()?.psql("SELECT pg_stat_statements_reset()").map(drop)?)
    }

    /// Waits until the shop has worked off what is left of the last run: users who gave up do not take their requests
    /// back, and the next run must not pay for them.
    pub(crate) fn wait_until_idle(&self) -> Result<()> {
        let (mut last, mut seen) = (None, 0);
        let idle = || {
            let count = self.cluster.query_count_where(&format!("NOT ({POOLER_ASKS})")).ok();
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
}

impl Node {
    fn start(programs: &Programs, port: u16, database: Database, url: &str) -> Result<Self> {
        let mut command = Command::new(&programs.node);
        command.arg("server.js").current_dir(&programs.shop);
        command.env("NODE_ENV", "production").env("HOST", "127.0.0.1").env("PORT", port.to_string());
        command.env("DATABASE_URL", url).env("JWT_SECRET", JWT_SECRET);
        if database != Database::Direct {
            command.env("DATABASE_POOL_SIZE", POOLED_CONNECTIONS_MAX.to_string());
        }
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

/// This port if nobody has it, else one that is free, and a word about it.
pub(crate) fn usual_port(port: u16, steps: &mut Steps) -> Result<u16> {
    let Err(error) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) else { return Ok(port) };
    let other = free_port().context("no port is free on 127.0.0.1")?;
    steps.say(&format!("port {port} cannot be had ({error}); using {other} in its place"));
    Ok(other)
}
