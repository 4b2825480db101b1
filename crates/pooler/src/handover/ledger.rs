//! Whose the places of a pool are while two processes have server connections.
//!
//! **Intuition.** A pool has `size` places, however many processes there are. From the moment clients are handed over the
//! successor counts for both: what the predecessor has open is a place taken here, given back when the predecessor says
//! so. Nobody opens a connection without a place, so there are never too many, whoever is late with what he says.
//!
//! **Mechanism.** The predecessor says what it holds, gives places back as they come free, and asks for one when a client
//! of its own waits ([`Shared::for_successor`]). The successor grants one that is free, or has one made free
//! ([`Shared::for_predecessor`]); where its own clients wait for places that the predecessor holds, it says so, and the
//! predecessor keeps nothing idle. Both are looked at a hundred times a second, by the thread that sends.
//!
//! **Failure.** If a process ends, its connections do: [`Shared::close_ledger`] frees what was counted for the
//! predecessor, [`Pool::keep_own_books`] what the successor granted no longer counts.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tenfold_service::handover::{Frame, Malformed, Reader, Writer};

use super::{GRANTED, HELD, RECALLED, RETURNED, WANTED, lock};
use crate::{
    mailbox::Order,
    pool::{Place, Pool},
    shared::Shared,
};

/// Pools of a predecessor that are counted.
const ACCOUNTS_MAX: usize = 10_000;
/// Places of one pool that a predecessor may be found to have.
const HELD_MAX: usize = 100_000;
/// A predecessor whose places are waited for keeps none idle for so long after it was told.
const RECALLED_MS: u64 = 200;
/// It is told again after this.
const RECALL_AGAIN_MS: u64 = 50;
/// At first nothing is kept idle for so long: the clients are on their way to the successor.
const FIRST_RECALL_MS: u64 = 1_000;

/// What the predecessor has, by pool.
#[derive(Default)]
pub(super) struct Ledger {
    accounts: HashMap<u64, Account>,
}

struct Account {
    pool: Arc<Pool>,
    places: Vec<Place>,
    /// A client there waits for one more, so long already.
    wanted: Option<Duration>,
    recalled_ms: u64,
}

impl Shared {
    /// The successor keeps the books of all pools from here on: what each has open.
    pub(super) fn books_for_successor(&self) -> Vec<Frame> {
        let now_ms = self.ms(self.clock.now());
        let mut frames = Vec::new();
        for pool in self.pools() {
            pool.recall(now_ms + FIRST_RECALL_MS);
            frames.push(about(HELD, &pool, pool.open_under_successor()));
            self.close_idle_everywhere(&pool);
        }
        frames
    }

    /// Nobody else keeps the books any longer.
    pub(super) fn keep_own_books(&self) {
        for pool in self.pools() {
            pool.keep_own_books();
        }
    }

    /// What the predecessor has open is known, or it is gone.
    pub(super) fn may_connect(&self) {
        if !self.handover.is_held_back.swap(false, Ordering::SeqCst) {
            return;
        }
        self.keep_own_books();
        for database in self.databases() {
            self.tell_all(|| Order::Wake { database: Arc::clone(&database) });
        }
    }

    /// What the successor is to hear of the pools: to be asked for a hundred times a second, and sent.
    pub(crate) fn for_successor(&self) -> Vec<Frame> {
        let now_ms = self.ms(self.clock.now());
        let mut frames = Vec::new();
        for pool in self.pools() {
            let settled = pool.settle(now_ms);
            if settled.returned > 0 {
                frames.push(about(RETURNED, &pool, settled.returned));
            }
            if let Some(waited) = settled.wanted {
                frames.push(about(WANTED, &pool, millis(waited)));
            }
        }
        frames
    }

    /// The successor said something about a pool.
    pub(super) fn books_changed(&self, kind: u8, body: Reader<'_>) -> Result<(), Malformed> {
        let Some((pool, number)) = self.read_about(body)? else { return Ok(()) };
        if kind == GRANTED {
            pool.grant(number);
            self.tell_all(|| Order::Wake { database: Arc::clone(&pool.database) });
            return Ok(());
        }
        let now_ms = self.ms(self.clock.now());
        pool.recall(now_ms + RECALLED_MS);
        pool.owe(Duration::from_millis(number as u64), now_ms);
        self.close_idle_everywhere(&pool);
        Ok(())
    }

