//! Ending a segment: its index goes behind its records, and the next segment begins.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use bytes::Bytes;

use crate::layout::{Previous, RECORDS_START};

use super::files::{Fresh, MakeError};
use super::index::{self, BLOCK, Body, Entry, Head, PER_BLOCK};
use super::layout::{ENDED, Mark};
use super::state::{Current, Index, Sealed};
use super::{Error, History};

/// Blocks that are written at a time.
const BLOCKS_A_WRITE: usize = 256;

impl History {
    /// Ends the segment that is being written, if there is a record in it.
    ///
    /// # Errors
    /// [`Error::NoSpace`]: nothing was changed. The failure of the history.
    pub async fn seal(self: &Rc<Self>) -> Result<(), Error> {
        let history = self.clone();
        self.detached(async move {
            let _log = history.log.lock().await;
            history.state.borrow().check()?;
            if history.state.borrow().is_blank() {
                return Ok(());
            }
            history.roll().await
        })
        .await
    }

    /// Ends the current segment and begins the next. Call with the log locked.
    pub(super) async fn roll(&self) -> Result<(), Error> {
        self.sync_current().await?;
        let (index, bytes) = self.write_index().await?;
        let (old, file, previous, fresh) = {
            let state = self.state.borrow();
            let current = &state.current;
            let (number, nonce) = (current.segment.number, current.segment.nonce);
            let previous = Previous { number, nonce, end: current.tail };
            let fresh = Fresh {
                number: number + 1,
                previous,
                low: state.low,
                oldest: state.oldest,
                tally: state.tally,
                life: state.life,
            };
            (current.segment.clone(), current.file.clone(), previous, fresh)
        };
        let tally = fresh.tally;
        let next = self.begin(&fresh).await?;
        {
            let mut state = self.state.borrow_mut();
            let ended = std::mem::replace(&mut state.current, next);
            let sealed = Sealed {
                segment: ended.segment,
                bytes,
                end: ended.tail,
                summary: ended.summary,
                index: RefCell::new(index),
            };
            state.sealed.insert(previous.number, Rc::new(sealed));
        }
        let next = self.state.borrow().current.segment.nonce;
        let mark = Mark { generation: ENDED, durable: previous.end, tally, next };
        // Only so that a file that vanishes is missed, and a damaged header does not cost its segment.
        let marked = async {
            self.write_mark(&old, &file, 0, mark).await?;
            file.sync_data().await
        };
        marked.await.map_err(|e| self.fail("mark of the end", e))
    }

    /// Makes a segment, and what is needed to write in it.
    pub(super) async fn begin(&self, fresh: &Fresh) -> Result<Current, Error> {
        let (segment, file) = match self.files.make(fresh).await {
            Ok(made) => made,
            Err(MakeError::NoSpace) => return Err(self.no_space(RECORDS_START)),
            Err(MakeError::Io(action, error)) => return Err(self.fail(action, error)),
        };
        let mut current = Current::new(segment, file, RECORDS_START);
        current.before = fresh.tally;
        Ok(current)
    }

    /// Writes the index behind the records, and syncs it. Returns what stays in memory and how long the
    /// file is.
    async fn write_index(&self) -> Result<(Index, u64), Error> {
        let (entries, head, body, segment, file) = {
            let state = self.state.borrow();
            let current = &state.current;
            let mut entries: Vec<Entry> = current.entries.values().copied().collect();
            entries.sort_unstable_by_key(Entry::key);
            let first = |block: &[Entry]| block.first().map(|e| (e.volume, e.start));
            let body = Body {
                fences: entries.chunks(PER_BLOCK).filter_map(first).collect(),
                events: current.events.clone(),
                touched: current.summary.touched.clone(),
            };
            let head = Head {
                records_end: current.tail,
                entries: entries.len() as u64,
                body_bytes: 0,
                least: current.summary.least,
                most: current.summary.most,
                longest: current.summary.longest,
                before: current.before,
                after: state.tally,
                digest: [0; 32],
                life: state.life,
            };
            (entries, head, body, current.segment.clone(), current.file.clone())
        };
        let encoded = Bytes::from(body.encode());
        let digest = Body::digest(&self.ctx, &encoded).await;
        let head = Head { body_bytes: encoded.len() as u64, digest, ..head };
        let end = head.body_at() + head.body_bytes;
        self.make_room(end).await?;
        let write = async {
            let mut number = 0;
            for blocks in entries.chunks(PER_BLOCK * BLOCKS_A_WRITE) {
                let at = head.block_at(number);
                let mut buffer = Vec::with_capacity(BLOCKS_A_WRITE * BLOCK as usize);
                for block in blocks.chunks(PER_BLOCK) {
                    buffer.extend(index::encode_block(block, number, &segment.nonce));
                    number += 1;
                }
                file.write_at(at, buffer.into()).await?;
            }
            file.write_at(head.body_at(), encoded).await?;
            let encoded = head.encode(&segment.nonce).into();
            file.write_at(index::place(head.records_end), encoded).await?;
            Ok(())
        };
        match write.await {
            Ok(()) => {}
            // What stands behind the records means nothing yet.
            Err(e) if io::Error::kind(&e) == io::ErrorKind::StorageFull => {
                return Err(self.no_space(end - head.records_end));
            }
            Err(e) => return Err(self.fail("write of the index", e)),
        }
        file.sync_data().await.map_err(|e| self.fail("sync", e))?;
        let bytes = self.state.borrow().current.allocated;
        Ok((Index::Disk { at: head.block_at(0), fences: body.fences }, bytes))
    }
}
