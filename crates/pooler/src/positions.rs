//! Where the primaries are after what a request did, for whoever answers that request's client.
//!
//! **Intuition.** The one who passes the API's answer on can hand the client a token that says how far replicas must be to
//! show what was done. The pooler knows that position a moment after the commit, by the trace id that the request and its
//! statements share.
//!
//! **Mechanism.** [`Positions::after`] asks every database with replicas for the trace ([`Split::after`]), has the primary
//! sampled at once, and waits no longer than the caller can.
//!
//! **Failure.** A request that several clusters worked for has no one position: that is [`After::Unknown`].

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;

use crate::{
    shared::Shared,
    split::{After, Position, Split, TraceId},
};

/// Answers where primaries are. Cheap to clone; needs a tokio runtime with time, whichever.
#[derive(Clone)]
pub struct Positions {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Positions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Positions").finish_non_exhaustive()
    }
}

impl Positions {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Up to where a server must have replayed to show what this request, which has been answered, did: known within
    /// `limit`, or not. Cancellation safe.
    pub async fn after(&self, trace: [u8; 16], limit: Duration) -> After {
        let Some(trace) = TraceId::new(trace) else { return After::Unseen };
        let splits: Vec<Arc<Split>> = self
            .shared
            .split_databases()
            .iter()
            .map(|database| Arc::clone(&database.split))
            .filter(|split| split.has_seen(trace))
            .collect();
        timeout(limit, after_all(&splits, trace)).await.unwrap_or(After::Unknown)
    }
}

/// One after the other: each is sampled on its own account, and there is hardly ever more than one.
async fn after_all(splits: &[Arc<Split>], trace: TraceId) -> After {
    let mut all = After::Unseen;
    for split in splits {
        all = both(all, split.after(trace).await);
    }
    all
}

/// What holds for a request of which two databases tell.
fn both(one: After, other: After) -> After {
    match (one, other) {
        (After::Unseen, other)
        | (other, After::Unseen)
        | (After::Nothing, other)
        | (other, After::Nothing) => other,
        (After::At(a), After::At(b)) if a.history == b.history => {
            After::At(Position { lsn: a.lsn.max(b.lsn), ..a })
        }
        _ => After::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::split::{History, Lsn, Traced};

    fn at(system: u64, lsn: u64) -> After {
        After::At(Position { history: History { system, timeline: 1 }, lsn: Lsn(lsn) })
    }

    #[test]
    fn databases_of_one_cluster_share_their_positions() {
        assert_eq!(both(at(7, 5), at(7, 9)), at(7, 9));
        assert_eq!(both(at(7, 5), at(8, 9)), After::Unknown);
        assert_eq!(both(at(7, 5), After::Nothing), at(7, 5));
        assert_eq!(both(After::Unseen, After::Nothing), After::Nothing);
        assert_eq!(both(After::Unknown, at(7, 5)), After::Unknown);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_waits_for_the_sample_that_settles_it() {
        let split = Arc::new(Split::default());
        let trace = TraceId::new([7; 16]).expect("not zero");
        assert_eq!(split.after(trace).await, After::Unseen);
        let mut traced = Traced::default();
        traced.hold(&split, trace);
        let asking = tokio::spawn({
            let split = Arc::clone(&split);
            async move { split.after(trace).await }
        });
        tokio::task::yield_now().await;
        assert!(split.is_waited_for() && !asking.is_finished());
        let early = split.samples.begin();
        traced.end();
        split.set_history(History { system: 7, timeline: 1 });
        split.samples.found(early, Lsn(100));
        split.sampled();
        tokio::task::yield_now().await;
        assert!(!asking.is_finished(), "that sample began before the answer");
        let sample = split.samples.begin();
        split.samples.found(sample, Lsn(200));
        split.sampled();
        assert_eq!(asking.await.expect("no panic"), at(7, 200));
        assert!(!split.is_waited_for());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever() {
        let split = Arc::new(Split::default());
        let trace = TraceId::new([7; 16]).expect("not zero");
        Traced::default().hold(&split, trace);
        let limit = Duration::from_millis(5);
        let splits = [split];
        assert_eq!(timeout(limit, after_all(&splits, trace)).await.ok(), None);
    }
}
