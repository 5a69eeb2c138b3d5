//! Carrying out: the queue of writes, the group commit of syncs, and going on to the next segment.
//!
//! Writes and syncs run in tasks of their own and keep the journal alive, so that a caller who drops
//! its future never leaves a hole in the log, and the outcome of a sync is never lost (the kernel
//! reports a failed sync once).

use std::future::Future;
use std::io;
use std::rc::Rc;

use crate::index::Place;
use crate::layout::{Mark, Previous, RECORDS_START};
use crate::record::RecordHeader;
use crate::state::State;
use crate::{Error, Journal};
use bytes::Bytes;

/// Bytes that may wait to be written before `append` waits.
const QUEUE_LIMIT: u64 = 16 << 20;

/// Who asks for room.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tier {
    /// Copy records: leave the reserve.
    Data,
    /// Commit, abort and manifest records.
    Control,
}

impl Journal {
    /// Runs `work` to its end even when the caller goes away.
    pub(crate) async fn detached<T: 'static>(
        self: &Rc<Self>,
        work: impl Future<Output = T> + 'static,
    ) -> T {
        match tokio::task::spawn_local(work).await {
            Ok(value) => value,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The thread is being taken down; nobody will look at a result.
                Err(_) => std::future::pending().await,
            },
        }
    }

    /// Latches a failure of the current segment.
    pub(crate) fn fail(&self, action: &'static str, segment: u64, source: io::Error) {
        let mut state = self.state.borrow_mut();
        if state.failed.is_none() {
            tracing::error!(segment, %source, "journal: {action} failed; it must be reopened");
            state.failed = Some(Error::Failed { action, segment, source: Rc::new(source) });
        }
        state.queue.clear();
        state.queued_bytes = 0;
        drop(state);
        self.changed.notify_waiters();
    }

    /// Writes what the page cache takes at once, and leaves the rest to a task.
    pub(crate) fn pump(self: &Rc<Self>) {
        while !self.state.borrow().draining {
            let Some(item) = self.state.borrow().queue.front().cloned() else { return };
            match item.segment.file.write_now(&item.bytes, item.offset) {
                Ok(true) => self.state.borrow_mut().settle(),
                Ok(false) => {
                    self.state.borrow_mut().draining = true;
                    tokio::task::spawn_local(self.clone().drain());
                }
                Err(error) => self.fail("write", item.segment.number, error),
            }
        }
    }

    async fn drain(self: Rc<Self>) {
        loop {
            let Some(item) = self.state.borrow().queue.front().cloned() else { break };
            match item.segment.file.write_at(item.offset, item.bytes.clone()).await {
                // A failure elsewhere may have emptied the queue meanwhile.
                Ok(()) if self.state.borrow().failed.is_some() => break,
                Ok(()) => self.state.borrow_mut().settle(),
                Err(error) => self.fail("write", item.segment.number, error),
            }
            self.changed.notify_waiters();
        }
        self.state.borrow_mut().draining = false;
        self.changed.notify_waiters();
    }

    /// Waits until `done` holds or the journal fails.
    pub(crate) async fn wait_until(&self, done: impl Fn(&State) -> bool) -> Result<(), Error> {
        loop {
            let changed = self.changed.notified();
            {
                let state = self.state.borrow();
                state.check()?;
                if done(&state) {
                    return Ok(());
                }
            }
            changed.await;
        }
    }

    /// Waits while too much waits to be written.
    pub(crate) async fn back_pressure(&self) -> Result<(), Error> {
        self.wait_until(|state| state.queued_bytes <= QUEUE_LIMIT).await
    }

    /// Syncs until `done` holds. One sync serves all who wait; who comes while one runs is served by
    /// the next.
    pub(crate) async fn sync_until(
        self: &Rc<Self>,
        done: impl Fn(&State) -> bool,
    ) -> Result<(), Error> {
        loop {
            let changed = self.changed.notified();
            {
                let mut state = self.state.borrow_mut();
                state.check()?;
                if done(&state) {
                    return Ok(());
                }
                if !state.syncing {
                    state.syncing = true;
                    tokio::task::spawn_local(self.clone().sync_once());
                }
            }
            changed.await;
        }
    }

    /// Makes everything appended so far durable.
    pub(crate) async fn sync_tail(self: &Rc<Self>) -> Result<(), Error> {
        let target = self.state.borrow().tail_place();
        self.sync_until(|state| state.durable >= target).await
    }

    async fn sync_once(self: Rc<Self>) {
        self.pump();
        let (target, mark) = {
            let state = self.state.borrow();
            (state.tail_place(), state.marks.queued.generation)
        };
        let written =
            self.wait_until(|s| s.written >= target && s.marks.written.generation >= mark).await;
        if written.is_ok() {
            let (segment, written, mark) = {
                let state = self.state.borrow();
                (state.current().clone(), state.written, state.marks.written)
            };
            match segment.file.sync_data().await {
                Ok(()) => self.sync_done(written, mark),
                Err(error) => self.fail("sync", segment.number, error),
            }
        }
        self.state.borrow_mut().syncing = false;
        self.changed.notify_waiters();
    }

    fn sync_done(self: &Rc<Self>, written: Place, mark: Mark) {
        let mut state = self.state.borrow_mut();
        state.counters.syncs += 1;
        let advanced = written > state.durable;
        state.synced(written, mark);
        // Later records carry the news in their headers; without any, a mark does, lazily.
        let quiet = state.queue.is_empty() && state.failed.is_none();
        if advanced && quiet && state.durable.segment == state.current().number {
            state.queue_mark();
        }
        drop(state);
        self.pump();
    }

    /// Makes sure that a record of `bytes` fits at the tail. Call with the log locked.
    pub(crate) async fn reserve(self: &Rc<Self>, bytes: u64, tier: Tier) -> Result<(), Error> {
        let allowed = |state: &State| match tier {
            Tier::Data => state.data_segments(&self.config),
            Tier::Control => self.config.max_segments(),
        };
        for collected in [false, true] {
            {
                let state = self.state.borrow();
                state.check()?;
                let more = u64::from(!state.fits(bytes));
                let live = state.segments.len() as u64;
                if live + more <= allowed(&state) {
                    if more == 0 {
                        return Ok(());
                    }
                    break;
                }
                if collected {
                    let (room, limit) = (state.data_room(&self.config), self.config.max_bytes);
                    return Err(Error::Full { needed: bytes, room: room.min(bytes), limit });
                }
            }
            self.collect().await?;
        }
        self.roll().await
    }

    /// Ends the current segment and begins the next. Call with the log locked.
    async fn roll(self: &Rc<Self>) -> Result<(), Error> {
        self.sync_tail().await?;
        let (previous, old, progress) = {
            let mut state = self.state.borrow_mut();
            state.advance();
            let old = state.current().clone();
            let end = state.tail;
            (Previous { number: old.number, nonce: old.nonce, end }, old, state.progress)
        };
        let number = previous.number + 1;
        let bytes = self.config.segment_bytes;
        let made = self.make_segment(number, bytes, previous, progress).await?;
        made.file.sync_data().await.map_err(|e| self.cannot("sync", e))?;
        self.adopt(&made).await?;
        let nonce = made.nonce;
        self.state.borrow_mut().begin_segment(made, RECORDS_START, progress);
        self.changed.notify_waiters();
        self.mark_ended(&old, previous.end, progress, nonce).await;
        self.free().await;
        Ok(())
    }

    /// Appends a control record. Call with the log locked.
    pub(crate) async fn append_control(
        self: &Rc<Self>,
        header: RecordHeader,
        payload: Vec<u8>,
    ) -> Result<RecordHeader, Error> {
        self.reserve(header.stride(), Tier::Control).await?;
        let header = self.state.borrow_mut().place(header, Bytes::from(payload));
        self.pump();
        Ok(header)
    }
}
