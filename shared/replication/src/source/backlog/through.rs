//! The files through which a source serves its volumes while a backlog waits.

use std::io;
use std::rc::Rc;

use bytes::Bytes;
use disk::{Extent, File, FileKind, Local};
use grain::{Content, GrainSet, Run, Span, VolumeId};

use super::Backlog;
use crate::Error;

/// One volume: what waits lies over the base.
pub(super) struct Through {
    backlog: Rc<Backlog>,
    volume: VolumeId,
    base: Rc<dyn File>,
}

impl Through {
    pub(super) fn over(
        backlog: &Rc<Backlog>,
        volume: VolumeId,
        base: Rc<dyn File>,
    ) -> Rc<dyn File> {
        Rc::new(Through { backlog: backlog.clone(), volume, base })
    }

    fn waits(&self, offset: u64, len: u64) -> bool {
        len > 0 && self.backlog.waits_in(self.backlog.run_of(self.volume, offset, len))
    }

    async fn read_over(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let (backlog, volume) = (&self.backlog, self.volume);
        let span = Span { volume, start: offset, bytes: len as u64 };
        let run = backlog.geometry.touched_by(span);
        // As it is now: the journal keeps its content until the end, so that what is brought into the base,
        // and written over, in the meantime does no harm. It is read as it was when this began.
        let mut waits: GrainSet = [run].into_iter().collect();
        waits.intersect_with(&backlog.waits.borrow());
        let parts = waits.runs().map(|run| {
            let range = backlog.geometry.byte_range(run.volume, run.first, run.count);
            let (start, end) = (range.start.max(span.start), range.end.min(span.end()));
            Span { volume, start, bytes: end - start }
        });
        let pieces: Vec<_> = parts.flat_map(|part| backlog.journal.lookup(part)).collect();
        refuse_lost(&backlog.lost_in(run))?;
        let mut bytes = self.base.read_at(offset, len).await?;
        for piece in pieces {
            let (from, to) = (piece.span().start - offset, piece.span().end() - offset);
            let Some(target) = bytes.get_mut(from as usize..to as usize) else { continue };
            let data = match piece.read().await {
                Ok(data) => data,
                Err(e @ journal::Error::Damaged { .. }) => {
                    backlog.found_lost(piece.grains());
                    return Err(io::Error::other(e.to_string()));
                }
                Err(e) => return Err(io::Error::other(e.to_string())),
            };
            match data.content {
                Content::Zero => target.fill(0),
                Content::Data(piece) => target.copy_from_slice(&piece),
            }
        }
        Ok(bytes)
    }

    /// A write, which begins when it is polled. What does not wait now never does again.
    fn changed_by<'a>(
        &'a self,
        offset: u64,
        len: u64,
        write: Local<'a, io::Result<()>>,
    ) -> Local<'a, io::Result<()>> {
        match self.waits(offset, len) {
            true => Box::pin(self.change(offset, len, write)),
            false => write,
        }
    }

    /// Has what waits under a write brought into the base, then writes. Grains that are lost are made whole by
    /// a write that covers all of them, and by no other.
    async fn change(
        &self,
        offset: u64,
        len: u64,
        write: Local<'_, io::Result<()>>,
    ) -> io::Result<()> {
        let backlog = &self.backlog;
        let run = backlog.run_of(self.volume, offset, len);
        backlog.bring(run).await.map_err(said)?;
        if backlog.lost_in(run).is_empty() {
            return write.await;
        }
        // Nobody brings in what is left of a grain over what makes it whole.
        let _one = backlog.one.lock().await;
        let lost = backlog.lost_in(run);
        let covered = |run: Run| {
            let range = backlog.geometry.byte_range(run.volume, run.first, run.count);
            range.start >= offset && range.end <= offset + len
        };
        if !lost.runs().all(covered) {
            return refuse_lost(&lost);
        }
        write.await?;
        if !lost.is_empty() {
            self.base.sync_data().await?;
            backlog.strike(&lost).await.map_err(said)?;
        }
        Ok(())
    }
}

fn said(error: Error) -> io::Error {
    io::Error::other(error.to_string())
}

fn refuse_lost(lost: &GrainSet) -> io::Result<()> {
    match lost.is_empty() {
        true => Ok(()),
        false => Err(io::Error::other(
            "what was written here waited in the journal, and cannot be read there any more",
        )),
    }
}

impl File for Through {
    fn kind(&self) -> FileKind {
        self.base.kind()
    }

    fn len(&self) -> io::Result<u64> {
        self.base.len()
    }

    fn read_now(&self, buf: &mut [u8], offset: u64) -> io::Result<bool> {
        if self.waits(offset, buf.len() as u64) {
            return Ok(false);
        }
        self.base.read_now(buf, offset)
    }

    fn write_now(&self, data: &[u8], offset: u64) -> io::Result<bool> {
        if self.waits(offset, data.len() as u64) {
            return Ok(false);
        }
        self.base.write_now(data, offset)
    }

    fn read_at(&self, offset: u64, len: usize) -> Local<'_, io::Result<Vec<u8>>> {
        if !self.waits(offset, len as u64) {
            return self.base.read_at(offset, len);
        }
        Box::pin(self.read_over(offset, len))
    }

    fn write_at(&self, offset: u64, data: Bytes) -> Local<'_, io::Result<()>> {
        let (len, write) = (data.len() as u64, self.base.write_at(offset, data));
        self.changed_by(offset, len, write)
    }

    fn write_durable(&self, offset: u64, data: Bytes) -> Local<'_, io::Result<()>> {
        let (len, write) = (data.len() as u64, self.base.write_durable(offset, data));
        self.changed_by(offset, len, write)
    }

    fn sync_data(&self) -> Local<'_, io::Result<()>> {
        self.base.sync_data()
    }

    fn set_len(&self, len: u64) -> Local<'_, io::Result<()>> {
        self.base.set_len(len)
    }

    fn allocate(&self, offset: u64, len: u64) -> Local<'_, io::Result<()>> {
        self.base.allocate(offset, len)
    }

    fn zero(&self, offset: u64, len: u64, punch: bool) -> Local<'_, io::Result<()>> {
        self.changed_by(offset, len, self.base.zero(offset, len, punch))
    }

    fn zero_fast(&self, offset: u64, len: u64, punch: bool) -> Local<'_, io::Result<()>> {
        self.changed_by(offset, len, self.base.zero_fast(offset, len, punch))
    }

    fn extents(&self, offset: u64, len: u64, max: usize) -> Local<'_, io::Result<Vec<Extent>>> {
        if self.waits(offset, len) {
            return Box::pin(async move { Ok(vec![Extent { offset, len, data: true }]) });
        }
        self.base.extents(offset, len, max)
    }
}
