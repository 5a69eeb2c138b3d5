//! Where preserved grains wait for the sink: a bounded memory buffer, then a side file whose space
//! was reserved beforehand.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::rc::Rc;

use bytes::Bytes;
use disk::{Context, File, OpenMode};
use grain::{Content, GrainData, Run};

use crate::{Error, Result};

/// The side file, reserved in full.
pub struct SideFile {
    file: Rc<dyn File>,
    path: PathBuf,
    limit: u64,
    /// The next free byte; back to 0 when nothing is stored.
    end: u64,
    stored: u64,
}

impl SideFile {
    /// Makes `path` with `bytes` reserved; an old one is replaced.
    pub async fn create(ctx: &Context, path: PathBuf, bytes: u64) -> Result<SideFile> {
        match ctx.storage.remove(&path).await {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("remove", &path)(e));
            }
            _ => {}
        }
        let file = ctx.storage.open(&path, OpenMode::CreateNew).await;
        let file = file.map_err(Error::io("create", &path))?;
        match file.allocate(0, bytes).await {
            // A file system that cannot reserve is told by the first failing write instead.
            Err(e) if e.kind() == std::io::ErrorKind::Unsupported => {}
            other => other.map_err(Error::io("reserve space in", &path))?,
        }
        Ok(SideFile { file, path, limit: bytes, end: 0, stored: 0 })
    }
}

/// Where one preserved run is.
pub(super) enum Kept {
    Memory(GrainData),
    Side { run: Run, file: Rc<dyn File>, path: PathBuf, offset: u64, len: usize },
}

/// A place in the side file that was given out for one run.
pub(super) struct SidePlace {
    pub(super) file: Rc<dyn File>,
    pub(super) path: PathBuf,
    pub(super) offset: u64,
    pub(super) len: u64,
}

/// Bookkeeping of what is preserved; no waiting here.
pub(super) struct Store {
    kept: VecDeque<Kept>,
    memory: u64,
    memory_limit: u64,
    side: Option<SideFile>,
    /// The most bytes that were ever in memory.
    pub(super) memory_peak: u64,
}

impl Store {
    pub(super) fn new(memory_limit: u64, side: Option<SideFile>) -> Store {
        Store { kept: VecDeque::new(), memory: 0, memory_limit, side, memory_peak: 0 }
    }

    /// Keeps `data` in memory if there is room.
    pub(super) fn keep(&mut self, data: GrainData) -> Result<(), GrainData> {
        let bytes = data.content.bytes();
        // One run always fits, however small the limit: else it would wait for room for ever.
        if bytes > 0 && self.memory > 0 && self.memory + bytes > self.memory_limit {
            return Err(data);
        }
        self.memory += bytes;
        self.memory_peak = self.memory_peak.max(self.memory);
        self.kept.push_back(Kept::Memory(data));
        Ok(())
    }

    /// Takes back what [`Store::take`] gave.
    pub(super) fn put_back(&mut self, kept: Kept) {
        if let Kept::Memory(data) = &kept {
            self.memory += data.content.bytes();
        }
        self.kept.push_front(kept);
    }

    /// Takes a place in the side file, if there is room.
    pub(super) fn side_place(&mut self, len: u64) -> Option<SidePlace> {
        let side = self.side.as_mut()?;
        if side.end + len > side.limit {
            return None;
        }
        let offset = side.end;
        side.end += len;
        side.stored += len;
        Some(SidePlace { file: side.file.clone(), path: side.path.clone(), offset, len })
    }

    /// The run is now written at its place.
    pub(super) fn placed(&mut self, run: Run, place: SidePlace) {
        let SidePlace { file, path, offset, len } = place;
        self.kept.push_back(Kept::Side { run, file, path, offset, len: len as usize });
    }

    /// Gives a place back unused.
    pub(super) fn unplace(&mut self, len: u64) {
        if let Some(side) = &mut self.side {
            side.stored -= len;
            if side.stored == 0 {
                side.end = 0;
            }
        }
    }

    /// The oldest preserved run.
    pub(super) fn take(&mut self) -> Option<Kept> {
        let kept = self.kept.pop_front()?;
        if let Kept::Memory(data) = &kept {
            self.memory -= data.content.bytes();
        }
        Some(kept)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Bytes waiting, in memory and in the side file.
    pub(super) fn waiting(&self) -> (u64, u64) {
        (self.memory, self.side.as_ref().map_or(0, |s| s.stored))
    }
}

impl Kept {
    /// The run with its content; what was on the side is read back.
    pub(super) async fn load(&self) -> Result<GrainData> {
        match self {
            Kept::Memory(data) => Ok(data.clone()),
            Kept::Side { run, file, path, offset, len } => {
                let bytes = file.read_at(*offset, *len).await.map_err(Error::io("read", path))?;
                Ok(GrainData { run: *run, content: Content::Data(Bytes::from(bytes)) })
            }
        }
    }

    /// Bytes held in the side file.
    pub(super) fn side_bytes(&self) -> u64 {
        match self {
            Kept::Memory(_) => 0,
            Kept::Side { len, .. } => *len as u64,
        }
    }
}
