//! Bringing the backlog into the base.

use std::rc::{Rc, Weak};
use std::time::Duration;

use futures_util::StreamExt;
use grain::{GrainSet, Run, VolumeId};

use super::Backlog;
use crate::source::Source;
use crate::{Error, Result};

/// Bytes brought in together, with one sync of the base and one strike.
const TOGETHER: u64 = 16 << 20;
/// Pieces under way.
const WIDTH: usize = 8;
/// After a failure it is tried again so often.
const AGAIN: Duration = Duration::from_secs(5);

impl Source {
    /// Begins to bring the backlog of a promotion into the volumes, where there is one.
    pub(in crate::source) fn work_off_backlog(self: &Rc<Self>) {
        let Some(backlog) = self.backlog.clone() else { return };
        let source = Rc::downgrade(self);
        tokio::task::spawn_local(async move { backlog.work(source).await });
    }

    /// Bytes that wait in the journal since the promotion, and of them those that cannot be read any more.
    pub fn backlog_bytes(&self) -> (u64, u64) {
        self.backlog.as_ref().map_or((0, 0), |backlog| (backlog.bytes(), backlog.lost_bytes()))
    }

    /// Waits until all that counts is in the volumes.
    ///
    /// # Errors
    /// [`Error::State`] where the journal does not give it any more; why it does not get on.
    pub async fn in_the_volumes(&self) -> Result<()> {
        match &self.backlog {
            Some(backlog) => backlog.ended().await,
            None => Ok(()),
        }
    }
}

impl Backlog {
    async fn work(self: Rc<Self>, source: Weak<Source>) {
        let mut from = (VolumeId(0), 0);
        loop {
            let news = self.news.notified();
            let chunk = self.next(&mut from);
            let Some(source) = source.upgrade().filter(|source| !source.stopping.get()) else {
                return;
            };
            let step = match chunk {
                Some(chunk) => self.bring_in(&source, &chunk).await,
                None if self.waits.borrow().is_empty() => match self.end().await {
                    Ok(()) => return,
                    failed => failed,
                },
                None => {
                    // Only what is lost is left: a write may make it whole.
                    drop(source);
                    news.await;
                    continue;
                }
            };
            let again = !source.sync_failed.get();
            drop(source);
            *self.failed.borrow_mut() = step.as_ref().err().cloned();
            let Err(error) = step else { continue };
            tracing::error!(%error, "what waits in the journal is not brought into the volumes");
            self.moved.notify_waiters();
            if !again {
                return;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// What is brought in next: what was asked for, else what follows.
    fn next(&self, from: &mut (VolumeId, u64)) -> Option<GrainSet> {
        let mut most = (TOGETHER >> self.geometry.grain.shift()).max(1);
        let mut asked = std::mem::take(&mut *self.asked.borrow_mut());
        let mut waits = self.waits.borrow().clone();
        waits.subtract(&self.lost.borrow());
        asked.intersect_with(&waits);
        if !asked.is_empty() {
            return Some(asked);
        }
        if waits.next_run(*from, 1).is_none() {
            *from = (VolumeId(0), 0);
        }
        let mut chunk = GrainSet::new();
        while let Some(run) = waits.next_run(*from, most).filter(|_| most > 0) {
            chunk.insert_run(run);
            most -= run.count;
            *from = (run.volume, run.end());
        }
        Some(chunk).filter(|chunk| !chunk.is_empty())
    }

    async fn bring_in(&self, source: &Rc<Source>, chunk: &GrainSet) -> Result<()> {
        let _one = self.one.lock().await;
        let mut chunk = chunk.clone();
        chunk.intersect_with(&self.waits.borrow());
        chunk.subtract(&self.lost.borrow());
        let pieces = chunk.runs().flat_map(|run| self.journal.lookup(self.geometry.span_of(run)));
        let mut pieces = futures_util::stream::iter(pieces)
            .map(|piece| async move {
                match piece.read().await {
                    Ok(data) => self.base.write_span(&data).await.map(|()| None),
                    Err(e @ journal::Error::Damaged { .. }) => {
                        tracing::error!(error = %e, "a journal record is damaged");
                        Ok(Some(piece.grains()))
                    }
                    Err(e) => Err(Error::from(e)),
                }
            })
            .buffer_unordered(WIDTH);
        let mut lost: Vec<Run> = Vec::new();
        while let Some(outcome) = pieces.next().await {
            lost.extend(outcome?);
        }
        drop(pieces);
        source.sync_base().await?;
        for run in lost {
            chunk.remove_run(run);
            self.found_lost(run);
        }
        self.strike(&chunk).await
    }

    /// Nothing waits any more: the journal forgets it, then the state.
    async fn end(&self) -> Result<()> {
        while let Some(batch) = self.journal.next_apply(u64::MAX) {
            self.journal.applied(batch).await?;
        }
        self.journal.settle().await?;
        self.store
            .update(|s| {
                let maps = s.backlog.take().into_iter().flat_map(|backlog| backlog.maps);
                s.layers.free.extend(maps);
            })
            .await?;
        self.over.set(true);
        tracing::info!("what waited in the journal is in the volumes");
        self.moved.notify_waiters();
        Ok(())
    }
}
