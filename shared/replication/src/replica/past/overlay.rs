//! The writes of a drill: laid over a view, in a file that has no name any more, and gone with it.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use disk::{Context, File, OpenMode};
use grain::{GrainSet, Run, Span, VolumeId};
use tokio::sync::Mutex;

use super::View;
use crate::{Error, Result};

/// Bytes of what is kept as written or not.
const BLOCK: u64 = 4096;

/// Room for the writes of a drill, of all volumes together.
pub(super) struct Room {
    most: u64,
    taken: Cell<u64>,
}

impl Room {
    pub(super) fn new(most: u64) -> Rc<Room> {
        Rc::new(Room { most, taken: Cell::new(0) })
    }

    pub(super) fn taken(&self) -> u64 {
        self.taken.get()
    }
}

/// What was written over one volume of a view.
pub(super) struct Overlay {
    view: Rc<View>,
    volume: VolumeId,
    bytes: u64,
    file: Rc<dyn File>,
    /// Blocks that the file has.
    written: RefCell<GrainSet>,
    room: Rc<Room>,
    /// Held by who writes, for the blocks at the ends of a write are read first.
    writing: Mutex<()>,
}

impl Overlay {
    /// An empty one. Its file is made in `dir`, and has no name from then on.
    pub(super) async fn new(
        ctx: &Context,
        dir: &Path,
        view: Rc<View>,
        volume: VolumeId,
        room: Rc<Room>,
    ) -> Result<Overlay> {
        let bytes = view.replica().volumes().get(volume)?.bytes;
        ctx.storage.create_dir(dir).await.map_err(Error::io("make", dir))?;
        let random: [u8; 8] = ctx.random();
        let path = dir.join(format!("overlay-{:016x}", u64::from_le_bytes(random)));
        let file = ctx.storage.open(&path, OpenMode::CreateNew).await;
        let file = file.map_err(Error::io("make", &path))?;
        ctx.storage.remove(&path).await.map_err(Error::io("remove", &path))?;
        let len = bytes.next_multiple_of(BLOCK);
        file.set_len(len).await.map_err(Error::io("lengthen", &path))?;
        let written = RefCell::default();
        Ok(Overlay { view, volume, bytes, file, written, room, writing: Mutex::new(()) })
    }

    fn blocks(&self, from: u64, to: u64) -> Run {
        let (first, end) = (from / BLOCK, to.div_ceil(BLOCK));
        Run { volume: self.volume, first, count: end - first }
    }

    /// The stretches of `from..to` that the file has, or has not, in their order.
    pub(super) fn stretches(&self, from: u64, to: u64) -> Vec<(Span, bool)> {
        let written = self.written.borrow();
        let (mut at, mut out) = (from, Vec::new());
        while at < to {
            let block = at / BLOCK;
            let next = written.next_run((self.volume, block), u64::MAX);
            let next = next.filter(|run| run.volume == self.volume);
            let (end, here) = match next {
                Some(run) if run.first <= block => ((run.first + run.count) * BLOCK, true),
                Some(run) => (run.first * BLOCK, false),
                None => (to, false),
            };
            let end = end.min(to);
            out.push((Span { volume: self.volume, start: at, bytes: end - at }, here));
            at = end;
        }
        out
    }

    /// Reads through to the view.
    pub(super) async fn read(&self, from: u64, to: u64) -> Result<Bytes> {
        let mut stretches = self.stretches(from, to).into_iter();
        let (Some((span, here)), rest) = (stretches.next(), stretches) else {
            return Ok(Bytes::new());
        };
        let first = self.read_one(span, here).await?;
        if rest.len() == 0 {
            return Ok(first);
        }
        let mut bytes = BytesMut::with_capacity((to - from) as usize);
        bytes.extend_from_slice(&first);
        for (span, here) in rest {
            bytes.extend_from_slice(&self.read_one(span, here).await?);
        }
        Ok(bytes.freeze())
    }

    async fn read_one(&self, span: Span, here: bool) -> Result<Bytes> {
        if !here {
            return self.view.read(span).await;
        }
        let read = self.file.read_at(span.start, span.bytes as usize).await;
        Ok(read.map_err(failed("read"))?.into())
    }

    /// Writes, or makes zeros.
    pub(super) async fn write(&self, at: u64, len: u64, data: Option<Bytes>) -> Result<()> {
        let _one = self.writing.lock().await;
        let end = at + len;
        let touched = self.blocks(at, end);
        let new = touched.count - self.written.borrow().count_in(touched);
        // Zeros take no room, but for the ends.
        let takes = if data.is_some() { new } else { new.min(2) } * BLOCK;
        if self.room.taken.get() + takes > self.room.most {
            let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
            return Err(failed("write")(full));
        }
        for edge in [at, end] {
            if !edge.is_multiple_of(BLOCK) && edge < self.bytes {
                self.fill_block(edge / BLOCK).await?;
            }
        }
        let done = match data {
            Some(bytes) => self.file.write_at(at, bytes).await,
            None => self.file.zero(at, len, true).await,
        };
        done.map_err(failed("write"))?;
        self.written.borrow_mut().insert_run(touched);
        self.room.taken.set(self.room.taken.get() + takes);
        Ok(())
    }

    /// Brings what the view has of a block that is written in part.
    async fn fill_block(&self, block: u64) -> Result<()> {
        let run = Run { volume: self.volume, first: block, count: 1 };
        if self.written.borrow().contains_all(run) {
            return Ok(());
        }
        let (from, to) = (block * BLOCK, ((block + 1) * BLOCK).min(self.bytes));
        let span = Span { volume: self.volume, start: from, bytes: to - from };
        let bytes = self.view.read(span).await?;
        self.file.write_at(from, bytes).await.map_err(failed("write"))?;
        self.written.borrow_mut().insert_run(run);
        self.room.taken.set(self.room.taken.get() + BLOCK);
        Ok(())
    }
}

fn failed(what: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    Error::io(what, Path::new("the overlay of a view"))
}
