//! What is counted, and how it is told.
//!
//! **Intuition.** An event costs one addition into a cell of the core that saw it; whoever scrapes pays for the sum.
//! Names are `tenfold_<tier>_<thing>_<unit>`, and labels come from closed sets (routes, clusters, reasons): they are
//! given when a series is registered and never when an event happens, so input cannot make series.
//!
//! **Mechanism.** [`Registry`] maps a name to a family and its labels to a series. Registering the same name and labels
//! again yields the same series, so a reload goes on counting; [`Registry::retain`] removes the series of what a reload
//! took away. What is counted elsewhere (a cache's bytes, a queue's length) is read by a callback at the scrape:
//! [`Registry::gauge_fn`], [`Registry::counter_fn`], and whole families whose series come and go by
//! [`Registry::families_fn`]. [`Registry::render`] writes OpenMetrics text,
//! [`Registry::snapshot`] the same as values.
//!
//! **Failure.** A name used for two kinds, or a name or label that OpenMetrics forbids, is a mistake in the program and
//! panics at registration, that is at start or in a test. A family holds at most [`SERIES_PER_FAMILY_MAX`] series: past
//! it, a series counts but is not shown, and `tenfold_service_metric_series_refused` says so.
//!
//! Source: OpenMetrics 1.0, <https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md>.

mod cells;
mod exposition;
pub mod process;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

pub use cells::{BUCKETS_MAX, Counter, Gauge, Histogram};

/// Series that one family shows at most: far more than a configuration has routes times reasons.
pub const SERIES_PER_FAMILY_MAX: usize = 10_000;

/// Upper bounds in seconds for request latencies: from a cached hit to a timeout, denser where SLOs are.
pub const LATENCY_BOUNDS_S: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    30.0, 60.0,
];

/// Labels as they are given: names from the program, values from a closed set.
pub type Labels<'a> = &'a [(&'static str, &'a str)];

/// All metrics of the process. Clones are the same registry.
#[derive(Clone)]
pub struct Registry {
    shared: Arc<Shared>,
}

struct Shared {
    /// Cells per metric: one per worker, and one for all other threads.
    cells: usize,
    families: Mutex<BTreeMap<&'static str, Family>>,
    sources: Mutex<BTreeMap<&'static str, Source>>,
    series_refused: Counter,
}

struct Family {
    kind: Kind,
    help: &'static str,
    series: BTreeMap<OwnedLabels, Series>,
}

type OwnedLabels = Vec<(&'static str, String)>;

/// Makes families at each scrape.
type Source = Arc<dyn Fn() -> Vec<FamilySnapshot> + Send + Sync>;

/// What a family holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Durations by bucket.
    Histogram,
}

#[derive(Clone)]
enum Series {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
    Callback(Arc<dyn Fn() -> f64 + Send + Sync>),
}

/// A family at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct FamilySnapshot {
    /// Its name, without any suffix.
    pub name: &'static str,
    /// What it counts, for people.
    pub help: &'static str,
    /// What its series are.
    pub kind: Kind,
    /// Its series, ordered by their labels.
    pub series: Vec<SeriesSnapshot>,
}

/// A series at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesSnapshot {
    /// Its labels, ordered by name.
    pub labels: Vec<(&'static str, String)>,
    /// Its value.
    pub value: Value,
}

/// The value of a series.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A counter's total or a gauge's state.
    Number(f64),
    /// A histogram.
    Histogram(HistogramSnapshot),
}

/// A histogram at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct HistogramSnapshot {
    /// Upper bound in seconds and observations at or below it; the last bound is infinite.
    pub buckets: Vec<(f64, u64)>,
    /// Sum of all observations, in seconds.
    pub sum_s: f64,
}

impl Registry {
    /// An empty registry for a process with this many workers. (More would share cells: slower, never wrong.)
    #[must_use]
    pub fn new(workers: usize) -> Self {
        let cells = workers + 1;
        let series_refused = Counter::new(cells);
        let shared = Shared { cells, families: Mutex::default(), sources: Mutex::default(), series_refused };
        let registry = Self { shared: Arc::new(shared) };
        let refused = registry.shared.series_refused.clone();
        registry.register(
            "tenfold_service_metric_series_refused",
            "Series not shown because their family is full.",
            &[],
            Series::Counter(refused),
        );
        registry
    }

    /// A counter. Its name does not end in `_total`; the exposition adds that.
    #[must_use]
    pub fn counter(&self, name: &'static str, help: &'static str, labels: Labels<'_>) -> Counter {
        let series = self.register(name, help, labels, Series::Counter(Counter::new(self.shared.cells)));
        let Series::Counter(counter) = series else { panic!("{name} is registered as a callback") };
        counter
    }

