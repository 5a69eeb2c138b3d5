//! The files of the journal: made, made part of it, given up, recycled.

use std::io;
use std::rc::Rc;

use bytes::Bytes;
use disk::{File, OpenMode};

use crate::layout::{HEADER_AT, MARK_AT, Mark, Nonce, Previous, Progress, SegmentHeader};
use crate::segment::{FRESH, FileName, Segment};
use crate::{Error, Journal};

/// Spare segments kept for recycling; more are given back to the file system.
const KEEP_SPARES: usize = 4;

impl Journal {
    /// Gives up the segments that nothing needs any more, once that is durably so.
    pub(crate) async fn collect(self: &Rc<Self>) -> Result<(), Error> {
        let (advanced, target) = {
            let mut state = self.state.borrow_mut();
            let before = state.progress;
            state.advance();
            if state.progress != before && state.failed.is_none() {
                state.queue_mark();
            }
            (state.progress.low > state.progress_durable.low, state.progress.low)
        };
        self.pump();
        if advanced {
            self.sync_until(|state| state.progress_durable.low >= target).await?;
        }
        self.free().await;
        Ok(())
    }

    /// Renames the segments below the durable low-water mark to spares.
    pub(crate) async fn free(&self) {
        loop {
            let segment = {
                let mut state = self.state.borrow_mut();
                let low = state.progress_durable.low;
                state.ended.retain(|_, segment| *segment >= low);
                match state.segments.first_entry() {
                    Some(entry) if *entry.key() < low => entry.remove(),
                    _ => break,
                }
            };
            self.retire(segment).await;
        }
    }

    /// Makes a spare of a segment that is not needed. What cannot be renamed stays where it is: being
    /// below the low-water mark it means nothing, and the next opening clears it away.
    async fn retire(&self, segment: Rc<Segment>) {
        let from = FileName::live(&self.config.dir, segment.number);
        let keep = {
            let state = self.state.borrow();
            state.spares.len() < KEEP_SPARES && segment.bytes == self.config.segment_bytes
        };
        let storage = &self.ctx.storage;
        let done = if keep {
            storage.rename(&from, &FileName::spare(&self.config.dir, segment.number)).await
        } else {
            storage.remove(&from).await
        };
        match done {
            Ok(()) if keep => self.state.borrow_mut().spares.push(segment),
            Ok(()) => {}
            Err(error) => tracing::warn!(path = %from.display(), %error, "cannot free a segment"),
        }
    }

    /// Says in a segment that there is one after it. Only so that a file that vanishes is missed, and
    /// a damaged header does not cost its segment: nothing waits for it.
    pub(crate) async fn mark_ended(
        &self,
        segment: &Segment,
        end: u64,
        progress: Progress,
        next: Nonce,
    ) {
        let mark = Mark { generation: u64::MAX, durable: end, progress, next };
        let bytes = Bytes::from(mark.encode(&segment.nonce));
        if let Err(error) = segment.file.write_at(MARK_AT[0], bytes).await {
            tracing::warn!(segment = segment.number, %error, "cannot mark a segment as ended");
        }
    }

    /// Makes a segment file under its temporary name, header written, not synced.
    pub(crate) async fn make_segment(
        &self,
        number: u64,
        bytes: u64,
        previous: Previous,
        progress: Progress,
    ) -> Result<Rc<Segment>, Error> {
        let nonce: Nonce = self.ctx.random();
        let file = self.blank_file(bytes).await?;
        let header = SegmentHeader {
            number,
            nonce,
            previous,
            bytes,
            progress,
            geometry: self.geometry_digest,
        };
        let encoded = Bytes::from(header.encode());
        for at in HEADER_AT {
            file.write_at(at, encoded.clone()).await.map_err(|e| self.cannot("write", e))?;
        }
        Ok(Rc::new(Segment { number, nonce, file, bytes }))
    }

    /// A file of `bytes` bytes under the temporary name: a spare that nobody reads, or a new one.
    async fn blank_file(&self, bytes: u64) -> Result<Rc<dyn File>, Error> {
        let storage = &self.ctx.storage;
        let fresh = self.config.dir.join(FRESH);
        match storage.remove(&fresh).await {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(self.cannot("remove", e)),
            _ => {}
        }
        let spare = {
            let mut state = self.state.borrow_mut();
            let free = |s: &Rc<Segment>| Rc::strong_count(s) == 1 && s.bytes == bytes;
            let at = state.spares.iter().position(free);
            at.map(|at| state.spares.swap_remove(at))
        };
        if let Some(spare) = spare {
            let from = FileName::spare(&self.config.dir, spare.number);
            storage.rename(&from, &fresh).await.map_err(|e| self.cannot("rename", e))?;
            return Ok(spare.file.clone());
        }
        let file = storage.open(&fresh, OpenMode::CreateNew).await;
        let file = file.map_err(|e| self.cannot("create", e))?;
        let allocated = match file.allocate(0, bytes).await {
            Err(e) if e.kind() == io::ErrorKind::Unsupported => file.set_len(bytes).await,
            other => other,
        };
        match allocated {
            Ok(()) => Ok(file),
            Err(e) if e.kind() == io::ErrorKind::StorageFull => {
                drop(file);
                drop(storage.remove(&fresh).await);
                Err(Error::NoSpace { path: self.config.dir.clone(), bytes })
            }
            Err(e) => Err(self.cannot("allocate", e)),
        }
    }

    /// Gives a finished segment its name: from here on it is part of the journal.
    pub(crate) async fn adopt(&self, segment: &Segment) -> Result<(), Error> {
        let name = FileName::live(&self.config.dir, segment.number);
        let storage = &self.ctx.storage;
        let renamed = storage.rename(&self.config.dir.join(FRESH), &name).await;
        renamed.map_err(|e| self.cannot("rename", e))?;
        if let Err(error) = storage.sync_dir(&self.config.dir).await {
            // Whether the name is durable is unknown: nothing may be promised on it.
            self.fail("sync of the directory", segment.number, error);
            return self.state.borrow().check();
        }
        Ok(())
    }

    pub(crate) fn cannot(&self, action: &'static str, source: io::Error) -> Error {
        Error::io(action, &self.config.dir.join(FRESH), source)
    }
}
