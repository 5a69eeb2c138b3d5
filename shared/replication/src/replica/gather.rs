//! Gathering a catch-up: ranges are pulled in this side's own order, a window at a time; what the
//! source had to preserve is pushed and comes in between.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use grain::{GrainSet, Run, VolumeId};
use tokio::sync::{Notify, Semaphore};

use super::Replica;
use crate::protocol::{Connection, Inbox, MAX_DIGESTS, MAX_RUNS_A_PULL, Message, unexpected};
use crate::{Error, Result};

/// Pulls that may be unanswered at a time.
const WINDOW: usize = 8;
/// Bytes asked for by one pull of many small runs.
const PULL_BYTES: u64 = 4 << 20;
/// The longest run asked for at once, in bytes: holes answer it in one message.
const RUN_BYTES: u64 = 1 << 30;
/// Bytes read here for one message of digests.
const DIGEST_BYTES: u64 = 64 << 20;
/// Grains being checked and stored at the same time.
const STORING: usize = 16;

/// See the module's text.
pub(super) struct Gather {
    inner: Rc<Inner>,
}

struct Inner {
    replica: Rc<Replica>,
    connection: Connection,
    suspected: GrainSet,
    /// Not asked for yet, and not arrived.
    unasked: RefCell<GrainSet>,
    /// Not arrived: of these, each grain may come once.
    awaited: RefCell<GrainSet>,
    cursor: Cell<(VolumeId, u64)>,
    number: Cell<u32>,
    outstanding: Cell<usize>,
    storing: Arc<Semaphore>,
    idle: Notify,
    failed: Cell<Option<Error>>,
}

enum Ask {
    Plain(Vec<Run>),
    Different(Run),
}

impl Gather {
    pub(super) fn new(
        replica: &Rc<Replica>,
        connection: Connection,
        mut suspected: GrainSet,
    ) -> Gather {
        let pull = replica.pull.borrow().as_ref().map(|p| p.remaining()).unwrap_or_default();
        // Digests are those of the base. Where a session that is carried over brought other bytes, to
        // be the same as the base is not to be right: the commit would lay them over it.
        suspected.subtract(&replica.carried_grains());
        let inner = Inner {
            replica: replica.clone(),
            connection,
            suspected,
            unasked: RefCell::new(pull.clone()),
            awaited: RefCell::new(pull),
            cursor: Cell::new((VolumeId(0), 0)),
            number: Cell::new(0),
            outstanding: Cell::new(0),
            storing: Arc::new(Semaphore::new(STORING)),
            idle: Notify::new(),
            failed: Cell::new(None),
        };
        Gather { inner: Rc::new(inner) }
    }

    /// Until everything has arrived and is stored (not yet durable).
    pub(super) async fn run(&self, inbox: &mut Inbox) -> Result<()> {
        let outcome = self.exchange(inbox).await;
        // Whatever happened: nothing is being stored any more when this returns.
        self.inner.replica.storing.over().await;
        outcome?;
        self.inner.failed.take().map_or(Ok(()), Err)
    }

    async fn exchange(&self, inbox: &mut Inbox) -> Result<()> {
        let inner = &self.inner;
        let mut finishing = false;
        loop {
            while inner.outstanding.get() < WINDOW && !finishing {
                match inner.next_ask() {
                    Some(ask) => inner.send(ask).await?,
                    None if inner.outstanding.get() == 0 => {
                        inner.connection.send(&Message::Finish).await?;
                        finishing = true;
                    }
                    None => break,
                }
            }
            let (message, payload) = tokio::select! {
                biased;
                failed = inner.failure() => return Err(failed),
                next = inbox.next() => next?,
            };
            match message {
                Message::Data { run, digest } => self.store(run, Some((payload, digest))).await?,
                Message::Zero { run } => self.store(run, None).await?,
                Message::Same { run } => {
                    inner.comes(run)?;
                    inner.replica.receive_same(run).await?;
                }
                Message::Unreadable { run } => {
                    inner.comes(run)?;
                    inner.replica.receive_unreadable(run)?;
                }
                Message::Pulled { .. } if inner.outstanding.get() > 0 => {
                    inner.outstanding.set(inner.outstanding.get() - 1);
                }
                Message::Delivered if finishing => return Ok(()),
                Message::Broken { text } => {
                    return Err(Error::Link(format!("the source ended the catch-up: {text}")));
                }
                other => return Err(unexpected(&other)),
            }
        }
    }