    /// A gauge.
    #[must_use]
    pub fn gauge(&self, name: &'static str, help: &'static str, labels: Labels<'_>) -> Gauge {
        let series = self.register(name, help, labels, Series::Gauge(Gauge::default()));
        let Series::Gauge(gauge) = series else { panic!("{name} is registered as a callback") };
        gauge
    }

    /// A histogram of durations. `bounds_s` are the buckets' upper bounds in seconds, rising, at most [`BUCKETS_MAX`];
    /// the bucket for everything above is added. [`LATENCY_BOUNDS_S`] suits requests.
    #[must_use]
    pub fn histogram(
        &self,
        name: &'static str,
        help: &'static str,
        labels: Labels<'_>,
        bounds_s: &'static [f64],
    ) -> Histogram {
        let made = Histogram::new(self.shared.cells, bounds_s);
        let Series::Histogram(histogram) = self.register(name, help, labels, Series::Histogram(made)) else {
            panic!("{name} is registered as a callback")
        };
        histogram
    }

    /// A gauge read by a callback at each scrape. Registering it again replaces the callback: a reload that rebuilds
    /// what is measured calls this anew. The callback runs on the scraping thread and may use the registry.
    pub fn gauge_fn<F>(&self, name: &'static str, help: &'static str, labels: Labels<'_>, read: F)
    where
        F: Fn() -> f64 + Send + Sync + 'static,
    {
        self.register_callback(Kind::Gauge, name, help, labels, Arc::new(read));
    }

    /// A counter read by a callback at each scrape; what it reads must not fall. Otherwise as
    /// [`gauge_fn`](Self::gauge_fn).
    pub fn counter_fn<F>(&self, name: &'static str, help: &'static str, labels: Labels<'_>, read: F)
    where
        F: Fn() -> f64 + Send + Sync + 'static,
    {
        self.register_callback(Kind::Counter, name, help, labels, Arc::new(read));
    }

    /// Families made anew at each scrape, for whoever counts by itself and has series that come and go. Registering the
    /// same `source` again replaces it. No family may have the name of another's; labels are from closed sets here, too.
    /// The callback runs on the scraping thread.
    pub fn families_fn<F>(&self, source: &'static str, read: F)
    where
        F: Fn() -> Vec<FamilySnapshot> + Send + Sync + 'static,
    {
        let mut sources = self.shared.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.insert(source, Arc::new(read));
    }

    /// Keeps the series for which `keep(name, labels)` is true, and families that have one left. Handles of a removed
    /// series go on working but are no longer shown; registering its name and labels again begins at zero. `keep` must
    /// not use the registry.
    pub fn retain(&self, mut keep: impl FnMut(&'static str, &[(&'static str, String)]) -> bool) {
        let mut families = self.families();
        for (name, family) in families.iter_mut() {
            family.series.retain(|labels, _| keep(name, labels));
        }
        families.retain(|_, family| !family.series.is_empty());
    }

    /// Everything as OpenMetrics text, ending in `# EOF`. Content type: [`CONTENT_TYPE`].
    #[must_use]
    pub fn render(&self) -> String {
        exposition::render(&self.snapshot())
    }

    /// Everything as values, ordered by name.
    #[must_use]
    pub fn snapshot(&self) -> Vec<FamilySnapshot> {
        // The handles are copied out first, so that no callback runs under the lock.
        let families: Vec<_> = self
            .families()
            .iter()
            .map(|(name, family)| (*name, family.help, family.kind, family.series.clone()))
            .collect();
        let read = |(name, help, kind, series): (_, _, _, BTreeMap<OwnedLabels, Series>)| FamilySnapshot {
            name,
            help,
            kind,
            series: series
                .into_iter()
                .map(|(labels, series)| SeriesSnapshot { labels, value: series.read() })
                .collect(),
        };
        let mut snapshot: Vec<_> = families.into_iter().map(read).collect();
        let sources = self.shared.sources.lock().unwrap_or_else(PoisonError::into_inner).clone();
        snapshot.extend(sources.values().flat_map(|source| source()).map(|family| self.bounded(family)));
        snapshot.sort_by_key(|family| family.name);
        snapshot
    }

    /// A family as much of which is shown as may be.
    fn bounded(&self, mut family: FamilySnapshot) -> FamilySnapshot {
        let refused = family.series.len().saturating_sub(SERIES_PER_FAMILY_MAX);
        self.shared.series_refused.add(refused as u64);
        family.series.truncate(SERIES_PER_FAMILY_MAX);
        family
    }

    fn register(&self, name: &'static str, help: &'static str, labels: Labels<'_>, made: Series) -> Series {
        let kind = made.kind();
        let mut families = self.families();
        let family = family_of(&mut families, kind, name, help);
        let labels = owned(name, labels);
        if let Some(series) = family.series.get(&labels) {
            return series.clone();
        }
        if family.series.len() >= SERIES_PER_FAMILY_MAX {
            self.shared.series_refused.add(1);
            return made;
        }
        family.series.insert(labels, made.clone());
        made
    }

    fn register_callback(
        &self,
        kind: Kind,
        name: &'static str,
        help: &'static str,
        labels: Labels<'_>,
        read: Arc<dyn Fn() -> f64 + Send + Sync>,
    ) {
        let mut families = self.families();
        let family = family_of(&mut families, kind, name, help);
        let labels = owned(name, labels);
        if !family.series.contains_key(&labels) && family.series.len() >= SERIES_PER_FAMILY_MAX {
            self.shared.series_refused.add(1);
            return;
        }
        family.series.insert(labels, Series::Callback(read));
    }

    fn families(&self) -> MutexGuard<'_, BTreeMap<&'static str, Family>> {
        self.shared.families.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub use exposition::CONTENT_TYPE;

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("families", &self.families().len()).finish()
    }
}

impl Series {
    /// The kind of a series with cells of its own. (A callback's kind is its family's.)
    fn kind(&self) -> Kind {
        match self {
            Self::Counter(_) => Kind::Counter,
            Self::Gauge(_) | Self::Callback(_) => Kind::Gauge,
            Self::Histogram(_) => Kind::Histogram,
        }
    }

