//! How purges go round: published to a stream by the edge that is told of them, read from it by all.
//!
//! **Mechanism.** Two loops on the thread that talks to Redis. One follows the stream and applies what it reads, at the
//! stream's ids. The other publishes what waits, adds a tick when nothing has been added for [`TICK`], and makes everything
//! stale where nothing has been heard for [`Settings::purge_blind_max`](super::Settings).
//!
//! **Failure.** While Redis is away, purges wait here, at most [`WAITING_MAX`] of them; one more, and all of them become a
//! purge of everything. A place that was lost makes everything in RAM suspect. What was published in the last
//! [`AGAIN`] is published again then: the server that took it may have died before it was copied.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tenfold_state::{Link, StreamEvent, StreamId, cmd, follow};
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use super::order::{Fields, Order, Told, read, tick};
use super::{Tier, TierStats};
use crate::stats::count;
use crate::{Cache, Purge};

/// Purges that wait to be published.
const WAITING_MAX: usize = 10_000;
/// Purges remembered to be published again.
const RECENT_MAX: usize = 10_000;
/// Ids remembered of what was read.
const IDS_MAX: usize = 10_000;
/// For how long purges are remembered.
const AGAIN: Duration = Duration::from_secs(60);
/// A stream that stood still for so long gets a tick.
const TICK: Duration = Duration::from_secs(10);
/// How often the second loop looks around, if nothing wakes it.
const LOOK: Duration = Duration::from_millis(100);
/// How long publishing one may take.
const PUBLISH_BUDGET: Duration = Duration::from_secs(1);
/// How much longer than any value an entry of the stream is kept.
const KEPT_LONGER: Duration = Duration::from_secs(3600);

/// Purges on their way to the others.
#[derive(Debug, Default)]
pub struct Spread {
    waiting: Mutex<VecDeque<Waiting>>,
    wake: Notify,
    published: AtomicU64,
    heard: AtomicU64,
    places_lost: AtomicU64,
    blind_softened: AtomicU64,
    blind_ms: AtomicU64,
}

#[derive(Debug)]
struct Waiting {
    order: Order,
    /// Told when it is published.
    told: Option<oneshot::Sender<()>>,
}

impl Spread {
    fn waiting(&self) -> MutexGuard<'_, VecDeque<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, order: Order, told: Option<oneshot::Sender<()>>) {
        let mut waiting = self.waiting();
        if waiting.len() >= WAITING_MAX {
            waiting.clear();
            waiting.push_back(Waiting { order: Order::All { soft: false }, told: None });
        }
        waiting.push_back(Waiting { order, told });
        drop(waiting);
        self.wake.notify_one();
    }

    pub(super) fn stats(&self) -> TierStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        TierStats {
            purges_published: read(&self.published),
            purges_waiting: self.waiting().len() as u64,
            purges_heard: read(&self.heard),
            places_lost: read(&self.places_lost),
            blind_softened: read(&self.blind_softened),
            blind_ms: read(&self.blind_ms),
            ..TierStats::default()
        }
    }
}

impl Tier {
    /// Tells the other edges of a purge, now or when they can be told. The receiver hears when it is out; it hears nothing
    /// while Redis is away.
    pub(crate) fn publish(&self, purge: &Purge<'_>, soft: bool) -> oneshot::Receiver<()> {
        let (told, published) = oneshot::channel();
        self.spread.add(Order::of(purge, soft), Some(told));
        published
    }
}

/// What both loops know.
struct Seen {
    /// When the stream was last read to its end.
    contact: Instant,
    /// When an entry last came.
    entry: Instant,
    /// When everything was last made stale for want of contact.
    softened: Option<Instant>,
    /// The last entry's id, which tells the server's time.
    last: Option<StreamId>,
    places: Places,
    recent: VecDeque<(Instant, Order)>,
}

/// Which entries of the stream have been read, so that after a lost place it can be told which are read again.
///
/// A purge that is read again keeps its id, so that what was fetched since stays. One that is new has its effect now,
/// whatever its id: a new master's clock may be behind, and then the id is below those of the old one.
#[derive(Debug, Default)]
struct Places {
    /// The last ids read, in order.
    ids: VecDeque<u64>,
    /// Those of the history before, until this one has been read to its end.
    before: VecDeque<u64>,
    at_end: bool,
}

impl Places {
    fn lost(&mut self) {
        let ids = std::mem::take(&mut self.ids);
        if std::mem::take(&mut self.at_end) {
            self.before = ids;
        }
    }

    fn at_end(&mut self) {
        self.at_end = true;
        self.before = VecDeque::new();
    }