    /// Checks and stores grains in a task of its own, so that several are under way.
    async fn store(&self, run: Run, payload: Option<(Bytes, [u8; 32])>) -> Result<()> {
        let inner = self.inner.clone();
        inner.comes(run)?;
        let permit = inner.storing.clone().acquire_owned().await;
        let permit = permit.map_err(|_| Error::Cancelled)?;
        let at_work = inner.replica.storing.enter();
        tokio::task::spawn_local(async move {
            if let Err(e) = inner.replica.receive(run, payload).await {
                inner.failed.set(Some(e));
            }
            drop((at_work, permit));
            inner.idle.notify_waiters();
        });
        Ok(())
    }
}

/// Who stores grains of a catch-up: tasks that go on when their session is dropped.
#[derive(Default)]
pub(super) struct Storing(Rc<(Cell<usize>, Notify)>);

struct AtWork(Rc<(Cell<usize>, Notify)>);

impl Drop for AtWork {
    fn drop(&mut self) {
        let (count, idle) = &*self.0;
        count.set(count.get() - 1);
        idle.notify_waiters();
    }
}

impl Storing {
    fn enter(&self) -> AtWork {
        self.0.0.set(self.0.0.get() + 1);
        AtWork(self.0.clone())
    }

    /// Waits until nobody does. Whoever writes the base by another way, or counts what has arrived, waits
    /// here first: a late grain of a session that was dropped must not land after that.
    pub(super) async fn over(&self) {
        loop {
            let (count, idle) = &*self.0;
            let idle = idle.notified();
            if count.get() == 0 {
                return;
            }
            idle.await;
        }
    }
}

impl Inner {
    /// Notes that `run` has come. Each grain comes once, and only what belongs to the catch-up.
    fn comes(&self, run: Run) -> Result<()> {
        let grains = self.replica.volumes().geometry().grains(run.volume);
        let inside = run.count > 0 && run.first < grains && run.count <= grains - run.first;
        if !inside || !self.awaited.borrow().contains_all(run) {
            return Err(Error::Peer(format!("{run:?} does not belong here, or came twice")));
        }
        self.awaited.borrow_mut().remove_run(run);
        self.unasked.borrow_mut().remove_run(run);
        Ok(())
    }

    /// The first failure of what runs aside.
    async fn failure(&self) -> Error {
        loop {
            let idle = self.idle.notified();
            if let Some(e) = self.failed.take() {
                return e;
            }
            idle.await;
        }
    }

    /// What to ask for next, taken out of what was not asked for.
    fn next_ask(&self) -> Option<Ask> {
        let shift = self.replica.volumes().geometry().grain.shift();
        let mut unasked = self.unasked.borrow_mut();
        let mut runs = Vec::new();
        let mut bytes = 0;
        while runs.len() < MAX_RUNS_A_PULL && bytes < PULL_BYTES {
            let most = (RUN_BYTES >> shift).max(1);
            let next = unasked
                .next_run(self.cursor.get(), most)
                .or_else(|| unasked.next_run((VolumeId(0), 0), most));
            let Some(run) = next else { break };
            if self.suspected.contains(run.volume, run.first) {
                if !runs.is_empty() {
                    break;
                }
                let most = MAX_DIGESTS.min(DIGEST_BYTES >> shift).max(1);
                let same = self.suspected.next_run((run.volume, run.first), most)?;
                let run = Run { count: run.count.min(same.count), ..run };
                self.taken(&mut unasked, run);
                return Some(Ask::Different(run));
            }
            // Up to where grains begin that are compared first.
            let stop = self
                .suspected
                .next_run((run.volume, run.first), 1)
                .filter(|s| s.volume == run.volume && s.first < run.end())
                .map_or(run.end(), |s| s.first);
            let run = Run { count: stop - run.first, ..run };
            self.taken(&mut unasked, run);
            bytes += run.count << shift;
            runs.push(run);
        }
        (!runs.is_empty()).then_some(Ask::Plain(runs))
    }

    fn taken(&self, unasked: &mut GrainSet, run: Run) {
        unasked.remove_run(run);
        self.cursor.set((run.volume, run.end()));
    }

    async fn send(&self, ask: Ask) -> Result<()> {
        let number = self.number.get();
        self.number.set(number.wrapping_add(1));
        self.outstanding.set(self.outstanding.get() + 1);
        match ask {
            Ask::Plain(runs) => self.connection.send(&Message::Pull { number, runs }).await,
            Ask::Different(run) => {
                let digests = self.replica.digests(run).await?;
                let message = Message::PullDifferent { number, run };
                self.connection.send_with(&message, digests.into()).await
            }
        }
    }
}