    fn close_idle_everywhere(&self, pool: &Arc<Pool>) {
        if pool.idle() > 0 {
            self.tell_all(|| Order::CloseIdle { pool: Arc::clone(pool) });
        }
    }

    /// The predecessor said something about a pool.
    pub(super) fn ledger_changed(&self, kind: u8, body: Reader<'_>) -> Result<(), Malformed> {
        let Some((pool, number)) = self.read_about(body)? else { return Ok(()) };
        let mut ledger = lock(&self.handover.ledger);
        if ledger.accounts.len() >= ACCOUNTS_MAX && !ledger.accounts.contains_key(&pool.id) {
            return Err(Malformed);
        }
        let account = ledger.accounts.entry(pool.id).or_insert_with(|| Account {
            pool: Arc::clone(&pool),
            places: Vec::new(),
            wanted: None,
            recalled_ms: 0,
        });
        match kind {
            HELD => {
                let held = number.min(HELD_MAX.saturating_sub(account.places.len()));
                account.places.extend((0..held).map(|_| pool.take_place_anyway()));
            }
            RETURNED => {
                let left = account.places.len().saturating_sub(number);
                account.places.truncate(left);
                drop(ledger);
                self.tell_all(|| Order::Wake { database: Arc::clone(&pool.database) });
            }
            _ => account.wanted = Some(Duration::from_millis(number as u64)),
        }
        Ok(())
    }

    /// What the predecessor is to hear of the pools: to be asked for a hundred times a second, and sent.
    pub(crate) fn for_predecessor(&self) -> Vec<Frame> {
        let now_ms = self.ms(self.clock.now());
        let mut frames = Vec::new();
        for account in lock(&self.handover.ledger).accounts.values_mut() {
            frames.extend(self.grant_wanted(account, now_ms));
            frames.extend(recall_held(account, now_ms));
        }
        frames
    }

    fn grant_wanted(&self, account: &mut Account, now_ms: u64) -> Option<Frame> {
        let waited = account.wanted?;
        let pool = &account.pool;
        if let Some(place) = pool.take_place_aside(waited) {
            account.places.push(place);
            account.wanted = None;
            pool.keep_aside_nothing();
            return Some(about(GRANTED, pool, 1));
        }
        match pool.lender(usize::MAX) {
            Some(worker) => self.tell(worker, Order::MakeRoom { pool: Arc::clone(pool) }),
            None => pool.owe(waited, now_ms),
        }
        None
    }

    /// The predecessor has ended, and its connections with it.
    pub(super) fn close_ledger(&self) {
        let accounts = std::mem::take(&mut lock(&self.handover.ledger).accounts);
        for account in accounts.values() {
            account.pool.keep_aside_nothing();
            self.tell_all(|| Order::Wake { database: Arc::clone(&account.pool.database) });
        }
    }

    fn read_about(&self, mut body: Reader<'_>) -> Result<Option<(Arc<Pool>, usize)>, Malformed> {
        let (database, user, number) = (body.text()?, body.text()?, body.u32()?);
        body.end()?;
        let number = usize::try_from(number).map_err(|_| Malformed)?;
        // One that this process does not have is not served here, either.
        let database = self.database(database);
        Ok(database.and_then(|database| self.pool(&database, &user.into())).map(|pool| (pool, number)))
    }
}

/// Has the predecessor keep nothing idle of what clients here wait for.
fn recall_held(account: &mut Account, now_ms: u64) -> Option<Frame> {
    let is_due = now_ms.saturating_sub(account.recalled_ms) >= RECALL_AGAIN_MS;
    if account.places.is_empty() || !is_due || account.pool.clients.load(Ordering::Relaxed) == 0 {
        return None;
    }
    let since = account.pool.oldest_ms()?;
    account.recalled_ms = now_ms;
    let waited = usize::try_from(now_ms.saturating_sub(since)).unwrap_or(usize::MAX);
    Some(about(RECALLED, &account.pool, waited))
}

fn about(kind: u8, pool: &Pool, number: usize) -> Frame {
    let mut body = Writer::new();
    body.text(&pool.database.name).text(&pool.user).u32(u32::try_from(number).unwrap_or(u32::MAX));
    Frame::new(kind, body)
}

fn millis(time: Duration) -> usize {
    usize::try_from(time.as_millis()).unwrap_or(usize::MAX)
}
