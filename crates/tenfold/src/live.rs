//! The running process, as the admin server and the signals see it.
//!
//! **Intuition.** A reload is a rehearsal that may become the performance: everything that can fail is done beside what
//! runs, and only then is the one swapped for the other. So a bad file changes nothing.
//!
//! **Mechanism.** Read the file and those it names, let the edge build its new snapshot, find out where the nodes in it
//! are, bind the listeners it adds ([`crate::listeners`]); then both tiers take what is theirs, and the acceptor takes the
//! new listeners and gives up the old ones. What was read at the start alone (threads, the admin server, the log's form,
//! the cache's size) is compared and named in a warning.
//!
//! **Failure.** A [`Reloaded`] that was not applied, with every reason. Reloads come one after the other.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tenfold_edge::{Edge, Purging as Purged};
use tenfold_service::acceptor::Service;
use tenfold_service::clock::Clock;
use tenfold_service::drain::Drain;
use tenfold_service::limits::ConnectionLimits;
use tenfold_service::metrics::Registry;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::config::diagnostic::{Diagnostic, Report};
use crate::config::settings::Settings;
use crate::config::{self, Loaded};
use crate::explaining::Question;
use crate::listeners::{self, Listeners, Place, Tier, Unbound};
use crate::log::Log;
use crate::pooler_files;
use crate::pooling::Pooling;
pub use crate::purging::Purging;
use crate::restart::Door;
use crate::scrape::Scrape;
use crate::status;

/// How long who purges waits to hear that the other edges can hear of it.
const SPREAD: Duration = Duration::from_secs(1);

/// What the process is made of, for whoever asks or tells it something.
pub struct Live {
    /// The file it runs from, absolute.
    pub path: PathBuf,
    /// Where it says things.
    pub log: Log,
    /// The time.
    pub clock: Clock,
    /// When it was started.
    pub started: Instant,
    /// What it counts.
    pub registry: Registry,
    /// Reads what the tiers keep themselves.
    pub scrape: Scrape,
    /// Its end.
    pub drain: Drain,
    /// The tier.
    pub edge: Edge,
    /// The other tier, if there was a database at the start.
    pub pooling: Option<Pooling>,
    /// What it listens on.
    pub listeners: Listeners,
    /// Where a successor comes in.
    pub door: Door,
    /// Of the edge's listeners.
    pub limits: Arc<ConnectionLimits>,
    /// How many threads work.
    pub workers: usize,
    /// As it was started: what only a restart changes.
    pub at_start: Settings,
    /// What is in force.
    pub loaded: RefCell<Loaded>,
    /// One reload at a time.
    pub reloading: tokio::sync::Mutex<()>,
    /// A reload that a signal asked for waits for its turn.
    pub reload_waits: Cell<bool>,
}

/// What became of a reload.
#[derive(Debug)]
pub struct Reloaded {
    /// All of it, or nothing.
    pub applied: bool,
    /// Mistakes if not, warnings if so.
    pub report: Report,
}