    /// An entry is read; says whether its purge has had its effect before.
    fn read(&mut self, id: u64) -> bool {
        if self.ids.len() >= IDS_MAX {
            self.ids.pop_front();
        }
        self.ids.push_back(id);
        // What is older than all that is remembered is old.
        let is_old = self.before.front().is_none_or(|first| id < *first);
        !self.at_end && (is_old || self.before.binary_search(&id).is_ok())
    }
}

/// Runs both loops until the thread ends.
pub(super) async fn run(link: Rc<Link>, tier: Arc<Tier>, cache: Arc<Cache>) {
    let now = link.now();
    let seen = Rc::new(RefCell::new(Seen {
        contact: now,
        entry: now,
        softened: None,
        last: None,
        places: Places::default(),
        recent: VecDeque::new(),
    }));
    let stream = stream_of(&tier);
    let listening =
        follow(&link, &stream, |event| tier.on_event(&cache, &mut seen.borrow_mut(), event, link.now()));
    let publishing = tier.publish_all(&link, &stream, &cache, &seen);
    // Neither ends; both go with the thread.
    tokio::join!(listening, publishing);
}

fn stream_of(tier: &Tier) -> String {
    format!("{}:purges", tier.settings.prefix)
}

/// A stream's id as one number: 44 bits of milliseconds and 20 of the counter.
fn packed(id: StreamId) -> u64 {
    const COUNTER_MAX: u64 = (1 << 20) - 1;
    (id.ms << 20) | id.counter.min(COUNTER_MAX)
}

impl Tier {
    fn on_event(&self, cache: &Cache, seen: &mut Seen, event: StreamEvent, now: Instant) {
        match event {
            StreamEvent::Joined { epoch, kept_place: true } => {
                self.epoch.store(epoch, Ordering::Relaxed);
            }
            StreamEvent::Joined { epoch, kept_place: false } => self.on_lost_place(cache, seen, epoch, now),
            StreamEvent::Entry(id, fields) => {
                seen.entry = now;
                seen.last = Some(id);
                let id = packed(id);
                // The first one read is as far back as this edge knows.
                let _ =
                    self.usable_since.compare_exchange(u64::MAX, id, Ordering::Relaxed, Ordering::Relaxed);
                let again = seen.places.read(id);
                self.on_entry(cache, read(&fields), id, again);
                self.heard.store(id, Ordering::Release);
            }
            StreamEvent::Contact => {
                seen.contact = now;
                seen.softened = None;
                seen.places.at_end();
                self.in_step.store(true, Ordering::Relaxed);
            }
            StreamEvent::Lost(_) => self.in_step.store(false, Ordering::Relaxed),
        }
    }

    fn on_entry(&self, cache: &Cache, told: Told, id: u64, again: bool) {
        match told {
            Told::Tick => cache.purges().advance(id),
            Told::Purge(order) => {
                count(&self.spread.heard);
                let (purge, soft) = order.as_purge();
                if again {
                    cache.purges().apply_known(&purge, soft, id);
                } else {
                    cache.purges().apply_at(&purge, soft, id);
                }
            }
            Told::Unknown => {
                cache.purges().advance(id);
                cache.purges().suspect_all();
            }
        }
    }

    /// Anything may have been purged meanwhile. What follows is the whole stream, from its front.
    fn on_lost_place(&self, cache: &Cache, seen: &mut Seen, epoch: u64, now: Instant) {
        self.heard.store(0, Ordering::Release);
        self.usable_since.store(u64::MAX, Ordering::Release);
        let is_first = self.epoch.swap(epoch, Ordering::AcqRel) == 0;
        seen.places.lost();
        seen.last = None;
        if is_first && cache.is_empty() {
            return;
        }
        count(&self.spread.places_lost);
        cache.purges().suspect_all();
        let is_recent = |at: &Instant| now.saturating_duration_since(*at) <= AGAIN;
        for (_, order) in seen.recent.drain(..).filter(|(at, _)| is_recent(at)) {
            self.spread.add(order, None);
        }
    }

    async fn publish_all(&self, link: &Link, stream: &str, cache: &Cache, seen: &RefCell<Seen>) {
        loop {
            // Elapsed or woken, there is to look around.
            let _ = timeout(LOOK, self.spread.wake.notified()).await;
            while let Some(next) = self.next_order() {
                if !self.publish_one(link, stream, next, seen).await {
                    break;
                }
            }
            let now = link.now();
            let still = now.saturating_duration_since(seen.borrow().entry);
            let unread = self.usable_since.load(Ordering::Relaxed) == u64::MAX;
            if self.in_step.load(Ordering::Relaxed) && (still >= TICK || unread) {
                // Others add one as well, or will hear this one; a failure shows in the reader.
                let _ = self.add_to(link, stream, &tick(), seen).await;
                seen.borrow_mut().entry = link.now();
            }
            self.look_for_blindness(cache, &mut seen.borrow_mut(), now);
        }
    }

