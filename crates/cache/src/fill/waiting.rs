//! Who waits for the next event, sorted by worker.
//!
//! Wakers are kept in one list per worker, so that a whole list can be handed to that worker's relay in one move. A
//! follower occurs at most once: polling again replaces its waker, and leaving removes it, so the lists are never longer
//! than there are followers.

use std::collections::HashMap;
use std::task::Waker;

use smallvec::SmallVec;

use super::state::SlotId;

/// Wakers by worker.
pub(crate) type Woken = SmallVec<[(usize, Vec<Waker>); 4]>;

#[derive(Debug, Default)]
pub(crate) struct Waiting {
    workers: SmallVec<[Worker; 4]>,
    /// Where a follower's waker is: which list, which place.
    places: HashMap<SlotId, (usize, usize), foldhash::fast::FixedState>,
}

#[derive(Debug)]
struct Worker {
    index: usize,
    wakers: Vec<Waker>,
    /// Whose; as long as `wakers`.
    ids: Vec<SlotId>,
}

impl Waiting {
    /// Registers a follower, or renews its waker.
    pub(crate) fn add(&mut self, id: SlotId, worker: usize, waker: &Waker) {
        if let Some(&(list, place)) = self.places.get(&id) {
            self.workers[list].wakers[place].clone_from(waker);
            return;
        }
        let list = self.workers.iter().position(|known| known.index == worker).unwrap_or_else(|| {
            self.workers.push(Worker { index: worker, wakers: Vec::new(), ids: Vec::new() });
            self.workers.len() - 1
        });
        let Worker { wakers, ids, .. } = &mut self.workers[list];
        self.places.insert(id, (list, wakers.len()));
        wakers.push(waker.clone());
        ids.push(id);
    }

    /// Forgets a follower.
    pub(crate) fn remove(&mut self, id: SlotId) {
        let Some((list, place)) = self.places.remove(&id) else { return };
        let Worker { wakers, ids, .. } = &mut self.workers[list];
        wakers.swap_remove(place);
        ids.swap_remove(place);
        if let Some(moved) = ids.get(place) {
            self.places.insert(*moved, (list, place));
        }
    }

    /// Takes everybody.
    pub(crate) fn take(&mut self) -> Woken {
        self.places.clear();
        let lists = self.workers.iter_mut().filter(|worker| !worker.wakers.is_empty());
        lists
            .map(|worker| {
                worker.ids.clear();
                (worker.index, std::mem::take(&mut worker.wakers))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(waiting: &mut Waiting) -> Vec<(usize, usize)> {
        waiting.take().iter().map(|(worker, wakers)| (*worker, wakers.len())).collect()
    }

    #[test]
    fn a_follower_waits_once_and_is_grouped_by_worker() {
        let mut waiting = Waiting::default();
        for (id, worker) in [(0, 7), (1, 8), (2, 7), (0, 7)] {
            waiting.add(id, worker, Waker::noop());
        }
        assert_eq!(taken(&mut waiting), [(7, 2), (8, 1)]);
        assert_eq!(taken(&mut waiting), []);
    }

    #[test]
    fn removing_one_keeps_the_others_in_place() {
        let mut waiting = Waiting::default();
        (0..4).for_each(|id| waiting.add(id, 1, Waker::noop()));
        waiting.remove(0); // 3 moves to its place
        waiting.remove(3);
        waiting.remove(3);
        assert_eq!(taken(&mut waiting), [(1, 2)]);
    }
}