impl Live {
    /// Takes requests: started, and not draining.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.drain.is_draining()
    }

    /// What callers of the admin server must know.
    #[must_use]
    pub fn token(&self) -> Option<&str> {
        self.at_start.admin.token.as_ref().map(|token| token.0.as_str())
    }

    /// OpenMetrics text.
    #[must_use]
    pub fn metrics(&self) -> String {
        self.scrape.render(&self.edge, self.clock.now())
    }

    /// For `/api/v1/status`.
    #[must_use]
    pub fn status(&self) -> Value {
        status::of(self)
    }

    /// For `/api/v1/config`: what is in force, defaults filled in, secrets masked.
    #[must_use]
    pub fn config(&self) -> Value {
        json!({ "file": self.path.display().to_string(), "config": self.loaded.borrow().tree.to_json() })
    }

    /// A request to the admin server was refused.
    pub fn count_refusal(&self, reason: &'static str) {
        let help = "Requests to the admin server refused, by reason.";
        self.registry.counter("tenfold_admin_refusals", help, &[("reason", reason)]).add(1);
    }

    /// Takes responses out of the cache, here at once. With edges that share, `spread` says whether they can hear of it by
    /// now; if not, they will when Redis can be reached.
    pub async fn purge(&self, purging: &Purging) -> Value {
        let (purge, soft) = purging.as_purge();
        let Purged { purged, told } = self.edge.purge(&purge, soft);
        let mut answer = json!({ "purged": true, "soft": soft, "sequence": purged.sequence });
        if !told.is_empty() {
            let all = async {
                for one in told {
                    // Without a sender there is nobody who will say so.
                    if one.await.is_err() {
                        return false;
                    }
                }
                true
            };
            answer["spread"] = timeout(SPREAD, all).await.unwrap_or(false).into();
        }
        answer
    }

    /// Says what the cache has for a request, and what the next one like it would meet.
    pub fn explain(&self, question: &Question) -> Result<Value, String> {
        question.answer(&self.edge, tenfold_cache::Timestamp(self.clock.unix_ms()))
    }

    /// Applies the file as it is now: all of it or nothing. What is wrong goes to the log and to who asked.
    pub async fn reload(&self) -> Reloaded {
        let _one_at_a_time = self.reloading.lock().await;
        self.reload_now().await
    }

    /// Reloads in a task of its own: whoever listens to signals hears the next one meanwhile. Asked again before it has
    /// begun, it is one reload, which reads the file as it is then.
    pub fn reload_soon(self: &Rc<Self>) {
        if self.reload_waits.replace(true) {
            return;
        }
        let live = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let _one_at_a_time = live.reloading.lock().await;
            live.reload_waits.set(false);
            live.reload_now().await;
        });
    }

    /// Reloads in a task of its own, and tells who asked for it at the console.
    pub fn reload_for(self: &Rc<Self>, reply: oneshot::Sender<Result<(), String>>) {
        let live = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let reloaded = live.reload().await;
            let text = reloaded.report.render(false);
            // Whoever asked may be gone.
            let _ = reply.send(if reloaded.applied { Ok(()) } else { Err(text) });
        });
    }

    async fn reload_now(&self) -> Reloaded {
        let reloaded = match config::load(&self.path) {
            Ok(loaded) => self.apply(loaded).await,
            Err(report) => Reloaded { applied: false, report },
        };
        let text = reloaded.report.render(false);
        match (reloaded.applied, text.is_empty()) {
            (true, true) => self.log.info("reloaded"),
            (true, false) => self.log.warn(&format!("reloaded, with warnings:\n{text}")),
            (false, _) => self.log.error(&format!("not reloaded, what runs is unchanged:\n{text}")),
        }
        reloaded
    }

    async fn apply(&self, loaded: Loaded) -> Reloaded {
        let refused = |report| Reloaded { applied: false, report };
        let next = match self.edge.prepare(loaded.settings.edge.clone(), self.clock.now()) {
            Ok(next) => next,
            Err(errors) => return refused(loaded.place(&errors)),
        };
        let pooler = match &self.pooling {
            Some(pooling) => {
                pooling.prepare(loaded.settings.pooler.as_ref(), folder_of(&self.path)).map(Some)
            }
            None => Ok(None),
        };
        let pooler = match pooler {
            Ok(pooler) => pooler,
            Err(errors) => {
                self.edge.forget_absent();
                return refused(loaded.place_pooler(&errors));
            }
        };
        // Before it is in force: a request must not find nodes that have no address yet.
        tenfold_edge::health::resolve(&next, crate::run::report_to(&self.log)).await;
        if self.drain.is_draining() || self.door.is_handed_over() {
            let why = "the process is about to end, so nothing is reloaded";
            self.edge.forget_absent();
            return refused(loaded.report(vec![Diagnostic::unplaced(why)]));
        }
        let wanted = self.wanted(&loaded.settings);
        let service = |tier| self.service(tier);
        let added = match self.listeners.bind_added(&wanted, &service).await {
            Ok(added) => added,
            Err(unbound) => {
                self.edge.forget_absent();
                let span = |tier: Tier| loaded.tree.span_of(tier.key()).unwrap_or(0..0);
                let problem = |unbound: Unbound| Diagnostic::error(span(unbound.tier), unbound.message, "");
                return refused(loaded.report(unbound.into_iter().map(problem).collect()));
            }
        };
        self.edge.commit(next);
        let mut problems = loaded.warnings.clone();
        if let Some((pooling, config)) = self.pooling.as_ref().zip(pooler)
            && let Err(errors) = pooling.commit(config)
        {
            // It was checked before; what is wrong now came about in between, and the old one stays in force.
            problems.extend(loaded.place_pooler(&errors).diagnostics);
        }
        let taken_over = self.listeners.take_over(&wanted, added, &service).await;
        problems.extend(taken_over.into_iter().map(Diagnostic::unplaced));
        let limits = &loaded.settings.edge.limits;
        self.limits.set(limits.connections_max, limits.connections_per_ip_max);
        problems.extend(needs_restart(&self.at_start, &loaded, self.pooling.is_some()));
        let report = loaded.report(problems);
        self.loaded.replace(loaded);
        Reloaded { applied: true, report }
    }

    /// Where it is to listen. A pooler that was not started listens nowhere.
    fn wanted(&self, settings: &Settings) -> Vec<Place> {
        let mut wanted = listeners::wanted(settings);
        wanted.retain(|place| place.tier == Tier::Edge || self.pooling.is_some());
        wanted
    }

    fn service(&self, tier: Tier) -> Option<Service> {
        match tier {
            Tier::Edge => Some(crate::run::service(&self.edge)),
            Tier::Pooler => self.pooling.as_ref().map(Pooling::service),
        }
    }

    /// SIGUSR1: transactions that run finish, new ones wait.
    pub fn pause(&self) {
        if let Some(pooling) = &self.pooling {
            pooling.pooler.pause();
            self.log.info("paused: new transactions wait until SIGUSR2 or RESUME");
        }
    }

    /// SIGUSR2: those that wait go on.
    pub fn resume(&self) {
        if let Some(pooling) = &self.pooling {
            pooling.pooler.resume();
            self.log.info("resumed");
        }
    }
}

