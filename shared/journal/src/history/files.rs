//! The files of a history: made, made part of it, opened to be read, and removed.

use std::io;
use std::path::PathBuf;
use std::rc::Rc;

use bytes::Bytes;
use disk::{Context, File, OpenMode};

use crate::layout::{HEADER_AT, MARK_AT, Nonce, Previous, RECORDS_START};

use super::layout::{Mark, SegmentHeader, Tally};
use super::segment::{FileName, Segment};
use super::{Error, History, Moment};

/// Files of sealed segments that are kept open.
const OPEN_FILES: usize = 64;

/// What every segment of a history has in common.
pub(super) struct Files {
    pub ctx: Context,
    pub dir: PathBuf,
    pub id: [u8; 16],
    pub geometry_digest: [u8; 32],
}

/// What the header of a new segment says.
pub(super) struct Fresh {
    pub number: u64,
    pub previous: Previous,
    pub low: u64,
    pub oldest: u64,
    pub tally: Tally,
    pub life: u32,
}

/// Why a segment could not be made.
pub(super) enum MakeError {
    /// Nothing was changed.
    NoSpace,
    /// What was tried, and why it failed.
    Io(&'static str, io::Error),
}

impl MakeError {
    fn at(action: &'static str) -> impl Fn(io::Error) -> MakeError {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull => MakeError::NoSpace,
            _ => MakeError::Io(action, source),
        }
    }
}

impl Files {
    /// Makes a segment without records, and makes it part of the history.
    pub(super) async fn make(
        &self,
        fresh: &Fresh,
    ) -> Result<(Rc<Segment>, Rc<dyn File>), MakeError> {
        let (storage, temporary) = (&self.ctx.storage, FileName::fresh(&self.dir));
        match storage.remove(&temporary).await {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(MakeError::Io("remove", e));
            }
            _ => {}
        }
        let nonce: Nonce = self.ctx.random();
        let file = match self.write_fresh(fresh, nonce, &temporary).await {
            Err(MakeError::NoSpace) => {
                drop(storage.remove(&temporary).await);
                return Err(MakeError::NoSpace);
            }
            other => other?,
        };
        let path = FileName::live(&self.dir, fresh.number);
        let renamed = storage.rename(&temporary, &path).await;
        renamed.map_err(|e| MakeError::Io("rename", e))?;
        let synced = storage.sync_dir(&self.dir).await;
        synced.map_err(|e| MakeError::Io("sync of the directory", e))?;
        Ok((Rc::new(Segment { number: fresh.number, nonce, path }), file))
    }

    async fn write_fresh(
        &self,
        fresh: &Fresh,
        nonce: Nonce,
        path: &std::path::Path,
    ) -> Result<Rc<dyn File>, MakeError> {
        let file = self.ctx.storage.open(path, OpenMode::CreateNew).await;
        let file = file.map_err(MakeError::at("create"))?;
        reserve(&file, RECORDS_START).await.map_err(MakeError::at("allocate"))?;
        let header = SegmentHeader {
            number: fresh.number,
            nonce,
            previous: fresh.previous,
            id: self.id,
            geometry: self.geometry_digest,
            low: fresh.low,
            oldest: fresh.oldest,
            tally: fresh.tally,
            life: fresh.life,
        };
        let encoded = Bytes::from(header.encode());
        for at in HEADER_AT {
            let written = file.write_at(at, encoded.clone()).await;
            written.map_err(MakeError::at("write"))?;
        }
        file.sync_data().await.map_err(|e| MakeError::Io("sync", e))?;
        Ok(file)
    }
}

/// Makes room in a file up to `len` bytes.
pub(super) async fn reserve(file: &Rc<dyn File>, len: u64) -> io::Result<()> {
    match file.allocate(0, len).await {
        Err(e) if e.kind() == io::ErrorKind::Unsupported => file.set_len(len).await,
        other => other,
    }
}

impl History {
    /// Latches a failure, and gives it.
    pub(super) fn fail(&self, action: &'static str, source: io::Error) -> Error {
        let mut state = self.state.borrow_mut();
        let segment = state.current.segment.number;
        if state.failed.is_none() {
            tracing::error!(segment, %source, "history: {action} failed; it must be reopened");
        }
        let error = Error::Failed { action, segment, source: Rc::new(source) };
        state.failed.get_or_insert(error).clone()
    }

    pub(super) fn no_space(&self, bytes: u64) -> Error {
        Error::NoSpace { path: self.config.dir.clone(), bytes }
    }

    /// Says in a segment what is durable of it, or that it has ended.
    pub(super) async fn write_mark(
        &self,
        segment: &Segment,
        file: &Rc<dyn File>,
        slot: usize,
        mark: Mark,
    ) -> io::Result<()> {
        let bytes = Bytes::from(mark.encode(&segment.nonce));
        file.write_at(MARK_AT[slot % MARK_AT.len()], bytes).await
    }

    /// The file of a segment, to be read for the sake of `moment`.
    pub(super) async fn file_of(
        &self,
        segment: &Segment,
        moment: Moment,
    ) -> Result<Rc<dyn File>, Error> {
        {
            let state = self.state.borrow();
            if state.current.segment.number == segment.number {
                return Ok(state.current.file.clone());
            }
        }
        if let Some(file) = self.recently_open(segment.number) {
            return Ok(file);
        }
        let file = match self.ctx.storage.open(&segment.path, OpenMode::Read).await {
            Ok(file) => file,
            Err(error) => {
                // It may have been removed meanwhile.
                self.state.borrow().check_kept(moment)?;
                return Err(Error::io("open", &segment.path, error));
            }
        };
        let mut files = self.open_files.borrow_mut();
        files.push_back((segment.number, file.clone()));
        if files.len() > OPEN_FILES {
            files.pop_front();
        }
        Ok(file)
    }

    fn recently_open(&self, number: u64) -> Option<Rc<dyn File>> {
        let mut files = self.open_files.borrow_mut();
        let at = files.iter().position(|(n, _)| *n == number)?;
        let used = files.remove(at)?;
        let file = used.1.clone();
        files.push_back(used);
        Some(file)
    }

    /// Gives up the segments below the low-water mark, which is durable. What cannot be removed means
    /// nothing, and the next opening clears it away.
    pub(super) async fn remove_below_low(&self) {
        loop {
            let sealed = {
                let mut state = self.state.borrow_mut();
                let low = state.low;
                match state.sealed.first_entry() {
                    Some(entry) if *entry.key() < low => entry.remove(),
                    _ => break,
                }
            };
            let segment = &sealed.segment;
            self.open_files.borrow_mut().retain(|(number, _)| *number != segment.number);
            if let Err(error) = self.ctx.storage.remove(&segment.path).await {
                tracing::warn!(path = %segment.path.display(), %error, "cannot remove a segment");
            }
        }
    }
}
