//! What edges share: starting it, counting it, and saying when it comes and goes.
//!
//! The tier itself is the cache's (`tenfold_cache::tier`) and the connection is `tenfold_state`'s; here they are made from
//! the configuration. That Redis is away is no reason not to start: each edge works by itself, and joins when it can.

use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tenfold_cache::Tier;
use tenfold_cache::tier::TierStats;
use tenfold_edge::Edge;
use tenfold_service::clock::Clock;
use tenfold_service::metrics::Registry;
use tenfold_service::rng::Rng;
use tenfold_state::{Redis, Stats, Thread};

use crate::config::settings::SharedSettings;
use crate::live::Live;
use crate::tls;

/// How often the tier is looked at, to say what has changed.
const LOOK: Duration = Duration::from_millis(500);

type Metric<S> = (&'static str, &'static str, fn(&S) -> u64);

const TIER_COUNTERS: [Metric<TierStats>; 14] = [
    ("tenfold_cache_shared_hits", "Fetches answered from the shared tier.", |stats| stats.hits),
    ("tenfold_cache_shared_misses", "Fetches of which the shared tier knew nothing.", |stats| stats.misses),
    ("tenfold_cache_shared_unusable", "Found there, and stale, purged or of another history.", |stats| {
        stats.unusable
    }),
    ("tenfold_cache_shared_unread", "Found there, and unreadable.", |stats| stats.unread),
    ("tenfold_cache_shared_unanswered", "Fetches that got no answer within the budget.", |stats| {
        stats.unanswered
    }),
    ("tenfold_cache_shared_stores", "Responses stored there.", |stats| stats.stored),
    (
        "tenfold_cache_shared_drops",
        "Responses not stored there: too many waited, or it took them not.",
        |stats| stats.dropped,
    ),
    ("tenfold_cache_shield_leases", "Fetches made for all edges.", |stats| stats.leases),
    ("tenfold_cache_shield_waits", "Fetches that waited for another edge.", |stats| stats.waits),
    ("tenfold_cache_shield_waits_in_vain", "Of those, how many fetched all the same.", |stats| {
        stats.waits_in_vain
    }),
    ("tenfold_cache_purges_published", "Purges told to the other edges.", |stats| stats.purges_published),
    ("tenfold_cache_purges_heard", "Purges heard of from the stream, one's own too.", |stats| {
        stats.purges_heard
    }),
    ("tenfold_cache_places_lost", "Times purges may have been missed.", |stats| stats.places_lost),
    ("tenfold_cache_blind_softened", "Times `cache.purge_blind_max` made everything stale.", |stats| {
        stats.blind_softened
    }),
];

const TIER_GAUGES: [Metric<TierStats>; 3] = [
    ("tenfold_cache_blind_ms", "For how long no purge could have been heard of.", |stats| stats.blind_ms),
    ("tenfold_cache_purges_waiting", "Purges that wait to be told.", |stats| stats.purges_waiting),
    ("tenfold_cache_shared_in_step", "1 while all purges are known of.", |stats| stats.in_step.into()),
];

const REDIS_COUNTERS: [Metric<Stats>; 6] = [
    ("tenfold_state_calls", "Calls to Redis.", |stats| stats.calls),
    ("tenfold_state_timed_out", "Calls that took longer than they may.", |stats| stats.timed_out),
    ("tenfold_state_refused", "Calls that Redis refused.", |stats| stats.refused),
    ("tenfold_state_down", "Calls not made, since Redis was away.", |stats| stats.down),
    ("tenfold_state_busy", "Calls not made, since too many were under way.", |stats| stats.busy),
    ("tenfold_state_connects", "Connections made that answered a probe.", |stats| stats.connects),
];

/// How to reach the server, with the authorities that vouch for it.
///
/// # Errors
/// Why their file can't be used, with its name.
pub fn server(settings: &SharedSettings, folder: &Path) -> Result<tenfold_state::Config, String> {
    let mut config = settings.redis.clone();
    if let Some(file) = &settings.ca {
        let file = folder.join(file);
        config.ca = Some(tls::authorities(&file)?);
        config.validate().map_err(|error| format!("{} cannot be used: {error}", file.display()))?;
    }
    Ok(config)
}