/// Warnings for what the file changes and only a restart can.
fn needs_restart(at_start: &Settings, loaded: &Loaded, has_pooler: bool) -> Vec<Diagnostic> {
    let now = &loaded.settings;
    let changed = [
        ("workers", at_start.workers != now.workers),
        ("admin.listen", at_start.admin.listen != now.admin.listen),
        ("admin.probe_listen", at_start.admin.probe_listen != now.admin.probe_listen),
        ("admin.token", at_start.admin.token != now.admin.token),
        ("admin.handover", at_start.admin.handover != now.admin.handover),
        ("log.format", at_start.log_format != now.log_format),
        ("cache.memory", at_start.edge.cache.memory_bytes != now.edge.cache.memory_bytes),
        ("cache.object_max", at_start.edge.cache.object_bytes_max != now.edge.cache.object_bytes_max),
        ("cache.variants_max", at_start.edge.cache.variants_max != now.edge.cache.variants_max),
        ("cache.files_max", at_start.edge.cache.files_max != now.edge.cache.files_max),
        ("cache.fills_max", at_start.edge.cache.fills_max != now.edge.cache.fills_max),
        ("cache.refills_max", at_start.edge.cache.refills_max != now.edge.cache.refills_max),
        ("cache.redis", at_start.shared != now.shared),
    ];
    let warning = |key: &str| {
        let span = loaded.tree.span_of(key).unwrap_or(0..0);
        Diagnostic::warning(
            span,
            format!("{key} has changed, which needs a restart"),
            "the old value stays in force",
        )
    };
    let mut warnings: Vec<_> =
        changed.iter().filter(|(_, changed)| *changed).map(|(key, _)| warning(key)).collect();
    if now.pooler.is_some() && !has_pooler {
        let span = loaded.tree.span_of("database").unwrap_or(0..0);
        let help = "restart: the pooler and its listeners start with the process";
        warnings.push(Diagnostic::warning(span, "the first [database] needs a restart", help));
    }
    warnings
}

/// Builds everything as `run` would, and throws it away: what `check` asks.
pub fn rehearse(loaded: &Loaded, path: &Path) -> Result<(), Report> {
    let (access_log, _) = tenfold_edge::access_log::AccessLog::channel();
    let deps =
        tenfold_edge::Deps { registry: Registry::new(1), access_log, seed: 0, now: Clock::system().now() };
    let edge = Edge::build(loaded.settings.edge.clone(), deps).map_err(|errors| loaded.place(&errors));
    let pooler = match &loaded.settings.pooler {
        Some(settings) => pooler_files::read(settings, folder_of(path), [0; 16]).map(drop),
        None => Ok(()),
    };
    let pooler = pooler.map_err(|errors| loaded.place_pooler(&errors));
    let problems = [edge.err(), pooler.err()].into_iter().flatten().flat_map(|report| report.diagnostics);
    let problems: Vec<_> = problems.collect();
    if problems.is_empty() { Ok(()) } else { Err(loaded.report(problems)) }
}

/// Where the files are that a configuration names.
#[must_use]
pub fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}
