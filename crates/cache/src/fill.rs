//! Fills: one fetch, many followers.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;

use crate::policy::Timestamp;
use crate::{Entry, FailReason, Field, Head, ReleaseReason, Uncacheable};

/// The fetching side. Owned by its task; dropping it unfinished fails it.
#[derive(Debug)]
pub struct Fill {
    revalidating: Option<Arc<Entry>>,
}

/// The receiving side. Dropping it stops following.
#[derive(Debug)]
pub struct Follower {}

/// What a follower learns, in this order: a head, chunks, an end; or one of the others alone.
#[derive(Debug)]
pub enum Event {
    /// The response's head.
    Head(Arc<Head>),
    /// A piece of the body.
    Chunk(Bytes),
    /// The body is complete.
    End,
    /// The answer is this stored response, fresh: the origin said 304, or another fill had just finished.
    Entry(Arc<Entry>),
    /// The origin failed; this stale copy may be served instead.
    Stale(Arc<Entry>),
    /// Make your own request.
    Released(ReleaseReason),
    /// There is no answer; after a head, the client's connection has to be cut.
    Failed(FailReason),
}

/// What to do with the origin's response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadOutcome {
    /// Push the body; it will be stored when finished.
    Store,
    /// Push the body, for the lead alone. Nobody else follows any more.
    Stream(Uncacheable),
    /// Drop the body: the followers got a stale copy. The fill has ended.
    UseStale,
    /// Drop the body, if any: what was stored has been freshened and the followers have it. The fill has ended.
    NotModified,
    /// A 304 to something else than what is stored: ask again without a condition, and call `on_head` again.
    Refetch,
}

impl Fill {
    /// The entry whose validators make the request conditional, if any.
    #[must_use]
    pub fn revalidating(&self) -> Option<&Arc<Entry>> {
        self.revalidating.as_ref()
    }

    /// The response's head has arrived. `content_length` is the body's length if the origin announced it; interim
    /// responses (1xx) do not belong here.
    pub fn on_head(
        &mut self,
        status: u16,
        response_fields: &[Field<'_>],
        content_length: Option<u64>,
        now: Timestamp,
    ) -> HeadOutcome {
        let _ = (status, response_fields, content_length, now);
        HeadOutcome::Stream(Uncacheable::Off)
    }

    /// A piece of the body has arrived.
    pub fn push(&mut self, chunk: Bytes) {
        drop(chunk);
    }

    /// Ready when more of the body is welcome. Pending while a window is full; never where all of it is kept.
    pub fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let _ = cx;
        Poll::Ready(())
    }

    /// Ready when nobody follows: cancel the fetch and drop the fill. A background refresh is never abandoned while
    /// what it fetches can be stored.
    pub fn poll_abandoned(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let _ = cx;
        Poll::Pending
    }

    /// Cuts followers that hold the window up and took less than this since they were last looked at, at least a
    /// second ago; says how many. Call it about once a second while `poll_writable` is pending.
    pub fn cut_slow(&mut self, bytes_per_second_min: u64, now: Timestamp) -> usize {
        let _ = (bytes_per_second_min, now);
        0
    }

    /// The body is complete, and as long as announced. Says whether it was stored.
    pub fn finish(self, now: Timestamp) -> bool {
        let _ = now;
        false
    }

    /// There will be no (more) response.
    pub fn fail(self, reason: FailReason, now: Timestamp) {
        let _ = (reason, now);
    }
}

impl Follower {
    /// What happened next. After the last event (`End`, `Entry`, `Stale`, `Released`, `Failed`) it repeats.
    pub fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        let _ = cx;
        Poll::Pending
    }
}