/// Starts what is configured; `folder` is the configuration's.
pub fn start(
    edge: &Edge,
    settings: Option<&SharedSettings>,
    folder: &Path,
    clock: &Clock,
    registry: &Registry,
) -> io::Result<Option<Thread>> {
    let Some(settings) = settings else { return Ok(None) };
    let clock = clock.clone();
    let config = server(settings, folder).map_err(io::Error::other)?;
    let (redis, thread) = Redis::start(config, move || clock.now()).map_err(io::Error::other)?;
    let seed = Rng::from_os().next_u64();
    let tier = Tier::start(edge.cache(), redis, settings.tier.clone(), seed).map_err(io::Error::other)?;
    register(&tier, registry);
    Ok(Some(thread))
}

fn register(tier: &Arc<Tier>, registry: &Registry) {
    for (name, help, of) in TIER_COUNTERS {
        let tier = Arc::clone(tier);
        registry.counter_fn(name, help, &[], move || number(of(&tier.stats())));
    }
    for (name, help, of) in TIER_GAUGES {
        let tier = Arc::clone(tier);
        registry.gauge_fn(name, help, &[], move || number(of(&tier.stats())));
    }
    for (name, help, of) in REDIS_COUNTERS {
        let tier = Arc::clone(tier);
        registry.counter_fn(name, help, &[], move || number(of(&tier.redis_stats())));
    }
    let tier = Arc::clone(tier);
    registry.gauge_fn(
        "tenfold_state_up",
        "1 while Redis is connected and answers in time.",
        &[],
        move || number(tier.redis_stats().up.into()),
    );
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
fn number(count: u64) -> f64 {
    count as f64
}

/// Says when the shared tier comes and goes, for as long as the process runs.
pub fn watch(live: &Rc<Live>) {
    let Some(tier) = live.edge.cache().tier().map(Arc::clone) else { return };
    let name = live.at_start.shared.as_ref().map(|shared| shared.name.clone()).unwrap_or_default();
    let log = live.log.clone();
    tokio::task::spawn_local(async move {
        let mut was = None;
        let mut lost = 0;
        loop {
            tokio::time::sleep(LOOK).await;
            let stats = tier.stats();
            let is = tier.redis_stats().up && stats.in_step;
            match (was.replace(is), is) {
                (Some(true) | None, false) => {
                    log.warn(&format!("redis {name} is away: this edge works by itself until it is back"));
                }
                (Some(false) | None, true) => {
                    log.info(&format!("redis {name} is there: edges share what they fetch"));
                }
                (Some(true), true) | (Some(false), false) => {}
            }
            if std::mem::replace(&mut lost, stats.places_lost) < stats.places_lost {
                log.warn(&format!(
                    "redis {name} has lost the place among the purges: everything cached is renewed bit by bit"
                ));
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use tenfold_testkit::tls::Authority;

    use super::*;

    #[test]
    fn a_file_of_authorities_that_vouches_for_nobody_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let server_of = |text: &str| {
            std::fs::write(folder.path().join("ca.pem"), text).expect("a file");
            let redis = tenfold_state::Config { url: "rediss://localhost".into(), ..Default::default() };
            let (ca, tier) = (Some("ca.pem".into()), tenfold_cache::tier::Settings::default());
            server(&SharedSettings { name: "cache".into(), redis, ca, tier }, folder.path())
        };
        let authority = Authority::new("private");
        let key = authority.server(&["localhost"]).key;
        for (text, expected) in [
            ("", "holds no certificate"),
            ("some words\n", "holds no certificate"),
            (&key, "holds no certificate"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "cannot be used"),
        ] {
            let said = server_of(text).expect_err("nobody to believe");
            assert!(said.contains("ca.pem") && said.contains(expected), "{said}");
        }
        let config = server_of(authority.certificate()).expect("an authority");
        assert_eq!(config.ca.as_deref(), Some(authority.certificate().as_bytes()));
    }
}