    fn read(&self) -> Value {
        match self {
            // Exact up to 2^53, which no process lives to count.
            Self::Counter(counter) => Value::Number(counter.value() as f64),
            Self::Gauge(gauge) => Value::Number(gauge.value() as f64),
            Self::Callback(read) => Value::Number(read()),
            Self::Histogram(histogram) => Value::Histogram(histogram.snapshot()),
        }
    }
}

impl HistogramSnapshot {
    /// Observations in all.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.last().map_or(0, |(_, count)| *count)
    }

    /// An estimate of the quantile in seconds, linear within a bucket, as PromQL's `histogram_quantile` makes it. None
    /// without observations.
    #[must_use]
    pub fn quantile_s(&self, quantile: f64) -> Option<f64> {
        let rank = quantile.clamp(0.0, 1.0) * self.count() as f64;
        let reached = self.buckets.iter().position(|(_, count)| *count > 0 && *count as f64 >= rank)?;
        let (lower_s, below) = match reached.checked_sub(1) {
            Some(previous) => self.buckets[previous],
            None => (0.0, 0),
        };
        let (upper_s, at_or_below) = self.buckets[reached];
        if upper_s.is_infinite() {
            return Some(lower_s);
        }
        let within = (rank - below as f64) / (at_or_below - below).max(1) as f64;
        Some(lower_s + (upper_s - lower_s) * within.clamp(0.0, 1.0))
    }
}

fn family_of<'a>(
    families: &'a mut BTreeMap<&'static str, Family>,
    kind: Kind,
    name: &'static str,
    help: &'static str,
) -> &'a mut Family {
    let family = families.entry(name).or_insert_with(|| {
        assert!(is_name(name), "{name} is not a metric's name");
        let reserved = ["_total", "_created", "_bucket", "_sum", "_count", "_info"];
        assert!(!reserved.iter().any(|suffix| name.ends_with(suffix)), "{name} has a suffix that is added");
        Family { kind, help, series: BTreeMap::new() }
    });
    assert_eq!(family.kind, kind, "{name} is registered as another kind");
    family
}

fn owned(name: &str, labels: Labels<'_>) -> OwnedLabels {
    let mut owned: OwnedLabels = labels.iter().map(|(label, value)| (*label, (*value).to_owned())).collect();
    owned.sort_unstable();
    for (label, _) in &owned {
        let is_free = is_name(label) && !label.contains(':') && !matches!(*label, "le" | "quantile");
        assert!(is_free && !label.starts_with("__"), "{name}: {label} is not a label's name");
    }
    let is_unique = owned.windows(2).all(|pair| pair[0].0 != pair[1].0);
    assert!(is_unique, "{name} has a label twice");
    owned
}

fn is_name(name: &str) -> bool {
    let is_head = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_' || byte == b':';
    let mut bytes = name.bytes();
    bytes.next().is_some_and(is_head) && bytes.all(|byte| is_head(byte) || byte.is_ascii_digit())
}
