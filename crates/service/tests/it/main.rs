//! Workers, acceptor and signals with real threads and sockets; the exposition read by a strict parser.

#![expect(clippy::unwrap_used, reason = "a test's helpers may panic like the test")]

mod acceptor;
mod openmetrics;
mod signals;
mod workers;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tenfold_service::{
    clock::Clock,
    drain::Drain,
    metrics::{Registry, Value},
    worker::{WorkerDeps, Workers},
};

/// Longer than anything here takes, even on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);

/// The parts of a process.
struct Process {
    workers: Workers,
    registry: Registry,
    drain: Drain,
    panics: Arc<Mutex<Vec<String>>>,
}

impl Process {
    fn start(workers: usize) -> Self {
        let (registry, drain) = (Registry::new(workers), Drain::new());
        let panics: Arc<Mutex<Vec<String>>> = Arc::default();
        let log = Arc::clone(&panics);
        let deps = WorkerDeps {
            clock: Clock::system(),
            registry: registry.clone(),
            drain: drain.clone(),
            on_panic: Arc::new(move |panic| {
                log.lock().unwrap().push(format!("{}: {}", panic.worker_index, panic.message));
            }),
        };
        Self { workers: Workers::start(workers, &deps).unwrap(), registry, drain, panics }
    }

    /// The sum of a family's series, or of the one with this label's value.
    fn metric(&self, name: &str, label: Option<&str>) -> f64 {
        metric(&self.registry, name, label)
    }
}

fn metric(registry: &Registry, name: &str, label: Option<&str>) -> f64 {
    let family = registry.snapshot().into_iter().find(|family| family.name == name);
    let series = family.into_iter().flat_map(|family| family.series);
    series
        .filter(|series| label.is_none_or(|label| series.labels.iter().any(|(_, value)| value == label)))
        .map(|series| match series.value {
            Value::Number(number) => number,
            Value::Histogram(histogram) => histogram.sum_s,
        })
        .sum()
}
