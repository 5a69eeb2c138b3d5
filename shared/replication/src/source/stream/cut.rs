//! Cuts inside streams: every few seconds, or after so many bytes, an epoch ends. Such a cut is published
//! without a sync of the base (rule 6), but not before its record is durable.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use grain::{Cut, CutReason};
use tokio::time::Instant;

use super::super::Source;
use super::{End, Item, Stream};
use crate::Result;
use crate::source::cut::Publish;

/// A cut on its way to the peers.
pub(crate) struct CutRecord {
    pub(crate) cut: Cut,
    durable: Cell<bool>,
}

impl CutRecord {
    /// Whether the record of it is on stable storage.
    pub(crate) fn is_durable(&self) -> bool {
        self.durable.get()
    }
}

/// A cut that was made and is not recorded yet. If it never is, the streams that have it end.
pub(crate) struct Recording<'a> {
    source: &'a Source,
    record: Rc<CutRecord>,
    streams: Vec<Rc<Stream>>,
}

impl Recording<'_> {
    /// The record is durable: the streams may send it.
    pub(crate) fn done(self) {
        self.record.durable.set(true);
        for stream in &self.streams {
            stream.nudge();
        }
    }
}

impl Drop for Recording<'_> {
    fn drop(&mut self) {
        if !self.record.is_durable() {
            for stream in &self.streams {
                self.source.end_stream(stream, End::CutFailed);
            }
        }
    }
}

impl Source {
    /// An epoch ends: gives the cut to every stream, and begins to count anew. The gate is closed.
    pub(crate) fn cut_streams(&self, cut: Cut) -> Recording<'_> {
        let streams = &self.streams;
        streams.sequence.set(0);
        streams.epoch_bytes.set(0);
        streams.epoch_began.set(Some(Instant::now()));
        let record = Rc::new(CutRecord { cut, durable: Cell::new(false) });
        let live: Vec<_> = streams.live.borrow().clone();
        for stream in &live {
            stream.push(Item::Cut(record.clone()));
        }
        Recording { source: self, record, streams: live }
    }

    /// The identities that have the cuts of this source by their streams.
    pub(crate) fn streaming(&self) -> Vec<String> {
        let live = self.streams.live.borrow();
        live.iter().map(|stream| stream.identity().to_owned()).collect()
    }

    /// Makes a cut for the streams when the epoch is old or large enough, and something was written in it.
    pub(crate) async fn cut_if_due(self: &Rc<Self>, epoch: Duration, bytes: u64) -> Result<()> {
        let due = || {
            let streams = &self.streams;
            let old = streams.epoch_began.get().is_none_or(|began| began.elapsed() >= epoch);
            streams.sequence.get() > 0 && (old || streams.epoch_bytes.get() >= bytes)
        };
        if !due() {
            return Ok(());
        }
        let one = self.lock_cuts().await;
        if !due() || self.stopping.get() {
            return Ok(());
        }
        self.cut_after(&one, CutReason::Stream, Publish::InStream, |_, _| Vec::new()).await?;
        drop(one);
        // Layers go only when this side's disks were synced after their end.
        let source = self.clone();
        tokio::task::spawn_local(async move {
            if let Err(error) = source.sync_base().await {
                tracing::error!(%error, "the volumes could not be synced");
            }
        });
        Ok(())
    }
}