    fn next_order(&self) -> Option<Waiting> {
        if self.redis.is_up() { self.spread.waiting().pop_front() } else { None }
    }

    /// Publishes one, or puts it back. Published twice it purges twice, which is better than never.
    async fn publish_one(&self, link: &Link, stream: &str, next: Waiting, seen: &RefCell<Seen>) -> bool {
        if !self.add_to(link, stream, &next.order.fields(), seen).await {
            self.spread.waiting().push_front(next);
            return false;
        }
        count(&self.spread.published);
        let mut seen = seen.borrow_mut();
        if seen.recent.len() >= RECENT_MAX {
            // What is forgotten would be missed after a failover; everything, made stale, covers it.
            seen.recent.clear();
            seen.recent.push_back((link.now(), Order::All { soft: true }));
        }
        seen.recent.push_back((link.now(), next.order));
        // Whoever asked may not wait any more.
        let _ = next.told.map(|told| told.send(()));
        true
    }

    /// Adds an entry, and trims what is older than any value may be.
    async fn add_to(&self, link: &Link, stream: &str, fields: &Fields, seen: &RefCell<Seen>) -> bool {
        let mut command = cmd("XADD");
        command.arg(stream);
        if let Some(last) = seen.borrow().last {
            let kept = self.settings.life_max + KEPT_LONGER;
            let kept_ms = u64::try_from(kept.as_millis()).unwrap_or(u64::MAX);
            command.arg("MINID").arg("~").arg(last.ms.saturating_sub(kept_ms));
        }
        command.arg("*");
        for (name, value) in fields {
            command.arg(*name).arg(&value[..]);
        }
        link.call(&command, PUBLISH_BUDGET).await.is_ok()
    }

    /// Makes everything stale where nothing has been heard for too long, and again each time as long has passed.
    fn look_for_blindness(&self, cache: &Cache, seen: &mut Seen, now: Instant) {
        let blind = now.saturating_duration_since(seen.contact);
        self.spread.blind_ms.store(u64::try_from(blind.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        let Some(most) = self.settings.purge_blind_max else { return };
        let since = seen.softened.unwrap_or(seen.contact);
        if now.saturating_duration_since(since) >= most {
            seen.softened = Some(now);
            count(&self.spread.blind_softened);
            cache.purges().apply(&Purge::All, true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_keep_their_order_in_one_number() {
        let id = |ms, counter| packed(StreamId { ms, counter });
        assert!(id(1_700_000_000_000, 5) < id(1_700_000_000_000, 6));
        assert!(id(1_700_000_000_000, u64::MAX) < id(1_700_000_000_001, 0));
        assert_eq!(id((1 << 44) - 1, u64::MAX), u64::MAX);
    }

    #[test]
    fn what_is_new_after_a_lost_place_is_told_from_what_is_read_again() {
        let mut places = Places::default();
        assert!(places.read(10) && places.read(30), "before anything is known");
        places.at_end();
        assert!(!places.read(20) && !places.read(40));
        places = Places::default();
        assert!([10, 20, 40].into_iter().all(|id| places.read(id)));
        places.at_end();
        places.lost();
        assert!(places.read(5) && places.read(10) && places.read(20));
        assert!(!places.read(30), "it was not there");
        // Lost again before the end: what was read to the end counts.
        places.lost();
        assert!(places.read(20) && !places.read(30) && places.read(40) && !places.read(50));
        places.at_end();
        assert!((0..IDS_MAX as u64).all(|id| !places.read(100 + id)));
        assert_eq!(places.ids.len(), IDS_MAX);
        places.lost();
        assert!(places.read(99) && places.read(100));
    }

    #[test]
    fn too_many_waiting_purges_become_one_of_everything() {
        let spread = Spread::default();
        let tag = || Order::of(&Purge::Tag(b"a"), true);
        (0..WAITING_MAX).for_each(|_| spread.add(tag(), None));
        assert_eq!(spread.stats().purges_waiting, WAITING_MAX as u64);
        spread.add(tag(), None);
        let orders: Vec<_> = spread.waiting().drain(..).map(|waiting| waiting.order).collect();
        assert_eq!(orders, [Order::All { soft: false }, tag()]);
    }
}
